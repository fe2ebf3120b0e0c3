package istio_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	resource "github.com/envoyproxy/go-control-plane/pkg/resource/v3"

	"github.com/inboardmesh/inboard/controlplane/istio"
)

// distributed is a Service with pods on four machines, and what it prefers.
const distributed = `apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec: {ports: [{name: http, port: 80}]%s}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: cart-a, namespace: shop, labels: {kubernetes.io/service-name: cart}}
addressType: IPv4
endpoints:
- {addresses: [10.0.0.1], conditions: {ready: true}, nodeName: n1}
- {addresses: [10.0.0.2], conditions: {ready: true}, nodeName: n2}
- {addresses: [10.0.0.3], conditions: {ready: true}, nodeName: n3}
- {addresses: [10.0.0.4], conditions: {ready: true}, nodeName: n4}
ports: [{name: http, port: 8080}]
---
{apiVersion: v1, kind: Node, metadata: {name: n1, labels: {topology.kubernetes.io/region: eu, topology.kubernetes.io/zone: a}}}
---
{apiVersion: v1, kind: Node, metadata: {name: n2, labels: {topology.kubernetes.io/region: eu, topology.kubernetes.io/zone: a}}}
---
{apiVersion: v1, kind: Node, metadata: {name: n3, labels: {topology.kubernetes.io/region: eu, topology.kubernetes.io/zone: b}}}
---
{apiVersion: v1, kind: Node, metadata: {name: n4, labels: {topology.kubernetes.io/region: us, topology.kubernetes.io/zone: a}}}
%s`

func TestServicesSayWhatIsNear(t *testing.T) {
	t.Parallel()
	const overridden = "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: cart, namespace: shop}\n" +
		"spec: {host: cart, trafficPolicy: {loadBalancer: {localityLbSetting: {enabled: false}}}}\n"
	for name, tt := range map[string]struct {
		spec, more string
		host       string
		want       []string
		weighted   bool
	}{
		"nothing": {want: []string{"0: 1 2 3 4"}},
		"close":   {spec: ", trafficDistribution: PreferClose", want: []string{"0: 1 2", "1: 3", "2: 4"}, weighted: true},
		"zone":    {spec: ", trafficDistribution: PreferSameZone", host: "n1", want: []string{"0: 1 2", "1: 3", "2: 4"}, weighted: true},
		"node":    {spec: ", trafficDistribution: PreferSameNode", host: "n2", want: []string{"0: 2", "1: 1", "2: 3", "3: 4"}, weighted: true},
		"a node that is not known": {
			spec: ", trafficDistribution: PreferSameNode", want: []string{"0: 1 2", "1: 3", "2: 4"}, weighted: true,
		},
		"a rule goes before it": {spec: ", trafficDistribution: PreferClose", more: overridden, want: []string{"0: 1 2 3 4"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			config := parse(t, yamlFile(fmt.Sprintf(distributed, tt.spec, tt.more)))
			node := istio.Node{Namespace: "shop", Host: tt.host, Locality: istio.Locality{Region: "eu", Zone: "a"}}
			name := "outbound|80||" + cartHost
			m, ok := config.Resource(node, resource.EndpointType, name)
			if !ok {
				t.Fatal("no endpoints")
			}
			byPriority := make(map[uint32][]string)
			for _, l := range m.(*endpointv3.ClusterLoadAssignment).Endpoints {
				for _, e := range l.LbEndpoints {
					address := e.GetEndpoint().GetAddress().GetSocketAddress().GetAddress()
					byPriority[l.Priority] = append(byPriority[l.Priority], strings.TrimPrefix(address, "10.0.0."))
				}
			}
			var got []string
			for p, addresses := range byPriority {
				slices.Sort(addresses)
				got = append(got, fmt.Sprintf("%d: %s", p, strings.Join(addresses, " ")))
			}
			slices.Sort(got)
			if !slices.Equal(got, tt.want) {
				t.Errorf("endpoints by priority %q, want %q", got, tt.want)
			}
			cluster, _ := config.Resource(node, resource.ClusterType, name)
			if got := cluster.(*clusterv3.Cluster).GetCommonLbConfig().GetLocalityWeightedLbConfig() != nil; got != tt.weighted {
				t.Errorf("balances by locality weight: %t, want %t", got, tt.weighted)
			}
		})
	}
}

// Kubernetes has overridden what is ready for a Service with
// publishNotReadyAddresses: nobody else looks at the field, as in Istio.
func TestAddressesThatAreNotReadyArePublished(t *testing.T) {
	t.Parallel()
	const slice = `apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec: {publishNotReadyAddresses: true, clusterIP: None, ports: [{name: http, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: cart-a, namespace: shop, labels: {kubernetes.io/service-name: cart}}
addressType: IPv4
endpoints:
- {addresses: [10.0.0.1], conditions: {ready: true, serving: false, terminating: false}}
- {addresses: [10.0.0.2], conditions: {ready: true, serving: true, terminating: true}}
- {addresses: [10.0.0.3], conditions: {ready: false, serving: true, terminating: true}}
- {addresses: [10.0.0.4], conditions: {ready: false}}
ports: [{name: http, port: 8080}]
`
	config := parse(t, yamlFile(slice))
	m, _ := config.Resource(istio.Node{Namespace: "shop"}, resource.EndpointType, "outbound|80||"+cartHost)
	got := make(map[string]string)
	for _, l := range m.(*endpointv3.ClusterLoadAssignment).Endpoints {
		for _, e := range l.LbEndpoints {
			got[e.GetEndpoint().GetAddress().GetSocketAddress().GetAddress()] = e.GetHealthStatus().String()
		}
	}
	if text, want := fmt.Sprint(got), "map[10.0.0.1:HEALTHY 10.0.0.2:HEALTHY 10.0.0.3:DRAINING]"; text != want {
		t.Errorf("endpoints %s, want %s", text, want)
	}
}
