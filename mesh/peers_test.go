package mesh_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/internal/tlstest"
	"github.com/inboardmesh/inboard/internal/worldtest"
	"github.com/inboardmesh/inboard/mesh"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/outcome"
)

const (
	paymentID  = "spiffe://cluster.local/ns/shop/sa/payment"
	customerID = "spiffe://cluster.local/ns/shop/sa/customer"
)

// impostor listens where the payment should. Whatever connection gets through
// its handshake, and whatever bytes come over it, it counts.
type impostor struct {
	address  string
	received atomic.Int64 // bytes after the handshake
}

// newImpostor serves with config; nil is plaintext.
func newImpostor(t *testing.T, config *tls.Config) *impostor {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	i := &impostor{address: ln.Addr().String()}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { i.serve(conn, config) })
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		wg.Wait()
	})
	return i
}

func (i *impostor) serve(conn net.Conn, config *tls.Config) {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	if config != nil {
		secure := tls.Server(conn, config)
		if secure.HandshakeContext(context.Background()) != nil {
			return
		}
		conn = secure
	} else {
		// Not a TLS server: what it gets is a ClientHello, and it says so.
		if _, err := conn.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n")); err != nil {
			return
		}
		hello := make([]byte, 1<<10)
		n, _ := conn.Read(hello)
		if n > 0 && hello[0] != 0x16 {
			i.received.Add(int64(n))
		}
		return
	}
	n, _ := io.Copy(io.Discard, conn)
	i.received.Add(n)
}

// impostorService is the payment's service with one endpoint that is not it.
func impostorService(address string) string {
	_, port, _ := strings.Cut(address, ":")
	return fmt.Sprintf(`
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: payment, namespace: shop}
spec:
  hosts: [payment.shop.svc.cluster.local]
  location: MESH_INTERNAL
  resolution: STATIC
  ports:
  - {number: 80, name: http, protocol: HTTP}
  - {number: 82, name: http2, protocol: HTTP2}
  - {number: 9090, name: grpc, protocol: GRPC}
  endpoints: [{address: 127.0.0.1, ports: {http: %[1]s, http2: %[1]s, grpc: %[1]s}, serviceAccount: payment}]
`, port)
}

func TestNoRequestReachesAPeerThatIsNotTheOneNamed(t *testing.T) {
	t.Parallel()
	root := tlstest.NewCA(t)
	server := func(cert tls.Certificate, edit ...func(*tls.Config)) *tls.Config {
		c := &tls.Config{
			MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert},
			NextProtos: []string{"istio", "h2", "http/1.1"}, ClientAuth: tls.RequestClientCert,
		}
		for _, e := range edit {
			e(c)
		}
		return c
	}
	leaf := func(l tlstest.Leaf) tls.Certificate { return root.Issue(t, l) }
	now := time.Now()
	cases := []struct {
		name   string
		config *tls.Config
		cause  string
	}{
		{"another service account", server(root.Workload(t, "spiffe://cluster.local/ns/shop/sa/other")), "spiffe://cluster.local/ns/shop/sa/other"},
		{"another namespace", server(root.Workload(t, "spiffe://cluster.local/ns/mall/sa/payment")), "spiffe://cluster.local/ns/mall/sa/payment"},
		{"a longer name", server(root.Workload(t, paymentID+"-2")), paymentID + "-2"},
		{"another trust domain", server(root.Workload(t, "spiffe://elsewhere.org/ns/shop/sa/payment")), "elsewhere.org"},
		{"another CA", server(tlstest.NewCA(t).Workload(t, paymentID)), "unknown authority"},
		{"an expired certificate", server(leaf(tlstest.Leaf{
			URIs: []string{paymentID}, NotBefore: now.Add(-2 * time.Hour), NotAfter: now.Add(-time.Hour),
		})), "expired"},
		{"a certificate for tomorrow", server(leaf(tlstest.Leaf{
			URIs: []string{paymentID}, NotBefore: now.Add(24 * time.Hour), NotAfter: now.Add(48 * time.Hour),
		})), "not yet valid"},
		{"a DNS name in place of an identity", server(leaf(tlstest.Leaf{DNSNames: []string{paymentHost}})), "SPIFFE"},
		{"two identities", server(leaf(tlstest.Leaf{URIs: []string{paymentID, customerID}})), "2"},
		{"a client's certificate", server(leaf(tlstest.Leaf{
			URIs: []string{paymentID}, Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		})), "usage"},
		{"an old version of TLS", server(root.Workload(t, paymentID), func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }), "version"},
		{"plaintext", nil, ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			i := newImpostor(t, c.config)
			w := worldtest.NewSignedBy(t, root, impostorService(i.address))
			watch := newWatcher()
			customer := w.Join("shop", "customer", nil, mesh.WithHooks(watch.hooks()))
			for _, port := range []string{"80", "82"} {
				resp, err := get(t, customer, port)
				checkRefused(t, "HTTP port "+port, resp, err, c.cause)
			}
			_, err := emptyCall(t, customer)
			checkRefused(t, "gRPC", nil, err, c.cause)
			if code := status.Code(err); code != codes.Unavailable {
				t.Errorf("gRPC code %v", code)
			}
			if n := i.received.Load(); n != 0 {
				t.Errorf("%d bytes reached the impostor", n)
			}
			watch.settled(t)
		})
	}
}

func get(t *testing.T, m *mesh.Mesh, port string) (*http.Response, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+paymentHost+":"+port+"/", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := m.Transport().RoundTrip(req)
	if err == nil {
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
	}
	return resp, err
}

func emptyCall(t *testing.T, m *mesh.Mesh) (*grpc_testing.Empty, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	conn, err := grpc.NewClient("mesh:///"+paymentHost+":9090", m.DialOptions()...)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return grpc_testing.NewTestServiceClient(conn).EmptyCall(ctx, new(grpc_testing.Empty))
}

func checkRefused(t *testing.T, what string, resp *http.Response, err error, cause string) {
	t.Helper()
	e, ok := errors.AsType[*mesh.Error](err)
	if !ok || resp != nil {
		t.Errorf("%s: got %v, %v, want a *mesh.Error", what, resp, err)
		return
	}
	if e.Kind != outcome.ConnectFailure || e.Sent || e.Endpoint == "" || !strings.Contains(e.Error(), cause) {
		t.Errorf("%s: kind %v, sent %t, endpoint %q: %v; want a connection that failed for %q", what, e.Kind, e.Sent, e.Endpoint, e, cause)
	}
}

// watcher counts what begins and what ends.
type watcher struct {
	calls, conns atomic.Int64
}

func newWatcher() *watcher { return new(watcher) }

func (w *watcher) hooks() *observe.Hooks {
	return &observe.Hooks{
		CallStarted: func(ctx context.Context, _ *observe.Call) context.Context {
			w.calls.Add(1)
			return ctx
		},
		CallEnded: func(context.Context, *observe.Call) { w.calls.Add(-1) },
		ConnOpened: func(e observe.ConnEvent) {
			if e.Err == nil {
				w.conns.Add(1)
			}
		},
		ConnClosed: func(observe.ConnEvent) { w.conns.Add(-1) },
	}
}

// settled expects that what has begun has ended.
func (w *watcher) settled(t *testing.T) {
	t.Helper()
	if n := w.calls.Load(); n != 0 {
		t.Errorf("%d calls have not ended", n)
	}
	if n := w.conns.Load(); n != 0 {
		t.Errorf("%d connections are open", n)
	}
}

func TestNobodyWithoutAProofIsServedByAStrictListener(t *testing.T) {
	t.Parallel()
	root := tlstest.NewCA(t)
	w := worldtest.NewSignedBy(t, root, "")
	payment := w.Payment("v1-a", map[string]string{"app": "payment"})
	w.Apply(services(payment) + strictPayments)
	// The listener is strict from when it has heard of it.
	customer := w.Join("shop", "customer", nil)
	awaitStrict(t, payment)

	client := func(certs ...tls.Certificate) *tls.Config {
		return &tls.Config{
			MinVersion: tls.VersionTLS12, Certificates: certs,
			InsecureSkipVerify: true,
		}
	}
	now := time.Now()
	cases := []struct {
		name   string
		config *tls.Config // nil is plaintext
	}{
		{"plaintext", nil},
		{"TLS without a certificate", client()},
		{"a certificate from another CA", client(tlstest.NewCA(t).Workload(t, customerID))},
		{"a certificate of another trust domain", client(root.Workload(t, "spiffe://elsewhere.org/ns/shop/sa/customer"))},
		{"an expired certificate", client(root.Issue(t, tlstest.Leaf{
			URIs: []string{customerID}, NotBefore: now.Add(-2 * time.Hour), NotAfter: now.Add(-time.Hour),
		}))},
		{"a certificate without an identity", client(root.Issue(t, tlstest.Leaf{DNSNames: []string{"customer"}}))},
		{"a certificate with two identities", client(root.Issue(t, tlstest.Leaf{URIs: []string{customerID, paymentID}}))},
		{"a server's certificate", client(root.Issue(t, tlstest.Leaf{
			URIs: []string{customerID}, Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		}))},
		{"an old version of TLS", func() *tls.Config {
			c := client(root.Workload(t, customerID))
			c.MaxVersion = tls.VersionTLS12
			return c
		}()},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			for _, http2 := range []bool{false, true} {
				if resp, err := strangerHTTP(t, payment.HTTP, c.config, http2); err == nil {
					t.Errorf("HTTP/2 %t: answered with %s", http2, resp.Status)
				}
			}
			if err := strangerGRPC(t, payment.GRPC, c.config); status.Code(err) != codes.Unavailable && status.Code(err) != codes.DeadlineExceeded {
				t.Errorf("gRPC: %v", err)
			}
		})
	}
	if n := payment.Calls.Load(); n != 0 {
		t.Errorf("%d calls were served", n)
	}
	if resp, err := get(t, customer, "80"); err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("the customer got %v, %v", resp, err)
	}
	if _, err := emptyCall(t, customer); err != nil {
		t.Errorf("the customer got %v", err)
	}
}

const strictPayments = `---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: strict, namespace: shop}
spec: {mtls: {mode: STRICT}}
`

// awaitStrict waits until plaintext is not accepted any more.
func awaitStrict(t *testing.T, p *worldtest.Payment) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for time.Now().Before(deadline) {
		_, overHTTP := strangerHTTP(t, p.HTTP, nil, false)
		if overHTTP != nil && strangerGRPC(t, p.GRPC, nil) != nil {
			p.Calls.Store(0)
			return
		}
	}
	t.Fatal("plaintext is accepted though the policy is STRICT")
}

func strangerHTTP(t *testing.T, address string, config *tls.Config, http2 bool) (*http.Response, error) {
	t.Helper()
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!http2)
	protocols.SetHTTP2(http2)
	protocols.SetUnencryptedHTTP2(http2)
	config = config.Clone()
	if config != nil {
		config.NextProtos = []string{"http/1.1"}
		if http2 {
			config.NextProtos = []string{"h2"}
		}
	}
	transport := &http.Transport{TLSClientConfig: config, Protocols: protocols, DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	scheme := "http://"
	if config != nil {
		scheme = "https://"
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+address+"/", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := transport.RoundTrip(req)
	if err == nil {
		_ = resp.Body.Close()
	}
	return resp, err
}

func strangerGRPC(t *testing.T, address string, config *tls.Config) error {
	t.Helper()
	creds := insecure.NewCredentials()
	if config != nil {
		creds = credentials.NewTLS(config.Clone())
	}
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(creds))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	_, err = grpc_testing.NewTestServiceClient(conn).EmptyCall(ctx, new(grpc_testing.Empty))
	return err
}
