package upstream

import (
	"errors"
	"io"
	"net"
	"sync"
)

// rawConn is a network connection, below TLS, that tells when it is closed. One
// that an upgrade (101) took over lives on when its HTTP connection is gone.
type rawConn struct {
	net.Conn
	// stall is Conn if its writes are watched, nil otherwise.
	stall *stall

	mu      sync.Mutex
	closed  bool   // guarded by mu
	onClose func() // guarded by mu; called once
}

// Close closes the connection and, the first time, says so.
func (c *rawConn) Close() error {
	err := c.Conn.Close()
	c.mu.Lock()
	c.closed = true
	f := c.onClose
	c.onClose = nil
	c.mu.Unlock()
	if f != nil {
		f()
	}
	return err
}

// open reports whether nobody has closed the connection yet.
func (c *rawConn) open() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.closed
}

// afterClose calls f when the connection is closed, at once if it is.
func (c *rawConn) afterClose(f func()) {
	c.mu.Lock()
	closed := c.closed
	if !closed {
		c.onClose = f
	}
	c.mu.Unlock()
	if closed {
		f()
	}
}

// NetConn is the connection below, as of a [crypto/tls.Conn].
func (c *rawConn) NetConn() net.Conn { return c.Conn }

// Around is as [http1.Transparent] has it.
func (c *rawConn) Around() net.Conn { return c.Conn }

// ReadFrom keeps the short ways that a TCP connection has for files.
func (c *rawConn) ReadFrom(r io.Reader) (int64, error) { return io.Copy(c.Conn, r) }

// CloseWrite half-closes the connection, for upgrades.
func (c *rawConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}
