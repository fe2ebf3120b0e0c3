package inbound

import (
	"crypto/tls"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

// serverTLS builds the TLS configuration of a filter chain.
func (ln *Listener) serverTLS(chain *discovery.FilterChain) (*tls.Config, error) {
	settings := chain.TLS
	params := meshtls.ServerParams{
		RequireClientCertificate: settings.RequireClientCertificate,
		NextProtos:               settings.ALPN,
	}
	if len(params.NextProtos) == 0 {
		params.NextProtos = []string{"h2", "http/1.1"}
	}
	var err error
	if params.Identity, err = ln.owner.options.Identity(settings.IdentityInstance); err != nil {
		return nil, err
	}
	if settings.RootInstance != "" {
		if params.Roots, err = ln.owner.options.Identity(settings.RootInstance); err != nil {
			return nil, err
		}
		params.Authorize = meshtls.AuthorizeOwnTrustDomain(params.Identity)
		if len(settings.SANs) > 0 {
			matchers := make([]meshtls.SANMatcher, 0, len(settings.SANs))
			for i := range settings.SANs {
				matchers = append(matchers, settings.SANs[i].Matches)
			}
			params.Authorize = meshtls.AuthorizeSANs(matchers)
		}
	}
	return meshtls.ServerConfig(params)
}
