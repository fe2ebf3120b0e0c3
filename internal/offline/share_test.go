package offline_test

import (
	"fmt"
	"testing"

	"github.com/inboardmesh/inboard/controlplane/istio"
	"github.com/inboardmesh/inboard/internal/ask"
	"github.com/inboardmesh/inboard/internal/offline"
)

// A backend that is not there fails its share of the requests: it is the share that
// is compared, and not what chance makes of one request.
func TestDiffDrawsNoRoutes(t *testing.T) {
	t.Parallel()
	withDead := func(weight int) *offline.Mesh {
		t.Helper()
		m, err := offline.New([]istio.File{{Name: "x.yaml", Data: fmt.Appendf(nil, services+`
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: a, namespace: shop}
spec:
  parentRefs: [{group: "", kind: Service, name: payment, port: 80}]
  rules:
  - backendRefs:
    - {name: payment, port: 80, weight: 10}
    - {name: gone, port: 1, weight: %d}
`, weight)}}, offline.Node{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := m.Close(); err != nil {
				t.Error(err)
			}
		})
		return m
	}
	requests := make([]ask.Recorded, 50)
	for i := range requests {
		requests[i] = ask.Recorded{Line: i + 1, Request: ask.Request{Method: "GET", URL: "http://payment.shop/"}}
	}
	half, third := withDead(10), withDead(5)
	same, _, err := offline.Diff(t.Context(), half, half, requests)
	if err != nil || len(same) > 0 {
		t.Errorf("beside itself: %v, %v", same, err)
	}
	other, _, err := offline.Diff(t.Context(), half, third, requests)
	if err != nil || len(other) != len(requests) {
		t.Fatalf("another share: %d differences of %d, %v", len(other), len(requests), err)
	}
	for _, d := range other {
		if len(d.Changes) != 1 || d.Changes[0].What != "shares" {
			t.Fatalf("got %+v", d.Changes)
		}
	}
	t.Logf("%+v", other[0].Changes)
}
