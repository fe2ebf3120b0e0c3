package pipeline

import (
	"context"

	"github.com/inboardmesh/inboard/observe"
)

// Peek returns the configuration of a target, to look at: the one in force, or of
// a target that is not called one that is followed until release, which must be
// called. The wait and the errors are those of [Target.Config].
func (o *Outbound) Peek(ctx context.Context, name string) (config *Config, release func(), err error) {
	o.mu.RLock()
	t := o.targets[name]
	closed := o.closed
	o.mu.RUnlock()
	if t == nil && !closed {
		spare := o.upstreams.Spare()
		apart := NewOutbound(o.source, spare, &observe.Hooks{})
		release = func() {
			apart.Close()
			spare.Close()
		}
		if config, err = apart.Target(name).Config(ctx); err != nil {
			release()
			return nil, nil, err
		}
		return config, release, nil
	}
	if t == nil {
		t = o.Target(name) // which says that the mesh is closed
	}
	if config, err = t.Config(ctx); err != nil {
		return nil, nil, err
	}
	return config, func() {}, nil
}

// Err is why no call can be made by the configuration, nil if calls can.
func (c *Config) Err() error { return c.filtersErr }
