package istio_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/inboardmesh/inboard/controlplane/istio"
)

// What clients reject is told of the object that it is made of. The clients of this
// test reject each resource of a type that has a word in it.
func TestWhatClientsRejectIsToldOfTheObject(t *testing.T) {
	t.Parallel()
	const yaml = `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: payment, namespace: shop}
spec:
  hosts: [payment]
  http:
  - name: first
    match: [{uri: {prefix: /a}}]
    route: [{destination: {host: payment}}]
  - name: second
    route: [{destination: {host: payment}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: payment, namespace: shop}
spec: {host: payment, subsets: [{name: v1, labels: {version: v1}}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: deny, namespace: shop}
spec: {action: DENY, rules: [{to: [{operation: {paths: [/secret]}}]}]}
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: tokens, namespace: shop}
spec: {jwtRules: [{issuer: somebody, jwksUri: "http://payment.shop.svc.cluster.local:8080/keys"}]}
`
	for _, c := range []struct{ name, kind, word, want string }{
		{"a rule", "route.v3.RouteConfiguration", "first", "x.yaml:8:13: VirtualService shop/payment: spec.http[0].match[0]: clients refuse the translation: name: bad; again"},
		{"a rule without a match", "route.v3.RouteConfiguration", "second", "x.yaml:10:5: VirtualService shop/payment: spec.http[1]: clients refuse the translation: name: bad; again"},
		{"a subset", "cluster.v3.Cluster", "|v1|payment", `x.yaml:16:1: DestinationRule shop/payment: spec: clients refuse the translation: port 8080 of "payment.shop.svc.cluster.local": virtual_hosts[0].routes[0].name: bad; again`},
		{"endpoints", "endpoint.v3.ClusterLoadAssignment", "ledger", `shop.yaml:17:1: ServiceEntry bank/ledger: spec: clients refuse the translation: port 7070 of "ledger.bank.svc.cluster.local": virtual_hosts[0].routes[0].name: bad; again`},
		{"a listener of clients", "listener.v3.Listener", "ledger", `shop.yaml:17:1: ServiceEntry bank/ledger: spec: clients refuse the translation: port 7070 of "ledger.bank.svc.cluster.local": virtual_hosts[0].routes[0].name: bad; again`},
		{"a policy of servers", "listener.v3.Listener", "/secret", `x.yaml:21:1: AuthorizationPolicy shop/deny: spec: clients refuse the translation: virtual_hosts[0].routes[0].name: bad; again`},
		{"tokens of servers", "listener.v3.Listener", "somebody", `x.yaml:26:1: RequestAuthentication shop/tokens: spec: clients refuse the translation: virtual_hosts[0].routes[0].name: bad; again`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, problems := istio.Parse([]istio.File{
				{Name: "shop.yaml", Data: []byte(shop)}, {Name: "x.yaml", Data: []byte(strings.TrimPrefix(yaml, "\n"))},
			}, istio.Options{Check: func(typeURL string, value []byte) error {
				if strings.HasSuffix(typeURL, c.kind) && strings.Contains(string(value), c.word) {
					return errors.New("virtual_hosts[0].routes[0].name: bad\nagain")
				}
				return nil
			}})
			got := make([]string, len(problems))
			for i, p := range problems {
				got[i] = p.String()
			}
			if len(got) > 1 && c.kind == "cluster.v3.Cluster" {
				got = got[:1] // one for each port
			}
			if diff := cmp.Diff([]string{c.want}, got); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
		})
	}
}
