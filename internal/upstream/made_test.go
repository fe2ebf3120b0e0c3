package upstream

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/breaker"
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/health"
	"github.com/inboardmesh/inboard/outcome"
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
		turn := c.Turns(balancer.PickInfo{}, nil)[0]
		if turn.Err != nil {
			t.Fatal(turn.Err)
		}
		w.hold(result(nil, "10.0.0.2:80"))
		for _, h := range turn.Hosts {
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

// An endpoint whose breaker lets nothing pass is picked last, whether that is open or
// half-open with its probes under way.
func TestAnEndpointWhoseBreakerLetsNothingPassIsPickedLast(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		settings := breaker.Settings{FailureRatio: 0.5, MinRequests: 1, Window: time.Second, OpenTime: time.Second, HalfOpenProbes: 1}
		var addresses []string
		for i := range 10 {
			addresses = append(addresses, fmt.Sprintf("10.0.0.%d:80", i+1))
		}
		c := w.hold(result(func(c *discovery.Cluster) { c.EndpointBreaker = &settings }, addresses...))
		well := endpoint(t, c, "10.0.0.10:80")
		var ill []*Endpoint
		for e := range c.Endpoints {
			if e != well {
				ill = append(ill, e)
			}
		}
		onlyTheWell := func(when string) {
			t.Helper()
			for range 100 {
				if e, err := c.Pick(balancer.PickInfo{}); e != well {
					t.Fatalf("%s: picked %v, %v", when, e, err)
				}
			}
		}
		for _, e := range ill {
			permit, err := e.Allow()
			if err != nil {
				t.Fatal(err)
			}
			permit.Done(outcome.Failure)
		}
		onlyTheWell("open")
		time.Sleep(settings.OpenTime + 1)
		var probes []breaker.Permit
		for _, e := range ill {
			permit, err := e.Allow()
			if err != nil {
				t.Fatal(err)
			}
			probes = append(probes, permit)
		}
		onlyTheWell("probed")
		// A probe that takes too long keeps nobody out any more.
		time.Sleep(settings.OpenTime + 1)
		picked := make(map[*Endpoint]bool)
		for range 1000 {
			e, err := c.Pick(balancer.PickInfo{})
			if err != nil {
				t.Fatal(err)
			}
			picked[e] = true
		}
		if len(picked) != len(addresses) {
			t.Errorf("%d of %d endpoints are picked when probes are overdue", len(picked), len(addresses))
		}
		for _, probe := range probes {
			probe.Done(outcome.Success)
		}
	})
}
