package inbound

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/inboardmesh/inboard/observe"
)

// tracker counts the requests that are being served.
type tracker struct {
	draining atomic.Bool
	running  atomic.Int64

	mu   sync.Mutex
	zero chan struct{} // guarded by mu; closed when running reaches zero
}

func (t *tracker) begin() { t.running.Add(1) }

func (t *tracker) end() {
	if t.running.Add(-1) != 0 || !t.draining.Load() {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.zero != nil {
		close(t.zero)
		t.zero = nil
	}
}

// wait returns when nothing runs, or ctx ends; it returns what still runs.
func (t *tracker) wait(ctx context.Context) int64 {
	for {
		t.mu.Lock()
		if t.zero == nil {
			t.zero = make(chan struct{})
		}
		zero := t.zero
		t.mu.Unlock()
		// Read after the channel is there, so that the last end cannot be missed.
		n := t.running.Load()
		if n == 0 {
			return 0
		}
		select {
		case <-zero:
		case <-ctx.Done():
			return t.running.Load()
		}
	}
}

// trackedListener counts and reports the connections of a listener, below TLS.
type trackedListener struct {
	net.Listener
	owner *Listener
}

func (l *trackedListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &trackedConn{Conn: conn, listener: l.owner, opened: time.Now()}
	l.owner.opened()
	if hook := l.owner.owner.options.Hooks.ConnOpened; hook != nil {
		hook(c.event())
	}
	return c, nil
}

type trackedConn struct {
	net.Conn
	listener *Listener
	opened   time.Time
	closed   atomic.Bool
}

func (c *trackedConn) event() observe.ConnEvent {
	return observe.ConnEvent{Direction: observe.Inbound, Cluster: c.listener.name, Protocol: "tcp"}
}

func (c *trackedConn) Close() error {
	err := c.Conn.Close()
	if !c.closed.CompareAndSwap(false, true) {
		return err
	}
	c.listener.gone()
	if hook := c.listener.owner.options.Hooks.ConnClosed; hook != nil {
		event := c.event()
		event.Duration = time.Since(c.opened)
		hook(event)
	}
	return err
}
