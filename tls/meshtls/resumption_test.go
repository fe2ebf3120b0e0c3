package meshtls_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/internal/tlstest"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

// TestV19_ResumptionCannotSkipVerification takes trust away between two
// connections of a client with a session cache (rows O5 and O6), with tickets
// off, as our servers have it, and on, as somebody may set it, in TLS 1.2 and 1.3.
func TestV19_ResumptionCannotSkipVerification(t *testing.T) {
	t.Parallel()
	for _, how := range []struct {
		tickets bool
		version uint16
	}{{false, tls.VersionTLS12}, {true, tls.VersionTLS12}, {false, tls.VersionTLS13}, {true, tls.VersionTLS13}} {
		tickets := how.tickets
		for _, test := range []struct {
			name string
			// withdraw takes the trust in the peer away.
			withdraw func(f *fixture)
			want     meshtls.Reason
		}{
			{"by a change of the roots", func(f *fixture) { f.own.Set(f.otherRoot) }, meshtls.UnknownAuthority},
			{"by the authorizer", func(f *fixture) { f.denied = true }, meshtls.NotAuthorized},
			{"by expiry", func(*fixture) { time.Sleep(2 * time.Minute) }, meshtls.Expired},
			{"by a revocation list", func(f *fixture) { f.own.Set(f.revoking) }, meshtls.Revoked},
		} {
			name := fmt.Sprintf("%s, %s, tickets %t", test.name, tls.VersionName(how.version), tickets)
			t.Run("server, "+name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					f := newFixture(t)
					server := strictServer(t, f.own, f.authorize)
					server.SessionTicketsDisabled = !tickets
					server.MinVersion, server.MaxVersion = how.version, how.version
					client := clientConfig(t, meshtls.ClientParams{Identity: f.shortLived, Roots: f.trusting, Authorize: meshtls.AuthorizeAny()})
					client.ClientSessionCache = tls.NewLRUClientSessionCache(0)
					client.ServerName = "payment"
					client.MinVersion = how.version

					first := connect(client, server)
					if first.client != nil || first.server != nil {
						t.Fatalf("client %v, server %v", first.client, first.server)
					}
					if second := connect(client, server); second.server != nil || second.serverState.DidResume != tickets {
						t.Fatalf("server %v, resumed %v, want %v", second.server, second.serverState.DidResume, tickets)
					}
					test.withdraw(f)
					// The client would otherwise refuse to present it.
					client.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
						return &f.shortLivedCert, nil
					}
					client.VerifyConnection = nil
					if third := connect(client, server); reason(third.server) != test.want || third.client == nil {
						t.Errorf("server %v, client %v: want %q", third.server, third.client, test.want)
					}
				})
			})
			t.Run("client, "+name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					f := newFixture(t)
					server := &tls.Config{
						Certificates: []tls.Certificate{f.shortLivedCert}, SessionTicketsDisabled: !tickets,
						MinVersion: how.version, MaxVersion: how.version,
					}
					client := clientConfig(t, meshtls.ClientParams{Identity: f.own, Roots: f.own, Authorize: f.authorize})
					client.ClientSessionCache = tls.NewLRUClientSessionCache(0)
					client.ServerName = "payment"
					client.MinVersion = how.version

					if first := connect(client, server); first.client != nil {
						t.Fatal(first.client)
					}
					if second := connect(client, server); second.client != nil || second.clientState.DidResume != tickets {
						t.Fatalf("client %v, resumed %v, want %v", second.client, second.clientState.DidResume, tickets)
					}
					test.withdraw(f)
					if third := connect(client, server); reason(third.client) != test.want {
						t.Errorf("got %v, want %q", third.client, test.want)
					}
				})
			})
		}
	}
}

type fixture struct {
	own            *meshtls.Static // what is under test: its roots, its certificate
	otherRoot      *meshtls.Identity
	revoking       *meshtls.Identity // own, with a list that names the peer
	shortLived     *meshtls.Static   // the peer's, valid for a minute
	shortLivedCert tls.Certificate
	trusting       *meshtls.Static // the peer's roots
	denied         bool
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	ca := tlstest.NewCA(t)
	cert := ca.Workload(t, paymentID)
	short := ca.Issue(t, tlstest.Leaf{URIs: []string{customerID}, NotAfter: time.Now().Add(time.Minute)})
	return &fixture{
		own:            source(t, cert, ca),
		otherRoot:      identity(t, cert, tlstest.NewCA(t)),
		revoking:       identity(t, cert, ca).WithRevocation(revocation(t, false, ca.CRL(t, nil, short.Certificate[0]))),
		shortLived:     source(t, short, ca),
		shortLivedCert: short,
		trusting:       rootsOnly(t, ca),
	}
}

func (f *fixture) authorize(meshtls.ID, *x509.Certificate) error {
	if f.denied {
		return errors.New("not any more")
	}
	return nil
}

func TestBS5_ANewHandshakeUsesTheNewMaterial(t *testing.T) {
	t.Parallel()
	before, after := tlstest.NewCA(t), tlstest.NewCA(t)
	server := source(t, before.Workload(t, paymentID), before)
	client := source(t, before.Workload(t, customerID), before)
	serverTLS := strictServer(t, server, meshtls.AuthorizeAny())
	clientTLS := clientConfig(t, meshtls.ClientParams{Identity: client, Roots: client, Authorize: meshtls.AuthorizeAny()})
	steps := []struct {
		name   string
		change func()
	}{
		{"as it was", func() {}},
		{"both roots everywhere", func() {
			server.Set(identity(t, before.Workload(t, paymentID), before, after))
			client.Set(identity(t, before.Workload(t, customerID), before, after))
		}},
		{"the server's certificate by the new CA", func() {
			server.Set(identity(t, after.Workload(t, paymentID), before, after))
		}},
		{"the client's certificate by the new CA", func() {
			client.Set(identity(t, after.Workload(t, customerID), before, after))
		}},
		{"the old root is gone", func() {
			server.Set(identity(t, after.Workload(t, paymentID), after))
			client.Set(identity(t, after.Workload(t, customerID), after))
		}},
	}
	for _, step := range steps {
		step.change()
		r := connect(clientTLS, serverTLS)
		if r.client != nil || r.server != nil {
			t.Fatalf("%s: client %v, server %v", step.name, r.client, r.server)
		}
		now, err := server.Identity()
		if err != nil {
			t.Fatal(err)
		}
		if got := r.clientState.PeerCertificates[0]; !got.Equal(now.Certificate.Leaf) {
			t.Errorf("%s: the server presented a certificate of before", step.name)
		}
	}
}

// TestV24_RotationFailsNoHandshake replaces the identities of both sides in the
// middle of every handshake.
func TestV24_RotationFailsNoHandshake(t *testing.T) {
	t.Parallel()
	ca := tlstest.NewCA(t)
	server := source(t, ca.Workload(t, paymentID), ca)
	client := source(t, ca.Workload(t, customerID), ca)
	var next struct{ server, client *meshtls.Identity }
	rotating := func(authorize meshtls.Authorizer) meshtls.Authorizer {
		return func(peer meshtls.ID, cert *x509.Certificate) error {
			server.Set(next.server)
			client.Set(next.client)
			return authorize(peer, cert)
		}
	}
	serverTLS := strictServer(t, server, rotating(meshtls.AuthorizeOwnTrustDomain(server)))
	clientTLS := clientConfig(t, meshtls.ClientParams{
		Identity: client, Roots: client, Authorize: rotating(meshtls.AuthorizeIDs(meshtls.MustID(paymentID))),
	})
	for made := range 100 {
		next.server = identity(t, ca.Workload(t, paymentID), ca)
		next.client = identity(t, ca.Workload(t, customerID), ca)
		if r := connect(clientTLS, serverTLS); r.client != nil || r.server != nil {
			t.Fatalf("connection %d: client %v, server %v", made, r.client, r.server)
		}
	}
}
