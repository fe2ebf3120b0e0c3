package upstream

import (
	"errors"
	"slices"
	"testing"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/discovery"
)

// An aggregate that cannot be used any more has no way to the clusters that it consisted
// of: nobody holds these for it, and each call would have a connection of its own.
func TestAnAggregateWithoutItsClustersFails(t *testing.T) {
	t.Parallel()
	m := NewManager(Options{})
	defer m.Close()
	good := map[string]discovery.ClusterResult{
		"all":  {Cluster: &discovery.Cluster{Name: "all", Aggregate: []string{"near"}}, Leaves: []string{"near"}},
		"near": {Cluster: &discovery.Cluster{Name: "near"}, Endpoints: assignment("10.0.0.1:80")},
	}
	before := m.Hold(good)
	all := before["all"]
	if leaf := all.Leaf(new(balancer.PickInfo)); leaf != before["near"] {
		t.Fatalf("a call goes to %q", leaf.Name())
	}
	unusable := errors.New("none of the clusters can be used")
	broken := m.Hold(map[string]discovery.ClusterResult{"all": {Err: unusable}})
	m.Release(before)
	if leaf := all.Leaf(new(balancer.PickInfo)); leaf != all || !errors.Is(leaf.Err(), unusable) {
		t.Errorf("a call goes to %q, %v", leaf.Name(), leaf.Err())
	}
	mended := m.Hold(good)
	m.Release(broken)
	if leaf := all.Leaf(new(balancer.PickInfo)); leaf != mended["near"] || leaf == before["near"] {
		t.Errorf("mended, a call goes to %q", leaf.Name())
	}
}

// Of what is applied together an aggregate has somewhere to send calls all the time.
func TestClustersWithEndpointsAreAppliedBeforeAggregatesAndThoseWithoutAfter(t *testing.T) {
	t.Parallel()
	plain := func(name string, endpoints *discovery.Assignment, err error) discovery.ClusterResult {
		return discovery.ClusterResult{Cluster: &discovery.Cluster{Name: name}, Endpoints: endpoints, Err: err}
	}
	ill := assignment("10.0.0.1:80")
	ill.Localities[0].Endpoints[0].Health = balancer.Unhealthy
	results := map[string]discovery.ClusterResult{
		"all":     {Cluster: &discovery.Cluster{Name: "all", Aggregate: []string{"full", "late"}}, Leaves: []string{"full", "late"}},
		"full":    plain("full", assignment("10.0.0.1:80"), nil),
		"late":    plain("late", assignment("10.0.0.2:80"), nil),
		"empty":   plain("empty", &discovery.Assignment{}, nil),
		"without": plain("without", nil, nil),
		"ill":     plain("ill", ill, nil),
		"broken":  plain("broken", assignment("10.0.0.3:80"), errors.New("broken")),
	}
	order := applying(results)
	if len(order) != len(results) || slices.Index(order, "all") != 2 || !slices.Contains(order[:2], "full") || !slices.Contains(order[:2], "late") {
		t.Errorf("the order is %q", order)
	}
}
