package decode

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"regexp"
	"slices"
	"strings"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"github.com/inboardmesh/inboard/discovery"
)

// name decodes a SubjectAltNameMatcher. URIs, where SPIFFE IDs stand, have a list
// of their own.
func (d *decoder) name(at path, m *tlsv3.SubjectAltNameMatcher, c *commonTLS) {
	match := discovery.NameMatch{OID: m.GetOid(), StringMatch: d.stringMatch(at.field("matcher"), m.GetMatcher())}
	if (m.GetSanType() == tlsv3.SubjectAltNameMatcher_OTHER_NAME) != (m.GetOid() != "") {
		d.refusef(at.field("oid"), "must be set for OTHER_NAME, and for nothing else")
	}
	switch m.GetSanType() {
	case tlsv3.SubjectAltNameMatcher_URI:
		c.sans = append(c.sans, match.StringMatch)
		return
	case tlsv3.SubjectAltNameMatcher_DNS:
		match.Type = discovery.NameDNS
	case tlsv3.SubjectAltNameMatcher_EMAIL:
		match.Type = discovery.NameEmail
	case tlsv3.SubjectAltNameMatcher_IP_ADDRESS:
		match.Type = discovery.NameIP
	case tlsv3.SubjectAltNameMatcher_OTHER_NAME:
		match.Type = discovery.NameOther
	default:
		d.refusef(at.field("san_type"), "%s is not supported", m.GetSanType())
	}
	c.names = append(c.names, match)
}

// tlsParameters decodes tls_params.
func (d *decoder) tlsParameters(at path, m *tlsv3.TlsParameters, p *discovery.TLSParams) {
	version := func(field string, v tlsv3.TlsParameters_TlsProtocol) uint16 {
		switch v {
		case tlsv3.TlsParameters_TLS_AUTO:
			return 0
		case tlsv3.TlsParameters_TLSv1_2:
			return tls.VersionTLS12
		case tlsv3.TlsParameters_TLSv1_3:
			return tls.VersionTLS13
		}
		d.refusef(at.field(field), "%s is not supported: use TLSv1_2 or TLSv1_3", v)
		return 0
	}
	p.MinVersion = version("tls_minimum_protocol_version", m.GetTlsMinimumProtocolVersion())
	p.MaxVersion = version("tls_maximum_protocol_version", m.GetTlsMaximumProtocolVersion())
	if p.MaxVersion != 0 && p.MaxVersion < p.MinVersion {
		d.refusef(at.field("tls_maximum_protocol_version"), "is below tls_minimum_protocol_version")
	}
	for i, name := range m.GetCipherSuites() {
		d.cipherSuite(at.element("cipher_suites", i), name, p)
	}
	if len(m.GetCipherSuites()) > 0 && len(p.CipherSuites) == 0 {
		d.refusef(at.field("cipher_suites"), "none of them is implemented")
	}
	for i, name := range m.GetEcdhCurves() {
		curve, ok := curves[name]
		if !ok {
			d.refusef(at.element("ecdh_curves", i), "%q is not supported", name)
		}
		p.Curves = append(p.Curves, curve)
	}
}

// cipherSuite decodes a name, or several of equal rank as in "[A|B]". Suites
// without forward secrecy, which Istio lists last, are left out of the list:
// that allows less than it says, and not more.
func (d *decoder) cipherSuite(at path, name string, p *discovery.TLSParams) {
	for name := range strings.SplitSeq(strings.Trim(name, "[]"), "|") {
		suite, known := cipherSuites[name]
		switch {
		case !known:
			d.refusef(at, "%q is not supported", name)
		case suite != 0 && !slices.Contains(p.CipherSuites, suite):
			p.CipherSuites = append(p.CipherSuites, suite)
		}
	}
}

// cipherSuites are BoringSSL's names for suites of TLS 1.2; 0 is one that is
// never spoken.
var cipherSuites = map[string]uint16{
	"ECDHE-ECDSA-AES128-GCM-SHA256": tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
	"ECDHE-RSA-AES128-GCM-SHA256":   tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	"ECDHE-ECDSA-AES256-GCM-SHA384": tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
	"ECDHE-RSA-AES256-GCM-SHA384":   tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	"ECDHE-ECDSA-CHACHA20-POLY1305": tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
	"ECDHE-RSA-CHACHA20-POLY1305":   tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
	"ECDHE-ECDSA-AES128-SHA":        0, "ECDHE-RSA-AES128-SHA": 0, "AES128-GCM-SHA256": 0, "AES128-SHA": 0,
	"ECDHE-ECDSA-AES256-SHA": 0, "ECDHE-RSA-AES256-SHA": 0, "AES256-GCM-SHA384": 0, "AES256-SHA": 0,
}

var curves = map[string]tls.CurveID{
	"X25519": tls.X25519, "P-256": tls.CurveP256, "P-384": tls.CurveP384, "P-521": tls.CurveP521,
	"X25519MLKEM768": tls.X25519MLKEM768,
}

// digests decodes SHA-256 digests.
func (d *decoder) digests(at path, field string, list []string, decode func(string) ([]byte, error)) [][sha256.Size]byte {
	var digests [][sha256.Size]byte
	for i, text := range list {
		raw, err := decode(text)
		if err != nil || len(raw) != sha256.Size {
			d.refusef(at.element(field, i), "%q is not a SHA-256 digest", text)
			continue
		}
		digests = append(digests, [sha256.Size]byte(raw))
	}
	return digests
}

// colons may stand between the bytes of a digest, as OpenSSL prints them.
var colons = regexp.MustCompile("^[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){31}$")

func decodeHex(text string) ([]byte, error) {
	if colons.MatchString(text) {
		text = strings.ReplaceAll(text, ":", "")
	}
	return hex.DecodeString(text)
}
