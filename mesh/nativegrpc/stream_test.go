package nativegrpc_test

import (
	"context"
	"fmt"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/interop/grpc_testing"

	"github.com/inboardmesh/inboard/internal/worldtest"
	"github.com/inboardmesh/inboard/mesh/nativegrpc"
)

// manyServices are services with one endpoint all.
func manyServices(n int, address string) string {
	_, port, _ := strings.Cut(address, ":")
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: s%[1]d, namespace: shop}
spec:
  hosts: [s%[1]d.shop.svc.cluster.local]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{number: 9090, name: grpc, protocol: GRPC}]
  endpoints: [{address: 127.0.0.1, ports: {grpc: %[2]s}, serviceAccount: payment, labels: {security.istio.io/tlsMode: istio}}]
`, i, port)
	}
	return b.String()
}

// TestManyNativeTargetsShareOneStream: a hundred channels, and a server in the same
// process, are one stream to the control plane (istio/istio#53532). When it goes
// away, no call fails, and what changes afterwards arrives.
func TestManyNativeTargetsShareOneStream(t *testing.T) {
	t.Parallel()
	const targets = 100
	w := worldtest.New(t, "")
	payment := newNative(t, w, "a")
	config := servers(payment) + manyServices(targets, payment.address) + strict
	w.Apply(config)
	if err := payment.awaitMode(t, connectivity.ServingModeServing); err != nil {
		t.Fatal(err)
	}
	// The channels are guests of the server's own mesh.
	guest, err := nativegrpc.New(payment.mesh)
	if err != nil {
		t.Fatal(err)
	}
	conns := make([]*grpc.ClientConn, 0, targets)
	for i := range targets {
		conns = append(conns, dial(t, guest, fmt.Sprintf("xds:///s%d.shop.svc.cluster.local:9090", i)))
	}
	callAll := func() {
		t.Helper()
		var failed atomic.Int64
		var wg sync.WaitGroup
		for i, conn := range conns {
			wg.Go(func() {
				response, err := call(deadline(t), conn)
				if err != nil || response.GetUsername() != paymentID {
					failed.Add(1)
					t.Errorf("target %d: %v, %v", i, response, err)
				}
			})
		}
		wg.Wait()
	}
	callAll()
	if clients := w.Status().Clients; len(clients) != 1 {
		t.Errorf("%d streams to the control plane, want 1", len(clients))
	}
	if guests := payment.mesh.Guests(); len(guests) != targets+1 {
		t.Errorf("%d guests, want %d", len(guests), targets+1)
	}

	w.StopControlPlane()
	callAll()
	w.StartControlPlane()
	callAll()

	other := newNative(t, w, "b")
	w.Apply(servers(payment, other) + manyServices(targets, other.address) + strict)
	if err := other.awaitMode(t, connectivity.ServingModeServing); err != nil {
		t.Fatal(err)
	}
	for i, conn := range conns {
		until(t, fmt.Sprintf("target %d hears of the change", i), func() bool {
			response, err := call(deadline(t), conn)
			return err == nil && response.GetHostname() == "b"
		})
	}

	// A channel that is closed takes its part of the stream along.
	for _, conn := range conns[1:] {
		_ = conn.Close()
	}
	until(t, "what nobody asks for is given up", func() bool {
		for _, c := range w.Status().Clients {
			if c.Types["type.googleapis.com/envoy.config.cluster.v3.Cluster"].Subscribed <= 1 && len(payment.mesh.Guests()) == 2 {
				return true
			}
		}
		return false
	})
}

// TestNothingIsLeftOfTheRelay when the mesh is closed, in whatever order.
func TestNothingIsLeftOfTheRelay(t *testing.T) {
	w := worldtest.New(t, "")
	payment := newNative(t, w, "a")
	w.Apply(servers(payment) + strict)
	if err := payment.awaitMode(t, connectivity.ServingModeServing); err != nil {
		t.Fatal(err)
	}
	m, guest := guestOf(t, w)
	first, second := dial(t, guest, target), dial(t, guest, target)
	for _, conn := range []*grpc.ClientConn{first, second} {
		if _, err := call(deadline(t), conn); err != nil {
			t.Fatal(err)
		}
	}
	_ = first.Close()
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	// The guest that is left goes on with what it has, over the connection that it
	// has.
	if _, err := call(deadline(t), second); err != nil {
		t.Errorf("after the mesh was closed: %v", err)
	}
	_ = second.Close()
	if _, err := nativegrpc.New(m); err == nil {
		t.Error("a mesh that is closed takes guests")
	}
	payment.stop()
	if err := payment.mesh.Close(); err != nil {
		t.Fatal(err)
	}
	stacks := make([]byte, 1<<20)
	if stacks = stacks[:runtime.Stack(stacks, true)]; strings.Contains(string(stacks), "internal/relay.") {
		t.Errorf("goroutines of the relay are left:\n%s", stacks)
	}
}

// TestANativeServerAndTheMeshCallEachOther: the mesh's own clients and servers do
// not notice who is at the other end.
func TestANativeServerAndTheMeshCallEachOther(t *testing.T) {
	t.Parallel()
	w := worldtest.New(t, "")
	native := newNative(t, w, "native")
	w.Apply(servers(native) + strict)
	if err := native.awaitMode(t, connectivity.ServingModeServing); err != nil {
		t.Fatal(err)
	}
	m, guest := guestOf(t, w)
	conn, err := grpc.NewClient("mesh:///payment.shop.svc.cluster.local:9090", m.DialOptions()...)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	response, err := call(deadline(t), conn)
	if err != nil || response.GetUsername() != customerID {
		t.Errorf("the mesh calls a native server: %v, %v", response, err)
	}

	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.Apply(service(ln.Addr().String()) + strict)
	own := w.Join("shop", "payment", map[string]string{"app": "payment"})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	meshed, err := own.Serve(ctx, ln)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(own.ServerOptions()...)
	grpc_testing.RegisterTestServiceServer(server, &nativePayment{name: "mesh"})
	done := make(chan error, 1)
	go func() { done <- server.Serve(meshed) }()
	defer func() {
		server.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	channel := dial(t, guest, target)
	until(t, "a native client calls the mesh's server", func() bool {
		response, err = call(deadline(t), channel)
		return err == nil && response.GetHostname() == "mesh"
	})
}

// TestTwoMeshesDoNotNoticeEachOther: guests of each have its identity.
func TestTwoMeshesDoNotNoticeEachOther(t *testing.T) {
	t.Parallel()
	w := worldtest.New(t, "")
	payment := newNative(t, w, "a")
	w.Apply(servers(payment) + strict)
	if err := payment.awaitMode(t, connectivity.ServingModeServing); err != nil {
		t.Fatal(err)
	}
	for _, account := range []string{"ann", "bob"} {
		m := w.Join("shop", account, nil)
		guest, err := nativegrpc.New(m)
		if err != nil {
			t.Fatal(err)
		}
		response, err := call(deadline(t), dial(t, guest, target))
		if want := "spiffe://cluster.local/ns/shop/sa/" + account; err != nil || response.GetUsername() != want {
			t.Errorf("%v, %v, want a call from %q", response, err, want)
		}
	}
}
