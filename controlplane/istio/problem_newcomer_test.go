package istio_test

// newcomerHead is a VirtualService of payment, whose rules follow in the seventh
// line.
const newcomerHead = `apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: payment, namespace: shop}
spec:
  hosts: [payment]
  http:
`

// newcomerProblems are mistakes of somebody who has not written many such files. Each
// answer must tell what to do.
var newcomerProblems = []problemCase{
	{name: "fields that are misspelt", yaml: newcomerHead + `  - timeOut: 5s
    retrys: {attempts: 3}
    route: [{destnation: {host: payment}}]
`, want: []string{
		`x.yaml:7:5: VirtualService shop/payment: spec.http[0].timeOut: unknown field: did you mean "timeout"?`,
		`x.yaml:8:5: VirtualService shop/payment: spec.http[0].retrys: unknown field: did you mean "retries"?`,
		`x.yaml:9:14: VirtualService shop/payment: spec.http[0].route[0].destnation: unknown field: did you mean "destination"?`,
	}},
	{name: "a kind that is misspelt", yaml: "apiVersion: networking.istio.io/v1\nkind: VirtualServices\nmetadata: {name: a, namespace: shop}\n", want: []string{
		`x.yaml:2:7: VirtualServices shop/a: kind: "VirtualServices" is not supported: did you mean "VirtualService"?`,
	}},
	{name: "values that are not indented enough", yaml: newcomerHead + `  - match:
    - uri:
      prefix: /api
    route:
    - destination:
      host: payment
`, want: []string{
		"x.yaml:8:11: VirtualService shop/payment: spec.http[0].match[0].uri: has no value: write one, or remove the field",
		`x.yaml:9:7: VirtualService shop/payment: spec.http[0].match[0].prefix: unknown field: it belongs to "uri": indent it further`,
		"x.yaml:11:19: VirtualService shop/payment: spec.http[0].route[0].destination: has no value: write one, or remove the field",
		`x.yaml:12:7: VirtualService shop/payment: spec.http[0].route[0].host: unknown field: it belongs to "destination": indent it further`,
	}},
	{name: "a host that is misspelt", yaml: newcomerHead + "  - route: [{destination: {host: paymnet}}]\n", want: []string{
		`x.yaml:7:34: VirtualService shop/payment: spec.http[0].route[0].destination.host: no Service or ServiceEntry has the host "paymnet.shop.svc.cluster.local": did you mean "payment.shop.svc.cluster.local"?`,
	}},
	{name: "a subset that is not there", yaml: newcomerHead + "  - route: [{destination: {host: payment, subset: v2}}]\n", want: []string{
		`x.yaml:7:51: VirtualService shop/payment: spec.http[0].route[0].destination.subset: no DestinationRule of "payment.shop.svc.cluster.local" has a subset "v2": it has none`,
	}},
	{name: "an object that is there twice", yaml: newcomerHead + "  - route: [{destination: {host: payment}}]\n---\n" + newcomerHead + "  - route: [{destination: {host: payment}}]\n", want: []string{
		"x.yaml:11:18: VirtualService shop/payment: metadata.name: is defined twice: first at x.yaml:1",
	}},
	{name: "an expression that is none", yaml: newcomerHead + "  - match: [{uri: {regex: /api/(v1}}]\n    route: [{destination: {host: payment}}]\n", want: []string{
		"x.yaml:7:27: VirtualService shop/payment: spec.http[0].match[0].uri.regex: not an RE2 expression: missing closing )",
	}},
	{name: "a duration without a unit", yaml: newcomerHead + "  - timeout: 5\n    route: [{destination: {host: payment}}]\n", want: []string{
		`x.yaml:7:14: VirtualService shop/payment: spec.http[0].timeout: "5" is not a duration: write it like 1.5s, 250ms or 1h30m`,
	}},
	{name: "a number in quotes, a mapping in place of a list", yaml: newcomerHead + "  - match: [{port: \"8080\"}]\n    route:\n      destination: {host: payment}\n", want: []string{
		"x.yaml:7:20: VirtualService shop/payment: spec.http[0].match[0].port: expected a whole number, found text: remove the quotes",
		`x.yaml:9:7: VirtualService shop/payment: spec.http[0].route: expected a list, found a mapping: begin each element with "- "`,
	}},
	{name: "no namespace", yaml: "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: payment}\nspec: {host: payment}\n", want: []string{
		`x.yaml:4:14: DestinationRule default/payment: spec.host: no Service or ServiceEntry has the host "payment.default.svc.cluster.local", to which the name is completed because metadata.namespace is missing: did you mean "payment.shop.svc.cluster.local"?`,
	}},
	{name: "a tab", yaml: newcomerHead + "\t- timeout: 5s\n", want: []string{
		"x.yaml:7: not valid YAML: found character that cannot start any token: indent with spaces and not with tabs",
	}},
	{name: "a line that stands alone", yaml: "kind: VirtualService\nspec:\n  hosts:\n  - payment\n http:\n  - timeout: 5s\n", want: []string{
		"x.yaml:5: not valid YAML: did not find expected key: is a line indented unlike those beside it?",
	}},
	{name: "a line that is indented too far", yaml: "kind: VirtualService\nspec:\n  hosts:\n  - payment\n   http:\n  - timeout: 5s\n", want: []string{
		"x.yaml:5: not valid YAML: mapping values are not allowed in this context: is the line indented too far, or is a text with a colon not in quotes?",
	}},
	{name: "a bracket that nothing closes", yaml: newcomerHead + "  - route: [{destination: {host: payment}]\n", want: []string{
		"x.yaml:7: not valid YAML: did not find expected ',' or '}'",
	}},
	{name: "the version of another group, a value in lower case", yaml: "apiVersion: networking.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: a, namespace: shop}\n---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: b, namespace: shop}\nspec: {mtls: {mode: strict}}\n", want: []string{
		`x.yaml:1:13: PeerAuthentication shop/a: apiVersion: "networking.istio.io/v1" is not an API version of PeerAuthentication: use security.istio.io/v1, security.istio.io/v1beta1`,
		`x.yaml:8:21: PeerAuthentication shop/b: spec.mtls.mode: "strict" is not one of UNSET, DISABLE, PERMISSIVE, STRICT`,
	}},
}
