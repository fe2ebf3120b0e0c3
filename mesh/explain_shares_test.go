package mesh_test

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"google.golang.org/protobuf/proto"

	"github.com/inboardmesh/inboard/mesh"
	"github.com/inboardmesh/inboard/mesh/meshtest"
)

// What is told of shares is held against what the endpoints get.
func TestExplainKnowsTheSharesOfPrioritiesAndLocalities(t *testing.T) {
	t.Parallel()
	weighted := func(name, more string, a, b string) *clusterv3.Cluster {
		return parsed(new(clusterv3.Cluster), `{"name": %q, "type": "STATIC", "commonLbConfig": {"localityWeightedLbConfig": {}}, %s "loadAssignment": {"clusterName": "x", "endpoints": [
			{"locality": {"region": "eu", "zone": "a"}, "loadBalancingWeight": 80, "lbEndpoints": [%s]}, {"locality": {"region": "us"}, "loadBalancingWeight": 20, "lbEndpoints": [%s]}]}}`, name, more, a, b)
	}
	for _, test := range []struct {
		name    string
		cluster func(name string, at []string) *clusterv3.Cluster
		want    []string
		first   float64 // percent of the calls that the first endpoint gets
	}{
		{
			"weighted localities", func(name string, at []string) *clusterv3.Cluster {
				return weighted(name, "", leafEndpoint(at[0], "HEALTHY"), leafEndpoint(at[1], "HEALTHY"))
			}, []string{"100% to priority 0: 80% in eu/a, 20% in us"}, 80,
		},
		{
			"a locality that is half there has less", func(name string, at []string) *clusterv3.Cluster {
				return weighted(name, "", leafEndpoint(at[0], "HEALTHY")+", "+leafEndpoint(at[2], "UNHEALTHY"), leafEndpoint(at[1], "HEALTHY"))
			}, []string{"100% to priority 0: 73.68% in eu/a, 26.32% in us"}, 73.68,
		},
		{
			"priorities", func(name string, at []string) *clusterv3.Cluster {
				return leafCluster(name, "", []string{leafEndpoint(at[0], "HEALTHY"), leafEndpoint(at[1], "UNHEALTHY")}, []string{leafEndpoint(at[2], "HEALTHY")})
			}, []string{"70% to priority 0", "30% to priority 1"}, 70,
		},
		{
			"degraded endpoints", func(name string, at []string) *clusterv3.Cluster {
				return leafCluster(name, "", []string{leafEndpoint(at[0], "HEALTHY"), leafEndpoint(at[1], "DEGRADED")})
			}, []string{"70% to priority 0", "30% to priority 0, degraded"}, 70,
		},
		{
			"nothing is divided", func(name string, at []string) *clusterv3.Cluster {
				return leafCluster(name, "", []string{leafEndpoint(at[0], "HEALTHY")})
			}, nil, 100,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l := newLeavesWorld(t)
				l.pushAlone(t, false, test.cluster)
				for _, host := range leavesHosts {
					e := l.explain(t, host)
					if !slices.Equal(e.Cluster.Shares, test.want) {
						t.Errorf("%s: the shares are %q, want %q\n%v", host, e.Cluster.Shares, test.want, e)
					}
					for _, share := range test.want {
						says(t, e, "  share         "+share+"\n")
					}
					const calls = 200
					got := 0
					for range calls {
						if call, err := l.call(t, host); err != nil {
							t.Fatal(err)
						} else if call.Attempts[0].Endpoint == l.at[host][0] {
							got++
						}
					}
					// More than four standard deviations of what is drawn.
					if share := 100 * float64(got) / calls; math.Abs(share-test.first) > 15 {
						t.Errorf("%s: the first endpoint got %.4g%%, want %.4g%%", host, share, test.first)
					}
				}
			})
		})
	}
}

// Those of an aggregate are of its clusters, one after the other.
func TestExplainKnowsTheSharesOfTheClustersOfAnAggregate(t *testing.T) {
	t.Parallel()
	const weighted = `"commonLbConfig": {"localityWeightedLbConfig": {}, "healthyPanicThreshold": {"value": 0}},`
	const calm = `"commonLbConfig": {"healthyPanicThreshold": {"value": 0}},`
	const well, ill, weak = "HEALTHY", "UNHEALTHY", "DEGRADED"
	for _, test := range []struct {
		name string
		// health is of the endpoints: two in each of the priorities 0 and 1 of near, and
		// in the priority 0 of far; "" is none.
		health [6]string
		more   string
		want   []string
		got    [3]float64 // percent of the calls that come to each pair
	}{
		{"all are healthy", [6]string{well, well, well, well, well, well}, calm, nil, [3]float64{100, 0, 0}},
		{"half of the first", [6]string{well, ill, "", "", well, well}, calm,
			[]string{"70% to near, priority 0", "30% to far, priority 0"}, [3]float64{70, 0, 30}},
		{"half of all", [6]string{well, ill, "", "", well, ill}, calm,
			[]string{"70% to near, priority 0", "30% to far, priority 0"}, [3]float64{70, 0, 30}},
		{"two priorities before the next cluster", [6]string{ill, ill, well, ill, well, well}, calm,
			[]string{"70% to near, priority 1", "30% to far, priority 0"}, [3]float64{0, 70, 30}},
		{"degraded ones come last", [6]string{well, weak, "", "", well, ill}, calm,
			[]string{"70% to near, priority 0", "30% to far, priority 0"}, [3]float64{70, 0, 30}},
		{"degraded ones have what is left", [6]string{well, weak, "", "", ill, ill}, calm,
			[]string{"70% to near, priority 0", "30% to near, priority 0, degraded"}, [3]float64{100, 0, 0}},
		{"the second has all", [6]string{"", "", "", "", well, well}, calm, nil, [3]float64{0, 0, 100}},
		{"weighted localities", [6]string{well, ill, "", "", well, well}, weighted,
			[]string{"70% to near, priority 0", "30% to far, priority 0"}, [3]float64{70, 0, 30}},
		{"nothing is healthy", [6]string{ill, ill, ill, ill, ill, ill}, "",
			[]string{"33.33% to near, priority 0", "33.33% to near, priority 1", "33.33% to far, priority 0"}, [3]float64{33, 33, 33}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l := newLeavesWorld(t)
				at := l.everywhere(t)
				var pushed []proto.Message
				for _, host := range leavesHosts {
					var pairs [3][]string
					for i, health := range test.health {
						if health != "" {
							pairs[i/2] = append(pairs[i/2], leafEndpoint(at[host][i], health))
						}
					}
					pushed = append(pushed, aggregated(host, "near "+host, "far "+host)...)
					pushed = append(pushed, leafCluster("near "+host, test.more, pairs[:2]...), leafCluster("far "+host, test.more, pairs[2]))
				}
				l.world.Push(pushed...)
				for _, host := range leavesHosts {
					e := l.explain(t, host)
					want := make([]string, 0, len(test.want))
					for _, share := range test.want {
						want = append(want, strings.ReplaceAll(strings.ReplaceAll(share, "near", "near "+host), "far", "far "+host))
					}
					if !slices.Equal(e.Cluster.Shares, want) {
						t.Errorf("%s: the shares are %q, want %q\n%v", host, e.Cluster.Shares, want, e)
					}
					for _, share := range want {
						says(t, e, "  share         "+share+"\n")
					}
					const calls = 200
					var got [3]float64
					for range calls {
						call, err := l.call(t, host)
						if err != nil {
							t.Fatal(err)
						}
						got[slices.Index(at[host], call.Attempts[0].Endpoint)/2] += 100. / calls
					}
					for i := range got { // more than four standard deviations of what is drawn
						if math.Abs(got[i]-test.got[i]) > 15 {
							t.Errorf("%s: the pairs got %v percent, want %v", host, got, test.got)
						}
					}
				}
			})
		})
	}
}

func TestExplainKnowsThatAProcessUsesAPartOfTheEndpoints(t *testing.T) {
	t.Parallel()
	for _, leaf := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			l := newLeavesWorld(t, meshtest.Mesh(mesh.Balancing{ClientNumber: new(uint32)}))
			l.pushAlone(t, leaf, func(name string, at []string) *clusterv3.Cluster {
				var all []string
				for _, address := range at {
					all = append(all, leafEndpoint(address, "HEALTHY"))
				}
				return leafCluster(name, `"metadata": {"filterMetadata": {"inboard.subsetting": {"size": 2}}},`, all)
			})
			for _, host := range leavesHosts {
				e := l.explain(t, host)
				n := len(e.Cluster.Endpoints)
				if n == 0 || n >= len(l.at[host]) {
					t.Fatalf("%s: %d endpoints", host, n)
				}
				says(t, e, fmt.Sprintf("subsetting    this process uses %d of 6 endpoints, and no other\n", n))
				for range 20 {
					call, err := l.call(t, host)
					if err != nil || !strings.Contains(e.String(), call.Attempts[0].Endpoint+" ") {
						t.Errorf("%v: %v\n%v", call, err, e)
					}
				}
			}
		})
	}
}
