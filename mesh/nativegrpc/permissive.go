package nativegrpc

import (
	"net"
	"sync"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/inboardmesh/inboard/internal/relay"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

// Listener lets a native server accept plaintext beside mutual TLS where its
// configuration does (PERMISSIVE); under any other configuration it changes
// nothing. inner listens on TCP, and is closed with the listener that is returned:
//
//	srv.Serve(guest.Listener(inner))
//
// grpc-go knows one kind of connection for all that a filter chain is for. The
// server's credentials, which have to be those of [Guest.ServerOptions], tell by
// the first bytes, and the policies hold for both kinds.
func (g *Guest) Listener(inner net.Listener) net.Listener {
	return &listener{Listener: inner, conns: g.server.conns}
}

// permissive is the credentials of a server: grpc-go's own, but for connections
// without TLS where those are accepted.
type permissive struct {
	credentials.TransportCredentials

	relay *relay.Relay
	conns *sniffedConns
	peers *peers
}

// ServerHandshake accepts a connection.
func (p *permissive) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn := p.conns.find(raw)
	local, ok := raw.LocalAddr().(*net.TCPAddr)
	if conn == nil || !ok || !p.relay.AcceptsPlaintext(uint32(local.Port)) {
		return p.handshake(raw)
	}
	isTLS, err := conn.sniff()
	switch {
	case err != nil:
		return nil, nil, err
	case isTLS:
		return p.handshake(raw)
	}
	return insecure.NewCredentials().ServerHandshake(raw)
}

// handshake is grpc-go's, whose peers are remembered.
func (p *permissive) handshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, auth, err := p.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		return nil, nil, err
	}
	return conn, p.peers.note(auth), nil
}

// Clone returns credentials that share the connections.
func (p *permissive) Clone() credentials.TransportCredentials {
	clone := *p
	clone.TransportCredentials = p.TransportCredentials.Clone()
	return &clone
}

// UsesXDS tells grpc-go that its configuration is used.
func (p *permissive) UsesXDS() bool { return true }

// listener remembers its connections, which grpc-go wraps before credentials see
// them.
type listener struct {
	net.Listener

	conns *sniffedConns
}

func (ln *listener) Accept() (net.Conn, error) {
	conn, err := ln.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return ln.conns.add(conn), nil
}

// connKey are the two ends of a connection.
type connKey struct{ local, remote string }

func keyOf(conn net.Conn) connKey {
	return connKey{local: conn.LocalAddr().String(), remote: conn.RemoteAddr().String()}
}

// sniffedConns finds connections by their ends.
type sniffedConns struct {
	mu   sync.Mutex
	open map[connKey]*sniffedConn // guarded by mu
}

func (s *sniffedConns) add(conn net.Conn) *sniffedConn {
	c := &sniffedConn{Conn: conn, owner: s, key: keyOf(conn), from: conn}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open[c.key] = c
	return c
}

func (s *sniffedConns) find(conn net.Conn) *sniffedConn {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open[keyOf(conn)]
}

func (s *sniffedConns) remove(c *sniffedConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open[c.key] == c {
		delete(s.open, c.key)
	}
}

// sniffedConn is a connection whose first bytes may be looked at, before anything
// is read.
type sniffedConn struct {
	net.Conn

	owner *sniffedConns
	key   connKey
	from  net.Conn // what is read from
}

// sniff reports whether the connection begins with TLS. The deadline of the
// handshake bounds it.
func (c *sniffedConn) sniff() (isTLS bool, err error) {
	from, isTLS, err := meshtls.Sniff(c.Conn)
	if err == nil {
		c.from = from
	}
	return isTLS, err
}

func (c *sniffedConn) Read(p []byte) (int, error) { return c.from.Read(p) }

// Close closes the connection.
func (c *sniffedConn) Close() error {
	c.owner.remove(c)
	return c.Conn.Close()
}
