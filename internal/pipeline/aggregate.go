package pipeline

import (
	"github.com/inboardmesh/inboard/internal/upstream"
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
	in, err := a.enter(next)
	if err != nil {
		return err
	}
	a.lock()
	old, lost := a.admitted, a.ended
	if !lost {
		a.admitted.gate, a.admitted.errorRate = in.gate, in.errorRate
		a.goTo(next)
		a.pick.Part, a.pick.PriorityBase = info.Part, info.PriorityBase
	}
	a.unlock()
	if lost { // it was given up meanwhile
		in.leave(outcome.Ignored)
		return errLost
	}
	old.leave(outcome.Failure) // nothing there could be connected to
	return nil
}

func (a *Attempt) goTo(next *upstream.Cluster) { a.cluster, a.Observed.Cluster = next, next.Name() }
