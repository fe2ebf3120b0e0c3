package httpmesh

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/breaker"
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/outcome"
	"github.com/inboardmesh/inboard/outcome/meshfail"
	"github.com/inboardmesh/inboard/retry"
)

// TestS26_ExactlyTheLimitArrives: 200 calls hang at once, of which 50 may; then 80 may.
// That the refused ones ended at once is to the microsecond: the time is fake.
func TestS26_ExactlyTheLimitArrives(t *testing.T) {
	t.Parallel()
	onBothProtocols(t, func(t *testing.T, protocol func(*discovery.Target)) {
		limited := func(n uint32) *discovery.Target {
			return newTarget(protocol, func(target *discovery.Target) {
				top(target).Forward.Retry = &retry.Policy{MaxRetries: 3, On: retry.On5xx | retry.OnConnectFailure}
				c := *target.Clusters["v1"].Cluster
				c.Limits[0] = breaker.DefaultLimits
				c.Limits[0].MaxRequests = n
				target.Clusters["v1"] = discovery.ClusterResult{Cluster: &c, Endpoints: target.Clusters["v1"].Endpoints}
			})
		}
		target := limited(50)
		w := newWorld(t, target, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		flood := func(n int) (refused *atomic.Int64) {
			refused = new(atomic.Int64)
			for range n {
				wg.Go(func() {
					begin := time.Now()
					resp, err := w.transport.RoundTrip(newRequest(ctx, t, http.MethodGet, paymentURL, nil))
					if err == nil {
						_ = resp.Body.Close()
					}
					e, ok := errors.AsType[*meshfail.Error](err)
					if ok && e.Kind == outcome.Overflow && e.Attempts == 1 && time.Since(begin) == 0 {
						refused.Add(1)
					}
				})
			}
			synctest.Wait()
			return refused
		}
		if got := flood(200).Load(); got != 150 || w.served.Load() != 50 {
			t.Errorf("%d calls arrived and %d were refused at once, want 50 and 150", w.served.Load(), got)
		}
		raised := limited(80)
		held := w.upstreams.Hold(raised.Clusters)
		defer w.upstreams.Release(held)
		if got := flood(200).Load(); got != 170 || w.served.Load() != 80 {
			t.Errorf("after the limit was raised to 80, %d calls are there and %d of 200 were refused", w.served.Load(), got)
		}
		cancel()
		wg.Wait()
		w.idle()
	})
}

// TestS19_LocalityShares are those of row BP4: X has 20 endpoints and weight 1, Y one
// endpoint and weight 2.
func TestS19_LocalityShares(t *testing.T) {
	t.Parallel()
	for percent, want := range map[int]float64{100: 33.3, 70: 32.9, 50: 25.9, 25: 14.9} {
		t.Run(fmt.Sprint(percent, " percent"), func(t *testing.T) {
			t.Parallel()
			onBothProtocols(t, func(t *testing.T, protocol func(*discovery.Target)) {
				const ofX, n = 20, 1000
				w := newWorld(t, newTarget(protocol, balancedTo(ofX+1, balancer.Config{LocalityWeighted: true}), func(target *discovery.Target) {
					all := target.Clusters["v1"].Endpoints.Localities[0].Endpoints
					for i := percent * ofX / 100; i < ofX; i++ {
						all[i].Health = balancer.Unhealthy
					}
					target.Clusters["v1"].Endpoints.Localities = []balancer.LocalityEndpoints{
						{Locality: balancer.Locality{Zone: "x"}, Weight: 1, Endpoints: all[:ofX]},
						{Locality: balancer.Locality{Zone: "y"}, Weight: 2, Endpoints: all[ofX:]},
					}
				}), nil)
				counts := w.replicas(ofX+1, nil)
				w.gets(n, 0)
				y := counts[ofX].Load()
				if share := 100 * float64(n-y) / n; math.Abs(share-want) > 1.5 {
					t.Errorf("X gets %.1f %%, want %.1f ± 1.5", share, want)
				}
				for i, c := range counts[:ofX] {
					if got, healthy := c.Load(), i < percent*ofX/100; (got > 0) != healthy {
						t.Errorf("endpoint %d of X, healthy %v, got %d requests", i, healthy, got)
					}
				}
			})
		})
	}
}
