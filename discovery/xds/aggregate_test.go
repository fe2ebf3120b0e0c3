package xds

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/inboardmesh/inboard/discovery"
)

func aggregate(name string, of ...string) *discovery.Cluster {
	return &discovery.Cluster{Name: name, Aggregate: of}
}

// routedTo returns a world in which the destination is served by a cluster.
func routedTo(t *testing.T, name string, clusters ...*discovery.Cluster) (*world, *recorder[*discovery.Target]) {
	t.Helper()
	w := newWorld()
	w.set(apiListener("r"))
	w.set(routeTable("r", name))
	for _, c := range clusters {
		w.set(c)
	}
	published, stop := w.watchTarget()
	t.Cleanup(func() {
		stop()
		w.pump()
		if len(w.watchers) != 0 {
			t.Errorf("still watched after stop: %v", w.watchers)
		}
	})
	w.pump()
	return w, published
}

func TestX71_AnAggregateComesToItsLeaves(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		clusters []*discovery.Cluster
		missing  []string
		leaves   []string
		err      string
	}{
		"in the order of the configuration": {
			clusters: []*discovery.Cluster{aggregate("all", "b", "a"), staticCluster("a"), staticCluster("b")},
			leaves:   []string{"b", "a"},
		},
		"through aggregates within it": {
			clusters: []*discovery.Cluster{aggregate("all", "two", "c"), aggregate("two", "b", "a"), staticCluster("a"), staticCluster("b"), staticCluster("c")},
			leaves:   []string{"b", "a", "c"},
		},
		"each once, where it comes first": {
			clusters: []*discovery.Cluster{aggregate("all", "a", "two", "b"), aggregate("two", "b", "a"), staticCluster("a"), staticCluster("b")},
			leaves:   []string{"a", "b"},
		},
		"without one that is missing": {
			clusters: []*discovery.Cluster{aggregate("all", "gone", "a"), staticCluster("a")},
			missing:  []string{"gone"},
			leaves:   []string{"a"},
		},
		"none, if all are missing": {
			clusters: []*discovery.Cluster{aggregate("all", "gone")},
			missing:  []string{"gone"},
			err:      `none of the clusters ["gone"] can be used`,
		},
		"none, if it is part of itself": {
			clusters: []*discovery.Cluster{aggregate("all", "a", "two"), aggregate("two", "all"), staticCluster("a")},
			err:      `cluster "all" is part of itself`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, published := routedTo(t, "all", test.clusters...)
			for _, gone := range test.missing {
				published.none(t)
				w.fail(cds(gone), notFound(cds(gone)), true)
				w.pump()
			}
			update := published.one(t)
			if update.Value == nil {
				t.Fatalf("published %+v", update)
			}
			result := update.Value.Clusters["all"]
			if test.err != "" {
				if result.Err == nil || !strings.Contains(result.Err.Error(), test.err) {
					t.Errorf("error %v, want %q", result.Err, test.err)
				}
				return
			}
			if result.Err != nil || !slices.Equal(result.Leaves, test.leaves) {
				t.Fatalf("leaves %q, error %v, want %q", result.Leaves, result.Err, test.leaves)
			}
			for _, leaf := range test.leaves {
				if of := update.Value.Clusters[leaf]; of.Cluster == nil || of.Endpoints == nil || of.Err != nil {
					t.Errorf("leaf %q: %+v", leaf, of)
				}
			}
		})
	}
}

// nested are clusters of which each is within the one before: the last is "end".
func nested(depth int) []*discovery.Cluster {
	clusters := []*discovery.Cluster{staticCluster("end")}
	for i := range depth {
		child := "end"
		if i < depth-1 {
			child = fmt.Sprintf("level%d", i+1)
		}
		clusters = append(clusters, aggregate(fmt.Sprintf("level%d", i), child))
	}
	return clusters
}

func TestX71_NotMoreThan16ClustersAreWithinEachOther(t *testing.T) {
	t.Parallel()
	_, published := routedTo(t, "level0", nested(15)...)
	if result := published.one(t).Value.Clusters["level0"]; result.Err != nil || !slices.Equal(result.Leaves, []string{"end"}) {
		t.Errorf("16 within each other: %+v, want the last one", result)
	}
	_, published = routedTo(t, "level0", nested(16)...)
	if result := published.one(t).Value.Clusters["level0"]; result.Err == nil || !strings.Contains(result.Err.Error(), "more than 16") {
		t.Errorf("17 within each other: %+v, want an error", result)
	}
}

// That a cluster was visited already does not make those within it fewer.
func TestX71_TheLongestWayToAClusterCounts(t *testing.T) {
	t.Parallel()
	for depth, works := range map[int]bool{13: true, 14: false} {
		clusters := append(nested(depth), aggregate("all", "level0", "way"), aggregate("way", "level0"))
		_, published := routedTo(t, "all", clusters...)
		result := published.one(t).Value.Clusters["all"]
		if works && (result.Err != nil || !slices.Equal(result.Leaves, []string{"end"})) {
			t.Errorf("%d: %+v, want the last one", depth, result)
		}
		if !works && (result.Err == nil || !strings.Contains(result.Err.Error(), "more than 16")) {
			t.Errorf("%d: %+v, want an error", depth, result)
		}
	}
}

// Fifteen layers of four clusters, each of which consists of all four of the next,
// have a thousand million ways from the first to the last.
func TestX71_ClustersThatNameOneAnotherOftenAreWalkedOnce(t *testing.T) {
	t.Parallel()
	const layers, width = 15, 4
	var clusters []*discovery.Cluster
	names := []string{"l", "k", "j"}
	for _, leaf := range names {
		clusters = append(clusters, staticCluster(leaf))
	}
	below := names
	for layer := range layers - 1 {
		var these []string
		for i := range width {
			these = append(these, fmt.Sprintf("layer%d-%d", layer, i))
			clusters = append(clusters, aggregate(these[i], below...))
		}
		below = these
	}
	w, published := routedTo(t, "all", append(clusters, aggregate("all", below...))...)
	if result := published.one(t).Value.Clusters["all"]; result.Err != nil || !slices.Equal(result.Leaves, names) {
		t.Fatalf("%+v, want the leaves %q", result, names)
	}
	w.set(aggregate("layer0-0", "all"))
	w.set(aggregate("layer0-1", "j", "l"))
	w.set(aggregate("layer0-0", "j", "j"))
	w.pump()
	if result := published.one(t).Value.Clusters["all"]; result.Err != nil || !slices.Equal(result.Leaves, []string{"j", "l", "k"}) {
		t.Errorf("%+v, want the leaves in the order in which they come first", result)
	}
}

func TestX71_AnAggregateIsReplacedWhenItsNewLeavesAreThere(t *testing.T) {
	t.Parallel()
	w, published := routedTo(t, "all", aggregate("all", "a"), staticCluster("a"))
	if got := clustersIn(published.one(t).Value); !slices.Equal(got, []string{"a", "all"}) {
		t.Fatalf("clusters %q", got)
	}
	w.set(aggregate("all", "b"))
	w.pump()
	published.none(t)
	w.set(staticCluster("a")) // what is in force is kept up to date
	w.pump()
	if got := published.one(t).Value.Clusters["a"].Cluster; got != w.values[cds("a")] {
		t.Error("the leaf in force is not the newest")
	}
	w.set(edsCluster("b"))
	w.pump()
	published.none(t)
	w.set(assignment("b"))
	w.pump()
	if got := clustersIn(published.one(t).Value); !slices.Equal(got, []string{"all", "b"}) {
		t.Errorf("clusters %q, want the new leaf", got)
	}
	if got := w.watched(cds("").url); !slices.Equal(got, []string{"all", "b"}) {
		t.Errorf("clusters %q are watched", got)
	}
}

func TestX71_X77_ALeafThatIsLostIsLeftOut(t *testing.T) {
	t.Parallel()
	w, published := routedTo(t, "all", aggregate("all", "a", "b"), staticCluster("a"), staticCluster("b"))
	if got := published.one(t).Value.Clusters["all"].Leaves; !slices.Equal(got, []string{"a", "b"}) {
		t.Fatalf("leaves %q", got)
	}
	w.fail(cds("a"), notFound(cds("a")), true)
	w.pump()
	if got := published.one(t).Value.Clusters["all"].Leaves; !slices.Equal(got, []string{"b"}) {
		t.Errorf("leaves %q, want b", got)
	}
}
