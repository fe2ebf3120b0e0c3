package xds

import (
	"slices"
	"testing"

	"github.com/inboardmesh/inboard/discovery"
)

func TestBU8_TheClustersOfCopiesAreFollowed(t *testing.T) {
	t.Parallel()
	w := newWorld()
	table := routeTable("", "a")
	forward := table.VirtualHosts[0].Routes[0].Forward
	forward.Clusters = append(forward.Clusters, discovery.WeightedCluster{Header: "x-cluster", Weight: 1})
	forward.Mirrors = []discovery.Mirror{{Cluster: "b"}, {Header: "x-shadow"}}
	w.set(inlineListener(table))
	w.set(staticCluster("a"))
	w.set(staticCluster("b"))
	published, stop := w.watchTarget()
	defer stop()
	w.pump()
	if got := clustersIn(published.one(t).Value); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("clusters %q, want a and b: what a request names is none of its own", got)
	}
}
