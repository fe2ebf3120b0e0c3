package pipeline

import (
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/route"
)

// Decided is where a call to the same target goes, before it is made.
type Decided struct {
	config   *Config
	decision route.Decision
	err      error // there is no configuration
}

// Unconfigured is for a call whose configuration has been waited for in vain: err is
// what [Target.Config] said.
func Unconfigured(err error) *Decided { return &Decided{err: err} }

// Route is the route that was found.
func (d *Decided) Route() *discovery.Route { return d.decision.Route }

// Decide routes a request to the call's target, as if it were a call of its own,
// by the configuration that is in force. ok is false if no route matches.
func (c *Call) Decide(req *route.Request) (d Decided, ok bool) {
	if d.config = c.target.config.Load(); d.config == nil {
		return Decided{}, false
	}
	d.decision, ok = d.config.Routes.Match(req)
	return d, ok
}

// Succeed makes next, which must be zero, a call to the same target, see
// [Outbound.Prepare].
func (c *Call) Succeed(next *Call, adapter Adapter) { c.out.Prepare(next, c.target, adapter) }
