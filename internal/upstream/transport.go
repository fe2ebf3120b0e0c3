package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/http1"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

// wireProtocol is the HTTP version that a pool's connections speak.
type wireProtocol uint8

const (
	wireHTTP1 wireProtocol = iota
	wireHTTP2
	// wireALPN lets the TLS handshake decide.
	wireALPN
)

// transports make HTTP connections out of network connections. No request goes
// through their RoundTrip.
type transports struct {
	http1, http2 *http.Transport
	// direct is what http1 says, for connections without it.
	direct http1.Options
}

// givenConn is the context key of the network connection to use.
type givenConn struct{}

func newTransports(m *Manager) *transports {
	t := &transports{
		http1: m.newTransport((*http.Protocols).SetHTTP1),
		http2: m.newTransport((*http.Protocols).SetUnencryptedHTTP2),
	}
	t.direct = http1.OptionsOf(t.http1)
	return t
}

// newTransport clones the template. TLS, proxies, dialing, the protocol and the
// time that a connection may be idle are not the template's.
func (m *Manager) newTransport(speak func(*http.Protocols, bool)) *http.Transport {
	tr := &http.Transport{}
	if m.options.Transport != nil {
		tr = m.options.Transport.Clone()
	}
	tr.Proxy, tr.TLSClientConfig, tr.TLSNextProto = nil, nil, nil
	tr.IdleConnTimeout = 0
	tr.Protocols = new(http.Protocols)
	speak(tr.Protocols, true)
	tr.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		return ctx.Value(givenConn{}).(net.Conn), nil
	}
	return tr
}

// dialed is a new HTTP connection and what is known of it.
type dialed struct {
	cc    httpConn
	raw   *rawConn
	http2 bool
	// secured is the connection with TLS, nil in the clear.
	secured *tls.Conn
	// peerID is the peer's verified identity, "" without one.
	peerID string
	// security tells under which settings and roots it was made.
	security Security
	// expires is when its certificates no longer prove anything; zero is never.
	expires time.Time
}

// current reports whether a connection to an endpoint would be made as d was.
func (d *dialed) current(e *Endpoint) bool {
	return d.security.Same(e.Security()) && (d.expires.IsZero() || time.Now().Before(d.expires))
}

// dial makes one connection to an endpoint, within the connect timeout.
func (e *Endpoint) dial(ctx context.Context, protocol wireProtocol) (*dialed, error) {
	return e.dialAt(ctx, e.address, protocol, protocol.alpn)
}

// dialAt is dial for another address of the endpoint. alpn are the protocols to
// offer in the TLS handshake.
func (e *Endpoint) dialAt(ctx context.Context, address string, protocol wireProtocol, alpn alpnFunc) (*dialed, error) {
	state := e.cluster.state.Load()
	if state.err != nil {
		return nil, state.err
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout(state.config))
	defer cancel()
	d := &dialed{http2: protocol == wireHTTP2}
	conn, err := e.connect(ctx, d, state, address, alpn)
	if err != nil {
		return nil, err
	}
	if d.http2 {
		d.raw.watchWrites(e.cluster.manager.writes, &e.cluster.manager.ending)
		// net/http does not look at ctx while it writes what a connection begins with.
		given := context.AfterFunc(ctx, func() { _ = d.raw.Close() })
		d.cc, err = newHTTP2(ctx, state.transport.http2, e.Pinging(conn), d.secured, address)
		if !given() && err == nil {
			err = errors.Join(fmt.Errorf("http2: %w", context.Cause(ctx)), ignoreClosed(d.cc.Close()))
		}
	} else {
		d.cc, err = newHTTP1(ctx, state.transport, conn, address)
	}
	if err != nil {
		return nil, err
	}
	return d, nil
}

// connectTimeout is how long a connection of a cluster may take to be made.
func connectTimeout(config *discovery.Cluster) time.Duration {
	const defaultConnectTimeout = 5 * time.Second // Envoy's connect_timeout
	timeout := config.ConnectTimeout
	if timeout <= 0 {
		timeout = defaultConnectTimeout
	}
	if config.Balancer.Failover != nil { // nobody waits for longer than for the next priority
		timeout = min(timeout, config.Balancer.Failover.Within())
	}
	return timeout
}

// ConnectTimeout is how long a connection to the endpoint may take to be made.
func (e *Endpoint) ConnectTimeout() time.Duration {
	if config := e.cluster.Config(); config != nil {
		return connectTimeout(config)
	}
	return connectTimeout(&discovery.Cluster{})
}

// alpnFunc are the protocols to offer under TLS settings.
type alpnFunc func(settings *discovery.UpstreamTLS) []string

// connect makes the network connection of d, with the endpoint's TLS.
func (e *Endpoint) connect(ctx context.Context, d *dialed, state *clusterState, address string, alpn alpnFunc) (net.Conn, error) {
	// Read before the handshake: if the roots change meanwhile, the connection
	// counts as made under the old ones and is replaced.
	secure := state.tlsOf(e)
	d.security = secure.security()
	network, err := e.Dial(ctx, address)
	if err != nil {
		return nil, err
	}
	if err := e.KeepAlive(network); err != nil {
		_ = network.Close() // it was never used
		return nil, err
	}
	d.raw = &rawConn{Conn: network}
	if secure == nil {
		return d.raw, nil
	}
	return d.secure(ctx, secure, alpn(secure.settings))
}

// secure makes the handshake. On failure it closes the connection.
func (d *dialed) secure(ctx context.Context, settings *clientTLS, alpn []string) (net.Conn, error) {
	config, err := settings.config(alpn)
	if err != nil {
		return nil, errors.Join(err, ignoreClosed(d.raw.Close()))
	}
	// Read before the handshake, as the roots are.
	own := settings.own()
	conn := tls.Client(&recordsConn{Conn: d.raw}, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("tls handshake: %w", err), ignoreClosed(d.raw.Close()))
	}
	state := conn.ConnectionState()
	d.secured, d.expires = conn, meshtls.Expiry(state, own)
	d.http2 = d.http2 || isHTTP2(state.NegotiatedProtocol)
	if id, ok := meshtls.PeerID(state); ok {
		d.peerID = id.String()
	}
	return conn, nil
}

// newClientConn hands a network connection to net/http. On failure it closes it.
func newClientConn(ctx context.Context, tr *http.Transport, conn net.Conn, address string) (*http.ClientConn, error) {
	// The scheme is http also over TLS, which has been made already.
	cc, err := tr.NewClientConn(context.WithValue(ctx, givenConn{}, conn), "http", address)
	if err != nil {
		return nil, errors.Join(err, ignoreClosed(conn.Close()))
	}
	return cc, nil
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
