package grpcmesh

import (
	"container/list"
	"context"
	"math"

	"google.golang.org/grpc/connectivity"

	"github.com/inboardmesh/inboard/internal/upstream"
)

// Calls that find no room on the connections to an endpoint wait in line. gRPC would
// wake them all whenever a call ends, so that each end costs as much as calls wait.

// line is the calls that wait for room on the connections to one endpoint, the first
// one in front. Its fields are guarded by policy.mu.
type line struct {
	waiting list.List // of *turn
	// called is how many turns have come and are not taken yet: so much of the room
	// is theirs.
	called int
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
// was lost.
func (p *policy) queue(endpoint *upstream.Endpoint, before *turn) *turn {
	t := &turn{endpoint: endpoint, come: make(chan struct{})}
	p.mu.Lock()
	defer p.mu.Unlock()
	front := before != nil && before.called && before.endpoint == endpoint
	p.leaveLocked(before)
	if p.closed {
		t.over = true
		close(t.come)
		return t
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
	p.callLocked(endpoint)
	return t
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

// callLocked calls those in front, as many as there is room for.
func (p *policy) callLocked(endpoint *upstream.Endpoint) {
	l := p.lines[endpoint]
	if l == nil {
		return
	}
	if l.waiting.Len() > 0 {
		for room := p.roomLocked(endpoint); l.waiting.Len() > 0 && l.called < room; l.called++ {
			p.nextLocked(l).called = true
		}
	}
	if l.waiting.Len() == 0 && l.called == 0 {
		delete(p.lines, endpoint)
	}
}

// nextLocked takes the first turn out of a line and lets it go on.
func (p *policy) nextLocked(l *line) *turn {
	t := l.waiting.Remove(l.waiting.Front()).(*turn) //nolint:forcetypeassert // a line holds nothing else
	t.place = nil
	p.waiting.Add(-1)
	t.over = p.closed
	close(t.come)
	return t
}

// dissolveLocked lets all calls that wait look again: connections have come or gone.
func (p *policy) dissolveLocked() {
	for endpoint, l := range p.lines {
		for l.waiting.Len() > 0 {
			p.nextLocked(l)
		}
		p.callLocked(endpoint)
	}
}

// roomLocked is how many calls more the connections to an endpoint can carry.
func (p *policy) roomLocked(endpoint *upstream.Endpoint) int {
	limit, room := int64(endpoint.Cluster().MaxStreams()), int64(0)
	for _, c := range p.conns[endpoint] {
		switch {
		case c.state != connectivity.Ready:
		case limit == 0:
			return math.MaxInt
		default:
			room += max(limit-c.active.Load(), 0)
		}
	}
	return int(room)
}
