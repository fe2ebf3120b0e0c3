package mesh_test

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"

	"github.com/inboardmesh/inboard/discovery/bootstrap"
	"github.com/inboardmesh/inboard/internal/tlstest"
	"github.com/inboardmesh/inboard/internal/worldtest"
	"github.com/inboardmesh/inboard/mesh"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

// onlyFromTheCustomer is the policy of the payments: STRICT mutual TLS, and nobody
// but the customer.
const onlyFromTheCustomer = `---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: payment, namespace: shop}
spec:
  selector: {matchLabels: {app: payment}}
  rules:
  - from: [{source: {principals: ["cluster.local/ns/shop/sa/customer"]}}]
`

// toVersion routes all that goes to the payments, over each protocol, to a version.
func toVersion(version string) string {
	return fmt.Sprintf(`---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: payment, namespace: shop}
spec:
  host: payment
  subsets:
  - {name: %[1]s, labels: {version: %[1]s}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: payment, namespace: shop}
spec:
  hosts: [payment]
  http:
  - route: [{destination: {host: payment, subset: %[1]s}}]
`, version)
}

// keptWorld is a mesh whose processes have identities without the control plane.
type keptWorld struct {
	*worldtest.World

	t    *testing.T
	root *tlstest.CA
	dir  string
}

func newKeptWorld(t *testing.T) *keptWorld {
	t.Helper()
	root := tlstest.NewCA(t)
	return &keptWorld{World: worldtest.NewSignedBy(t, root, ""), t: t, root: root, dir: t.TempDir()}
}

func (w *keptWorld) identity(account string) mesh.Option {
	w.t.Helper()
	identity, err := meshtls.NewIdentity(w.root.Workload(w.t, "spiffe://cluster.local/ns/shop/sa/"+account), []*x509.Certificate{w.root.Certificate})
	if err != nil {
		w.t.Fatal(err)
	}
	return mesh.WithIdentity("default", meshtls.NewStatic(identity))
}

// options are those of a process that keeps its configuration.
func (w *keptWorld) options(account, instance string) []mesh.Option {
	return []mesh.Option{w.identity(account), mesh.LastKnownGood{Dir: filepath.Join(w.dir, instance)}}
}

func (w *keptWorld) listen(address string) net.Listener {
	w.t.Helper()
	ln, err := new(net.ListenConfig).Listen(w.t.Context(), "tcp", address)
	if err != nil {
		w.t.Fatal(err)
	}
	return ln
}

// paidOver makes one call over a protocol; it returns the instance that answered.
func paidOver(ctx context.Context, m *mesh.Mesh, conn *grpc.ClientConn, p parityProtocol) (instance string, err error) {
	if p.grpc {
		var header metadata.MD
		if _, err := grpc_testing.NewTestServiceClient(conn).EmptyCall(ctx, &grpc_testing.Empty{}, grpc.Header(&header)); err != nil {
			return "", err
		}
		return strings.Join(header.Get("x-instance"), ","), nil
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+paymentHost+":"+p.port+"/charge", strings.NewReader("42"))
	if err != nil {
		return "", err
	}
	resp, err := m.Transport().RoundTrip(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("status %d", resp.StatusCode)
	}
	return resp.Header.Get("X-Instance"), nil
}

func (w *keptWorld) channel(m *mesh.Mesh) *grpc.ClientConn {
	w.t.Helper()
	conn, err := grpc.NewClient("mesh:///"+paymentHost+":9090", m.DialOptions()...)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// everyProtocol makes a call over each; all must be answered by the instance.
func (w *keptWorld) everyProtocol(m *mesh.Mesh, conn *grpc.ClientConn, instance string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer cancel()
	for _, p := range parityProtocols {
		if got, err := paidOver(ctx, m, conn, p); err != nil || got != instance {
			w.t.Fatalf("%s: answered by %q, %v, want %q", p.name, got, err, instance)
		}
	}
}

// TestG3_ProcessesStartWithoutAControlPlane starts a customer and a payment with the
// control plane, ends all three, and starts the two from disk. They work under the
// policy that they had; when the control plane is back, with another configuration,
// no call fails.
func TestG3_ProcessesStartWithoutAControlPlane(t *testing.T) {
	t.Parallel()
	for name, api := range map[string]bootstrap.APIType{"delta": bootstrap.APIDelta, "state of the world": bootstrap.APISotW} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newKeptWorld(t)
			w.API = api
			w.startWithout()
		})
	}
}

func (w *keptWorld) startWithout() {
	t := w.t
	labels := map[string]string{"app": "payment"}
	first := w.Payment("v1-a", labels, w.options("payment", "v1-a")...)
	second := w.Payment("v2-a", labels, w.identity("payment"))
	w.Apply(services(first, second) + onlyFromTheCustomer + toVersion("v1"))
	customer := w.Join("shop", "customer", nil, w.options("customer", "customer")...)
	conn := w.channel(customer)
	w.everyProtocol(customer, conn, "v1-a")
	if got := customer.ConfigSource(); got.String() != "live" || got.LastKnownGood != 0 {
		t.Errorf("source %+v", got)
	}
	if err := errors.Join(conn.Close(), customer.Close()); err != nil {
		t.Fatal(err)
	}
	first.Kill()
	if err := first.Mesh.Close(); err != nil {
		t.Fatal(err)
	}
	w.StopControlPlane()

	first = w.PaymentAt("v1-a", labels, w.listen(first.HTTP), w.listen(first.GRPC), w.options("payment", "v1-a")...)
	if got := first.Mesh.ConfigSource(); got.String() != "last known good" || got.Live != 0 {
		t.Errorf("source of the payment %+v", got)
	}
	var used atomic.Int64
	hooks := &observe.Hooks{LastGood: func(e observe.LastGoodEvent) {
		if e.Kind == observe.LastGoodUsed {
			used.Store(int64(e.Resources))
		}
	}}
	customer = w.Join("shop", "customer", nil, append(w.options("customer", "customer"), mesh.WithHooks(hooks))...)
	conn = w.channel(customer)
	w.everyProtocol(customer, conn, "v1-a")
	if got := customer.ConfigSource(); got.String() != "last known good" || got.LastKnownGood == 0 || got.Saved.IsZero() || int64(got.LastKnownGood) != used.Load() {
		t.Errorf("source of the customer %+v, hooks were told of %d", got, used.Load())
	}
	if err := customer.Ready(); err != nil {
		t.Errorf("not ready: %v", err)
	}
	w.refusesStrangers(first)

	var failed atomic.Int64
	stop := make(chan struct{})
	var wg sync.WaitGroup
	moved := make(chan struct{}, len(parityProtocols))
	for _, p := range parityProtocols {
		wg.Go(func() {
			told := false
			for {
				select {
				case <-stop:
					return
				default:
				}
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				instance, err := paidOver(ctx, customer, conn, p)
				cancel()
				if err != nil {
					failed.Add(1)
					t.Errorf("%s: %v", p.name, err)
				}
				if instance == "v2-a" && !told {
					told = true
					moved <- struct{}{}
				}
			}
		})
	}
	// The control plane that comes back has another configuration.
	w.StartControlPlane()
	w.Apply(services(first, second) + onlyFromTheCustomer + toVersion("v2"))
	timeout := time.After(60 * time.Second)
	for range parityProtocols {
		select {
		case <-moved:
		case <-timeout:
			t.Fatal("the calls have not moved")
		}
	}
	close(stop)
	wg.Wait()
	if failed.Load() > 0 {
		t.Errorf("%d calls failed", failed.Load())
	}
	if got := customer.ConfigSource(); got.String() != "live" || used.Load() != 0 {
		t.Errorf("source of the customer %+v, hooks were told of %d", got, used.Load())
	}
	w.refusesStrangers(first)
}

// refusesStrangers says that the policy of a payment is in force: an identity that
// it does not name gets 403, and who has none gets no connection.
func (w *keptWorld) refusesStrangers(p *worldtest.Payment) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 10*time.Second)
	defer cancel()
	get := func(scheme string, transport *http.Transport) (int, error) {
		defer transport.CloseIdleConnections()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+p.HTTP+"/", http.NoBody)
		if err != nil {
			w.t.Fatal(err)
		}
		resp, err := transport.RoundTrip(req)
		if err != nil {
			return 0, err
		}
		defer resp.Body.Close()
		return resp.StatusCode, nil
	}
	if status, err := get("http", new(http.Transport)); err == nil {
		w.t.Errorf("a caller without an identity got the status %d", status)
	}
	identity, err := meshtls.NewIdentity(w.root.Workload(w.t, "spiffe://cluster.local/ns/shop/sa/thief"), []*x509.Certificate{w.root.Certificate})
	if err != nil {
		w.t.Fatal(err)
	}
	source := meshtls.NewStatic(identity)
	config, err := meshtls.ClientConfig(meshtls.ClientParams{
		Identity: source, Roots: source, Authorize: meshtls.AuthorizeAny(), NextProtos: []string{"istio-http/1.1", "http/1.1"},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	if status, err := get("https", &http.Transport{TLSClientConfig: config}); err != nil || status != http.StatusForbidden {
		w.t.Errorf("a caller that the policy does not name got the status %d, %v", status, err)
	}
}

func TestNothingIsOpenedWithoutAPolicyOnDisk(t *testing.T) {
	t.Parallel()
	w := newKeptWorld(t)
	w.StopControlPlane()
	m := w.Join("shop", "payment", map[string]string{"app": "payment"}, w.options("payment", "new")...)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if ln, err := m.Listen(ctx, "tcp", "127.0.0.1:0"); err == nil {
		_ = ln.Close()
		t.Error("a listener without a policy was opened")
	}
	if got := m.ConfigSource(); got.String() != "none" || got.Refused != nil {
		t.Errorf("source %+v", got)
	}
}

func TestADamagedFileIsRefusedWithItsReason(t *testing.T) {
	t.Parallel()
	w := newKeptWorld(t)
	payment := w.Payment("v1-a", map[string]string{"app": "payment"}, w.identity("payment"))
	w.Apply(services(payment))
	customer := w.Join("shop", "customer", nil, w.options("customer", "customer")...)
	w.everyProtocol(customer, w.channel(customer), "v1-a")
	file := customer.ConfigSource().File
	if err := customer.Close(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(data), "PRIVATE KEY") {
		t.Error("there is a key in the file")
	}
	data[len(data)/2] ^= 1
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	w.StopControlPlane()
	customer = w.Join("shop", "customer", nil, w.options("customer", "customer")...)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := paidOver(ctx, customer, nil, parityProtocols[0]); err == nil {
		t.Error("a call was made with it")
	}
	if got := customer.ConfigSource(); got.Refused == nil || !strings.Contains(got.Refused.Error(), "the checksum is wrong") || got.LastKnownGood > 0 {
		t.Errorf("source %+v", got)
	}
}

func TestWhatToKeepIsChecked(t *testing.T) {
	t.Parallel()
	open := t.TempDir()
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	w := newKeptWorld(t)
	for dir, want := range map[string]string{
		"relative": `mesh: last known good: Dir "relative" is not an absolute path`,
		open:       "so that others may write to it: run chmod go-w on it",
	} {
		m, err := mesh.New(t.Context(), mesh.WithBootstrap(w.Bootstrap("shop", "customer", nil)), w.identity("customer"), mesh.LastKnownGood{Dir: dir})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, %v, want %q", m, err, want)
		}
	}
}
