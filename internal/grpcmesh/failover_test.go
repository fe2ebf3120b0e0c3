package grpcmesh_test

import (
	"context"
	"fmt"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/retry"
)

// located is the endpoints of a locality, of which the first so many are healthy.
func located(priority, weight uint32, zone string, healthy int, addresses ...string) discovery.LocalityEndpoints {
	l := discovery.LocalityEndpoints{Locality: balancer.Locality{Zone: zone}, Priority: priority, Weight: weight}
	for i, address := range addresses {
		health := balancer.Healthy
		if i >= healthy {
			health = balancer.Unhealthy
		}
		l.Endpoints = append(l.Endpoints, balancer.Endpoint{Address: address, Health: health})
	}
	return l
}

// placed is a cluster of localities.
func placed(config balancer.Config, localities ...discovery.LocalityEndpoints) discovery.ClusterResult {
	c := cluster("main")
	c.Cluster.Balancer = config
	c.Endpoints = &discovery.Assignment{Name: "main", Localities: localities}
	return c
}

// block is some addresses: 10.0.n.1:9090 and so on.
func block(n, size int) []string {
	addresses := make([]string, size)
	for i := range addresses {
		addresses[i] = fmt.Sprintf("10.0.%d.%d:9090", n, i+1)
	}
	return addresses
}

// connecting is a route with retries for what could not be connected to. They are
// quick, so that all primaries are known to be away when the last one is made.
func connecting() *discovery.Route {
	route := forward("main")
	route.Forward.Retry = &retry.Policy{MaxRetries: 3, On: retry.OnConnectFailure, Backoff: retry.Backoff{Base: time.Millisecond}}
	return route
}

func TestS19_LocalitySharesOverHTTPAndGRPC(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		x, y := block(1, 20), block(2, 1)
		var ofX []*both
		for _, address := range x {
			ofX = append(ofX, f.serveBoth(address))
		}
		f.serveBoth(y[0])
		calls := f.clients()
		const n = 1000
		// BP4. Round robin among localities is exact but for a few calls.
		for percent, want := range map[int]float64{100: 33.3, 70: 32.9, 50: 25.9, 25: 14.9} {
			config := balancer.Config{LocalityWeighted: true}
			f.configure(forward("main"), placed(config, located(0, 1, "x", percent*len(x)/100, x...), located(0, 2, "y", 1, y...)))
			synctest.Wait()
			for protocol, call := range map[string]func(context.Context) error{"HTTP": calls.callHTTP, "gRPC": calls.callGRPC} {
				for _, b := range ofX {
					b.calls.Store(0)
					b.plain.Store(0)
				}
				for range n {
					if err := call(context.Background()); err != nil {
						t.Fatal(err)
					}
				}
				var got int64
				for _, b := range ofX {
					got += b.calls.Load() + b.plain.Load()
				}
				if share := 100 * float64(got) / n; math.Abs(share-want) > 1.5 {
					t.Errorf("%s, %d %% available: X gets %.1f %%, want %.1f ± 1.5", protocol, percent, share, want)
				}
			}
		}
	})
}

func TestBP7_G5_G6_FailoverToTheNextPriority(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		primaries, secondary := block(1, 3), block(2, 1)
		servers := make(map[string]*both)
		for _, address := range append(primaries[:2:2], secondary...) {
			servers[address] = f.serveBoth(address)
		}
		calls := f.clients()
		// share makes 300 calls over each protocol, and says what the secondary got
		// of them, in percent.
		share := func(what string) float64 {
			t.Helper()
			s := servers[secondary[0]]
			s.calls.Store(0)
			s.plain.Store(0)
			for range 300 {
				begin := time.Now()
				if err := calls.callHTTP(context.Background()); err != nil {
					t.Errorf("%s: HTTP: %v", what, err)
				}
				if err := calls.callGRPC(context.Background()); err != nil {
					t.Errorf("%s: gRPC: %v", what, err)
				}
				if took := time.Since(begin); took > 200*time.Millisecond { // G5: 100 ms for each
					t.Errorf("%s: two calls took %v", what, took)
				}
			}
			return float64(s.calls.Load()+s.plain.Load()) / 6
		}
		config := balancer.Config{PanicThreshold: 50}
		configure := func(healthy int) {
			f.configure(connecting(), placed(config, located(0, 1, "a", healthy, primaries...), located(1, 1, "b", 1, secondary...)))
			synctest.Wait()
		}
		configure(3) // one of which refuses connections: row G5
		if got := share("one of three refuses"); got != 0 {
			t.Errorf("the secondary got %.1f %%, although two primaries are there", got)
		}
		configure(1) // 33 % healthy bear 46 %; 4 deviations of 600 draws are 8 points
		if got := share("two of three are unhealthy"); got < 46 || got > 62 {
			t.Errorf("the secondary got %.1f %%, want 54 ± 8", got)
		}
		configure(0)
		if got := share("all primaries are unhealthy"); got != 100 {
			t.Errorf("the secondary got %.1f %%, want all", got)
		}
		configure(2)
		if got := share("two are back"); got > 15 { // 93 % bear 93 %
			t.Errorf("the secondary got %.1f %%, want about 7", got)
		}
	})
}

func TestG6_AllPrimariesRefuse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		primaries, secondary := block(1, 3), block(2, 1)
		s := f.serveBoth(secondary[0])
		f.configure(connecting(), placed(balancer.Config{}, located(0, 1, "a", 3, primaries...), located(1, 1, "b", 1, secondary...)))
		calls := f.clients()
		for i := range 50 {
			begin := time.Now()
			if err := calls.callHTTP(context.Background()); err != nil {
				t.Errorf("call %d: HTTP: %v", i, err)
			}
			if err := calls.callGRPC(context.Background()); err != nil {
				t.Errorf("call %d: gRPC: %v", i, err)
			}
			if took := time.Since(begin); took > 2*time.Second {
				t.Errorf("call %d took %v", i, took)
			}
		}
		if got := s.calls.Load() + s.plain.Load(); got != 100 {
			t.Errorf("the secondary got %d of 100 calls", got)
		}
	})
}

func TestG6_RetriesLeavePrimariesThatRefuseHoweverSlowTheyAre(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		primaries, secondary := block(1, 3), block(2, 1)
		s := f.serveBoth(secondary[0])
		// After a second the back-off of each primary is over, and it counts as
		// reachable again.
		route := connecting()
		route.Forward.Retry.Backoff = retry.Backoff{Base: time.Second}
		f.configure(route, placed(balancer.Config{}, located(0, 1, "a", 3, primaries...), located(1, 1, "b", 1, secondary...)))
		calls := f.clients()
		for i := range 10 {
			if err := calls.callHTTP(context.Background()); err != nil {
				t.Errorf("call %d: HTTP: %v", i, err)
			}
			if err := calls.callGRPC(context.Background()); err != nil {
				t.Errorf("call %d: gRPC: %v", i, err)
			}
		}
		if got := s.calls.Load() + s.plain.Load(); got != 20 {
			t.Errorf("the secondary got %d of 20 calls", got)
		}
	})
}
