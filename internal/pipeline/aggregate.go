package pipeline

import (
	"errors"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/breaker"
	"github.com/inboardmesh/inboard/internal/upstream"
	"github.com/inboardmesh/inboard/outcome"
)

// An attempt goes to one cluster of an aggregate, whose permits it takes before it picks
// an endpoint there. Meanwhile that cluster may lose its endpoints, or the aggregate the
// cluster: as long as nothing was sent the attempt then moves to the next.

// choose chooses the cluster that the attempt goes to.
func (a *Attempt) choose() {
	whole := a.call.cluster
	if a.cluster = whole.Leaf(a.pick); a.cluster != whole && a.cluster.Err() != nil {
		a.cluster = whole.Leaf(a.pick) // it may have failed a moment ago, and another one serve
	}
}

// next is the cluster that the attempt would go to now, and by what it would pick there,
// if that is another one than it is in.
func (a *Attempt) next() (next *upstream.Cluster, info balancer.PickInfo, ok bool) {
	info = *a.pick
	next = a.call.cluster.Leaf(&info)
	return next, info, next != a.cluster && next.Err() == nil && !next.Left()
}

// gone is why the attempt's cluster can serve no attempts any more, nil if it can: that it
// cannot be used, or is none of its aggregate any more.
func (a *Attempt) gone() error {
	switch {
	case a.cluster == a.call.cluster:
		return nil
	case a.cluster.Left():
		return errLeft
	}
	return a.cluster.Err()
}

var errLeft = errors.New("the cluster is none of its aggregate any more")

// pickAnywhere chooses an endpoint for the attempt: one of its cluster or, if that has
// none left, of another one, to which the attempt moves with what it holds.
func (a *Attempt) pickAnywhere() (endpoint *upstream.Endpoint, permit breaker.Permit, err error) {
	const tries = 4 // what there is may change again and again
	gone := a.gone()
	if err = gone; err == nil {
		if endpoint, permit, err = a.pickAdmitted(a.cluster, *a.pick); err == nil {
			return endpoint, permit, nil
		}
	}
	for range tries {
		next, info, ok := a.next()
		if !ok || a.isPaused() { // then it holds nothing that could move, see Reroute
			break
		}
		endpoint, permit, nextErr := a.pickAdmitted(next, info)
		if nextErr != nil {
			continue
		}
		if err := a.enterNext(next, &info, outcome.Ignored); err != nil {
			permit.Done(outcome.Ignored)
			return nil, breaker.Permit{}, err
		}
		return endpoint, permit, nil
	}
	if gone != nil { // nothing better is there
		return a.pickAdmitted(a.cluster, *a.pick)
	}
	return nil, breaker.Permit{}, err
}

// move takes the attempt to another cluster of an aggregate, with the permits that
// it needs there, if the one that it is in has no endpoint left for it. The verdict is
// about that.
func (a *Attempt) move(verdict outcome.Verdict) error {
	if a.cluster == a.call.cluster {
		return nil
	}
	next, info, ok := a.next()
	if !ok || !a.cluster.Exhausted(*a.pick) {
		return nil
	}
	return a.enterNext(next, &info, verdict)
}

// enterNext takes the permits of the cluster that the attempt moves to, and gives those
// back of the one that it was in.
func (a *Attempt) enterNext(next *upstream.Cluster, info *balancer.PickInfo, verdict outcome.Verdict) error {
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
	old.leave(verdict)
	return nil
}

func (a *Attempt) goTo(next *upstream.Cluster) { a.cluster, a.Observed.Cluster = next, next.Name() }

// limited is why a cluster to which an attempt moves does not take it.
type limited struct{ error }

func (l limited) Unwrap() error { return l.error }

// PickKind is what a call that fails because of an error of [Attempt.Pick] has failed of.
func PickKind(err error) outcome.Kind {
	if _, ok := errors.AsType[limited](err); ok {
		return outcome.Overflow
	}
	return outcome.NoEndpoint
}
