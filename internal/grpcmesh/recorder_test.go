package grpcmesh_test

import (
	"context"
	"sync"
	"testing"

	"github.com/inboardmesh/inboard/observe"
)

// recorder is the hooks of a fixture: it remembers what it was told.
type recorder struct {
	mu       sync.Mutex
	started  map[observe.Direction]int
	calls    []observe.Call
	tries    int
	attempts []observe.Attempt
	overflow []observe.OverflowEvent
	opened   []observe.ConnEvent
	closed   []observe.ConnEvent
	refused  []observe.HandshakeEvent
	mirrors  []observe.MirrorEvent
	// header is added to every attempt if it is not "".
	header string
}

func (r *recorder) hooks() *observe.Hooks {
	return &observe.Hooks{
		CallStarted: func(ctx context.Context, c *observe.Call) context.Context {
			r.mu.Lock()
			defer r.mu.Unlock()
			if r.started == nil {
				r.started = make(map[observe.Direction]int)
			}
			r.started[c.Direction]++
			return ctx
		},
		CallEnded: func(_ context.Context, c *observe.Call) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.calls = append(r.calls, *c)
		},
		AttemptStarted: func(ctx context.Context, a *observe.Attempt) context.Context {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.tries++
			if r.header != "" {
				a.Headers.Set(r.header, "attempt")
			}
			return ctx
		},
		AttemptEnded: func(_ context.Context, a *observe.Attempt) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.attempts = append(r.attempts, *a)
		},
		Overflowed: func(e observe.OverflowEvent) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.overflow = append(r.overflow, e)
		},
		ConnOpened: func(e observe.ConnEvent) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.opened = append(r.opened, e)
		},
		ConnClosed: func(e observe.ConnEvent) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.closed = append(r.closed, e)
		},
		Mirrored: func(e observe.MirrorEvent) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.mirrors = append(r.mirrors, e)
		},
		HandshakeFailed: func(e observe.HandshakeEvent) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.refused = append(r.refused, e)
		},
	}
}

// ended returns the calls of one direction that have ended.
func (r *recorder) ended(d observe.Direction) []observe.Call {
	r.mu.Lock()
	defer r.mu.Unlock()
	var calls []observe.Call
	for i := range r.calls {
		if r.calls[i].Direction == d {
			calls = append(calls, r.calls[i])
		}
	}
	return calls
}

// tried returns the attempts that have ended.
func (r *recorder) tried() []observe.Attempt {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]observe.Attempt(nil), r.attempts...)
}

// connections returns the outbound connections that were opened, or could not
// be, and those that were closed.
func (r *recorder) connections() (opened, closed []observe.ConnEvent) {
	r.mu.Lock()
	defer r.mu.Unlock()
	outbound := func(events []observe.ConnEvent) (out []observe.ConnEvent) {
		for _, e := range events {
			if e.Direction == observe.Outbound {
				out = append(out, e)
			}
		}
		return out
	}
	return outbound(r.opened), outbound(r.closed)
}

// checkBalanced fails the test unless everything that started has ended.
func (r *recorder) checkBalanced(tb testing.TB) {
	tb.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	ended := make(map[observe.Direction]int)
	for i := range r.calls {
		ended[r.calls[i].Direction]++
	}
	for _, d := range []observe.Direction{observe.Outbound, observe.Inbound} {
		if r.started[d] != ended[d] {
			tb.Errorf("direction %d: %d calls started, %d ended", d, r.started[d], ended[d])
		}
	}
	if r.tries != len(r.attempts) {
		tb.Errorf("%d attempts started, %d ended", r.tries, len(r.attempts))
	}
}
