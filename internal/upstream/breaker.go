package upstream

import (
	"sync"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/breaker"
	"github.com/inboardmesh/inboard/observe"
)

// followBreaker gives the endpoint a breaker of its own if its cluster has settings for
// one, or takes it away. Equal settings keep what was counted.
func (e *Endpoint) followBreaker() {
	for {
		config := e.cluster.Config()
		if config == nil {
			return
		}
		e.setBreaker(config.EndpointBreaker)
		// An endpoint is made by its first call, at any time: also of the configuration
		// that is being replaced.
		if e.cluster.Config() == config {
			return
		}
	}
}

func (e *Endpoint) setBreaker(settings *breaker.Settings) {
	if settings == nil {
		e.errorRate.Swap(nil).leave()
		return
	}
	if b := e.errorRate.Load(); b != nil {
		b.SetSettings(*settings)
		return
	}
	b := &endpointBreaker{endpoint: e}
	b.ErrorRate = breaker.NewErrorRate(e.cluster.name+" "+e.address, *settings, b.changed)
	e.errorRate.CompareAndSwap(nil, b)
}

// endpointBreaker is the breaker of an endpoint. Whoever counts those that are open is
// told when one is not there any more.
type endpointBreaker struct {
	*breaker.ErrorRate

	endpoint *Endpoint

	mu    sync.Mutex
	state breaker.State // guarded by mu; that was told last
	left  bool          // guarded by mu
}

func (b *endpointBreaker) changed(from, to breaker.State) {
	b.endpoint.cluster.set.Changed()
	b.mu.Lock()
	left := b.left
	if !left {
		b.state = to
	}
	b.mu.Unlock()
	if !left {
		b.tell(from, to)
	}
}

// leave tells that the breaker is closed, if it was not, and nothing afterwards.
func (b *endpointBreaker) leave() {
	if b == nil {
		return
	}
	b.mu.Lock()
	state := b.state
	b.state, b.left = breaker.Closed, true
	b.mu.Unlock()
	if state != breaker.Closed {
		b.tell(state, breaker.Closed)
	}
}

func (b *endpointBreaker) tell(from, to breaker.State) {
	cluster := b.endpoint.cluster
	if hook := cluster.manager.options.Hooks.BreakerChanged; hook != nil {
		hook(observe.BreakerEvent{Cluster: cluster.name, Endpoint: b.endpoint.address, From: from.String(), To: to.String()})
	}
}

// Allow admits an attempt past the endpoint's own breaker, if it has one, or returns
// an error that matches [breaker.ErrOpen]. The caller must call Done of the permit.
func (e *Endpoint) Allow() (breaker.Permit, error) { return e.rate().Allow() }

// Refuses reports whether [Endpoint.Allow] would refuse an attempt now.
func (e *Endpoint) Refuses() bool { return !e.rate().Passes() }

// rate is the endpoint's own breaker, nil without one.
func (e *Endpoint) rate() *breaker.ErrorRate {
	if b := e.errorRate.Load(); b != nil {
		return b.ErrorRate
	}
	return nil
}

// Tripped reports whether the breaker of a host, if it has one, lets nothing pass now.
func Tripped(h *balancer.Host) bool {
	e := made(h)
	return e != nil && e.Refuses()
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
