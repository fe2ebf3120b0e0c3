package inbound

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

// secureChain is a filter chain for TLS connections.
type secureChain struct {
	*Chain

	config *tls.Config
	// roots verify the peers; nil if no client is asked for a certificate.
	roots meshtls.Source
}

// serverTLS prepares a filter chain with TLS.
func (ln *Listener) serverTLS(chain *discovery.FilterChain) (*secureChain, error) {
	settings := chain.TLS
	params := meshtls.ServerParams{
		RequireClientCertificate: settings.RequireClientCertificate,
		// What Istio's proxies exchange under this name is not spoken here.
		NextProtos: slices.DeleteFunc(slices.Clone(settings.ALPN), func(p string) bool { return p == "istio-peer-exchange" }),
		Versions: meshtls.Versions{
			Min: settings.MinVersion, Max: settings.MaxVersion, CipherSuites: settings.CipherSuites, Curves: settings.Curves,
		},
		Revocation: settings.Revocation,
	}
	if len(params.NextProtos) == 0 {
		params.NextProtos = []string{"h2", "http/1.1"}
	}
	if chain.TCP {
		// Peers of other meshes say it of connections of which they know no more. One
		// that speaks HTTP has said so.
		params.NextProtos = append(params.NextProtos, "istio")
	}
	var err error
	if params.Identity, err = ln.source(settings.IdentityInstance, settings.IdentitySecret); err != nil {
		return nil, err
	}
	if settings.Bundles != nil {
		params.Roots = meshtls.NewStatic(settings.Bundles)
	} else if settings.RootInstance != "" || settings.RootSecret != "" {
		if params.Roots, err = ln.source(settings.RootInstance, settings.RootSecret); err != nil {
			return nil, err
		}
	}
	if params.Roots != nil {
		params.Authorize = meshtls.AuthorizeOwnTrustDomain(params.Identity)
		if settings.Bundles != nil {
			params.Authorize = meshtls.AuthorizeAny() // whom the bundles verify
		}
		if len(settings.SANs) > 0 {
			matchers := make([]meshtls.SANMatcher, 0, len(settings.SANs))
			for i := range settings.SANs {
				matchers = append(matchers, settings.SANs[i].Matches)
			}
			params.Authorize = meshtls.AuthorizeSANs(matchers)
		}
		if len(settings.Certificates)+len(settings.Keys) > 0 {
			params.Authorize = meshtls.AuthorizePinned(settings.Certificates, settings.Keys, params.Authorize)
		}
	}
	secure := &secureChain{roots: params.Roots}
	if secure.Chain, err = ln.compileChain(chain); err != nil {
		return nil, err
	}
	secure.Identity = params.Identity
	secure.config, err = meshtls.ServerConfig(params)
	return secure, err
}

// source finds what a chain's TLS settings name: a secret of the control plane, or
// else a certificate provider instance.
func (ln *Listener) source(instance, secret string) (meshtls.Source, error) {
	if secret != "" {
		return ln.secrets.Find(secret)
	}
	return ln.owner.options.Identity(instance)
}

// listenTLS is the configuration of a listener: it takes over that of the chain
// which the client's hello chooses.
func (ln *Listener) listenTLS(s *state) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS12, // the chain's counts
		SessionTicketsDisabled: true,
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			if c := trackedOf(hello.Conn); c != nil {
				c.offered.Store(&hello.SupportedProtos)
			}
			chain := s.secure(hello.SupportedProtos)
			if chain == nil {
				return nil, &meshtls.HandshakeError{
					Reason: meshtls.NotServed,
					Err:    fmt.Errorf("no filter chain is for the application protocols %q", hello.SupportedProtos),
				}
			}
			return chain.config, nil
		},
	}
}

// secure returns the chain for a TLS connection whose client offered the given
// application protocols: the one that lists the first of them that any chain
// lists, else the one that lists none, else nil.
func (s *state) secure(offered []string) *secureChain {
	for _, protocol := range offered {
		for _, chain := range s.tls {
			if slices.Contains(chain.Config.Match.ApplicationProtocols, protocol) {
				return chain
			}
		}
	}
	for _, chain := range s.tls {
		if len(chain.Config.Match.ApplicationProtocols) == 0 {
			return chain
		}
	}
	return nil
}

// trackedOf finds the connection of a listener below what TLS was laid over it.
func trackedOf(conn net.Conn) *trackedConn {
	for {
		switch c := conn.(type) {
		case *trackedConn:
			return c
		case interface{ NetConn() net.Conn }:
			conn = c.NetConn()
		default:
			return nil
		}
	}
}

// errNoChain is a TLS connection that no filter chain is for any more.
var errNoChain = errors.New("no filter chain is for this TLS connection")
