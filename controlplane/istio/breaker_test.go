package istio_test

import (
	"maps"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	resource "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/google/go-cmp/cmp"

	"github.com/inboardmesh/inboard/controlplane/istio"
)

func TestTheBreakerAnnotationBecomesMetadata(t *testing.T) {
	t.Parallel()
	defaults := func(changed map[string]any) map[string]any {
		all := map[string]any{
			"failureRatio": 0.5, "minimumRequests": 20.0, "window": "10s", "openTime": "5s", "halfOpenProbes": 3.0,
		}
		maps.Copy(all, changed)
		return all
	}
	for name, tt := range map[string]struct {
		annotation string
		want       map[string]any
	}{
		"an empty object is all defaults": {"{}", defaults(nil)},
		"one for the cluster":             {"scope: cluster", defaults(map[string]any{"scope": "cluster"})},
		"one for each endpoint":           {"{scope: endpoint, window: 1m}", defaults(map[string]any{"scope": "endpoint", "window": "1m"})},
		"both":                            {`{"scope": "both", "failureRatio": 1}`, defaults(map[string]any{"scope": "both", "failureRatio": 1.0})},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rule := "apiVersion: networking.istio.io/v1\nkind: DestinationRule\n" +
				"metadata: {name: a, namespace: shop, annotations: {inboard.breaker: '" + tt.annotation + "'}}\nspec: {host: payment}\n"
			config := parse(t, istio.File{Name: "shop.yaml", Data: []byte(shop)}, istio.File{Name: "rule.yaml", Data: []byte(rule)})
			cluster := resourceOf[*clusterv3.Cluster](t, config, resource.ClusterType, "outbound|8080||payment.shop.svc.cluster.local")
			got := cluster.GetMetadata().GetFilterMetadata()["inboard.breaker"].AsMap()
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("metadata (-want +got):\n%s", diff)
			}
		})
	}
}
