package upstream

import (
	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/breaker"
	"github.com/inboardmesh/inboard/observe"
)

// followBreaker gives the endpoint a breaker of its own by these settings; nil takes
// it away. Equal settings keep what was counted.
func (e *Endpoint) followBreaker(settings *breaker.Settings) {
	if settings == nil {
		e.errorRate.Store(nil)
		return
	}
	if b := e.errorRate.Load(); b != nil {
		b.SetSettings(*settings)
		return
	}
	hooks, name := e.cluster.manager.options.Hooks, e.cluster.name
	e.errorRate.Store(breaker.NewErrorRate(name+" "+e.address, *settings, func(from, to breaker.State) {
		if hooks.BreakerChanged != nil {
			hooks.BreakerChanged(observe.BreakerEvent{Cluster: name, Endpoint: e.address, From: from.String(), To: to.String()})
		}
	}))
}

// Allow admits an attempt past the endpoint's own breaker, if it has one, or returns
// an error that matches [breaker.ErrOpen]. The caller must call Done of the permit.
func (e *Endpoint) Allow() (breaker.Permit, error) { return e.errorRate.Load().Allow() }

// tripped reports whether the breaker of a host lets nothing pass.
func tripped(h *balancer.Host) bool {
	e := made(h)
	return e != nil && e.errorRate.Load().State() == breaker.Open
}

// omitTripped adds to what a pick omits the hosts whose breakers are open.
func omitTripped(omit func(*balancer.Host) bool) func(*balancer.Host) bool {
	if omit == nil {
		return tripped
	}
	return func(h *balancer.Host) bool { return tripped(h) || omit(h) }
}

// track reports the capacities that the configuration asks for, by priority. The
// caller holds applyMu.
func (c *Cluster) track(wanted [2]bool) {
	hooks := c.manager.options.Hooks
	for i, gate := range c.gates {
		switch {
		case wanted[i] && c.tracked[i] == nil:
			c.tracked[i] = &observe.Capacity{
				Cluster: c.name, Priority: [...]string{"default", "high"}[i],
				Remaining: func() observe.Remaining { return observe.Remaining(gate.Remaining()) },
			}
			if hooks.CapacityTracked != nil {
				hooks.CapacityTracked(c.tracked[i])
			}
		case !wanted[i] && c.tracked[i] != nil:
			if hooks.CapacityUntracked != nil {
				hooks.CapacityUntracked(c.tracked[i])
			}
			c.tracked[i] = nil
		}
	}
}
