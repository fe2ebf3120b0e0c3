package pipeline

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/inboardmesh/inboard/internal/upstream"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/outcome"
)

// limit is how long the call may take by its route and its options, 0 without a
// limit.
func (c *Call) limit(config *Config) time.Duration {
	limit := c.Decision.Route.Forward.Limit(c.Observed.Protocol == observe.GRPC, config.Target.Listener.MaxStreamDuration)
	if c.options == nil || c.options.Timeout <= 0 {
		return limit
	}
	own := shorter(limit, max(c.options.Timeout-c.now.Sub(c.Observed.Start), 1))
	c.ownTime = own != limit
	return own
}

// ownEnd is when the time is over that the application gives to the call in its options;
// zero if it does not.
func (c *Call) ownEnd() time.Time {
	if c.options == nil || c.options.Timeout == 0 {
		return time.Time{}
	}
	return c.Observed.Start.Add(c.options.Timeout)
}

// Remaining returns a context for what follows of a call that has begun at a time: what
// its options give to the call includes what has passed since.
func Remaining(ctx context.Context, began time.Time) context.Context {
	o := optionsOf(ctx)
	if o == nil || o.Timeout <= 0 {
		return ctx
	}
	rest := *o
	rest.Timeout = max(rest.Timeout-time.Since(began), 1)
	return WithOptions(ctx, rest)
}

// bound sets the overall timeout. It must be above retry, so that it covers all
// attempts and their back-off.
func (c *Call) bound(ctx context.Context, config *Config) {
	limit := c.limit(config)
	forward := c.Decision.Route.Forward
	if c.idle = config.Target.Listener.StreamIdleTimeout; forward.IdleTimeout != nil {
		c.idle = *forward.IdleTimeout
	}
	end := time.Time{}
	if limit > 0 {
		end = c.now.Add(limit)
	}
	given, ok := ctx.Deadline()
	c.callersTime = end.IsZero() || c.ownTime || ok && given.Before(end)
	if offset := forward.GRPCTimeoutHeaderOffset; offset > 0 && c.Observed.Protocol == observe.GRPC {
		// What the application gave, less the offset, so that it is the mesh
		// that ends the call. Nothing may be left of it.
		if ok && (end.IsZero() || given.Add(-offset).Before(end)) {
			end, c.ownTime, c.callersTime = given.Add(-offset), false, true
		}
	}
	c.ctx = ctx
	if !end.IsZero() {
		c.timeout.Start(ctx, end, c.timeUp())
		c.ctx = &c.timeout
	}
	if deadline, ok := c.ctx.Deadline(); ok {
		c.Deadline = deadline
	}
}

// timeUp is what says that the time of the call is over.
func (c *Call) timeUp() error {
	if c.ownTime {
		return errCallTimeout
	}
	return errRouteTimeout
}

// late reports whether too little of the call's time is left for an attempt that
// begins after a wait, and how much is left then.
func (c *Call) late(wait time.Duration) (left time.Duration, late bool) {
	if c.passed() {
		return 0, true
	}
	if c.minTime <= 0 || c.Deadline.IsZero() {
		return 0, false
	}
	left = time.Until(c.Deadline) - wait
	return left, left < c.minTime
}

// passed reports whether the time that the application gives to its call is over
// before it begins.
func (c *Call) passed() bool { return c.options != nil && c.options.Timeout < 0 }

// tooLate is why nothing is sent when too little is left.
func (c *Call) tooLate(left time.Duration) error {
	if c.passed() {
		return fmt.Errorf("not sent: the timeout of the call, %v, has passed", c.options.Timeout)
	}
	return fmt.Errorf("not sent: %v are left, and it needs %v", max(left, 0), c.minTime)
}

// Depart is for the moment at which the attempt has its connection and is about to be
// sent. An error is why it must not be: too little of the call's time is left after the
// wait. It may be called by the attempt's goroutine.
func (a *Attempt) Depart() error {
	if left, late := a.call.late(0); late {
		return a.call.tooLate(left)
	}
	if a.call.callersTime {
		a.departed.Store(time.Now().UnixNano())
	}
	return nil
}

// patience is how long an endpoint must have left a request unanswered for the
// caller's own deadline to count against it.
const patience = time.Second

// excuse finds out whether an attempt that ended because time was up says anything of
// its endpoint. The limits of the configuration do, as long as no response has begun
// (Envoy's router counts them so); an answer that takes long, or a stream that lives as
// long as it may, is no failure. Deadlines that callers bring are as short as those
// like, who need not be trusted: with 2 ms nobody may have an endpoint ejected that
// answers everybody else in 5 ms. Yet in most processes all deadlines are callers', so
// that without them an endpoint which answers nobody would be called for ever.
func (a *Attempt) excuse(o *outcome.Outcome, now time.Time) {
	if o.Kind != outcome.Timeout {
		return
	}
	departed := a.departed.Load()
	o.Excused = a.begun.Load() || a.call.callersTime && !a.isIdle() && (departed == 0 || now.UnixNano()-departed < int64(patience))
}

// isIdle reports whether the attempt ended because nothing moved.
func (a *Attempt) isIdle() bool { return a.ctx != nil && errors.Is(context.Cause(a.ctx), errIdle) }

// sleep waits for d, or returns why the call ended meanwhile. No attempt follows
// a wait that lasts until the deadline.
func (c *Call) sleep(d time.Duration) error {
	var due <-chan time.Time // nil is never
	switch {
	case !c.Deadline.IsZero() && time.Until(c.Deadline) <= d:
	case d <= 0:
		return context.Cause(c.ctx)
	default:
		timer := time.NewTimer(d)
		defer timer.Stop()
		due = timer.C
	}
	select {
	case <-due:
		return nil
	case <-c.ctx.Done():
		return context.Cause(c.ctx)
	case <-c.out.life.Done():
		return upstream.ErrClosed
	}
}

// shorter is the shorter of two limits, of which 0 is none.
func shorter(a, b time.Duration) time.Duration {
	if a <= 0 || b > 0 && b < a {
		return b
	}
	return a
}

// endedBy says whose time ended a context.
func endedBy(ctx context.Context) outcome.Kind {
	switch {
	case ctx.Err() == nil:
		return outcome.Reset
	case errors.Is(context.Cause(ctx), upstream.ErrClosed):
		return outcome.Closed
	case errors.Is(context.Cause(ctx), errPerTryTimeout), errors.Is(context.Cause(ctx), errPerTryIdle):
		return outcome.PerTryTimeout
	case errors.Is(context.Cause(ctx), errIdle):
		return outcome.Timeout
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return outcome.Timeout
	}
	return outcome.Canceled
}
