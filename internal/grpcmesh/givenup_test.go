package grpcmesh_test

import (
	"context"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc"

	"github.com/inboardmesh/inboard/observe"
)

// TestAStreamThatIsGivenUpAsItOpensIsForgotten: its end must not come before those who
// open it have written down that it lasts. The race detector tells.
func TestAStreamThatIsGivenUpAsItOpensIsForgotten(t *testing.T) {
	t.Parallel()
	const streams = 300
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.serve("10.0.0.1:1", &backend{})
		f.forwardTo("10.0.0.1:1")
		type cancelKey struct{}
		client := f.client(grpc.WithChainStreamInterceptor(func(
			ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption,
		) (grpc.ClientStream, error) {
			stream, err := streamer(ctx, desc, cc, method, opts...)
			ctx.Value(cancelKey{}).(context.CancelFunc)()
			return stream, err
		}))
		together(streams, func(int) {
			ctx, cancel := context.WithCancel(t.Context())
			// Nothing follows that would make who ends the stream wait for who opened it.
			_, _ = client.FullDuplexCall(context.WithValue(ctx, cancelKey{}, cancel))
		})
		synctest.Wait()
		if got := len(f.seen.ended(observe.Outbound)); got != streams {
			t.Errorf("%d streams ended, want %d", got, streams)
		}
		f.checkNothingCounted()
	})
}
