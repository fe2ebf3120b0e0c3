package grpcmesh_test

import (
	"context"
	"net"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop/grpc_testing"

	"github.com/inboardmesh/inboard/breaker"
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/outcome"
)

// TestBC1_CallsThatWaitForAConnectionArePending: what waits for a connection
// counts, whatever becomes of it, and one more than the limit is refused, also if
// the caller would wait for ready.
func TestBC1_CallsThatWaitForAConnectionArePending(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		online := make(chan struct{})
		f.dial = func(ctx context.Context, kind, address string) (net.Conn, error) {
			select {
			case <-online:
				return f.network.DialContext(ctx, kind, address)
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		f.serve(endpoint, &backend{})
		c := cluster("main", endpoint)
		c.Cluster.Limits[discovery.PriorityDefault] = breaker.Limits{MaxConnections: 1, MaxPendingRequests: 3, MaxRequests: 10, MaxRetries: 1}
		f.configure(forward("main"), c)
		client := f.client()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		unary := func(ctx context.Context, options ...grpc.CallOption) <-chan error {
			ended := make(chan error, 1)
			go func() {
				_, err := client.EmptyCall(ctx, &grpc_testing.Empty{}, options...)
				ended <- err
			}()
			return ended
		}
		answered := unary(t.Context())
		canceled := unary(ctx)
		streamed := make(chan error, 1)
		go func() {
			stream, err := client.FullDuplexCall(ctx)
			if err == nil {
				_, err = stream.Recv()
			}
			streamed <- err
		}()
		synctest.Wait()
		pending := func() uint32 {
			config, _ := f.outbound.Target(target).Watch()
			return config.Clusters["main"].Gate(discovery.PriorityDefault).Usage().Pending
		}
		if got := pending(); got != 3 {
			t.Errorf("%d calls are pending, want 3", got)
		}
		checkFailure(t, <-unary(t.Context()), outcome.Overflow, codes.Unavailable, 1)
		checkFailure(t, <-unary(t.Context(), grpc.WaitForReady(true)), outcome.Overflow, codes.Unavailable, 1)
		cancel()
		checkFailure(t, <-canceled, outcome.Canceled, codes.Canceled, 1)
		checkFailure(t, <-streamed, outcome.Canceled, codes.Canceled, 1)
		if got := pending(); got != 1 {
			t.Errorf("%d calls are pending after two were canceled, want 1", got)
		}
		close(online)
		if err := <-answered; err != nil {
			t.Error(err)
		}
		if got := pending(); got != 0 {
			t.Errorf("%d calls are pending after the connection came, want 0", got)
		}
	})
}
