package mesh_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"

	"github.com/inboardmesh/inboard/internal/tlstest"
	"github.com/inboardmesh/inboard/internal/worldtest"
	"github.com/inboardmesh/inboard/mesh"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

// tenant is one of several meshes in a process, with what it was told.
type tenant struct {
	mesh *mesh.Mesh
	id   string

	mu     sync.Mutex
	opened int // guarded by mu
	calls  int // guarded by mu
}

func (n *tenant) hooks() *observe.Hooks {
	return &observe.Hooks{
		ConnOpened: func(e observe.ConnEvent) {
			n.mu.Lock()
			defer n.mu.Unlock()
			if e.Direction == observe.Outbound && e.Err == nil {
				n.opened++
			}
		},
		CallEnded: func(_ context.Context, call *observe.Call) {
			if call.Direction != observe.Outbound {
				return
			}
			n.mu.Lock()
			defer n.mu.Unlock()
			n.calls++
		},
	}
}

// TestS40_V62_TwoMeshesInOneProcessShareNothing: each has connections of its own,
// made as who it is, and hears of its own calls only. Session tickets, which a
// connection of another could be resumed with, there are none.
func TestS40_V62_TwoMeshesInOneProcessShareNothing(t *testing.T) {
	t.Parallel()
	w := worldtest.New(t, "")
	w.Apply(services(w.Payment("v1-a", map[string]string{"app": "payment"})))
	var tenants []*tenant
	for _, account := range []string{"customer", "auditor"} {
		n := &tenant{id: "spiffe://cluster.local/ns/shop/sa/" + account}
		n.mesh = w.Join("shop", account, nil, mesh.WithHooks(n.hooks()))
		tenants = append(tenants, n)
	}
	const rounds = 10
	var wg sync.WaitGroup
	for _, n := range tenants {
		wg.Go(func() {
			for range rounds {
				if got := peerOverHTTP(t, n.mesh); got != n.id {
					t.Errorf("over HTTP %s called as %q", n.id, got)
				}
				if got := peerOverGRPC(t, n.mesh); got != n.id {
					t.Errorf("over gRPC %s called as %q", n.id, got)
				}
			}
		})
	}
	wg.Wait()
	for _, n := range tenants {
		n.mu.Lock()
		if n.opened == 0 || n.calls != 2*rounds {
			t.Errorf("%s: told of %d connections and %d calls, of which it made %d", n.id, n.opened, n.calls, 2*rounds)
		}
		n.mu.Unlock()
	}
}

func peerOverHTTP(t *testing.T, m *mesh.Mesh) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+paymentHost+"/", http.NoBody)
	if err != nil {
		t.Error(err)
		return ""
	}
	resp, err := m.Transport().RoundTrip(req)
	if err != nil {
		t.Error(err)
		return ""
	}
	defer resp.Body.Close()
	var reply worldtest.Reply
	if err := json.NewDecoder(resp.Body).Decode(&reply); err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("status %d, error %v", resp.StatusCode, err)
	}
	return reply.Peer
}

func peerOverGRPC(t *testing.T, m *mesh.Mesh) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	conn, err := grpc.NewClient("mesh:///"+paymentHost+":9090", m.DialOptions()...)
	if err != nil {
		t.Error(err)
		return ""
	}
	defer conn.Close()
	var header metadata.MD
	if _, err := grpc_testing.NewTestServiceClient(conn).EmptyCall(ctx, &grpc_testing.Empty{}, grpc.Header(&header)); err != nil {
		t.Error(err)
		return ""
	}
	var reply worldtest.Reply
	for _, text := range header.Get(worldtest.ReplyHeader) {
		if err := json.Unmarshal([]byte(text), &reply); err != nil {
			t.Error(err)
		}
	}
	return reply.Peer
}

// TestV62_TwoMeshesResumeNothing: a server outside their control issues tickets; each
// connection of each is a handshake of its own all the same, with its own certificate.
func TestV62_TwoMeshesResumeNothing(t *testing.T) {
	t.Parallel()
	x, ca := newRawXDS(t), tlstest.NewCA(t)
	type arrival struct {
		peer    string
		resumed bool
	}
	var (
		mu       sync.Mutex
		arrivals []arrival // guarded by mu
	)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		arrivals = append(arrivals, arrival{r.TLS.PeerCertificates[0].URIs[0].String(), r.TLS.DidResume})
	}))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{ca.Workload(t, paymentID)}, ClientAuth: tls.RequireAnyClientCert}
	server.StartTLS()
	defer server.Close()
	x.set(rawDestination(t, "payment.shop:80", "web"), rawCluster(t, "web", server.Listener.Addr().String(),
		`"tlsCertificateProviderInstance": {"instanceName": "default"}, "validationContext": {"caCertificateProviderInstance": {"instanceName": "default"}}`))
	var tenants []*tenant
	for _, id := range []string{customerID, strings.Replace(customerID, "customer", "auditor", 1)} {
		identity, err := meshtls.NewIdentity(ca.Workload(t, id), certificatesOf(ca))
		if err != nil {
			t.Fatal(err)
		}
		tenants = append(tenants, &tenant{id: id, mesh: x.join(mesh.WithIdentity("default", meshtls.NewStatic(identity)))})
	}
	const rounds = 4
	for range rounds {
		for _, n := range tenants {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://payment.shop:80/", http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			req.Close = true
			resp, err := n.mesh.Transport().RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
		}
	}
	mu.Lock()
	defer mu.Unlock()
	for i, got := range arrivals {
		if want := (arrival{peer: tenants[i%2].id}); got != want {
			t.Errorf("connection %d: %+v, want %+v", i, got, want)
		}
	}
	if len(arrivals) != 2*rounds {
		t.Errorf("%d requests have arrived", len(arrivals))
	}
}
