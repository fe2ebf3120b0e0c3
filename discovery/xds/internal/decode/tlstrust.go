package decode

import (
	"crypto/x509"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/inboardmesh/inboard/internal/bundlemap"
	"github.com/inboardmesh/inboard/internal/secret"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

// SecretURL is the type of secrets.
const SecretURL = secret.URL

// Secret decodes an envoy.extensions.transport_sockets.tls.v3.Secret: a certificate
// with its key, which need not have a SPIFFE ID, or roots. No error holds what the
// secret holds.
func Secret(value []byte) (string, *meshtls.Identity, error) {
	name, s, err := secret.Parse(value)
	switch {
	case err != nil:
		return name, nil, err
	case s.Roots == nil:
		identity, err := meshtls.NewOutside(s.Certificate)
		return name, identity, err
	}
	identity, err := meshtls.NewRoots(s.Roots)
	if err == nil && s.Revocation != nil {
		identity = identity.WithRevocation(s.Revocation)
	}
	return name, identity, err
}

// The workload's own certificate and roots have these names, wherever Istio says that
// they come from: its agent answers for them, and here the provider instance
// "default" does.
const (
	ownSecret   = "default"
	rootSecret  = "ROOTCA"
	ownInstance = "default"
)

// secret decodes where a certificate or roots come from: a provider instance of this
// process, or a secret of the control plane (ads).
func (d *decoder) secret(at path, m *tlsv3.SdsSecretConfig) (instance, secretName string) {
	switch name := m.GetName(); {
	case name == "":
		d.refusef(at.field("name"), "must not be empty")
		return "", ""
	case name == ownSecret, name == rootSecret:
		return ownInstance, ""
	case m.GetSdsConfig().GetAds() == nil && m.GetSdsConfig().GetSelf() == nil:
		// What a proxy asks a service of its own for, the providers have.
		return name, ""
	default:
		d.adsSource(at.field("sds_config"), m.GetSdsConfig())
		return "", name
	}
}

// revocation decodes crl and only_verify_leaf_cert_crl.
func (d *decoder) revocation(at path, m *tlsv3.CertificateValidationContext, c *commonTLS) {
	if m.GetCrl() != nil && !inline(m.GetCrl()) {
		return // refused as a field
	}
	var err error
	if c.params.Revocation, err = secret.Revocation(m.GetCrl(), m.GetOnlyVerifyLeafCertCrl()); err != nil {
		d.refusef(at, "%w", err)
	}
}

// bundles decodes the one validator that is known: that of SPIFFE bundles.
func (d *decoder) bundles(at path, config *anypb.Any, c *commonTLS) {
	m := &tlsv3.SPIFFECertValidatorConfig{}
	if !d.unpack(at, config, m) {
		return
	}
	roots := make(map[string][]*x509.Certificate)
	switch source := m.GetTrustBundles(); {
	case source == nil: // there is at least one then, by the rules of the message
		for i, domain := range m.GetTrustDomains() {
			d.bundle(at.element("trust_domains", i), domain, roots)
		}
	case !inline(source):
		return // refused as a field
	default: // Envoy: it takes precedence over trust_domains
		text, err := secret.Inline(source)
		if err == nil {
			roots, err = bundlemap.Parse(text)
		}
		if err != nil {
			d.refusef(at.field("trust_bundles"), "%w", err)
			return
		}
	}
	bundles, err := meshtls.NewBundles(roots)
	if err != nil {
		d.refusef(at, "%w", err)
	}
	c.params.Bundles = bundles
}

func (d *decoder) bundle(at path, m *tlsv3.SPIFFECertValidatorConfig_TrustDomain, roots map[string][]*x509.Certificate) {
	if _, err := bundlemap.TrustDomain(m.GetName()); err != nil {
		d.refusef(at.field("name"), "%w", err)
	}
	if _, ok := roots[m.GetName()]; ok {
		d.refusef(at.field("name"), "%q has a bundle already", m.GetName())
	}
	if m.GetTrustBundle() != nil && !inline(m.GetTrustBundle()) {
		return // refused as a field
	}
	text, err := secret.Inline(m.GetTrustBundle())
	if err == nil {
		roots[m.GetName()], err = secret.Roots(text)
	}
	if err != nil {
		d.refusef(at.field("trust_bundle"), "%w", err)
	}
}

// inline reports whether a source holds what it stands for. Others are refused as
// fields: a server may name no file and no variable of this process (row V59).
func inline(source *corev3.DataSource) bool {
	switch source.GetSpecifier().(type) {
	case *corev3.DataSource_InlineBytes, *corev3.DataSource_InlineString:
		return true
	}
	return false
}
