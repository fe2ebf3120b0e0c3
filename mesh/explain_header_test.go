package mesh_test

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/inboardmesh/inboard/mesh"
	"github.com/inboardmesh/inboard/mesh/meshtest"
)

// A header chooses among the clusters that a route of the same table names: whoever can
// set it cannot have others asked for.
func TestAHeaderNamesAClusterOfTheTable(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := meshtest.New(t)
		w.Service("payment.shop")
		m := w.Workload("customer.shop")
		ask := func(path, header, name string) (*http.Request, *mesh.Explanation) {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://payment.shop"+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set(header, name)
			e, err := m.Explain(req)
			if err != nil {
				t.Fatal(err)
			}
			return req, e
		}
		_, before := ask("/", "x-cluster", "")
		at := strings.Split(before.Cluster.Endpoints[0].Address, ":")
		cluster := new(clusterv3.Cluster)
		if err := protojson.Unmarshal([]byte(`{"name": "stable", "type": "STATIC", "loadAssignment": {"clusterName": "stable", "endpoints": [{"lbEndpoints": [
			{"endpoint": {"address": {"socketAddress": {"address": "`+at[0]+`", "portValue": `+at[1]+`}}}}]}]}}`), cluster); err != nil {
			t.Fatal(err)
		}
		listener := new(listenerv3.Listener)
		if err := protojson.Unmarshal([]byte(`{"name": "payment.shop:80", "apiListener": {"apiListener": {
			"@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
			"httpFilters": [{"name": "router", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}],
			"routeConfig": {"virtualHosts": [{"name": "h", "domains": ["*"], "routes": [
				{"match": {"path": "/named"}, "route": {"cluster": "stable", "requestMirrorPolicies": [{"clusterHeader": "x-copy"}]}},
				{"match": {"prefix": "/"}, "route": {"clusterHeader": "x-cluster"}}]}]}}}}`), listener); err != nil {
			t.Fatal(err)
		}
		canary := &clusterv3.Cluster{Name: "canary", ClusterDiscoveryType: cluster.ClusterDiscoveryType, LoadAssignment: cluster.LoadAssignment}
		w.Push(listener, cluster, canary)
		for name, there := range map[string]bool{"stable": true, "canary": false} {
			req, e := ask("/", "x-cluster", name)
			resp, err := m.HTTPClient().Do(req)
			if err == nil {
				resp.Body.Close()
			}
			if (err == nil) != there || (e.Verdict == mesh.VerdictForward) != there {
				t.Errorf("%s: %v, explained as %s", name, err, e.Verdict)
			}
			if !there && !strings.Contains(err.Error(), "no route of this table names such a cluster") {
				t.Errorf("%s: %v", name, err)
			}
			if _, e := ask("/named", "x-copy", name); len(e.Mirrors) != 1 || e.Mirrors[0].Missing == there || strings.Contains(e.String(), "not copied") == there {
				t.Errorf("%s: mirrors %+v, and in words %s", name, e.Mirrors, e)
			}
		}
	})
}
