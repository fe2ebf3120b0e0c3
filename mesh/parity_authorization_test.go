package mesh_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
)

// parityAuthorization are rules that deny, each for the requests that name it in
// the header x-case, and whether the customer is one of those that it denies.
var parityAuthorization = []struct {
	name, from, to, when string
	denied               bool
}{
	{name: "principals", from: "principals: [cluster.local/ns/shop/sa/customer]", denied: true},
	{name: "notPrincipals", from: "notPrincipals: [cluster.local/ns/shop/sa/customer]"},
	{name: "namespaces", from: "namespaces: [shop]", denied: true},
	{name: "notNamespaces", from: "notNamespaces: [shop]"},
	{name: "serviceAccounts", from: "serviceAccounts: [customer]", denied: true},
	{name: "notServiceAccounts", from: "notServiceAccounts: [shop/customer]"},
	{name: "trustDomains", from: "trustDomains: [cluster.local]", denied: true},
	{name: "notTrustDomains", from: "notTrustDomains: [cluster.local]"},
	{name: "ipBlocks", from: "ipBlocks: [127.0.0.0/8]", denied: true},
	{name: "notIpBlocks", from: "notIpBlocks: [127.0.0.0/8]"},
	{name: "remoteIpBlocks", from: "remoteIpBlocks: [127.0.0.0/8]", denied: true},
	{name: "notRemoteIpBlocks", from: "notRemoteIpBlocks: [127.0.0.0/8]"},
	{name: "requestPrincipals", from: `requestPrincipals: ["*"]`},
	{name: "notRequestPrincipals", from: `notRequestPrincipals: ["*"]`, denied: true},
	{name: "hosts", to: `hosts: [HOST]`, denied: true},
	{name: "notHosts", to: `notHosts: [HOST]`},
	{name: "ports", to: `ports: ["1"]`},
	{name: "notPorts", to: `notPorts: ["1"]`, denied: true},
	{name: "methods", to: "methods: [POST]", denied: true},
	{name: "notMethods", to: "notMethods: [POST]"},
	{name: "paths", to: "paths: [" + parityMethod + "]", denied: true},
	{name: "notPaths", to: `notPaths: ["*/EmptyCall"]`},
	{name: "values", when: "key: source.namespace, values: [shop]", denied: true},
	{name: "notValues", when: "key: source.namespace, notValues: [shop]"},
}

// parityAuthorizationRows are about who may call a payment.
func parityAuthorizationRows() []parityRow {
	var rules strings.Builder
	for _, r := range parityAuthorization {
		rules.WriteString("\n  - when:\n    - {key: 'request.headers[x-case]', values: [" + r.name + "]}")
		if r.when != "" {
			rules.WriteString("\n    - {" + r.when + "}")
		}
		if r.from != "" {
			rules.WriteString("\n    from: [{source: {" + r.from + "}}]")
		}
		if r.to != "" {
			rules.WriteString("\n    to: [{operation: {" + r.to + "}}]")
		}
	}
	row := parityRow{
		name: "AuthorizationPolicy.rules", routes: noRetries + toAll, endpoints: []parityEndpoint{{instance: "guarded-a"}},
		documents: fmt.Sprintf(`apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: deny, namespace: shop}
spec:
  selector: {matchLabels: {app: guarded}}
  action: DENY
  rules:%s
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: allow, namespace: shop}
spec:
  selector: {matchLabels: {app: guarded}}
  rules:
  - when: [{key: 'request.headers[x-case]', values: ["*"]}]`, rules.String()),
	}
	forbidden := parityWant{status: http.StatusForbidden, code: codes.PermissionDenied}
	untouched := func(t *testing.T, _ *parityProbe, r *parityResult) {
		if r.Arrivals != 0 || !strings.Contains(r.Body, "RBAC: access denied") {
			t.Errorf("%d arrivals, %q", r.Arrivals, r.Body)
		}
	}
	row.cases = []parityCase{{name: "what no policy allows", want: forbidden, check: untouched}}
	for _, r := range parityAuthorization {
		c := parityCase{name: r.name, call: header("x-case", r.name), want: answered}
		if r.denied {
			c.want, c.check = forbidden, untouched
		}
		row.cases = append(row.cases, c)
	}
	return []parityRow{row}
}
