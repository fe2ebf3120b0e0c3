package inbound

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/inboardmesh/inboard/observe"
)

// tracker counts what runs, for those who wait until nothing does.
type tracker struct {
	n      atomic.Int64
	waited atomic.Bool // set by the first wait; ends need no lock before

	mu   sync.Mutex
	zero chan struct{} // guarded by mu; closed when n reaches zero
}

func (t *tracker) begin() { t.n.Add(1) }

func (t *tracker) end() {
	if t.n.Add(-1) != 0 || !t.waited.Load() {
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
	t.waited.Store(true)
	for {
		t.mu.Lock()
		if t.zero == nil {
			t.zero = make(chan struct{})
		}
		zero := t.zero
		t.mu.Unlock()
		// Read after the channel is there, so that the last end cannot be missed.
		n := t.n.Load()
		if n == 0 {
			return 0
		}
		select {
		case <-zero:
		case <-ctx.Done():
			return t.n.Load()
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
	c := &trackedConn{Conn: conn, listener: l.owner, opened: time.Now(), remote: conn.RemoteAddr().String()}
	l.owner.opened(c)
	l.owner.owner.conns.begin()
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
	// remote is the peer's address.
	remote string
	// offered are the application protocols that the peer's TLS offered; nil
	// before its hello, and in plaintext.
	offered atomic.Pointer[[]string]
	// verdict is what was last found out about the connection.
	verdict atomic.Pointer[verdict]
	// ending closes the connection; nil while it may stay.
	ending atomic.Pointer[time.Timer]
}

func (c *trackedConn) event() observe.ConnEvent {
	return observe.ConnEvent{Direction: observe.Inbound, Cluster: c.listener.name, Protocol: "tcp"}
}

// ReadFrom keeps the short ways that a TCP connection has for files.
func (c *trackedConn) ReadFrom(r io.Reader) (int64, error) { return io.Copy(c.Conn, r) }

// CloseWrite half-closes the connection: for upgrades, and so that a peer whose
// handshake was refused reads why.
func (c *trackedConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

func (c *trackedConn) Close() error {
	first := c.closed.CompareAndSwap(false, true)
	if first {
		// Before another connection can have its address.
		c.listener.known.remove(c)
	}
	err := c.Conn.Close()
	if !first {
		return err
	}
	if timer := c.ending.Load(); timer != nil {
		timer.Stop()
	}
	c.listener.gone()
	c.listener.owner.conns.end()
	if hook := c.listener.owner.options.Hooks.ConnClosed; hook != nil {
		event := c.event()
		event.Duration = time.Since(c.opened)
		hook(event)
	}
	return err
}
