// Package memnet is a network in memory: listeners that are dialled by name. It
// works inside a testing/synctest bubble.
package memnet

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
)

// Network connects listeners and dialers by address. The zero value is an
// empty network. Safe for concurrent use.
type Network struct {
	mu        sync.Mutex
	listeners map[string]*Listener // guarded by mu
	dialed    atomic.Uint64        // numbers the clients, whose addresses differ
}

// Listen opens a listener at address, which can be any string that is not in
// use. Closing the listener frees the address.
func (n *Network) Listen(address string) (*Listener, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.listeners[address] != nil {
		return nil, fmt.Errorf("listen %q: address in use", address)
	}
	if n.listeners == nil {
		n.listeners = make(map[string]*Listener)
	}
	l := &Listener{network: n, address: address, conns: make(chan net.Conn), done: make(chan struct{})}
	n.listeners[address] = l
	return l, nil
}

// DialContext connects to a listener of the network. It has the signature of
// [net.Dialer.DialContext]; the network name is ignored. An address without a
// listener is refused at once.
func (n *Network) DialContext(ctx context.Context, _, address string) (net.Conn, error) {
	n.mu.Lock()
	l := n.listeners[address]
	n.mu.Unlock()
	if l == nil {
		return nil, &net.OpError{Op: "dial", Net: "mem", Addr: addr(address), Err: errRefused}
	}
	client, server := Pipe()
	from := addr("mem-client:" + strconv.FormatUint(n.dialed.Add(1), 10))
	select {
	case l.conns <- &conn{Conn: server, local: addr(address), remote: from}:
		return &conn{Conn: client, local: from, remote: addr(address)}, nil
	case <-l.done:
		return nil, &net.OpError{Op: "dial", Net: "mem", Addr: addr(address), Err: errRefused}
	case <-ctx.Done():
		return nil, &net.OpError{Op: "dial", Net: "mem", Addr: addr(address), Err: ctx.Err()}
	}
}

// Listener is one end of a [Network].
type Listener struct {
	network *Network
	address string
	conns   chan net.Conn
	done    chan struct{}
	once    sync.Once
}

var _ net.Listener = (*Listener)(nil)

// Accept waits for the next connection; after Close it returns net.ErrClosed.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, &net.OpError{Op: "accept", Net: "mem", Addr: addr(l.address), Err: net.ErrClosed}
	}
}

// Close stops the listener; connections that were accepted stay open.
func (l *Listener) Close() error {
	l.once.Do(func() {
		l.network.mu.Lock()
		delete(l.network.listeners, l.address)
		l.network.mu.Unlock()
		close(l.done)
	})
	return nil
}

// Addr returns the address given to Listen.
func (l *Listener) Addr() net.Addr { return addr(l.address) }

type conn struct {
	net.Conn
	local, remote addr
}

func (c *conn) LocalAddr() net.Addr  { return c.local }
func (c *conn) RemoteAddr() net.Addr { return c.remote }

// Readable reports whether a Read would return at once.
func (c *conn) Readable() (readable, known bool) { return c.Conn.(*end).Readable() }

// CloseWrite half-closes the connection, as TCP can.
func (c *conn) CloseWrite() error { return c.Conn.(*end).CloseWrite() }

type addr string

func (addr) Network() string  { return "mem" }
func (a addr) String() string { return string(a) }

type refusedError struct{}

func (refusedError) Error() string { return "connection refused" }

var errRefused error = refusedError{}
