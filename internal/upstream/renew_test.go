package upstream

import (
	"fmt"
	"maps"
	"testing"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/discovery"
)

// manyResults are clusters with ten endpoints each.
func manyResults(n int) map[string]discovery.ClusterResult {
	results := make(map[string]discovery.ClusterResult, n)
	for i := range n {
		name := fmt.Sprintf("c-%d", i)
		results[name] = discovery.ClusterResult{Cluster: &discovery.Cluster{Name: name}, Endpoints: tenEndpoints(name)}
	}
	return results
}

func tenEndpoints(cluster string) *discovery.Assignment {
	ten := balancer.LocalityEndpoints{Weight: 1}
	for i := range 10 {
		ten.Endpoints = append(ten.Endpoints, balancer.Endpoint{Address: fmt.Sprintf("10.0.0.%d:80", i), Health: balancer.Healthy})
	}
	return &discovery.Assignment{Name: cluster, Localities: []balancer.LocalityEndpoints{ten}}
}

func TestRenewedClustersAreHeldAsOftenAsBefore(t *testing.T) {
	t.Parallel()
	m := NewManager(Options{})
	defer m.Close()
	results := manyResults(3)
	held := m.Hold(results)
	next := maps.Clone(results)
	changed := next["c-1"]
	changed.Endpoints = &discovery.Assignment{Name: "c-1"}
	next["c-1"] = changed
	if !m.Renew(held, next) {
		t.Fatal("the same clusters are not renewed")
	}
	if got := held["c-1"].Assignment(); got != changed.Endpoints {
		t.Errorf("endpoints %+v are in force, want the newest", got)
	}
	m.Release(held)
	for name := range results {
		if m.Find(name) != nil {
			t.Errorf("cluster %q is held after it was given back", name)
		}
	}
}

func TestOtherClustersAreNotRenewed(t *testing.T) {
	t.Parallel()
	m := NewManager(Options{})
	defer m.Close()
	results := manyResults(3)
	held := m.Hold(results)
	defer m.Release(held)
	fewer := manyResults(2)
	others := manyResults(2)
	others["d"] = discovery.ClusterResult{Cluster: &discovery.Cluster{Name: "d"}, Endpoints: tenEndpoints("d")}
	for _, next := range []map[string]discovery.ClusterResult{fewer, others} {
		if m.Renew(held, next) {
			t.Errorf("%d clusters were renewed with %d others", len(held), len(next))
		}
		if held["c-0"].Assignment() != results["c-0"].Endpoints || m.Find("d") != nil {
			t.Error("something was applied")
		}
	}
}

// TestWhatIsAppliedLastIsInForce: two destinations that share a cluster may have different
// versions of it for a moment. What one of them renews is in force, whoever was before.
func TestWhatIsAppliedLastIsInForce(t *testing.T) {
	t.Parallel()
	m := NewManager(Options{})
	defer m.Close()
	one := manyResults(1)
	held := m.Hold(one)
	defer m.Release(held)
	defer m.Release(m.Hold(manyResults(1)))
	if held["c-0"].Assignment() == one["c-0"].Endpoints {
		t.Fatal("the other destination's version is not in force")
	}
	if !m.Renew(held, one) || held["c-0"].Assignment() != one["c-0"].Endpoints {
		t.Error("the version that was renewed is not in force")
	}
}

// BenchmarkRenew is what it costs to put into force that the endpoints of one of many
// clusters have changed. The baseline is to hold all of them anew and to release them.
func BenchmarkRenew(b *testing.B) {
	const n = 10_000
	m := NewManager(Options{})
	defer m.Close()
	results := manyResults(n)
	held := m.Hold(results)
	versions := [2]*discovery.Assignment{tenEndpoints("c-1"), tenEndpoints("c-1")}
	change := func(i int) {
		r := results["c-1"]
		r.Endpoints = versions[i%2]
		results["c-1"] = r
	}
	b.Run("renewed", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			change(i)
			if !m.Renew(held, results) {
				b.Fatal("not renewed")
			}
		}
	})
	b.Run("held and released", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			change(i)
			next := m.Hold(results)
			m.Release(held)
			held = next
		}
	})
}
