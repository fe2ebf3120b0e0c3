package mesh

import (
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"

	"github.com/inboardmesh/inboard/internal/upstream"
	"github.com/inboardmesh/inboard/outcome"
	"github.com/inboardmesh/inboard/outcome/meshfail"
)

type dialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// direct is the transport of requests that pass round the mesh. It ends with the
// mesh: its connections are closed, in use or not, those that are being made are given
// up, and no more are made. Only those of a template's own TLS dialer are net/http's to
// close, when they are idle.
type direct struct {
	*http.Transport

	// life ends with Close. net/http makes connections for requests that have ended,
	// too, for as long as that takes.
	life context.Context //nolint:containedctx // it bounds what no request's context does
	end  context.CancelFunc

	mu     sync.Mutex
	conns  map[*directConn]struct{} // guarded by mu
	closed bool                     // guarded by mu
}

func newDirect(template *http.Transport) *direct {
	d := &direct{Transport: template.Clone(), conns: make(map[*directConn]struct{})}
	d.life, d.end = context.WithCancel(context.Background())
	tr := d.Transport
	if secure := tr.DialTLSContext; secure != nil {
		tr.DialTLSContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			return d.within(ctx, secure, network, address)
		}
	}
	ownTLS := tr.DialTLSContext != nil || tr.DialTLS != nil //nolint:staticcheck // a template may have it
	dial := dialFunc(tr.DialContext)
	switch old := tr.Dial; { //nolint:staticcheck // a template may have it
	case dial != nil:
	case old != nil:
		dial = func(_ context.Context, network, address string) (net.Conn, error) { return old(network, address) }
	default:
		dial = new(net.Dialer).DialContext
		// A dialer switches HTTP/2 off, where nothing else does.
		tr.ForceAttemptHTTP2 = tr.ForceAttemptHTTP2 || tr.TLSClientConfig == nil && !ownTLS
	}
	tr.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		return d.dial(ctx, dial, network, address)
	}
	return d
}

func (d *direct) dial(ctx context.Context, dial dialFunc, network, address string) (net.Conn, error) {
	if d.ended() {
		return nil, closedError(address)
	}
	conn, err := d.within(ctx, dial, network, address)
	if err != nil {
		return nil, err
	}
	c := &directConn{Conn: conn, owner: d}
	if !d.add(c) {
		return nil, errors.Join(closedError(address), conn.Close())
	}
	return c, nil
}

// within dials until the mesh is closed.
func (d *direct) within(ctx context.Context, dial dialFunc, network, address string) (net.Conn, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(d.life, func() { cancel(upstream.ErrClosed) }) //nolint:contextcheck // the mesh's: it ends what no request's context does
	defer stop()
	conn, err := dial(ctx, network, address)
	if err != nil && d.life.Err() != nil {
		err = closedError(address)
	}
	return conn, err
}

func closedError(address string) error {
	return &meshfail.Error{Kind: outcome.Closed, Target: address, Err: upstream.ErrClosed}
}

func (d *direct) ended() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.closed
}

// add reports false once the mesh is closed.
func (d *direct) add(c *directConn) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.closed {
		d.conns[c] = struct{}{}
	}
	return !d.closed
}

// Close breaks every connection.
func (d *direct) Close() error {
	d.mu.Lock()
	d.closed = true
	conns := slices.Collect(maps.Keys(d.conns))
	d.mu.Unlock()
	d.end()
	for _, c := range conns {
		_ = c.Close() // its request has failed, or net/http has closed it
	}
	d.CloseIdleConnections()
	return nil
}

// directConn is a connection that the mesh closes if net/http has not.
type directConn struct {
	net.Conn
	owner *direct
}

// ReadFrom keeps the short ways that a TCP connection has for files.
func (c *directConn) ReadFrom(r io.Reader) (int64, error) { return io.Copy(c.Conn, r) }

// CloseWrite half-closes the connection, for upgrades.
func (c *directConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// Close closes the connection.
func (c *directConn) Close() error {
	c.owner.mu.Lock()
	delete(c.owner.conns, c)
	c.owner.mu.Unlock()
	return c.Conn.Close()
}
