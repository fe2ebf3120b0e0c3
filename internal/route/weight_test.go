package route

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/inboardmesh/inboard/discovery"
)

func weighted(weights map[string]uint32, names ...string) *discovery.Route {
	route := &discovery.Route{Forward: &discovery.Forward{}}
	for _, name := range names {
		route.Forward.Clusters = append(route.Forward.Clusters, discovery.WeightedCluster{Name: name, Weight: weights[name]})
	}
	return route
}

// The draw is a number below the sum of the weights: each cluster owns as many
// of them as its weight, in the order of the configuration.
func TestBU4_EveryNumberBelowTheTotalBelongsToItsCluster(t *testing.T) {
	t.Parallel()
	table := matching(weighted(map[string]uint32{"a": 2, "never": 0, "b": 1, "c": 3}, "a", "never", "b", "c"))
	for n, want := range []string{"a", "a", "b", "c", "c", "c"} {
		table.random = func(total uint64) uint64 {
			if total != 6 {
				t.Errorf("drew below %d, want 6", total)
			}
			return uint64(n)
		}
		if d, ok := table.Match(get("payment", "/")); !ok || d.Cluster.Name != want {
			t.Errorf("draw %d: cluster %+v, want %q", n, d.Cluster, want)
		}
	}
}

func TestBU4_ASingleClusterNeedsNoDraw(t *testing.T) {
	t.Parallel()
	table := matching(weighted(map[string]uint32{"a": 7}, "a"))
	table.random = func(uint64) uint64 {
		t.Error("drew for one cluster")
		return 0
	}
	if d, ok := table.Match(get("payment", "/")); !ok || d.Cluster.Name != "a" {
		t.Errorf("Match() = %+v, %t", d.Cluster, ok)
	}
}

func TestBU4_WeightsUpToTheLargestSum(t *testing.T) {
	t.Parallel()
	table := matching(weighted(map[string]uint32{"a": math.MaxUint32, "b": math.MaxUint32}, "a", "b"))
	for n, want := range map[uint64]string{0: "a", math.MaxUint32 - 1: "a", math.MaxUint32: "b", 2*math.MaxUint32 - 1: "b"} {
		table.random = func(uint64) uint64 { return n }
		if d, ok := table.Match(get("payment", "/")); !ok || d.Cluster.Name != want {
			t.Errorf("draw %d: cluster %+v, want %q", n, d.Cluster, want)
		}
	}
}

func TestS15_SharesFollowWeights(t *testing.T) {
	t.Parallel()
	const draws = 10_000
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	weights := map[string]uint32{"v1": 80, "v2": 20}
	table := matching(weighted(weights, "v1", "v2"))
	table.random = rand.New(rand.NewPCG(seed, 0)).Uint64N
	counts := map[string]int{}
	for range draws {
		d, _ := table.Match(get("payment", "/"))
		counts[d.Cluster.Name]++
	}
	for name, weight := range weights {
		checkShare(t, seed, name, counts[name], draws, float64(weight)/100)
	}
}

// checkShare fails if a count is further from its share than chance explains.
func checkShare(t *testing.T, seed uint64, name string, count, draws int, p float64) {
	t.Helper()
	got := float64(count) / float64(draws)
	// Five standard deviations: one failure in 1.7 million runs.
	if tolerance := 5 * math.Sqrt(p*(1-p)/float64(draws)); math.Abs(got-p) > tolerance {
		t.Errorf("seed %d: %s got %v of the calls, want %v ± %v", seed, name, got, p, tolerance)
	}
}
