package grpcmesh

import (
	"container/list"
	"context"

	"google.golang.org/grpc/connectivity"

	"github.com/inboardmesh/inboard/internal/upstream"
)

// Calls that find no connection to an endpoint, or no room on one, wait in line. gRPC
// would wake them all whenever a call ends, so that each end costs as much as calls wait.

// line is the calls that wait for a connection to one endpoint, the first one in front.
// Its fields are guarded by policy.mu.
type line struct {
	waiting list.List // of *turn
	// called is how many turns have come and are not taken yet: so much of the room
	// is theirs.
	called int
	// stay ends the wait for the endpoint to leave its cluster, nil without one: there was
	// no sub-connection that waits for that.
	stay func() bool
}

// turn is a call's place in a line. Its fields are guarded by policy.mu, but come, and
// over once that is closed.
type turn struct {
	endpoint *upstream.Endpoint
	// come is closed when the turn has come, or the call must look elsewhere.
	come chan struct{}
	// place is nil unless the turn waits; called is whether room is kept for it, over
	// whether the channel has been closed instead.
	place        *list.Element
	called, over bool
}

// queue gives a call a place in the line, in front if its turn had come and the room
// was lost, and makes the connections that are missing. overflow is whether a limit keeps
// it from that. If none can be connected any more, and the call does not insist, its turn
// is over at once: it must look elsewhere.
func (p *policy) queue(endpoint *upstream.Endpoint, insist bool, before *turn) (t *turn, overflow bool) {
	t = &turn{endpoint: endpoint, come: make(chan struct{})}
	p.mu.Lock()
	defer p.mu.Unlock()
	front := before != nil && before.called && before.endpoint == endpoint
	if front {
		before.called = false // nobody else is called before it is in front
		p.lines[endpoint].called--
	} else {
		p.leaveLocked(before)
	}
	if p.closed {
		t.over = true
		close(t.come)
		return t, false
	}
	if failed := p.failedLocked(endpoint); failed != nil && (!insist || failed.state == connectivity.TransientFailure) {
		close(t.come) // since get
		p.callLocked(endpoint)
		return t, false
	}
	l := p.lines[endpoint]
	if l == nil {
		l = new(line)
		if p.lines == nil {
			p.lines = make(map[*upstream.Endpoint]*line)
		}
		p.lines[endpoint] = l
	}
	if front {
		t.place = l.waiting.PushFront(t)
	} else {
		t.place = l.waiting.PushBack(t)
	}
	// A call that ends from now on sees the one that waits; what has ended before is
	// seen here.
	p.waiting.Add(1)
	return t, p.callLocked(endpoint)
}

// wait waits for the turn, or for the end of the call or of the channel.
func (t *turn) wait(ctx context.Context) bool {
	select {
	case <-t.come:
		return !t.over
	case <-ctx.Done():
		return false
	}
}

// leave gives up a turn, whatever has become of it. The room that was kept for it is
// the next one's. nil is none.
func (p *policy) leave(t *turn) {
	if t == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.leaveLocked(t)
}

func (p *policy) leaveLocked(t *turn) {
	switch {
	case t == nil:
		return
	case t.place != nil:
		p.lines[t.endpoint].waiting.Remove(t.place)
		t.place = nil
		p.waiting.Add(-1)
	case t.called:
		t.called = false
		if l := p.lines[t.endpoint]; l != nil {
			l.called--
		}
	default:
		return
	}
	p.callLocked(t.endpoint)
}

// admitsLocked reports whether a call may take room, if there is some: nobody does who
// comes later than those that wait.
func (p *policy) admitsLocked(endpoint *upstream.Endpoint, t *turn) bool {
	l := p.lines[endpoint]
	if l == nil || t != nil && t.called && t.endpoint == endpoint {
		return true
	}
	return l.waiting.Len() == 0 && l.called < p.roomLocked(endpoint)
}

// takenLocked takes note that the call has taken the room that was kept for it.
func (p *policy) takenLocked(t *turn) {
	if t == nil || !t.called {
		return
	}
	t.called = false
	p.lines[t.endpoint].called--
	p.callLocked(t.endpoint)
}

// callLocked calls those in front, as many as there is room for, and makes connections for
// the others. overflow is whether a limit keeps it from that.
func (p *policy) callLocked(endpoint *upstream.Endpoint) (overflow bool) {
	l := p.lines[endpoint]
	if l == nil {
		return false
	}
	if l.waiting.Len() > 0 {
		for room := p.roomLocked(endpoint); l.waiting.Len() > 0 && l.called < room; l.called++ {
			p.nextLocked(l, p.closed).called = true
		}
	}
	if l.waiting.Len() > 0 {
		overflow = p.dialLocked(endpoint, l)
	}
	switch {
	case l.waiting.Len() == 0 && l.called == 0:
		if l.stay != nil {
			l.stay()
		}
		delete(p.lines, endpoint)
	case overflow && l.stay == nil && len(p.conns[endpoint]) == 0 && !endpoint.Draining():
		l.stay = endpoint.AfterLeaving(func() { p.leftLine(endpoint) })
	}
	return overflow
}

// nextLocked takes the first turn out of a line and lets it go on, if the channel is not
// over.
func (p *policy) nextLocked(l *line, over bool) *turn {
	t := l.waiting.Remove(l.waiting.Front()).(*turn) //nolint:forcetypeassert // a line holds nothing else
	t.place = nil
	p.waiting.Add(-1)
	t.over = over
	close(t.come)
	return t
}

// movedLocked follows when a connection to an endpoint has come or gone: those in line go
// on as there is room, or elsewhere if there is nothing to wait for.
func (p *policy) movedLocked(endpoint *upstream.Endpoint) {
	if p.failedLocked(endpoint) != nil {
		p.scatterLocked(endpoint)
		return
	}
	p.callLocked(endpoint)
}

// scatterLocked lets the calls that wait for an endpoint look again.
func (p *policy) scatterLocked(endpoint *upstream.Endpoint) {
	if l := p.lines[endpoint]; l != nil {
		for l.waiting.Len() > 0 {
			p.nextLocked(l, p.closed)
		}
		p.callLocked(endpoint)
	}
}

// leftLine lets the calls that wait for an endpoint look elsewhere: it has left its cluster.
func (p *policy) leftLine(endpoint *upstream.Endpoint) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.scatterLocked(endpoint)
}

// dissolveLocked lets all calls that wait look again: the configuration has changed, or
// the channel is closed.
func (p *policy) dissolveLocked() {
	for endpoint := range p.lines {
		p.scatterLocked(endpoint)
	}
}

// roomLocked is how many calls more the connections to an endpoint can carry.
func (p *policy) roomLocked(endpoint *upstream.Endpoint) int {
	limits, room := limitsOf(endpoint), int64(0)
	for _, c := range p.conns[endpoint] {
		room += limits.room(c)
	}
	return int(room)
}
