package pipeline

import (
	"errors"

	"github.com/inboardmesh/inboard/breaker"
	"github.com/inboardmesh/inboard/outcome"
)

// move takes the attempt to another cluster of an aggregate, with the permits that
// it needs there, if the one that it is in has no endpoint left for it.
func (a *Attempt) move() error {
	if a.cluster == a.call.cluster {
		return nil
	}
	info := *a.pick
	next := a.call.cluster.Leaf(&info)
	if next == a.cluster || !a.cluster.Exhausted(*a.pick) {
		return nil
	}
	var permit breaker.Permit
	if b := next.ErrorRate(); b != nil {
		var err error
		if permit, err = b.Allow(); err != nil {
			a.call.overflowed(next, "breaker")
			return err
		}
	}
	gate := next.Gate(a.call.priority())
	if !gate.TryRequest() {
		permit.Done(outcome.Ignored)
		a.call.overflowed(next, "requests")
		return errors.New("circuit breaker: too many requests")
	}
	a.lock()
	old, lost := a.admitted, a.ended
	if !lost {
		a.admitted.gate, a.errorRate = gate, permit
		a.cluster, a.Observed.Cluster = next, next.Name()
		a.pick.Part, a.pick.PriorityBase = info.Part, info.PriorityBase
	}
	a.unlock()
	if lost { // it was given up meanwhile
		permit.Done(outcome.Ignored)
		gate.ReleaseRequest()
		return errLost
	}
	old.errorRate.Done(outcome.Failure) // nothing there could be connected to
	old.gate.ReleaseRequest()
	return nil
}
