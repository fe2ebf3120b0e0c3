package nativegrpc_test

import (
	"context"
	"crypto/tls"
	"net"
	"slices"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/xds"

	"github.com/inboardmesh/inboard/internal/tlstest"
	"github.com/inboardmesh/inboard/internal/worldtest"
	"github.com/inboardmesh/inboard/mesh"
	"github.com/inboardmesh/inboard/mesh/nativegrpc"
)

// askingService notes whom mesh.PeerID tells that calls.
type askingService struct {
	grpc_testing.UnimplementedTestServiceServer

	mu    sync.Mutex
	found []string // guarded by mu
}

func (s *askingService) note(who string, ctx context.Context) { //nolint:revive // who notes comes first
	found := who + ": nobody"
	if id, ok := mesh.PeerID(ctx); ok {
		found = who + ": " + id.String()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.found = append(s.found, found)
}

func (s *askingService) take() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := s.found
	s.found = nil
	return found
}

func (s *askingService) UnaryCall(ctx context.Context, _ *grpc_testing.SimpleRequest) (*grpc_testing.SimpleResponse, error) {
	s.note("handler", ctx)
	return new(grpc_testing.SimpleResponse), nil
}

func (s *askingService) FullDuplexCall(stream grpc_testing.TestService_FullDuplexCallServer) error {
	s.note("handler", stream.Context())
	return nil
}

// serve serves with options until the test ends.
func (s *askingService) serve(t *testing.T, guest *nativegrpc.Guest, options ...grpc.ServerOption) (address string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server, err := xds.NewGRPCServer(append(guest.ServerOptions(), append(options,
		grpc.ChainUnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
			s.note("interceptor", ctx)
			return handler(ctx, req)
		}),
		grpc.ChainStreamInterceptor(func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
			s.note("interceptor", stream.Context())
			return handler(srv, stream)
		}))...)...)
	if err != nil {
		t.Fatal(err)
	}
	grpc_testing.RegisterTestServiceServer(server, s)
	done := make(chan error, 1)
	go func() { done <- server.Serve(guest.Listener(ln)) }()
	t.Cleanup(func() {
		server.Stop()
		<-done
	})
	return ln.Addr().String()
}

// TestANativeHandlerLearnsWhoCalls: from mesh.PeerID, as under the mesh's own server,
// if the mesh's credentials have verified the caller; not in plaintext, and not from
// credentials of the application's own, which may verify nobody.
func TestANativeHandlerLearnsWhoCalls(t *testing.T) {
	t.Parallel()
	root := tlstest.NewCA(t)
	w := worldtest.NewSignedBy(t, root, "")
	guest, err := nativegrpc.New(w.Join("shop", "payment", map[string]string{"app": "payment"}))
	if err != nil {
		t.Fatal(err)
	}
	asked := new(askingService)
	address := asked.serve(t, guest)
	w.Apply(service(address))
	_, client := guestOf(t, w)
	ask := func(conn grpc.ClientConnInterface, want string) {
		t.Helper()
		stub := grpc_testing.NewTestServiceClient(conn)
		asked.take()
		if _, err := stub.UnaryCall(deadline(t), new(grpc_testing.SimpleRequest), grpc.WaitForReady(true)); err != nil {
			t.Fatal(err)
		}
		stream, err := stub.FullDuplexCall(deadline(t))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = stream.Recv() // the end
		both := []string{"interceptor: " + want, "handler: " + want}
		if got := asked.take(); !slices.Equal(got, append(both, both...)) {
			t.Errorf("%q, want %q", got, want)
		}
	}
	mutual := dial(t, client, target)
	ask(mutual, customerID)
	ask(mutual, customerID)

	plain, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = plain.Close() })
	ask(plain, "nobody")

	// The same certificate, of which nobody has looked at who signed it.
	pretended := tlstest.NewCA(t).Workload(t, customerID)
	own := asked.serve(t, guest, grpc.Creds(credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{root.Workload(t, paymentID)}, ClientAuth: tls.RequireAnyClientCert,
	})))
	w.Apply(service(address, own))
	conn, err := grpc.NewClient("passthrough:///"+own, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{pretended}, InsecureSkipVerify: true,
	})))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	ask(conn, "nobody")
}
