package controlplane

import (
	"crypto/tls"
	"crypto/x509"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"

	"github.com/inboardmesh/inboard/internal/memnet"
)

// workloadCertificate is one of shop/customer that lives for so many seconds.
func workloadCertificate(t testing.TB, s *Server, network *memnet.Network, seconds int64) *tls.Certificate {
	t.Helper()
	return certificateFor(t, dialTLS(t, network, s.ca, nil, tokenFor(t, s.ca, "shop", "customer", time.Hour)), seconds)
}

func TestStreamEndsWithWhatWasProved(t *testing.T) {
	for _, tt := range []struct {
		name            string
		certificate     int64         // seconds; 0: none
		token           time.Duration // 0: none
		want            time.Duration
		anotherIdentity bool
	}{
		{name: "the token alone", token: time.Minute, want: time.Minute},
		{name: "the certificate alone", certificate: 60, want: time.Minute},
		{name: "the token, if it lives longer", certificate: 60, token: 5 * time.Minute, want: 5 * time.Minute},
		{name: "the certificate, if it lives longer", certificate: 300, token: time.Minute, want: 5 * time.Minute},
		{name: "the certificate, if the token is another's", certificate: 60, token: 5 * time.Minute, want: time.Minute, anotherIdentity: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			secureBubble(t, func(t *testing.T, s *Server, network *memnet.Network, logs *logBuffer) {
				start := time.Now()
				var cert *tls.Certificate
				if tt.certificate > 0 {
					cert = workloadCertificate(t, s, network, tt.certificate)
				}
				var options []grpc.DialOption
				if tt.token > 0 {
					account := "customer"
					if tt.anotherIdentity {
						account = "admin"
					}
					options = append(options, tokenFor(t, s.ca, "shop", account, tt.token))
				}
				conn := dialTLS(t, network, s.ca, cert, options...)
				c, d := newDelta(t, conn, node("shop", "customer")), newSotw(t, conn, node("shop", "customer"))
				c.subscribe(cds, cluster("payment"))
				c.want(cds, []string{cluster("payment")}, nil)
				d.subscribe(cds, cluster("payment"))
				d.want(cds, []string{cluster("payment")}, cluster("payment"))
				time.Sleep(tt.want - 5*time.Second)
				mustUpdate(t, s, service("payment", "10.0.0.2"))
				c.subscribe(eds, cluster("payment"))
				c.want(eds, []string{cluster("payment")}, nil)
				c.quiet()
				d.quiet()
				wantCode(t, c.end(), codes.Unauthenticated)
				wantCode(t, d.end(), codes.Unauthenticated)
				if lasted := time.Since(start); lasted < tt.want-time.Second || lasted > tt.want {
					t.Errorf("the streams lasted %v, want %v", lasted, tt.want)
				}
				if logs.count("stream ended: its credentials expired") != 2 {
					t.Errorf("the end is not logged:\n%s", logs)
				}
			})
		})
	}
}

func TestExpiredTokenDoesNotHideTheCertificate(t *testing.T) {
	secureBubble(t, func(t *testing.T, s *Server, network *memnet.Network, _ *logBuffer) {
		token := tokenFor(t, s.ca, "shop", "customer", time.Second)
		cert := workloadCertificate(t, s, network, 3600)
		time.Sleep(time.Minute)
		c := newDelta(t, dialTLS(t, network, s.ca, cert, token), node("shop", "customer"))
		c.subscribe(cds, cluster("payment"))
		c.want(cds, []string{cluster("payment")}, nil)
	})
}

// A certificate is presented with a new connection only, so a connection on
// which nothing is proved any more must not go on.
func TestConnectionEndsWithItsLastProof(t *testing.T) {
	secureBubble(t, func(t *testing.T, s *Server, network *memnet.Network, _ *logBuffer) {
		var current atomic.Pointer[tls.Certificate]
		conn := dial(t, network, "secure:1", tokenFor(t, s.ca, "shop", "customer", time.Minute),
			grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
				MinVersion: tls.VersionTLS13, RootCAs: s.ca.Roots(), ServerName: "localhost",
				GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
					if cert := current.Load(); cert != nil {
						return cert, nil
					}
					return new(tls.Certificate), nil
				},
			})))
		stream := func() *deltaClient {
			c := newDelta(t, conn, node("shop", "customer"))
			c.subscribe(cds, cluster("payment"))
			return c
		}
		c := stream()
		c.want(cds, []string{cluster("payment")}, nil)
		cert := workloadCertificate(t, s, network, 300)
		current.Store(cert)
		time.Sleep(55 * time.Second)
		wantCode(t, c.end(), codes.Unauthenticated)
		wantCode(t, stream().end(), codes.Unauthenticated) // the old connection is still there
		time.Sleep(2 * expiryGrace)
		c = stream()
		c.want(cds, []string{cluster("payment")}, nil)
		leaf, err := x509.ParseCertificate(cert.Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Until(leaf.NotAfter) - time.Second)
		c.quiet()
		current.Store(nil)
		wantCode(t, c.end(), codes.Unauthenticated)

		// Nothing is proved on the next one, until there is a certificate again.
		time.Sleep(2 * expiryGrace)
		wantCode(t, stream().end(), codes.Unauthenticated)
		current.Store(workloadCertificate(t, s, network, 300))
		time.Sleep(2 * expiryGrace)
		c = stream()
		c.want(cds, []string{cluster("payment")}, nil)
	})
}
