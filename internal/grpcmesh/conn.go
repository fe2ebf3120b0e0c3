package grpcmesh

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/credentials"

	"github.com/inboardmesh/inboard/internal/upstream"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

// clientConns are the connections of an adapter to endpoints. The channels that they
// are of are the application's; the calls that wait for a peer end with them.
type clientConns struct {
	mu     sync.Mutex
	conns  map[*clientConn]struct{} // guarded by mu
	closed bool                     // guarded by mu
}

// add takes a connection in, unless the mesh was closed.
func (c *clientConns) add(conn *clientConn) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return upstream.ErrClosed
	}
	if c.conns == nil {
		c.conns = make(map[*clientConn]struct{})
	}
	c.conns[conn] = struct{}{}
	return nil
}

func (c *clientConns) remove(conn *clientConn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.conns, conn)
}

// close closes all connections. None is made later.
func (c *clientConns) close() {
	c.mu.Lock()
	conns := c.conns
	c.conns, c.closed = nil, true
	c.mu.Unlock()
	for conn := range conns {
		_ = conn.Close() // whoever uses it is told
	}
}

// clientConn is a connection to an endpoint, below TLS. It reports its life.
type clientConn struct {
	net.Conn
	conns   *clientConns
	hooks   *observe.Hooks
	address string
	began   time.Time

	mu      sync.Mutex
	closed  bool   // guarded by mu
	onClose func() // guarded by mu; called once

	// opened is what was reported when the connection was ready; nil before, and
	// after it was closed.
	opened atomic.Pointer[openedConn]
}

type openedConn struct {
	event observe.ConnEvent
	at    time.Time
}

// dial opens a connection to an endpoint.
func (a *Adapter) dial(ctx context.Context, address string) (net.Conn, error) {
	c := &clientConn{conns: &a.conns, hooks: a.options.Hooks, address: address, began: time.Now()}
	if a.options.Outbound.Closed() {
		return nil, upstream.ErrClosed
	}
	made := connectingOf(ctx)
	var err error
	if made != nil {
		c.Conn, err = made.endpoint.Dial(ctx, address)
		if err == nil {
			if err = made.endpoint.KeepAlive(c.Conn); err != nil {
				_ = c.Conn.Close() // it was never used
			}
		}
	} else {
		c.Conn, err = a.options.Dial(ctx, "tcp", address)
	}
	if err != nil {
		if made != nil {
			c.failed(made.endpoint.Cluster(), err)
		}
		return nil, err
	}
	return c, nil
}

// connectingOf is what a connection is made for. gRPC hands the attributes of
// its address to dialers and credentials.
func connectingOf(ctx context.Context) *connecting {
	attrs := credentials.ClientHandshakeInfoFromContext(ctx).Attributes
	if attrs == nil {
		return nil
	}
	made, _ := attrs.Value(connectingKey{}).(*connecting)
	return made
}

func (c *clientConn) event(cluster *upstream.Cluster) observe.ConnEvent {
	return observe.ConnEvent{
		Cluster: cluster.Name(), Endpoint: c.address, Protocol: observe.GRPC.String(), Duration: time.Since(c.began),
	}
}

// failed reports a connection that could not be made.
func (c *clientConn) failed(cluster *upstream.Cluster, err error) {
	if c.hooks.ConnOpened == nil {
		return
	}
	e := c.event(cluster)
	e.Err = err
	c.hooks.ConnOpened(e)
}

// ready reports a connection that can be used. state is nil in plaintext.
func (c *clientConn) ready(cluster *upstream.Cluster, state *tls.ConnectionState) {
	e := c.event(cluster)
	if state != nil {
		e.TLS = true
		if id, ok := meshtls.PeerID(*state); ok {
			e.PeerID = id.String()
		}
	}
	c.opened.Store(&openedConn{event: e, at: time.Now()})
	if c.hooks.ConnOpened != nil {
		c.hooks.ConnOpened(e)
	}
}

// Close closes the connection and reports it, once, if it was ready.
func (c *clientConn) Close() error {
	c.conns.remove(c)
	err := c.Conn.Close()
	c.mu.Lock()
	c.closed = true
	f := c.onClose
	c.onClose = nil
	c.mu.Unlock()
	if f != nil {
		f()
	}
	if opened := c.opened.Swap(nil); opened != nil && c.hooks.ConnClosed != nil {
		e := opened.event
		e.Duration = time.Since(opened.at)
		c.hooks.ConnClosed(e)
	}
	return err
}

// afterClose calls f when the connection is closed. It reports false if it is already, and
// does not call f then.
func (c *clientConn) afterClose(f func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.onClose = f
	}
	return !c.closed
}
