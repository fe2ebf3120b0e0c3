package mesh_test

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"

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
