package meshtls_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/inboardmesh/inboard/internal/tlstest"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

func TestNewIdentityRefuses(t *testing.T) {
	t.Parallel()
	ca := tlstest.NewCA(t)
	good := ca.Workload(t, paymentID)
	tests := []struct {
		name string
		cert tls.Certificate
		want string
	}{
		{"nothing", tls.Certificate{}, "identity: certificate is missing"},
		{"junk", tls.Certificate{Certificate: [][]byte{{1, 2, 3}}}, "identity: x509"},
		{"no SPIFFE ID", ca.Issue(t, tlstest.Leaf{DNSNames: []string{"payment"}}), "identity: certificate has no URI SAN: want a SPIFFE ID"},
		{"two SPIFFE IDs", ca.Issue(t, tlstest.Leaf{URIs: []string{paymentID, customerID}}), "identity: certificate has 2 URI SANs: want exactly one"},
		{"another URI", ca.Issue(t, tlstest.Leaf{URIs: []string{"https://payment"}}), `identity: SPIFFE ID "https://payment"`},
		{"no key", tls.Certificate{Certificate: good.Certificate}, "private key of type <nil>: want a crypto.Signer"},
		{
			"the key of another certificate",
			tls.Certificate{Certificate: good.Certificate, PrivateKey: ca.Workload(t, paymentID).PrivateKey},
			"private key does not belong to the certificate",
		},
		{
			"a CA certificate",
			ca.Issue(t, tlstest.Leaf{URIs: []string{paymentID}, Edit: func(c *x509.Certificate) {
				c.IsCA, c.BasicConstraintsValid = true, true
			}}),
			"certificate is a CA certificate: want a leaf",
		},
		{
			"a certificate that may sign",
			ca.Issue(t, tlstest.Leaf{URIs: []string{paymentID}, Edit: func(c *x509.Certificate) {
				c.KeyUsage |= x509.KeyUsageCRLSign
			}}),
			"certificate may sign certificates: want a leaf",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if _, err := meshtls.NewIdentity(test.cert, nil); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want an error with %q", err, test.want)
			}
		})
	}
}

func TestIdentityHoldsWhatTheCertificateSays(t *testing.T) {
	t.Parallel()
	ca := tlstest.NewCA(t)
	until := time.Now().Add(time.Minute).Truncate(time.Second)
	id := identity(t, ca.Issue(t, tlstest.Leaf{URIs: []string{paymentID}, NotAfter: until}), ca)
	if id.ID.String() != paymentID || !id.NotAfter.Equal(until) || id.Certificate.Leaf == nil || id.Roots == nil {
		t.Errorf("got %+v", id)
	}
}

func TestRootsKeyIsEqualForEqualRoots(t *testing.T) {
	t.Parallel()
	a, b := tlstest.NewCA(t), tlstest.NewCA(t)
	cert := a.Workload(t, paymentID)
	if x, y := identity(t, cert, a, b), identity(t, cert, b, a, a); x.RootsKey != y.RootsKey {
		t.Error("order and repetition change the key")
	}
	if x, y := identity(t, cert, a), identity(t, cert, b); x.RootsKey == y.RootsKey || x.RootsKey == "" {
		t.Errorf("other roots have the same key %q", x.RootsKey)
	}
	if x := identity(t, cert); x.RootsKey != "" || x.Roots != nil {
		t.Errorf("no roots have the key %q", x.RootsKey)
	}
	if _, err := meshtls.NewRoots(nil); err == nil {
		t.Error("an identity without anything was built")
	}
}

func TestStaticWakesEveryWaiter(t *testing.T) {
	t.Parallel()
	ca := tlstest.NewCA(t)
	var s meshtls.Static
	if _, err := s.Identity(); err == nil || err.Error() != "static source: no identity was set" {
		t.Errorf("got %v, want that no identity was set", err)
	}
	first, second := s.Changed(), s.Changed()
	want := identity(t, ca.Workload(t, paymentID), ca)
	s.Set(want)
	<-first
	<-second
	if got, err := s.Identity(); got != want || err != nil {
		t.Errorf("got %v, %v", got, err)
	}
	select {
	case <-s.Changed():
		t.Error("a change was reported that did not happen")
	default:
	}
}

func TestAuthorizers(t *testing.T) {
	t.Parallel()
	ca := tlstest.NewCA(t)
	own := source(t, ca.Workload(t, paymentID), ca)
	never := meshtls.NewStatic(nil)
	customer := meshtls.MustID(customerID)
	exact := func(want string) meshtls.SANMatcher { return func(san string) bool { return san == want } }
	tests := []struct {
		name      string
		authorize meshtls.Authorizer
		peer      meshtls.ID
		want      string
	}{
		{"any allows anybody", meshtls.AuthorizeAny(), meshtls.MustID("spiffe://other/x"), ""},
		{"a member is allowed", meshtls.AuthorizeMemberOf("cluster.local"), customer, ""},
		{"another trust domain is refused", meshtls.AuthorizeMemberOf("cluster"), customer, `want a member of trust domain "cluster"`},
		{"a trust domain is compared whole", meshtls.AuthorizeMemberOf("cluster.local"), meshtls.MustID("spiffe://cluster.local.evil/x"), `want a member of trust domain "cluster.local"`},
		{"no trust domain allows nobody", meshtls.AuthorizeMemberOf(""), meshtls.ID{}, `want a member of trust domain ""`},
		{"a member of the own trust domain is allowed", meshtls.AuthorizeOwnTrustDomain(own), customer, ""},
		{"a stranger to the own trust domain is refused", meshtls.AuthorizeOwnTrustDomain(own), meshtls.MustID("spiffe://other/x"), `want a member of trust domain "cluster.local"`},
		{"no identity means no own trust domain", meshtls.AuthorizeOwnTrustDomain(never), customer, "own trust domain: static source: no identity was set"},
		{"roots alone have no trust domain", meshtls.AuthorizeOwnTrustDomain(rootsOnly(t, ca)), customer, "own trust domain: the source has no certificate with a SPIFFE ID"},
		{"a listed ID is allowed", meshtls.AuthorizeIDs(meshtls.MustID(paymentID), customer), customer, ""},
		{"an ID that is not listed is refused", meshtls.AuthorizeIDs(meshtls.MustID(paymentID)), customer, `want one of ["` + paymentID + `"]`},
		{"no IDs allow nobody", meshtls.AuthorizeIDs(), customer, "want one of []"},
		{"nobody is not on a list", meshtls.AuthorizeIDs(meshtls.ID{}), meshtls.ID{}, "want one of"},
		{"a matching SAN is allowed", meshtls.AuthorizeSANs([]meshtls.SANMatcher{exact(paymentID), exact(customerID)}), customer, ""},
		{"no matching SAN is refused", meshtls.AuthorizeSANs([]meshtls.SANMatcher{exact(paymentID)}), customer, "URI SAN matches none of the 1 allowed names"},
		{"no matchers allow nobody", meshtls.AuthorizeSANs(nil), customer, "URI SAN matches none of the 0 allowed names"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got := ""
			if err := test.authorize(test.peer, nil); err != nil {
				got = err.Error()
			}
			if got != test.want && (test.want == "" || !strings.HasPrefix(got, test.want)) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestHandshakeErrorText(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		err  *meshtls.HandshakeError
		want string
	}{
		{"a reason alone", &meshtls.HandshakeError{Reason: meshtls.NoPeerCertificate}, "mutual TLS: peer presented no certificate"},
		{
			"everything",
			&meshtls.HandshakeError{Reason: meshtls.NotAuthorized, Peer: meshtls.MustID(customerID), Err: errors.New("want x")},
			`mutual TLS: peer "` + customerID + `": peer not authorized: want x`,
		},
		{"an unknown reason", &meshtls.HandshakeError{Reason: 99}, "mutual TLS: reason 99"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if got := test.err.Error(); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
	for r := meshtls.NoIdentity; r <= meshtls.Revoked; r++ {
		if strings.HasPrefix(r.String(), "reason ") || r.String() == "" {
			t.Errorf("reason %d has no text", r)
		}
	}
}
