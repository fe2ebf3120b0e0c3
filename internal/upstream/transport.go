package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/inboardmesh/inboard/discovery"
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

// clientTLS is how to authenticate to, and verify, a cluster's endpoints.
type clientTLS struct {
	settings *discovery.UpstreamTLS
	identity meshtls.Source
	roots    meshtls.Source
}

// clientTLS resolves the provider instances of a cluster's settings; nil
// settings are plaintext.
func (m *Manager) clientTLS(settings *discovery.UpstreamTLS) (*clientTLS, error) {
	if settings == nil {
		return nil, nil
	}
	t := &clientTLS{settings: settings}
	var err error
	if settings.IdentityInstance != "" {
		if t.identity, err = m.options.Identity(settings.IdentityInstance); err != nil {
			return nil, err
		}
	}
	if t.roots, err = m.options.Identity(settings.RootInstance); err != nil {
		return nil, err
	}
	return t, nil
}

// config returns a fresh configuration that offers the given protocols.
func (t *clientTLS) config(alpn []string) (*tls.Config, error) {
	return meshtls.ClientConfig(meshtls.ClientParams{
		Identity:   t.identity,
		Roots:      t.roots,
		Authorize:  t.authorizer(),
		ServerName: t.settings.SNI,
		NextProtos: alpn,
	})
}

// authorizer checks the peer's SANs against the cluster's list. A cluster
// without a list accepts the members of the own trust domain, and nobody from
// another one (data-plane decision D11).
func (t *clientTLS) authorizer() meshtls.Authorizer {
	if len(t.settings.SANs) == 0 {
		return meshtls.AuthorizeOwnTrustDomain(t.roots)
	}
	matchers := make([]meshtls.SANMatcher, 0, len(t.settings.SANs))
	for i := range t.settings.SANs {
		matchers = append(matchers, t.settings.SANs[i].Matches)
	}
	authorize := meshtls.AuthorizeSANs(matchers)
	return func(peer meshtls.ID, cert *x509.Certificate) error {
		if err := authorize(peer, cert); err != nil {
			return fmt.Errorf("%w: the cluster wants %s", err, sanList(t.settings.SANs))
		}
		return nil
	}
}

// sanList names the first few of the allowed SANs, for errors.
func sanList(sans []discovery.StringMatch) string {
	const most = 3
	var b strings.Builder
	for i := range sans[:min(len(sans), most)] {
		if i > 0 {
			b.WriteString(" or ")
		}
		b.WriteString(sanKinds[sans[i].Kind])
		b.WriteString(strconv.Quote(sans[i].Value))
	}
	if more := len(sans) - most; more > 0 {
		fmt.Fprintf(&b, " or one of %d more", more)
	}
	return b.String()
}

var sanKinds = [...]string{
	discovery.MatchExact:    "",
	discovery.MatchPrefix:   "the prefix ",
	discovery.MatchSuffix:   "the suffix ",
	discovery.MatchContains: "the part ",
	discovery.MatchRegex:    "the pattern ",
}

// rootsKey changes when the roots that verify the peers change.
func (t *clientTLS) rootsKey() string {
	if t == nil {
		return ""
	}
	id, err := t.roots.Identity()
	if err != nil {
		return ""
	}
	return id.RootsKey
}

// TLSConfig returns a fresh TLS configuration for connections to the cluster,
// offering the given protocols; nil means plaintext.
func (c *Cluster) TLSConfig(alpn ...string) (*tls.Config, error) {
	state := c.state.Load()
	if state.err != nil {
		return nil, state.err
	}
	if state.tls == nil {
		return nil, nil
	}
	return state.tls.config(alpn)
}

// transports make HTTP connections out of network connections. No request goes
// through their RoundTrip.
type transports struct{ http1, http2 *http.Transport }

// givenConn is the context key of the network connection to use.
type givenConn struct{}

func newTransports(m *Manager) *transports {
	return &transports{
		http1: m.newTransport((*http.Protocols).SetHTTP1),
		http2: m.newTransport((*http.Protocols).SetUnencryptedHTTP2),
	}
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

func alpnOf(protocol wireProtocol, config *discovery.Cluster) []string {
	switch protocol {
	case wireHTTP1:
		return []string{"http/1.1"}
	case wireHTTP2:
		return []string{"h2"}
	}
	if config.TLS != nil && len(config.TLS.ALPN) > 0 {
		return config.TLS.ALPN
	}
	return []string{"h2", "http/1.1"}
}

// dialed is a new HTTP connection and what is known of it.
type dialed struct {
	cc    *http.ClientConn
	raw   *rawConn
	http2 bool
	tls   bool
	// peerID is the peer's verified identity, "" without one.
	peerID string
	// rootsKey tells under which roots it was made.
	rootsKey string
}

// dial makes one connection to an endpoint, within the connect timeout.
func (c *Cluster) dial(ctx context.Context, address string, protocol wireProtocol) (*dialed, error) {
	state := c.state.Load()
	if state.err != nil {
		return nil, state.err
	}
	const defaultConnectTimeout = 5 * time.Second // Envoy's connect_timeout
	timeout := state.config.ConnectTimeout
	if timeout <= 0 {
		timeout = defaultConnectTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	// Read before the handshake: if the roots change meanwhile, the connection
	// counts as made under the old ones and is replaced.
	d := &dialed{http2: protocol == wireHTTP2, rootsKey: state.tls.rootsKey()}
	network, err := c.manager.options.Dial(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	d.raw = &rawConn{Conn: network}
	conn := net.Conn(d.raw)
	if state.tls != nil {
		if conn, err = d.secure(ctx, state.tls, alpnOf(protocol, state.config)); err != nil {
			return nil, err
		}
	}
	if d.http2 {
		d.cc, err = newHTTP2(ctx, state.transport.http2, conn, address)
	} else {
		d.cc, err = newClientConn(ctx, state.transport.http1, conn, address)
	}
	if err != nil {
		return nil, err
	}
	return d, nil
}

// secure makes the handshake. On failure it closes the connection.
func (d *dialed) secure(ctx context.Context, settings *clientTLS, alpn []string) (net.Conn, error) {
	config, err := settings.config(alpn)
	if err != nil {
		return nil, errors.Join(err, ignoreClosed(d.raw.Close()))
	}
	conn := tls.Client(d.raw, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("tls handshake: %w", err), ignoreClosed(d.raw.Close()))
	}
	state := conn.ConnectionState()
	d.tls = true
	d.http2 = d.http2 || state.NegotiatedProtocol == "h2"
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
