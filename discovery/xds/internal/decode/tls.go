package decode

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rawbufferv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/raw_buffer/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"

	"github.com/inboardmesh/inboard/discovery"
)

// tlsFields are short on purpose: what is not listed is refused, which is how
// gRFC A29's fields that a client must not ignore are (tls_params,
// custom_handshaker, verify_certificate_spki and _hash, crl, ...), and
// certificates from files, from SDS or inline.
var tlsFields = []messageFields{
	{
		message: (*tlsv3.UpstreamTlsContext)(nil),
		read:    "common_tls_context sni",
		// Sessions are never resumed.
		harmless: "max_session_keys",
	},
	{
		message: (*tlsv3.DownstreamTlsContext)(nil),
		read:    "common_tls_context require_client_certificate",
		zero:    "require_sni full_scan_certs_on_sni_mismatch",
		// Sessions are never resumed, with tickets or without.
		harmless: "disable_stateless_session_resumption disable_stateful_session_resumption session_timeout",
	},
	{
		message: (*tlsv3.CommonTlsContext)(nil),
		read: "tls_certificate_provider_instance tls_certificate_certificate_provider_instance validation_context " +
			"combined_validation_context validation_context_certificate_provider_instance alpn_protocols",
		instead: map[string]string{ //nolint:gosec // G101: names of fields, no credentials
			"tls_certificates":                     "use tls_certificate_provider_instance",
			"tls_certificate_sds_secret_configs":   "use tls_certificate_provider_instance",
			"validation_context_sds_secret_config": "use a certificate provider instance in validation_context",
		},
	},
	{
		message: (*tlsv3.CommonTlsContext_CombinedCertificateValidationContext)(nil),
		read:    "default_validation_context validation_context_certificate_provider_instance",
	},
	{
		message: (*tlsv3.CertificateValidationContext)(nil),
		read:    "ca_certificate_provider_instance match_typed_subject_alt_names match_subject_alt_names",
		zero:    "require_signed_certificate_timestamp",
		instead: map[string]string{
			"trusted_ca":        "use ca_certificate_provider_instance",
			"system_root_certs": "use ca_certificate_provider_instance",
		},
	},
	{
		message: (*tlsv3.CertificateProviderPluginInstance)(nil),
		read:    "instance_name",
		// It tells several certificates of one provider apart (gRFC A29). Ours
		// hold one certificate and one set of roots.
		harmless: "certificate_name",
	},
	{
		message:  (*tlsv3.CommonTlsContext_CertificateProviderInstance)(nil),
		read:     "instance_name",
		harmless: "certificate_name", // as above
	},
	{message: (*tlsv3.SubjectAltNameMatcher)(nil), read: "san_type matcher"},
}

// upstreamTLS decodes Cluster.transport_socket; nil is plaintext.
func (d *decoder) upstreamTLS(at path, socket *corev3.TransportSocket) *discovery.UpstreamTLS {
	m := &tlsv3.UpstreamTlsContext{}
	if !d.transportSocket(at, socket, m) {
		return nil
	}
	in := at.field("typed_config")
	common := d.commonTLS(in.field("common_tls_context"), m.GetCommonTlsContext())
	if common.root == "" {
		d.refusef(in.field("common_tls_context").field("validation_context"), "must name a certificate provider instance for the roots that verify the peer")
	}
	return &discovery.UpstreamTLS{
		IdentityInstance: common.identity,
		RootInstance:     common.root,
		SANs:             common.sans,
		SNI:              m.GetSni(),
		ALPN:             common.alpn,
	}
}

// downstreamTLS decodes FilterChain.transport_socket; nil is plaintext.
func (d *decoder) downstreamTLS(at path, socket *corev3.TransportSocket) *discovery.DownstreamTLS {
	m := &tlsv3.DownstreamTlsContext{}
	if !d.transportSocket(at, socket, m) {
		return nil
	}
	in := at.field("typed_config")
	common := d.commonTLS(in.field("common_tls_context"), m.GetCommonTlsContext())
	if common.identity == "" {
		d.refusef(in.field("common_tls_context").field("tls_certificate_provider_instance"), "must be set: a server needs a certificate")
	}
	// Names to match require a certificate to find them in: without this, a
	// client that shows none would pass.
	required := m.GetRequireClientCertificate().GetValue() || len(common.sans) > 0
	if required && common.root == "" {
		d.refusef(in.field("common_tls_context").field("validation_context"), "must name a certificate provider instance for the roots that verify the required client certificate")
	}
	return &discovery.DownstreamTLS{
		IdentityInstance:         common.identity,
		RootInstance:             common.root,
		RequireClientCertificate: required,
		SANs:                     common.sans,
		ALPN:                     common.alpn,
	}
}

// transportSocket decodes the TLS context that a socket holds into m. It reports
// false for plaintext, and after a problem.
func (d *decoder) transportSocket(at path, socket *corev3.TransportSocket, m proto.Message) bool {
	if socket == nil {
		return false
	}
	config := socket.GetTypedConfig()
	if is(config, (*rawbufferv3.RawBuffer)(nil)) {
		d.unpack(at.field("typed_config"), config, &rawbufferv3.RawBuffer{})
		return false
	}
	return d.unpack(at.field("typed_config"), config, m)
}

// commonTLS is what is read from a CommonTlsContext.
type commonTLS struct {
	identity, root string
	sans           []discovery.StringMatch
	alpn           []string
}

// commonTLS decodes a CommonTlsContext. Where a field and the one that it
// replaced are both set, the current one counts (gRFC A29).
//
//nolint:staticcheck // istiod still sends the deprecated fields
func (d *decoder) commonTLS(at path, m *tlsv3.CommonTlsContext) commonTLS {
	c := commonTLS{alpn: m.GetAlpnProtocols()}
	old := m.GetTlsCertificateCertificateProviderInstance()
	c.identity = d.instance(at.field("tls_certificate_certificate_provider_instance"), old != nil, old.GetInstanceName())
	if current := m.GetTlsCertificateProviderInstance(); current != nil {
		c.identity = d.instance(at.field("tls_certificate_provider_instance"), true, current.GetInstanceName())
	}
	switch v := m.GetValidationContextType().(type) {
	case *tlsv3.CommonTlsContext_ValidationContext:
		c.root, c.sans = d.validationContext(at.field("validation_context"), v.ValidationContext)
	case *tlsv3.CommonTlsContext_CombinedValidationContext:
		in, combined := at.field("combined_validation_context"), v.CombinedValidationContext
		c.root, c.sans = d.validationContext(in.field("default_validation_context"), combined.GetDefaultValidationContext())
		old := combined.GetValidationContextCertificateProviderInstance()
		name := d.instance(in.field("validation_context_certificate_provider_instance"), old != nil, old.GetInstanceName())
		if c.root == "" {
			c.root = name
		}
	case *tlsv3.CommonTlsContext_ValidationContextCertificateProviderInstance:
		name := v.ValidationContextCertificateProviderInstance.GetInstanceName()
		c.root = d.instance(at.field("validation_context_certificate_provider_instance"), true, name)
	}
	return c
}

// instance checks the name of a certificate provider instance that is present,
// and returns "" for one that is not.
func (d *decoder) instance(at path, present bool, name string) string {
	if present && name == "" {
		d.refusef(at.field("instance_name"), "must not be empty")
	}
	return name
}

// validationContext decodes a CertificateValidationContext. The deprecated list
// of names is ignored beside the current one, says its documentation.
//
//nolint:staticcheck // as above
func (d *decoder) validationContext(at path, m *tlsv3.CertificateValidationContext) (root string, sans []discovery.StringMatch) {
	ca := m.GetCaCertificateProviderInstance()
	root = d.instance(at.field("ca_certificate_provider_instance"), ca != nil, ca.GetInstanceName())
	for i, san := range m.GetMatchTypedSubjectAltNames() {
		in := at.element("match_typed_subject_alt_names", i)
		if san.GetSanType() != tlsv3.SubjectAltNameMatcher_URI {
			d.refusef(in.field("san_type"), "%s is not supported: use URI, where SPIFFE IDs stand", san.GetSanType())
		}
		sans = append(sans, d.stringMatch(in.field("matcher"), san.GetMatcher()))
	}
	if len(sans) > 0 {
		return root, sans
	}
	for i, matcher := range m.GetMatchSubjectAltNames() {
		sans = append(sans, d.stringMatch(at.element("match_subject_alt_names", i), matcher))
	}
	return root, sans
}
