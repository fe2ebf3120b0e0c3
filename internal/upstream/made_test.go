package upstream

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/breaker"
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/health"
)

func TestAnEndpointIsMadeWhenItIsAskedFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		settings := breaker.Settings{FailureRatio: 0.5, MinRequests: 1, Window: time.Second, OpenTime: time.Second}
		c := w.hold(result(nil, "10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"))
		if made := slices.Collect(c.Made); len(made) != 0 {
			t.Fatalf("%d endpoints are there before a call", len(made))
		}
		first, err := c.Pick(balancer.PickInfo{})
		if err != nil {
			t.Fatal(err)
		}
		if made := slices.Collect(c.Made); !slices.Equal(made, []*Endpoint{first}) {
			t.Fatalf("%d endpoints are there, want the one of the call", len(made))
		}

		// One that is there follows the configuration, and so does one that comes later.
		w.hold(result(func(c *discovery.Cluster) { c.EndpointBreaker = &settings }, "10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"))
		for e := range c.Endpoints {
			if e.errorRate.Load() == nil {
				t.Errorf("%s has no breaker", e.Address())
			}
		}
	})
}

// A call may have picked a host a moment before it left.
func TestAnEndpointThatIsMadeAfterItHasLeftIsDraining(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.hold(result(nil, "10.0.0.1:80", "10.0.0.2:80"))
		hosts, err := c.Candidates(nil)
		if err != nil {
			t.Fatal(err)
		}
		w.hold(result(nil, "10.0.0.2:80"))
		for _, h := range hosts {
			if e := c.endpoint(h); e.Draining() != (e.Address() == "10.0.0.1:80") {
				t.Errorf("%s drains: %v", e.Address(), e.Draining())
			}
		}
	})
}

func TestManyMakeOneEndpoint(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.hold(result(nil, "10.0.0.1:80"))
		var mu sync.Mutex
		made := make(map[*Endpoint]bool)
		var calls sync.WaitGroup
		for range 8 {
			calls.Go(func() {
				e, err := c.Pick(balancer.PickInfo{})
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				made[e] = true
			})
		}
		calls.Wait()
		if len(made) != 1 {
			t.Errorf("%d endpoints of one address", len(made))
		}
	})
}

// A host that is new where hosts are checked must not be picked before it has passed.
func TestAnEndpointThatIsCheckedIsMadeWithItsHost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		checked := func(c *discovery.Cluster) {
			c.HealthCheck = &health.Config{Interval: time.Minute, Timeout: time.Second, HealthyThreshold: 1, UnhealthyThreshold: 1, TCP: &health.TCP{}}
		}
		c := w.hold(result(checked, "10.0.0.1:80"))
		w.hold(result(checked, "10.0.0.1:80", "10.0.0.2:80"))
		if made := slices.Collect(c.Made); len(made) != 2 {
			t.Errorf("%d endpoints are checked, want 2", len(made))
		}
	})
}
