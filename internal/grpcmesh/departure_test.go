package grpcmesh_test

import (
	"context"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop/grpc_testing"

	"github.com/inboardmesh/inboard/outcome"
	"github.com/inboardmesh/inboard/retry"
)

// BT7: grpc-timeout is what is left after the wait for a connection, and what cannot
// finish in that is not sent.
func TestBT7_TheWaitForAConnectionIsTakenFromWhatTheNextHopHas(t *testing.T) {
	t.Parallel()
	for _, kind := range callKinds {
		for _, tooLate := range []bool{false, true} {
			t.Run(kind.name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					f := newFixture(t)
					f.dial = func(ctx context.Context, network, address string) (net.Conn, error) {
						time.Sleep(2 * time.Second)
						return f.network.DialContext(ctx, network, address)
					}
					var left time.Duration
					b := &backend{before: func(ctx context.Context, _ int64) error {
						if deadline, ok := ctx.Deadline(); ok {
							left = time.Until(deadline)
						}
						return nil
					}}
					f.serve(endpoint, b)
					route := retrying(2, retry.OnGRPCUnavailable|retry.OnGRPCDeadlineExceeded)
					route.Forward.Timeout = 5 * time.Second
					if tooLate {
						route.Forward.MinTime = 4 * time.Second
					}
					f.configure(route, cluster("main", endpoint))
					client := f.client()
					begin := time.Now()
					err := kind.call(t.Context(), client)
					if took := time.Since(begin); took != 2*time.Second {
						t.Errorf("took %v", took)
					}
					if !tooLate {
						if err != nil || left != 3*time.Second {
							t.Errorf("%v are left to the next hop: %v", left, err)
						}
						return
					}
					checkFailure(t, err, outcome.Timeout, codes.DeadlineExceeded, 1)
					if err == nil || !strings.Contains(err.Error(), "not sent: 3s are left, and it needs 4s") {
						t.Errorf("got %v", err)
					}
					if _, err := client.EmptyCall(withTimeout(t), &grpc_testing.Empty{}); err != nil {
						t.Errorf("the next, over the connection: %v", err)
					}
				})
			})
		}
	}
}
