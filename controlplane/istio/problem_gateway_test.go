package istio_test

// gatewayHead begins an HTTPRoute whose rules follow in the fifth line.
const gatewayHead = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: a, namespace: shop}\nspec: {parentRefs: [{group: \"\", kind: Service, name: payment}], rules: [\n"

var gatewayProblems = []problemCase{
	{name: "an HTTPRoute of nobody", yaml: `
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: a, namespace: shop}
spec: {rules: []}
`, want: []string{
		"x.yaml:4:1: HTTPRoute shop/a: spec.parentRefs: is required: name the Service whose calls are routed",
		"x.yaml:4:15: HTTPRoute shop/a: spec.rules: needs at least one rule",
	}},
	{name: "parents", yaml: `
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: a, namespace: shop}
spec:
  parentRefs:
  - {name: ingress}
  - {kind: Service, name: payment}
  - {group: "", kind: Service, name: reviews}
  - {group: "", kind: Service, name: payment.shop}
  - {group: "", kind: Service, name: ""}
  - {group: "", kind: Service, name: payment, port: 1}
  - {group: "", kind: Service, name: payment, sectionName: tcp}
  - {group: "", kind: Service, name: payment, sectionName: http, port: 9090}
  - {group: "", kind: Service, name: ledger, namespace: nowhere}
  - {group: networking.istio.io, kind: ServiceEntry, name: reviews}
  - {group: "", kind: Service, name: hidden, namespace: bank}
  rules: [{backendRefs: [{name: payment, port: 8080}]}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: hidden, namespace: bank}
spec: {hosts: [hidden.bank.svc.cluster.local], exportTo: [.], resolution: STATIC, ports: [{name: a, number: 1, protocol: HTTP}]}
`, want: []string{
		`x.yaml:7:5: HTTPRoute shop/a: spec.parentRefs[1].group: "gateway.networking.k8s.io" has no Service: use group "" for a Service, "networking.istio.io" for a ServiceEntry`,
		`x.yaml:8:38: HTTPRoute shop/a: spec.parentRefs[2].name: no Service or ServiceEntry has the host "reviews.shop.svc.cluster.local"`,
		`x.yaml:9:38: HTTPRoute shop/a: spec.parentRefs[3].name: "payment.shop" is not the name of a Service`,
		"x.yaml:10:38: HTTPRoute shop/a: spec.parentRefs[4].name: is required",
		`x.yaml:11:53: HTTPRoute shop/a: spec.parentRefs[5].port: "payment.shop.svc.cluster.local" has no port 1: it has 8080, 9090`,
		`x.yaml:12:60: HTTPRoute shop/a: spec.parentRefs[6].sectionName: "payment.shop.svc.cluster.local" has no port with the name "tcp"`,
		`x.yaml:13:60: HTTPRoute shop/a: spec.parentRefs[7].sectionName: port "http" is 8080: that is not the "port" that is set too`,
		"x.yaml:15:60: HTTPRoute shop/a: spec.parentRefs[9].name: there is no ServiceEntry shop/reviews",
	}},
	{name: "fields that are not translated or not known", yaml: gatewayHead +
		"{sessionPersistence: {type: Cookie}, Matches: [], matches: {}, backendRefs: [~, 1], timeouts: },\n" +
		"{filters: [{type: ExtensionRef, extensionRef: {name: a}}, {type: RequestMirror}, {type: Magic}], name: 1}]}", want: []string{
		"x.yaml:5:2: HTTPRoute shop/a: spec.rules[0].sessionPersistence: is not supported: remove it",
		`x.yaml:5:38: HTTPRoute shop/a: spec.rules[0].Matches: unknown field: did you mean "matches"?`,
		`x.yaml:5:60: HTTPRoute shop/a: spec.rules[0].matches: expected a list, found a mapping: begin each element with "- "`,
		"x.yaml:5:78: HTTPRoute shop/a: spec.rules[0].backendRefs[0]: must not be empty",
		"x.yaml:5:81: HTTPRoute shop/a: spec.rules[0].backendRefs[1]: expected a mapping, found the number 1",
		"x.yaml:5:95: HTTPRoute shop/a: spec.rules[0].timeouts: has no value: write one, or remove the field",
		`x.yaml:6:19: HTTPRoute shop/a: spec.rules[1].filters[0].type: "ExtensionRef" is not supported: use one of CORS, RequestHeaderModifier, RequestMirror, RequestRedirect, ResponseHeaderModifier, URLRewrite`,
		"x.yaml:6:33: HTTPRoute shop/a: spec.rules[1].filters[0].extensionRef: is not supported: remove it",
		"x.yaml:6:59: HTTPRoute shop/a: spec.rules[1].filters[1].requestMirror: is required by type RequestMirror",
		`x.yaml:6:89: HTTPRoute shop/a: spec.rules[1].filters[2].type: "Magic" is not supported: use one of CORS, RequestHeaderModifier, RequestMirror, RequestRedirect, ResponseHeaderModifier, URLRewrite`,
		"x.yaml:6:104: HTTPRoute shop/a: spec.rules[1].name: expected text, found the number 1: put it in quotes",
	}},
	{name: "matches", yaml: gatewayHead + `
{backendRefs: [{name: payment, port: 8080}], matches: [
{path: {value: pay}}, {path: {value: /a//b}}, {path: {value: /a/../b}}, {path: {value: /a/.}}, {path: {value: /a%2fb}}, {path: {value: /a b}},
{path: {type: Prefix, value: /}}, {path: {type: RegularExpression, value: "("}}, {path: {type: RegularExpression, value: ""}},
{method: get}, {headers: [{name: "a b", value: c}, {name: x, value: ""}, {name: X, value: a}, {name: y, type: Regex, value: a}, {name: z, type: RegularExpression, value: "["}]},
{queryParams: [{name: "", value: a}, {name: b, value: b}, {name: b, value: c}]}]}]}`, want: []string{
		`x.yaml:7:16: HTTPRoute shop/a: spec.rules[0].matches[0].path.value: "pay" does not begin with a slash`,
		`x.yaml:7:38: HTTPRoute shop/a: spec.rules[0].matches[1].path.value: "/a//b": "//" is not possible in a path`,
		`x.yaml:7:62: HTTPRoute shop/a: spec.rules[0].matches[2].path.value: "/a/../b": "/../" is not possible in a path`,
		`x.yaml:7:88: HTTPRoute shop/a: spec.rules[0].matches[3].path.value: "/a/." must not end with a dot as its last element`,
		`x.yaml:7:111: HTTPRoute shop/a: spec.rules[0].matches[4].path.value: "/a%2fb": "%2f" is not possible in a path`,
		`x.yaml:7:136: HTTPRoute shop/a: spec.rules[0].matches[5].path.value: "/a b" is not a path: use at most 1024 of the characters that a URL allows, and escape others`,
		`x.yaml:8:15: HTTPRoute shop/a: spec.rules[0].matches[6].path.type: "Prefix" is not one of Exact, PathPrefix, RegularExpression`,
		"x.yaml:8:75: HTTPRoute shop/a: spec.rules[0].matches[7].path.value: not an RE2 expression: missing closing )",
		"x.yaml:8:122: HTTPRoute shop/a: spec.rules[0].matches[8].path.value: must have 1..1024 characters",
		`x.yaml:9:10: HTTPRoute shop/a: spec.rules[0].matches[9].method: "get" is not one of GET, HEAD, POST, PUT, DELETE, CONNECT, OPTIONS, TRACE, PATCH`,
		`x.yaml:9:34: HTTPRoute shop/a: spec.rules[0].matches[10].headers[0].name: "a b" is not the name of a header`,
		"x.yaml:9:69: HTTPRoute shop/a: spec.rules[0].matches[10].headers[1].value: must not be empty",
		`x.yaml:9:81: HTTPRoute shop/a: spec.rules[0].matches[10].headers[2].name: "X" is there twice`,
		`x.yaml:9:111: HTTPRoute shop/a: spec.rules[0].matches[10].headers[3].type: "Regex" is not one of Exact, RegularExpression`,
		"x.yaml:9:171: HTTPRoute shop/a: spec.rules[0].matches[10].headers[4].value: not an RE2 expression: missing closing ]",
		"x.yaml:10:23: HTTPRoute shop/a: spec.rules[0].matches[11].queryParams[0].name: is required",
		`x.yaml:10:66: HTTPRoute shop/a: spec.rules[0].matches[11].queryParams[2].name: "b" is there twice`,
	}},
	{name: "backends", yaml: gatewayHead + `
{name: a, backendRefs: [{name: nobody, port: 1}, {name: payment}, {name: payment, port: 1}, {kind: Bucket, name: a}, {name: payment, port: 8080, weight: -1}, {name: "", port: 1}, {name: a.b, port: 1},
{group: networking.istio.io, kind: Hostname, name: "*.x", port: 1}, {name: payment, port: 8080, filters: [{type: URLRewrite, urlRewrite: {hostname: a}}]}]},
{name: a}, {name: B}]}`, want: []string{
		"x.yaml:6:50: HTTPRoute shop/a: spec.rules[0].backendRefs[1].port: is required",
		"x.yaml:6:154: HTTPRoute shop/a: spec.rules[0].backendRefs[4].weight: -1 is not in 0..1000000",
		"x.yaml:6:166: HTTPRoute shop/a: spec.rules[0].backendRefs[5].name: is required",
		`x.yaml:6:187: HTTPRoute shop/a: spec.rules[0].backendRefs[6].name: "a.b" is not the name of a Service`,
		`x.yaml:7:52: HTTPRoute shop/a: spec.rules[0].backendRefs[7].name: "*.x": hosts with a wildcard are not supported: name each host`,
		"x.yaml:7:106: HTTPRoute shop/a: spec.rules[0].backendRefs[8].filters: URLRewrite is not supported for a backend: set it in the filters of the rule",
		`x.yaml:8:8: HTTPRoute shop/a: spec.rules[1].name: "a" is the name of two rules`,
		`x.yaml:8:19: HTTPRoute shop/a: spec.rules[2].name: "B" is not a name: use lower case letters, digits, '-' and '.'`,
	}},
	{name: "CORS", yaml: gatewayHead + `
{backendRefs: [{name: payment, port: 8080, filters: [{type: CORS, cors: {allowOrigins: ["*"]}}]}]},
{backendRefs: [{name: payment, port: 8080}], filters: [{type: CORS, cors: {allowOrigins: ["*", shop, "https://a.*.b", "ftp://a"], maxAge: 0}}]},
{backendRefs: [{name: payment, port: 8080}], filters: [{type: CORS, cors: {allowOrigins: ["https://*.b"], allowMethods: ["*", GET], allowHeaders: ["*"], exposeHeaders: ["a b"], allowCredentials: true}}]}]}`, want: []string{
		"x.yaml:6:53: HTTPRoute shop/a: spec.rules[0].backendRefs[0].filters: CORS is not supported for a backend: set it in the filters of the rule",
		`x.yaml:7:90: HTTPRoute shop/a: spec.rules[1].filters[0].cors.allowOrigins: "*" stands for all: remove the others, or it`,
		`x.yaml:7:96: HTTPRoute shop/a: spec.rules[1].filters[0].cors.allowOrigins[1]: "shop" is not an origin: write it like https://shop.example.com, https://*.example.com:8443 or *`,
		`x.yaml:7:102: HTTPRoute shop/a: spec.rules[1].filters[0].cors.allowOrigins[2]: "https://a.*.b" is not an origin: write it like https://shop.example.com, https://*.example.com:8443 or *`,
		`x.yaml:7:119: HTTPRoute shop/a: spec.rules[1].filters[0].cors.allowOrigins[3]: "ftp://a" is not an origin: write it like https://shop.example.com, https://*.example.com:8443 or *`,
		"x.yaml:7:139: HTTPRoute shop/a: spec.rules[1].filters[0].cors.maxAge: 0: use at least 1",
		`x.yaml:8:121: HTTPRoute shop/a: spec.rules[2].filters[0].cors.allowMethods: "*" stands for all: remove the others, or it`,
		`x.yaml:8:147: HTTPRoute shop/a: spec.rules[2].filters[0].cors.allowHeaders: "*" is not supported together with allowCredentials: name them`,
		`x.yaml:8:170: HTTPRoute shop/a: spec.rules[2].filters[0].cors.exposeHeaders[0]: "a b" is neither a name nor "*"`,
	}},
	{name: "filters", yaml: gatewayHead + `
{filters: [{type: RequestHeaderModifier}, {type: RequestHeaderModifier}, {type: ResponseHeaderModifier, urlRewrite: {hostname: a}, responseHeaderModifier: {set: [{name: Host, value: a}], remove: [":status"]}}]},
{filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: host, value: a}], add: [{name: x, value: "a\nb"}]}}]},
{filters: [{type: RequestRedirect, requestRedirect: {scheme: ftp, hostname: "*", port: 0, statusCode: 200, path: {type: Other}}}], backendRefs: [{name: payment, port: 8080}]},
{filters: [{type: RequestRedirect, requestRedirect: {}}, {type: URLRewrite, urlRewrite: {}}], backendRefs: [{name: payment, port: 8080}]},
{filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replaceFullPath: /}}}], matches: [{path: {type: Exact, value: /a}}], backendRefs: [{name: payment, port: 8080}]},
{filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replacePrefixMatch: a}}}], backendRefs: [{name: payment, port: 8080}]},
{filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: "/a?b"}}}], backendRefs: [{name: payment, port: 8080}]},
{filters: [{type: URLRewrite, urlRewrite: {}}], backendRefs: [{name: payment, port: 8080}]}]}`, want: []string{
		"x.yaml:6:12: HTTPRoute shop/a: spec.rules[0].filters[0].requestHeaderModifier: is required by type RequestHeaderModifier",
		`x.yaml:6:50: HTTPRoute shop/a: spec.rules[0].filters[1].type: "RequestHeaderModifier" is there twice`,
		"x.yaml:6:105: HTTPRoute shop/a: spec.rules[0].filters[2].urlRewrite: has no effect with type ResponseHeaderModifier: remove it",
		`x.yaml:6:170: HTTPRoute shop/a: spec.rules[0].filters[2].responseHeaderModifier.set[0].name: "Host" is not a header that can be changed`,
		`x.yaml:6:197: HTTPRoute shop/a: spec.rules[0].filters[2].responseHeaderModifier.remove[0]: ":status" is not a header that can be removed`,
		`x.yaml:7:79: HTTPRoute shop/a: spec.rules[1].filters[0].requestHeaderModifier.set[0].name: "host" is not a header that can be changed: use a URLRewrite filter with a hostname`,
		`x.yaml:7:120: HTTPRoute shop/a: spec.rules[1].filters[0].requestHeaderModifier.add[0].value: has the control character '\n'`,
		`x.yaml:8:36: HTTPRoute shop/a: spec.rules[2].filters[0].requestRedirect: cannot be set together with "backendRefs"`,
		`x.yaml:8:62: HTTPRoute shop/a: spec.rules[2].filters[0].requestRedirect.scheme: "ftp" is neither http nor https`,
		`x.yaml:8:77: HTTPRoute shop/a: spec.rules[2].filters[0].requestRedirect.hostname: "*" is not a host name`,
		"x.yaml:8:88: HTTPRoute shop/a: spec.rules[2].filters[0].requestRedirect.port: 0 is not a port: use 1..65535",
		"x.yaml:8:103: HTTPRoute shop/a: spec.rules[2].filters[0].requestRedirect.statusCode: 200 is not supported: use 301, 302, 303, 307 or 308",
		`x.yaml:8:121: HTTPRoute shop/a: spec.rules[2].filters[0].requestRedirect.path.type: "Other" is not one of ReplaceFullPath, ReplacePrefixMatch`,
		`x.yaml:9:36: HTTPRoute shop/a: spec.rules[3].filters[0].requestRedirect: cannot be set together with "urlRewrite"`,
		`x.yaml:9:36: HTTPRoute shop/a: spec.rules[3].filters[0].requestRedirect: cannot be set together with "backendRefs"`,
		"x.yaml:10:44: HTTPRoute shop/a: spec.rules[4].filters[0].urlRewrite.path.replacePrefixMatch: is required by type ReplacePrefixMatch",
		"x.yaml:10:44: HTTPRoute shop/a: spec.rules[4].filters[0].urlRewrite.path.replacePrefixMatch: needs exactly one match, by a path of type PathPrefix",
		"x.yaml:10:77: HTTPRoute shop/a: spec.rules[4].filters[0].urlRewrite.path.replaceFullPath: has no effect with type ReplacePrefixMatch: remove it",
		"x.yaml:11:44: HTTPRoute shop/a: spec.rules[5].filters[0].urlRewrite.path.replaceFullPath: is required by type ReplaceFullPath",
		"x.yaml:11:74: HTTPRoute shop/a: spec.rules[5].filters[0].urlRewrite.path.replacePrefixMatch: has no effect with type ReplaceFullPath: remove it",
		`x.yaml:12:91: HTTPRoute shop/a: spec.rules[6].filters[0].urlRewrite.path.replaceFullPath: "/a?b" is not a path: it must be without a query, a fragment, spaces and control characters`,
		"x.yaml:13:43: HTTPRoute shop/a: spec.rules[7].filters[0].urlRewrite: needs hostname or path",
	}},
	{name: "timeouts and retries", yaml: gatewayHead + `
{backendRefs: [{name: payment, port: 8080}], timeouts: {request: 1s, backendRequest: 2s}, retry: {attempts: 0, codes: [200], backoff: 0s}},
{backendRefs: [{name: payment, port: 8080}], timeouts: {request: 1.5s}}]}`, want: []string{
		"x.yaml:6:86: HTTPRoute shop/a: spec.rules[0].timeouts.backendRequest: 2s is longer than the whole request, 1s",
		"x.yaml:6:109: HTTPRoute shop/a: spec.rules[0].retry.attempts: 0: use at least 1, or leave retry out",
		"x.yaml:6:120: HTTPRoute shop/a: spec.rules[0].retry.codes[0]: 200 is not in 400..599",
		"x.yaml:6:135: HTTPRoute shop/a: spec.rules[0].retry.backoff: must be at least 1ms",
		`x.yaml:7:66: HTTPRoute shop/a: spec.rules[1].timeouts.request: "1.5s" is not a duration: write it like 1s500ms, 250ms or 1h30m`,
	}},
	{name: "a GRPCRoute", yaml: `
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: a, namespace: shop}
spec:
  parentRefs: [{group: "", kind: Service, name: payment, port: 9090}]
  rules:
  - backendRefs: [{name: payment, port: 9090}]
    matches: [{method: {}}, {method: {service: a-b}}, {method: {method: "1"}}, {method: {type: Glob, service: a}}, {method: {type: RegularExpression, method: "("}}]
    timeouts: {}
---
apiVersion: gateway.networking.k8s.io/v1beta1
kind: GRPCRoute
metadata: {name: b, namespace: shop}
`, want: []string{
		"x.yaml:8:24: GRPCRoute shop/a: spec.rules[0].matches[0].method: needs service or method",
		`x.yaml:8:48: GRPCRoute shop/a: spec.rules[0].matches[1].method.service: "a-b" is not the name of a gRPC service`,
		`x.yaml:8:73: GRPCRoute shop/a: spec.rules[0].matches[2].method.method: "1" is not the name of a method`,
		`x.yaml:8:96: GRPCRoute shop/a: spec.rules[0].matches[3].method.type: "Glob" is not one of Exact, RegularExpression`,
		"x.yaml:8:159: GRPCRoute shop/a: spec.rules[0].matches[4].method.method: not an RE2 expression: missing closing )",
		"x.yaml:9:5: GRPCRoute shop/a: spec.rules[0].timeouts: unknown field",
		`x.yaml:11:13: GRPCRoute shop/b: apiVersion: "gateway.networking.k8s.io/v1beta1" is not an API version of GRPCRoute: use gateway.networking.k8s.io/v1`,
	}},
	{name: "a host with routes of both APIs", yaml: gatewayHead + `{backendRefs: [{name: payment, port: 8080}]}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: b, namespace: shop}
spec: {hosts: [payment], http: [{route: [{destination: {host: payment}}]}]}
`, want: []string{
		`x.yaml:4:21: HTTPRoute shop/a: spec.parentRefs[0]: "payment.shop.svc.cluster.local" has VirtualService shop/b (x.yaml:7) too, and it is not known which is the older one, which would win: use one or the other, or give both metadata.creationTimestamp`,
	}},
}
