package pipeline

import (
	"context"
	"maps"
	"time"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/route"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/retry"
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
		return o.withRunning(config), release, nil
	}
	if t == nil {
		t = o.Target(name) // which says that the mesh is closed
	}
	if config, err = t.Config(ctx); err != nil {
		return nil, nil, err
	}
	return config, func() {}, nil
}

// withRunning is a configuration with those of its clusters that are called for
// another target, so that what is seen of them is their state.
func (o *Outbound) withRunning(config *Config) *Config {
	shown := *config
	shown.Clusters = maps.Clone(config.Clusters)
	for name := range shown.Clusters {
		if running := o.upstreams.Running(name); running != nil {
			shown.Clusters[name] = running
		}
	}
	return &shown
}

// Err is why no call can be made by the configuration, nil if calls can.
func (c *Config) Err() error { return c.filtersErr }

// Plan is what bounds and repeats a call: what its route says, within which the
// application has its own say.
type Plan struct {
	// Limit is for the whole call, 0 without a limit. MinTime must be left for an
	// attempt to begin.
	Limit, MinTime time.Duration
	Policy         retry.Policy
	// Hedge is nil without hedging.
	Hedge    *retry.Hedge
	Priority discovery.RoutingPriority
	// Prefer is the locality that the application prefers, nil without one. Keyed is
	// whether it gives the key that is hashed.
	Prefer *balancer.Locality
	Keyed  bool
	// Late is why nothing would be sent: too little of the call's time is left. Passed
	// is whether none was given.
	Late   error
	Passed bool
}

// Plan returns the plan of a call that is not made, by a decision that forwards it.
// h is what would be sent: the headers by which the application controls the call
// are taken out of it.
func (c *Config) Plan(ctx context.Context, d *route.Decision, protocol observe.Protocol, req *route.Request, h route.HeaderMap) Plan {
	call := &Call{Decision: *d, now: time.Now()}
	call.Observed.Protocol = protocol
	call.plan(ctx, req)
	call.Control(h)
	call.customize()
	call.bound(ctx, c)
	defer call.timeout.Stop()
	plan := Plan{
		Limit: call.limit(c), MinTime: call.minTime, Policy: *call.policy, Hedge: call.hedge, Priority: call.routingPriority,
		Prefer: call.pick.Prefer, Keyed: call.pick.Hashed, Passed: call.passed(),
	}
	if left, late := call.late(0); late {
		plan.Late = call.tooLate(left.Round(time.Millisecond)) // the same, however long explaining takes
	}
	return plan
}
