// Package inbound runs the listeners of this process: which connections they
// accept, with which TLS, and what is done with their requests, as the control
// plane says. HTTP and gRPC servers share it.
package inbound

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"hash/maphash"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/filter/fault"
	"github.com/inboardmesh/inboard/internal/filter/jwt"
	"github.com/inboardmesh/inboard/internal/filter/service"
	"github.com/inboardmesh/inboard/internal/upstream"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

// ErrClosed is returned by Listen after Close.
var ErrClosed = errors.New("mesh closed")

// errDraining is returned by Listen after Drain.
var errDraining = errors.New("the mesh drains")

// Options configure [Listeners].
type Options struct {
	Source discovery.Source
	// Upstreams runs the clusters that filters call; nil if none does.
	Upstreams *upstream.Manager
	// Identity finds the certificate provider instance that a filter chain's
	// TLS settings name.
	Identity func(instance string) (meshtls.Source, error)
	Hooks    *observe.Hooks
	// Warn is told what a configuration allows and the server of its listener does not;
	// nil tells nobody.
	Warn func(listener, text string)
}

// Listeners holds the listeners of one mesh. Safe for concurrent use.
type Listeners struct {
	options Options

	faults   fault.Faults
	services *service.Client
	tokens   *jwt.Store

	mu        sync.RWMutex
	open      map[*Listener]struct{} // guarded by mu
	byAddress map[string]*Listener   // guarded by mu; those of open
	closed    bool                   // guarded by mu
	last      []*Listener            // guarded by mu; those of open when it was closed

	stopOnce sync.Once
	stopping chan struct{} // closed by Drain or Close: nothing may begin to listen

	ended chan struct{} // closed by Close
	// watches are those who look after connections; begun under mu, before closed.
	watches sync.WaitGroup

	drain        atomic.Pointer[drain] // nil before Drain
	calls, conns tracker
	upgraded     atomic.Int64 // connections
	peers        peers
}

// New returns a set without listeners.
func New(options Options) *Listeners {
	if options.Hooks == nil {
		options.Hooks = &observe.Hooks{}
	}
	l := &Listeners{
		options: options, open: make(map[*Listener]struct{}), byAddress: make(map[string]*Listener),
		stopping: make(chan struct{}), ended: make(chan struct{}), peers: peers{seed: maphash.MakeSeed()},
	}
	l.faults.Closing = l.ended
	l.services = service.NewClient(l.cluster, options.Hooks)
	l.tokens = jwt.NewStore(l.fetchKeys, options.Hooks)
	return l
}

// Listen takes over inner and serves it under the control plane's
// configuration for its address. It waits for the first configuration, until
// ctx ends: a listener never accepts without a policy. On error inner is
// closed.
func (l *Listeners) Listen(ctx context.Context, inner net.Listener) (*Listener, error) {
	return l.listen(ctx, newListener(l, inner))
}

func (l *Listeners) listen(ctx context.Context, ln *Listener) (*Listener, error) {
	inner := ln.inner
	if err := l.stopped(); err != nil {
		return nil, errors.Join(fmt.Errorf("listen %q: %w", ln.name, err), inner.Close())
	}
	ln.stop = l.options.Source.WatchInbound(ln.name, ln.update)
	err := ln.waitReady(ctx)
	if err == nil {
		err = l.add(ln)
	}
	if err != nil {
		ln.stop()
		ln.release()
		return nil, errors.Join(fmt.Errorf("listen %q: %w", ln.name, err), inner.Close())
	}
	return ln, nil
}

// stopped is why nothing may begin to listen any more, or nil.
func (l *Listeners) stopped() error {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.stoppedLocked()
}

func (l *Listeners) stoppedLocked() error {
	switch {
	case l.closed:
		return ErrClosed
	case l.Draining():
		return errDraining
	}
	return nil
}

// add lets a listener accept connections.
func (l *Listeners) add(ln *Listener) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.stoppedLocked(); err != nil {
		return err
	}
	ln.accept()
	l.open[ln], l.byAddress[ln.name] = struct{}{}, ln
	return nil
}

// Find returns the listener that a connection was accepted by, given the
// connection's local address; nil if it is none of the mesh's.
func (l *Listeners) Find(local net.Addr) *Listener {
	if local == nil {
		return nil
	}
	tcp, ok := local.(*net.TCPAddr)
	if !ok {
		l.mu.RLock()
		defer l.mu.RUnlock()
		return l.byAddress[local.String()]
	}
	var room [64]byte
	name := appendTCP(room[:0], tcp)
	l.mu.RLock()
	defer l.mu.RUnlock()
	if ln := l.byAddress[string(name)]; ln != nil {
		return ln
	}
	return l.byAddress[string(appendTCP(room[:0], &net.TCPAddr{IP: net.IPv4zero, Port: tcp.Port}))]
}

// Follow tells that l, if it is one of the mesh's, is about to be served by a server
// of HTTP: requests of HTTP/1.1 whose length can be read in two ways are refused with
// 400, with the connection. Connections that were accepted before stay as they are.
func (l *Listeners) Follow(ln net.Listener) {
	if ln, ok := ln.(*Listener); ok && ln.owner == l {
		ln.follows.Store(true)
	}
}

// appendTCP appends what a.String returns, which allocates.
func appendTCP(to []byte, a *net.TCPAddr) []byte {
	addr := a.AddrPort()
	if !addr.IsValid() {
		return append(to, a.String()...)
	}
	return netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port()).AppendTo(to)
}

func (l *Listeners) remove(ln *Listener) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.open, ln)
	if l.byAddress[ln.name] == ln {
		delete(l.byAddress, ln.name)
	}
}

// Close closes every listener. Connections that were accepted stay with their
// servers, but nothing that comes over them is served any more, nor what an injected
// delay holds back. It waits for no request, and for hooks only.
func (l *Listeners) Close() error {
	l.mu.Lock()
	open := slices.Collect(maps.Keys(l.open))
	if !l.closed {
		l.closed, l.last = true, open
		close(l.ended)
	}
	l.mu.Unlock()
	l.stop()
	var errs []error
	for _, ln := range open {
		if err := ln.Close(); !isClosed(err) {
			errs = append(errs, err)
		}
		ln.forget()
	}
	l.watches.Wait()
	l.tokens.Close()
	return errors.Join(errs...)
}

// stop ends the wait of those who are about to listen.
func (l *Listeners) stop() { l.stopOnce.Do(func() { close(l.stopping) }) }

// PeerID is [meshtls.PeerID] of a connection of these listeners.
func (l *Listeners) PeerID(state *tls.ConnectionState) (meshtls.ID, bool) { return l.peers.id(state) }

// isClosed reports whether an error of Close says only that it was done before.
func isClosed(err error) bool { return errors.Is(err, net.ErrClosed) }

// resourceAddress is the address under which the control plane knows a
// listener: a wildcard is "0.0.0.0", whichever family it was opened with.
func resourceAddress(addr net.Addr) string {
	if tcp, ok := addr.(*net.TCPAddr); ok && tcp.IP.IsUnspecified() {
		return (&net.TCPAddr{IP: net.IPv4zero, Port: tcp.Port}).String()
	}
	return addr.String()
}

// state is what is in force at a listener.
type state struct {
	source *discovery.Inbound
	// tls are the chains for connections that are TLS, of which the application
	// protocols choose; none refuses them.
	tls       []*secureChain
	plaintext *Chain // for those that are not TLS; nil refuses them
	policy    meshtls.ListenPolicy
	err       error // why there is none
}
