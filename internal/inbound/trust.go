package inbound

import (
	"crypto/tls"
	"net"
	"reflect"
	"sync"
	"time"

	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

// refusedLife is how long a connection stays open after a request over it was
// refused because its peer is not trusted any more: time for the answer.
const refusedLife = time.Second

// Chain returns the filter chain in force for a connection of this listener,
// by its peer's address as net.Addr writes it, and its TLS; nil is plaintext.
//
// It is asked for every request, so that what changes applies to open
// connections too. nil means that the connection must not be served any more:
// the policy has changed, the certificate of its peer has expired, or the roots
// that vouched for it have been withdrawn. Such a connection is closed soon. It is
// nil for all connections while the listener is not [Listener.Serving].
func (ln *Listener) Chain(remote string, connection *tls.ConnectionState) *Chain {
	s := ln.state.Load()
	switch {
	case s.err != nil:
		if c := ln.known.find(remote); c != nil {
			c.askToGo()
		}
		return nil
	case connection == nil:
		return s.plaintext
	}
	return ln.trusted(s, ln.known.find(remote), remote, connection)
}

// Serving reports whether there is a configuration under which anybody may be served.
// Without one nothing is accepted, and what comes over open connections is refused at
// once: to serve it by the policies of before would be to go on allowing what may have
// been withdrawn. What runs goes on, and who is refused is asked to go elsewhere, as far
// as the protocol allows (gRFC A36, Serving and Not Serving).
func (ln *Listener) Serving() bool { return ln.state.Load().err == nil }

// Running is a request that is being served.
type Running struct{ conn *trackedConn }

// End counts the request out. It must be called once.
func (r Running) End() {
	if r.conn != nil {
		r.conn.running.Add(-1)
	}
}

// Run is [Listener.Chain] for a request that is about to be served if there is a chain:
// until its End its connection is not idle.
func (ln *Listener) Run(remote string, connection *tls.ConnectionState) (*Chain, Running) {
	if connection == nil {
		return ln.Chain(remote, nil), Running{}
	}
	return ln.run(ln.known.find(remote), remote, connection)
}

// RunOf is [Listener.Run] by the peer's address itself, which it returns as net.Addr
// writes it: of an open connection that is known already.
func (ln *Listener) RunOf(peer net.Addr, connection *tls.ConnectionState) (chain *Chain, running Running, remote string) {
	c := ln.known.at(peer)
	if c == nil {
		remote = peer.String()
	} else {
		remote = c.remote
	}
	if connection == nil {
		return ln.Chain(remote, nil), Running{}, remote
	}
	chain, running = ln.run(c, remote, connection)
	return chain, running, remote
}

// run counts the request in before it asks: who then finds the connection idle has found
// out before that it is not trusted, and so will the request.
func (ln *Listener) run(c *trackedConn, remote string, connection *tls.ConnectionState) (*Chain, Running) {
	r := Running{conn: c}
	if c != nil {
		c.running.Add(1)
	}
	s := ln.state.Load()
	switch {
	case s.err == nil:
		if chain := ln.trusted(s, c, remote, connection); chain != nil {
			return chain, r
		}
	case c != nil:
		c.askToGo()
	}
	r.End()
	return nil, Running{}
}

// trusted is Chain for a TLS connection, which is c unless that is nil.
func (ln *Listener) trusted(s *state, c *trackedConn, remote string, connection *tls.ConnectionState) *Chain {
	if c != nil {
		if v := c.verdict.Load(); v != nil && v.holds(s) {
			return v.served()
		}
	}
	v := s.judge(c, connection)
	if c != nil {
		c.verdict.Store(v)
	}
	if v.err == nil {
		return v.served()
	}
	ln.distrusted(c, remote, v.err)
	return nil
}

// distrusted reports a connection whose peer is not trusted any more, and ends it.
func (ln *Listener) distrusted(c *trackedConn, remote string, err error) {
	if hook := ln.owner.options.Hooks.HandshakeFailed; hook != nil {
		hook(observe.HandshakeEvent{Listener: ln.name, PeerAddress: remote, Err: err})
	}
	if c != nil {
		c.endSoon()
	}
}

// verdict is what was found out about a TLS connection.
type verdict struct {
	state *state
	chain *secureChain // nil if there is none
	// rootsKey names the roots under which the peer was looked at; until is when
	// its certificates expire, zero if it has none.
	rootsKey string
	until    time.Time
	err      error // why it must not be served
}

func (v *verdict) served() *Chain {
	if v.err != nil {
		return nil
	}
	return v.chain.Chain
}

// holds reports whether the verdict would be the same under s now.
func (v *verdict) holds(s *state) bool {
	return v.state == s && (v.until.IsZero() || time.Now().Before(v.until)) &&
		(v.chain == nil || v.chain.rootsKey(v.rootsKey) == v.rootsKey)
}

// rootsKey names the roots of now. A source that has none at the moment has not
// withdrawn what it had: last stays in force.
func (c *secureChain) rootsKey(last string) string {
	if c.roots == nil {
		return ""
	}
	identity, err := c.roots.Identity()
	if err != nil {
		return last
	}
	return identity.RootsKey
}

// judge verifies the peer of a connection as if it shook hands now. c is nil if
// the connection is not known: then a choice by application protocols, which
// only its hello has told, cannot be made.
func (s *state) judge(c *trackedConn, connection *tls.ConnectionState) *verdict {
	v := &verdict{state: s}
	switch {
	case c == nil && len(s.tls) == 1 && len(s.tls[0].Config.Match.ApplicationProtocols) == 0:
		v.chain = s.tls[0]
	case c != nil:
		if offered := c.offered.Load(); offered != nil {
			v.chain = s.secure(*offered)
		}
	}
	if v.chain == nil {
		v.err = &meshtls.HandshakeError{Reason: meshtls.NotServed, Err: errNoChain}
		return v
	}
	v.rootsKey = v.chain.rootsKey("")
	if verify := v.chain.config.VerifyConnection; verify != nil {
		v.err = verify(*connection)
	}
	if v.err == nil {
		for _, cert := range connection.PeerCertificates {
			if v.until.IsZero() || cert.NotAfter.Before(v.until) {
				v.until = cert.NotAfter
			}
		}
	}
	return v
}

// followTrust sees to it that a connection with TLS over which nothing is asked for is
// closed when its peer is not trusted any more.
func (ln *Listener) followTrust(conn net.Conn) {
	secure, ok := conn.(*tls.Conn)
	tracked := trackedOf(conn)
	if ok && tracked != nil {
		tracked.secured.Store(secure)
		ln.watchStreams()
	}
}

// checkIdle ends a connection with TLS over which nothing is asked for, if the next request
// would be refused. What runs over it goes on.
func (ln *Listener) checkIdle(s *state, c *trackedConn) {
	secure := c.secured.Load()
	if secure == nil || s.err != nil || c.ending.Load() != nil || ln.known.find(c.remote) != c {
		return // the requests of one that shares its address are not known
	}
	v := c.verdict.Load()
	if v == nil || !v.holds(s) {
		if v != nil && v.trusts(s, c) {
			return
		}
		connection := secure.ConnectionState()
		v = s.judge(c, &connection)
		c.verdict.Store(v)
	}
	if v.err != nil && c.running.Load() == 0 {
		ln.distrusted(c, c.remote, v.err)
	}
}

// trusts reports whether the peer would be trusted under s because it was under another
// state that differs from it in what does not matter to that: to look at thousands of
// connections takes time.
func (v *verdict) trusts(s *state, c *trackedConn) bool {
	offered := c.offered.Load()
	if v.err != nil || v.chain == nil || offered == nil || !v.until.IsZero() && !time.Now().Before(v.until) {
		return false
	}
	next := s.secure(*offered)
	return next != nil && next.roots == v.chain.roots && next.rootsKey(v.rootsKey) == v.rootsKey &&
		reflect.DeepEqual(next.Config.TLS, v.chain.Config.TLS)
}

// endSoon closes the connection when its peer has had time to read why.
func (c *trackedConn) endSoon() {
	timer := time.AfterFunc(refusedLife, func() { _ = c.Close() })
	if !c.ending.CompareAndSwap(nil, timer) || c.closed.Load() {
		timer.Stop()
	}
}

// connections are the open connections of a listener by the addresses of their
// peers.
type connections struct {
	mu        sync.RWMutex
	byAddress map[string]sharing // guarded by mu
}

// sharing are the connections that have one address of a peer: one, but on networks
// that are none, and where a peer uses a port for several addresses of the listener.
// Then nobody knows which is meant: conn is nil until all of them are gone.
type sharing struct {
	conn  *trackedConn
	count int
}

func (k *connections) add(c *trackedConn) {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := sharing{conn: c, count: k.byAddress[c.remote].count + 1}
	if s.count > 1 {
		s.conn = nil
	}
	k.byAddress[c.remote] = s
}

func (k *connections) remove(c *trackedConn) {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := k.byAddress[c.remote]
	if s.count--; s.count <= 0 {
		delete(k.byAddress, c.remote)
		return
	}
	s.conn = nil
	k.byAddress[c.remote] = s
}

// at is find without the text of an address of TCP, which would be allocations.
func (k *connections) at(peer net.Addr) *trackedConn {
	tcp, ok := peer.(*net.TCPAddr)
	if !ok {
		return k.find(peer.String())
	}
	var room [64]byte
	name := appendTCP(room[:0], tcp)
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.byAddress[string(name)].conn
}

// find returns nil if there is no such connection, or more than one.
func (k *connections) find(remote string) *trackedConn {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.byAddress[remote].conn
}
