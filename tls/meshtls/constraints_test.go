package meshtls_test

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"strings"
	"testing"

	"github.com/inboardmesh/inboard/internal/tlstest"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

// presented is what a server and a client of the mesh say of a certificate that other
// software presents to them.
func presented(t *testing.T, cert tls.Certificate, own meshtls.Source) (server, client error) {
	t.Helper()
	peer := &tls.Config{InsecureSkipVerify: true, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return &cert, nil
	}}
	server = connect(peer, strictServer(t, own, meshtls.AuthorizeAny())).server
	client = connect(clientConfig(t, meshtls.ClientParams{Identity: own, Roots: own, Authorize: meshtls.AuthorizeAny()}), &tls.Config{Certificates: []tls.Certificate{cert}}).client
	return server, client
}

// TestV23_AnAuthorityVouchesForNoNamesBeyondItsOwn: constraints of an authority on names
// hold for every name of a certificate, however it is written, on both sides.
func TestV23_AnAuthorityVouchesForNoNamesBeyondItsOwn(t *testing.T) {
	t.Parallel()
	root := tlstest.NewCA(t)
	own := source(t, root.Workload(t, customerID), root)
	permits := func(edit func(*x509.Certificate)) *tlstest.CA {
		return root.Constrained(t, func(c *x509.Certificate) {
			c.PermittedDNSDomainsCritical = true
			edit(c)
		})
	}
	home := permits(func(c *x509.Certificate) { c.PermittedURIDomains = []string{"cluster.local"} })
	names := permits(func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"shop.example"} })
	without := permits(func(c *x509.Certificate) { c.ExcludedDNSDomains = []string{"secret.example"} })
	otherDomain := permits(func(c *x509.Certificate) { c.ExcludedURIDomains = []string{"cluster.local"} })
	addresses := permits(func(c *x509.Certificate) {
		c.PermittedIPRanges = []*net.IPNet{{IP: net.IPv4(10, 0, 0, 0).To4(), Mask: net.CIDRMask(8, 32)}}
	})
	leaf := func(dns ...string) tlstest.Leaf { return tlstest.Leaf{URIs: []string{paymentID}, DNSNames: dns} }
	for _, tt := range []struct {
		name   string
		issuer *tlstest.CA
		leaf   tlstest.Leaf
		want   bool
	}{
		{"a member of the trust domain", home, leaf(), true},
		{"a member of another", home, tlstest.Leaf{URIs: []string{"spiffe://elsewhere.org/ns/shop/sa/payment"}}, false},
		{"a member of one that ends alike", home, tlstest.Leaf{URIs: []string{"spiffe://evilcluster.local/ns/shop/sa/payment"}}, false},
		{"a member of one that is excluded", otherDomain, leaf(), false},
		{"a name that is permitted", names, leaf("a.shop.example"), true},
		{"a name that is permitted, in capitals", names, leaf("A.SHOP.example"), true},
		{"a name that is not permitted", names, leaf("a.bank.example"), false},
		{"one of two that is not permitted", names, leaf("a.shop.example", "bank.example"), false},
		{"a name that ends alike", names, leaf("evilshop.example"), false},
		{"a name beside one that is excluded", without, leaf("open.example"), true},
		{"a name that is excluded", without, leaf("secret.example"), false},
		{"a name that is excluded, in capitals", without, leaf("SECRET.Example"), false},
		{"a name below one that is excluded, in capitals", without, leaf("a.SECRET.EXAMPLE"), false},
		{"a wildcard below one that is excluded, in capitals", without, leaf("*.Secret.Example"), false},
		{"a wildcard that would meet one that is excluded", without, leaf("*.example"), false},
		{"such a wildcard in capitals", without, leaf("*.EXAMPLE"), false},
		{"an address that is permitted", addresses, tlstest.Leaf{URIs: []string{paymentID}, IPs: []net.IP{net.IPv4(10, 1, 2, 3)}}, true},
		{"an address that is not", addresses, tlstest.Leaf{URIs: []string{paymentID}, IPs: []net.IP{net.IPv4(11, 1, 2, 3)}}, false},
	} {
		server, client := presented(t, tt.issuer.Issue(t, tt.leaf), own)
		if (server == nil) != tt.want || (client == nil) != tt.want {
			t.Errorf("%s: server %v, client %v", tt.name, server, client)
		}
		if !tt.want && (reason(server) != meshtls.InvalidCertificate || reason(client) != meshtls.InvalidCertificate) {
			t.Errorf("%s: reasons %q and %q", tt.name, reason(server), reason(client))
		}
	}
}

// TestV23_AHostileChainIsGivenUp: certificates that all might have signed each other
// cost a bounded number of signatures, and are refused.
func TestV23_AHostileChainIsGivenUp(t *testing.T) {
	t.Parallel()
	root, stranger := tlstest.NewCA(t), tlstest.NewCA(t)
	own := source(t, root.Workload(t, customerID), root)
	cert := stranger.Intermediate(t).Workload(t, paymentID)
	cert.Certificate = cert.Certificate[:1]
	for range 150 { // of the same name as the issuer
		cert.Certificate = append(cert.Certificate, stranger.Intermediate(t).Certificate.Raw)
	}
	server, client := presented(t, cert, own)
	for side, err := range map[string]error{"server": server, "client": client} {
		if reason(err) == 0 || !strings.Contains(err.Error(), "signature check attempts limit reached") {
			t.Errorf("%s: %v", side, err)
		}
	}
}
