package ca

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"net"
	"net/url"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	pb "istio.io/api/security/v1alpha1"

	"github.com/inboardmesh/inboard/internal/memnet"
)

// logBuffer collects log lines.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer // guarded by mu
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func (l *logBuffer) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

func mustNew(t testing.TB, config Config) *CA {
	t.Helper()
	c, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func mustKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func mustToken(t testing.TB, c *CA, namespace, account string) string {
	t.Helper()
	token, err := c.IssueToken(namespace, account, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// csrPEM is a certificate request that asks for the given URIs.
func csrPEM(t testing.TB, key crypto.Signer, uris ...string) string {
	t.Helper()
	template := &x509.CertificateRequest{}
	for _, text := range uris {
		uri, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		template.URIs = append(template.URIs, uri)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

// serve runs the CA's service in memory. Its TLS asks for client certificates
// without verifying them, so that a test sees what the CA itself refuses.
func serve(t testing.TB, c *CA) *memnet.Network {
	t.Helper()
	config := &tls.Config{
		MinVersion: tls.VersionTLS13,
		ClientAuth: tls.RequestClientCert,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return c.ServerCertificate([]string{"ca.test"}, 0)
		},
	}
	return serveWith(t, c, credentials.NewTLS(config))
}

func serveWith(t testing.TB, c *CA, creds credentials.TransportCredentials) *memnet.Network {
	t.Helper()
	network := new(memnet.Network)
	listener, err := network.Listen("ca.test:443")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.Creds(creds), grpc.WaitForHandlers(true))
	c.Register(server)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := server.Serve(listener); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		server.Stop()
		wg.Wait()
	})
	return network
}

// caller is a client of the CA's service.
type caller struct {
	cert   *tls.Certificate
	tokens []string
	plain  bool
}

func (c caller) create(t testing.TB, network *memnet.Network, roots *x509.CertPool, request *pb.IstioCertificateRequest) ([]string, error) {
	t.Helper()
	creds := insecure.NewCredentials()
	if !c.plain {
		config := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots, ServerName: "ca.test"}
		if c.cert != nil {
			// Not Certificates: that would offer it only if the server
			// names its issuer.
			config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return c.cert, nil }
		}
		creds = credentials.NewTLS(config)
	}
	conn, err := grpc.NewClient("passthrough:///ca.test:443", grpc.WithTransportCredentials(creds),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return network.DialContext(ctx, "mem", address)
		}))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	ctx = metadata.NewOutgoingContext(ctx, metadata.MD{"authorization": c.tokens})
	response, err := pb.NewIstioCertificateServiceClient(conn).CreateCertificate(ctx, request)
	return response.GetCertChain(), err
}

func parseChain(t testing.TB, chain []string) []*x509.Certificate {
	t.Helper()
	var certs []*x509.Certificate
	for _, text := range chain {
		parsed, err := decodeCertificates([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		certs = append(certs, parsed...)
	}
	return certs
}

func wantStatus(t testing.TB, err error, code codes.Code, message string) {
	t.Helper()
	if got := status.Convert(err); got.Code() != code || got.Message() != message {
		t.Errorf("got %v, want %v %q", err, code, message)
	}
}
