package inbound

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/inboardmesh/inboard/discovery"
)

// Why a request was ended, in Envoy's words.
var (
	ErrIdle = errors.New("stream timeout")
	ErrSlow = errors.New("request timeout")
	ErrLong = errors.New("downstream duration timeout")
)

// Timeouts end a request that stands still for too long (stream_idle_timeout), whose
// client takes too long to send it (request_timeout), or that takes too long in all
// (max_stream_duration). They cancel its context
// and do what else the protocol needs; the answer is that of the request's own
// goroutine. All methods may be called on nil, which has no timeouts, and are safe
// for concurrent use.
type Timeouts struct {
	idle   time.Duration
	cancel context.CancelCauseFunc
	ended  chan struct{}

	mu      sync.Mutex
	still   *time.Timer // guarded by mu; nil without an idle timeout
	whole   *time.Timer // guarded by mu; nil without a request timeout
	longest *time.Timer // guarded by mu; nil without a maximum duration
	stopped bool        // guarded by mu
	cause   error       // guarded by mu; why the request was ended
	unblock func()      // guarded by mu; ends what the application waits for
}

// StartTimeouts bounds a request under ctx as its filter chain says; the result is
// nil if that says nothing. unblock ends what the application waits for when the
// time is over; it must not wait itself, and is not called after Stop. complete says
// that the request has arrived whole. longest is how long it may take, 0 if that is
// unbounded or its context's matter. It must be followed by Stop.
func StartTimeouts(ctx context.Context, chain *discovery.FilterChain, complete bool, longest time.Duration, unblock func()) (*Timeouts, context.Context) {
	if chain.StreamIdleTimeout <= 0 && (chain.RequestTimeout <= 0 || complete) && longest <= 0 {
		return nil, ctx
	}
	t := &Timeouts{idle: chain.StreamIdleTimeout, ended: make(chan struct{}), unblock: unblock}
	ctx, t.cancel = context.WithCancelCause(ctx)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.idle > 0 {
		t.still = time.AfterFunc(t.idle, func() { t.end(ErrIdle) })
	}
	if chain.RequestTimeout > 0 && !complete {
		t.whole = time.AfterFunc(chain.RequestTimeout, func() { t.end(ErrSlow) })
	}
	if longest > 0 {
		t.longest = time.AfterFunc(longest, func() { t.end(ErrLong) })
	}
	return t, ctx
}

func (t *Timeouts) end(cause error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stopped || t.cause != nil {
		return
	}
	t.cause = cause
	t.cancel(cause)
	close(t.ended)
	if t.unblock != nil {
		t.unblock() // under the lock, so that Stop waits for it
	}
}

// Moved tells that something has come, or was answered.
func (t *Timeouts) Moved() {
	if t == nil || t.idle <= 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.stopped && t.cause == nil {
		t.still.Reset(t.idle)
	}
}

// Received tells that the request has come whole.
func (t *Timeouts) Received() {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.whole != nil {
		t.whole.Stop()
	}
}

// Ended is closed when the time was over; nil, and never ready, without timeouts.
func (t *Timeouts) Ended() <-chan struct{} {
	if t == nil {
		return nil
	}
	return t.ended
}

// Cause is why the request was ended, or nil.
func (t *Timeouts) Cause() error {
	if t == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.cause
}

// Stop ends the timeouts and the context. It returns what Cause does from now on.
func (t *Timeouts) Stop() error {
	if t == nil {
		return nil
	}
	defer t.cancel(nil)
	return t.Release()
}

// Release is Stop for a request that goes on without timeouts: its context does
// not end. Stop must follow all the same.
func (t *Timeouts) Release() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stopped = true
	if t.still != nil {
		t.still.Stop()
	}
	for _, timer := range []*time.Timer{t.whole, t.longest} {
		if timer != nil {
			timer.Stop()
		}
	}
	return t.cause
}
