package meshtls_test

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"net"
	"strings"
	"testing"

	"github.com/inboardmesh/inboard/internal/tlstest"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

// leafOf issues a certificate and parses it.
func leafOf(tb testing.TB, leaf tlstest.Leaf) *x509.Certificate {
	tb.Helper()
	cert, err := x509.ParseCertificate(tlstest.NewCA(tb).Issue(tb, leaf).Certificate[0])
	if err != nil {
		tb.Fatal(err)
	}
	return cert
}

const upn = "1.3.6.1.4.1.311.20.2.3"

// withOtherName gives a certificate a name of the type otherName, and a DNS name.
func withOtherName(tb testing.TB, dns, text string) func(*x509.Certificate) {
	tb.Helper()
	value, err := asn1.MarshalWithParams(text, "utf8")
	if err != nil {
		tb.Fatal(err)
	}
	id, err := asn1.Marshal(asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 20, 2, 3})
	if err != nil {
		tb.Fatal(err)
	}
	wrap := func(class, tag int, compound bool, content []byte) []byte {
		der, err := asn1.Marshal(asn1.RawValue{Class: class, Tag: tag, IsCompound: compound, Bytes: content})
		if err != nil {
			tb.Fatal(err)
		}
		return der
	}
	other := wrap(asn1.ClassContextSpecific, 0, true, append(id, wrap(asn1.ClassContextSpecific, 0, true, value)...))
	name := wrap(asn1.ClassContextSpecific, 2, false, []byte(dns))
	list := wrap(asn1.ClassUniversal, asn1.TagSequence, true, append(other, name...))
	return func(c *x509.Certificate) {
		c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: list})
	}
}

// TestBS1_NamesAreTyped: and V20, V21, a name counts in its own place only, and a
// wildcard for one label.
func TestBS1_NamesAreTyped(t *testing.T) {
	t.Parallel()
	dns := func(exact string) meshtls.NameMatcher {
		return meshtls.NameMatcher{Type: meshtls.DNSName, Exact: exact}
	}
	hasPrefix := func(kind meshtls.NameType, prefix string) meshtls.NameMatcher {
		return meshtls.NameMatcher{Type: kind, Match: func(s string) bool { return strings.HasPrefix(s, prefix) }}
	}
	wildcard := tlstest.Leaf{DNSNames: []string{"*.shop.example"}}
	tests := []struct {
		name    string
		leaf    tlstest.Leaf
		matcher meshtls.NameMatcher
		want    bool
	}{
		{"a DNS name", tlstest.Leaf{DNSNames: []string{"b.example", "a.example"}}, dns("a.example"), true},
		{"in another case", tlstest.Leaf{DNSNames: []string{"A.Example"}}, dns("a.example"), true},
		{"another DNS name", tlstest.Leaf{DNSNames: []string{"a.example.org"}}, dns("a.example"), false},
		{"a wildcard's label", wildcard, dns("a.shop.example"), true},
		{"two labels for a wildcard", wildcard, dns("a.b.shop.example"), false},
		{"no label for a wildcard", wildcard, dns("shop.example"), false},
		{"an empty label for a wildcard", wildcard, dns(".shop.example"), false},
		{"the wildcard itself", wildcard, dns("*.shop.example"), true},
		{"a wildcard of a whole domain", tlstest.Leaf{DNSNames: []string{"*.example"}}, dns("a.example"), false},
		{"a wildcard within a label", tlstest.Leaf{DNSNames: []string{"a*.shop.example"}}, dns("ab.shop.example"), false},
		{"a prefix does not know wildcards", wildcard, hasPrefix(meshtls.DNSName, "a.shop"), false},
		{"an email address is no DNS name", tlstest.Leaf{Edit: func(c *x509.Certificate) { c.EmailAddresses = []string{"a.example"} }}, dns("a.example"), false},
		{"the subject is no DNS name", tlstest.Leaf{Edit: func(c *x509.Certificate) { c.Subject.CommonName = "a.example" }}, dns("a.example"), false},
		{"a URI is no DNS name", tlstest.Leaf{URIs: []string{"spiffe://a.example/b"}}, hasPrefix(meshtls.DNSName, "spiffe"), false},
		{"an IP address", tlstest.Leaf{IPs: []net.IP{net.IPv4(10, 0, 0, 1)}}, meshtls.NameMatcher{Type: meshtls.IPName, Exact: "10.0.0.1"}, true},
		{"an IP address as a DNS name", tlstest.Leaf{DNSNames: []string{"10.0.0.1"}}, meshtls.NameMatcher{Type: meshtls.IPName, Exact: "10.0.0.1"}, false},
		{"an IP address is no DNS name", tlstest.Leaf{IPs: []net.IP{net.IPv4(10, 0, 0, 1)}}, dns("10.0.0.1"), false},
		{"a DNS name is no email address", tlstest.Leaf{DNSNames: []string{"a.example"}}, hasPrefix(meshtls.EmailName, "a."), false},
		{"a URI is no email address", tlstest.Leaf{URIs: []string{"mailto:ada@example"}}, hasPrefix(meshtls.EmailName, ""), false},
		{"a DNS name is no other name", tlstest.Leaf{DNSNames: []string{"ada"}}, meshtls.NameMatcher{Type: meshtls.OtherName, OID: upn, Exact: "ada"}, false},
		{"an email address", tlstest.Leaf{Edit: func(c *x509.Certificate) { c.EmailAddresses = []string{"ada@example"} }}, hasPrefix(meshtls.EmailName, "ada@"), true},
		{"an other name", tlstest.Leaf{Edit: withOtherName(t, "a.example", "ada")}, meshtls.NameMatcher{Type: meshtls.OtherName, OID: upn, Exact: "ada"}, true},
		{"an other name of another type", tlstest.Leaf{Edit: withOtherName(t, "a.example", "ada")}, meshtls.NameMatcher{Type: meshtls.OtherName, OID: "1.2.3", Exact: "ada"}, false},
		{"a NUL in an other name", tlstest.Leaf{Edit: withOtherName(t, "a.example", "ada\x00x")}, meshtls.NameMatcher{Type: meshtls.OtherName, OID: upn, Match: func(string) bool { return true }}, false},
		{"a NUL in a DNS name", tlstest.Leaf{Edit: withOtherName(t, "a.example\x00.evil", "ada")}, hasPrefix(meshtls.DNSName, "a.example"), false},
		{"no matcher", tlstest.Leaf{DNSNames: []string{"a.example"}}, meshtls.NameMatcher{Type: meshtls.DNSName}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			err := meshtls.AuthorizeNames(nil, []meshtls.NameMatcher{tt.matcher})(meshtls.ID{}, leafOf(t, tt.leaf))
			if (err == nil) != tt.want {
				t.Errorf("got %v", err)
			}
		})
	}
	if err := meshtls.AuthorizeNames(nil, nil)(meshtls.ID{}, leafOf(t, wildcard)); err == nil {
		t.Error("without a matcher somebody was allowed")
	}
}

func TestPinnedCertificates(t *testing.T) {
	t.Parallel()
	leaf := leafOf(t, tlstest.Leaf{DNSNames: []string{"a.example"}})
	cert, key := sha256.Sum256(leaf.Raw), sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	type digests = [][sha256.Size]byte
	tests := []struct {
		name        string
		certs, keys digests
		want        bool
	}{
		{"the certificate", digests{cert}, nil, true},
		{"the key", nil, digests{{}, key}, true},
		{"one of both lists is enough", digests{{}}, digests{key}, true},
		{"neither", digests{{}}, digests{{}}, false},
		{"the certificate's digest is no key's", nil, digests{cert}, false},
	}
	for _, tt := range tests {
		err := meshtls.AuthorizePinned(tt.certs, tt.keys, meshtls.AuthorizeAny())(meshtls.ID{}, leaf)
		if (err == nil) != tt.want {
			t.Errorf("%s: got %v", tt.name, err)
		}
	}
	if err := meshtls.AuthorizePinned(digests{cert}, nil, meshtls.AuthorizeIDs())(meshtls.ID{}, leaf); err == nil {
		t.Error("a pin took the place of the authorization")
	}
}

func TestVersions(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name     string
		versions meshtls.Versions
		low, top uint16
		want     string
	}{
		{"nothing is said", meshtls.Versions{}, tls.VersionTLS13, 0, ""},
		{"down to 1.2", meshtls.Versions{Min: tls.VersionTLS12}, tls.VersionTLS12, 0, ""},
		{"1.2 at most", meshtls.Versions{Max: tls.VersionTLS12}, tls.VersionTLS12, tls.VersionTLS12, ""},
		{"1.1", meshtls.Versions{Min: tls.VersionTLS11}, 0, 0, "client TLS: TLS versions below 1.2 are not spoken"},
		{"the wrong way round", meshtls.Versions{Min: tls.VersionTLS13, Max: tls.VersionTLS12}, 0, 0, "client TLS: the newest TLS version is below the oldest"},
	}
	roots := meshtls.NewSystemRoots()
	for _, tt := range tests {
		config, err := meshtls.ClientConfig(meshtls.ClientParams{Roots: roots, Authorize: meshtls.AuthorizeAny(), Versions: tt.versions})
		switch {
		case tt.want != "":
			if err == nil || err.Error() != tt.want {
				t.Errorf("%s: got %v, want %s", tt.name, err, tt.want)
			}
		case err != nil:
			t.Errorf("%s: %v", tt.name, err)
		case config.MinVersion != tt.low || config.MaxVersion != tt.top:
			t.Errorf("%s: versions %x to %x", tt.name, config.MinVersion, config.MaxVersion)
		}
	}
}

// FuzzOtherNames reads what a peer sends before anybody knows it: a matcher is asked
// about whole names only, without what ends them for some readers, and nobody is
// allowed whom none was asked about.
func FuzzOtherNames(f *testing.F) {
	f.Add(leafOf(f, tlstest.Leaf{Edit: withOtherName(f, "a", "ada")}).Raw)
	f.Fuzz(func(t *testing.T, der []byte) {
		asked := false
		all := []meshtls.NameMatcher{{Type: meshtls.OtherName, OID: upn, Match: func(name string) bool {
			asked = true
			if name == "" || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }) {
				t.Errorf("asked about %q", name)
			}
			return true
		}}}
		authorize := meshtls.AuthorizeNames(nil, all)
		list := pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: der}
		if authorize(meshtls.ID{}, &x509.Certificate{Extensions: []pkix.Extension{list}}) == nil && !asked {
			t.Error("allowed, and nobody was asked")
		}
		if cert, err := x509.ParseCertificate(der); err == nil {
			asked = false
			if authorize(meshtls.ID{}, cert) == nil && !asked {
				t.Error("allowed, and nobody was asked")
			}
		}
	})
}
