package upstream

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

// clientTLS is how to authenticate to, and verify, a cluster's endpoints.
type clientTLS struct {
	settings *discovery.UpstreamTLS
	identity meshtls.Source
	roots    meshtls.Source
	// one is whether both are the same source, as they mostly are.
	one bool
}

// clientTLS resolves the provider instances and the secrets of a cluster's settings;
// nil settings are plaintext.
func (c *Cluster) clientTLS(settings *discovery.UpstreamTLS) (*clientTLS, error) {
	if settings == nil {
		return nil, nil
	}
	t := &clientTLS{settings: settings}
	var err error
	switch {
	case settings.IdentitySecret != "":
		t.identity, err = c.secrets.Find(settings.IdentitySecret)
	case settings.IdentityInstance != "":
		t.identity, err = c.manager.options.Identity(settings.IdentityInstance)
	}
	if err != nil {
		return nil, err
	}
	switch {
	case settings.SystemRoots:
		t.roots = c.manager.systemRoots
	case settings.Bundles != nil:
		t.roots = meshtls.NewStatic(settings.Bundles)
	case settings.RootSecret != "":
		t.roots, err = c.secrets.Find(settings.RootSecret)
	default:
		t.roots, err = c.manager.options.Identity(settings.RootInstance)
	}
	if err != nil {
		return nil, err
	}
	t.one = settings.IdentitySecret == "" && settings.IdentityInstance != "" && !settings.SystemRoots && settings.Bundles == nil &&
		settings.RootSecret == "" && settings.RootInstance == settings.IdentityInstance
	return t, nil
}

// clusterTLS resolves the TLS settings of a cluster.
func (c *Cluster) clusterTLS(config *discovery.Cluster) (fallback *clientTLS, matches []*clientTLS, err error) {
	if fallback, err = c.clientTLS(config.TLS); err != nil {
		return nil, nil, err
	}
	for i := range config.TLSMatches {
		match, err := c.clientTLS(config.TLSMatches[i].TLS)
		if err != nil {
			return nil, nil, fmt.Errorf("transport socket %q: %w", config.TLSMatches[i].Name, err)
		}
		matches = append(matches, match)
	}
	return fallback, matches, nil
}

// tlsOf is the TLS towards an endpoint, by its metadata of now; nil is
// plaintext.
func (s *clusterState) tlsOf(e *Endpoint) *clientTLS {
	if len(s.matches) > 0 {
		metadata := e.host.Endpoint().Metadata
		for i, match := range s.matches {
			if s.config.TLSMatches[i].Matches(metadata) {
				return match
			}
		}
	}
	return s.tls
}

// Security is what a connection to an endpoint was made under: its TLS settings, the
// roots that verified the peer, and the authority that vouches for this process: its
// root may be about to be withdrawn from the peer. The zero value is plaintext.
type Security struct {
	settings  *discovery.UpstreamTLS
	rootsKey  string
	issuerKey string
}

// Same reports whether connections made under one may be used under the other.
func (s Security) Same(other Security) bool {
	return s.rootsKey == other.rootsKey && s.issuerKey == other.issuerKey && (s.settings == other.settings || s.settings.Equal(other.settings))
}

// Security is what connections to the endpoint are made under now: those that
// were made under another one are let go.
func (e *Endpoint) Security() Security { return e.cluster.state.Load().tlsOf(e).security() }

func (t *clientTLS) security() Security {
	if t == nil {
		return Security{}
	}
	s := Security{settings: t.settings}
	own := t.own()
	if own != nil {
		s.issuerKey = own.IssuerKey
	}
	switch {
	case !t.one:
		s.rootsKey = t.rootsKey()
	case own != nil: // asked once: to answer, most sources read the clock
		s.rootsKey = own.RootsKey
	}
	return s
}

// TLS returns a fresh TLS configuration for a connection to the endpoint that
// speaks HTTP/2, and the identity that it presents; nil means plaintext.
func (e *Endpoint) TLS() (*tls.Config, *meshtls.Identity, error) {
	state := e.cluster.state.Load()
	if state.err != nil {
		return nil, nil, state.err
	}
	t := state.tlsOf(e)
	if t == nil {
		return nil, nil, nil
	}
	config, err := t.config(wireHTTP2.alpn(t.settings))
	return config, t.own(), err
}

// alpn are the protocols to offer. Towards Istio's proxies, which know each
// other by them, they are Istio's, and the plain ones for everybody else.
func (protocol wireProtocol) alpn(settings *discovery.UpstreamTLS) []string {
	istio := slices.ContainsFunc(settings.ALPN, isIstio)
	switch {
	case protocol == wireHTTP1 && istio:
		return []string{"istio-http/1.1", "istio", "http/1.1"}
	case protocol == wireHTTP1:
		return []string{"http/1.1"}
	case protocol == wireHTTP2 && istio:
		return []string{"istio-h2", "istio", "h2"}
	case protocol == wireHTTP2:
		return []string{"h2"}
	case istio:
		return []string{"istio-h2", "istio-http/1.1", "istio", "h2", "http/1.1"}
	case len(settings.ALPN) > 0:
		return settings.ALPN
	}
	return []string{"h2", "http/1.1"}
}

// isIstio recognizes the protocols by which members of an Istio mesh know each
// other. "istio-peer-exchange" announces an exchange of metadata, which is not
// made here.
func isIstio(protocol string) bool {
	return protocol == "istio" || strings.HasPrefix(protocol, "istio-")
}

func isHTTP2(negotiated string) bool { return negotiated == "h2" || negotiated == "istio-h2" }

// config returns a fresh configuration that offers the given protocols.
func (t *clientTLS) config(alpn []string) (*tls.Config, error) {
	return meshtls.ClientConfig(meshtls.ClientParams{
		Identity:   t.identity,
		Roots:      t.roots,
		Authorize:  t.authorizer(),
		ServerName: t.settings.SNI,
		NextProtos: alpn,
		Versions:   t.versions(),
		Outside:    len(t.settings.Names) > 0,
		Revocation: t.settings.Revocation,
	})
}

// versions are those of the settings. What is outside the mesh speaks what it
// can, from TLS 1.2 on.
func (t *clientTLS) versions() meshtls.Versions {
	p := &t.settings.TLSParams
	v := meshtls.Versions{Min: p.MinVersion, Max: p.MaxVersion, CipherSuites: p.CipherSuites, Curves: p.Curves}
	if v.Min == 0 && len(t.settings.Names) > 0 {
		v.Min = tls.VersionTLS12
	}
	return v
}

// authorizer checks the peer's names against the cluster's list. A cluster
// without a list accepts the members of the own trust domain, and nobody from
// another one (data-plane decision D11). Roots need not have one.
func (t *clientTLS) authorizer() meshtls.Authorizer {
	own := t.identity
	if own == nil {
		own = t.roots
	}
	authorize := meshtls.AuthorizeOwnTrustDomain(own)
	if t.settings.Bundles != nil {
		authorize = meshtls.AuthorizeAny() // whom the bundles verify
	}
	if len(t.settings.SANs)+len(t.settings.Names) > 0 {
		authorize = t.listed()
	}
	if p := &t.settings.TLSParams; len(p.Certificates)+len(p.Keys) > 0 {
		authorize = meshtls.AuthorizePinned(p.Certificates, p.Keys, authorize)
	}
	return authorize
}

// listed is the authorizer of a cluster that lists names.
func (t *clientTLS) listed() meshtls.Authorizer {
	uris := make([]meshtls.SANMatcher, 0, len(t.settings.SANs))
	for i := range t.settings.SANs {
		uris = append(uris, t.settings.SANs[i].Matches)
	}
	authorize := meshtls.AuthorizeSANs(uris)
	if len(t.settings.Names) > 0 {
		names := make([]meshtls.NameMatcher, 0, len(t.settings.Names))
		for i := range t.settings.Names {
			n := &t.settings.Names[i]
			m := meshtls.NameMatcher{Type: nameTypes[n.Type], OID: n.OID, Match: n.Matches}
			if n.Kind == discovery.MatchExact && !n.IgnoreCase {
				m.Exact = n.Value
			}
			names = append(names, m)
		}
		authorize = meshtls.AuthorizeNames(uris, names)
	}
	return func(peer meshtls.ID, cert *x509.Certificate) error {
		if err := authorize(peer, cert); err != nil {
			return fmt.Errorf("%w: the cluster wants %s", err, sanList(t.settings.SANs, t.settings.Names...))
		}
		return nil
	}
}

var nameTypes = [...]meshtls.NameType{
	discovery.NameDNS: meshtls.DNSName, discovery.NameEmail: meshtls.EmailName,
	discovery.NameIP: meshtls.IPName, discovery.NameOther: meshtls.OtherName,
}

// sanList names the first few of the allowed SANs, for errors.
func sanList(sans []discovery.StringMatch, names ...discovery.NameMatch) string {
	const most = 3
	sans = slices.Clip(sans)
	for i := range names {
		sans = append(sans, names[i].StringMatch)
	}
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

// own is the identity to present, nil if there is none.
func (t *clientTLS) own() *meshtls.Identity {
	if t.identity == nil {
		return nil
	}
	identity, err := t.identity.Identity()
	if err != nil {
		return nil // the handshake says so
	}
	return identity
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
