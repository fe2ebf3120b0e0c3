package grpc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/controlplane"
	"github.com/inboardmesh/inboard/controlplane/istio"
	"github.com/inboardmesh/inboard/internal/tlstest"
)

const (
	host   = "payment.shop.svc.cluster.local"
	target = "xds:///" + host + ":9090"
)

// world is a control plane in the clear, and a certificate authority.
type world struct {
	t       *testing.T
	address string
	server  *controlplane.Server
	ca      *tlstest.CA
}

func newWorld(t *testing.T) *world {
	t.Helper()
	server, err := controlplane.New(controlplane.Config{TrustDomain: "cluster.local"})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, controlplane.Listeners{Plaintext: ln}) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	return &world{t: t, address: ln.Addr().String(), server: server, ca: tlstest.NewCA(t)}
}

func (w *world) apply(yaml string) {
	w.t.Helper()
	for _, p := range w.server.Update([]istio.File{{Name: "mesh.yaml", Data: []byte(yaml)}}) {
		w.t.Fatal(p.String())
	}
}

// nacks are what clients rejected.
func (w *world) nacks() string {
	var b strings.Builder
	for _, c := range w.server.Status().Clients {
		for _, t := range c.Types {
			if t.NACK != nil && t.NACK.Active {
				b.WriteString(t.NACK.Error + "\n")
			}
		}
	}
	return b.String()
}

// bootstrap is that of a native client or server with an identity of its own.
func (w *world) bootstrap(account string) []byte {
	w.t.Helper()
	dir := w.t.TempDir()
	cert := w.ca.Workload(w.t, "spiffe://cluster.local/ns/shop/sa/"+account)
	root, _ := w.ca.PEM(w.t)
	for name, data := range map[string][]byte{
		"cert.pem": tlstest.CertificatePEM(cert.Certificate...), "key.pem": tlstest.KeyPEM(w.t, cert), "root.pem": root,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			w.t.Fatal(err)
		}
	}
	provider := map[string]any{"plugin_name": "file_watcher", "config": map[string]any{
		"certificate_file": filepath.Join(dir, "cert.pem"), "private_key_file": filepath.Join(dir, "key.pem"),
		"ca_certificate_file": filepath.Join(dir, "root.pem"), "refresh_interval": "600s",
	}}
	b, err := json.Marshal(map[string]any{
		"xds_servers": []any{map[string]any{
			"server_uri": w.address, "channel_creds": []any{map[string]any{"type": "insecure"}}, "server_features": []string{"xds_v3"},
		}},
		"node": map[string]any{
			"locality": map[string]any{"region": "r", "zone": "z"}, // grpc-js does not do without
			"cluster":  "shop",
			"id":       "sidecar~127.0.0.1~" + account + ".shop~shop.svc.cluster.local",
			"metadata": map[string]any{"NAMESPACE": "shop", "SERVICE_ACCOUNT": account, "GENERATOR": "grpc", "LABELS": map[string]any{"app": account}},
		},
		"certificate_providers":                  map[string]any{"default": provider},
		"server_listener_resource_name_template": "xds.istio.io/grpc/lds/inbound/%s",
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return b
}

// backend answers health checks and says who it is.
type backend struct {
	grpc_health_v1.UnimplementedHealthServer

	name string
	// fail makes so many calls fail with UNAVAILABLE.
	fail atomic.Int64
}

func (b *backend) Check(ctx context.Context, _ *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	if b.fail.Load() > 0 {
		b.fail.Add(-1)
		return nil, status.Error(codes.Unavailable, "as the test wants")
	}
	if err := grpc.SetHeader(ctx, metadata.Pairs("x-instance", b.name)); err != nil {
		return nil, err
	}
	return &grpc_health_v1.HealthCheckResponse{Status: grpc_health_v1.HealthCheckResponse_SERVING}, nil
}

// server is a gRPC server of either kind.
type server interface {
	grpc.ServiceRegistrar
	Serve(net.Listener) error
	Stop()
}

// serve runs a server until the test ends.
func serve(t *testing.T, s server, b *backend) (address string) {
	t.Helper()
	grpc_health_v1.RegisterHealthServer(s, b)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(ln) }()
	t.Cleanup(func() {
		s.Stop()
		// A test that is skipped may stop it before it serves.
		if err := <-done; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			t.Error(err)
		}
	})
	return ln.Addr().String()
}

// services are the payments at some addresses, of the versions v1, v2, ...
func services(mutual bool, addresses ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, `
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: payment, namespace: shop}
spec:
  hosts: [%s]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{number: 9090, name: grpc, protocol: GRPC}]
  workloadSelector: {labels: {app: payment}}
`, host)
	mode := ""
	if mutual {
		mode = ", security.istio.io/tlsMode: istio"
	}
	for i, address := range addresses {
		_, port, _ := strings.Cut(address, ":")
		fmt.Fprintf(&b, `---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: payment-%[1]d, namespace: shop}
spec: {address: 127.0.0.1, ports: {grpc: %[2]s}, labels: {app: payment, version: v%[1]d%[3]s}, serviceAccount: payment}
`, i+1, port, mode)
	}
	b.WriteString(`---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: payment, namespace: shop}
spec:
  host: ` + host + `
  SETTINGS
  subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]
`)
	return b.String()
}

// with puts settings into the DestinationRule, and routes behind it.
func with(services, settings, http string) string {
	yaml := strings.Replace(services, "SETTINGS", settings, 1)
	if http != "" {
		yaml += "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: payment, namespace: shop}\n" +
			"spec:\n  hosts: [" + host + "]\n  http:" + http + "\n"
	}
	return yaml
}

func to(subset string) string { return "{destination: {host: " + host + ", subset: " + subset + "}}" }

// until waits for a condition.
func until(t *testing.T, what string, condition func() bool) {
	t.Helper()
	limit := time.Now().Add(20 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		if time.Now().After(limit) {
			t.Fatalf("not in time: %s", what)
		}
		<-tick.C
	}
}
