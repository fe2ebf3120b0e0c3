package istio_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	resource "github.com/envoyproxy/go-control-plane/pkg/resource/v3"

	"github.com/inboardmesh/inboard/controlplane/istio"
)

const spread = `
  hosts: [payment.shop.svc.cluster.local]
  resolution: STATIC
  ports: [{name: http, number: 8080, protocol: HTTP}]
  endpoints:
  - {address: 10.0.0.1, locality: eu/a/1}
  - {address: 10.0.0.2, locality: eu/a/2, weight: 3}
  - {address: 10.0.0.3, locality: eu/b, network: net1}
  - {address: 10.0.0.4, locality: us/a, labels: {version: v1}}
  - {address: 10.0.0.5, locality: us/a, labels: {version: v2}}
  - {address: 10.0.0.6, locality: ap/a, network: net1}
`

const outlierPolicy = `outlierDetection: {consecutive5xxErrors: 5}`

// placesOf are the endpoints of a node: "priority weight addresses", in the order
// of their priorities.
func placesOf(t *testing.T, config *istio.Config, node istio.Node) []string {
	t.Helper()
	m, ok := config.Resource(node, resource.EndpointType, paymentRoutes)
	if !ok {
		t.Fatal("no endpoints")
	}
	return placesIn(m.(*endpointv3.ClusterLoadAssignment))
}

func placesIn(a *endpointv3.ClusterLoadAssignment) []string {
	var places []string
	for _, l := range a.Endpoints {
		var last []string
		for _, e := range l.LbEndpoints {
			address := e.GetEndpoint().GetAddress().GetSocketAddress().GetAddress()
			last = append(last, strings.TrimPrefix(address, "10.0.0."))
		}
		places = append(places, fmt.Sprintf("%d: %d x %s", l.Priority, l.GetLoadBalancingWeight().GetValue(), strings.Join(last, " ")))
	}
	slices.Sort(places)
	return places
}

func TestLocalitySettingsPlaceTheEndpointsForEachNode(t *testing.T) {
	t.Parallel()
	at := func(region, zone, subZone string) istio.Node {
		return istio.Node{Namespace: "shop", Locality: istio.Locality{Region: region, Zone: zone, SubZone: subZone}}
	}
	same := []string{"0: 1 x 1", "0: 1 x 3", "0: 1 x 6", "0: 2 x 4 5", "0: 3 x 2"}
	for _, c := range []struct {
		name     string
		policy   string
		node     istio.Node
		want     []string
		weighted bool
	}{
		{name: "without a setting and without outlier detection all are equal", policy: "connectionPool: {}", node: at("eu", "a", "1"), want: same},
		{
			name: "with outlier detection the nearest come first", policy: outlierPolicy, node: at("eu", "a", "1"),
			want: []string{"0: 1 x 1", "1: 3 x 2", "2: 1 x 3", "3: 1 x 6", "3: 2 x 4 5"},
		},
		{
			name: "a node in another zone sees another order", policy: outlierPolicy, node: at("us", "a", ""),
			want: []string{"0: 2 x 4 5", "1: 1 x 1", "1: 1 x 3", "1: 1 x 6", "1: 3 x 2"},
		},
		{
			name: "a node tells its locality by its label", policy: outlierPolicy,
			node: istio.Node{Namespace: "shop", Labels: map[string]string{"istio-locality": "us.a"}},
			want: []string{"0: 2 x 4 5", "1: 1 x 1", "1: 1 x 3", "1: 1 x 6", "1: 3 x 2"},
		},
		{name: "a node without a locality sees them all alike", policy: outlierPolicy, node: at("", "", ""), want: same},
		{
			name: "a setting that is not enabled changes nothing", node: at("eu", "a", "1"), want: same,
			policy: outlierPolicy + "\n    loadBalancer: {localityLbSetting: {enabled: false, failover: [{from: eu, to: ap}]}}",
		},
		{
			name: "failover says which other region comes first", node: at("eu", "a", "1"), weighted: true,
			policy: outlierPolicy + "\n    loadBalancer: {localityLbSetting: {failover: [{from: eu, to: ap}]}}",
			want:   []string{"0: 1 x 1", "1: 3 x 2", "2: 1 x 3", "3: 1 x 6", "4: 2 x 4 5"},
		},
		{
			name: "failover without outlier detection has no effect", node: at("eu", "a", "1"), want: same,
			policy: "loadBalancer: {localityLbSetting: {failover: [{from: eu, to: ap}]}}",
		},
		{
			name: "labels order the endpoints", weighted: true,
			node:   istio.Node{Namespace: "shop", Network: "net1", Locality: istio.Locality{Region: "eu", Zone: "b"}},
			policy: outlierPolicy + "\n    loadBalancer: {localityLbSetting: {failoverPriority: [topology.istio.io/network, topology.kubernetes.io/region]}}",
			want:   []string{"0: 1 x 3", "1: 1 x 6", "2: 1 x 1", "2: 2 x 4 5", "2: 3 x 2"},
		},
		{
			name: "a label with a value does not look at the node", node: at("eu", "a", "1"), weighted: true,
			policy: outlierPolicy + "\n    loadBalancer: {localityLbSetting: {failoverPriority: [version=v2]}}",
			want:   []string{"0: 1 x 5", "1: 1 x 1", "1: 1 x 3", "1: 1 x 4", "1: 1 x 6", "1: 3 x 2"},
		},
		{
			name: "labels come before failover", node: at("eu", "a", "1"), weighted: true,
			policy: outlierPolicy + "\n    loadBalancer: {localityLbSetting: {failoverPriority: [version=v2], failover: [{from: eu, to: ap}]}}",
			want:   []string{"0: 1 x 5", "1: 1 x 1", "2: 3 x 2", "3: 1 x 3", "4: 1 x 6", "5: 1 x 4"},
		},
		{
			name: "a distribution shares by place and leaves the rest out", node: at("eu", "a", "1"), weighted: true,
			policy: `loadBalancer: {localityLbSetting: {distribute: [{from: eu/a/*, to: {"eu/a/*": 80, us: 20}}, {from: us, to: {us: 100}}]}}`,
			want:   []string{"0: 20 x 1", "0: 20 x 4 5", "0: 60 x 2"},
		},
		{
			name: "a distribution for others changes nothing", node: at("ap", "a", ""), want: same, weighted: true,
			policy: `loadBalancer: {localityLbSetting: {distribute: [{from: eu/a/*, to: {"eu/a/*": 80, us: 20}}]}}`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			rule := document("DestinationRule", "shop", "payment", "\n  host: payment\n  trafficPolicy:\n    "+c.policy+"\n")
			config := parse(t, yamlFile(document("ServiceEntry", "shop", "payment", spread)+rule))
			for range 2 { // the second is from memory
				if got := placesOf(t, config, c.node); !slices.Equal(got, c.want) {
					t.Errorf("endpoints %q, want %q", got, c.want)
				}
			}
			m, _ := config.Resource(c.node, resource.ClusterType, paymentRoutes)
			if got := m.(*clusterv3.Cluster).GetCommonLbConfig().GetLocalityWeightedLbConfig() != nil; got != c.weighted {
				t.Errorf("weighted by locality: %t, want %t", got, c.weighted)
			}
			checkResourcesOf(t, config, c.node)
		})
	}
}

// The endpoints of a cluster of type DNS are inside of it: they are placed like others.
func TestLocalitySettingsPlaceTheNamesOfAClusterOfDNS(t *testing.T) {
	t.Parallel()
	eu := istio.Node{Namespace: "shop", Locality: istio.Locality{Region: "eu", Zone: "a", SubZone: "1"}}
	dns := document("ServiceEntry", "shop", "payment", strings.Replace(spread, "STATIC", "DNS", 1))
	itself := document("ServiceEntry", "shop", "payment", `
  hosts: [payment.shop.svc.cluster.local]
  resolution: DNS
  ports: [{name: http, number: 8080, protocol: HTTP}]`)
	same := []string{"0: 1 x 1", "0: 1 x 3", "0: 1 x 6", "0: 2 x 4 5", "0: 3 x 2"}
	alone := []string{"0: 1 x payment.shop.svc.cluster.local"}
	for _, c := range []struct {
		name         string
		entry        string
		host, policy string
		node         istio.Node
		want         []string
	}{
		{name: "outlier detection alone, of the host itself", entry: itself, host: "payment", policy: outlierPolicy, node: eu, want: alone},
		{
			name: "outlier detection alone, of one endpoint for all", host: "payment", policy: outlierPolicy, node: eu, want: alone,
			entry: strings.Replace(itself, "DNS", "DNS_ROUND_ROBIN", 1),
		},
		{
			name: "one endpoint for all stays in spite of a distribution", host: "payment", node: eu, want: alone,
			entry:  strings.Replace(itself, "DNS", "DNS_ROUND_ROBIN", 1),
			policy: `loadBalancer: {localityLbSetting: {distribute: [{from: eu, to: {us: 100}}]}}`,
		},
		{
			name: "outlier detection alone: the nearest come first", entry: dns, host: "payment", policy: outlierPolicy, node: eu,
			want: []string{"0: 1 x 1", "1: 3 x 2", "2: 1 x 3", "3: 1 x 6", "3: 2 x 4 5"},
		},
		{
			name: "a rule for many hosts", entry: dns, host: `"*.shop.svc.cluster.local"`, node: eu,
			policy: outlierPolicy + "\n    loadBalancer: {localityLbSetting: {failover: [{from: eu, to: ap}]}}",
			want:   []string{"0: 1 x 1", "1: 3 x 2", "2: 1 x 3", "3: 1 x 6", "4: 2 x 4 5"},
		},
		{
			name: "labels order the names", entry: dns, host: "payment", node: eu,
			policy: outlierPolicy + "\n    loadBalancer: {localityLbSetting: {failoverPriority: [version=v2]}}",
			want:   []string{"0: 1 x 5", "1: 1 x 1", "1: 1 x 3", "1: 1 x 4", "1: 1 x 6", "1: 3 x 2"},
		},
		{
			name: "a distribution shares by place", entry: dns, host: "payment", node: eu,
			policy: `loadBalancer: {localityLbSetting: {distribute: [{from: eu/a/*, to: {"eu/a/*": 80, us: 20}}]}}`,
			want:   []string{"0: 20 x 1", "0: 20 x 4 5", "0: 60 x 2"},
		},
		{name: "a node without a locality", entry: dns, host: "payment", policy: outlierPolicy, node: istio.Node{Namespace: "shop"}, want: same},
		{
			name: "gRPC's own clients get the same places", entry: dns, host: "payment", policy: outlierPolicy + "\n    loadBalancer: {simple: RANDOM}",
			node: istio.Node{Namespace: "shop", NativeGRPC: true, Locality: istio.Locality{Region: "us", Zone: "a"}},
			want: []string{"0: 2 x 4 5", "1: 1 x 1", "1: 1 x 3", "1: 1 x 6", "1: 3 x 2"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			rule := document("DestinationRule", "shop", "payment", "\n  host: "+c.host+"\n  trafficPolicy:\n    "+c.policy+"\n")
			config := parse(t, yamlFile(c.entry+rule))
			first, _ := config.Resource(c.node, resource.ClusterType, paymentRoutes)
			if got := placesIn(first.(*clusterv3.Cluster).LoadAssignment); !slices.Equal(got, c.want) {
				t.Errorf("endpoints %q, want %q", got, c.want)
			}
			if again, _ := config.Resource(c.node, resource.ClusterType, paymentRoutes); again != first {
				t.Error("the same question has another answer")
			}
			if c.node.NativeGRPC && first.(*clusterv3.Cluster).LbPolicy != clusterv3.Cluster_ROUND_ROBIN {
				t.Errorf("gRPC's own client gets %v", first.(*clusterv3.Cluster).LbPolicy)
			}
			for zone := range 3 * 256 { // most of them are made anew each time
				node := istio.Node{Namespace: "shop", Locality: istio.Locality{Region: "eu", Zone: strconv.Itoa(zone)}}
				if _, ok := config.Resource(node, resource.ClusterType, paymentRoutes); !ok {
					t.Fatal("no cluster")
				}
			}
			if err := first.(*clusterv3.Cluster).ValidateAll(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestPlacementsOfManyNodesAreNotAllKept(t *testing.T) {
	t.Parallel()
	rule := document("DestinationRule", "shop", "payment", "\n  host: payment\n  trafficPolicy: {"+outlierPolicy+"}\n")
	config := parse(t, yamlFile(document("ServiceEntry", "shop", "payment", spread)+rule))
	for i := range 1000 {
		node := istio.Node{Namespace: "shop", Locality: istio.Locality{Region: "eu", Zone: fmt.Sprint(i)}}
		want := []string{"0: 1 x 1", "0: 1 x 3", "0: 3 x 2", "1: 1 x 6", "1: 2 x 4 5"}
		if got := placesOf(t, config, node); !slices.Equal(got, want) {
			t.Fatalf("endpoints %q, want %q", got, want)
		}
	}
}

var localityProblems = []problemCase{
	{name: "a locality setting that contradicts itself", yaml: `
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: a, namespace: shop}
spec:
  host: payment
  trafficPolicy:
    outlierDetection: {}
    loadBalancer:
      localityLbSetting:
        distribute:
        - {from: eu/*/1, to: {us: 100}}
        - {from: eu, to: {us: 60, us/a: 60, "": 0}}
        - {from: "*", to: {us: 100}}
        failover:
        - {from: eu/a, to: ""}
        - {from: us, to: us}
        - {from: us, to: eu}
        failoverPriority: [topology.kubernetes.io/region, "", a=b=c]
`, want: []string{
		`x.yaml:11:9: DestinationRule shop/a: spec.trafficPolicy.loadBalancer.localityLbSetting.distribute: cannot be set together with failover or failoverPriority`,
		`x.yaml:11:18: DestinationRule shop/a: spec.trafficPolicy.loadBalancer.localityLbSetting.distribute[0].from: "eu/*/1" is not a locality: write region/zone/subzone, of which the last part may be '*'`,
		`x.yaml:12:18: DestinationRule shop/a: spec.trafficPolicy.loadBalancer.localityLbSetting.distribute[1].from: "eu" and "eu/*/1" are about the same clients`,
		`x.yaml:12:26: DestinationRule shop/a: spec.trafficPolicy.loadBalancer.localityLbSetting.distribute[1].to: the shares add up to 120, not to 100`,
		`x.yaml:12:41: DestinationRule shop/a: spec.trafficPolicy.loadBalancer.localityLbSetting.distribute[1].to[us/a]: "us/a" and "us" are about the same endpoints`,
		`x.yaml:12:49: DestinationRule shop/a: spec.trafficPolicy.loadBalancer.localityLbSetting.distribute[1].to[]: "" is not a locality: write region/zone/subzone, of which the last part may be '*'`,
		`x.yaml:12:49: DestinationRule shop/a: spec.trafficPolicy.loadBalancer.localityLbSetting.distribute[1].to[]: 0 is not in 1..100`,
		`x.yaml:13:18: DestinationRule shop/a: spec.trafficPolicy.loadBalancer.localityLbSetting.distribute[2].from: "*" and "eu/*/1" are about the same clients`,
		`x.yaml:13:18: DestinationRule shop/a: spec.trafficPolicy.loadBalancer.localityLbSetting.distribute[2].from: "*" and "eu" are about the same clients`,
		`x.yaml:15:18: DestinationRule shop/a: spec.trafficPolicy.loadBalancer.localityLbSetting.failover[0].from: "eu/a" is not a region: failover is between regions`,
		`x.yaml:15:28: DestinationRule shop/a: spec.trafficPolicy.loadBalancer.localityLbSetting.failover[0].to: "" is not a region: failover is between regions`,
		`x.yaml:16:26: DestinationRule shop/a: spec.trafficPolicy.loadBalancer.localityLbSetting.failover[1].to: "us" fails over to itself`,
		`x.yaml:17:18: DestinationRule shop/a: spec.trafficPolicy.loadBalancer.localityLbSetting.failover[2].from: "us" is set twice`,
		`x.yaml:18:28: DestinationRule shop/a: spec.trafficPolicy.loadBalancer.localityLbSetting.failoverPriority[0]: "topology.kubernetes.io/region" cannot be set together with failover, which looks at it too`,
		`x.yaml:18:59: DestinationRule shop/a: spec.trafficPolicy.loadBalancer.localityLbSetting.failoverPriority[1]: "" is not a label: write KEY or KEY=VALUE`,
		`x.yaml:18:63: DestinationRule shop/a: spec.trafficPolicy.loadBalancer.localityLbSetting.failoverPriority[2]: "a=b=c" is not a label: write KEY or KEY=VALUE`,
	}},
}
