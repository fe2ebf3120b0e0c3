package istio_test

import (
	"fmt"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	resource "github.com/envoyproxy/go-control-plane/pkg/resource/v3"

	"github.com/inboardmesh/inboard/controlplane/istio"
)

func TestNativeGRPCGetsBalancingThatItHas(t *testing.T) {
	t.Parallel()
	const least, ring, inTurn = clusterv3.Cluster_LEAST_REQUEST, clusterv3.Cluster_RING_HASH, clusterv3.Cluster_ROUND_ROBIN
	for _, tt := range []struct {
		name, balancer string
		mesh, native   clusterv3.Cluster_LbPolicy
	}{
		{"nothing is said", "{}", least, inTurn},
		{"only a warmup is", "{warmup: {duration: 1m}}", least, inTurn},
		{"least request is asked for", "{simple: LEAST_REQUEST}", least, least},
		{"round robin", "{simple: ROUND_ROBIN}", inTurn, inTurn},
		{"random", "{simple: RANDOM}", clusterv3.Cluster_RANDOM, inTurn},
		{"a ring", "{consistentHash: {httpHeaderName: x}}", ring, ring},
		{"Maglev", "{consistentHash: {httpHeaderName: x, maglev: {}}}", clusterv3.Cluster_MAGLEV, ring},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			rule := "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: a, namespace: shop}\n" +
				"spec: {host: payment, trafficPolicy: {loadBalancer: " + tt.balancer + "}}\n"
			config := parse(t, istio.File{Name: "shop.yaml", Data: []byte(shop)}, istio.File{Name: "rule.yaml", Data: []byte(rule)})
			const name = "outbound|8080||payment.shop.svc.cluster.local"
			of := func(native bool) *clusterv3.Cluster {
				t.Helper()
				m, ok := config.Resource(istio.Node{ID: "a", Namespace: "shop", NativeGRPC: native}, resource.ClusterType, name)
				if !ok {
					t.Fatal("there is no cluster")
				}
				return m.(*clusterv3.Cluster)
			}
			if got := of(false).GetLbPolicy(); got != tt.mesh {
				t.Errorf("the mesh gets %v, want %v", got, tt.mesh)
			}
			native := of(true)
			if native.GetLbPolicy() != tt.native || native.GetName() != name || native.GetEdsClusterConfig() == nil {
				t.Errorf("native gRPC gets %v, want %v", native, tt.native)
			}
			if native != of(true) {
				t.Error("the same question has another answer")
			}
			if tt.native == inTurn && native.GetLbConfig() != nil {
				t.Errorf("round robin with %v", native.GetLbConfig())
			}
		})
	}
}

// Native gRPC servers have one chain, and no listener filters.
func TestNativeGRPCServersGetOneOfPermissive(t *testing.T) {
	t.Parallel()
	peers := func(mode string) string {
		return "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: a, namespace: istio-system}\nspec: {mtls: {mode: " + mode + "}}\n"
	}
	entry := func(rest string) string {
		return fmt.Sprintf(`apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: ledger, namespace: shop}
spec:
  hosts: [ledger.shop.svc.cluster.local]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{number: 9090, name: grpc, protocol: GRPC}]
  endpoints: [{address: 10.0.0.9, labels: {app: ledger%s}}]
`, rest)
	}
	for _, tt := range []struct {
		name, peers, endpoint string
		labels                map[string]string
		tls                   bool
	}{
		{"an endpoint that offers mutual TLS by its account", "PERMISSIVE", "}, serviceAccount: ledger, ports: {grpc: 9090", map[string]string{"app": "ledger"}, true},
		{"one that offers it by its label", "PERMISSIVE", ", security.istio.io/tlsMode: istio}, serviceAccount: ledger, ports: {grpc: 9090", map[string]string{"app": "ledger"}, true},
		{"one that says that it does not", "PERMISSIVE", ", security.istio.io/tlsMode: disabled", map[string]string{"app": "ledger"}, false},
		{"another workload's", "PERMISSIVE", ", security.istio.io/tlsMode: istio}, serviceAccount: ledger, ports: {grpc: 9090", map[string]string{"app": "other"}, false},
		{"a node without labels may be the endpoint", "PERMISSIVE", ", security.istio.io/tlsMode: istio}, serviceAccount: ledger, ports: {grpc: 9090", nil, true},
		{"a node that offers it by its label", "PERMISSIVE", "", map[string]string{"app": "ledger", "security.istio.io/tlsMode": "istio"}, true},
		{"STRICT is STRICT", "STRICT", "", map[string]string{"app": "ledger"}, true},
		{"DISABLE is DISABLE", "DISABLE", ", security.istio.io/tlsMode: istio}, serviceAccount: ledger, ports: {grpc: 9090", map[string]string{"app": "ledger"}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			config := parse(t, istio.File{Name: "a.yaml", Data: []byte(entry(tt.endpoint))}, istio.File{Name: "b.yaml", Data: []byte(peers(tt.peers))})
			node := istio.Node{ID: "a", Namespace: "shop", Labels: tt.labels, NativeGRPC: true}
			m, ok := config.Resource(node, resource.ListenerType, "xds.istio.io/grpc/lds/inbound/0.0.0.0:9090")
			if !ok {
				t.Fatal("there is no listener")
			}
			l := m.(*listenerv3.Listener)
			if len(l.GetFilterChains()) != 1 || len(l.GetListenerFilters()) > 0 || l.GetFilterChains()[0].GetFilterChainMatch() != nil {
				t.Fatalf("listener %v", l)
			}
			if got := l.GetFilterChains()[0].GetTransportSocket() != nil; got != tt.tls {
				t.Errorf("TLS is %v, want %v", got, tt.tls)
			}
			node.NativeGRPC = false
			m, _ = config.Resource(node, resource.ListenerType, "xds.istio.io/grpc/lds/inbound/0.0.0.0:9090")
			if chains := m.(*listenerv3.Listener).GetFilterChains(); tt.peers == "PERMISSIVE" && len(chains) != 2 {
				t.Errorf("the mesh gets %d chains", len(chains))
			}
		})
	}
}
