package inbound

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/filter"
	"github.com/inboardmesh/inboard/internal/filter/rbac"
	"github.com/inboardmesh/inboard/internal/route"
	"github.com/inboardmesh/inboard/internal/upstream"
	"github.com/inboardmesh/inboard/internal/watch"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

// Chain is a filter chain, compiled.
type Chain struct {
	Config *discovery.FilterChain
	Routes *route.Table
	// Identity is the certificate of the server; nil in plaintext.
	Identity meshtls.Source
	// Filters is nil if there are none.
	Filters *filter.Chain

	network []*rbac.Filter
}

// Listener accepts connections as its filter chains say. It implements
// [net.Listener].
type Listener struct {
	owner *Listeners
	name  string
	inner net.Listener
	mesh  *meshtls.Listener // set before Listen returns
	stop  func()
	state watch.Value[*state]

	closeOnce sync.Once
	closed    chan struct{}

	mu     sync.Mutex
	conns  map[*trackedConn]struct{} // guarded by mu; accepted and still open
	ending bool                      // guarded by mu; accepts no more
	// held are the clusters that filters call; guarded by mu. released tells that
	// there are to be none any more; guarded by mu.
	held     map[string]*upstream.Cluster
	released bool

	known connections
	// serves is set once requests are served over the listener.
	serves atomic.Bool
	// headerLimit is how much headers the server reads; 0 is not known.
	headerLimit atomic.Int64
	// follows is set if the requests of its connections are followed.
	follows atomic.Bool
	// streams is set if the connections are for a server of a protocol of its own.
	streams bool
	// watched tells that somebody looks after such connections; guarded by owner.mu.
	watched bool
	// forgotten is closed when there is nothing to look after any more.
	forgotten  chan struct{}
	forgetOnce sync.Once
	// secrets is used by update alone.
	secrets discovery.SecretSources
}

var _ net.Listener = (*Listener)(nil)

func newListener(owner *Listeners, inner net.Listener) *Listener {
	ln := &Listener{owner: owner, name: resourceAddress(inner.Addr()), closed: make(chan struct{}), forgotten: make(chan struct{})}
	ln.inner = &trackedListener{Listener: inner, owner: ln}
	ln.known.byAddress, ln.conns = make(map[string]sharing), make(map[*trackedConn]struct{})
	ln.state.Store(&state{err: errors.New("no configuration yet")})
	return ln
}

// update takes over what the source published. It runs on the source's
// goroutine.
func (ln *Listener) update(u discovery.Update[*discovery.Inbound]) {
	if u.Value == nil {
		ln.state.Store(&state{err: u.Err})
		return
	}
	old := ln.state.Load()
	if old.source == u.Value {
		return
	}
	ln.hold(u.Value.Clusters) // before filters call them
	ln.secrets.Update(u.Value.Secrets)
	if old.err == nil && sameChains(old.source, u.Value) {
		same := *old
		same.source = u.Value
		ln.state.Store(&same)
		return
	}
	next, err := ln.compile(u.Value)
	if err != nil {
		// What cannot be enforced is refused: the listener accepts nothing.
		next = &state{source: u.Value, err: err}
	}
	ln.state.Store(next)
	if next.headerBytes() != old.headerBytes() {
		ln.checkHeaders(next)
	}
}

// compile chooses the filter chains for each kind of connection and prepares
// them.
func (ln *Listener) compile(in *discovery.Inbound) (*state, error) {
	s := &state{source: in}
	for _, chain := range ln.choose(in, "tls") {
		if chain.TLS == nil {
			return nil, fmt.Errorf("filter chain %q: matches TLS connections but has no TLS settings", chain.Name)
		}
		secure, err := ln.serverTLS(chain)
		if err != nil {
			return nil, fmt.Errorf("filter chain %q: %w", chain.Name, err)
		}
		s.tls = append(s.tls, secure)
	}
	if len(s.tls) > 0 {
		s.policy.TLS = ln.listenTLS(s)
	}
	for _, chain := range ln.choose(in, "raw_buffer") {
		switch {
		case chain.TLS != nil:
			return nil, fmt.Errorf("filter chain %q: matches plaintext connections but has TLS settings", chain.Name)
		case s.plaintext != nil, len(chain.Match.ApplicationProtocols) > 0:
			continue // plaintext negotiates none
		}
		var err error
		if s.plaintext, err = ln.compileChain(chain); err != nil {
			return nil, fmt.Errorf("filter chain %q: %w", chain.Name, err)
		}
		s.policy.Plaintext = true
	}
	if s.tls == nil && s.plaintext == nil {
		return nil, errors.New("no filter chain matches any connection")
	}
	return s, nil
}

// compileChain prepares a filter chain, and refuses what cannot be enforced.
func (ln *Listener) compileChain(chain *discovery.FilterChain) (*Chain, error) {
	filters, err := filter.Compile(chain.Filters, chain.Routes, ln.owner.filterBuilder(chain.Filters))
	if err != nil {
		return nil, err
	}
	if ln.streams && filters != nil {
		return nil, errAboutRequests
	}
	c := &Chain{Config: chain, Routes: route.Compile(chain.Routes), Filters: filters}
	for _, config := range chain.Network {
		c.network = append(c.network, rbac.New(config, ln.owner.options.Hooks))
	}
	return c, nil
}

// choose returns the chains for a transport protocol ("tls" or "raw_buffer"):
// those that name the port before those that do not, those that name the
// protocol before those that do not (Envoy, filter chain match order), and last
// the default chain. Of several, the application protocols decide.
func (ln *Listener) choose(in *discovery.Inbound, transport string) []*discovery.FilterChain {
	var best []*discovery.FilterChain
	bestRank := -1
	for i := range in.Chains {
		chain := &in.Chains[i]
		rank := 0
		switch m := &chain.Match; {
		case m.DestinationPort != 0 && m.DestinationPort != ln.port(),
			m.TransportProtocol != "" && m.TransportProtocol != transport:
			continue
		default:
			if m.DestinationPort != 0 {
				rank += 2
			}
			if m.TransportProtocol != "" {
				rank++
			}
		}
		// A chain that does not name the protocol is for TLS if it has TLS
		// settings, and for plaintext if it has none.
		if chain.Match.TransportProtocol == "" && (chain.TLS != nil) != (transport == "tls") {
			continue
		}
		switch {
		case rank > bestRank:
			best, bestRank = []*discovery.FilterChain{chain}, rank
		case rank == bestRank:
			best = append(best, chain)
		}
	}
	catchesAll := slices.ContainsFunc(best, func(c *discovery.FilterChain) bool { return len(c.Match.ApplicationProtocols) == 0 })
	if in.Default != nil && !catchesAll && (in.Default.TLS != nil) == (transport == "tls") {
		best = append(best, in.Default)
	}
	return best
}

func (ln *Listener) port() uint32 {
	if tcp, ok := ln.inner.Addr().(*net.TCPAddr); ok {
		return uint32(tcp.Port)
	}
	return 0
}

// waitReady waits for the first usable configuration.
func (ln *Listener) waitReady(ctx context.Context) error {
	for {
		s, changed := ln.state.Watch()
		if s.err == nil {
			return nil
		}
		if s.source != nil || errors.Is(s.err, discovery.ErrNotFound) {
			return s.err
		}
		select {
		case <-changed:
		case <-ln.owner.stopping:
			return ln.owner.stopped()
		case <-ctx.Done():
			return fmt.Errorf("%w (%w)", s.err, context.Cause(ctx))
		}
	}
}

func (ln *Listener) accept() {
	hooks := ln.owner.options.Hooks
	ln.mesh = meshtls.NewListener(ln.inner, meshtls.ListenerConfig{
		Policy: ln.policy,
		OnRefused: func(remote net.Addr, err error) {
			if hooks.HandshakeFailed != nil {
				hooks.HandshakeFailed(observe.HandshakeEvent{Listener: ln.name, PeerAddress: remote.String(), Err: err})
			}
		},
	})
}

func (ln *Listener) policy() (meshtls.ListenPolicy, error) {
	s := ln.state.Load()
	return s.policy, s.err
}

// Name is the address under which the control plane knows the listener.
func (ln *Listener) Name() string { return ln.name }

// Accept returns the next connection that the policy lets through: a *tls.Conn
// after its handshake, or a plaintext connection; for a server of HTTP that has said
// so ([Listeners.Follow]), one of HTTP/1.1 that follows its requests. While the mesh
// drains it waits, so that a server's loop does not end before its requests have.
func (ln *Listener) Accept() (net.Conn, error) {
	for {
		conn, err := ln.mesh.Accept()
		switch {
		case err != nil && ln.owner.Draining():
			<-ln.closed
			return nil, err
		case err != nil:
			return nil, err
		case ln.authorized(conn):
			if c := trackedOf(conn); c != nil {
				c.served.Store(true)
			}
			if ln.follows.Load() {
				conn = framed(conn)
			}
			return conn, nil
		}
		_ = conn.Close() // a peer that is not wanted is told no reason
	}
}

// Close stops accepting. Connections that were accepted stay open, and under
// the control plane's policy until the last of them is closed.
func (ln *Listener) Close() error {
	ln.closeOnce.Do(func() { close(ln.closed) })
	err := ln.mesh.Close()
	ln.mu.Lock()
	ln.ending = true
	last := len(ln.conns) == 0
	ln.mu.Unlock()
	if last {
		ln.forget()
	}
	return err
}

// opened counts a connection that was accepted.
func (ln *Listener) opened(c *trackedConn) {
	ln.known.add(c)
	ln.mu.Lock()
	defer ln.mu.Unlock()
	ln.conns[c] = struct{}{}
}

// connections are those that were accepted and are still open.
func (ln *Listener) connections() []*trackedConn {
	ln.mu.Lock()
	defer ln.mu.Unlock()
	return slices.Collect(maps.Keys(ln.conns))
}

// gone counts a connection that is closed. The last one of a closed listener
// ends its policy.
func (ln *Listener) gone(c *trackedConn) {
	ln.mu.Lock()
	delete(ln.conns, c)
	last := ln.ending && len(ln.conns) == 0
	ln.mu.Unlock()
	if last {
		ln.forget()
	}
}

// forget ends the listener's policy. It may be called more than once.
func (ln *Listener) forget() {
	ln.forgetOnce.Do(func() { close(ln.forgotten) })
	ln.owner.remove(ln)
	ln.stop()
	ln.release()
}

// Addr is the listener's network address.
func (ln *Listener) Addr() net.Addr { return ln.inner.Addr() }
