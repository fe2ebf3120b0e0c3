package grpcmesh_test

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/outcome"
	"github.com/inboardmesh/inboard/retry"
)

// partingDialer is a network on which connecting takes 300 ms. It lets only a few
// connections be made, so that whoever makes one after the other comes to an end.
type partingDialer struct {
	f     *fixture
	dials atomic.Int64
}

func newPartingDialer(f *fixture) *partingDialer {
	d := &partingDialer{f: f}
	f.dial = d.dial
	return d
}

func (d *partingDialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if d.dials.Add(1) > 50 {
		return nil, errors.New("too many connections")
	}
	select {
	case <-time.After(300 * time.Millisecond):
		return d.f.network.DialContext(ctx, network, address)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// A call belongs to the clusters of the configuration that it began with. Its
// cluster's endpoints have left by the time that it wants a connection.
func TestCallsOfAClusterThatIsGoneAreServed(t *testing.T) {
	t.Parallel()
	const calls = 3 // as many as may be retried at a time
	other := "10.0.0.2:9090"
	for _, tt := range []struct {
		name  string
		first error         // of each server, once
		after time.Duration // the route moves
		with  func(*discovery.Route)
		// idle is whether there is a connection before.
		idle bool
	}{
		{name: "while it waits for the first connection", after: 150 * time.Millisecond},
		{name: "while it is in the pause before a retry", after: time.Millisecond, first: status.Error(codes.Unavailable, "not now"), idle: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				var failing atomic.Bool
				b := &backend{before: func(context.Context, int64) error {
					if failing.Load() {
						return tt.first
					}
					return nil
				}}
				servers := []*server{f.serve(endpoint, b), f.serve(other, b)}
				route := func(to string) *discovery.Route {
					r := retrying(3, retry.OnGRPCUnavailable)
					r.Forward.Clusters[0].Name = to
					r.Forward.Retry.Backoff = retry.Backoff{Base: 10 * time.Second, Max: 10 * time.Second}
					return r
				}
				f.configure(route("old"), cluster("old", endpoint, other))
				client := f.client()
				if tt.idle {
					for range 4 {
						if _, err := client.EmptyCall(withTimeout(t), &grpc_testing.Empty{}); err != nil {
							t.Fatal(err)
						}
					}
				}
				dialer := newPartingDialer(f)
				failing.Store(tt.first != nil)
				time.AfterFunc(tt.after, func() {
					failing.Store(false)
					f.configure(route("new"), cluster("new", endpoint, other))
				})
				together(calls, func(int) {
					if _, err := client.EmptyCall(withTimeout(t), &grpc_testing.Empty{}); err != nil {
						t.Error(err)
					}
				})
				if n := dialer.dials.Load(); n > 6 {
					t.Errorf("%d connections were made for %d calls", n, calls)
				}
				time.Sleep(10 * time.Second)
				if n := servers[0].connections() + servers[1].connections(); n > 0 {
					t.Errorf("%d connections to endpoints that have left are still open", n)
				}
				if _, err := client.EmptyCall(withTimeout(t), &grpc_testing.Empty{}); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// An endpoint that has left and does not answer is given up, as any other.
func TestACallOfAClusterThatIsGoneFailsWhenNobodyAnswers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		dialer := newPartingDialer(f)
		f.configure(forward("old"), cluster("old", "10.0.0.7:1", "10.0.0.8:1"))
		time.AfterFunc(150*time.Millisecond, func() { f.forwardTo("10.0.0.9:1") })
		_, err := f.client().EmptyCall(withTimeout(t), &grpc_testing.Empty{})
		if status.Code(err) != codes.Unavailable {
			t.Errorf("got %v, want that it cannot connect", err)
		}
		made := dialer.dials.Load()
		if made > 6 {
			t.Errorf("%d connections were tried", made)
		}
		time.Sleep(time.Hour)
		if n := dialer.dials.Load(); n > made+2 {
			t.Errorf("connecting to endpoints that have left goes on: %d times, %d for the call", n, made)
		}
	})
}

// A call that was routed to an endpoint which leaves, as the last of its cluster, is
// served there, as over HTTP.
func TestACallWhoseClusterIsEmptiedIsServed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.serve(endpoint, &backend{})
		dialer := newPartingDialer(f)
		f.forwardTo(endpoint)
		client := f.client()
		time.AfterFunc(150*time.Millisecond, func() { f.forwardTo() })
		together(3, func(int) {
			if _, err := client.EmptyCall(withTimeout(t), &grpc_testing.Empty{}); err != nil {
				t.Error(err)
			}
		})
		if n := dialer.dials.Load(); n > 2 {
			t.Errorf("%d connections were made", n)
		}
		_, err := client.EmptyCall(withTimeout(t), &grpc_testing.Empty{})
		checkFailure(t, err, outcome.NoEndpoint, codes.Unavailable, 1)
	})
}
