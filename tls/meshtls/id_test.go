package meshtls_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/inboardmesh/inboard/tls/meshtls"
)

func ExampleParseID() {
	id, err := meshtls.ParseID("spiffe://cluster.local/ns/shop/sa/payment")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(id.TrustDomain(), id.Namespace(), id.ServiceAccount())

	_, err = meshtls.ParseID("spiffe://cluster.local")
	fmt.Println(err)
	// Output:
	// cluster.local shop payment
	// SPIFFE ID "spiffe://cluster.local": path is missing: a trust domain is not a workload
}

func ExampleNewID() {
	id, err := meshtls.NewID("cluster.local", "shop", "payment")
	fmt.Println(id, err)
	// Output: spiffe://cluster.local/ns/shop/sa/payment <nil>
}

func TestParseIDReadsItsParts(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, id                               string
		trustDomain, namespace, serviceAccount string
	}{
		{"Istio's form", "spiffe://td/ns/a/sa/b", "td", "a", "b"},
		{"another path", "spiffe://td/workload", "td", "", ""},
		{"a path that goes on", "spiffe://td/ns/a/sa/b/c", "td", "", ""},
		{"a path that ends early", "spiffe://td/ns/a/sa", "td", "", ""},
		{"a path without a service account", "spiffe://td/ns/a", "td", "", ""},
		{"a path that begins alike", "spiffe://td/nsx/a/sa/b", "td", "", ""},
		{"other words", "spiffe://td/ns/a/sb/b", "td", "", ""},
		{"the longest", "spiffe://td/" + strings.Repeat("a", 2048-len("spiffe://td/")), "td", "", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			id, err := meshtls.ParseID(test.id)
			if err != nil {
				t.Fatal(err)
			}
			if id.String() != test.id || id.IsZero() {
				t.Errorf("got %q, want %q", id, test.id)
			}
			if id.TrustDomain() != test.trustDomain || id.Namespace() != test.namespace || id.ServiceAccount() != test.serviceAccount {
				t.Errorf("got %q, %q, %q, want %q, %q, %q", id.TrustDomain(), id.Namespace(), id.ServiceAccount(),
					test.trustDomain, test.namespace, test.serviceAccount)
			}
			if again := meshtls.MustID(test.id); again != id {
				t.Errorf("%v and %v are not equal", id, again)
			}
		})
	}
}

func TestV31_ParseIDRefuses(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, id, want string }{
		{"nothing", "", "cannot be empty"},
		{"a trust domain", "spiffe://td", "path is missing"},
		{"the root path", "spiffe://td/", "trailing slash"},
		{"another scheme", "https://td/a", "scheme"},
		{"the scheme in capitals", "SPIFFE://td/a", "scheme"},
		{"no trust domain", "spiffe:///a", "trust domain"},
		{"a trust domain in capitals", "spiffe://TD/a", "trust domain"},
		{"a port", "spiffe://td:80/a", "trust domain"},
		{"a user", "spiffe://u@td/a", "trust domain"},
		{"an empty segment", "spiffe://td/a//b", "empty"},
		{"a dot segment", "spiffe://td/a/./b", "dot"},
		{"a double dot segment", "spiffe://td/a/../b", "dot"},
		{"a trailing slash", "spiffe://td/a/", "trailing slash"},
		{"a query", "spiffe://td/a?b", "path segment characters"},
		{"a fragment", "spiffe://td/a#b", "path segment characters"},
		{"an escape", "spiffe://td/a%2fb", "path segment characters"},
		{"a NUL", "spiffe://td/a\x00", "path segment characters"},
		{"a line break", "spiffe://td/a\r\nb", "path segment characters"},
		{"more than 2048 bytes", "spiffe://td/" + strings.Repeat("a", 2048), "longer than 2048"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			id, err := meshtls.ParseID(test.id)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want an error with %q", err, test.want)
			}
			if !id.IsZero() {
				t.Errorf("got %q beside the error", id)
			}
		})
	}
}

func TestParseIDAllowsExactlyTheCharactersOfTheSpecification(t *testing.T) {
	t.Parallel()
	const allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_"
	for b := range 256 {
		// Between other letters, so that a dot is no dot segment. A slash
		// begins another segment.
		_, err := meshtls.ParseID("spiffe://td/x" + string([]byte{byte(b)}) + "x")
		if want := b == '/' || strings.IndexByte(allowed, byte(b)) >= 0; (err == nil) != want {
			t.Errorf("byte %#x: got %v, want allowed: %v", b, err, want)
		}
	}
}

func TestNewIDRefuses(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, trustDomain, namespace, serviceAccount, want string }{
		{"no trust domain", "", "a", "b", `trust domain ""`},
		{"a trust domain that is an ID", "spiffe://td/x", "a", "b", `trust domain "spiffe://td/x": want a name such as "cluster.local"`},
		{"a trust domain with a path", "td/x", "a", "b", `trust domain "td/x": want a name`},
		{"no namespace", "td", "", "b", `namespace ""`},
		{"a namespace that adds segments", "td", "a/sa/admin", "b", `namespace "a/sa/admin"`},
		{"no service account", "td", "a", "", `service account ""`},
		{"a service account that goes up", "td", "a", "..", `service account ".."`},
		{"what is too long", "td", "a", strings.Repeat("b", 2048), "longer than 2048"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if _, err := meshtls.NewID(test.trustDomain, test.namespace, test.serviceAccount); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want an error with %q", err, test.want)
			}
		})
	}
}

func TestIDShowsInJSON(t *testing.T) {
	t.Parallel()
	got, err := json.Marshal(map[string]meshtls.ID{"peer": meshtls.MustID(paymentID), "nobody": {}})
	if want := `{"nobody":"","peer":"` + paymentID + `"}`; err != nil || string(got) != want {
		t.Errorf("got %s, %v, want %s", got, err, want)
	}
}

func TestMustIDPanics(t *testing.T) {
	t.Parallel()
	defer func() {
		if recover() == nil {
			t.Error("an invalid ID did not panic")
		}
	}()
	meshtls.MustID("payment")
}

func FuzzParseID(f *testing.F) {
	for _, seed := range []string{
		paymentID, "spiffe://td/ns/a/sa/b/c", "spiffe://td", "spiffe://td/", "SPIFFE://td/a", "spiffe://td/a%2f",
		"spiffe://td/..", "spiffe://td/a?b#c", "spiffe://td:1/a", "", "\x00",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id, err := meshtls.ParseID(s)
		if err != nil {
			if !id.IsZero() {
				t.Fatalf("%q beside an error", id)
			}
			return
		}
		if id.String() != s || id.TrustDomain() == "" {
			t.Fatalf("%q became %q", s, id)
		}
		if namespace := id.Namespace(); namespace != "" {
			built, err := meshtls.NewID(id.TrustDomain(), namespace, id.ServiceAccount())
			if err != nil || built != id {
				t.Fatalf("built %q from the parts of %q: %v", built, id, err)
			}
		}
	})
}
