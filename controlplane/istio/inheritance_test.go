package istio_test

import (
	"fmt"
	"math"
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	resource "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/google/go-cmp/cmp"

	"github.com/inboardmesh/inboard/controlplane/istio"
)

// settingsOf tells whose settings a cluster has: each level of the rule below sets
// numbers and a balancer of its own.
func settingsOf(c *clusterv3.Cluster) string {
	var set []string
	if t := c.GetCircuitBreakers().GetThresholds()[0]; t.MaxConnections.GetValue() != math.MaxUint32 {
		set = append(set, fmt.Sprintf("pool %d", t.MaxConnections.GetValue()))
	}
	if n := c.GetOutlierDetection().GetConsecutive_5Xx(); n != nil {
		set = append(set, fmt.Sprintf("outlier %d", n.GetValue()))
	}
	if c.LbPolicy != clusterv3.Cluster_LEAST_REQUEST {
		set = append(set, "lb "+c.LbPolicy.String())
	}
	if b := c.GetCircuitBreakers().GetThresholds()[0].GetRetryBudget(); b != nil {
		set = append(set, fmt.Sprintf("budget %v", b.GetBudgetPercent().GetValue()))
	}
	if c.TransportSocket == nil {
		set = append(set, "plaintext")
	}
	return strings.Join(set, ", ")
}

// Istio merges this way: mergeTrafficPolicy and selectTrafficPolicyComponents of its
// pilot.
func TestTrafficPoliciesAreInheritedAsInIstio(t *testing.T) {
	t.Parallel()
	const (
		host     = "connectionPool: {tcp: {maxConnections: 1}}, outlierDetection: {consecutive5xxErrors: 1}, loadBalancer: {simple: ROUND_ROBIN}, retryBudget: {percent: 1}, tls: {mode: DISABLE}"
		hostPort = ", portLevelSettings: [{port: {number: 8080}, connectionPool: {tcp: {maxConnections: 2}}}]"
	)
	for _, c := range []struct {
		name, policy, subset string
		// whole and part are the settings of port 8080 of the host and of the subset.
		whole, part string
	}{
		{
			"a subset without a policy has that of the host", "{" + host + "}", "",
			"pool 1, outlier 1, lb ROUND_ROBIN, budget 1, plaintext", "pool 1, outlier 1, lb ROUND_ROBIN, budget 1, plaintext",
		},
		{
			"what a subset sets replaces that of the host, and nothing else", "{" + host + "}", "{outlierDetection: {consecutive5xxErrors: 3}, tls: {mode: ISTIO_MUTUAL}}",
			"pool 1, outlier 1, lb ROUND_ROBIN, budget 1, plaintext", "pool 1, outlier 3, lb ROUND_ROBIN, budget 1",
		},
		{
			"a setting is replaced whole", "{" + host + "}", "{connectionPool: {http: {maxRetries: 9}}}",
			"pool 1, outlier 1, lb ROUND_ROBIN, budget 1, plaintext", "outlier 1, lb ROUND_ROBIN, budget 1, plaintext",
		},
		{
			"the policy of a port replaces all of the host's", "{" + host + hostPort + "}", "",
			"pool 2", "pool 2",
		},
		{
			"a subset adds to the policy of a port of the host", "{" + host + hostPort + "}", "{loadBalancer: {simple: RANDOM}}",
			"pool 2", "pool 2, lb RANDOM",
		},
		{
			"the policy of a port of a subset replaces all but the retry budget", "{" + host + "}",
			"{loadBalancer: {simple: RANDOM}, portLevelSettings: [{port: {number: 8080}, outlierDetection: {consecutive5xxErrors: 4}}]}",
			"pool 1, outlier 1, lb ROUND_ROBIN, budget 1, plaintext", "outlier 4, budget 1",
		},
		{
			"the policy of another port changes nothing", "{" + host + ", portLevelSettings: [{port: {number: 9090}, loadBalancer: {simple: RANDOM}}]}",
			"{portLevelSettings: [{port: {number: 9090}, outlierDetection: {consecutive5xxErrors: 4}}]}",
			"pool 1, outlier 1, lb ROUND_ROBIN, budget 1, plaintext", "pool 1, outlier 1, lb ROUND_ROBIN, budget 1, plaintext",
		},
		{
			"a subset has a policy where the host has none", "", "{connectionPool: {tcp: {maxConnections: 5}}, retryBudget: {percent: 6}}",
			"", "pool 5, budget 6",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			rule := "  host: payment\n"
			if c.policy != "" {
				rule += "  trafficPolicy: " + c.policy + "\n"
			}
			rule += "  subsets:\n  - name: v1\n    labels: {version: v1}\n"
			if c.subset != "" {
				rule += "    trafficPolicy: " + c.subset + "\n"
			}
			config := parse(t, istio.File{Name: "shop.yaml", Data: []byte(shop)}, istio.File{Name: "rule.yaml", Data: []byte(document("DestinationRule", "shop", "a", rule))})
			for name, want := range map[string]string{
				"outbound|8080||payment.shop.svc.cluster.local": c.whole, "outbound|8080|v1|payment.shop.svc.cluster.local": c.part,
			} {
				got := settingsOf(resourceOf[*clusterv3.Cluster](t, config, resource.ClusterType, name))
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("%s (-want +got):\n%s", name, diff)
				}
			}
		})
	}
}
