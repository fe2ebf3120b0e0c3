package mesh_test

import (
	"slices"
	"testing"
)

// parityCustomer are the labels of the customer.
var parityCustomer = map[string]string{"app": "customer", "track": "stable", "istio-locality": parityLocality}

// paritySourceRows are about what the control plane decides: which routes a node
// gets.
func paritySourceRows() []parityRow {
	const (
		restV2   = "- route: [{destination: {host: HOST, subset: v2}}]\n"
		delegate = "- match: [{headers: {x-user: {prefix: a}}}]\n  delegate: {name: of-HOST, namespace: bank}\n  headers: {response: {set: {x-root: root}}}\n"
	)
	return []parityRow{
		{
			name:   "match.scheme",
			routes: "- match: [{scheme: {exact: https}}]\n  route: [{destination: {host: HOST, subset: v2}}]\n- match: [{scheme: {exact: http}}]" + toV1,
			cases:  []parityCase{{name: "calls are made without TLS of their own", want: by("v1")}},
		},
		{
			name:   "match.sourceLabels",
			routes: "- match: [{sourceLabels: {app: customer, track: canary}}]\n  route: [{destination: {host: HOST, subset: v2}}]\n- match: [{sourceLabels: {app: customer}, headers: {x-user: {}}}]" + toV1,
			cases: []parityCase{
				{name: "labels of the caller and a header", call: header("x-user", "anna"), want: by("v1")},
				{name: "labels of another", want: unrouted},
			},
		},
		{
			name:   "match.sourceNamespace",
			routes: "- match: [{sourceNamespace: bank}]\n  route: [{destination: {host: HOST, subset: v2}}]\n- match: [{sourceNamespace: shop}]" + toV1,
			cases:  []parityCase{{name: "the caller's", want: by("v1")}},
		},
		{
			name:   "match.statPrefix changes no call",
			routes: "- match: [{statPrefix: payments, uri: {prefix: /}}]" + toV1,
			cases:  []parityCase{{name: "any call", want: by("v1")}},
		},
		{
			name:   "delegate",
			routes: delegate + restV2,
			documents: `apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: of-HOST, namespace: bank}
spec:
  exportTo: [shop]
  http:
  - match: [{headers: {x-user: {exact: anna}}}]
    route: [{destination: {host: HOST, subset: v1}}]
  - match: [{headers: {x-user: {exact: bert}}}]
    route: [{destination: {host: HOST, subset: none}}]`,
			cases: []parityCase{
				{name: "within both", call: header("x-user", "anna"), want: by("v1"), check: func(t *testing.T, _ *parityProbe, r *parityResult) {
					if got := r.header("x-root"); !slices.Equal(got, []string{"root"}) {
						t.Errorf("x-root %q: want what the delegate inherits", got)
					}
				}},
				{name: "within the one that delegates only", call: header("x-user", "alf"), want: by("v2")},
				{name: "outside of the one that delegates", call: header("x-user", "bert"), want: by("v2")},
			},
		},
		{
			name:           "VirtualService.hosts with a wildcard",
			virtualService: "hosts: ['*.HOST', HOST]",
			service:        "hosts: [HOST, also.HOST]",
			routes:         "- match: [{headers: {x-user: {}}}]" + toV1,
			cases: []parityCase{
				{name: "the name", call: header("x-user", "anna"), want: by("v1")},
				{name: "a host that it covers", call: parityCall{host: "also.HOST", header: map[string]string{"x-user": "anna"}}, want: by("v1")},
				{name: "no route for it", call: parityCall{host: "also.HOST"}, want: unrouted},
			},
		},
	}
}
