package pipeline

import (
	"errors"

	"github.com/inboardmesh/inboard/breaker"
	"github.com/inboardmesh/inboard/internal/upstream"
	"github.com/inboardmesh/inboard/outcome"
)

// Pause gives back what the attempt holds, while it waits until there is an endpoint for
// it: the others, for which there may be one, must not be refused because of those that
// wait. [Attempt.Resume] takes it again.
func (a *Attempt) Pause() {
	a.lock()
	if a.ended || a.paused {
		a.unlock()
		return
	}
	a.paused = true
	held, load := a.admitted, a.load
	a.admitted.errorRate, a.admitted.endpoint = breaker.Permit{}, breaker.Permit{}
	a.host, a.Endpoint, a.load = nil, nil, nil
	a.unlock()
	defer held.gate.ReleaseRequest()
	defer held.errorRate.Done(outcome.Ignored) // hooks may panic
	defer held.endpoint.Done(outcome.Ignored)
	if held.host != nil {
		held.host.End()
		load.Withdraw()
	}
}

// Reroute takes an attempt that was paused to the cluster of an aggregate that it would go
// to now. Its permits are not needed before there is an endpoint: see [Attempt.Resume].
func (a *Attempt) Reroute() {
	if !a.isPaused() {
		return
	}
	info := *a.pick
	next := a.call.cluster.Leaf(&info)
	a.lock()
	defer a.unlock()
	if !a.ended {
		a.goTo(next)
		a.pick.Part, a.pick.PriorityBase = info.Part, info.PriorityBase
	}
}

// Resume takes the permits again that [Attempt.Pause] gave back, those of the cluster that
// the attempt is in now. It does nothing after nothing. An error is why the attempt must
// not go on, and kind what that is.
func (a *Attempt) Resume() (kind outcome.Kind, err error) {
	if !a.isPaused() {
		return 0, nil
	}
	if err := a.cluster.Err(); err != nil {
		return outcome.NoConfig, err
	}
	in, err := a.enter(a.cluster)
	if err != nil {
		return outcome.Overflow, err
	}
	a.lock()
	lost := a.ended
	if !lost {
		a.paused = false
		a.admitted.gate, a.admitted.errorRate = in.gate, in.errorRate
	}
	a.unlock()
	if lost { // it was given up meanwhile
		in.leave(outcome.Ignored)
		return outcome.Canceled, errLost
	}
	return 0, nil
}

func (a *Attempt) isPaused() bool {
	a.lock()
	defer a.unlock()
	return a.paused
}

// Routed is the cluster that the attempt's route is to: an aggregate, or Cluster.
func (a *Attempt) Routed() *upstream.Cluster { return a.call.cluster }

var errRequests = errors.New("circuit breaker: too many requests")

// enter takes the permits of a cluster to which the attempt moves.
func (a *Attempt) enter(next *upstream.Cluster) (in admitted, err error) {
	if b := next.ErrorRate(); b != nil {
		if in.errorRate, err = b.Allow(); err != nil {
			a.call.overflowed(next, "breaker")
			return admitted{}, limited{err}
		}
	}
	if in.gate = next.Gate(a.call.priority()); !in.gate.TryRequest() {
		in.errorRate.Done(outcome.Ignored)
		a.call.overflowed(next, "requests")
		return admitted{}, limited{errRequests}
	}
	return in, nil
}

// leave gives the permits of a cluster back.
func (in *admitted) leave(verdict outcome.Verdict) {
	defer in.gate.ReleaseRequest()
	in.errorRate.Done(verdict)
}
