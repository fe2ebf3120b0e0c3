package grpcmesh_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/retry"
)

// hedging is two endpoints, the first of which hangs, and a route that hedges.
func hedging(t *testing.T) (f *fixture, slow, fast *backend) {
	t.Helper()
	f = newFixture(t)
	slow = &backend{name: "slow", before: hang}
	fast = &backend{name: "fast", before: func(ctx context.Context, _ int64) error {
		return grpc.SetTrailer(ctx, metadata.Pairs("who", "fast"))
	}}
	f.serve("10.0.0.1:80", slow)
	f.serve("10.0.0.2:80", fast)
	r := retrying(2, retry.OnGRPCUnavailable)
	r.Forward.Hedge = &retry.Hedge{Delay: 50 * time.Millisecond}
	r.Forward.Timeout = 10 * time.Second
	f.configure(r, cluster("main", "10.0.0.1:80", "10.0.0.2:80"))
	return f, slow, fast
}

func TestAUnaryCallIsHedgedIfItMayBeRepeated(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f, slow, _ := hedging(t)
		client := f.client()
		for range 4 {
			ctx := metadata.AppendToOutgoingContext(withTimeout(t), "idempotency-key", "7")
			var header, trailer metadata.MD
			var from peer.Peer
			begin := time.Now()
			reply, err := client.UnaryCall(ctx, &grpc_testing.SimpleRequest{Payload: &grpc_testing.Payload{Body: []byte("x")}},
				grpc.Header(&header), grpc.Trailer(&trailer), grpc.Peer(&from))
			if err != nil || reply.GetUsername() != "fast" || string(reply.GetPayload().GetBody()) != "x" {
				t.Fatalf("got %v, %v", reply, err)
			}
			if took := time.Since(begin); took > 60*time.Millisecond {
				t.Errorf("took %v", took)
			}
			if got := trailer.Get("who"); len(got) != 1 || header == nil || from.Addr == nil {
				t.Errorf("header %v, trailer %v, peer %v", header, trailer, from)
			}
		}
		if slow.calls.Load() == 0 {
			t.Error("no call was hedged")
		}
	})
}

func TestACallThatMayNotBeRepeatedIsNotHedged(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f, slow, fast := hedging(t)
		client := f.client()
		for range 2 { // one of them goes to the endpoint that hangs
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if err := callUnary(ctx, client); err != nil && status.Code(err) != codes.DeadlineExceeded {
				t.Errorf("got %v", err)
			}
		}
		if slow.calls.Load() != 1 || fast.calls.Load() != 1 {
			t.Errorf("%d and %d calls arrived", slow.calls.Load(), fast.calls.Load())
		}
	})
}

// Streams are retried only, see docs/parity.md. Who asks is told.
func TestStreamsAreNotHedged(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f, slow, fast := hedging(t)
		client := f.client()
		for range 2 {
			ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), "idempotency-key", "7"), time.Second)
			defer cancel()
			_ = callServerStreaming(ctx, client)
		}
		if slow.calls.Load() != 1 || fast.calls.Load() != 1 {
			t.Errorf("%d and %d calls arrived", slow.calls.Load(), fast.calls.Load())
		}
		ctx := metadata.AppendToOutgoingContext(t.Context(), "idempotency-key", "7")
		e, err := f.adapter.Explain(ctx, "mesh:///"+target, grpc_testing.TestService_StreamingOutputCall_FullMethodName)
		if err != nil || e.Retry == nil || e.Retry.Hedge != "after 50ms, unless it is a stream" || e.Retry.NotHedged != "" {
			t.Errorf("explained as %+v, %v", e, err)
		}
		e, err = f.adapter.Explain(t.Context(), "mesh:///"+target, grpc_testing.TestService_StreamingOutputCall_FullMethodName)
		if err != nil || e.Retry == nil || e.Retry.Hedge != "" || e.Retry.NotHedged == "" {
			t.Errorf("without a key: explained as %+v, %v", e, err)
		}
	})
}
