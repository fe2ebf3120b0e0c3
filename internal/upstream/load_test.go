package upstream

import (
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
