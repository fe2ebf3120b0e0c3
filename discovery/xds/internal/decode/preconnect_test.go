package decode

import (
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
)

func preconnectCluster(policy string) string {
	return `{"name": "c", "type": "EDS", "edsClusterConfig": {"edsConfig": {"ads": {}}}, "preconnectPolicy": ` + policy + `}`
}

func TestPreconnectPolicy(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		policy string
		want   float64
	}{
		"an empty one":          {`{}`, 0},
		"one for one":           {`{"perUpstreamPreconnectRatio": 1}`, 1},
		"three for two":         {`{"perUpstreamPreconnectRatio": 1.5, "predictivePreconnectRatio": 1}`, 1.5},
		"the most that is wise": {`{"perUpstreamPreconnectRatio": 3}`, 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := decodeCluster(t, preconnectCluster(tt.policy)).PreconnectRatio; got != tt.want {
				t.Errorf("ratio %v, want %v", got, tt.want)
			}
		})
	}
}

func TestPreconnectPolicyRefusals(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ policy, want string }{
		"less than one for one":        {`{"perUpstreamPreconnectRatio": 0.5}`, "preconnect_policy.per_upstream_preconnect_ratio: value must be inside range [1, 3]"},
		"more than three":              {`{"perUpstreamPreconnectRatio": 3.1}`, "preconnect_policy.per_upstream_preconnect_ratio: value must be inside range [1, 3]"},
		"no number":                    {`{"perUpstreamPreconnectRatio": "NaN"}`, "preconnect_policy.per_upstream_preconnect_ratio: NaN is not between 1 and 3"},
		"endpoints that may be called": {`{"predictivePreconnectRatio": 2}`, "preconnect_policy.predictive_preconnect_ratio: not supported: use per_upstream_preconnect_ratio"},
		"some endpoints only":          {`{"preconnectEnabledMetadata": {}}`, "preconnect_policy.preconnect_enabled_metadata"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, _, err := Cluster(marshal(t, fromJSON[clusterv3.Cluster](t, preconnectCluster(tt.policy))))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}
