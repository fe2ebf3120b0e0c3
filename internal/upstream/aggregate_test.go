package upstream

import (
	"errors"
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
