package grpcmesh_test

import (
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/interop/grpc_testing"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/breaker"
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/health"
)

// No connection, and nothing of the configuration, tells that an endpoint can be
// chosen again.
func TestWaitForReadyWaitsForAnEndpointThatIsFitAgain(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		with func(*discovery.Cluster)
	}{
		{"because its ejection has ended", func(c *discovery.Cluster) {
			c.Outlier = &balancer.OutlierConfig{
				Interval: time.Second, BaseEjectionTime: 3 * time.Second, MaxEjectionTime: 3 * time.Second, MaxEjectionPercent: 100, AlwaysEjectOneHost: true,
				Consecutive5xx: balancer.ConsecutiveFailures{Threshold: 2, Enforcing: 100},
			}
		}},
		{"because its breaker lets a probe pass", func(c *discovery.Cluster) {
			c.EndpointBreaker = &breaker.Settings{FailureRatio: 0.5, MinRequests: 2, Window: 10 * time.Second, OpenTime: 5 * time.Second, HalfOpenProbes: 1}
		}},
		{"because it passes its checks", func(c *discovery.Cluster) {
			c.HealthCheck = &health.Config{Timeout: time.Second, Interval: time.Second, NoTrafficInterval: time.Second, HTTP: &health.HTTP{Path: "/healthz", Codec: health.HTTP2}}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				b := f.serveBoth(endpoint)
				b.failing.Store(true)
				c := cluster("main", endpoint)
				tt.with(c.Cluster)
				f.configure(forward("main"), c)
				client := f.client()
				for range 5 {
					_, _ = client.EmptyCall(withTimeout(t), &grpc_testing.Empty{}) // until it is not chosen any more
					time.Sleep(100 * time.Millisecond)
				}
				b.failing.Store(false)
				begin := time.Now()
				if _, err := client.EmptyCall(withTimeout(t), &grpc_testing.Empty{}, grpc.WaitForReady(true)); err != nil {
					t.Fatal(err)
				}
				if took := time.Since(begin); took == 0 || took > 7*time.Second {
					t.Errorf("waited for %v", took)
				}
				if _, err := client.EmptyCall(withTimeout(t), &grpc_testing.Empty{}); err != nil {
					t.Error(err)
				}
			})
		})
	}
}
