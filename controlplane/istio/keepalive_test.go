package istio_test

import (
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	resource "github.com/envoyproxy/go-control-plane/pkg/resource/v3"

	"github.com/inboardmesh/inboard/controlplane/istio"
)

var keepAliveProblems = []problemCase{
	{name: "what the kernel of a client would refuse", yaml: `
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: a, namespace: shop}
spec:
  host: payment
  trafficPolicy:
    connectionPool: {tcp: {tcpKeepalive: {probes: 128, time: 500ms, interval: 1500ms}}}
    portLevelSettings:
    - {port: {number: 8080}, connectionPool: {tcp: {tcpKeepalive: {time: 10h}}}}
  subsets:
  - {name: v1, labels: {version: v1}, trafficPolicy: {connectionPool: {tcp: {tcpKeepalive: {interval: 0s}}}}}
`, want: []string{
		"x.yaml:7:51: DestinationRule shop/a: spec.trafficPolicy.connectionPool.tcp.tcpKeepalive.probes: 128 is not possible: use at most 127",
		"x.yaml:7:62: DestinationRule shop/a: spec.trafficPolicy.connectionPool.tcp.tcpKeepalive.time: 500ms is not possible: use 1s to 9h6m7s",
		"x.yaml:7:79: DestinationRule shop/a: spec.trafficPolicy.connectionPool.tcp.tcpKeepalive.interval: 1.5s is too precise: use whole seconds",
		"x.yaml:9:74: DestinationRule shop/a: spec.trafficPolicy.portLevelSettings[0].connectionPool.tcp.tcpKeepalive.time: 10h0m0s is not possible: use 1s to 9h6m7s",
		"x.yaml:11:103: DestinationRule shop/a: spec.subsets[0].trafficPolicy.connectionPool.tcp.tcpKeepalive.interval: 0s is not possible: use 1s to 9h6m7s",
	}},
	{name: "a scope of the breaker that is set twice", yaml: `
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: a, namespace: shop, annotations: {inboard.breaker: "{scope: both, scope: cluster}"}}
spec: {host: payment}
`, want: []string{
		`x.yaml:3:69: DestinationRule shop/a: metadata.annotations[inboard.breaker]: "scope" is set twice`,
	}},
}

func TestKeepAliveProblems(t *testing.T) {
	t.Parallel()
	for _, c := range keepAliveProblems {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			checkProblems(t, c)
		})
	}
}

// As in Istio, an idle timeout of 0 of the connections is none, that of requests is
// refused.
func TestAnIdleTimeoutOfZeroIsNone(t *testing.T) {
	t.Parallel()
	for pool, want := range map[string]time.Duration{
		"tcp: {idleTimeout: 0s}":                          0,
		"tcp: {idleTimeout: 0s}, http: {idleTimeout: 5s}": 5 * time.Second,
	} {
		config := parse(t, yamlFile(document("ServiceEntry", "shop", "payment", spread)+
			document("DestinationRule", "shop", "payment", "\n  host: payment\n  trafficPolicy: {connectionPool: {"+pool+"}}\n")))
		m, _ := config.Resource(istio.Node{Namespace: "shop"}, resource.ClusterType, paymentRoutes)
		var options httpv3.HttpProtocolOptions
		for _, packed := range m.(*clusterv3.Cluster).TypedExtensionProtocolOptions {
			if err := packed.UnmarshalTo(&options); err != nil {
				t.Fatal(err)
			}
		}
		if got := options.GetCommonHttpProtocolOptions().GetIdleTimeout(); got == nil || got.AsDuration() != want {
			t.Errorf("%s: the idle timeout is %v, want %v", pool, got, want)
		}
	}
}
