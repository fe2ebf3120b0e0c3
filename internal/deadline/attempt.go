package deadline

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// Attempt bounds the wait for an answer: it ends at a limit unless that is lifted
// before. Like a [Context] it becomes a real context when somebody first asks for
// its end. It must not be copied. Safe for concurrent use once it is started.
//
// When it ends at its limit, Err is [context.Canceled] and the cause the one that
// it was given; Deadline is its parent's, because the limit may be lifted. A firm
// one is like a context with that deadline: Deadline says it, and Err is
// [context.DeadlineExceeded] in the end.
type Attempt struct {
	parent context.Context
	limit  time.Time
	cause  error

	real     atomic.Bool
	firm     bool // guarded by mu
	lifted   bool // guarded by mu
	canceled bool // guarded by mu
	mu       sync.Mutex
	inner    context.Context // guarded by mu until real
	cancel   func()          // guarded by mu
	timer    *time.Timer     // guarded by mu; nil if it needs none
}

var _ context.Context = (*Attempt)(nil)

// Start makes a, which must be zero, a child of parent that ends at limit with
// that cause. It must be followed by Stop.
func (a *Attempt) Start(parent context.Context, limit time.Time, cause error) {
	a.parent, a.limit, a.cause = parent, limit, cause
}

// Started reports whether it was started.
func (a *Attempt) Started() bool { return a.parent != nil }

// Firm makes it firm. It must come before anything waits for its end; if something
// does already, the limit still holds.
func (a *Attempt) Firm() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.firm = a.inner == nil
}

// Parent is the context that bounds it beside the limit.
func (a *Attempt) Parent() context.Context { return a.parent }

// Limit is when it ends; zero once that is lifted.
func (a *Attempt) Limit() time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.lifted {
		return time.Time{}
	}
	return a.limit
}

// Lift ends the limit and leaves the parent's. It reports whether it was in time;
// if not, the context has ended or is about to. The limit of one that is firm, and
// that somebody has waited for, stays.
func (a *Attempt) Lift() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.lifted:
		return true
	case a.inner == nil && time.Now().Before(a.limit):
		a.lifted = true
		return true
	}
	a.becomeLocked()
	if a.firm {
		return a.inner.Err() == nil
	}
	if a.timer == nil || !a.timer.Stop() {
		return false
	}
	a.lifted = true
	return true
}

// Stop cancels the context and lets go of its resources. It may be called again.
func (a *Attempt) Stop() {
	if a.parent == nil {
		return
	}
	a.mu.Lock()
	a.canceled = true
	cancel, timer := a.cancel, a.timer
	a.mu.Unlock()
	if timer != nil {
		timer.Stop()
	}
	if cancel != nil {
		cancel()
	}
}

// Deadline is the parent's, or the limit of one that is firm, if that is earlier.
func (a *Attempt) Deadline() (time.Time, bool) {
	deadline, ok := a.parent.Deadline()
	if a.isFirm() && (!ok || a.limit.Before(deadline)) {
		return a.limit, true
	}
	return deadline, ok
}

func (a *Attempt) isFirm() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.firm && !a.lifted
}

// Done makes the real context.
func (a *Attempt) Done() <-chan struct{} { return a.become().Done() }

// Err is nil as long as neither the parent nor the limit has ended.
func (a *Attempt) Err() error {
	if !a.real.Load() && a.going() {
		return nil
	}
	return a.become().Err()
}

// Value asks the real context, if there is one, see [Context.Value].
func (a *Attempt) Value(key any) any {
	if a.real.Load() {
		return a.inner.Value(key)
	}
	return a.parent.Value(key)
}

// String keeps fmt from reading what other goroutines write.
func (a *Attempt) String() string { return "mesh attempt" }

func (a *Attempt) going() bool {
	now := time.Now() // once for both: reading the clock is most of what this costs
	if !goingAt(a.parent, now) {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return !a.canceled && (a.lifted || now.Before(a.limit))
}

// goingAt reports whether nothing has ended a context.
func goingAt(ctx context.Context, now time.Time) bool {
	if c, ok := ctx.(*Context); ok && !c.real.Load() {
		return c.goingAt(now)
	}
	return ctx.Err() == nil
}

func (a *Attempt) become() context.Context {
	if a.real.Load() {
		return a.inner
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.becomeLocked()
	return a.inner
}

func (a *Attempt) becomeLocked() {
	if a.inner != nil {
		return
	}
	if a.firm && !a.lifted {
		a.inner, a.cancel = context.WithDeadlineCause(shortcut(a.parent, a.limit), a.limit, a.cause)
	} else {
		a.liftableLocked()
	}
	if a.canceled {
		a.cancel() // nobody else has seen it yet
	}
	a.real.Store(true)
}

func (a *Attempt) liftableLocked() {
	ctx, cancel := context.WithCancelCause(outlived(a.parent))
	a.inner, a.cancel = ctx, func() { cancel(context.Canceled) }
	if a.lifted || a.canceled {
		return
	}
	if left := time.Until(a.limit); left > 0 {
		a.timer = time.AfterFunc(left, func() { cancel(a.cause) })
	} else {
		cancel(a.cause)
	}
}

// shortcut is what a context with that limit can be a child of instead of parent: a
// [Context] that nobody waits for, and that ends later, need not become real for
// it. Who stops the Context stops the child first.
func shortcut(parent context.Context, limit time.Time) context.Context {
	c, ok := parent.(*Context)
	if !ok || c.limit.Before(limit) {
		return parent
	}
	return c.orParent()
}

// outlived is shortcut for a child without a limit of its own: of a [Context] whose
// parent ends earlier nothing can end the child but that parent, and who stops it.
func outlived(parent context.Context) context.Context {
	c, ok := parent.(*Context)
	if !ok {
		return parent
	}
	if ends, ok := c.parent.Deadline(); !ok || !ends.Before(c.limit) {
		return parent
	}
	return c.orParent()
}

// orParent is the context, if it is real or has been stopped, and its parent otherwise.
func (c *Context) orParent() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.inner != nil || c.canceled {
		return c
	}
	return c.parent
}
