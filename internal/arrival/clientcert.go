package arrival

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"net/url"
	"strings"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/route"
)

// clientCertificate puts x-forwarded-client-cert in order. Without a certificate
// of the peer nothing in it can be believed (row BS7).
func clientCertificate(config *discovery.Forwarding, h route.HeaderMap, peer *Peer) {
	presented := peer.TLS != nil && len(peer.TLS.PeerCertificates) > 0
	switch {
	case config.Certificate == discovery.CertificateAlwaysForward:
	case config.Certificate == discovery.CertificateSanitize, !presented:
		remove(h, clientCert)
	case config.Certificate == discovery.CertificateAppend:
		h.Set(clientCert, joined(h.Values(clientCert), element(config.Details, peer)))
	case config.Certificate == discovery.CertificateSet:
		h.Set(clientCert, element(config.Details, peer))
	}
}

// element is what is told of the peer's certificate: pairs of keys and values in
// Envoy's order.
func element(details discovery.CertificateDetails, peer *Peer) string {
	chain := peer.TLS.PeerCertificates
	leaf := chain[0]
	var b strings.Builder
	add := func(key, value string) {
		if b.Len() > 0 {
			b.WriteByte(';')
		}
		b.WriteString(key)
		b.WriteByte('=')
		b.WriteString(value)
	}
	if peer.Own != nil {
		// Without an identity at the moment nobody is named.
		if own, err := peer.Own.Identity(); err == nil && !own.ID.IsZero() {
			add("By", quote(own.ID.String(), false))
		}
	}
	digest := sha256.Sum256(leaf.Raw)
	add("Hash", hex.EncodeToString(digest[:]))
	if details.Certificate {
		add("Cert", `"`+encoded(leaf)+`"`)
	}
	if details.Chain {
		var all strings.Builder
		for _, cert := range chain {
			all.WriteString(encoded(cert))
		}
		add("Chain", `"`+all.String()+`"`)
	}
	if details.Subject {
		add("Subject", quote(leaf.Subject.String(), true))
	}
	if details.URI {
		for _, uri := range leaf.URIs {
			add("URI", quote(uri.String(), false))
		}
	}
	if details.DNS {
		for _, name := range leaf.DNSNames {
			add("DNS", quote(name, false))
		}
	}
	return b.String()
}

// encoded is a certificate in PEM, escaped as in a URL.
func encoded(cert *x509.Certificate) string {
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
	return strings.ReplaceAll(url.QueryEscape(string(text)), "+", "%20")
}

// quote makes a value of a certificate, which holds whatever its owner has
// written into it, one value of the header (row V30): quoted if it has a
// character that the header gives a meaning, and without those that no header
// can have.
func quote(value string, always bool) string {
	const hexDigits = "0123456789ABCDEF"
	plain := !always
	for i := 0; i < len(value) && plain; i++ {
		c := value[i]
		plain = c > ' ' && c < 0x7f && !strings.ContainsRune(`,;="\`, rune(c))
	}
	if plain {
		return value
	}
	var b strings.Builder
	b.WriteByte('"')
	for i := range len(value) {
		switch c := value[i]; {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c < ' ' || c >= 0x7f:
			b.WriteByte('%')
			b.WriteByte(hexDigits[c>>4])
			b.WriteByte(hexDigits[c&15])
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}
