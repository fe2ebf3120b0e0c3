package upstream

import (
	"fmt"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/outcome"
)

// ejections records, in lines, what outlier detection reports.
type ejections struct {
	mu    sync.Mutex
	start time.Time
	lines []string // guarded by mu
}

// watchEjections records the ejections of a world from now on.
func watchEjections(w *world) *ejections {
	e := &ejections{start: time.Now()}
	hooks := w.manager.options.Hooks
	hooks.EndpointEjected = func(event observe.EjectionEvent) { e.add("ejected", event) }
	hooks.EndpointReturned = func(event observe.EjectionEvent) { e.add("returned", event) }
	return e
}

func (e *ejections) add(what string, event observe.EjectionEvent) {
	record(&e.mu, &e.lines, fmt.Sprintf("%v: %s %s of %s (%s)", time.Since(e.start), what, event.Endpoint, event.Cluster, event.Reason))
}

// expect compares what was recorded since the last time.
func (e *ejections) expect(t *testing.T, want ...string) {
	t.Helper()
	synctest.Wait()
	e.mu.Lock()
	defer e.mu.Unlock()
	if diff := cmp.Diff(want, e.lines); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	e.lines = nil
}

var addresses = []string{"10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"}

// detecting gives a cluster outlier detection.
func detecting(edit func(*balancer.OutlierConfig)) func(*discovery.Cluster) {
	return func(c *discovery.Cluster) {
		config := balancer.DefaultOutlierConfig()
		if edit != nil {
			edit(&config)
		}
		c.Outlier = &config
	}
}

func fail5(t *testing.T, c *Cluster, address string) {
	t.Helper()
	for range 5 {
		endpoint(t, c, address).Report(&outcome.Outcome{Kind: outcome.Response, Status: 500, Sent: true})
	}
}

func TestBO1_SweepsAreEveryInterval(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		events := watchEjections(w)
		c := w.hold(result(detecting(nil), addresses...))
		time.Sleep(5 * time.Second)
		fail5(t, c, addresses[0])
		events.expect(t, "5s: ejected 10.0.0.1:80 of payment (consecutive-5xx)")
		time.Sleep(29 * time.Second) // 34 s: the time is not over
		events.expect(t)
		time.Sleep(2 * time.Second) // 36 s: over, but no sweep
		events.expect(t)
		time.Sleep(5 * time.Second)
		events.expect(t, "40s: returned 10.0.0.1:80 of payment (consecutive-5xx)")
	})
}

func TestBO2_HTTPAndGRPCShareAnEndpointsRow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		events := watchEjections(w)
		c := w.hold(result(detecting(nil), addresses...))
		e := endpoint(t, c, addresses[1])
		for range 3 {
			e.Report(&outcome.Outcome{Kind: outcome.Response, Status: 503, Sent: true})
		}
		events.expect(t)
		for range 2 {
			e.Report(&outcome.Outcome{Kind: outcome.Response, GRPC: true, Code: 14, Sent: true})
		}
		events.expect(t, "0s: ejected 10.0.0.2:80 of payment (consecutive-5xx)")
	})
}

func TestBO8_EjectedEndpointsKeepTheirConnections(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.serve(paymentAddress, answer)
		w.serve(addresses[1], func(rw http.ResponseWriter, r *http.Request) {
			time.Sleep(time.Minute)
			answer(rw, r)
		})
		c := w.hold(result(detecting(nil), addresses...))
		get(t, endpoint(t, c, paymentAddress))
		slow := start(t.Context(), t, endpoint(t, c, addresses[1]))
		synctest.Wait()
		fail5(t, c, addresses[1])
		for range 20 {
			e, err := c.Pick(balancer.PickInfo{})
			if err != nil || e.Address() == addresses[1] {
				t.Fatalf("picked %v: %v", e, err)
			}
		}
		w.expectConnections(2, 0)
		if conn := slow.wait(t); conn != "1" {
			t.Errorf("the call under way was answered by connection %s", conn)
		}
		w.expectConnections(2, 0)
		if conn, _ := get(t, endpoint(t, c, addresses[1])); conn != "1" {
			t.Errorf("after the ejection connection %s is used, want 1", conn)
		}
	})
}

func TestBO9_ChangesOfTheInterval(t *testing.T) {
	t.Parallel()
	interval := func(d time.Duration) func(*discovery.Cluster) {
		return detecting(func(c *balancer.OutlierConfig) { c.Interval, c.BaseEjectionTime = d, time.Millisecond })
	}
	for name, tt := range map[string]struct {
		at   time.Duration
		to   time.Duration
		want string
	}{
		"longer":                       {4 * time.Second, 20 * time.Second, "20s"},
		"shorter":                      {4 * time.Second, 6 * time.Second, "6s"},
		"shorter than what has passed": {4 * time.Second, 3 * time.Second, "4s"},
		"the same":                     {4 * time.Second, 10 * time.Second, "10s"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				events := watchEjections(w)
				c := w.hold(result(interval(10*time.Second), addresses...))
				fail5(t, c, addresses[0])
				time.Sleep(tt.at)
				w.hold(result(interval(tt.to), addresses...))
				time.Sleep(time.Minute)
				events.expect(t, "0s: ejected 10.0.0.1:80 of payment (consecutive-5xx)", tt.want+": returned 10.0.0.1:80 of payment (consecutive-5xx)")
			})
		})
	}
}

func TestBO9_ARemovedPolicyReturnsAll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		events := watchEjections(w)
		c := w.hold(result(detecting(nil), addresses...))
		fail5(t, c, addresses[0])
		time.Sleep(3 * time.Second)
		w.hold(result(nil, addresses...))
		events.expect(t, "0s: ejected 10.0.0.1:80 of payment (consecutive-5xx)", "3s: returned 10.0.0.1:80 of payment (consecutive-5xx)")
		expectPicked(t, c, addresses...)
		fail5(t, c, addresses[0])
		time.Sleep(time.Minute)
		events.expect(t)
		// A new one counts from its own start.
		w.hold(result(detecting(nil), addresses...))
		fail5(t, c, addresses[0])
		time.Sleep(time.Minute)
		events.expect(t, "1m3s: ejected 10.0.0.1:80 of payment (consecutive-5xx)", "1m33s: returned 10.0.0.1:80 of payment (consecutive-5xx)")
	})
}

func TestEveryEjectionEndsInTheEvents(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*world, map[string]*Cluster){
		"the endpoint leaves": func(w *world, _ map[string]*Cluster) { w.hold(result(detecting(nil), addresses[1:]...)) },
		"the cluster drains":  func(w *world, held map[string]*Cluster) { w.manager.Release(held) },
		"the manager closes":  func(w *world, _ map[string]*Cluster) { w.manager.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				events := watchEjections(w)
				held := w.manager.Hold(result(detecting(nil), addresses...))
				c := held["payment"]
				e := endpoint(t, c, addresses[0])
				fail5(t, c, addresses[0])
				time.Sleep(time.Second)
				end(w, held)
				events.expect(t, "0s: ejected 10.0.0.1:80 of payment (consecutive-5xx)", "1s: returned 10.0.0.1:80 of payment (consecutive-5xx)")
				for range 10 {
					e.Report(&outcome.Outcome{Kind: outcome.ConnectFailure})
				}
				time.Sleep(time.Hour)
				events.expect(t)
			})
		})
	}
}

func TestABadUpdateLeavesOutlierDetectionAsItWas(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		events := watchEjections(w)
		c := w.hold(result(detecting(nil), addresses...))
		fail5(t, c, addresses[0])
		w.hold(map[string]discovery.ClusterResult{"payment": {}})
		time.Sleep(31 * time.Second)
		events.expect(t, "0s: ejected 10.0.0.1:80 of payment (consecutive-5xx)", "30s: returned 10.0.0.1:80 of payment (consecutive-5xx)")
	})
}
