package istio

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
	networking "istio.io/api/networking/v1alpha3"
)

// The certificate provider instance and its certificates, as Istio names them
// for proxyless clients.
const (
	tlsSocket        = "envoy.transport_sockets.tls"
	providerInstance = "default"
	identityName     = "default"
	rootName         = "ROOTCA"
)

// commonTLS presents the node's certificate and verifies the peer's.
func commonTLS(sans []string) *tlsv3.CommonTlsContext {
	matchers := make([]*matcherv3.StringMatcher, len(sans))
	for i, san := range sans {
		matchers[i] = &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: san}}
	}
	return &tlsv3.CommonTlsContext{
		TlsCertificateProviderInstance: &tlsv3.CertificateProviderPluginInstance{
			InstanceName: providerInstance, CertificateName: identityName,
		},
		// Istio uses a combined validation context, which Envoy's constraints
		// allow only together with an SDS secret.
		ValidationContextType: &tlsv3.CommonTlsContext_ValidationContext{
			ValidationContext: &tlsv3.CertificateValidationContext{
				CaCertificateProviderInstance: &tlsv3.CertificateProviderPluginInstance{
					InstanceName: providerInstance, CertificateName: rootName,
				},
				// The untyped field is the one that gRPC clients read.
				MatchSubjectAltNames: matchers,
			},
		},
	}
}

func transportSocket(context proto.Message) (*corev3.TransportSocket, error) {
	packed, err := pack(context)
	if err != nil {
		return nil, err
	}
	return &corev3.TransportSocket{
		Name:       tlsSocket,
		ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: packed},
	}, nil
}

func downstreamTLS() (*corev3.TransportSocket, error) {
	return transportSocket(&tlsv3.DownstreamTlsContext{
		CommonTlsContext:         commonTLS(nil),
		RequireClientCertificate: wrapperspb.Bool(true),
	})
}

// upstreamTLS decides how clients reach a cluster: by the mode that a
// DestinationRule gives, else by what the endpoints offer. nil is plaintext.
func (r *registry) upstreamTLS(s *service, p *servicePort, cluster string, policy policy, endpoints []*endpoint) *tlsv3.UpstreamTlsContext {
	if tls := policy.tls; tls != nil {
		if tls.Mode != networking.ClientTLSSettings_ISTIO_MUTUAL {
			return nil
		}
		sans := tls.SubjectAltNames
		if len(sans) == 0 {
			sans = r.expectedSANs(s, policy.tlsAt)
		}
		return &tlsv3.UpstreamTlsContext{CommonTlsContext: commonTLS(sans), Sni: tls.Sni}
	}
	if !r.autoMutualTLS(s, p, cluster, endpoints) {
		return nil
	}
	return &tlsv3.UpstreamTlsContext{CommonTlsContext: commonTLS(r.expectedSANs(s, s.at))}
}

// expectedSANs are the names of which a peer must prove one. A service
// without endpoints has no names yet: nobody is accepted then, instead of
// anybody.
func (r *registry) expectedSANs(s *service, a at) []string {
	if len(s.sans) > 0 {
		return s.sans
	}
	if len(s.endpoints) == 0 {
		return []string{spiffeID(r.opts.TrustDomain, s.at.obj.namespace, "")}
	}
	a.errorf("mutual TLS to %q has no service account to expect: set serviceAccount on its endpoints, or subjectAltNames", s.host)
	return nil
}

// autoMutualTLS is Istio's auto mTLS for a whole cluster: it is on if every
// endpoint offers mutual TLS and no PeerAuthentication disables it there. A
// subset without endpoints does as its service, so that its last endpoint can
// go without a change of the cluster. A service of the mesh without endpoints
// has none that could ask for plaintext: whoever gets at its cluster or its
// addresses must not be spoken to in the clear.
func (r *registry) autoMutualTLS(s *service, p *servicePort, cluster string, endpoints []*endpoint) bool {
	if len(s.endpoints) == 0 {
		return !s.external
	}
	if len(endpoints) == 0 {
		endpoints = s.endpoints
	}
	var secure, plain []*endpoint
	for _, e := range endpoints {
		if e.mutualTLS() && r.peers.clientMode(e, p) != disabled {
			secure = append(secure, e)
		} else {
			plain = append(plain, e)
		}
	}
	const remedy = "or set trafficPolicy.tls.mode in a DestinationRule for the host"
	switch {
	case len(secure) > 0 && len(plain) > 0:
		s.at.field(endpointsField(s)).errorf(
			"cluster %q: %s offers mutual TLS, %s does not: give every endpoint a serviceAccount, %s",
			cluster, secure[0].describe(), plain[0].describe(), remedy)
	case len(secure) > 0 && s.external:
		s.at.field("location").errorf(
			"cluster %q: the endpoints offer mutual TLS, but Istio uses none towards MESH_EXTERNAL, the default: set location to MESH_INTERNAL, %s",
			cluster, remedy)
	case len(plain) > 0 && s.given:
		s.at.field("subjectAltNames").errorf(
			"cluster %q: names are verified with mutual TLS only, which no endpoint offers: give every endpoint a serviceAccount, %s",
			cluster, remedy)
	}
	return len(secure) > 0
}

func (e *endpoint) describe() string {
	return "endpoint " + e.address
}

// endpointsField is where a service says what its endpoints are.
func endpointsField(s *service) string {
	if s.at.field("workloadSelector").written() {
		return "workloadSelector"
	}
	return "endpoints"
}
