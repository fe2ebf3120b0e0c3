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
	return meshtls.AuthorizeSANs(matchers)
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

// transports make the connections of one cluster configuration. They are
// factories: no request goes through their RoundTrip.
type transports struct {
	byProtocol [3]*http.Transport
	scheme     string
}

func newTransports(m *Manager, config *discovery.Cluster, clientTLS *clientTLS) *transports {
	t := &transports{scheme: "http"}
	if clientTLS != nil {
		t.scheme = "https"
	}
	for i := range t.byProtocol {
		protocol := wireProtocol(i)
		tr := &http.Transport{}
		if m.options.Transport != nil {
			tr = m.options.Transport.Clone()
		}
		tr.Proxy = nil
		tr.TLSClientConfig = nil
		tr.IdleConnTimeout = 0 // the cluster's applies
		tr.Protocols = new(http.Protocols)
		switch {
		case protocol == wireHTTP1 || protocol == wireALPN && clientTLS == nil:
			tr.Protocols.SetHTTP1(true)
		case protocol == wireHTTP2 && clientTLS == nil:
			tr.Protocols.SetUnencryptedHTTP2(true)
		case protocol == wireHTTP2:
			tr.Protocols.SetHTTP2(true)
		default:
			tr.Protocols.SetHTTP1(true)
			tr.Protocols.SetHTTP2(true)
		}
		tr.DialContext = dialPlain(m)
		tr.DialTLSContext = dialTLS(m, clientTLS, alpnOf(protocol, config))
		t.byProtocol[i] = tr
	}
	return t
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

// dialInfo carries facts of a new connection from the dialer to the pool.
type dialInfo struct {
	peerID   string
	protocol string
	tls      bool
}

type dialInfoKey struct{}

func dialPlain(m *Manager) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		return m.options.Dial(ctx, network, address)
	}
}

func dialTLS(m *Manager, clientTLS *clientTLS, alpn []string) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		config, err := clientTLS.config(alpn)
		if err != nil {
			return nil, err
		}
		raw, err := m.options.Dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		conn := tls.Client(raw, config)
		if err := conn.HandshakeContext(ctx); err != nil {
			return nil, errors.Join(fmt.Errorf("tls handshake: %w", err), ignoreClosed(raw.Close()))
		}
		if info, ok := ctx.Value(dialInfoKey{}).(*dialInfo); ok {
			state := conn.ConnectionState()
			info.tls, info.protocol = true, state.NegotiatedProtocol
			if id, ok := meshtls.PeerID(state); ok {
				info.peerID = id.String()
			}
		}
		return conn, nil
	}
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// dial makes one connection to an endpoint.
func (c *Cluster) dial(ctx context.Context, address string, protocol wireProtocol) (*http.ClientConn, *dialInfo, string, error) {
	state := c.state.Load()
	if state.err != nil {
		return nil, nil, "", state.err
	}
	const defaultConnectTimeout = 5 * time.Second // Envoy's connect_timeout
	timeout := state.config.ConnectTimeout
	if timeout <= 0 {
		timeout = defaultConnectTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	info := &dialInfo{}
	// Read before the handshake: if the roots change meanwhile, the connection
	// counts as made under the old ones and is replaced.
	rootsKey := state.tls.rootsKey()
	cc, err := state.transport.byProtocol[protocol].NewClientConn(
		context.WithValue(ctx, dialInfoKey{}, info), state.transport.scheme, address)
	return cc, info, rootsKey, err
}
