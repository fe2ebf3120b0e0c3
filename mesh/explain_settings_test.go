package mesh_test

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/inboardmesh/inboard/mesh"
	"github.com/inboardmesh/inboard/mesh/meshtest"
)

// says expects these texts in an explanation for people.
func says(t *testing.T, e *mesh.Explanation, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if !strings.Contains(e.String(), text) {
			t.Errorf("%q is missing in\n%v", text, e)
		}
	}
}

// pushAlone pushes for each host a cluster that is made of its endpoints: alone, or as the
// leaf of an aggregate. More is pushed beside them.
func (l *leavesWorld) pushAlone(t *testing.T, leaf bool, cluster func(name string, at []string) *clusterv3.Cluster, more ...proto.Message) {
	t.Helper()
	if l.at == nil {
		l.at = make(map[string][]string)
		for _, host := range leavesHosts {
			l.at[host] = l.addresses(t, host)
			if _, err := l.call(t, host); err != nil { // who is not called is not checked
				t.Fatal(err)
			}
		}
	}
	var all []proto.Message
	for _, host := range leavesHosts {
		name, leaves := "all "+host, []string(nil)
		if leaf {
			name = "leaf " + host
			leaves = []string{name}
		}
		all = append(all, aggregated(host, leaves...)...)
		all = append(all, cluster(name, l.at[host]))
	}
	l.world.Push(append(all, more...)...)
}

func TestExplainKnowsWhatDecidesBetweenEndpoints(t *testing.T) {
	t.Parallel()
	for _, leaf := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			l := newLeavesWorld(t)
			l.pushAlone(t, leaf, func(name string, at []string) *clusterv3.Cluster {
				return leafCluster(name, `
					"roundRobinLbConfig": {"slowStartConfig": {"slowStartWindow": "40s"}},
					"healthChecks": [{"timeout": "1s", "interval": "5s", "noTrafficInterval": "5s", "unhealthyThreshold": 3, "healthyThreshold": 2, "tcpHealthCheck": {}}],
					"outlierDetection": {"consecutive5xx": 7, "enforcingSuccessRate": 50, "baseEjectionTime": "30s"},`,
					[]string{leafEndpoint(at[0], "HEALTHY"), leafEndpoint(nobodyThere, "HEALTHY")})
			})
			time.Sleep(10 * time.Second) // fake
			for _, host := range leavesHosts {
				e := l.explain(t, host)
				says(t, e,
					"slow start over 40s, from 10%",
					"checks a connection every 5s, within 1s, unhealthy after 3, healthy after 2",
					"ejects after 7 failures in a row, fewer successes than the others, 5 of them with 100 calls (enforced in 50%); for 30s, up to 5m0s; at most 10% at a time",
					", 25% of its weight by slow start, checked: healthy\n", "checked: unhealthy, not picked: its health check fails\n")
				one, two := e.Cluster.Endpoints[0], e.Cluster.Endpoints[1]
				if math.Abs(one.Warmth-25) > 1 || one.Check != "healthy" || two.Check != "unhealthy" {
					t.Errorf("%s: the endpoints are %+v and %+v", host, one, two)
				}
			}
			time.Sleep(30 * time.Second) // fake
			for _, host := range leavesHosts {
				if e := l.explain(t, host); e.Cluster.Endpoints[0].Warmth != 0 {
					t.Errorf("%s: slow start is over\n%v", host, e)
				}
			}
		})
	}
}

// nobodyThere is an address at which nobody listens.
const nobodyThere = "10.99.0.1:9"

func TestExplainKnowsThatNoCheckHasEnded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLeavesWorld(t)
		l.pushAlone(t, false, func(name string, at []string) *clusterv3.Cluster {
			// Who waits for a whole request does not answer half a one.
			return leafCluster(name, `"healthChecks": [{"timeout": "600s", "interval": "5s", "unhealthyThreshold": 1, "healthyThreshold": 1,
				"tcpHealthCheck": {"send": {"text": "47"}, "receive": [{"text": "47"}]}}],`, []string{leafEndpoint(at[0], "HEALTHY")})
		})
		for _, host := range leavesHosts {
			e := l.explain(t, host)
			says(t, e, "checks a connection and an answer every 5s", ", not yet checked\n")
			if got := e.Cluster.Endpoints[0].Check; got != "not yet" {
				t.Errorf("%s: the check is %q", host, got)
			}
		}
	})
}

func TestExplainKnowsPanic(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLeavesWorld(t)
		for _, leaf := range []bool{false, true} {
			for _, fails := range []string{"false", "true"} {
				l.pushAlone(t, leaf, func(name string, at []string) *clusterv3.Cluster {
					return leafCluster(name, `"commonLbConfig": {"zoneAwareLbConfig": {"failTrafficOnPanic": `+fails+`}},`,
						[]string{leafEndpoint(at[0], "UNHEALTHY"), leafEndpoint(at[1], "UNHEALTHY"), leafEndpoint(at[2], "HEALTHY")})
				})
				for _, host := range leavesHosts {
					e := l.explain(t, host)
					_, err := l.call(t, host)
					if fails == "true" {
						says(t, e, "less than 50% of the endpoints of priority 0 are fit: calls that come there fail")
						if e.Verdict != mesh.VerdictNoEndpoint || err == nil {
							t.Errorf("%v: %v", err, e)
						}
						continue
					}
					says(t, e, "less than 50% of the endpoints of priority 0 are fit: all are used", "endpoints     3, of which 3 can be picked")
					if e.Verdict != mesh.VerdictForward || err != nil {
						t.Errorf("%v: %v", err, e)
					}
				}
			}
		}
	})
}

// Of two priorities the first fails what comes to it, and the second does not.
func TestExplainKnowsThatAPartOfTheCallsFailsInPanic(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLeavesWorld(t)
		for _, leaf := range []bool{false, true} {
			l.pushAlone(t, leaf, func(name string, at []string) *clusterv3.Cluster {
				c := leafCluster(name, `"commonLbConfig": {"zoneAwareLbConfig": {"failTrafficOnPanic": true}},`,
					[]string{leafEndpoint(at[0], "HEALTHY"), leafEndpoint(at[1], "UNHEALTHY"), leafEndpoint(at[2], "UNHEALTHY")},
					[]string{leafEndpoint(at[3], "HEALTHY"), leafEndpoint(at[4], "UNHEALTHY")})
				c.LoadAssignment.Policy = &endpointv3.ClusterLoadAssignment_Policy{OverprovisioningFactor: wrapperspb.UInt32(100)}
				return c
			})
			for _, host := range leavesHosts {
				e := l.explain(t, host)
				says(t, e, "less than 50% of the endpoints of priority 0 are fit: calls that come there fail",
					"not picked: too few endpoints of its priority are fit", "calls that come to priority 0 fail: too few of its endpoints are fit")
				if e.Verdict != mesh.VerdictForward || !e.Cluster.Endpoints[3].Candidate || e.Cluster.Endpoints[0].Candidate {
					t.Error(e)
				}
				failed := 0
				for range 100 { // two of five
					if _, err := l.call(t, host); err != nil {
						failed++
					}
				}
				if failed == 0 || failed == 100 {
					t.Errorf("%d of 100 calls failed", failed)
				}
			}
		}
	})
}

// zones is a static cluster with these endpoints of the zones a and b.
func zones(name, more string, a, b []string) *clusterv3.Cluster {
	return parsed(new(clusterv3.Cluster), `{"name": %q, "type": "STATIC", %s "loadAssignment": {"clusterName": "x", "endpoints": [
		{"locality": {"region": "eu", "zone": "a"}, "lbEndpoints": [%s]}, {"locality": {"region": "eu", "zone": "b"}, "lbEndpoints": [%s]}]}}`,
		name, more, strings.Join(a, ", "), strings.Join(b, ", "))
}

func TestExplainKnowsWhatZoneAwareRoutingLeavesOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLeavesWorld(t, meshtest.Locality("eu/a"), meshtest.Mesh(mesh.Balancing{LocalCluster: "own"}))
		for _, leaf := range []bool{false, true} {
			l.pushAlone(t, leaf, func(name string, at []string) *clusterv3.Cluster {
				health := []string{"HEALTHY", "HEALTHY", "HEALTHY", "HEALTHY", "HEALTHY", "DEGRADED"}
				var all []string
				for i, address := range at {
					all = append(all, leafEndpoint(address, health[i]))
				}
				return zones(name, `"commonLbConfig": {"zoneAwareLbConfig": {"minClusterSize": 1}},`, all[:3], all[3:])
			}, zones("own", "", []string{leafEndpoint("10.99.0.2:9", "HEALTHY")}, []string{leafEndpoint("10.99.0.3:9", "HEALTHY")}))
			for _, host := range leavesHosts {
				e := l.explain(t, host)
				says(t, e, "zone aware routing is on")
				const far = "zone aware routing keeps the calls in other localities"
				want := []string{"", "", "", far, far, "others of a better priority or health suffice"}
				for i := range e.Cluster.Endpoints {
					if got := e.Cluster.Endpoints[i].Why; got != want[i] {
						t.Errorf("%s: endpoint %d is not picked: %q, want %q", host, i, got, want[i])
					}
				}
				for range 20 {
					call, err := l.call(t, host)
					if err != nil || !strings.Contains(fmt.Sprint(l.at[host][:3]), call.Attempts[0].Endpoint) {
						t.Errorf("%v: %v", call, err)
					}
				}
			}
		}
	})
}
