package decode

import (
	"slices"
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"

	"github.com/inboardmesh/inboard/breaker"
)

// aggregateOf is an aggregate cluster with further fields, which begin with a comma.
func aggregateOf(names, fields string) string {
	return `{"name": "all", "clusterType": {"name": "envoy.clusters.aggregate", "typedConfig": {
    "@type": "type.googleapis.com/envoy.extensions.clusters.aggregate.v3.ClusterConfig", "clusters": [` + names + `]}}` + fields + `}`
}

func TestAnAggregateClusterIsDecoded(t *testing.T) {
	t.Parallel()
	c := decodeCluster(t, aggregateFixture)
	if want := []string{"near", "far"}; !slices.Equal(c.Aggregate, want) || c.EDSName != "" || c.Static != nil {
		t.Errorf("cluster %+v, want the clusters %q", c, want)
	}
	if want := (breaker.Limits{MaxConnections: 1024, MaxPendingRequests: 1024, MaxRequests: 1024, MaxRetries: 7}); c.Limits[0] != want {
		t.Errorf("limits %+v, want %+v", c.Limits[0], want)
	}
}

func TestX71_AClusterThatIsNamedTwiceCountsWhereItComesFirst(t *testing.T) {
	t.Parallel()
	c := decodeCluster(t, aggregateOf(`"b", "a", "b", "c", "a"`, ""))
	if want := []string{"b", "a", "c"}; !slices.Equal(c.Aggregate, want) {
		t.Errorf("clusters %q, want %q", c.Aggregate, want)
	}
}

func TestWhatIsOfLeavesIsRefusedInAnAggregate(t *testing.T) {
	t.Parallel()
	for fields, want := range map[string]string{
		`, "lbPolicy": "RING_HASH"`:                                           "lb_policy: RING_HASH is not supported for an aggregate",
		`, "commonLbConfig": {}`:                                              "common_lb_config: not supported for an aggregate",
		`, "outlierDetection": {}`:                                            "outlier_detection: not supported for an aggregate",
		`, "circuitBreakers": {"thresholds": [{"maxRequests": 1}]}`:           "circuit_breakers.thresholds[0].max_requests: not supported",
		`, "circuitBreakers": {"perHostThresholds": [{"maxConnections": 1}]}`: "circuit_breakers.per_host_thresholds: not supported",
		`, "ringHashLbConfig": {}`:                                            "ring_hash_lb_config: not supported",
		`, "upstreamConnectionOptions": {}`:                                   "upstream_connection_options: not supported for an aggregate",
		`, "preconnectPolicy": {}`:                                            "preconnect_policy: not supported for an aggregate",
		`, "metadata": {"filterMetadata": {"inboard.balancer": {}}}`:          `metadata.filter_metadata["inboard.balancer"]: not supported for an aggregate`,
		`, "metadata": {"filterMetadata": {"inboard.priorities": {}}}`:        `metadata.filter_metadata["inboard.priorities"]: not supported for an aggregate`,
		`, "metadata": {"filterMetadata": {"inboard.subsetting": {}}}`:        `metadata.filter_metadata["inboard.subsetting"]: not supported for an aggregate`,
	} {
		_, _, err := Cluster(marshal(t, fromJSON[clusterv3.Cluster](t, aggregateOf(`"near"`, fields))))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", fields, err, want)
		}
	}
	for names, want := range map[string]string{"": "clusters", `""`: "clusters[0]: must not be empty", `"near", "all"`: `clusters[1]: "all" is the cluster itself`} {
		_, _, err := Cluster(marshal(t, fromJSON[clusterv3.Cluster](t, aggregateOf(names, ""))))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("clusters [%s]: error %v, want %q", names, err, want)
		}
	}
}
