package tcpmesh

import (
	"sync"
	"sync/atomic"
	"time"
)

// life is what ends a connection that is idle for too long, or too old. Safe for
// concurrent use.
type life struct {
	last    atomic.Int64 // when bytes have moved last, in Unix nanoseconds
	copying atomic.Int64 // copies under way of which nothing is heard

	mu    sync.Mutex
	timer *time.Timer // guarded by mu; looks again, nil without a limit
	ended bool        // guarded by mu
}

// moved notes that n bytes have come or gone.
func (l *life) moved(n int) {
	if n > 0 {
		l.last.Store(time.Now().UnixNano())
	}
}

// copies notes that bytes go through unseen, until what it returns is called.
func (l *life) copies() (done func()) {
	l.copying.Add(1)
	return func() {
		l.moved(1)
		l.copying.Add(-1)
	}
}

// end sees to it that nobody looks any more.
func (l *life) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	if l.timer != nil {
		l.timer.Stop()
	}
}

// look closes the connection if it has reached a limit, and otherwise comes again when
// it may have.
func (c *conn) look() {
	now := time.Now()
	var due time.Time
	idle, age := c.Limits()
	if age > 0 {
		due = c.Opened().Add(age)
	}
	if idle > 0 {
		last := time.Unix(0, c.life.last.Load())
		if c.life.copying.Load() > 0 {
			last = now
		}
		if at := last.Add(idle); due.IsZero() || at.Before(due) {
			due = at
		}
	}
	if due.IsZero() {
		return
	}
	if !now.Before(due) {
		_ = c.Close() // the application's reads and writes end with it
		return
	}
	c.life.mu.Lock()
	defer c.life.mu.Unlock()
	switch {
	case c.life.ended:
	case c.life.timer == nil:
		c.life.timer = time.AfterFunc(due.Sub(now), c.look)
	default:
		c.life.timer.Reset(due.Sub(now))
	}
}
