package inbound

import (
	"crypto/tls"
	"net"

	"github.com/inboardmesh/inboard/internal/filter/rbac"
)

// Connection is what a policy may know of a connection.
type Connection struct {
	Remote string
	Local  net.Addr
	// TLS is nil for plaintext.
	TLS    *tls.ConnectionState
	PeerID string
}

func (c *Connection) subject() rbac.Subject {
	s := rbac.Subject{Remote: c.Remote, Peer: c.Remote, Local: c.Local}
	if c.TLS != nil {
		s.ServerName, s.TLSVersion = c.TLS.ServerName, c.TLS.Version
		if c.TLS.HandshakeComplete && len(c.TLS.PeerCertificates) > 0 {
			s.Certificate = c.TLS.PeerCertificates[0]
		}
	}
	return s
}

// Guarded reports whether there are policies about connections.
func (c *Chain) Guarded() bool { return len(c.network) > 0 }

// Strict reports whether a request whose path has more than one reading must be
// refused.
func (c *Chain) Strict() bool { return c.Config.StrictPaths || c.Filters.Guarded() }

// Allows reports whether a connection that was accepted is allowed still. It is
// asked for every request, so that a change of policy applies to open
// connections too.
func (ln *Listener) Allows(chain *Chain, c *Connection) bool {
	s := c.subject()
	for _, f := range chain.network {
		if !f.Still(&s, ln.name, c.PeerID) {
			return false
		}
	}
	return true
}

// authorized decides about a connection that was accepted.
func (ln *Listener) authorized(conn net.Conn) bool {
	c := Connection{Remote: conn.RemoteAddr().String(), Local: conn.LocalAddr()}
	if secure, ok := conn.(*tls.Conn); ok {
		state := secure.ConnectionState()
		c.TLS = &state
	}
	chain := ln.Chain(c.Remote, c.TLS)
	if c.TLS != nil {
		ln.followTrust(conn)
	}
	switch {
	case chain == nil: // the policy has just changed
		return false
	case !chain.Guarded() && !chain.Config.TCP && !ln.streams:
		return true
	}
	if c.TLS != nil {
		if id, ok := ln.owner.PeerID(c.TLS); ok {
			c.PeerID = id.String()
		}
	}
	s := c.subject()
	for _, f := range chain.network {
		if !f.Connection(&s, ln.name, c.PeerID) {
			return false
		}
	}
	return !chain.Config.TCP && !ln.streams || ln.follow(conn, &c)
}
