package tcpmesh

import (
	"crypto/tls"
	"errors"
	"io"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/inboardmesh/inboard/internal/upstream"
	"github.com/inboardmesh/inboard/outcome"
)

// conn is a connection of the application.
type conn struct {
	*upstream.Stream

	dialer  *Dialer
	permits *permits
	once    sync.Once
	life    life
}

var _ net.Conn = (*conn)(nil)

// Close closes the connection and gives back what it holds, once.
func (c *conn) Close() error {
	err := c.Stream.Close()
	c.once.Do(func() {
		c.life.end()
		c.dialer.remove(c)
		c.permits.release(&outcome.Outcome{Kind: outcome.Response, Sent: true})
		c.Closed()
	})
	return err
}

func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.life.moved(n)
	return n, err
}

func (c *conn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.life.moved(n)
	return n, err
}

// CloseWrite says that nothing more is sent.
func (c *conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// ReadFrom keeps the short ways that a TCP connection has for files, unless it has to
// be known what goes through them.
func (c *conn) ReadFrom(r io.Reader) (int64, error) {
	if idle, _ := c.Limits(); idle > 0 {
		return io.Copy(struct{ io.Writer }{c}, r)
	}
	defer c.life.copies()()
	return io.Copy(c.Conn, r)
}

// ConnectionState is that of the connection's TLS, zero in the clear.
func (c *conn) ConnectionState() tls.ConnectionState {
	if secure, ok := c.Conn.(*tls.Conn); ok {
		return secure.ConnectionState()
	}
	return tls.ConnectionState{}
}

// add keeps a connection, unless the mesh was closed meanwhile.
func (d *Dialer) add(c *conn) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return false
	}
	d.open[c] = struct{}{}
	if !d.checks {
		d.checks = true
		d.running.Go(d.checkAlways)
	}
	return true
}

func (d *Dialer) remove(c *conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.open, c)
}

func (d *Dialer) connections() []*conn {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Collect(maps.Keys(d.open))
}

// checkAlways closes the connections that would not be made any more. It ends with
// the last connection, or with the mesh.
func (d *Dialer) checkAlways() {
	tick := time.NewTicker(checkEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-d.life.Done():
			return
		}
		for _, c := range d.connections() {
			if c.Check() != nil {
				_ = c.Close() // the application's reads and writes end with it
				continue
			}
			c.look() // its limits may have changed
		}
		d.mu.Lock()
		d.checks = len(d.open) > 0
		more := d.checks
		d.mu.Unlock()
		if !more {
			return
		}
	}
}

// Close closes every connection, and ends the calls of Dial that are under way. Later
// ones fail.
func (d *Dialer) Close() error {
	d.mu.Lock()
	d.closed = true
	open := slices.Collect(maps.Keys(d.open))
	d.mu.Unlock()
	d.end()
	for _, c := range open {
		_ = c.Close() // it is the application's, which sees that it is closed
	}
	d.running.Wait()
	return nil
}
