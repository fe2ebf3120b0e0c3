package grpcmesh

import (
	"errors"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/breaker"
	"github.com/inboardmesh/inboard/internal/pipeline"
	"github.com/inboardmesh/inboard/internal/upstream"
	"github.com/inboardmesh/inboard/outcome"
)

// Calls that wait for ready, and for which there is no endpoint that is fit, wait for
// gRPC's next picker. A channel is told of connections and of configurations, but not
// of an endpoint that becomes fit by itself: its ejection ends, it passes its health
// checks, a resolver has found it, its breaker lets a call pass again. The policy is on
// the lookout for that as long as there are such calls.

const (
	// lookoutPause is how long calls are not woken again for an endpoint that has
	// become fit: of ten thousand endpoints that do one by one, one would do.
	lookoutPause = 10 * time.Millisecond
	// longestLookout bounds the wait for a breaker: a probe that is given up makes room
	// for another one without a word.
	longestLookout = time.Second
)

// lookout is what a policy has an eye on. Its fields are guarded by policy.mu.
type lookout struct {
	stops map[*upstream.Cluster]func()
	// breakers fires when the breaker of an endpoint may let a call pass, late at the
	// end of the pause in which something has changed. nil if there is nothing of that.
	breakers, late *time.Timer
	woken          time.Time
}

// endLocked ends the lookout.
func (l *lookout) endLocked() {
	for _, stop := range l.stops {
		stop()
	}
	for _, timer := range []*time.Timer{l.breakers, l.late} {
		if timer != nil {
			timer.Stop()
		}
	}
	l.stops, l.breakers, l.late = nil, nil, nil
}

// lookOut sees to it that calls which wait pick again when an endpoint of the cluster
// may have become fit; err is why there is none now. It reports whether that is new: then
// it may have happened since, and the caller must pick again.
func (p *policy) lookOut(cluster *upstream.Cluster, err error) bool {
	var reopening time.Duration
	tripped := errors.Is(err, breaker.ErrOpen)
	if tripped {
		reopening, _ = cluster.Reopening() // without the lock: hooks may be told
		reopening = min(reopening, longestLookout)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	l := &p.lookout
	if tripped && l.breakers == nil {
		l.breakers = time.AfterFunc(reopening, p.fit)
	}
	if l.stops[cluster] != nil {
		return false
	}
	if l.stops == nil {
		l.stops = make(map[*upstream.Cluster]func())
	}
	l.stops[cluster] = cluster.AfterChange(p.fit)
	return true
}

// fit wakes the calls that wait: there may be an endpoint for them. Those for which
// there is none begin a new lookout.
func (p *policy) fit() {
	p.mu.Lock()
	l := &p.lookout
	if p.closed || l.stops == nil {
		p.mu.Unlock()
		return
	}
	if left := lookoutPause - time.Since(l.woken); left > 0 {
		if l.late == nil {
			l.late = time.AfterFunc(left, p.fit)
		}
		p.mu.Unlock()
		return
	}
	l.endLocked()
	l.woken = time.Now()
	p.mu.Unlock()
	p.publish()
}

// find picks an endpoint for an attempt that has none. The caller holds picking.
func (p *picker) find(a *attempt) (*upstream.Endpoint, error) {
	for {
		before := a.pipeline.Cluster()
		if a.pipeline.Reroute(); a.pipeline.Cluster() != before {
			a.waitOver() // which was there
		}
		endpoint, err := a.pipeline.Pick()
		switch {
		case err == nil:
			if kind, err := a.pipeline.Resume(); err != nil {
				return nil, a.refused(kind, err)
			}
			return endpoint, nil
		case pipeline.PickKind(err) == outcome.Overflow:
			return nil, a.refused(outcome.Overflow, err)
		case a.pipeline.Routed().Left():
			return nil, a.refused(outcome.NoEndpoint, err) // nor will there be one
		case !a.waitsForReady() || !p.policy.lookOut(a.pipeline.Routed(), err):
			return nil, a.vain(outcome.NoEndpoint, err)
		}
		a.pipeline.Pause() // the next round may be in another cluster of an aggregate
	}
}

// unreachable is for an attempt whose endpoints cannot be connected to: others may become
// fit before they can. The caller holds picking.
func (p *picker) unreachable(a *attempt, failure error) error {
	switch {
	case a.pipeline.Routed().Left():
		return a.refused(outcome.ConnectFailure, failure) // they are nobody's any more
	case a.waitsForReady():
		p.policy.lookOut(a.pipeline.Routed(), failure)
	}
	return a.vain(outcome.ConnectFailure, failure)
}

// vain remembers why there is no connection for the attempt. If its call waits for
// ready it waits for one, and holds nothing meanwhile but its place among those that
// wait. The caller holds picking.
func (a *attempt) vain(kind outcome.Kind, err error) error {
	if a.waitsForReady() {
		if full := a.wait(); full != nil {
			return full
		}
		a.pipeline.Pause()
	}
	return a.pickFailed(kind, err)
}

// refused remembers why the attempt must not go on. It returns a status, so that its
// call does not wait.
func (a *attempt) refused(kind outcome.Kind, err error) error {
	_ = a.pickFailed(kind, err)
	return status.Error(codes.Unavailable, err.Error())
}

// waitsForReady reports whether gRPC lets the attempt wait when its pick has failed.
func (a *attempt) waitsForReady() bool {
	waits := false
	for _, o := range a.opts {
		if o, ok := o.(grpc.FailFastCallOption); ok {
			waits = !o.FailFast
		}
	}
	return waits
}
