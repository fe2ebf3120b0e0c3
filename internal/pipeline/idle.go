package pipeline

import (
	"context"
	"errors"
	"time"

	"github.com/inboardmesh/inboard/outcome"
)

// errIdle is the cause of a context that ended because nothing moved for as long
// as the route allows.
var errIdle = errors.New("stream idle timeout")

// errPerTryIdle is the same for one attempt, by its retry policy.
var errPerTryIdle = errors.New("per-try idle timeout")

// idleTimers are those of an attempt; nil are none.
type idleTimers struct{ perTry, stream idleTimer }

func (t *idleTimers) moved() {
	if t != nil {
		t.perTry.moved()
		t.stream.moved()
	}
}

func (t *idleTimers) stop() {
	if t != nil {
		t.perTry.stop()
		t.stream.stop()
	}
}

// idleTimer ends an attempt on which nothing moves. The zero value never does.
type idleTimer struct {
	timer *time.Timer
	limit time.Duration
}

func (t *idleTimer) start(limit time.Duration, cancel context.CancelCauseFunc, cause error) {
	t.limit = limit
	t.timer = time.AfterFunc(limit, func() { cancel(cause) })
}

func (t *idleTimer) moved() {
	if t.timer != nil {
		t.timer.Reset(t.limit)
	}
}

func (t *idleTimer) stop() {
	if t.timer != nil {
		t.timer.Stop()
	}
}

// watchIdle starts the idle timers of the attempt. They go on while its response
// is read.
func (a *Attempt) watchIdle() {
	perTry, stream := a.call.policy.PerTryIdleTimeout, a.call.idle
	if perTry <= 0 && stream <= 0 {
		return
	}
	cancel := a.cancelable()
	a.idle = &idleTimers{}
	if perTry > 0 {
		a.idle.perTry.start(perTry, cancel, errPerTryIdle)
	}
	if stream > 0 {
		a.idle.stream.start(stream, cancel, errIdle)
	}
}

// Moved tells that a part of the request or of the response has moved: the idle
// timers begin anew. It may be called from any goroutine, until the attempt has
// ended.
func (a *Attempt) Moved() { a.idle.moved() }

// Ended says whose time ended the attempt, and why. Without an end it is
// outcome.Response.
func (a *Attempt) Ended() (outcome.Kind, error) {
	if a.ctx == nil || a.ctx.Err() == nil {
		return outcome.Response, nil
	}
	return endedBy(a.ctx), context.Cause(a.ctx)
}

// cancelable gives the attempt a context of its own to be ended.
func (a *Attempt) cancelable() context.CancelCauseFunc {
	if a.cancel == nil {
		ctx, cancel := context.WithCancelCause(a.ctx)
		a.ctx, a.cancel = ctx, cancel
	}
	return a.cancel
}
