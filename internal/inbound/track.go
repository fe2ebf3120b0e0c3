package inbound

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"time"

	"github.com/inboardmesh/inboard/observe"
)

// tracker counts what runs.
type tracker struct{ n atomic.Int64 }

func (t *tracker) begin() { t.n.Add(1) }
func (t *tracker) end()   { t.n.Add(-1) }

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
	if d := l.owner.owner.drain.Load(); d != nil {
		d.leaves(c)
		d.moved.Store(c.opened.UnixNano())
	}
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
	// framed is set if the requests over the connection are followed.
	framed atomic.Bool
	// verdict is what was last found out about the connection.
	verdict atomic.Pointer[verdict]
	// secured is what TLS laid over the connection; nil in plaintext and before Accept.
	secured atomic.Pointer[tls.Conn]
	// running counts the requests that are being served over it, if it has TLS.
	running atomic.Int64
	// stream is set if the connection carries no requests.
	stream atomic.Pointer[Connection]
	// ending closes the connection; nil while it may stay.
	ending atomic.Pointer[time.Timer]

	// leaves is when its peer is asked to go, in Unix nanoseconds, once the mesh
	// drains; farewell asks it, nil if only a response can; asked is set then.
	leaves   atomic.Int64
	farewell atomic.Pointer[func()]
	asked    atomic.Bool
	// parting is set if it is one of HTTP/2 to net/http's server, whose responses must
	// not end it before its peer knows.
	parting atomic.Pointer[partingConn]
	// served is set when Accept has returned the connection, upgraded when it is not
	// for requests any more.
	served, upgraded atomic.Bool
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
	c.downgrade()
	c.listener.gone(c)
	c.listener.owner.conns.end()
	if d := c.listener.owner.drain.Load(); d != nil {
		d.gone.Add(1)
		if !c.served.Load() && d.closed.Load() != 0 {
			d.refused.Add(1)
		}
		d.wake()
	}
	if hook := c.listener.owner.options.Hooks.ConnClosed; hook != nil {
		event := c.event()
		event.Duration = time.Since(c.opened)
		hook(event)
	}
	return err
}
