package inbound

import (
	"crypto/tls"
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
// that vouched for it have been withdrawn. Such a connection is closed soon.
func (ln *Listener) Chain(remote string, connection *tls.ConnectionState) *Chain {
	s := ln.state.Load()
	switch {
	case s.err != nil:
		return nil
	case connection == nil:
		return s.plaintext
	}
	return ln.trusted(s, ln.known.find(remote), remote, connection)
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
	if hook := ln.owner.options.Hooks.HandshakeFailed; hook != nil {
		hook(observe.HandshakeEvent{Listener: ln.name, PeerAddress: remote, Err: v.err})
	}
	if c != nil {
		c.endSoon()
	}
	return nil
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
	mu sync.RWMutex
	// byAddress has nil for an address that several connections have, as they
	// may on networks that are none.
	byAddress map[string]*trackedConn // guarded by mu
}

func (k *connections) add(c *trackedConn) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, taken := k.byAddress[c.remote]; taken {
		k.byAddress[c.remote] = nil
		return
	}
	k.byAddress[c.remote] = c
}

func (k *connections) remove(c *trackedConn) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.byAddress[c.remote] == c {
		delete(k.byAddress, c.remote)
	}
}

// find returns nil if there is no such connection, or more than one.
func (k *connections) find(remote string) *trackedConn {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.byAddress[remote]
}
