package decode

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"github.com/inboardmesh/inboard/internal/tlstest"
)

// quoted is a text in JSON.
func quoted(tb testing.TB, text []byte) string {
	tb.Helper()
	b, err := json.Marshal(string(text))
	if err != nil {
		tb.Fatal(err)
	}
	return string(b)
}

// trustCluster is a cluster with a validation context, and a certificate by secret.
func trustCluster(validation string) string {
	return clusterWith(`"transportSocket": {"name": "tls", "typedConfig": {
		"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
		"commonTlsContext": {"tlsCertificateSdsSecretConfigs": [{"name": "kubernetes://client", "sdsConfig": {"ads": {}}}],
			"validationContext": {` + validation + `}}}}`)
}

const spiffeValidator = `"customValidatorConfig": {"name": "envoy.tls.cert_validator.spiffe", "typedConfig": {
	"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig", %s}}`

// bundleMap is a SPIFFE bundle map with the roots of one trust domain.
func bundleMap(domain string, ca *tlstest.CA) string {
	return tlstest.BundleMap(map[string][]*tlstest.CA{domain: {ca}})
}

// trustFixtures are a cluster with each way to say whom to trust.
func trustFixtures(tb testing.TB) []string {
	tb.Helper()
	ca := tlstest.NewCA(tb)
	root := quoted(tb, tlstest.CertificatePEM(ca.Certificate.Raw))
	crl := quoted(tb, tlstest.CRLPEM(ca.CRL(tb, nil, ca.Workload(tb, "spiffe://td/a").Certificate[0])))
	return []string{
		trustCluster(fmt.Sprintf(spiffeValidator, `"trustDomains": [{"name": "td", "trustBundle": {"inlineString": `+root+`}}]`)),
		trustCluster(fmt.Sprintf(spiffeValidator, `"trustDomains": [{"name": "other"}], "trustBundles": {"inlineString": `+quoted(tb, []byte(bundleMap("td", ca)))+`}`)),
		trustCluster(`"caCertificateProviderInstance": {"instanceName": "default"}, "onlyVerifyLeafCertCrl": true, "crl": {"inlineString": ` + crl + `}`),
	}
}

func TestTrustByBundlesListsAndSecrets(t *testing.T) {
	t.Parallel()
	fixtures := trustFixtures(t)
	for i, text := range fixtures[:2] {
		tls := decodeCluster(t, text).TLS
		if tls.IdentitySecret != "kubernetes://client" || tls.IdentityInstance != "" || tls.RootInstance != "" ||
			tls.Bundles == nil || len(tls.Bundles.Federated) != 1 || tls.Bundles.Federated["td"] == nil {
			t.Errorf("bundle %d: %+v", i, tls)
		}
	}
	if tls := decodeCluster(t, fixtures[2]).TLS; tls.Revocation.Key() == "" || tls.RootInstance != "default" {
		t.Errorf("revocation: %+v", tls)
	}
	secret := decodeCluster(t, clusterWith(`"transportSocket": {"name": "tls", "typedConfig": {
		"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
		"commonTlsContext": {"combinedValidationContext": {
			"defaultValidationContext": {"matchTypedSubjectAltNames": [{"sanType": "DNS", "matcher": {"exact": "bank.example"}}]},
			"validationContextSdsSecretConfig": {"name": "kubernetes://bank-cacert", "sdsConfig": {"self": {}}}}}}}`)).TLS
	if secret.RootSecret != "kubernetes://bank-cacert" || secret.RootInstance != "" || secret.IdentitySecret != "" {
		t.Errorf("secret: %+v", secret)
	}
}

func TestV59_TrustThatCannotBeKeptIsRefused(t *testing.T) {
	t.Parallel()
	ca := tlstest.NewCA(t)
	root := quoted(t, tlstest.CertificatePEM(ca.Certificate.Raw))
	const at = "transport_socket.typed_config.common_tls_context.validation_context."
	const custom = at + "custom_validator_config.typed_config"
	provider := `"caCertificateProviderInstance": {"instanceName": "default"}, `
	validator := func(fields string) string { return trustCluster(fmt.Sprintf(spiffeValidator, fields)) }
	wantClusterErrors(t, []clusterCase{
		{"a list that is none", trustCluster(provider + `"crl": {"inlineString": "junk"}`), []string{at + "crl: is not X509 CRL in PEM"}},
		{"a certificate in its place", trustCluster(provider + `"crl": {"inlineString": ` + root + `}`), []string{at + "crl: holds something else than X509 CRL"}},
		{"a list in a file", trustCluster(provider + `"crl": {"filename": "/etc/passwd"}`), []string{at + "crl.filename: not supported"}},
		{"bundles in a file", validator(`"trustDomains": [{"name": "td"}], "trustBundles": {"filename": "/etc/passwd"}`), []string{custom + ".trust_bundles.filename: not supported", at[:len(at)-1] + ": must name a certificate provider instance for the roots that verify the peer"}},
		{"a trust domain twice", validator(`"trustDomains": [{"name": "td", "trustBundle": {"inlineString": ` + root + `}}, {"name": "td", "trustBundle": {"inlineString": ` + root + `}}]`),
			[]string{custom + `.trust_domains[1].name: "td" has a bundle already`}},
		{"an ID in place of a trust domain", validator(`"trustDomains": [{"name": "spiffe://td/a", "trustBundle": {"inlineString": ` + root + `}}]`),
			[]string{custom + `.trust_domains[0].name: trust domain "spiffe://td/a": must be its name, such as "td"`}},
		{"bundles beside other roots", trustCluster(provider + fmt.Sprintf(spiffeValidator, `"trustDomains": [{"name": "td", "trustBundle": {"inlineString": `+root+`}}]`)),
			[]string{at + "custom_validator_config: must not be set beside other roots"}},
		{"roots by secret, no names and no certificate", clusterWith(`"transportSocket": {"name": "tls", "typedConfig": {
			"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
			"commonTlsContext": {"validationContextSdsSecretConfig": {"name": "roots", "sdsConfig": {"ads": {}}}}}}`),
			[]string{at[:len(at)-1] + ": must match names beside a secret, without a certificate of the own"}},
		{"no map", validator(`"trustDomains": [{"name": "td"}], "trustBundles": {"inlineString": "{}"}`), []string{
			custom + ".trust_bundles: has no trust_domains",
			at[:len(at)-1] + ": must name a certificate provider instance for the roots that verify the peer",
		}},
		{"a map that is null", validator(`"trustDomains": [{"name": "td"}], "trustBundles": {"inlineString": "{\"trust_domains\": null}"}`), []string{
			custom + ".trust_bundles: has no trust_domains",
			at[:len(at)-1] + ": must name a certificate provider instance for the roots that verify the peer",
		}},
		{"a bundle without keys", validator(`"trustDomains": [{"name": "td"}], "trustBundles": {"inlineString": "{\"trust_domains\": {\"td\": {}}}"}`), []string{
			custom + `.trust_bundles: trust domain "td": spiffebundle: no authorities found`,
			at[:len(at)-1] + ": must name a certificate provider instance for the roots that verify the peer",
		}},
	})
}

// TestBS2_AnEmptyBundleMapIsOne: it takes the place of the one before, which a refusal
// would leave in force.
func TestBS2_AnEmptyBundleMapIsOne(t *testing.T) {
	t.Parallel()
	ca := tlstest.NewCA(t)
	for text, want := range map[string][]string{
		`{"trust_domains": {}}`:                      nil,
		`{"trust_domains": {"td": {"keys": []}}}`:    nil,
		bundleMap("td", ca):                          {"td"},
		`{"trust_domains": {}, "spiffe_sequence":1}`: nil,
	} {
		tls := decodeCluster(t, trustCluster(fmt.Sprintf(spiffeValidator, `"trustDomains": [{"name": "td"}], "trustBundles": {"inlineString": `+quoted(t, []byte(text))+`}`))).TLS
		if tls == nil || tls.Bundles == nil || tls.Bundles.Bundles() == nil {
			t.Fatalf("%s: %+v", text, tls)
		}
		if got := slices.Sorted(maps.Keys(tls.Bundles.Bundles())); !slices.Equal(got, want) {
			t.Errorf("%s: trusts %v, want %v", text, got, want)
		}
	}
}

// FuzzSecret: a secret is read whole or not at all, and no error shows what it holds.
func FuzzSecret(f *testing.F) {
	ca := tlstest.NewCA(f)
	cert := ca.Workload(f, "spiffe://td/a")
	seed(f,
		fromJSON[tlsv3.Secret](f, `{"name": "s", "tlsCertificate": {"certificateChain": {"inlineString": `+quoted(f, tlstest.CertificatePEM(cert.Certificate...))+
			`}, "privateKey": {"inlineString": `+quoted(f, tlstest.KeyPEM(f, cert))+`}}}`),
		fromJSON[tlsv3.Secret](f, `{"name": "s", "validationContext": {"trustedCa": {"inlineString": `+quoted(f, tlstest.CertificatePEM(ca.Certificate.Raw))+
			`}, "crl": {"inlineString": `+quoted(f, tlstest.CRLPEM(ca.CRL(f, nil)))+`}}}`),
		fromJSON[tlsv3.Secret](f, `{"name": "s", "genericSecret": {"secret": {"inlineString": "s3cr3t-marker"}}}`),
	)
	f.Fuzz(func(t *testing.T, value []byte) {
		identity := sameAgain(t, value, Secret)
		if identity != nil && (identity.Roots == nil) == (len(identity.Certificate.Certificate) == 0) {
			t.Fatalf("not exactly one kind: %v", identity)
		}
		if _, _, err := Secret(value); err != nil && (strings.Contains(err.Error(), "s3cr3t-marker") || strings.Contains(err.Error(), "PRIVATE KEY-----")) {
			t.Fatalf("the error shows the secret: %v", err)
		}
	})
}

// FuzzTrust: whom a cluster trusts is decoded, or refused, and never left out.
func FuzzTrust(f *testing.F) {
	for _, text := range trustFixtures(f) {
		seed(f, fromJSON[clusterv3.Cluster](f, text))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		c := sameAgain(t, value, Cluster)
		if c == nil || c.TLS == nil {
			return
		}
		if c.TLS.RootInstance == "" && c.TLS.RootSecret == "" && c.TLS.Bundles == nil && !c.TLS.SystemRoots {
			t.Fatalf("TLS that verifies nobody: %+v", c.TLS)
		}
	})
}
