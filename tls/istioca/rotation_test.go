package istioca_test

import (
	"crypto/tls"
	"crypto/x509"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/internal/memnet"
	"github.com/inboardmesh/inboard/internal/tlstest"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

// TestV24_AMinuteOfCertificatesThatLiveForASecond makes connections between two
// workloads all the time while their certificates are renewed.
func TestV24_AMinuteOfCertificatesThatLiveForASecond(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.answer = func(_ request, csr *x509.CertificateRequest) ([]string, error) {
			return f.sign(csr, tlstest.Leaf{
				NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(2*time.Second - 1).Truncate(time.Second),
			}), nil
		}
		f.start(t)
		a, b := f.newSource(t), f.newSource(t)
		server, err := meshtls.ServerConfig(meshtls.ServerParams{
			Identity: a, Roots: a, Authorize: meshtls.AuthorizeOwnTrustDomain(a), RequireClientCertificate: true,
		})
		if err != nil {
			t.Fatal(err)
		}
		client, err := meshtls.ClientConfig(meshtls.ClientParams{
			Identity: b, Roots: b, Authorize: meshtls.AuthorizeIDs(meshtls.MustID(workloadID)),
		})
		if err != nil {
			t.Fatal(err)
		}
		for n := range 300 {
			time.Sleep(200 * time.Millisecond)
			clientConn, serverConn := memnet.Pipe()
			served := make(chan error, 1)
			go func() { served <- tls.Server(serverConn, server).Handshake() }()
			clientErr := tls.Client(clientConn, client).Handshake()
			if serverErr := <-served; clientErr != nil || serverErr != nil {
				t.Fatalf("connection %d: client %v, server %v", n, clientErr, serverErr)
			}
			_, _ = clientConn.Close(), serverConn.Close()
		}
		if n := len(f.seen()); n < 120 {
			t.Errorf("%d certificates in a minute", n)
		}
	})
}
