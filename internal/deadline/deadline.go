// Package deadline makes contexts with a deadline that cost nothing until somebody
// waits for them.
package deadline

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// Context is [context.WithDeadlineCause] that becomes one when somebody first
// asks what only a real one can answer: for its end. Until then it has no timer,
// no channel, and no place among the children of its parent. It is made to be
// part of what it bounds, so that a call that nobody waits for pays for no
// context. It must not be copied. Safe for concurrent use once it is started.
//
// Every answer but "not ended yet" comes from the real one, which is made once:
// so Err, Cause and Done never disagree, and children are added to it without a
// goroutine, as to any context of the standard library.
type Context struct {
	parent context.Context
	limit  time.Time
	cause  error

	// real reports whether inner is set; it spares the lock.
	real     atomic.Bool
	canceled bool // guarded by mu
	mu       sync.Mutex
	inner    context.Context    // guarded by mu until real
	cancel   context.CancelFunc // guarded by mu
}

var _ context.Context = (*Context)(nil)

// Start makes c, which must be zero, a child of parent that ends at limit with
// that cause; nil means [context.DeadlineExceeded]. It must be followed by Stop.
func (c *Context) Start(parent context.Context, limit time.Time, cause error) {
	c.parent, c.limit, c.cause = parent, limit, cause
}

// Stop cancels the context and lets go of its resources. It may be called again,
// and on a context that was never started.
func (c *Context) Stop() {
	if c.parent == nil {
		return
	}
	c.mu.Lock()
	c.canceled = true
	cancel := c.cancel
	c.mu.Unlock()
	if cancel != nil {
		cancel()
	}
}

// Parent is the context that bounds it beside the time. Who waits for that and for
// the time in another way, such as the deadline of a connection, needs no real
// context; but learns nothing of Stop.
func (c *Context) Parent() context.Context { return c.parent }

// Deadline is the parent's, if that is earlier.
func (c *Context) Deadline() (time.Time, bool) {
	if deadline, ok := c.parent.Deadline(); ok && deadline.Before(c.limit) {
		return deadline, true
	}
	return c.limit, true
}

// Done makes the real context.
func (c *Context) Done() <-chan struct{} { return c.become().Done() }

// Err is nil as long as neither the parent nor the time has ended.
func (c *Context) Err() error {
	if !c.real.Load() && c.goingAt(time.Now()) {
		return nil
	}
	return c.become().Err()
}

// Value asks the real context, if there is one: it is by a value of its own that
// the context package finds the cause and adds children.
func (c *Context) Value(key any) any {
	if c.real.Load() {
		return c.inner.Value(key)
	}
	return c.parent.Value(key)
}

// String keeps fmt from reading what other goroutines write.
func (c *Context) String() string { return "mesh deadline" }

// goingAt reports whether nothing has ended the context. Before the real one there
// is nobody to be told when something does.
func (c *Context) goingAt(now time.Time) bool {
	if !goingAt(c.parent, now) || !now.Before(c.limit) {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.canceled
}

// become returns the real context. One that is made too late has ended already.
func (c *Context) become() context.Context {
	if c.real.Load() {
		return c.inner
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.inner == nil {
		c.inner, c.cancel = context.WithDeadlineCause(c.parent, c.limit, c.cause)
		if c.canceled {
			c.cancel() // nobody else has seen it yet
		}
		c.real.Store(true)
	}
	return c.inner
}
