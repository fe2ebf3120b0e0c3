package istio_test

var problemsWithMirrors = []problemCase{
	{name: "mirrors", yaml: `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a, namespace: shop}
spec:
  hosts: [payment]
  http:
  - match: [{uri: {prefix: /1}}]
    mirror: {host: nowhere}
    mirrorPercent: 101
    route: [{destination: {host: payment}}]
  - match: [{uri: {prefix: /2}}]
    mirror: {host: payment}
    mirrorPercent: 1
    mirrorPercentage: {value: 1}
    mirrors: [{destination: {host: payment}}]
    route: [{destination: {host: payment}}]
  - match: [{uri: {prefix: /3}}]
    mirrorPercentage: {value: 101}
    mirrors: [{percentage: {value: 1}}, {destination: {host: payment, subset: none}}]
    route: [{destination: {host: payment}}]
  - match: [{uri: {prefix: /4}}]
    mirror: {host: payment}
    redirect: {uri: /}
  - rewrite: {uri: /a, uriRegexRewrite: {match: "(", rewrite: ""}}
    route: [{destination: {host: payment}}]
`, want: []string{
		`x.yaml:8:20: VirtualService shop/a: spec.http[0].mirror.host: no Service or ServiceEntry has the host "nowhere.shop.svc.cluster.local"`,
		"x.yaml:9:20: VirtualService shop/a: spec.http[0].mirrorPercent: 101 is not in 0..100",
		`x.yaml:13:5: VirtualService shop/a: spec.http[1].mirrorPercent: cannot be set together with "mirrorPercentage"`,
		`x.yaml:15:5: VirtualService shop/a: spec.http[1].mirrors: cannot be set together with "mirror"`,
		"x.yaml:18:5: VirtualService shop/a: spec.http[2].mirrorPercentage: has no effect without a mirror: set mirror, or percentage in mirrors",
		"x.yaml:18:31: VirtualService shop/a: spec.http[2].mirrorPercentage.value: 101 is neither 0 nor in 0.0001..100",
		"x.yaml:19:15: VirtualService shop/a: spec.http[2].mirrors[0].destination: is required",
		`x.yaml:19:79: VirtualService shop/a: spec.http[2].mirrors[1].destination.subset: no DestinationRule of "payment.shop.svc.cluster.local" has a subset "none": it has none`,
		`x.yaml:22:5: VirtualService shop/a: spec.http[3].mirror: cannot be set together with "redirect"`,
		`x.yaml:24:24: VirtualService shop/a: spec.http[4].rewrite.uriRegexRewrite: cannot be set together with "uri"`,
		"x.yaml:24:49: VirtualService shop/a: spec.http[4].rewrite.uriRegexRewrite.match: not an RE2 expression: missing closing )",
		"x.yaml:24:63: VirtualService shop/a: spec.http[4].rewrite.uriRegexRewrite.rewrite: is required",
	}},
	{name: "CORS", yaml: `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a, namespace: shop}
spec:
  hosts: [payment]
  http:
  - corsPolicy: {allowOrigins: [{}, {prefix: ""}, {regex: "("}], allowMethods: ["GET,PUT"], exposeHeaders: ["a b"], maxAge: -1s}
    route: [{destination: {host: payment}}]
`, want: []string{
		"x.yaml:7:33: VirtualService shop/a: spec.http[0].corsPolicy.allowOrigins[0]: needs exact, prefix or regex",
		`x.yaml:7:46: VirtualService shop/a: spec.http[0].corsPolicy.allowOrigins[1].prefix: must not be empty: use exact: "*" for any origin`,
		"x.yaml:7:59: VirtualService shop/a: spec.http[0].corsPolicy.allowOrigins[2].regex: not an RE2 expression: missing closing )",
		`x.yaml:7:81: VirtualService shop/a: spec.http[0].corsPolicy.allowMethods[0]: "GET,PUT" is neither a name nor "*"`,
		`x.yaml:7:109: VirtualService shop/a: spec.http[0].corsPolicy.exposeHeaders[0]: "a b" is neither a name nor "*"`,
		"x.yaml:7:125: VirtualService shop/a: spec.http[0].corsPolicy.maxAge: -1s is too short: use at least 1ms, or leave the field out",
	}},
	{name: "mirrors of the Gateway API", yaml: gatewayHead + `
{backendRefs: [{name: payment, port: 8080, filters: [{type: RequestMirror, requestMirror: {backendRef: {name: payment, port: 8080}}}]}], filters: [
{type: RequestMirror, requestMirror: {backendRef: {name: nowhere, port: 8080}, percent: 101}},
{type: RequestMirror, requestMirror: {backendRef: {name: payment}, percent: 1, fraction: {numerator: 1}}},
{type: RequestMirror, requestMirror: {backendRef: {name: payment, port: 8080}, fraction: {numerator: 3, denominator: 2}}}]}]}`, want: []string{
		"x.yaml:6:53: HTTPRoute shop/a: spec.rules[0].backendRefs[0].filters: RequestMirror is not supported for a backend: set it in the filters of the rule",
		"x.yaml:7:89: HTTPRoute shop/a: spec.rules[0].filters[0].requestMirror.percent: 101 is not in 0..100",
		"x.yaml:8:39: HTTPRoute shop/a: spec.rules[0].filters[1].requestMirror.backendRef.port: is required",
		`x.yaml:8:80: HTTPRoute shop/a: spec.rules[0].filters[1].requestMirror.fraction: cannot be set together with "percent"`,
		"x.yaml:9:90: HTTPRoute shop/a: spec.rules[0].filters[2].requestMirror.fraction: 3 of 2 is not in 0..1",
	}},
}
