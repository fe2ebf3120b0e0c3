package relay

import (
	"cmp"
	"errors"
	"fmt"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/inboardmesh/inboard/discovery"
)

// tlsSocket is the only transport socket that grpc-go knows, by its name.
const tlsSocket = "envoy.transport_sockets.tls"

func transportSocket(context proto.Message) (*corev3.TransportSocket, error) {
	packed, err := pack(context)
	if err != nil {
		return nil, err
	}
	return &corev3.TransportSocket{Name: tlsSocket, ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: packed}}, nil
}

func provider(instance string) *tlsv3.CertificateProviderPluginInstance {
	if instance == "" {
		return nil
	}
	return &tlsv3.CertificateProviderPluginInstance{InstanceName: instance}
}

// tlsParams refuses what grpc-go cannot hold to: it negotiates what crypto/tls
// does, from TLS 1.2 on.
func tlsParams(p *discovery.TLSParams) error {
	const tls12 = 0x0303
	switch {
	case p.MinVersion > tls12, p.MaxVersion != 0, len(p.CipherSuites) > 0, len(p.Curves) > 0:
		return errors.New("grpc-go cannot be told which versions and ciphers of TLS to use")
	case len(p.Certificates)+len(p.Keys) > 0:
		return errors.New("grpc-go does not compare digests of certificates and keys")
	case p.IdentitySecret != "" || p.RootSecret != "":
		return errors.New("grpc-go takes no certificates from the control plane")
	case p.Bundles != nil:
		return errors.New("grpc-go takes no roots of trust domains from the control plane")
	case p.Revocation != nil:
		return errors.New("grpc-go does not look at certificates that were withdrawn")
	}
	return nil
}

// upstreamTLS writes TLS towards the endpoints of a cluster.
func (e *encoder) upstreamTLS(where string, t *discovery.UpstreamTLS) (*corev3.TransportSocket, error) {
	if err := tlsParams(&t.TLSParams); err != nil {
		return nil, err
	}
	if t.SystemRoots {
		return nil, errors.New("grpc-go has no system roots, unless an experiment is switched on: call with mesh.DialOptions instead")
	}
	sans, err := e.peers(cmp.Or(t.IdentityInstance, t.RootInstance), t.SANs, t.Names)
	if err != nil {
		return nil, err
	}
	if t.SNI != "" && len(t.Names) > 0 {
		e.leave(where, "the server is not told its name (SNI)")
	}
	return transportSocket(&tlsv3.UpstreamTlsContext{CommonTlsContext: &tlsv3.CommonTlsContext{
		TlsCertificateProviderInstance: provider(t.IdentityInstance),
		ValidationContextType: &tlsv3.CommonTlsContext_ValidationContext{ValidationContext: &tlsv3.CertificateValidationContext{
			CaCertificateProviderInstance: provider(t.RootInstance),
			MatchSubjectAltNames:          sans, //nolint:staticcheck // the field that grpc-go reads
		}},
	}})
}

// peers writes which names peers may have. grpc-go compares names of all types
// with each matcher, and takes any name if there is none: then the members of
// the own trust domain are meant, which is that of the source own.
func (e *encoder) peers(own string, uris []discovery.StringMatch, names []discovery.NameMatch) ([]*matcherv3.StringMatcher, error) {
	var sans []*matcherv3.StringMatcher
	for i := range uris {
		sans = append(sans, stringMatch(&uris[i]))
	}
	for i := range names {
		if n := &names[i]; n.Kind != discovery.MatchExact || n.Type == discovery.NameOther {
			return nil, errors.New("grpc-go compares names of certificates whatever their type, so only whole ones are safe")
		}
		sans = append(sans, stringMatch(&names[i].StringMatch))
	}
	if len(sans) > 0 {
		return sans, nil
	}
	prefix, err := e.members(own)
	if err != nil {
		return nil, err
	}
	return append(sans, &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: prefix}}), nil
}

// members is what the SPIFFE IDs of the members of the own trust domain begin
// with.
func (e *encoder) members(instance string) (string, error) {
	domain, err := e.trustDomain(instance)
	switch {
	case err != nil:
		return "", fmt.Errorf("own trust domain: %w", err)
	case domain == "":
		return "", errors.New("own trust domain: the source holds roots only")
	}
	return "spiffe://" + domain + "/", nil
}

// downstreamTLS writes TLS for connections to a server. Which clients may connect
// is no part of it: grpc-go has a server ask no names.
func downstreamTLS(t *discovery.DownstreamTLS) (*corev3.TransportSocket, error) {
	if err := tlsParams(&t.TLSParams); err != nil {
		return nil, err
	}
	common := &tlsv3.CommonTlsContext{TlsCertificateProviderInstance: provider(t.IdentityInstance)}
	if t.RootInstance != "" {
		common.ValidationContextType = &tlsv3.CommonTlsContext_ValidationContext{ValidationContext: &tlsv3.CertificateValidationContext{
			CaCertificateProviderInstance: provider(t.RootInstance),
		}}
	}
	return transportSocket(&tlsv3.DownstreamTlsContext{
		CommonTlsContext: common, RequireClientCertificate: wrapperspb.Bool(t.RequireClientCertificate),
	})
}
