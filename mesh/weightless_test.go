package mesh_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/protobuf/proto"

	"github.com/inboardmesh/inboard/mesh"
	"github.com/inboardmesh/inboard/mesh/meshtest"
)

// TestX79_WeightsOfLocalities: a locality without a weight is used as by Envoy, unless the
// cluster is weighted by locality; one whose weight is 0 is not.
func TestX79_WeightsOfLocalities(t *testing.T) {
	t.Parallel()
	const weighted = `"commonLbConfig": {"localityWeightedLbConfig": {}},`
	for name, test := range map[string]struct {
		cluster string
		weights [2]string
		want    []int // which of two endpoints can be picked
		why     string
	}{
		"without weights":               {"", [2]string{"", ""}, []int{0, 1}, ""},
		"one without a weight":          {"", [2]string{"", `"loadBalancingWeight": 3,`}, []int{0, 1}, ""},
		"a weight of 0":                 {"", [2]string{`"loadBalancingWeight": 0,`, ""}, []int{1}, ""},
		"weighted, one without":         {weighted, [2]string{"", `"loadBalancingWeight": 3,`}, []int{1}, "its locality has no weight"},
		"weighted, all without":         {weighted, [2]string{"", ""}, nil, "no healthy endpoint"},
		"weighted, one of the weight 0": {weighted, [2]string{`"loadBalancingWeight": 0,`, `"loadBalancingWeight": 3,`}, []int{1}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l := newLeavesWorld(t)
				var pushed []proto.Message
				at := make(map[string][]string)
				for _, host := range leavesHosts {
					at[host] = l.addresses(t, host)
					pushed = append(pushed, aggregated(host)...)
					pushed = append(pushed, parsed(new(clusterv3.Cluster), `{"name": %q, "type": "EDS", %s "edsClusterConfig": {"edsConfig": {"ads": {}}}}`, "all "+host, test.cluster))
					var localities []string
					for i, weight := range test.weights {
						localities = append(localities, fmt.Sprintf(`{"locality": {"region": "r%d"}, %s "lbEndpoints": [%s]}`, i, weight, leafEndpoint(at[host][i], "HEALTHY")))
					}
					pushed = append(pushed, parsed(new(endpointv3.ClusterLoadAssignment), `{"clusterName": %q, "endpoints": [%s]}`, "all "+host, strings.Join(localities, ", ")))
				}
				l.world.Push(pushed...)
				for _, host := range leavesHosts {
					var want []string
					for _, i := range test.want {
						want = append(want, at[host][i])
					}
					e := l.explain(t, host)
					expectPicked(t, e, test.why, want...)
					if (e.Verdict == mesh.VerdictForward) != (len(want) > 0) {
						t.Errorf("%s: %v", host, e)
					}
					l.check(t, host)
				}
			})
		})
	}
}

// An endpoint that fails at once is not the fastest one.
func TestPeakEWMALeavesWhoFailsAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := meshtest.New(t)
		var payments []*meshtest.Instance
		for range 4 {
			payments = append(payments, w.Service("payment.shop", meshtest.HTTP(80, http.HandlerFunc(echoRequest)),
				meshtest.GRPC(9090, func(s grpc.ServiceRegistrar) { grpc_testing.RegisterTestServiceServer(s, echoService{}) })))
		}
		w.Apply(`
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata:
  name: payment
  namespace: shop
  annotations: {inboard.balancer: "{policy: inboard.peak_ewma}"}
spec: {host: payment.shop.svc.cluster.local}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: payment, namespace: shop}
spec:
  hosts: [payment]
  http: [{retries: {attempts: 0}, route: [{destination: {host: payment}}]}]
`)
		l := &leavesWorld{world: w, customer: w.Workload("customer.shop")}
		var err error
		if l.channel, err = grpc.NewClient("mesh:///payment.shop:9090", l.customer.DialOptions()...); err != nil {
			t.Fatal(err)
		}
		defer l.channel.Close()
		const calls = 100
		payments[2].FailNext(2 * calls)
		for _, host := range leavesHosts {
			before := payments[2].Requests()
			for range calls {
				_, _ = l.call(t, host)
			}
			// The first failure is one that nobody could know of; an even share is 25.
			if n := payments[2].Requests() - before; n > 3 {
				t.Errorf("%s: %d of %d calls went to the payment that fails", host, n, calls)
			}
		}
	})
}
