package grpcmesh

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/credentials"

	"github.com/inboardmesh/inboard/internal/inbound"
	"github.com/inboardmesh/inboard/internal/upstream"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

// connectingKey is the address attribute under which what a connection is made
// for is found.
type connectingKey struct{}

// connecting is what a connection is made for, and what becomes of it.
type connecting struct {
	endpoint *upstream.Endpoint
	// expires is when the certificates of the last handshake no longer prove
	// anything, in Unix nanoseconds; 0 is never.
	expires atomic.Int64
	// security is what the last handshake was made under, nil before.
	security atomic.Pointer[upstream.Security]
	// conn is what the last handshake was over, nil before.
	conn atomic.Pointer[clientConn]
}

// clientCredentials do the TLS of the cluster that a connection is made for.
type clientCredentials struct {
	conns *clientConns
	hooks *observe.Hooks
}

var _ credentials.TransportCredentials = (*clientCredentials)(nil)

// clientAuth is the proof of a client connection. The peer was verified as a
// member of the cluster, whatever authority a call asks for.
type clientAuth struct {
	credentials.CommonAuthInfo
	State tls.ConnectionState
}

func (clientAuth) AuthType() string { return "mesh" }

// ValidateAuthority allows any authority: routing chose the cluster by it, and
// the peer's identity was checked against the cluster.
func (clientAuth) ValidateAuthority(string) error { return nil }

func (creds *clientCredentials) ClientHandshake(ctx context.Context, _ string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	made := connectingOf(ctx)
	if made == nil {
		// Another policy or resolver made this connection. Without a cluster
		// nothing says whom to trust.
		return nil, nil, errors.New("mesh: the channel's target is not the mesh's: use mesh:///HOST:PORT")
	}
	cluster := made.endpoint.Cluster()
	conn, ok := raw.(*clientConn)
	if !ok { // from a dialer of the application's
		conn = &clientConn{Conn: raw, conns: creds.conns, hooks: creds.hooks, address: raw.RemoteAddr().String(), began: time.Now()}
	}
	if err := creds.conns.add(conn); err != nil { // gRPC closes it if this fails, now or later
		return nil, nil, err
	}
	security := made.endpoint.Security() // before the settings: these may be newer
	made.security.Store(&security)
	config, own, err := made.endpoint.TLS()
	if err != nil {
		conn.failed(cluster, err)
		_ = conn.Close() // gRPC closes what is below
		return nil, nil, fmt.Errorf("mesh: cluster %q: %w", cluster.Name(), err)
	}
	made.conn.Store(conn)
	made.expires.Store(0)
	if config == nil {
		conn.ready(cluster, nil)
		return made.endpoint.Pinging(conn), clientAuth{CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.NoSecurity}}, nil
	}
	secure := tls.Client(conn, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		conn.failed(cluster, err)
		_ = conn.Close() // as above
		return nil, nil, fmt.Errorf("mesh: cluster %q: tls handshake: %w", cluster.Name(), err)
	}
	state := secure.ConnectionState()
	if due := meshtls.Expiry(state, own); !due.IsZero() {
		made.expires.Store(due.UnixNano())
	}
	conn.ready(cluster, &state)
	return made.endpoint.Pinging(secure), clientAuth{
		CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
		State:          state,
	}, nil
}

func (*clientCredentials) ServerHandshake(net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("mesh: client credentials cannot serve")
}

func (*clientCredentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "mesh"}
}

func (creds *clientCredentials) Clone() credentials.TransportCredentials {
	return &clientCredentials{conns: creds.conns, hooks: creds.hooks}
}

func (*clientCredentials) OverrideServerName(string) error {
	return errors.New("mesh: the control plane sets the server name")
}

// serverCredentials take over the connections of mesh listeners, whose TLS is
// done already.
type serverCredentials struct {
	listeners *inbound.Listeners
	hooks     *observe.Hooks
	// headerBytes is what the server reads of headers, unless the application's options
	// say otherwise.
	headerBytes int
}

var _ credentials.TransportCredentials = (*serverCredentials)(nil)

// plaintextAuth is the absence of proof.
type plaintextAuth struct{ credentials.CommonAuthInfo }

func (plaintextAuth) AuthType() string { return "insecure" }

// ServerHandshake reports what it refuses: grpc-go itself tells nobody.
func (s *serverCredentials) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := s.accept(raw)
	if err != nil && s.hooks.HandshakeFailed != nil {
		s.hooks.HandshakeFailed(observe.HandshakeEvent{
			Listener: raw.LocalAddr().String(), PeerAddress: raw.RemoteAddr().String(), Err: err,
		})
	}
	return conn, info, err
}

func (s *serverCredentials) accept(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	ln := s.listeners.Find(raw.LocalAddr())
	if ln == nil {
		return nil, nil, errors.New("mesh: this listener is not the mesh's: serve on one from Mesh.Listen")
	}
	ln.Serves()
	ln.ReadBy(s.headerBytes)
	conn, ok := raw.(*tls.Conn)
	if !ok {
		return s.farewell(raw), plaintextAuth{credentials.CommonAuthInfo{SecurityLevel: credentials.NoSecurity}}, nil
	}
	state := conn.ConnectionState()
	if state.NegotiatedProtocol != "h2" {
		return nil, nil, fmt.Errorf("mesh: gRPC needs HTTP/2, the client negotiated %q", state.NegotiatedProtocol)
	}
	return s.farewell(conn), credentials.TLSInfo{
		State:          state,
		CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
		SPIFFEID:       credentialsID(state),
	}, nil
}

// farewell lets the peer be asked to go while the mesh drains.
func (s *serverCredentials) farewell(conn net.Conn) net.Conn {
	c := inbound.Gathering(conn)
	inbound.SetFarewell(conn, c.GoAway)
	return c
}

func (*serverCredentials) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("mesh: server credentials cannot dial")
}

func (*serverCredentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "mesh"}
}

func (s *serverCredentials) Clone() credentials.TransportCredentials {
	c := *s
	return &c
}

func (*serverCredentials) OverrideServerName(string) error {
	return errors.New("mesh: a server has no server name to override")
}
