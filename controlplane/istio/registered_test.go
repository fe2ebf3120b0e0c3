package istio_test

import (
	"strings"
	"testing"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	resource "github.com/envoyproxy/go-control-plane/pkg/resource/v3"

	"github.com/inboardmesh/inboard/controlplane/istio"
)

// inhabited are a database and a shop, of which the documents know where they are, and
// a policy that closes the database to all.
const inhabited = `
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: ledger-1, namespace: shop, labels: {app: ledger}}
spec: {address: 10.0.0.1, serviceAccount: ledger}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: payment-1, namespace: shop, labels: {app: payment}}
spec: {address: 10.0.0.2, serviceAccount: payment}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: ledger, namespace: shop}
spec:
  hosts: [ledger.shop.svc.cluster.local]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{number: 8080, name: http, protocol: HTTP}]
  workloadSelector: {labels: {app: ledger}}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: payment, namespace: shop}
spec:
  hosts: [payment.shop.svc.cluster.local]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{number: 8080, name: http, protocol: HTTP}]
  workloadSelector: {labels: {app: payment}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: closed, namespace: shop}
spec: {selector: {matchLabels: {app: ledger}}}
`

// TestAListenerIsTheWorkloadsThatIsThere: nobody gets another one's, and nobody gets
// out of a policy by saying that he has other labels.
func TestAListenerIsTheWorkloadsThatIsThere(t *testing.T) {
	t.Parallel()
	config := parse(t, istio.File{Name: "x.yaml", Data: []byte(inhabited)})
	node := func(id, account string, labels ...string) istio.Node {
		n := istio.Node{ID: id, Namespace: "shop", ServiceAccount: account, Labels: map[string]string{}}
		for _, app := range labels {
			n.Labels["app"] = app
		}
		return n
	}
	at := func(ip string) string { return "sidecar~" + ip + "~a.shop~shop.svc.cluster.local" }
	elsewhere := node(at("10.0.0.1"), "ledger", "ledger")
	elsewhere.Namespace = "bank"
	for _, tt := range []struct {
		name     string
		node     istio.Node
		listener string
		found    bool
		closed   bool
	}{
		{"its own", node("a", "ledger", "ledger"), "10.0.0.1:8080", true, true},
		{"its own, by the address in its ID", node(at("10.0.0.1"), "ledger", "ledger"), "0.0.0.0:8080", true, true},
		{"its own with the labels of another", node("a", "ledger", "payment"), "10.0.0.1:8080", true, true},
		{"its own with the labels of another, by its ID", node(at("10.0.0.1"), "ledger", "payment"), "[::]:8080", true, true},
		{"its own without labels", node("a", "ledger"), "10.0.0.1:8080", true, true},
		{"that of another service account", node("a", "payment", "ledger"), "10.0.0.1:8080", false, false},
		{"that of another service account, by its ID", node(at("10.0.0.1"), "payment", "payment"), "0.0.0.0:8080", false, false},
		{"that of another namespace", elsewhere, "10.0.0.1:8080", false, false},
		{"a port that nobody knows", node("a", "payment", "payment"), "10.0.0.1:9999", true, false},
		{"an address that nobody knows", node("a", "payment", "payment"), "10.0.0.9:8080", true, false},
		{"a node that is somewhere", node("a", "payment", "payment"), "0.0.0.0:8080", true, false},
	} {
		name := inbound + tt.listener
		got, ok := config.Resource(tt.node, resource.ListenerType, name)
		refusal := config.Refusal(tt.node, name)
		if ok != tt.found || (refusal == nil) != tt.found {
			t.Errorf("%s: found %v, refused %v", tt.name, ok, refusal)
			continue
		}
		if !ok {
			if !strings.Contains(refusal.Error(), `the service account "ledger" of namespace "shop"`) {
				t.Errorf("%s: the reason is %v", tt.name, refusal)
			}
			continue
		}
		filters := string(got.(*listenerv3.Listener).FilterChains[0].Filters[0].GetTypedConfig().GetValue())
		if closed := strings.Contains(filters, "policy[closed]"); closed != tt.closed {
			t.Errorf("%s: the policy applies: %v", tt.name, closed)
		}
	}
}
