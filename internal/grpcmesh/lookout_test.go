package grpcmesh_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop/grpc_testing"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/breaker"
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/health"
	"github.com/inboardmesh/inboard/outcome"
)

const lookoutPeer, lookoutOther = "10.0.0.1:9090", "10.0.0.2:9090"

// recovery is one of the ways in which endpoints become fit of which a channel is told
// by nobody.
type recovery struct {
	name string
	// configure configures the target.
	configure func(f *fixture)
	// within is how long it takes at most after the endpoints are well.
	within time.Duration
	// probes is whether one call passes before the others.
	probes bool
}

var recoveries = []recovery{
	{
		"the end of an ejection", func(f *fixture) {
			c := detecting(balancer.OutlierConfig{
				Interval: time.Second, BaseEjectionTime: 3 * time.Second, MaxEjectionTime: 3 * time.Second, MaxEjectionPercent: 100,
				Consecutive5xx: balancer.ConsecutiveFailures{Threshold: 1, Enforcing: 100},
			}, lookoutPeer, lookoutOther)
			f.configure(forward("main"), c)
		}, 4 * time.Second, false,
	},
	{
		"a health check that passes", func(f *fixture) {
			c := cluster("main", lookoutPeer, lookoutOther)
			c.Cluster.HealthCheck = &health.Config{
				Timeout: time.Second, Interval: time.Second, NoTrafficInterval: time.Second, UnhealthyThreshold: 1, HealthyThreshold: 1,
				HTTP: &health.HTTP{Path: "/healthz", Codec: health.HTTP2},
			}
			f.configure(forward("main"), c)
		}, time.Second, false,
	},
	{
		"a breaker of an endpoint that lets a call pass again", func(f *fixture) {
			c := cluster("main", lookoutPeer, lookoutOther)
			c.Cluster.EndpointBreaker = &breaker.Settings{
				FailureRatio: 0.5, MinRequests: 1, Window: 10 * time.Second, OpenTime: 5 * time.Second, HalfOpenProbes: 1,
			}
			f.configure(forward("main"), c)
		}, 5*time.Second + time.Millisecond, true,
	},
	{
		"a leaf of an aggregate that is fit again", func(f *fixture) {
			near, far := cluster("near", lookoutPeer), cluster("far", lookoutOther)
			near.Endpoints.Localities[0].Endpoints[0].Health = balancer.Unhealthy
			far.Cluster.Outlier = &balancer.OutlierConfig{
				Interval: time.Second, BaseEjectionTime: 3 * time.Second, MaxEjectionTime: 3 * time.Second, MaxEjectionPercent: 100,
				Consecutive5xx: balancer.ConsecutiveFailures{Threshold: 1, Enforcing: 100},
			}
			f.configure(forward("main"), aggregateOf("near", "far"), near, far)
		}, 4 * time.Second, false,
	},
}

// starve makes all endpoints of the target unfit, and then well.
func starve(t *testing.T, peers []*both, client grpc_testing.TestServiceClient) {
	t.Helper()
	for _, p := range peers {
		p.failing.Store(true)
	}
	for range 4 {
		_ = callUnary(withTimeout(t), client)
		time.Sleep(500 * time.Millisecond)
	}
	err := callUnary(withTimeout(t), client)
	checkFailure(t, err, outcome.NoEndpoint, codes.Unavailable, 1)
	for _, p := range peers {
		p.failing.Store(false)
	}
}

func TestWaitForReadyIsWokenByAnEndpointThatBecomesFitByItself(t *testing.T) {
	t.Parallel()
	for _, r := range recoveries {
		for _, kind := range callKinds {
			t.Run(r.name+"/"+kind.name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					f := newFixture(t)
					peers := []*both{f.serveBoth(lookoutPeer), f.serveBoth(lookoutOther)}
					r.configure(f)
					conn := f.channel()
					starve(t, peers, grpc_testing.NewTestServiceClient(conn))
					began := time.Now()
					together(10, func(int) {
						if err := kind.call(withTimeout(t), grpc_testing.NewTestServiceClient(waiting{conn})); err != nil {
							t.Error(err)
						}
					})
					if got := time.Since(began); got > r.within+20*time.Millisecond {
						t.Errorf("waited for %v, want %v", got, r.within)
					}
				})
			})
		}
	}
}

// waiting makes all calls of a channel wait for ready.
type waiting struct{ *grpc.ClientConn }

func (w waiting) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	return w.ClientConn.Invoke(ctx, method, args, reply, append(opts, grpc.WaitForReady(true))...)
}

func (w waiting) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	return w.ClientConn.NewStream(ctx, desc, method, append(opts, grpc.WaitForReady(true))...)
}

func TestWaitForReadyIsWokenByAResolver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		var known atomic.Bool
		f.lookup = func(context.Context, string, string) ([]netip.Addr, error) {
			if known.Load() {
				return []netip.Addr{netip.MustParseAddr("10.0.0.1")}, nil
			}
			return nil, errors.New("no such host")
		}
		f.serve("10.0.0.1:1", &backend{})
		named := cluster("main", net.JoinHostPort("payment.example", "1"))
		named.Cluster.DNS = &discovery.DNS{Refresh: 5 * time.Second}
		f.configure(forward("main"), named)
		time.AfterFunc(7*time.Second, func() { known.Store(true) })
		began := time.Now()
		if err := callUnary(withTimeout(t), f.client(grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))); err != nil {
			t.Error(err)
		}
		if got := time.Since(began); got != 10*time.Second {
			t.Errorf("waited for %v", got)
		}
	})
}

// TestCallsThatWaitForAnEndpointArePendingAndNothingElse: others need the permits.
func TestCallsThatWaitForAnEndpointArePendingAndNothingElse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		peers := []*both{f.serveBoth(lookoutPeer), f.serveBoth(lookoutOther)}
		c := detecting(balancer.OutlierConfig{
			Interval: time.Second, BaseEjectionTime: 30 * time.Second, MaxEjectionTime: 30 * time.Second, MaxEjectionPercent: 100,
			Consecutive5xx: balancer.ConsecutiveFailures{Threshold: 1, Enforcing: 100},
		}, lookoutPeer, lookoutOther)
		c.Cluster.Limits[discovery.PriorityDefault] = breaker.Limits{MaxConnections: 10, MaxPendingRequests: 5, MaxRequests: 1, MaxRetries: 1}
		f.configure(forward("main"), c)
		conn := f.channel()
		client := grpc_testing.NewTestServiceClient(conn)
		starve(t, peers, client)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		ended := make(chan error, 5)
		for range 5 {
			go func() { ended <- callUnary(ctx, grpc_testing.NewTestServiceClient(waiting{conn})) }()
			synctest.Wait() // there is one permit
		}
		// They are woken, and need none to find that there is nothing for them.
		c.Endpoints = &discovery.Assignment{Name: "main", Localities: c.Endpoints.Localities}
		f.configure(forward("main"), c)
		synctest.Wait()
		if got := f.gate().Usage(); got.Requests != 0 || got.Pending != 5 {
			t.Errorf("5 calls wait: %+v", got)
		}
		checkFailure(t, callUnary(t.Context(), client), outcome.NoEndpoint, codes.Unavailable, 1)
		// One more than may wait.
		checkFailure(t, callUnary(t.Context(), grpc_testing.NewTestServiceClient(waiting{conn})), outcome.Overflow, codes.Unavailable, 1)
		cancel()
		for range 5 {
			checkFailure(t, <-ended, outcome.Canceled, codes.Canceled, 1)
		}
		time.Sleep(30 * time.Second)
		if err := callUnary(withTimeout(t), client); err != nil {
			t.Error(err)
		}
	})
}

// TestWaitForReadyDoesNotWaitForAClusterThatIsGone: its endpoints stay as they are.
func TestWaitForReadyDoesNotWaitForAClusterThatIsGone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.serve(lookoutPeer, &backend{})
		f.configure(forward("main"), cluster("main"))
		client := f.client(grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
		ended := make(chan error, 1)
		go func() { ended <- callUnary(t.Context(), client) }()
		time.Sleep(time.Second)
		f.configure(forward("other"), cluster("other", lookoutPeer))
		synctest.Wait()
		select {
		case err := <-ended:
			checkFailure(t, err, outcome.NoEndpoint, codes.Unavailable, 1)
		default:
			t.Error("the call waits in vain")
		}
		if err := callUnary(withTimeout(t), client); err != nil {
			t.Error(err)
		}
	})
}
