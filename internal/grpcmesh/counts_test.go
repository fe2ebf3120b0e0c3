package grpcmesh_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/retry"
)

// TestS27_NothingStaysCounted: 10,000 calls end in every way that there is, with
// retries, and nothing counts any more.
func TestS27_NothingStaysCounted(t *testing.T) {
	t.Parallel()
	const callers, each = 50, 200
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.identify(paymentID)
		var servers []*server
		addresses := []string{"10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"}
		for _, address := range addresses {
			b := &backend{before: func(ctx context.Context, n int64) error {
				switch n % 5 {
				case 0:
					return status.Error(codes.Unavailable, "scripted failure")
				case 1:
					return status.Error(codes.Internal, "scripted failure")
				case 2:
					return hang(ctx, n)
				}
				return nil
			}}
			servers = append(servers, f.serveAs(strict(address), b))
		}
		route := retrying(2, retry.OnGRPCUnavailable|retry.OnReset)
		route.Forward.Timeout = 100 * time.Millisecond
		route.Forward.Retry.PerTryTimeout = 20 * time.Millisecond
		f.configure(route, mutual(cluster("main", addresses...), paymentID))
		client := f.client()
		time.AfterFunc(200*time.Millisecond, servers[0].grpc.Stop)
		var panics atomic.Int64
		together(callers, func(i int) {
			for n := range each {
				ctx, cancel := context.WithCancel(t.Context())
				if (i+n)%7 == 0 {
					time.AfterFunc(time.Duration(i)*time.Millisecond, cancel)
				}
				if (i+n)%11 == 0 {
					func() {
						defer func() {
							if recover() != nil {
								panics.Add(1)
							}
						}()
						_, _ = client.EmptyCall(ctx, &grpc_testing.Empty{}, grpc.ForceCodec(panicking{}))
					}()
				} else {
					_ = callKinds[(i+n)%len(callKinds)].call(ctx, client) // how it ends does not matter
				}
				cancel()
			}
		})
		synctest.Wait()
		if got := len(f.seen.ended(observe.Outbound)); got != callers*each {
			t.Errorf("%d calls ended, want %d", got, callers*each)
		}
		if got := panics.Load(); got < callers*each/20 {
			t.Errorf("%d calls ended in a panic: too few to tell", got)
		}
		f.checkNothingCounted() // before the channel and its connections are closed
	})
}

// panicking is a codec of an application that panics.
type panicking struct{ encoding.Codec }

func (panicking) Name() string                { return "proto" }
func (panicking) Marshal(any) ([]byte, error) { panic("out of order") }
