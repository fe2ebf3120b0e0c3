package mesh_test

import (
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/internal/tlstest"
	"github.com/inboardmesh/inboard/mesh"
)

var secretsDuration = flag.Duration("secrets.duration", 3*time.Second, "how long the secrets are rotated in TestG2")

func rawInline(text []byte) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: text}}
}

// secretWorld is a customer and a payment whose certificates and roots come over the
// ADS stream.
type secretWorld struct {
	*rawXDS

	customer *mesh.Mesh
	stub     grpc_testing.TestServiceClient
	address  string // of the HTTP listener
}

const (
	serverSecrets = `"requireClientCertificate": true, "commonTlsContext": {
		"tlsCertificateSdsSecretConfigs": [{"name": "kubernetes://payment", "sdsConfig": {"ads": {}}}],
		"validationContextSdsSecretConfig": {"name": "kubernetes://payment-cacert", "sdsConfig": {"ads": {}}}}`
	clientSecrets = `"tlsCertificateSdsSecretConfigs": [{"name": "kubernetes://customer", "sdsConfig": {"ads": {}}}],
		"validationContextSdsSecretConfig": {"name": "kubernetes://customer-cacert", "sdsConfig": {"ads": {}}}`
)

type secretService struct {
	grpc_testing.UnimplementedTestServiceServer
}

func (secretService) EmptyCall(context.Context, *grpc_testing.Empty) (*grpc_testing.Empty, error) {
	return new(grpc_testing.Empty), nil
}

// newSecretWorld starts both. The listeners wait for the secrets, so they are to be
// there before, or soon.
func newSecretWorld(t *testing.T, x *rawXDS) *secretWorld {
	t.Helper()
	payment := x.join()
	open := func() net.Listener {
		inner, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		address := inner.Addr().String()
		x.set(rawListener(t, address, serverSecrets, "", ""))
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		ln, err := payment.Serve(ctx, inner)
		if err != nil {
			t.Fatal(err)
		}
		return ln
	}
	var served sync.WaitGroup
	web := open()
	server := payment.Server(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		peer, _ := mesh.PeerID(r.Context())
		_, _ = io.WriteString(w, peer.String())
	}))
	served.Go(func() { _ = server.Serve(web) })
	rpc := open()
	rpcServer := grpc.NewServer(payment.ServerOptions()...)
	grpc_testing.RegisterTestServiceServer(rpcServer, secretService{})
	served.Go(func() { _ = rpcServer.Serve(rpc) })
	x.set(
		rawDestination(t, "payment.shop:80", "web"), rawDestination(t, "payment.shop:9090", "rpc"),
		rawCluster(t, "web", web.Addr().String(), clientSecrets), rawCluster(t, "rpc", rpc.Addr().String(), clientSecrets),
	)
	w := &secretWorld{rawXDS: x, customer: x.join(), address: web.Addr().String()}
	conn, err := grpc.NewClient("mesh:///payment.shop:9090", w.customer.DialOptions()...)
	if err != nil {
		t.Fatal(err)
	}
	w.stub = grpc_testing.NewTestServiceClient(conn)
	t.Cleanup(func() {
		_ = conn.Close()
		_ = server.Close()
		rpcServer.Stop()
		served.Wait()
	})
	return w
}

// get calls over HTTP; fresh asks for a new connection afterwards.
func (w *secretWorld) get(ctx context.Context, fresh bool) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://payment.shop:80/", http.NoBody)
	if err != nil {
		return "", err
	}
	if fresh {
		req.Close = true
	}
	resp, err := w.customer.HTTPClient().Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d", resp.StatusCode)
	}
	return string(text), err
}

func (w *secretWorld) call(ctx context.Context) error {
	_, err := w.stub.EmptyCall(ctx, new(grpc_testing.Empty))
	return err
}

// certify sends both a certificate of a CA.
func certify(t *testing.T, x *rawXDS, issuer *tlstest.CA) {
	t.Helper()
	for name, id := range map[string]string{"kubernetes://payment": paymentID, "kubernetes://customer": customerID} {
		cert := issuer.Workload(t, id)
		x.set(rawSecret(name, tlstest.CertificatePEM(cert.Certificate...), tlstest.KeyPEM(t, cert)))
	}
}

// trust sends both the roots.
func trust(x *rawXDS, roots ...*tlstest.CA) {
	var text []byte
	for _, ca := range roots {
		text = append(text, tlstest.CertificatePEM(ca.Certificate.Raw)...)
	}
	x.set(rawRoots("kubernetes://payment-cacert", text, nil), rawRoots("kubernetes://customer-cacert", text, nil))
}

// TestG2_CertificatesAndTheirAuthorityChangeUnderLoad: a new certificate each tenth
// of a second for both, a CA that changes in four phases (trust both, sign with the
// new one, trust the new one alone), a new connection every ten requests, over HTTP
// and gRPC, all of it over SDS on the ADS stream. No call may fail.
func TestG2_CertificatesAndTheirAuthorityChangeUnderLoad(t *testing.T) {
	if testing.Short() {
		t.Skip("takes several seconds")
	}
	x := newRawXDS(t)
	before, after := tlstest.NewCA(t), tlstest.NewCA(t)
	certify(t, x, before)
	trust(x, before)
	w := newSecretWorld(t, x)

	ctx, cancel := context.WithTimeout(t.Context(), *secretsDuration)
	defer cancel()
	var (
		load  sync.WaitGroup
		mu    sync.Mutex
		calls int
	)
	count := func(what string, err error) {
		mu.Lock()
		defer mu.Unlock()
		if calls++; err != nil {
			t.Errorf("call %d, %s: %v", calls, what, err)
		}
	}
	for range 2 {
		load.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				peer, err := w.get(t.Context(), i%10 == 9)
				if err == nil && peer != customerID {
					err = fmt.Errorf("the caller is %q", peer)
				}
				count("HTTP", err)
			}
		})
		load.Go(func() {
			for ctx.Err() == nil {
				count("gRPC", w.call(t.Context()))
			}
		})
	}
	load.Go(func() {
		phases := []func(){
			func() { trust(x, before, after) },
			func() { certify(t, x, after) },
			func() { trust(x, after) },
		}
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		issuer := before
		for n, next := 1, 0; ; n++ {
			select {
			case <-ctx.Done():
				if next < len(phases) {
					t.Errorf("only %d of %d phases", next, len(phases))
				}
				return
			case <-tick.C:
			}
			// A phase each fifth of the time, so that each lasts.
			if next < len(phases) && time.Duration(n)*100*time.Millisecond >= *secretsDuration*time.Duration(next+1)/5 {
				if next == 1 {
					issuer = after
				}
				phases[next]()
				next++
				continue
			}
			certify(t, x, issuer)
		}
	})
	load.Wait()
	if got := x.rejections(); len(got) > 0 {
		t.Errorf("rejected: %q", got)
	}
	t.Logf("%d calls", calls)
}

// TestG24_TrustThatIsWithdrawnBySDSEndsOpenConnections: by other roots, and by a
// revocation list that names one caller.
func TestG24_TrustThatIsWithdrawnBySDSEndsOpenConnections(t *testing.T) {
	t.Parallel()
	for name, withdraw := range map[string]func(t *testing.T, x *rawXDS, ca *tlstest.CA, customer []byte){
		"by other roots": func(t *testing.T, x *rawXDS, _ *tlstest.CA, _ []byte) {
			t.Helper()
			x.set(rawRoots("kubernetes://payment-cacert", tlstest.CertificatePEM(tlstest.NewCA(t).Certificate.Raw), nil))
		},
		"by a revocation list": func(t *testing.T, x *rawXDS, ca *tlstest.CA, customer []byte) {
			t.Helper()
			x.set(rawRoots("kubernetes://payment-cacert", tlstest.CertificatePEM(ca.Certificate.Raw), tlstest.CRLPEM(ca.CRL(t, nil, customer))))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x, ca := newRawXDS(t), tlstest.NewCA(t)
			certify(t, x, ca)
			trust(x, ca)
			cert := ca.Workload(t, customerID)
			x.set(rawSecret("kubernetes://customer", tlstest.CertificatePEM(cert.Certificate...), tlstest.KeyPEM(t, cert)))
			w := newSecretWorld(t, x)
			if peer, err := w.get(t.Context(), false); err != nil || peer != customerID {
				t.Fatalf("peer %q, %v", peer, err)
			}
			if err := w.call(t.Context()); err != nil {
				t.Fatal(err)
			}
			// Another client, which would resume its session if it could.
			config := &tls.Config{
				InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}, ServerName: "payment",
				Certificates: []tls.Certificate{cert}, ClientSessionCache: tls.NewLRUClientSessionCache(0),
			}
			for range 2 {
				if resumed, err := askOverTLS(t, w.address, config); err != nil || resumed {
					t.Errorf("resumed %t, %v", resumed, err)
				}
			}
			withdraw(t, x, ca, cert.Certificate[0])
			until(t, "the caller is refused over both", func() bool {
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				_, err := w.get(ctx, false)
				return err != nil && w.call(ctx) != nil
			})
			if _, err := askOverTLS(t, w.address, config); err == nil {
				t.Error("a client with a session is served")
			}
			for range 5 { // and so it stays
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				if peer, err := w.get(ctx, false); err == nil {
					t.Errorf("served as %q", peer)
				}
				cancel()
			}
		})
	}
}

// askOverTLS makes a request over a new connection.
func askOverTLS(t *testing.T, address string, config *tls.Config) (resumed bool, err error) {
	t.Helper()
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 20 * time.Second}, "tcp", address, config)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: payment.shop\r\nConnection: close\r\n\r\n")
	answer, err := io.ReadAll(conn)
	if err == nil && !strings.HasPrefix(string(answer), "HTTP/1.1 200 ") {
		err = fmt.Errorf("answer %q", answer)
	}
	return conn.ConnectionState().DidResume, err
}

// TestASecretThatIsMissingKeepsItsClusterWaiting, with a caller who is told why; one
// that is withdrawn stays in force.
func TestASecretThatIsMissingKeepsItsClusterWaiting(t *testing.T) {
	t.Parallel()
	x, ca := newRawXDS(t), tlstest.NewCA(t)
	certify(t, x, ca)
	trust(x, ca)
	x.removeSecret("kubernetes://customer")
	w := newSecretWorld(t, x)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := w.get(ctx, false); err == nil {
		t.Error("called without a certificate")
	}
	if err := w.call(ctx); status.Code(err) != codes.DeadlineExceeded && status.Code(err) != codes.Unavailable {
		t.Errorf("called without a certificate: %v", err)
	}
	certify(t, x, ca)
	if peer, err := w.get(t.Context(), false); err != nil || peer != customerID {
		t.Fatalf("peer %q, %v", peer, err)
	}
	x.removeSecret("kubernetes://customer")
	x.removeSecret("kubernetes://payment-cacert")
	if peer, err := w.get(t.Context(), true); err != nil || peer != customerID {
		t.Errorf("after the withdrawal: peer %q, %v", peer, err)
	}
	if err := w.call(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestV55_ASecretOfTheControlPlaneIsInNoDump looks where a user may look.
func TestV55_ASecretOfTheControlPlaneIsInNoDump(t *testing.T) {
	t.Parallel()
	x, ca := newRawXDS(t), tlstest.NewCA(t)
	certify(t, x, ca)
	trust(x, ca)
	cert := ca.Workload(t, customerID)
	key := tlstest.KeyPEM(t, cert)
	x.set(rawSecret("kubernetes://customer", tlstest.CertificatePEM(cert.Certificate...), key))
	w := newSecretWorld(t, x)
	if _, err := w.get(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	// A key in the place of roots is rejected, and must not be quoted.
	x.set(rawRoots("kubernetes://customer-cacert", key, nil))
	until(t, "it is rejected", func() bool { return len(x.rejections()) > 0 })
	secrets := 0
	for _, r := range w.customer.Resources() {
		if r.Type == "Secret" {
			secrets++
		}
	}
	if secrets != 2 {
		t.Errorf("%d secrets are known", secrets)
	}
	marker := string(key)[40:80]
	for name, text := range map[string]string{
		"resources": fmt.Sprintf("%+v", w.customer.Resources()),
		"mesh":      fmt.Sprintf("%+v %#v", w.customer, w.customer),
		"rejection": strings.Join(x.rejections(), "\n"),
	} {
		if strings.Contains(text, marker) {
			t.Errorf("%s shows the key", name)
		}
	}
}
