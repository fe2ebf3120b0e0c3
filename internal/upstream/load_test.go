package upstream

import (
	"reflect"
	"runtime"
	"sync"
	"testing"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/outcome"
)

func loadCluster(reports *discovery.LoadReports) *discovery.Cluster {
	return &discovery.Cluster{Name: "c", EDSName: "service", LoadReports: reports}
}

func loadAssignment() *discovery.Assignment {
	return &discovery.Assignment{Name: "service", Localities: []discovery.LocalityEndpoints{
		{Locality: balancer.Locality{Zone: "a"}, Weight: 1, Endpoints: []balancer.Endpoint{{Address: "10.0.0.1:80", Weight: 1}}},
	}}
}

func all(string) bool { return true }

func TestX104_CallsAreCountedOnceHoweverOftenItIsAsked(t *testing.T) {
	t.Parallel()
	m := NewManager(Options{})
	defer m.Close()
	reports := &discovery.LoadReports{Metrics: []string{"cpu_utilization", "named_metrics.*", "utilization.gpu"}}
	hold := func(c *discovery.Cluster) *Cluster {
		return m.Hold(map[string]discovery.ClusterResult{"c": {Cluster: c, Endpoints: loadAssignment()}})["c"]
	}
	c := hold(loadCluster(nil))
	endpoint, err := c.Pick(balancer.PickInfo{})
	if err != nil {
		t.Fatal(err)
	}
	if load := endpoint.Issued(); load != nil {
		t.Error("calls are counted although nobody asks")
	}
	c.CountDrop("x")
	hold(loadCluster(reports))
	if loads := m.Loads(all); len(loads) != 0 {
		t.Errorf("loads %+v before the first call", loads)
	}
	const calls = 50
	var running sync.WaitGroup
	for i := range calls {
		running.Go(func() {
			load := endpoint.Issued()
			if i%5 == 0 {
				load.Withdraw()
				return
			}
			endpoint.noteMetrics(&balancer.LoadReport{CPU: 0.5, Named: map[string]float64{"q": 2}})
			load.Done(&outcome.Outcome{Kind: outcome.Response, Status: 200 + 300*(i%5/4)})
		})
	}
	running.Wait()
	open := endpoint.Issued()
	c.CountDrop("tide")
	c.CountDrop("")
	loads := m.Loads(all)
	if len(loads) != 1 || loads[0].Cluster != "c" || loads[0].Service != "service" || loads[0].Dropped != 2 || loads[0].Drops["tide"] != 1 {
		t.Fatalf("loads %+v", loads)
	}
	got := loads[0].Localities[0]
	if got.Locality.Zone != "a" || got.Issued != 41 || got.Succeeded != 30 || got.Failed != 10 || got.InProgress != 1 ||
		got.Metrics["cpu_utilization"] != (discovery.MetricLoad{Count: 40, Total: 20}) || got.Metrics["named_metrics.q"].Total != 80 {
		t.Errorf("load %+v", got)
	}
	// A change of the configuration forgets nothing, and nothing is told twice.
	hold(loadCluster(&discovery.LoadReports{}))
	open.Done(&outcome.Outcome{Kind: outcome.Response, Status: 200})
	if loads = m.Loads(func(string) bool { return false }); len(loads) != 0 {
		t.Errorf("loads %+v of nobody", loads)
	}
	loads = m.Loads(all)
	if len(loads) != 1 || loads[0].Localities[0].Succeeded != 1 || loads[0].Localities[0].Issued != 0 || loads[0].Dropped != 0 {
		t.Errorf("loads %+v", loads)
	}
	if loads = m.Loads(all); len(loads) != 0 {
		t.Errorf("loads %+v, want nothing new", loads)
	}
}

func TestX104_ACallThatIsTakenBackAfterItWasToldIsMadeUpFor(t *testing.T) {
	t.Parallel()
	m := NewManager(Options{})
	defer m.Close()
	c := m.Hold(map[string]discovery.ClusterResult{"c": {Cluster: loadCluster(&discovery.LoadReports{}), Endpoints: loadAssignment()}})["c"]
	endpoint, err := c.Pick(balancer.PickInfo{})
	if err != nil {
		t.Fatal(err)
	}
	issued := func() (n uint64) {
		for _, cluster := range m.Loads(all) {
			for _, l := range cluster.Localities {
				n += l.Issued
			}
		}
		return n
	}
	load := endpoint.Issued()
	if n := issued(); n != 1 {
		t.Fatalf("%d calls issued, want 1", n)
	}
	load.Withdraw() // it could not be connected, which took a while
	if n := issued(); n != 0 {
		t.Errorf("%d calls issued, want none", n)
	}
	for range 3 {
		endpoint.Issued().Done(&outcome.Outcome{Kind: outcome.Response, Status: 200})
	}
	if n := issued(); n != 2 {
		t.Errorf("%d calls issued, want the 3 without the one that was told too early", n)
	}
}

func TestX104_EachEndpointHasItsPart(t *testing.T) {
	t.Parallel()
	m := NewManager(Options{})
	defer m.Close()
	assignment := loadAssignment()
	assignment.Localities[0].Endpoints = append(assignment.Localities[0].Endpoints, balancer.Endpoint{Address: "10.0.0.2:80", Weight: 1})
	hold := func(a *discovery.Assignment) *Cluster {
		return m.Hold(map[string]discovery.ClusterResult{"c": {
			Cluster: loadCluster(&discovery.LoadReports{Metrics: []string{"cpu_utilization"}}), Endpoints: a,
		}})["c"]
	}
	c := hold(assignment)
	endpoints := make(map[string]*Endpoint)
	for len(endpoints) < 2 {
		e, err := c.Pick(balancer.PickInfo{})
		if err != nil {
			t.Fatal(err)
		}
		endpoints[e.Address()] = e
	}
	good, bad := &outcome.Outcome{Kind: outcome.Response, Status: 200}, &outcome.Outcome{Kind: outcome.Response, Status: 503}
	endpoints["10.0.0.1:80"].Issued().Done(good)
	open := endpoints["10.0.0.2:80"].Issued()
	endpoints["10.0.0.2:80"].noteMetrics(&balancer.LoadReport{CPU: 0.5})
	check := func(what string, want ...discovery.EndpointLoad) {
		t.Helper()
		var got []discovery.EndpointLoad
		for _, cluster := range m.Loads(all) {
			for _, l := range cluster.Localities {
				got = append(got, l.Endpoints...)
			}
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, want %+v", what, got, want)
		}
	}
	check("at first",
		discovery.EndpointLoad{Address: "10.0.0.1:80", Issued: 1, Succeeded: 1},
		discovery.EndpointLoad{Address: "10.0.0.2:80", Issued: 1, InProgress: 1, Metrics: map[string]discovery.MetricLoad{"cpu_utilization": {Count: 1, Total: 0.5}}})
	// An endpoint that has left has calls that end.
	hold(loadAssignment())
	check("while a call runs at one that has left", discovery.EndpointLoad{Address: "10.0.0.2:80", InProgress: 1})
	open.Done(bad)
	check("when it has ended", discovery.EndpointLoad{Address: "10.0.0.2:80", Failed: 1})
	check("afterwards")
	if n := len(c.load.Load().loads); n != 0 {
		t.Errorf("%d endpoints are remembered without anything to tell", n)
	}
}

func TestX104_NoCallIsLostBetweenReports(t *testing.T) {
	t.Parallel()
	m := NewManager(Options{})
	defer m.Close()
	c := m.Hold(map[string]discovery.ClusterResult{"c": {Cluster: loadCluster(&discovery.LoadReports{}), Endpoints: loadAssignment()}})["c"]
	endpoint, err := c.Pick(balancer.PickInfo{})
	if err != nil {
		t.Fatal(err)
	}
	const callers, calls = 4, 2000
	var issued, succeeded uint64
	take := func() {
		for _, cluster := range m.Loads(all) {
			for _, l := range cluster.Localities {
				issued += l.Issued
				succeeded += l.Succeeded
			}
		}
	}
	var running sync.WaitGroup
	for range callers {
		running.Go(func() {
			for range calls {
				endpoint.Issued().Done(&outcome.Outcome{Kind: outcome.Response, Status: 200})
				runtime.Gosched() // so that the endpoint is often quiet
			}
		})
	}
	done := make(chan struct{})
	go func() { running.Wait(); close(done) }()
	for over := false; !over; {
		select {
		case <-done:
			over = true
		default:
		}
		take()
	}
	if take(); issued != callers*calls || succeeded != callers*calls {
		t.Errorf("%d calls issued and %d succeeded, want %d", issued, succeeded, callers*calls)
	}
}

// What counting costs a call, beside a cluster whose load nobody asks for.
func BenchmarkCountedLoad(b *testing.B) {
	for _, bench := range []struct {
		name    string
		reports *discovery.LoadReports
	}{
		{"nobody asks", nil},
		{"counted", &discovery.LoadReports{}},
	} {
		b.Run(bench.name, func(b *testing.B) {
			m := NewManager(Options{})
			defer m.Close()
			c := m.Hold(map[string]discovery.ClusterResult{"c": {Cluster: loadCluster(bench.reports), Endpoints: loadAssignment()}})["c"]
			endpoint, err := c.Pick(balancer.PickInfo{})
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			good := &outcome.Outcome{Kind: outcome.Response, Status: 200}
			for b.Loop() {
				endpoint.Issued().Done(good)
			}
		})
	}
}
