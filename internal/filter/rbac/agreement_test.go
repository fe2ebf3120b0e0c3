package rbac_test

import (
	"crypto/x509"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/condition"
	"github.com/inboardmesh/inboard/internal/filter"
	"github.com/inboardmesh/inboard/internal/filter/rbac"
)

// call is a random call of gRPC, as a server of gRPC has it.
func (r random) call() (*filter.Exchange, *x509.Certificate) {
	x, cert := r.exchange()
	x.Method, x.Path, x.Query = "POST", r.pick("/a/b", "/a/c", "/b/a"), ""
	x.Headers.Add("content-type", "application/grpc")
	x.Headers.Add("te", "trailers")
	return x, cert
}

// connection is the facts of a random connection: its peer is its client.
func (r random) connection() (*filter.Exchange, *x509.Certificate) {
	x, cert := r.exchange()
	x.Facts.Remote = netip.MustParseAddrPort(x.Facts.Peer).Addr().Unmap().String()
	return x, cert
}

// connects reports whether a connection with these facts is allowed.
func connects(config *discovery.RBAC, x *filter.Exchange, cert *x509.Certificate) bool {
	s := &rbac.Subject{Remote: x.Facts.Peer, Peer: x.Facts.Peer, Local: x.Facts.Local, Certificate: cert}
	if x.TLS != nil {
		s.ServerName = x.TLS.ServerName
	}
	return rbac.New(config, nil).Connection(s, "listener", "")
}

// TestTheEngineAgreesWithTheReference about requests, calls and connections, and each kind
// of rule decides about each of them often, as it matches and as it does not.
func TestTheEngineAgreesWithTheReference(t *testing.T) {
	t.Parallel()
	r := newRandom(t, rand.NewPCG(1, 2))
	conditions := make(map[*condition.Condition]*referenceCondition)
	for _, c := range r.conditions {
		conditions[c.compiled] = c
	}
	texts, headers := map[discovery.StringMatchKind]int{}, map[discovery.HeaderMatchKind]int{}
	for _, about := range []struct {
		name       string
		n          int
		connection bool
		facts      func() (*filter.Exchange, *x509.Certificate)
	}{
		{"requests", 80_000, false, r.exchange}, {"calls", 10_000, false, r.call}, {"connections", 10_000, true, r.connection},
	} {
		counts, met := map[bool]int{}, map[discovery.RBACKind]map[bool]int{}
		for range about.n {
			rules := r.rules()
			for i := range rules.Policies {
				p := &rules.Policies[i]
				if about.connection {
					p.Condition = nil // they are about requests, most of them
				}
				countMatches(texts, headers, p.Permissions)
				countMatches(texts, headers, p.Principals)
			}
			x, cert := about.facts()
			want := (&reference{x: x, cert: cert, connection: about.connection, conditions: conditions, met: met}).allowed(rules)
			var got bool
			if config := (&discovery.RBAC{Rules: rules}); about.connection {
				got = connects(config, x, cert)
			} else {
				got = allows(t, config, x)
			}
			if got != want {
				t.Fatalf("%s: allowed %t, want %t: %+v for %+v", about.name, got, want, rules, x)
			}
			counts[want]++
		}
		if least := about.n / 5; counts[true] < least || counts[false] < least {
			t.Errorf("%s are too much alike: %v", about.name, counts)
		}
		for kind := discovery.RBACAny; kind <= discovery.RBACRemoteIP; kind++ {
			ofRequests := kind == discovery.RBACHeader || kind == discovery.RBACPath || kind == discovery.RBACTemplate
			for _, matched := range []bool{true, false} {
				least := about.n / 100
				switch {
				case kind == discovery.RBACAny && !matched, about.connection && ofRequests && matched:
					least = 0 // never
				}
				if n := met[kind][matched]; n < least {
					t.Errorf("%s: rules of the kind %d have matched (%t) only %d times, want %d", about.name, kind, matched, n, least)
				}
			}
		}
	}
	for kind := discovery.MatchExact; kind <= discovery.MatchRegex; kind++ {
		if texts[kind] < 1000 {
			t.Errorf("only %d texts are of the kind %d", texts[kind], kind)
		}
	}
	for kind := discovery.HeaderString; kind <= discovery.HeaderPresent; kind++ {
		if headers[kind] < 1000 {
			t.Errorf("only %d headers are of the kind %d", headers[kind], kind)
		}
	}
}

// countMatches counts how texts and headers are compared.
func countMatches(texts map[discovery.StringMatchKind]int, headers map[discovery.HeaderMatchKind]int, rules []discovery.RBACRule) {
	for i := range rules {
		rule := &rules[i]
		if rule.Text != nil {
			texts[rule.Text.Kind]++
		}
		if rule.Kind == discovery.RBACHeader {
			headers[rule.Header.Kind]++
		}
		countMatches(texts, headers, rule.Rules)
	}
}
