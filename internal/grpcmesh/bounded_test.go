package grpcmesh_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"

	"github.com/inboardmesh/inboard/retry"
)

// A handler that waits for a message notices, too.
func TestBT3_TheMaximumDurationOfAStreamEndsAWaitForAMessage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		in := plaintext(endpoint)
		in.Chains[0].MaxStreamDuration = 3 * time.Second
		f.serveAs(in, &backend{})
		f.forwardTo(endpoint)
		start := time.Now()
		stream, err := f.client().FullDuplexCall(withTimeout(t))
		if err != nil {
			t.Fatal(err)
		}
		if _, err = stream.Recv(); err == nil || time.Since(start) != 3*time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}

// What an attempt brings that is given up at the call's end is nobody's: it may still
// be bringing it.
func TestTheEndOfAHedgedCallReadsNothingOfWhatStillRuns(t *testing.T) {
	t.Parallel()
	for range 10 {
		synctest.Test(t, func(t *testing.T) {
			f := newFixture(t)
			f.serve(endpoint, &backend{before: hang})
			r := forward("main")
			r.Forward.Hedge = &retry.Hedge{Delay: 50 * time.Millisecond}
			r.Forward.Retry = &retry.Policy{MaxRetries: 2, On: retry.On5xx}
			f.configure(r, cluster("main", endpoint))
			ctx := metadata.AppendToOutgoingContext(t.Context(), "idempotency-key", "7")
			ctx, cancel := context.WithTimeout(ctx, 70*time.Millisecond)
			defer cancel()
			var header, trailer metadata.MD
			_, err := f.client().UnaryCall(ctx, &grpc_testing.SimpleRequest{}, grpc.Header(&header), grpc.Trailer(&trailer))
			if err == nil {
				t.Error("a payment that hangs has answered")
			}
		})
	}
}
