package bundlemap_test

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/inboardmesh/inboard/internal/bundlemap"
	"github.com/inboardmesh/inboard/internal/tlstest"
)

// of is the map with one bundle of the trust domain "td".
func of(bundle string) string { return `{"trust_domains": {"td": ` + bundle + `}}` }

// TestBS2_ABundleMapIsReadWholeOrNotAtAll: what is not a root of a trust domain is left
// out, and what cannot be told is a mistake of the map.
func TestBS2_ABundleMapIsReadWholeOrNotAtAll(t *testing.T) {
	t.Parallel()
	ca, next := tlstest.NewCA(t), tlstest.NewCA(t)
	leaf := ca.Issue(t, tlstest.Leaf{URIs: []string{"spiffe://td/a"}}).Certificate[0]
	token := strings.NewReplacer(`"x509-svid"`, `"jwt-svid", "kid": "1"`, `, "x5c"`, `, "not-x5c"`).Replace(ca.Key())
	for _, tt := range []struct {
		name, text string
		want       map[string]int // roots of a trust domain
		refused    string
	}{
		{"one root", of(`{"keys": [` + ca.Key() + `]}`), map[string]int{"td": 1}, ""},
		{"two roots", of(`{"keys": [` + ca.Key() + `, ` + next.Key() + `]}`), map[string]int{"td": 2}, ""},
		{"the same root twice", of(`{"keys": [` + ca.Key() + `, ` + ca.Key() + `]}`), map[string]int{"td": 1}, ""},
		{"two trust domains", tlstest.BundleMap(map[string][]*tlstest.CA{"td": {ca}, "other.org": {next}}), map[string]int{"td": 1, "other.org": 1}, ""},
		{"a sequence and a hint", of(`{"spiffe_sequence": 18446744073709551615, "spiffe_refresh_hint": 600, "keys": [` + ca.Key() + `]}`), map[string]int{"td": 1}, ""},
		{"what nobody knows", `{"more": 1, "trust_domains": {"td": {"more": [], "keys": []}}}`, map[string]int{"td": 0}, ""},
		{"a key for tokens", of(`{"keys": [` + token + `, ` + ca.Key() + `]}`), map[string]int{"td": 1}, ""},
		{"a key of a use that nobody knows", of(`{"keys": [` + strings.Replace(ca.Key(), "x509-svid", "new-svid", 1) + `]}`), map[string]int{"td": 0}, ""},
		{"a key of a use in other letters", of(`{"keys": [` + strings.Replace(ca.Key(), "x509-svid", "X509-SVID", 1) + `]}`), map[string]int{"td": 0}, ""},
		{"no bundles", `{"trust_domains": {}}`, map[string]int{}, ""},
		{"no keys in one", of(`{"keys": []}`), map[string]int{"td": 0}, ""},

		{"nothing", ``, nil, "unexpected end of JSON input"},
		{"half a map", of(`{"keys": []}`)[:20], nil, "unexpected end of JSON input"},
		{"two maps", of(`{"keys": []}`) + `{}`, nil, "invalid character '{' after top-level value"},
		{"a list", `[]`, nil, "want a JSON object"},
		{"null", `null`, nil, "want a JSON object"},
		{"certificates", string(tlstest.CertificatePEM(ca.Certificate.Raw)), nil, "invalid character '-' in numeric literal"},
		{"a bundle without a map", `{"keys": [` + ca.Key() + `]}`, nil, `has no trust_domains: it is the bundle of one: want {"trust_domains": {"NAME": BUNDLE}}`},
		{"trust domains in other letters", `{"Trust_Domains": {"td": {"keys": []}}}`, nil, "has no trust_domains"},
		{"trust domains that are null", `{"trust_domains": null}`, nil, "has no trust_domains"},
		{"trust domains that are a list", `{"trust_domains": []}`, nil, "trust_domains: want a JSON object"},
		{"trust domains twice", `{"trust_domains": {}, "trust_domains": {"td": {"keys": []}}}`, nil, `"trust_domains" is given twice`},
		{"trust domains twice, in other letters", `{"trust_domains": {}, "tru` + "\u017f" + `t_domains": {}}`, nil, `is given twice`},
		{"a trust domain twice", `{"trust_domains": {"td": {"keys": []}, "t\u0064": {"keys": []}}}`, nil, `trust_domains: "td" is given twice`},
		{"a trust domain without a name", `{"trust_domains": {"": {"keys": []}}}`, nil, `trust domain "": trust domain is missing`},
		{"a trust domain in capitals", `{"trust_domains": {"TD": {"keys": []}}}`, nil, `trust domain "TD": trust domain characters are limited to lowercase letters`},
		{"an ID in place of a trust domain", `{"trust_domains": {"spiffe://td": {"keys": []}}}`, nil, `trust domain "spiffe://td": must be its name, such as "td"`},
		{"a bundle that is null", of(`null`), nil, `trust domain "td": want a JSON object`},
		{"a bundle that is a list of keys", of(`[` + ca.Key() + `]`), nil, `trust domain "td": want a JSON object`},
		{"a bundle without keys", of(`{"spiffe_sequence": 1}`), nil, `trust domain "td": spiffebundle: no authorities found`},
		{"a bundle with keys that are null", of(`{"keys": null}`), nil, `trust domain "td": spiffebundle: no authorities found`},
		{"a bundle with keys in other letters", of(`{"Keys": [` + ca.Key() + `]}`), nil, `trust domain "td": spiffebundle: no authorities found`},
		{"keys twice", of(`{"keys": [], "Keys": [` + ca.Key() + `]}`), nil, `trust domain "td": "Keys" is given twice`},
		{"keys that are an object", of(`{"keys": {}}`), nil, `trust domain "td": keys: want a list`},
		{"a key that is a text", of(`{"keys": ["a"]}`), nil, `trust domain "td": keys[0]: want a JSON object`},
		{"a key with two uses", of(`{"keys": [` + strings.Replace(ca.Key(), `"use"`, `"use": "jwt-svid", "use"`, 1) + `]}`), nil, `trust domain "td": keys[0]: "use" is given twice`},
		{"a key of an unknown type", of(`{"keys": [` + strings.Replace(ca.Key(), `"EC"`, `"XX"`, 1) + `]}`), nil, "unsupported key type"},
		{"a root without a certificate", of(`{"keys": [` + strings.Replace(ca.Key(), `"x5c"`, `"not-x5c"`, 1) + `]}`), nil, "expected a single certificate in x509-svid entry 0; got 0"},
		{"a root with two certificates", of(`{"keys": [` + strings.Replace(ca.Key(), `"x5c": [`, `"x5c": ["`+base64.StdEncoding.EncodeToString(ca.Certificate.Raw)+`", `, 1) + `]}`), nil, "expected a single certificate in x509-svid entry 0; got 2"},
		{"a root with junk for a certificate", of(`{"keys": [` + strings.Replace(ca.Key(), `"x5c": ["`, `"x5c": ["AAAA`, 1) + `]}`), nil, `trust domain "td": spiffebundle: unable to parse JWKS`},
		{"a root with the key of another", of(`{"keys": [` + strings.Replace(ca.Key(), base64.StdEncoding.EncodeToString(ca.Certificate.Raw), base64.StdEncoding.EncodeToString(next.Certificate.Raw), 1) + `]}`), nil, `trust domain "td": spiffebundle: unable to parse JWKS`},
		{"a sequence that is a text", of(`{"keys": [], "spiffe_sequence": "1"}`), nil, `trust domain "td": spiffebundle: unable to parse JWKS`},
		{"a sequence below nothing", of(`{"keys": [], "spiffe_sequence": -1}`), nil, `trust domain "td": spiffebundle: unable to parse JWKS`},
		{"one good bundle and a bad one", `{"trust_domains": {"a": {"keys": [` + ca.Key() + `]}, "b": {}}}`, nil, `trust domain "b": spiffebundle: no authorities found`},
		{"a workload's certificate among the roots", of(`{"keys": [{"kty": "EC", "use": "x509-svid", "crv": "P-256", ` + coordinates(t, leaf) + `, "x5c": ["` + base64.StdEncoding.EncodeToString(leaf) + `"]}]}`), nil, "may not issue certificates: want that of an authority"},
	} {
		got, err := bundlemap.Parse([]byte(tt.text))
		if tt.refused != "" {
			if err == nil || !strings.Contains(err.Error(), tt.refused) || got != nil {
				t.Errorf("%s: %v, %v, want %q", tt.name, got, err, tt.refused)
			}
			continue
		}
		counts := make(map[string]int)
		for domain, roots := range got {
			counts[domain] = len(roots)
		}
		if err != nil || got == nil || !maps.Equal(counts, tt.want) {
			t.Errorf("%s: %v, %v, want %v", tt.name, counts, err, tt.want)
		}
	}
}

// coordinates are those of the public key of a certificate, in a JSON Web Key.
func coordinates(t *testing.T, der []byte) string {
	t.Helper()
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	point := cert.RawSubjectPublicKeyInfo[len(cert.RawSubjectPublicKeyInfo)-64:]
	encode := base64.RawURLEncoding.EncodeToString
	return fmt.Sprintf(`"x": %q, "y": %q`, encode(point[:32]), encode(point[32:]))
}

// FuzzParse finds a map in which there is more trust than its plain words give: those
// that every other reader of maps goes by.
func FuzzParse(f *testing.F) {
	ca, next := tlstest.NewCA(f), tlstest.NewCA(f)
	f.Add([]byte(tlstest.BundleMap(map[string][]*tlstest.CA{"td": {ca, next}, "other.org": {next}})))
	f.Add([]byte(of(`{"keys": [` + ca.Key() + `], "Keys": [], "spiffe_sequence": 1}`)))
	f.Add([]byte(`{"trust_domains": {}}`))
	f.Add([]byte(`{"trust_domains": {"td": {"keys": [{"use": "x509-svid"}]}}}`))
	f.Add([]byte(`{"trust_domains": {"td": {"keyſ": []}, "TD": null}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		got, err := bundlemap.Parse(text)
		if err != nil {
			if got != nil {
				t.Fatalf("%v beside %v", got, err)
			}
			return
		}
		var plain map[string]json.RawMessage
		var bundles map[string]map[string]json.RawMessage
		if json.Unmarshal(text, &plain) != nil || json.Unmarshal(plain["trust_domains"], &bundles) != nil || len(bundles) != len(got) {
			t.Fatalf("accepted %q as %v", text, got)
		}
		for name, roots := range got {
			domain, err := spiffeid.TrustDomainFromString(name)
			if err != nil || domain.Name() != name {
				t.Fatalf("trust domain %q: %v", name, err)
			}
			bundle, err := json.Marshal(map[string]json.RawMessage{"keys": bundles[name]["keys"]})
			if err != nil {
				t.Fatal(err)
			}
			want, err := spiffebundle.Parse(domain, bundle)
			if err != nil || !slices.EqualFunc(want.X509Authorities(), roots, (*x509.Certificate).Equal) {
				t.Fatalf("%s: %d roots, want %v, %v", name, len(roots), want, err)
			}
			for _, root := range roots {
				if !root.IsCA {
					t.Fatalf("%s: %q is no authority", name, root.Subject)
				}
			}
		}
	})
}
