package faultproxy

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Config is where a [Proxy] stands.
type Config struct {
	// Listen opens the side of the clients. It is called again by [Proxy.Up]; the
	// second listener must have the address of the first, see [ListenTCP].
	Listen func() (net.Listener, error)
	// Dial connects to the server; each accepted connection has its own. ctx ends
	// with the proxy.
	Dial func(ctx context.Context) (net.Conn, error)
	// Seed makes jitter repeatable; 0 is a seed like any other.
	Seed uint64
}

// ListenTCP returns a Listen for loopback: a port of its own, which stays the
// same when it is opened again.
func ListenTCP() func() (net.Listener, error) {
	address := "127.0.0.1:0"
	return func() (net.Listener, error) {
		ln, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", address)
		if err == nil {
			address = ln.Addr().String()
		}
		return ln, err
	}
}

// DialTCP returns a Dial to an address.
func DialTCP(address string) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", address)
	}
}

// Proxy forwards connections and breaks them. Close it; safe for concurrent use.
type Proxy struct {
	config Config
	addr   net.Addr
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	faults   [2]atomic.Pointer[Faults]
	accepted atomic.Int64

	mu       sync.Mutex
	listener net.Listener       // guarded by mu; nil while down
	links    map[*link]struct{} // guarded by mu
	random   *rand.Rand         // guarded by mu
	closed   bool               // guarded by mu
}

// The two directions of a connection.
const (
	up   = iota // from the client to the server
	down        // from the server to the client
)

// Start opens a proxy.
func Start(config Config) (*Proxy, error) {
	p := &Proxy{
		config: config, links: make(map[*link]struct{}),
		random: rand.New(rand.NewPCG(config.Seed, config.Seed)), // weak on purpose: it is repeatable
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.Set(Faults{}, Faults{})
	if err := p.Up(); err != nil {
		p.cancel()
		return nil, err
	}
	return p, nil
}

// Addr is the address that clients connect to. It stays when the proxy goes down
// and up again.
func (p *Proxy) Addr() net.Addr { return p.addr }

// Set replaces the faults of the two directions: toServer is what clients send.
// They hold for open connections too, from the next bytes on.
func (p *Proxy) Set(toServer, toClient Faults) {
	p.faults[up].Store(&toServer)
	p.faults[down].Store(&toClient)
}

// Accepted is how many connections were made to the proxy so far.
func (p *Proxy) Accepted() int { return int(p.accepted.Load()) }

// Open is how many connections are open.
func (p *Proxy) Open() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.links)
}

// Reset resets all open connections; new ones are accepted.
func (p *Proxy) Reset() {
	p.mu.Lock()
	links := make([]*link, 0, len(p.links))
	for l := range p.links {
		links = append(links, l)
	}
	p.mu.Unlock()
	for _, l := range links {
		l.reset()
	}
}

// Down refuses new connections and resets the open ones, until Up.
func (p *Proxy) Down() {
	p.mu.Lock()
	ln := p.listener
	p.listener = nil
	p.mu.Unlock()
	if ln != nil {
		_ = ln.Close() // it is not needed any more
	}
	p.Reset()
}

// Up accepts connections again after Down. On a proxy that is up it does nothing.
func (p *Proxy) Up() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed:
		return net.ErrClosed
	case p.listener != nil:
		return nil
	}
	ln, err := p.config.Listen()
	if err != nil {
		return fmt.Errorf("fault proxy: %w", err)
	}
	if p.addr == nil {
		p.addr = ln.Addr()
	} else if p.addr.String() != ln.Addr().String() {
		_ = ln.Close()
		return fmt.Errorf("fault proxy: listens on %s instead of %s: Listen must give the same address again", ln.Addr(), p.addr)
	}
	p.listener = ln
	p.wg.Go(func() { p.accept(ln) })
	return nil
}

// Close ends the proxy with all its connections and waits for its goroutines.
func (p *Proxy) Close() error {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.cancel()
	p.Down()
	p.wg.Wait()
	return nil
}

// accept runs until its listener is closed.
func (p *Proxy) accept(ln net.Listener) {
	for {
		client, err := ln.Accept()
		if errors.Is(err, net.ErrClosed) || p.ctx.Err() != nil {
			return
		}
		if err != nil {
			continue // that client gave up
		}
		p.accepted.Add(1)
		p.wg.Go(func() { p.serve(ln, client) })
	}
}

// serve runs until both directions of a connection have ended.
func (p *Proxy) serve(ln net.Listener, client net.Conn) {
	server, err := p.config.Dial(p.ctx)
	if err != nil {
		abort(client)
		return
	}
	l := &link{proxy: p, ends: [2]net.Conn{client, server}, done: make(chan struct{})}
	p.mu.Lock()
	gone := p.listener != ln // Down came in between
	if !gone {
		p.links[l] = struct{}{}
	}
	p.mu.Unlock()
	if gone {
		l.reset()
		return
	}
	var both sync.WaitGroup
	both.Go(func() { l.pump(up, client, server) })
	both.Go(func() { l.pump(down, server, client) })
	both.Wait()
	_ = client.Close() // both directions have ended: there is nothing to lose
	_ = server.Close()
	p.mu.Lock()
	delete(p.links, l)
	p.mu.Unlock()
}

// jitter draws a time in [0, limit).
func (p *Proxy) jitter(limit time.Duration) time.Duration {
	if limit <= 0 {
		return 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Duration(p.random.Int64N(int64(limit)))
}
