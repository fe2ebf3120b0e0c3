package offline_test

import (
	"strings"
	"testing"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/controlplane/istio"
	"github.com/inboardmesh/inboard/internal/ask"
	"github.com/inboardmesh/inboard/internal/offline"
)

const zonedService = `
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: payment, namespace: shop}
spec:
  hosts: [payment.shop.svc.cluster.local]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{name: http, number: 80, protocol: HTTP}]
  endpoints:
  - {address: 10.0.0.1, locality: eu/a}
  - {address: 10.0.0.2, locality: us/a}
---
`

// policed is a mesh whose payment has a policy.
func policed(t *testing.T, annotations, policy string) *offline.Mesh {
	t.Helper()
	yaml := zonedService + "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: payment, namespace: shop, annotations: {" + annotations + "}}\n" +
		"spec:\n  host: payment\n  trafficPolicy: {" + policy + "}\n"
	m, err := offline.New([]istio.File{{Name: "x.yaml", Data: []byte(yaml)}}, offline.Node{Namespace: "shop", Locality: balancer.Locality{Region: "eu", Zone: "a"}})
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

func TestDiffComparesTheSettingsOfClusters(t *testing.T) {
	t.Parallel()
	const (
		outlier    = `outlierDetection: {consecutive5xxErrors: 5}`
		noFailover = `, loadBalancer: {localityLbSetting: {enabled: false}}`
		payment    = "outbound|80||payment.shop.svc.cluster.local: "
	)
	for _, c := range []struct {
		name                                           string
		annotations, policy, newAnnotations, newPolicy string
		what, old, now                                 string // parts of the change; what is "" without one
	}{
		{name: "the same", policy: outlier, newPolicy: outlier},
		{name: "a detector", policy: outlier + noFailover, newPolicy: `outlierDetection: {consecutive5xxErrors: 7}` + noFailover, what: "settings", old: "ejects after 5 failures", now: "ejects after 7 failures"},
		{name: "the panic threshold", policy: outlier, newPolicy: `outlierDetection: {consecutive5xxErrors: 5, minHealthPercent: 30}`, what: "settings", now: "panic below 30%"},
		{name: "slow start", policy: "loadBalancer: {simple: ROUND_ROBIN}", newPolicy: "loadBalancer: {simple: ROUND_ROBIN, warmup: {duration: 60s}}", what: "settings", old: "panic below 50%", now: "slow start over 1m0s"},
		{name: "a limit", policy: "connectionPool: {http: {http2MaxRequests: 10}}", newPolicy: "connectionPool: {http: {http2MaxRequests: 20}}", what: "limits", old: "requests 0/10", now: "requests 0/20"},
		{name: "a breaker", newAnnotations: `inboard.breaker: "{failureRatio: 0.5}"`, what: "settings", old: "panic below 50%", now: "an error-rate breaker is closed"},
		{name: "a part of the endpoints", newAnnotations: `inboard.subsetting: "{size: 1}"`, what: "settings", old: "panic below 50%", now: "this process uses 1 of 2 endpoints"},
		{
			name:   "how localities share",
			policy: `loadBalancer: {localityLbSetting: {distribute: [{from: "eu/*", to: {"eu/*": 80, "us/*": 20}}]}}`, newPolicy: `loadBalancer: {localityLbSetting: {distribute: [{from: "eu/*", to: {"eu/*": 60, "us/*": 40}}]}}`,
			what: "shares", old: "80% in eu/a, 20% in us/a", now: "60% in eu/a, 40% in us/a",
		},
		{name: "failover", policy: outlier + noFailover, newPolicy: outlier, what: "priorities", old: "none", now: "0 eu/a, 1 us/a"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			before, after := policed(t, c.annotations, c.policy), policed(t, c.newAnnotations, c.newPolicy)
			got, _, err := offline.Diff(t.Context(), before, after, []ask.Recorded{{Request: ask.Request{Method: "GET", URL: "http://payment/"}, Line: 1, Count: 1}})
			if err != nil {
				t.Fatal(err)
			}
			var changes []offline.Change
			for _, d := range got {
				changes = append(changes, d.Changes...)
			}
			if len(changes) != min(len(c.what), 1) {
				t.Fatalf("got %+v", changes)
			}
			for _, change := range changes {
				if change.What != payment+c.what || !strings.Contains(change.Old, c.old) || !strings.Contains(change.New, c.now) {
					t.Errorf("got %+v, want %s: %q, then %q", change, c.what, c.old, c.now)
				}
			}
		})
	}
}
