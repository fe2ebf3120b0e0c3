package meshtls_test

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/inboardmesh/inboard/internal/tlstest"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

func TestPeersKnowEachOther(t *testing.T) {
	t.Parallel()
	ca := tlstest.NewCA(t)
	issuer := ca.Intermediate(t).Intermediate(t)
	customer := source(t, issuer.Workload(t, customerID), ca)
	payment := source(t, ca.Workload(t, paymentID), ca)
	r := connect(
		clientConfig(t, meshtls.ClientParams{
			Identity: customer, Roots: customer, NextProtos: []string{"h2"},
			Authorize: meshtls.AuthorizeIDs(meshtls.MustID(paymentID)), ServerName: "payment.shop",
		}),
		serverConfig(t, meshtls.ServerParams{
			Identity: payment, Roots: payment, NextProtos: []string{"h2", "http/1.1"},
			Authorize: meshtls.AuthorizeIDs(meshtls.MustID(customerID)), RequireClientCertificate: true,
		}),
	)
	if r.client != nil || r.server != nil {
		t.Fatalf("client %v, server %v", r.client, r.server)
	}
	if id, ok := meshtls.PeerID(r.clientState); !ok || id.String() != paymentID {
		t.Errorf("the client sees %q, %v", id, ok)
	}
	if id, ok := meshtls.PeerID(r.serverState); !ok || id.String() != customerID {
		t.Errorf("the server sees %q, %v", id, ok)
	}
	if s := r.serverState; s.Version != tls.VersionTLS13 || s.NegotiatedProtocol != "h2" || s.ServerName != "payment.shop" {
		t.Errorf("version %x, protocol %q, server name %q", s.Version, s.NegotiatedProtocol, s.ServerName)
	}
}

// subjectAltName replaces the SANs by raw general names.
func subjectAltName(names ...asn1.RawValue) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		value, err := asn1.Marshal(names)
		if err != nil {
			panic(err)
		}
		c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: value})
	}
}

func generalName(tag int, text string) asn1.RawValue {
	return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: tag, Bytes: []byte(text)}
}

const (
	tagEmail = 1
	tagDNS   = 2
	tagURI   = 6
)

// TestS34_BadCertificatesMakeNoConnection presents each bad certificate to a
// server and to a client. Both refuse it with the same reason, and the peer is
// told nothing but "bad certificate".
func TestS34_BadCertificatesMakeNoConnection(t *testing.T) {
	t.Parallel()
	ca, other := tlstest.NewCA(t), tlstest.NewCA(t)
	now := time.Now()
	uris := []string{paymentID}
	tests := []struct {
		name string
		cert tls.Certificate
		want meshtls.Reason
		text string
	}{
		{"of the wrong trust domain", ca.Workload(t, "spiffe://cluster.local.evil/ns/shop/sa/payment"), meshtls.NotAuthorized, `peer "spiffe://cluster.local.evil/ns/shop/sa/payment": peer not authorized: want a member of trust domain "cluster.local"`},
		{"of an unknown authority", other.Workload(t, paymentID), meshtls.UnknownAuthority, `peer "` + paymentID + `": certificate signed by unknown authority`},
		{"expired", ca.Issue(t, tlstest.Leaf{URIs: uris, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(-time.Minute)}), meshtls.Expired, "certificate expired"},
		{"not yet valid", ca.Issue(t, tlstest.Leaf{URIs: uris, NotBefore: now.Add(time.Hour), NotAfter: now.Add(2 * time.Hour)}), meshtls.NotYetValid, "certificate not yet valid"},
		{"with two URI SANs", ca.Issue(t, tlstest.Leaf{URIs: []string{paymentID, customerID}}), meshtls.InvalidID, "certificate has 2 URI SANs: want exactly one"},
		{"with the same URI SAN twice", ca.Issue(t, tlstest.Leaf{URIs: []string{paymentID, paymentID}}), meshtls.InvalidID, "certificate has 2 URI SANs"},
		{"without any SAN", ca.Issue(t, tlstest.Leaf{}), meshtls.InvalidID, "certificate has no URI SAN"},
		{"with the name of a trust domain", ca.Issue(t, tlstest.Leaf{URIs: []string{"spiffe://cluster.local"}}), meshtls.InvalidID, "path is missing"},
		{"with another URI", ca.Issue(t, tlstest.Leaf{URIs: []string{"https://cluster.local/ns/shop/sa/payment"}}), meshtls.InvalidID, "scheme"},
		{"of a CA", ca.Issue(t, tlstest.Leaf{URIs: uris, Edit: func(c *x509.Certificate) {
			c.IsCA, c.BasicConstraintsValid = true, true
		}}), meshtls.WrongUsage, "want a leaf"},
		{"that may sign", ca.Issue(t, tlstest.Leaf{URIs: uris, Edit: func(c *x509.Certificate) {
			c.KeyUsage |= x509.KeyUsageCertSign
		}}), meshtls.WrongUsage, "want a leaf"},
		{"for e-mail", ca.Issue(t, tlstest.Leaf{URIs: uris, Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection}}), meshtls.WrongUsage, "certificate not made for this use"},
		{"with an unknown critical extension", ca.Issue(t, tlstest.Leaf{URIs: uris, Edit: func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}}}
		}}), meshtls.InvalidCertificate, "invalid certificate"},
	}
	own := source(t, ca.Workload(t, customerID), ca)
	authorize := meshtls.AuthorizeMemberOf("cluster.local")
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			// Other software presents it: this package would not.
			badClient := &tls.Config{
				InsecureSkipVerify: true,
				GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
					return &test.cert, nil
				},
			}
			r := connect(badClient, strictServer(t, own, authorize))
			if reason(r.server) != test.want || !strings.Contains(r.server.Error(), test.text) {
				t.Errorf("server: got %v, want reason %q with %q", r.server, test.want, test.text)
			}
			if r.client == nil || r.client.Error() != "remote error: tls: bad certificate" {
				t.Errorf("client: got %v, want no more than that the certificate is bad", r.client)
			}

			badServer := &tls.Config{Certificates: []tls.Certificate{test.cert}}
			r = connect(clientConfig(t, meshtls.ClientParams{Identity: own, Roots: own, Authorize: authorize}), badServer)
			if reason(r.client) != test.want || !strings.Contains(r.client.Error(), test.text) {
				t.Errorf("client: got %v, want reason %q with %q", r.client, test.want, test.text)
			}
			if r.server == nil || r.server.Error() != "remote error: tls: bad certificate" {
				t.Errorf("server: got %v, want no more than that the certificate is bad", r.server)
			}
		})
	}
}

func TestV20_NamesOfOtherTypesAreNoIdentity(t *testing.T) {
	t.Parallel()
	ca := tlstest.NewCA(t)
	own := source(t, ca.Workload(t, paymentID), ca)
	otherName := asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: []byte{
		0x06, 0x03, 0x2a, 0x03, 0x04, 0xa0, 0x04, 0x0c, 0x02, 'i', 'd',
	}}
	tests := []struct {
		name string
		leaf tlstest.Leaf
	}{
		{"a DNS name", tlstest.Leaf{DNSNames: []string{"customer"}}},
		{"an IP address", tlstest.Leaf{IPs: []net.IP{net.IPv4(10, 0, 0, 1)}}},
		{"the ID as a DNS name", tlstest.Leaf{Edit: subjectAltName(generalName(tagDNS, customerID))}},
		{"the ID as an e-mail address", tlstest.Leaf{Edit: subjectAltName(generalName(tagEmail, customerID))}},
		{"the ID as the subject", tlstest.Leaf{Edit: func(c *x509.Certificate) { c.Subject.CommonName = customerID }}},
		{"an otherName", tlstest.Leaf{Edit: subjectAltName(otherName)}},
		{"an empty URI", tlstest.Leaf{Edit: subjectAltName(generalName(tagURI, ""))}},
		{"a URI with a NUL behind the ID", tlstest.Leaf{Edit: subjectAltName(generalName(tagURI, customerID+"\x00.evil"))}},
		{"a URI with a byte that is not ASCII", tlstest.Leaf{Edit: subjectAltName(generalName(tagURI, customerID+"\xff"))}},
		{"a URI with an escape", tlstest.Leaf{Edit: subjectAltName(generalName(tagURI, "spiffe://cluster.local/ns/shop/sa/c%75stomer"))}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := connect(
				&tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{ca.Issue(t, test.leaf)}},
				strictServer(t, own, meshtls.AuthorizeAny()),
			)
			if r.server == nil || r.client == nil {
				t.Errorf("server %v, client %v: want a refusal", r.server, r.client)
			}
			if id, ok := meshtls.PeerID(r.serverState); ok {
				t.Errorf("the peer became %q", id)
			}
		})
	}
}

func TestV13_AMatcherOfTheURISANNeverSeesOtherNames(t *testing.T) {
	t.Parallel()
	ca := tlstest.NewCA(t)
	own := source(t, ca.Workload(t, paymentID), ca)
	cert := ca.Issue(t, tlstest.Leaf{
		URIs: []string{customerID}, DNSNames: []string{"allowed.example"},
		Edit: func(c *x509.Certificate) { c.Subject.CommonName = "allowed.example" },
	})
	var seen []string
	match := func(san string) bool {
		seen = append(seen, san)
		return san == "allowed.example"
	}
	r := connect(
		clientConfig(t, meshtls.ClientParams{Identity: source(t, cert, ca), Roots: own, Authorize: meshtls.AuthorizeAny()}),
		strictServer(t, own, meshtls.AuthorizeSANs([]meshtls.SANMatcher{match})),
	)
	if reason(r.server) != meshtls.NotAuthorized {
		t.Errorf("got %v, want a refusal", r.server)
	}
	if len(seen) != 1 || seen[0] != customerID {
		t.Errorf("the matcher saw %q, want the SPIFFE ID alone", seen)
	}
}

func TestV22_TheExtendedKeyUsageMustFitTheSide(t *testing.T) {
	t.Parallel()
	ca := tlstest.NewCA(t)
	own := source(t, ca.Workload(t, paymentID), ca)
	only := func(usage x509.ExtKeyUsage) meshtls.Source {
		return source(t, ca.Issue(t, tlstest.Leaf{URIs: []string{customerID}, Usages: []x509.ExtKeyUsage{usage}}), ca)
	}
	tests := []struct {
		name           string
		client, server meshtls.Source
		wantClient     meshtls.Reason
		wantServer     meshtls.Reason
	}{
		{"a certificate for clients is a client's", only(x509.ExtKeyUsageClientAuth), own, 0, 0},
		{"a certificate for servers is a server's", own, only(x509.ExtKeyUsageServerAuth), 0, 0},
		{"a certificate for servers is not a client's", only(x509.ExtKeyUsageServerAuth), own, 0, meshtls.WrongUsage},
		{"a certificate for clients is not a server's", own, only(x509.ExtKeyUsageClientAuth), meshtls.WrongUsage, 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := connect(
				clientConfig(t, meshtls.ClientParams{Identity: test.client, Roots: own, Authorize: meshtls.AuthorizeAny()}),
				strictServer(t, test.server, meshtls.AuthorizeAny()),
			)
			if reason(r.client) != test.wantClient || reason(r.server) != test.wantServer {
				t.Errorf("client %v, server %v", r.client, r.server)
			}
			if fine := test.wantClient == 0 && test.wantServer == 0; fine != (r.client == nil && r.server == nil) {
				t.Errorf("client %v, server %v", r.client, r.server)
			}
		})
	}
}

func TestAClientWithoutACertificate(t *testing.T) {
	t.Parallel()
	ca := tlstest.NewCA(t)
	own := source(t, ca.Workload(t, paymentID), ca)
	anonymous := clientConfig(t, meshtls.ClientParams{Roots: own, Authorize: meshtls.AuthorizeAny()})
	tests := []struct {
		name   string
		server meshtls.ServerParams
		want   meshtls.Reason
	}{
		{"is refused where one is required", meshtls.ServerParams{Identity: own, Roots: own, Authorize: meshtls.AuthorizeAny(), RequireClientCertificate: true}, meshtls.NoPeerCertificate},
		{"is let in where one is optional", meshtls.ServerParams{Identity: own, Roots: own, Authorize: meshtls.AuthorizeAny()}, 0},
		{"is let in where none is asked for", meshtls.ServerParams{Identity: own}, 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := connect(anonymous, serverConfig(t, test.server))
			if reason(r.server) != test.want || (r.server == nil) != (test.want == 0) {
				t.Errorf("got %v, want reason %q", r.server, test.want)
			}
			if _, ok := meshtls.PeerID(r.serverState); ok {
				t.Error("nobody has an identity")
			}
		})
	}
	t.Run("an optional certificate is verified all the same", func(t *testing.T) {
		t.Parallel()
		stranger := source(t, tlstest.NewCA(t).Workload(t, customerID), ca)
		r := connect(
			clientConfig(t, meshtls.ClientParams{Identity: stranger, Roots: own, Authorize: meshtls.AuthorizeAny()}),
			serverConfig(t, meshtls.ServerParams{Identity: own, Roots: own, Authorize: meshtls.AuthorizeAny()}),
		)
		if reason(r.server) != meshtls.UnknownAuthority {
			t.Errorf("got %v, want an unknown authority", r.server)
		}
	})
}

// TestBS4_NoIdentityFailsTheHandshake is V61 as well: without an identity there
// is no connection, and never one in plaintext.
func TestBS4_NoIdentityFailsTheHandshake(t *testing.T) {
	t.Parallel()
	ca := tlstest.NewCA(t)
	good := source(t, ca.Workload(t, paymentID), ca)
	expired := source(t, ca.Issue(t, tlstest.Leaf{URIs: []string{paymentID}, NotAfter: time.Now().Add(-time.Second)}), ca)
	tests := []struct {
		name string
		own  meshtls.Source
		text string
	}{
		{"nothing yet", meshtls.NewStatic(nil), "no identity of our own: static source: no identity was set"},
		{"roots only", rootsOnly(t, ca), "no identity of our own: the source holds roots only"},
		{"an expired certificate", expired, `no identity of our own: certificate of "` + paymentID + `" expired at `},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			anyClient := clientConfig(t, meshtls.ClientParams{Roots: good, Authorize: meshtls.AuthorizeAny()})
			r := connect(anyClient, serverConfig(t, meshtls.ServerParams{Identity: test.own}))
			if reason(r.server) != meshtls.NoIdentity || !strings.Contains(r.server.Error(), test.text) || r.client == nil {
				t.Errorf("server %v, client %v: want %q", r.server, r.client, test.text)
			}

			client := clientConfig(t, meshtls.ClientParams{Identity: test.own, Roots: good, Authorize: meshtls.AuthorizeAny()})
			for _, server := range []*tls.Config{
				strictServer(t, good, meshtls.AuthorizeAny()),
				serverConfig(t, meshtls.ServerParams{Identity: good}), // does not ask
			} {
				r = connect(client, server)
				if reason(r.client) != meshtls.NoIdentity || !strings.Contains(r.client.Error(), test.text) || r.server == nil {
					t.Errorf("client %v, server %v: want %q", r.client, r.server, test.text)
				}
			}
		})
	}
}

func TestWithoutRootsNoPeerIsVerified(t *testing.T) {
	t.Parallel()
	ca := tlstest.NewCA(t)
	good := source(t, ca.Workload(t, paymentID), ca)
	for name, roots := range map[string]meshtls.Source{
		"no source yet": meshtls.NewStatic(nil),
		"no roots":      source(t, ca.Workload(t, paymentID)),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := connect(
				clientConfig(t, meshtls.ClientParams{Identity: good, Roots: roots, Authorize: meshtls.AuthorizeAny()}),
				strictServer(t, good, meshtls.AuthorizeAny()),
			)
			if reason(r.client) != meshtls.NoRoots {
				t.Errorf("client: got %v, want no roots", r.client)
			}
			r = connect(
				clientConfig(t, meshtls.ClientParams{Identity: good, Roots: good, Authorize: meshtls.AuthorizeAny()}),
				serverConfig(t, meshtls.ServerParams{Identity: good, Roots: roots, Authorize: meshtls.AuthorizeAny(), RequireClientCertificate: true}),
			)
			if reason(r.server) != meshtls.NoRoots {
				t.Errorf("server: got %v, want no roots", r.server)
			}
		})
	}
}

func TestTLS12IsRefused(t *testing.T) {
	t.Parallel()
	ca := tlstest.NewCA(t)
	own := source(t, ca.Workload(t, paymentID), ca)
	old := clientConfig(t, meshtls.ClientParams{Identity: own, Roots: own, Authorize: meshtls.AuthorizeAny()})
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	if r := connect(old, strictServer(t, own, meshtls.AuthorizeAny())); r.server == nil || r.client == nil {
		t.Error("a server spoke TLS 1.2")
	}
	oldServer := strictServer(t, own, meshtls.AuthorizeAny())
	oldServer.MinVersion, oldServer.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	client := clientConfig(t, meshtls.ClientParams{Identity: own, Roots: own, Authorize: meshtls.AuthorizeAny()})
	if r := connect(client, oldServer); r.server == nil || r.client == nil {
		t.Error("a client spoke TLS 1.2")
	}
}

func TestConfigsRefuseWhatWouldNotVerify(t *testing.T) {
	t.Parallel()
	s := meshtls.NewStatic(nil)
	anybody := meshtls.AuthorizeAny()
	tests := []struct {
		name  string
		build func() (*tls.Config, error)
		want  string
	}{
		{"a client without roots", func() (*tls.Config, error) {
			return meshtls.ClientConfig(meshtls.ClientParams{Authorize: anybody})
		}, "client TLS: roots are missing: a server must be verified"},
		{"a client without an authorizer", func() (*tls.Config, error) {
			return meshtls.ClientConfig(meshtls.ClientParams{Roots: s})
		}, "client TLS: authorizer is missing: use AuthorizeAny to accept every verified server"},
		{"a server without an identity", func() (*tls.Config, error) {
			return meshtls.ServerConfig(meshtls.ServerParams{Roots: s, Authorize: anybody})
		}, "server TLS: identity is missing: a server must present a certificate"},
		{"a server that requires certificates and has no roots", func() (*tls.Config, error) {
			return meshtls.ServerConfig(meshtls.ServerParams{Identity: s, Authorize: anybody, RequireClientCertificate: true})
		}, "server TLS: roots are missing: client certificates are required and must be verified"},
		{"a server with roots and no authorizer", func() (*tls.Config, error) {
			return meshtls.ServerConfig(meshtls.ServerParams{Identity: s, Roots: s})
		}, "server TLS: authorizer is missing: use AuthorizeAny to accept every verified client"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			config, err := test.build()
			if err == nil || err.Error() != test.want || config != nil {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

func TestV62_ConfigsShareNothing(t *testing.T) {
	t.Parallel()
	ca := tlstest.NewCA(t)
	s := source(t, ca.Workload(t, paymentID), ca)
	protos := []string{"h2"}
	params := meshtls.ClientParams{Identity: s, Roots: s, Authorize: meshtls.AuthorizeAny(), NextProtos: protos}
	a, b := clientConfig(t, params), clientConfig(t, params)
	a.NextProtos[0] = "x"
	if a == b || b.NextProtos[0] != "h2" || protos[0] != "h2" {
		t.Error("a change of one configuration reached another")
	}
	if b.ClientSessionCache != nil {
		t.Error("a client has a session cache")
	}
	if server := strictServer(t, s, meshtls.AuthorizeAny()); !server.SessionTicketsDisabled {
		t.Error("a server issues session tickets")
	}
	if _, ok := meshtls.PeerID(tls.ConnectionState{PeerCertificates: []*x509.Certificate{ca.Certificate}}); ok {
		t.Error("an unfinished handshake has a peer")
	}
}
