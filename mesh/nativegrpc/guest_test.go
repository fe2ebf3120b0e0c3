package nativegrpc_test

import (
	"testing"

	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/interop/grpc_testing"

	"github.com/inboardmesh/inboard/internal/worldtest"
)

// TestANativeClientCallsANativeServer: with mutual TLS, unary and in a stream.
func TestANativeClientCallsANativeServer(t *testing.T) {
	t.Parallel()
	w := worldtest.New(t, "")
	payment := newNative(t, w, "a")
	w.Apply(servers(payment) + strict)
	if err := payment.awaitMode(t, connectivity.ServingModeServing); err != nil {
		t.Fatal(err)
	}
	m, guest := guestOf(t, w)
	conn := dial(t, guest, target)
	ctx := deadline(t)
	response, err := call(ctx, conn)
	if err != nil {
		t.Fatalf("%v\nguests: %+v", err, m.Guests())
	}
	if response.GetHostname() != "a" || response.GetUsername() != customerID {
		t.Errorf("answered by %q to %q", response.GetHostname(), response.GetUsername())
	}
	stream, err := grpc_testing.NewTestServiceClient(conn).FullDuplexCall(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, body := range []string{"one", "two"} {
		if err := stream.Send(&grpc_testing.StreamingOutputCallRequest{Payload: &grpc_testing.Payload{Body: []byte(body)}}); err != nil {
			t.Fatal(err)
		}
		answer, err := stream.Recv()
		if err != nil || string(answer.GetPayload().GetBody()) != body {
			t.Fatalf("%v, %v", answer, err)
		}
	}
}
