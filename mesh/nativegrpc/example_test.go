package nativegrpc_test

import (
	"context"
	"fmt"
	"net"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/xds"

	"github.com/inboardmesh/inboard/mesh/meshtest"
	"github.com/inboardmesh/inboard/mesh/nativegrpc"
)

// A channel to "xds:///" is a guest of the mesh.
func Example() {
	t := &exampleTB{}
	defer t.end()
	w := meshtest.New(t) // in your test: its own t
	w.Service("payment.shop", meshtest.GRPC(9090, func(s grpc.ServiceRegistrar) {
		grpc_health_v1.RegisterHealthServer(s, health.NewServer())
	}))
	m := w.Workload("customer.shop") // in your code: mesh.New

	guest, err := nativegrpc.New(m)
	if err != nil {
		fmt.Println(err)
		return
	}
	options := append(guest.DialOptions(), inMemory(w)) // in your code: guest.DialOptions()
	conn, err := grpc.NewClient("xds:///payment.shop.svc.cluster.local:9090", options...)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()
	response, err := grpc_health_v1.NewHealthClient(conn).Check(context.Background(), &grpc_health_v1.HealthCheckRequest{})
	fmt.Println(response.GetStatus(), err)
	for _, g := range m.Guests() {
		fmt.Println(g.Listeners[0].Name)
	}
	// Output:
	// SERVING <nil>
	// payment.shop.svc.cluster.local:9090
}

// A native server gets its policies and its certificate from the mesh.
func ExampleGuest_ServerOptions() {
	t := &exampleTB{}
	defer t.end()
	m := meshtest.New(t).Workload("payment.shop") // in your code: mesh.New

	guest, err := nativegrpc.New(m)
	if err != nil {
		fmt.Println(err)
		return
	}
	mode := make(chan string, 1)
	srv, err := xds.NewGRPCServer(append(guest.ServerOptions(), xds.ServingModeCallback(
		func(_ net.Addr, args xds.ServingModeChangeArgs) { mode <- args.Mode.String() }))...)
	if err != nil {
		fmt.Println(err)
		return
	}
	grpc_health_v1.RegisterHealthServer(srv, health.NewServer())
	ln, err := net.Listen("tcp", "127.0.0.1:0") // in your code: the port of the endpoint
	if err != nil {
		fmt.Println(err)
		return
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(guest.Listener(ln)) }()
	fmt.Println(<-mode)
	srv.Stop()
	fmt.Println(<-done)
	// Output:
	// SERVING
	// <nil>
}

// inMemory connects to the service of the example, which is on no network.
func inMemory(w *meshtest.World) grpc.DialOption {
	return grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
		return w.DialContext(ctx, "tcp", "payment.shop:9090")
	})
}

// exampleTB is what a test would be.
type exampleTB struct{ cleanups []func() }

func (t *exampleTB) Helper()                           {}
func (t *exampleTB) Logf(string, ...any)               {}
func (t *exampleTB) Cleanup(f func())                  { t.cleanups = append(t.cleanups, f) }
func (t *exampleTB) Errorf(format string, args ...any) { fmt.Printf(format+"\n", args...) }
func (t *exampleTB) Fatal(args ...any)                 { panic(fmt.Sprint(args...)) }
func (t *exampleTB) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

func (t *exampleTB) end() {
	for _, f := range slices.Backward(t.cleanups) {
		f()
	}
}
