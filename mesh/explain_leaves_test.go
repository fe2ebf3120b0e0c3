package mesh_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/protobuf/proto"

	"github.com/inboardmesh/inboard/internal/racing"
	"github.com/inboardmesh/inboard/mesh"
	"github.com/inboardmesh/inboard/mesh/meshtest"
	"github.com/inboardmesh/inboard/outcome"
)

// aggregated is a listener whose calls go to an aggregate "all" of clusters, or to the
// cluster "all" that is no aggregate.
func aggregated(host string, leaves ...string) []proto.Message {
	all := []proto.Message{parsed(new(listenerv3.Listener), `{"name": %q, "apiListener": {"apiListener": {
		"@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
		"httpFilters": [{"name": "router", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}],
		"routeConfig": {"virtualHosts": [{"name": "h", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": %q}}]}]}}}}`, host, "all "+host)}
	if len(leaves) > 0 {
		all = append(all, parsed(new(clusterv3.Cluster), `{"name": %q, "lbPolicy": "CLUSTER_PROVIDED", "clusterType": {"name": "envoy.clusters.aggregate", "typedConfig": {
			"@type": "type.googleapis.com/envoy.extensions.clusters.aggregate.v3.ClusterConfig", "clusters": ["%s"]}}}`, "all "+host, strings.Join(leaves, `", "`)))
	}
	return all
}

// leafEndpoint is an endpoint of a static cluster.
func leafEndpoint(address, health string) string {
	ip, port, _ := strings.Cut(address, ":")
	return fmt.Sprintf(`{"endpoint": {"address": {"socketAddress": {"address": %q, "portValue": %s}}}, "healthStatus": %q}`, ip, port, health)
}

// leafCluster is a static cluster with a locality for each priority.
func leafCluster(name, more string, priorities ...[]string) *clusterv3.Cluster {
	var localities []string
	for p, endpoints := range priorities {
		if len(endpoints) > 0 {
			localities = append(localities, fmt.Sprintf(`{"priority": %d, "locality": {"region": "r%d"}, "loadBalancingWeight": 1, "lbEndpoints": [%s]}`, p, p, strings.Join(endpoints, ", ")))
		}
	}
	return parsed(new(clusterv3.Cluster), `{"name": %q, "type": "STATIC", %s "loadAssignment": {"clusterName": "x", "endpoints": [%s]}}`, name, more, strings.Join(localities, ", "))
}

// leavesWorld has six payments that are called over HTTP and gRPC.
type leavesWorld struct {
	world    *meshtest.World
	customer *mesh.Mesh
	channel  *grpc.ClientConn
	// at are the addresses of the payments by host, see pushAlone.
	at map[string][]string
}

// leavesHosts are what is called, by protocol.
var leavesHosts = []string{"payment.shop:80", "payment.shop:9090"}

func newLeavesWorld(t *testing.T, customer ...meshtest.Option) *leavesWorld {
	l := &leavesWorld{world: meshtest.New(t)}
	for range 6 {
		l.world.Service("payment.shop", meshtest.HTTP(80, http.HandlerFunc(echoRequest)),
			meshtest.GRPC(9090, func(s grpc.ServiceRegistrar) { grpc_testing.RegisterTestServiceServer(s, echoService{}) }))
	}
	l.customer = l.world.Workload("customer.shop", customer...)
	var err error
	if l.channel, err = grpc.NewClient("mesh:///payment.shop:9090", l.customer.DialOptions()...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.channel.Close() })
	return l
}

func (l *leavesWorld) explain(t *testing.T, host string) *mesh.Explanation {
	t.Helper()
	if strings.HasSuffix(host, ":80") {
		return explained(t, l.customer)
	}
	e, err := l.customer.ExplainRPC(t.Context(), "mesh:///"+host, explainPaths[0])
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// call makes a call and returns what became of it.
func (l *leavesWorld) call(t *testing.T, host string) (meshtest.Call, error) {
	t.Helper()
	l.world.ResetCalls()
	var err error
	if strings.HasSuffix(host, ":80") {
		var resp *http.Response
		if resp, err = l.customer.Transport().RoundTrip(request(t, http.MethodGet, "http://payment.shop/")); err == nil {
			resp.Body.Close()
		}
	} else {
		err = l.channel.Invoke(context.Background(), explainPaths[0], &grpc_testing.Empty{}, &grpc_testing.Empty{})
	}
	calls := l.world.Calls()
	if len(calls) != 1 {
		t.Fatalf("%d calls", len(calls))
	}
	return calls[0], err
}

// addresses are those of the payments at a host.
func (l *leavesWorld) addresses(t *testing.T, host string) []string {
	var all []string
	for _, e := range l.explain(t, host).Cluster.Endpoints {
		all = append(all, e.Address)
	}
	return all
}

// What Explain says of priorities, panic and aggregates is held against calls: each goes
// to what can be picked, and each that can be picked gets one.
func TestExplainSaysWhatHappensInLeaves(t *testing.T) {
	t.Parallel()
	configs := 40
	if racing.Enabled {
		configs = 10
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	synctest.Test(t, func(t *testing.T) {
		l := newLeavesWorld(t)
		addresses := map[string][]string{}
		for _, host := range leavesHosts {
			addresses[host] = l.addresses(t, host)
		}
		for range configs {
			var pushed []proto.Message
			n := r.IntN(4) // 0 is no aggregate
			healths := []string{"HEALTHY", "UNHEALTHY", "DEGRADED"}[:1+r.IntN(3)]
			settings := make([]string, max(n, 1))
			for i := range settings {
				settings[i] = fmt.Sprintf(`"commonLbConfig": {"healthyPanicThreshold": {"value": %d}, "zoneAwareLbConfig": {"failTrafficOnPanic": %t}},`,
					pickOf(r, 0, 50, 100), r.IntN(4) == 0)
			}
			var where, health [6]int
			for i := range where {
				where[i], health[i] = r.IntN(4), r.IntN(len(healths))
			}
			for _, host := range leavesHosts {
				var names []string
				for i := range settings {
					name := "all " + host
					if n > 0 {
						name = strconv.Itoa(i) + " " + host
						names = append(names, name)
					}
					var priorities [2][]string
					for j, address := range addresses[host] {
						if j%len(settings) == i {
							p := where[j] % 2 * min(1, len(priorities[0])) // there is a first one
							priorities[p] = append(priorities[p], leafEndpoint(address, healths[health[j]]))
						}
					}
					pushed = append(pushed, leafCluster(name, settings[i], priorities[:]...))
				}
				pushed = append(pushed, aggregated(host, names...)...)
			}
			l.world.Push(pushed...)
			for _, host := range leavesHosts {
				l.check(t, host)
			}
			if t.Failed() {
				t.Logf("%v", pushed)
				return
			}
		}
	})
}

// check holds the explanation of calls against calls, until each endpoint that can be
// picked has got one.
func (l *leavesWorld) check(t *testing.T, host string) {
	t.Helper()
	e := l.explain(t, host)
	missing := make(map[string]string) // the clusters of the endpoints that can be picked
	for _, endpoint := range e.Cluster.Endpoints {
		if endpoint.Candidate {
			missing[endpoint.Address] = endpoint.Cluster
		} else if endpoint.Why == "" {
			t.Errorf("%s is not picked, and nothing says why", endpoint.Address)
		}
	}
	of := maps.Clone(missing)
	const most = 4000 // the smallest share is that of 1 % of 1 %
	for range most {
		call, err := l.call(t, host)
		failed := err != nil && call.Outcome.Kind == outcome.NoEndpoint
		if err != nil && !failed || failed && e.Verdict == mesh.VerdictForward && e.Reason == "" {
			t.Fatalf("%v: %v\n%v", call, err, e)
		}
		if failed != (e.Verdict == mesh.VerdictNoEndpoint) {
			t.Errorf("%v: %v\n%v", call, err, e)
		}
		if failed {
			if len(missing) == 0 {
				return
			}
			continue
		}
		for _, a := range call.Attempts {
			if cluster, ok := of[a.Endpoint]; !ok || cluster != "" && cluster != a.Cluster {
				t.Errorf("%s of %q got a call\n%v", a.Endpoint, a.Cluster, e)
				return
			}
			delete(missing, a.Endpoint)
		}
		if len(missing) == 0 {
			return
		}
	}
	t.Errorf("nothing came to %v\n%v", missing, e)
}
