package nativegrpc_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/xds"

	"github.com/inboardmesh/inboard/internal/worldtest"
	"github.com/inboardmesh/inboard/mesh"
	"github.com/inboardmesh/inboard/mesh/nativegrpc"
)

const (
	target     = "xds:///payment.shop.svc.cluster.local:9090"
	paymentID  = "spiffe://cluster.local/ns/shop/sa/payment"
	customerID = "spiffe://cluster.local/ns/shop/sa/customer"
)

// strict asks for mutual TLS everywhere.
const strict = `---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
`

// nativePayment is an xds.NewGRPCServer that is a guest of a mesh of its own.
type nativePayment struct {
	grpc_testing.UnimplementedTestServiceServer

	name    string
	address string
	mesh    *mesh.Mesh
	calls   atomic.Int64
	// fail makes the next calls fail with UNAVAILABLE.
	fail atomic.Int64
	// modes are the changes of the serving mode.
	modes chan xds.ServingModeChangeArgs
	stop  func()
}

// newNative starts a native server of the workload payment. It is stopped with the
// test.
func newNative(t *testing.T, w *worldtest.World, name string, options ...mesh.Option) *nativePayment {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return serveNative(t, w, name, ln, options...)
}

func serveNative(t *testing.T, w *worldtest.World, name string, ln net.Listener, options ...mesh.Option) *nativePayment {
	t.Helper()
	p := &nativePayment{
		name: name, address: ln.Addr().String(), modes: make(chan xds.ServingModeChangeArgs, 64),
		mesh: w.Join("shop", "payment", map[string]string{"app": "payment"}, options...),
	}
	guest, err := nativegrpc.New(p.mesh)
	if err != nil {
		t.Fatal(err)
	}
	server, err := xds.NewGRPCServer(append(guest.ServerOptions(),
		xds.ServingModeCallback(func(_ net.Addr, args xds.ServingModeChangeArgs) { p.modes <- args }))...)
	if err != nil {
		t.Fatal(err)
	}
	grpc_testing.RegisterTestServiceServer(server, p)
	done := make(chan error, 1)
	go func() { done <- server.Serve(guest.Listener(ln)) }()
	stopped := false
	p.stop = func() {
		if stopped {
			return
		}
		stopped = true
		server.Stop()
		if err := <-done; err != nil {
			t.Errorf("native server %s: %v", name, err)
		}
	}
	t.Cleanup(func() { p.stop() })
	return p
}

// awaitMode waits for the serving mode, and returns the error that came with it.
func (p *nativePayment) awaitMode(t *testing.T, want connectivity.ServingMode) error {
	t.Helper()
	timeout := time.NewTimer(20 * time.Second)
	defer timeout.Stop()
	for {
		select {
		case args := <-p.modes:
			if args.Mode == want {
				return args.Err
			}
		case <-timeout.C:
			t.Fatalf("server %s is not %v", p.name, want)
		}
	}
}

func (p *nativePayment) answer(ctx context.Context) (*grpc_testing.SimpleResponse, error) {
	p.calls.Add(1)
	if p.fail.Load() > 0 {
		p.fail.Add(-1)
		return nil, status.Error(codes.Unavailable, "as the test wants")
	}
	caller, serial := "nobody", ""
	if from, ok := peer.FromContext(ctx); ok {
		if info, ok := from.AuthInfo.(credentials.TLSInfo); ok && info.SPIFFEID != nil {
			caller, serial = info.SPIFFEID.String(), info.State.PeerCertificates[0].SerialNumber.String()
		}
	}
	return &grpc_testing.SimpleResponse{Hostname: p.name, Username: caller, ServerId: serial}, nil
}

func (p *nativePayment) UnaryCall(ctx context.Context, _ *grpc_testing.SimpleRequest) (*grpc_testing.SimpleResponse, error) {
	return p.answer(ctx)
}

func (p *nativePayment) FullDuplexCall(stream grpc_testing.TestService_FullDuplexCallServer) error {
	for {
		request, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := stream.Send(&grpc_testing.StreamingOutputCallResponse{Payload: request.GetPayload()}); err != nil {
			return err
		}
	}
}

// servers is the service payment, with the given servers as endpoints.
func servers(payments ...*nativePayment) string {
	addresses := make([]string, 0, len(payments))
	for _, p := range payments {
		addresses = append(addresses, p.address)
	}
	return service(addresses...)
}

// service is the service payment with endpoints on 127.0.0.1, whose versions are
// v1, v2, ...
func service(addresses ...string) string {
	var b strings.Builder
	b.WriteString(`
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: payment, namespace: shop}
spec:
  hosts: [payment.shop.svc.cluster.local]
  location: MESH_INTERNAL
  resolution: STATIC
  ports:
  - {number: 9090, name: grpc, protocol: GRPC}
  workloadSelector: {labels: {app: payment}}
`)
	for i, address := range addresses {
		_, port, _ := strings.Cut(address, ":")
		fmt.Fprintf(&b, `---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: payment-%[1]d, namespace: shop}
spec:
  address: 127.0.0.1
  ports: {grpc: %[2]s}
  labels: {app: payment, version: v%[1]d, security.istio.io/tlsMode: istio}
  serviceAccount: payment
`, i+1, port)
	}
	return b.String()
}

// guestOf is a mesh of the workload customer, open to native gRPC.
func guestOf(t *testing.T, w *worldtest.World) (*mesh.Mesh, *nativegrpc.Guest) {
	t.Helper()
	m := w.Join("shop", "customer", nil)
	guest, err := nativegrpc.New(m)
	if err != nil {
		t.Fatal(err)
	}
	return m, guest
}

// dial makes a native channel, which is closed with the test.
func dial(t *testing.T, guest *nativegrpc.Guest, target string, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(target, append(guest.DialOptions(), options...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func deadline(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// call makes a unary call.
func call(ctx context.Context, conn grpc.ClientConnInterface, headers ...string) (*grpc_testing.SimpleResponse, error) {
	ctx = metadata.AppendToOutgoingContext(ctx, headers...)
	return grpc_testing.NewTestServiceClient(conn).UnaryCall(ctx, &grpc_testing.SimpleRequest{})
}

// until waits for a condition, which takes no time or waits by itself.
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
