package mesh_test

import (
	"context"
	"encoding/json"
	"net/http"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"

	"github.com/inboardmesh/inboard/internal/worldtest"
	"github.com/inboardmesh/inboard/mesh"
	"github.com/inboardmesh/inboard/observe"
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
