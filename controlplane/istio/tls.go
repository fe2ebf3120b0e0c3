package istio

import (
	"net/netip"
	"slices"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rawbufferv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/raw_buffer/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
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

// downstreamTLS accepts the members of the trust domain, which needs no saying,
// and if it has aliases, theirs.
func downstreamTLS(opts Options) (*corev3.TransportSocket, error) {
	common := commonTLS(nil)
	if len(opts.TrustDomainAliases) > 0 {
		validation := common.GetValidationContext()
		for _, domain := range append([]string{opts.TrustDomain}, opts.TrustDomainAliases...) {
			// The untyped field is the one that gRPC servers read.
			validation.MatchSubjectAltNames = append(validation.MatchSubjectAltNames, &matcherv3.StringMatcher{
				MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: "spiffe://" + domain + "/"},
			})
		}
	}
	return transportSocket(&tlsv3.DownstreamTlsContext{
		CommonTlsContext:         common,
		RequireClientCertificate: wrapperspb.Bool(true),
	})
}

// clusterTLS is how clients reach a cluster; a nil context is plaintext. mixed
// tells that some of the endpoints are plaintext: their metadata tells which.
type clusterTLS struct {
	context *tlsv3.UpstreamTlsContext
	mixed   bool
}

// upstreamTLS decides how clients reach a cluster: by the mode that a
// DestinationRule gives, else by what the endpoints offer.
func (r *registry) upstreamTLS(s *service, p *servicePort, cluster string, policy policy, endpoints []*endpoint) clusterTLS {
	if tls := policy.tls; tls != nil {
		switch tls.Mode {
		case networking.ClientTLSSettings_ISTIO_MUTUAL:
			sans := tls.SubjectAltNames
			if len(sans) == 0 {
				sans = r.expectedSANs(s, policy.tlsAt)
			}
			return clusterTLS{context: &tlsv3.UpstreamTlsContext{CommonTlsContext: commonTLS(r.withAliases(sans)), Sni: tls.Sni}}
		case networking.ClientTLSSettings_SIMPLE, networking.ClientTLSSettings_MUTUAL:
			return clusterTLS{context: originated(s, tls)}
		}
		return clusterTLS{}
	}
	auto, mixed := r.autoMutualTLS(s, p, cluster, endpoints)
	if !auto {
		return clusterTLS{}
	}
	return clusterTLS{
		context: &tlsv3.UpstreamTlsContext{CommonTlsContext: commonTLS(r.withAliases(r.expectedSANs(s, s.at)))},
		mixed:   mixed,
	}
}

// apply sets the transport sockets of a cluster. Of one that is mixed the
// metadata of an endpoint decides, as in Istio; clients that do not look at it
// speak TLS to all of them, so that none is spoken to in the clear by mistake.
func (t clusterTLS) apply(c *clusterv3.Cluster) (err error) {
	if t.context == nil {
		return nil
	}
	if c.TransportSocket, err = transportSocket(t.context); err != nil || !t.mixed {
		return err
	}
	plain, err := pack(&rawbufferv3.RawBuffer{})
	if err != nil {
		return err
	}
	c.TransportSocketMatches = []*clusterv3.Cluster_TransportSocketMatch{
		{Name: "tlsMode-istio", Match: tlsModeIstio(), TransportSocket: c.TransportSocket},
		{
			Name: "tlsMode-disabled", Match: &structpb.Struct{},
			TransportSocket: &corev3.TransportSocket{
				Name:       "envoy.transport_sockets.raw_buffer",
				ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: plain},
			},
		},
	}
	return nil
}

// socketMatch is the key of the metadata by which an endpoint chooses.
const socketMatch = "envoy.transport_socket_match"

func tlsModeIstio() *structpb.Struct {
	return &structpb.Struct{Fields: map[string]*structpb.Value{"tlsMode": structpb.NewStringValue("istio")}}
}

// originated is TLS to a service outside the mesh. Its certificate must have the
// service's name, unless others are listed; credentialName is the certificate
// provider of the client that has the roots and, for MUTUAL, the certificate.
func originated(s *service, tls *networking.ClientTLSSettings) *tlsv3.UpstreamTlsContext {
	sni := tls.Sni
	if sni == "" {
		sni = s.host
	}
	sans := tls.SubjectAltNames
	if len(sans) == 0 {
		sans = []string{sni}
	}
	validation := &tlsv3.CertificateValidationContext{}
	for _, san := range sans {
		kind := tlsv3.SubjectAltNameMatcher_DNS
		if _, err := netip.ParseAddr(san); err == nil {
			kind = tlsv3.SubjectAltNameMatcher_IP_ADDRESS
		} else if strings.Contains(san, "://") {
			kind = tlsv3.SubjectAltNameMatcher_URI
		}
		validation.MatchTypedSubjectAltNames = append(validation.MatchTypedSubjectAltNames, &tlsv3.SubjectAltNameMatcher{
			SanType: kind, Matcher: &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: san}},
		})
	}
	common := &tlsv3.CommonTlsContext{ValidationContextType: &tlsv3.CommonTlsContext_ValidationContext{ValidationContext: validation}}
	if tls.CredentialName == "" {
		validation.SystemRootCerts = &tlsv3.CertificateValidationContext_SystemRootCerts{}
	} else {
		provider := &tlsv3.CertificateProviderPluginInstance{InstanceName: tls.CredentialName}
		validation.CaCertificateProviderInstance = provider
		if tls.Mode == networking.ClientTLSSettings_MUTUAL {
			common.TlsCertificateProviderInstance = provider
		}
	}
	return &tlsv3.UpstreamTlsContext{CommonTlsContext: common, Sni: sni}
}

// withAliases adds to the names of the own trust domain those of its aliases:
// the same workload under the name that it had, or will have.
func (r *registry) withAliases(sans []string) []string {
	own := "spiffe://" + r.opts.TrustDomain + "/"
	all := slices.Clip(sans)
	for _, alias := range r.opts.TrustDomainAliases {
		for _, san := range sans {
			if path, ok := strings.CutPrefix(san, own); ok {
				all = append(all, "spiffe://"+alias+"/"+path)
			}
		}
	}
	return all
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

// offersMutualTLS reports whether clients can speak mutual TLS to a port of an
// endpoint: it offers it, and no PeerAuthentication disables it there.
func (r *registry) offersMutualTLS(e *endpoint, p *servicePort) bool {
	return e.mutualTLS() && r.peers.clientMode(e, p) != disabled
}

// autoMutualTLS is Istio's auto mTLS: it is on for the endpoints that offer
// mutual TLS; mixed tells that others do not. A
// subset without endpoints does as its service, so that its last endpoint can
// go without a change of the cluster. A service of the mesh without endpoints
// has none that could ask for plaintext: whoever gets at its cluster or its
// addresses must not be spoken to in the clear.
func (r *registry) autoMutualTLS(s *service, p *servicePort, cluster string, endpoints []*endpoint) (on, mixed bool) {
	if len(s.endpoints) == 0 {
		return !s.external, false
	}
	if len(endpoints) == 0 {
		endpoints = s.endpoints
	}
	var secure, plain []*endpoint
	for _, e := range endpoints {
		if r.offersMutualTLS(e, p) {
			secure = append(secure, e)
		} else {
			plain = append(plain, e)
		}
	}
	const remedy = "or set trafficPolicy.tls.mode in a DestinationRule for the host"
	switch {
	case len(secure) > 0 && len(plain) > 0 && s.given:
		s.at.field("subjectAltNames").errorf(
			"cluster %q: %s offers mutual TLS, %s does not, and would not be verified: give every endpoint a serviceAccount, %s",
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
	return len(secure) > 0, len(secure) > 0 && len(plain) > 0
}

func (e *endpoint) describe() string {
	return "endpoint " + e.address
}

// endpointsField is where a service says what its endpoints are.
func endpointsField(s *service) string {
	switch {
	case s.at.obj.kind == kindService:
		return "selector"
	case s.at.field("workloadSelector").written():
		return "workloadSelector"
	}
	return "endpoints"
}
