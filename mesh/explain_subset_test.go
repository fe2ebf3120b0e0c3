package mesh_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"

	"github.com/inboardmesh/inboard/mesh"
	"github.com/inboardmesh/inboard/mesh/meshtest"
)

// explained asks about a GET of payment.shop.
func explained(t *testing.T, m *mesh.Mesh) *mesh.Explanation {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://payment.shop/", nil)
	if err != nil {
		t.Fatal(err)
	}
	e, err := m.Explain(req)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// expectPicked compares the endpoints of an explanation that are candidates, in the
// order of their addresses, and that of each other one says why.
func expectPicked(t *testing.T, e *mesh.Explanation, why string, want ...string) {
	t.Helper()
	var picked []string
	for _, endpoint := range e.Cluster.Endpoints {
		if endpoint.Candidate {
			picked = append(picked, endpoint.Address)
		} else if !strings.Contains(endpoint.Why, why) {
			t.Errorf("%s is not picked because %q, want %q", endpoint.Address, endpoint.Why, why)
		}
	}
	if fmt.Sprint(picked) != fmt.Sprint(want) {
		t.Errorf("picked from %v, want %v", picked, want)
	}
}

func TestExplainKnowsSubsets(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := meshtest.New(t)
		w.Service("payment.shop")
		w.Service("payment.shop")
		m := w.Workload("customer.shop")
		var at [2]string
		for i, e := range explained(t, m).Cluster.Endpoints {
			at[i] = e.Address
		}
		endpoint := func(address, version string) string {
			host, port, _ := strings.Cut(address, ":")
			return `{"endpoint": {"address": {"socketAddress": {"address": "` + host + `", "portValue": ` + port + `}}},
				"metadata": {"filterMetadata": {"envoy.lb": {"version": "` + version + `"}}}}`
		}
		push := func(asked string) {
			w.Push(
				parsed(new(clusterv3.Cluster), "%s", `{"name": "c", "type": "STATIC", "lbSubsetConfig": {"fallbackPolicy": "NO_FALLBACK", "subsetSelectors": [{"keys": ["version"]}]},
					"loadAssignment": {"clusterName": "c", "endpoints": [{"lbEndpoints": [`+endpoint(at[0], "v1")+`, `+endpoint(at[1], "v2")+`]}]}}`),
				parsed(new(listenerv3.Listener), "%s", `{"name": "payment.shop:80", "apiListener": {"apiListener": {
					"@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
					"httpFilters": [{"name": "router", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}],
					"routeConfig": {"virtualHosts": [{"name": "h", "domains": ["*"], "routes": [{"match": {"prefix": "/"},
						"route": {"cluster": "c", "metadataMatch": {"filterMetadata": {"envoy.lb": {"version": "`+asked+`"}}}}}]}]}}}}`))
		}
		push("v2")
		e := explained(t, m)
		if e.Verdict != mesh.VerdictForward {
			t.Errorf("verdict %s", e.Verdict)
		}
		expectPicked(t, e, "not of the subset", at[1])
		push("v3")
		e = explained(t, m)
		_, err := m.HTTPClient().Get("http://payment.shop/")
		if e.Verdict != mesh.VerdictNoEndpoint || err == nil || !strings.Contains(err.Error(), e.Reason) {
			t.Errorf("verdict %s, %q; the call: %v", e.Verdict, e.Reason, err)
		}
		expectPicked(t, e, "no endpoint in the subset")
	})
}

func TestExplainKnowsTheBreakersOfEndpoints(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := meshtest.New(t)
		well, ill := w.Service("payment.shop"), w.Service("payment.shop")
		w.Apply(`
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata:
  name: payment
  namespace: shop
  annotations: {inboard.breaker: "{scope: endpoint, failureRatio: 0.5, minimumRequests: 1, openTime: 1m}"}
spec: {host: payment.shop.svc.cluster.local}
`)
		m := w.Workload("customer.shop")
		before := explained(t, m)
		ill.FailNext(1)
		for range 10 {
			if resp, err := m.HTTPClient().Get("http://payment.shop/"); err == nil {
				resp.Body.Close()
			}
		}
		time.Sleep(time.Second)
		expectPicked(t, explained(t, m), "its breaker lets nothing pass", before.Cluster.Endpoints[0].Address)

		well.FailNext(20)
		for range 20 {
			if resp, err := m.HTTPClient().Get("http://payment.shop/"); err == nil {
				resp.Body.Close()
			}
		}
		e := explained(t, m)
		_, err := m.HTTPClient().Get("http://payment.shop/")
		if e.Verdict != mesh.VerdictNoEndpoint || err == nil || !strings.Contains(err.Error(), "breaker is open") {
			t.Errorf("verdict %s, %q; the call: %v", e.Verdict, e.Reason, err)
		}
		expectPicked(t, e, "its breaker lets nothing pass")
	})
}
