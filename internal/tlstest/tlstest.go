// Package tlstest is a certificate authority for tests: it issues good
// certificates, and bad ones on purpose.
package tlstest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"maps"
	"math/big"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"
)

// TB is what this package needs of testing.TB.
type TB interface {
	Helper()
	Fatal(args ...any)
}

// CA signs certificates. Safe for concurrent use.
type CA struct {
	// Certificate is the CA's own: a root, or an intermediate with its chain.
	Certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	chain       [][]byte // what a leaf needs besides itself to reach the root
}

// NewCA returns a new root, valid from a day ago for ten years.
func NewCA(tb TB) *CA {
	tb.Helper()
	key := newKey(tb)
	template := authority("test root")
	return &CA{Certificate: parse(tb, create(tb, template, template, key.Public(), key)), key: key}
}

// Intermediate returns a CA whose certificate is signed by ca.
func (ca *CA) Intermediate(tb TB) *CA {
	tb.Helper()
	return ca.Constrained(tb, func(*x509.Certificate) {})
}

// Constrained is Intermediate with a certificate that edit changes before it is signed.
func (ca *CA) Constrained(tb TB, edit func(template *x509.Certificate)) *CA {
	tb.Helper()
	key := newKey(tb)
	template := authority("test intermediate")
	edit(template)
	cert := parse(tb, create(tb, template, ca.Certificate, key.Public(), ca.key))
	return &CA{Certificate: cert, key: key, chain: append([][]byte{cert.Raw}, ca.chain...)}
}

// PEM returns the CA's certificate and its key (PKCS #8).
func (ca *CA) PEM(tb TB) (certificate, key []byte) {
	tb.Helper()
	return CertificatePEM(ca.Certificate.Raw), KeyPEM(tb, tls.Certificate{PrivateKey: ca.key})
}

func authority(name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             time.Now().Add(-24 * time.Hour),
		NotAfter:              time.Now().AddDate(10, 0, 0),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
}

// Leaf describes a certificate. The zero Leaf has no names, is valid from a
// minute ago for an hour, and is made for servers and clients.
type Leaf struct {
	URIs                []string
	DNSNames            []string
	IPs                 []net.IP
	NotBefore, NotAfter time.Time
	// Usages replaces the extended key usages.
	Usages []x509.ExtKeyUsage
	// Edit changes the template before it is signed.
	Edit func(template *x509.Certificate)
}

// Workload issues a good certificate with a new key for a SPIFFE ID.
func (ca *CA) Workload(tb TB, id string) tls.Certificate {
	tb.Helper()
	return ca.Issue(tb, Leaf{URIs: []string{id}})
}

// Issue issues a certificate with a new key.
func (ca *CA) Issue(tb TB, leaf Leaf) tls.Certificate {
	tb.Helper()
	key := newKey(tb)
	return tls.Certificate{Certificate: ca.Sign(tb, leaf, key.Public()), PrivateKey: key}
}

// Sign issues a certificate for a public key and returns the chain in DER, leaf
// first, without the root.
func (ca *CA) Sign(tb TB, leaf Leaf, public crypto.PublicKey) [][]byte {
	tb.Helper()
	template := &x509.Certificate{
		SerialNumber: serial(),
		NotBefore:    leaf.NotBefore,
		NotAfter:     leaf.NotAfter,
		DNSNames:     leaf.DNSNames,
		IPAddresses:  leaf.IPs,
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  leaf.Usages,
	}
	if template.NotBefore.IsZero() {
		template.NotBefore = time.Now().Add(-time.Minute)
	}
	if template.NotAfter.IsZero() {
		template.NotAfter = time.Now().Add(time.Hour)
	}
	if template.ExtKeyUsage == nil {
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	}
	for _, uri := range leaf.URIs {
		parsed, err := url.Parse(uri)
		if err != nil {
			tb.Fatal(err)
		}
		template.URIs = append(template.URIs, parsed)
	}
	if leaf.Edit != nil {
		leaf.Edit(template)
	}
	return append([][]byte{create(tb, template, ca.Certificate, public, ca.key)}, ca.chain...)
}

// CRL returns a revocation list of the CA in DER that names the given certificates. Its
// successor is due in an hour; edit may be nil.
func (ca *CA) CRL(tb TB, edit func(*x509.RevocationList), revoked ...[]byte) []byte {
	tb.Helper()
	now := time.Now()
	template := &x509.RevocationList{Number: serial(), ThisUpdate: now.Add(-time.Minute), NextUpdate: now.Add(time.Hour)}
	for _, der := range revoked {
		template.RevokedCertificateEntries = append(template.RevokedCertificateEntries, x509.RevocationListEntry{
			SerialNumber: parse(tb, der).SerialNumber, RevocationTime: now,
		})
	}
	if edit != nil {
		edit(template)
	}
	der, err := x509.CreateRevocationList(rand.Reader, template, ca.Certificate, ca.key)
	if err != nil {
		tb.Fatal(err)
	}
	return der
}

// CRLPEM returns revocation lists in PEM.
func CRLPEM(lists ...[]byte) []byte {
	var out []byte
	for _, der := range lists {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})...)
	}
	return out
}

// CertificatePEM returns a chain in PEM.
func CertificatePEM(chain ...[]byte) []byte {
	var out []byte
	for _, der := range chain {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return out
}

// KeyPEM returns a certificate's private key in PEM (PKCS #8).
func KeyPEM(tb TB, cert tls.Certificate) []byte {
	tb.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		tb.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// Key is the CA's certificate as a JSON Web Key of a SPIFFE bundle.
func (ca *CA) Key() string {
	point := ca.Certificate.RawSubjectPublicKeyInfo[len(ca.Certificate.RawSubjectPublicKeyInfo)-64:] // of an uncompressed key
	encode := base64.RawURLEncoding.EncodeToString
	return fmt.Sprintf(`{"kty": "EC", "use": "x509-svid", "crv": "P-256", "x": %q, "y": %q, "x5c": [%q]}`,
		encode(point[:32]), encode(point[32:]), base64.StdEncoding.EncodeToString(ca.Certificate.Raw))
}

// BundleMap is the SPIFFE bundle map of the CAs of each trust domain.
func BundleMap(domains map[string][]*CA) string {
	bundles := make([]string, 0, len(domains))
	for _, domain := range slices.Sorted(maps.Keys(domains)) {
		keys := make([]string, 0, len(domains[domain]))
		for _, ca := range domains[domain] {
			keys = append(keys, ca.Key())
		}
		bundles = append(bundles, fmt.Sprintf(`%q: {"keys": [%s]}`, domain, strings.Join(keys, ", ")))
	}
	return `{"trust_domains": {` + strings.Join(bundles, ", ") + `}}`
}

func newKey(tb TB) *ecdsa.PrivateKey {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

func serial() *big.Int {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return new(big.Int).SetBytes(b[:])
}

func create(tb TB, template, parent *x509.Certificate, public crypto.PublicKey, signer crypto.Signer) []byte {
	tb.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, signer)
	if err != nil {
		tb.Fatal(err)
	}
	return der
}

func parse(tb TB, der []byte) *x509.Certificate {
	tb.Helper()
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	return cert
}
