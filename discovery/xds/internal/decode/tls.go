package decode

import (
	"encoding/base64"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rawbufferv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/raw_buffer/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"

	"github.com/inboardmesh/inboard/discovery"
)

// tlsFields are short on purpose: what is not listed is refused, which is how
// gRFC A29's fields that a client must not ignore are (custom_handshaker, crl,
// ...), and certificates from files or inline: a control plane names no files of
// this process, and sends no keys.
var tlsFields = []messageFields{
	{
		message: (*tlsv3.UpstreamTlsContext)(nil),
		read:    "common_tls_context sni auto_sni_san_validation",
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
			"combined_validation_context validation_context_certificate_provider_instance alpn_protocols " +
			"tls_params tls_certificate_sds_secret_configs validation_context_sds_secret_config",
		instead: map[string]string{
			"tls_certificates": "use tls_certificate_provider_instance",
		},
	},
	{
		message: (*tlsv3.CommonTlsContext_CombinedCertificateValidationContext)(nil),
		read: "default_validation_context validation_context_certificate_provider_instance " +
			"validation_context_sds_secret_config",
	},
	{
		message: (*tlsv3.CertificateValidationContext)(nil),
		read: "ca_certificate_provider_instance match_typed_subject_alt_names match_subject_alt_names " +
			"system_root_certs verify_certificate_spki verify_certificate_hash crl only_verify_leaf_cert_crl " +
			"custom_validator_config",
		zero: "require_signed_certificate_timestamp",
		instead: map[string]string{
			"trusted_ca": "use ca_certificate_provider_instance",
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
	{message: (*tlsv3.CertificateValidationContext_SystemRootCerts)(nil)},
	{message: (*tlsv3.SdsSecretConfig)(nil), read: "name sds_config"},
	{message: (*tlsv3.SPIFFECertValidatorConfig)(nil), read: "trust_domains trust_bundles"},
	{message: (*tlsv3.SPIFFECertValidatorConfig_TrustDomain)(nil), read: "name trust_bundle"},
	{
		message: (*tlsv3.TlsParameters)(nil),
		read:    "tls_minimum_protocol_version tls_maximum_protocol_version cipher_suites ecdh_curves",
	},
	{message: (*tlsv3.SubjectAltNameMatcher)(nil), read: "san_type matcher oid"},
}

// upstreamTLS decodes Cluster.transport_socket; nil is plaintext.
func (d *decoder) upstreamTLS(at path, socket *corev3.TransportSocket) *discovery.UpstreamTLS {
	m := &tlsv3.UpstreamTlsContext{}
	if !d.transportSocket(at, socket, m) {
		return nil
	}
	in := at.field("typed_config")
	common := d.commonTLS(in.field("common_tls_context"), m.GetCommonTlsContext())
	switch {
	case !common.verifies():
		d.refusef(in.field("common_tls_context").field("validation_context"), "must name a certificate provider instance for the roots that verify the peer")
	case m.GetAutoSniSanValidation() && m.GetSni() == "":
		d.refusef(in.field("auto_sni_san_validation"), "needs sni")
	case m.GetAutoSniSanValidation():
		common.sans, common.names = nil, []discovery.NameMatch{{
			Type: discovery.NameDNS, StringMatch: discovery.StringMatch{Value: m.GetSni()},
		}}
	}
	if common.system && len(common.sans)+len(common.names) == 0 {
		// Whoever has a certificate of any public authority would do.
		d.refusef(in.field("common_tls_context").field("validation_context"), "must match names beside system_root_certs")
	}
	if common.params.RootSecret != "" && len(common.sans)+len(common.names) == 0 && !common.presents() {
		// Without a list it is the own trust domain, and there is none.
		d.refusef(in.field("common_tls_context").field("validation_context"), "must match names beside a secret, without a certificate of the own")
	}
	return &discovery.UpstreamTLS{
		IdentityInstance: common.identity,
		RootInstance:     common.root,
		SystemRoots:      common.system,
		SANs:             common.sans,
		Names:            common.names,
		SNI:              m.GetSni(),
		ALPN:             common.alpn,
		TLSParams:        common.params,
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
	if !common.presents() {
		d.refusef(in.field("common_tls_context").field("tls_certificate_provider_instance"), "must be set: a server needs a certificate")
	}
	if common.system {
		d.refusef(in.field("common_tls_context").field("validation_context").field("system_root_certs"), "not supported for clients")
	}
	if len(common.names) > 0 {
		d.refusef(in.field("common_tls_context").field("validation_context").field("match_typed_subject_alt_names"), "must be of type URI: clients have SPIFFE IDs")
	}
	// Names to match require a certificate to find them in: without this, a
	// client that shows none would pass.
	required := m.GetRequireClientCertificate().GetValue() || len(common.sans) > 0 ||
		len(common.params.Certificates)+len(common.params.Keys) > 0
	if required && (!common.verifies() || common.system) {
		d.refusef(in.field("common_tls_context").field("validation_context"), "must name a certificate provider instance for the roots that verify the required client certificate")
	}
	return &discovery.DownstreamTLS{
		IdentityInstance:         common.identity,
		RootInstance:             common.root,
		RequireClientCertificate: required,
		SANs:                     common.sans,
		ALPN:                     common.alpn,
		TLSParams:                common.params,
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
	system         bool
	sans           []discovery.StringMatch
	names          []discovery.NameMatch
	alpn           []string
	params         discovery.TLSParams
}

// presents reports whether there is a certificate of the own.
func (c *commonTLS) presents() bool { return c.identity != "" || c.params.IdentitySecret != "" }

// verifies reports whether there are roots.
func (c *commonTLS) verifies() bool {
	return c.root != "" || c.params.RootSecret != "" || c.params.Bundles != nil || c.system
}

// commonTLS decodes a CommonTlsContext. Where a field and the one that it
// replaced are both set, the current one counts (gRFC A29).
//
//nolint:staticcheck // istiod still sends the deprecated fields
func (d *decoder) commonTLS(at path, m *tlsv3.CommonTlsContext) commonTLS {
	c := commonTLS{alpn: m.GetAlpnProtocols()}
	d.tlsParameters(at.field("tls_params"), m.GetTlsParams(), &c.params)
	switch secrets := m.GetTlsCertificateSdsSecretConfigs(); {
	case len(secrets) > 1:
		d.refusef(at.field("tls_certificate_sds_secret_configs"), "more than one is not supported")
	case len(secrets) == 1:
		c.identity, c.params.IdentitySecret = d.secret(at.element("tls_certificate_sds_secret_configs", 0), secrets[0])
	}
	old := m.GetTlsCertificateCertificateProviderInstance()
	if old != nil {
		c.params.IdentitySecret = ""
		c.identity = d.instance(at.field("tls_certificate_certificate_provider_instance"), true, old.GetInstanceName())
	}
	if current := m.GetTlsCertificateProviderInstance(); current != nil {
		c.params.IdentitySecret = ""
		c.identity = d.instance(at.field("tls_certificate_provider_instance"), true, current.GetInstanceName())
	}
	switch v := m.GetValidationContextType().(type) {
	case *tlsv3.CommonTlsContext_ValidationContext:
		d.validationContext(at.field("validation_context"), v.ValidationContext, &c)
	case *tlsv3.CommonTlsContext_ValidationContextSdsSecretConfig:
		c.root, c.params.RootSecret = d.secret(at.field("validation_context_sds_secret_config"), v.ValidationContextSdsSecretConfig)
	case *tlsv3.CommonTlsContext_CombinedValidationContext:
		in, combined := at.field("combined_validation_context"), v.CombinedValidationContext
		d.validationContext(in.field("default_validation_context"), combined.GetDefaultValidationContext(), &c)
		if secret := combined.GetValidationContextSdsSecretConfig(); secret.GetName() != "" {
			c.root, c.params.RootSecret = d.secret(in.field("validation_context_sds_secret_config"), secret)
		}
		old := combined.GetValidationContextCertificateProviderInstance()
		name := d.instance(in.field("validation_context_certificate_provider_instance"), old != nil, old.GetInstanceName())
		if c.root == "" && c.params.RootSecret == "" {
			c.root = name
		}
	case *tlsv3.CommonTlsContext_ValidationContextCertificateProviderInstance:
		name := v.ValidationContextCertificateProviderInstance.GetInstanceName()
		c.root = d.instance(at.field("validation_context_certificate_provider_instance"), true, name)
	}
	if c.params.Bundles != nil && (c.root != "" || c.params.RootSecret != "" || c.system) {
		d.refusef(at.field("validation_context").field("custom_validator_config"), "must not be set beside other roots")
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
func (d *decoder) validationContext(at path, m *tlsv3.CertificateValidationContext, c *commonTLS) {
	ca := m.GetCaCertificateProviderInstance()
	c.root = d.instance(at.field("ca_certificate_provider_instance"), ca != nil, ca.GetInstanceName())
	c.system = m.GetSystemRootCerts() != nil
	if c.system && c.root != "" {
		d.refusef(at.field("system_root_certs"), "must not be set beside ca_certificate_provider_instance")
	}
	c.params.Certificates = d.digests(at, "verify_certificate_hash", m.GetVerifyCertificateHash(), decodeHex)
	c.params.Keys = d.digests(at, "verify_certificate_spki", m.GetVerifyCertificateSpki(), base64.StdEncoding.DecodeString)
	d.revocation(at.field("crl"), m, c)
	if custom := m.GetCustomValidatorConfig(); custom != nil {
		d.bundles(at.field("custom_validator_config").field("typed_config"), custom.GetTypedConfig(), c)
	}
	for i, san := range m.GetMatchTypedSubjectAltNames() {
		d.name(at.element("match_typed_subject_alt_names", i), san, c)
	}
	if len(c.sans)+len(c.names) > 0 {
		return
	}
	for i, matcher := range m.GetMatchSubjectAltNames() {
		c.sans = append(c.sans, d.stringMatch(at.element("match_subject_alt_names", i), matcher))
	}
}
