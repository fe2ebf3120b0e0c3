package mesh_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/inboardmesh/inboard/mesh"
)

// An HTTP server and an HTTP client. What differs from the same without a mesh
// are the lines with m in them.
func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	shop, err := startShop()
	check(err)
	defer shop.close()

	// The process payment.
	config, err := shop.bootstrap("payment")
	check(err)
	m, err := mesh.New(ctx, mesh.WithBootstrap(config))
	check(err)
	defer closeMesh(m)
	ln, err := m.Listen(ctx, "tcp", "127.0.0.1:0")
	check(err)
	server := &http.Server{ReadHeaderTimeout: time.Second, Handler: m.Handler(http.HandlerFunc(
		func(w http.ResponseWriter, r *http.Request) {
			caller, _ := mesh.PeerID(r.Context())
			fmt.Fprintf(w, "%s was charged", caller)
		}))}
	go func() { _ = server.Serve(ln) }() // until Shutdown
	defer func() { check(server.Shutdown(ctx)) }()
	shop.publish(ln.Addr())

	// The process customer.
	config, err = shop.bootstrap("customer")
	check(err)
	m, err = mesh.New(ctx, mesh.WithBootstrap(config))
	check(err)
	defer closeMesh(m)
	client := m.HTTPClient()
	resp, err := client.Get("http://payment.shop.svc.cluster.local:8080/charge")
	check(err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	check(err)
	fmt.Println(string(body))
	// Output: spiffe://cluster.local/ns/shop/sa/customer was charged
}

// A gRPC server and a gRPC client; the service here is gRPC's health service.
func Example_grpc() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	shop, err := startShop()
	check(err)
	defer shop.close()

	// The process payment.
	config, err := shop.bootstrap("payment")
	check(err)
	m, err := mesh.New(ctx, mesh.WithBootstrap(config))
	check(err)
	defer closeMesh(m)
	ln, err := m.Listen(ctx, "tcp", "127.0.0.1:0")
	check(err)
	server := grpc.NewServer(m.ServerOptions()...)
	grpc_health_v1.RegisterHealthServer(server, healthy{})
	go func() { _ = server.Serve(ln) }() // until GracefulStop
	defer server.GracefulStop()
	shop.publish(ln.Addr())

	// The process customer.
	config, err = shop.bootstrap("customer")
	check(err)
	m, err = mesh.New(ctx, mesh.WithBootstrap(config))
	check(err)
	defer closeMesh(m)
	conn, err := grpc.NewClient("mesh:///payment.shop.svc.cluster.local:8080", m.DialOptions()...)
	check(err)
	defer conn.Close()
	reply, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	check(err)
	fmt.Println(reply.GetStatus())
	// Output:
	// spiffe://cluster.local/ns/shop/sa/customer asks
	// SERVING
}

type healthy struct {
	grpc_health_v1.UnimplementedHealthServer
}

func (healthy) Check(ctx context.Context, _ *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	caller, _ := mesh.PeerID(ctx)
	fmt.Println(caller, "asks")
	return &grpc_health_v1.HealthCheckResponse{Status: grpc_health_v1.HealthCheckResponse_SERVING}, nil
}

// Without options, the environment says where the bootstrap is.
func ExampleNew() {
	ctx := context.Background()
	m, err := mesh.New(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer closeMesh(m)
	// Output: mesh: no bootstrap: set GRPC_XDS_BOOTSTRAP to the path of a bootstrap file, or GRPC_XDS_BOOTSTRAP_CONFIG to its content
}

// A failure of the mesh, or on the way, says what it is, where it was, and
// whether the request may have been seen.
func ExampleError() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	shop, err := startShop()
	check(err)
	defer shop.close()
	config, err := shop.bootstrap("customer")
	check(err)
	m, err := mesh.New(ctx, mesh.WithBootstrap(config), mesh.WithOutboundPolicy(mesh.RegistryOnly))
	check(err)
	defer closeMesh(m)

	resp, err := m.HTTPClient().Get("http://paymint.shop.svc.cluster.local:8080/charge")
	if err == nil {
		_ = resp.Body.Close()
	}
	if e, ok := errors.AsType[*mesh.Error](err); ok {
		fmt.Println(e.Kind, "of", e.Target, "safe to retry:", e.SafeToRetry())
	}
	// Output: unknown-host of paymint.shop.svc.cluster.local:8080 safe to retry: true
}

// A process ends in this order: no new requests, those that have begun, the
// mesh.
func ExampleMesh_Drain() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	shop, err := startShop()
	check(err)
	defer shop.close()
	config, err := shop.bootstrap("payment")
	check(err)
	m, err := mesh.New(ctx, mesh.WithBootstrap(config))
	check(err)
	ln, err := m.Listen(ctx, "tcp", "127.0.0.1:0")
	check(err)
	server := &http.Server{ReadHeaderTimeout: time.Second, Handler: m.Handler(http.NotFoundHandler())}
	ended := make(chan error)
	go func() { ended <- server.Serve(ln) }()

	// The zero policy would listen for 5 s more, for callers that have not heard yet.
	report, err := m.Drain(ctx, mesh.DrainPolicy{Listen: -1, Quiet: -1})
	fmt.Printf("finished %d, cut %d\n", report.Finished, report.Cut)
	fmt.Println(err, m.Ready(), server.Shutdown(ctx), m.Close())
	fmt.Println(<-ended)
	// Output:
	// finished 0, cut 0
	// <nil> mesh: draining <nil> <nil>
	// http: Server closed
}

func closeMesh(m *mesh.Mesh) { check(m.Close()) }

// check keeps the examples short; a program returns its errors.
func check(err error) {
	if err != nil {
		panic(err)
	}
}
