package upstream

import (
	"math"
	"testing"

	"github.com/inboardmesh/inboard/discovery"
)

// The second category draws among what the first has let through: 20 % and 10 % are
// 28 %, and not 30 %.
func TestX81_DropsAreDrawnOneAfterTheOther(t *testing.T) {
	t.Parallel()
	m := NewManager(Options{})
	defer m.Close()
	endpoints := loadAssignment()
	endpoints.Drops = []discovery.Drop{{Category: "twenty", PerMillion: 200_000}, {Category: "ten", PerMillion: 100_000}, {Category: "none"}}
	c := m.Hold(map[string]discovery.ClusterResult{"c": {Cluster: loadCluster(nil), Endpoints: endpoints}})["c"]
	const calls = 200_000
	got := make(map[string]float64)
	for range calls {
		if category, dropped := c.Dropped(); dropped {
			got[category] += 1. / calls
			got["all"] += 1. / calls
		}
	}
	for category, want := range map[string]float64{"twenty": 0.2, "ten": 0.08, "none": 0, "all": 0.28} {
		// Eight times what chance moves a share by: 30 % is twenty times away.
		if math.Abs(got[category]-want) > 8*math.Sqrt(want*(1-want)/calls) {
			t.Errorf("%s: %.4f of the calls, want %.4f", category, got[category], want)
		}
	}
}
