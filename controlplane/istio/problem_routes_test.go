package istio_test

// ledgerEntry is a service of TCP.
const ledgerEntry = `
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: ledger, namespace: shop}
spec:
  hosts: [ledger.shop.svc.cluster.local]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{number: 5432, name: tcp, protocol: TCP}]
  endpoints: [{address: 10.0.0.9}]
`

var virtualServiceProblems = []problemCase{
	{name: "nothing that is required", yaml: "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a, namespace: shop}\n", want: []string{
		"x.yaml:1:1: VirtualService shop/a: spec.http: is required",
	}},
	{name: "hosts", yaml: `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a, namespace: shop}
spec:
  hosts: [reviews, "*", payment, payment.shop.svc.cluster.local]
  http: [{route: [{destination: {host: payment}}]}]
`, want: []string{
		`x.yaml:5:11: VirtualService shop/a: spec.hosts[0]: no Service or ServiceEntry has the host "reviews.shop.svc.cluster.local"`,
		`x.yaml:5:20: VirtualService shop/a: spec.hosts[1]: "*" is not possible for the mesh: name a host, or a suffix like "*.example.com"`,
		`x.yaml:5:34: VirtualService shop/a: spec.hosts[3]: "payment.shop.svc.cluster.local" is there twice`,
	}},
	{name: "hosts that are no wildcards", yaml: `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a, namespace: shop}
spec:
  hosts: ["*shop.svc.cluster.local", "*.Shop", "a.*.b", "*."]
  http: [{route: [{destination: {host: payment}}]}]
`, want: []string{
		`x.yaml:5:11: VirtualService shop/a: spec.hosts[0]: "*shop.svc.cluster.local" is not a wildcard: write it like "*.example.com", in lower case`,
		`x.yaml:5:38: VirtualService shop/a: spec.hosts[1]: "*.Shop" is not a wildcard: write it like "*.example.com", in lower case`,
		`x.yaml:5:48: VirtualService shop/a: spec.hosts[2]: "a.*.b": hosts with a wildcard are not supported: name each host`,
		`x.yaml:5:57: VirtualService shop/a: spec.hosts[3]: "*." is not a wildcard: write it like "*.example.com", in lower case`,
	}},
	{name: "exportTo", yaml: `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a, namespace: shop}
spec:
  exportTo: [".", shop, "~", Bank, ""]
  hosts: [payment]
  http: [{route: [{destination: {host: payment}}]}]
`, want: []string{
		`x.yaml:5:19: VirtualService shop/a: spec.exportTo[1]: "shop" is there twice`,
		`x.yaml:5:25: VirtualService shop/a: spec.exportTo[2]: "~" is not a namespace: use "*", "." or a name`,
		`x.yaml:5:30: VirtualService shop/a: spec.exportTo[3]: "Bank" is not a namespace: use "*", "." or a name`,
		`x.yaml:5:36: VirtualService shop/a: spec.exportTo[4]: "" is not a namespace: use "*", "." or a name`,
	}},
	{name: "delegates that cannot be", yaml: `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a, namespace: shop}
spec:
  hosts: [payment]
  http:
  - delegate: {}
  - delegate: {name: nobody}
  - delegate: {name: hidden, namespace: bank}
  - {delegate: {name: nested}, route: [{destination: {host: payment}}], redirect: {uri: /}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: hidden, namespace: bank}
spec: {exportTo: [.], http: [{route: [{destination: {host: ledger}}]}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: nested, namespace: shop}
spec: {gateways: [mesh], http: [{delegate: {name: other}}]}
`, want: []string{
		"x.yaml:7:5: VirtualService shop/a: spec.http[0].delegate.name: is required",
		"x.yaml:8:15: VirtualService shop/a: spec.http[1].delegate: there is no VirtualService shop/nobody without hosts",
		`x.yaml:9:15: VirtualService shop/a: spec.http[2].delegate: VirtualService bank/hidden (x.yaml:12) is not exported to "shop": add it to exportTo`,
		`x.yaml:10:32: VirtualService shop/a: spec.http[3].route: cannot be set together with "delegate"`,
		`x.yaml:10:73: VirtualService shop/a: spec.http[3].redirect: cannot be set together with "delegate"`,
		"x.yaml:20:8: VirtualService shop/nested: spec.gateways: is that of the VirtualService which delegates: remove it, or give hosts",
		"x.yaml:20:34: VirtualService shop/nested: spec.http[0].delegate: a delegate cannot delegate: only a VirtualService with hosts can",
	}},
	{name: "conditions on who calls", yaml: `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a, namespace: shop}
spec:
  hosts: [payment]
  http:
  - match: [{sourceNamespace: Bank}, {sourceNamespace: ""}, {sourceLabels: {app: "a*"}}, {gateways: [mesh], sourceNamespace: bank}]
    route: [{destination: {host: payment}}]
`, want: []string{
		`x.yaml:7:31: VirtualService shop/a: spec.http[0].match[0].sourceNamespace: "Bank" is not a namespace: use lower case letters, digits and '-'`,
		`x.yaml:7:56: VirtualService shop/a: spec.http[0].match[1].sourceNamespace: "" is not a namespace: use lower case letters, digits and '-'`,
		`x.yaml:7:82: VirtualService shop/a: spec.http[0].match[2].sourceLabels[app]: "app": "a*" is not a label: wildcards are not supported`,
		`x.yaml:7:109: VirtualService shop/a: spec.http[0].match[3].sourceNamespace: cannot be set together with "gateways", with which Istio does not look at it: remove gateways`,
	}},
	{name: "two for one host", yaml: `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a, namespace: shop}
spec: {hosts: [payment], http: [{route: [{destination: {host: payment}}]}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: b, namespace: shop}
spec: {hosts: [payment], http: [{route: [{destination: {host: payment}}]}]}
`, want: []string{
		`x.yaml:9:16: VirtualService shop/b: spec.hosts[0]: "payment.shop.svc.cluster.local" already has VirtualService shop/a (x.yaml:1), and it is not known which is the older one, which would win: merge them, or give both metadata.creationTimestamp`,
	}},
	{name: "routes of connections", yaml: ledgerEntry + `---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a, namespace: shop}
spec:
  hosts: [ledger]
  tcp:
  - match: [{port: 5432, destinationSubnets: [10.0.0.0/8]}, {sourceSubnet: 10.0.0.0/8}, {port: 1}]
    route: [{destination: {host: ledger, subset: none}, weight: -1}, {destination: {host: nobody}}]
  - match: [{port: 5432}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: b, namespace: shop}
spec: {hosts: [payment], tcp: [{route: [{destination: {host: payment}}]}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: c, namespace: shop}
spec: {tcp: [{route: [{destination: {host: ledger}}]}]}
`, want: []string{
		"x.yaml:17:26: VirtualService shop/a: spec.tcp[0].match[0].destinationSubnets: is not supported: remove it, or match the port: callers connect to a host by its name, and the address is chosen behind the route",
		"x.yaml:17:62: VirtualService shop/a: spec.tcp[0].match[1].sourceSubnet: is not supported: remove it, or use sourceLabels or sourceNamespace: a caller in the process has no address before it connects",
		"x.yaml:17:96: VirtualService shop/a: spec.tcp[0].match[2].port: no host of the VirtualService has port 1",
		`x.yaml:18:50: VirtualService shop/a: spec.tcp[0].route[0].destination.subset: no DestinationRule of "ledger.shop.svc.cluster.local" has a subset "none": it has none`,
		"x.yaml:18:65: VirtualService shop/a: spec.tcp[0].route[0].weight: -1 is negative",
		`x.yaml:18:91: VirtualService shop/a: spec.tcp[0].route[1].destination.host: no Service or ServiceEntry has the host "nobody.shop.svc.cluster.local"`,
		"x.yaml:19:5: VirtualService shop/a: spec.tcp[1].route: is required",
		`x.yaml:24:31: VirtualService shop/b: spec.tcp: has no effect: the ports of "payment.shop.svc.cluster.local" speak HTTP or gRPC: use http, or let the port have a protocol of TCP`,
		"x.yaml:29:1: VirtualService shop/c: spec.http: is required",
		"x.yaml:29:8: VirtualService shop/c: spec.tcp: is for a VirtualService with hosts: what is delegated are requests",
	}},
	{name: "what is not translated", yaml: `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a, namespace: shop}
spec:
  hosts: [payment]
  gateways: [mesh, ingress]
  tls: []
  http:
  - match: [{gateways: [mesh], claims: {}}]
    mirror: {host: payment, weight: 1}
    corsPolicy: {allowAll: true}
    retries: {attempts: 0, retryRemoteLocalities: true}
    fault: {delay: {exponentialDelay: 1s}, abort: {http2Error: a}}
    route: [{destination: {host: payment}}]
`, want: []string{
		"x.yaml:7:3: VirtualService shop/a: spec.tls: is not supported: remove it, or use http: it routes what callers have encrypted themselves, and a caller in the process does not",
		"x.yaml:9:32: VirtualService shop/a: spec.http[0].match[0].claims: unknown field",
		"x.yaml:10:29: VirtualService shop/a: spec.http[0].mirror.weight: unknown field",
		"x.yaml:11:18: VirtualService shop/a: spec.http[0].corsPolicy.allowAll: unknown field",
		"x.yaml:12:28: VirtualService shop/a: spec.http[0].retries.retryRemoteLocalities: has no effect with 0 attempts, the default: set attempts",
		"x.yaml:13:21: VirtualService shop/a: spec.http[0].fault.delay.exponentialDelay: is not supported: remove it",
		"x.yaml:13:52: VirtualService shop/a: spec.http[0].fault.abort.http2Error: is not supported: remove it",
	}},
	{name: "destinations that do not exist", yaml: `
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: payment, namespace: shop}
spec: {host: payment, subsets: [{name: v1}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a, namespace: shop}
spec:
  hosts: [payment]
  http:
  - route:
    - {destination: {host: payment, subset: v2}, weight: 1}
    - {destination: {host: reviews}, weight: 1}
    - {destination: {host: ports.example.com}, weight: 1}
    - {destination: {host: ledger.bank.svc.cluster.local, subset: v1, port: {number: 8080}}, weight: 1}
    - {destination: {host: "*.bank"}, weight: 1}
    - {weight: 1}
  - name: never-reached
    match: [{port: 1234}, {port: 0}]
    route: [{destination: {host: ledger.bank}}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: ports, namespace: shop}
spec:
  hosts: [ports.example.com]
  resolution: STATIC
  ports: [{name: a, number: 1, protocol: HTTP}, {name: b, number: 2, protocol: HTTP}]
`, want: []string{
		`x.yaml:13:45: VirtualService shop/a: spec.http[0].route[0].destination.subset: no DestinationRule of "payment.shop.svc.cluster.local" has a subset "v2": it has v1`,
		`x.yaml:14:28: VirtualService shop/a: spec.http[0].route[1].destination.host: no Service or ServiceEntry has the host "reviews.shop.svc.cluster.local"`,
		`x.yaml:15:8: VirtualService shop/a: spec.http[0].route[2].destination.port: "ports.example.com" has no port 8080, on which this route is called: set port.number`,
		`x.yaml:15:8: VirtualService shop/a: spec.http[0].route[2].destination.port: "ports.example.com" has no port 9090, on which this route is called: set port.number`,
		`x.yaml:17:28: VirtualService shop/a: spec.http[0].route[4].destination.host: "*.bank": hosts with a wildcard are not supported: name each host`,
		"x.yaml:18:7: VirtualService shop/a: spec.http[0].route[5].destination: is required",
		"x.yaml:20:20: VirtualService shop/a: spec.http[1].match[0].port: no host of the VirtualService has port 1234",
		"x.yaml:20:34: VirtualService shop/a: spec.http[1].match[1].port: 0 is not a port: use 1..65535",
		`x.yaml:21:34: VirtualService shop/a: spec.http[1].route[0].destination.host: no Service or ServiceEntry has the host "ledger.bank": Istio completes only names without a dot, write "ledger.bank.svc.cluster.local"`,
	}},
	{name: "weights", yaml: `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a, namespace: shop}
spec:
  hosts: [payment]
  http:
  - match: [{uri: {exact: /a}}]
    route: [{destination: {host: payment}}, {destination: {host: payment}}]
  - match: [{uri: {exact: /b}}]
    route: [{destination: {host: payment}, weight: -1}]
  - match: [{uri: {exact: /c}}]
    route:
    - {destination: {host: payment}, weight: 2147483647}
    - {destination: {host: payment}, weight: 2147483647}
    - {destination: {host: payment}, weight: 2}
`, want: []string{
		"x.yaml:8:12: VirtualService shop/a: spec.http[0].route: the weights sum up to 0: give at least one destination a weight",
		"x.yaml:10:52: VirtualService shop/a: spec.http[1].route[0].weight: -1 is negative",
		"x.yaml:13:5: VirtualService shop/a: spec.http[2].route: the weights sum up to 4294967296: at most 4294967295 is possible",
	}},
}

var routeProblems = []problemCase{
	{name: "matches", yaml: `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a, namespace: shop}
spec:
  hosts: [payment]
  http:
  - match:
    - uri: {}
      method: {prefix: ""}
      authority: {regex: ""}
      headers: {":method": {exact: GET}, "@request.auth.claims.a": {exact: b}, "a b": {}, x-null: ~}
      withoutHeaders: {x: {regex: "["}}
      queryParams: {a: {exact: a, prefix: b}, b: {suffix: c}, "": {}}
    - uri: {regex: "/a"}
      ignoreUriCase: true
      ignoreuricase: true
    route: [{destination: {host: payment}}]
`, want: []string{
		"x.yaml:8:12: VirtualService shop/a: spec.http[0].match[0].uri: needs one of exact, prefix, regex",
		"x.yaml:9:24: VirtualService shop/a: spec.http[0].match[0].method.prefix: must not be empty",
		"x.yaml:10:26: VirtualService shop/a: spec.http[0].match[0].authority.regex: must have 1..1024 characters",
		"x.yaml:11:17: VirtualService shop/a: spec.http[0].match[0].headers[:method]: pseudo headers cannot be matched here: use uri, method or authority",
		"x.yaml:11:42: VirtualService shop/a: spec.http[0].match[0].headers[@request.auth.claims.a]: claims are known to servers, and this is a route of clients: use an AuthorizationPolicy with the condition request.auth.claims",
		"x.yaml:11:80: VirtualService shop/a: spec.http[0].match[0].headers[a b]: is not the name of a header",
		"x.yaml:11:99: VirtualService shop/a: spec.http[0].match[0].headers[x-null]: must not be empty",
		"x.yaml:12:35: VirtualService shop/a: spec.http[0].match[0].withoutHeaders[x].regex: not an RE2 expression: missing closing ]",
		`x.yaml:13:35: VirtualService shop/a: spec.http[0].match[0].queryParams[a].prefix: cannot be set together with "exact"`,
		"x.yaml:13:51: VirtualService shop/a: spec.http[0].match[0].queryParams[b].suffix: unknown field",
		"x.yaml:13:63: VirtualService shop/a: spec.http[0].match[0].queryParams[]: needs a name",
		"x.yaml:15:7: VirtualService shop/a: spec.http[0].match[1].ignoreUriCase: has no effect on a regex: begin the expression with (?i)",
		`x.yaml:16:7: VirtualService shop/a: spec.http[0].match[1].ignoreuricase: unknown field: did you mean "ignoreUriCase"?`,
	}},
	{name: "parts that exclude each other", yaml: `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a, namespace: shop}
spec:
  hosts: [payment]
  http:
  - match: [{uri: {exact: /a}}]
    redirect: {uri: /b}
    directResponse: {status: 200}
    route: [{destination: {host: payment}}]
    timeout: 1s
    retries: {attempts: 1}
  - match: [{uri: {exact: /b}}]
    directResponse: {status: 200, body: {string: a, bytes: YQ==}}
    fault: {abort: {httpStatus: 500}}
    rewrite: {uri: /}
  - match: [{uri: {exact: /c}}]
  - match: [{uri: {exact: /d}}]
    rewrite: {authority: a}
    headers: {request: {set: {host: b}, add: {":authority": c}}}
    route:
    - {destination: {host: payment}, weight: 1, headers: {request: {set: {Host: d}}}}
    - {destination: {host: payment}, weight: 1}
  - rewrite: {}
    route: [{destination: {host: payment}}]
`, want: []string{
		`x.yaml:9:5: VirtualService shop/a: spec.http[0].directResponse: cannot be set together with "redirect"`,
		`x.yaml:10:5: VirtualService shop/a: spec.http[0].route: cannot be set together with "redirect"`,
		`x.yaml:11:5: VirtualService shop/a: spec.http[0].timeout: cannot be set together with "redirect"`,
		`x.yaml:12:5: VirtualService shop/a: spec.http[0].retries: cannot be set together with "redirect"`,
		`x.yaml:14:53: VirtualService shop/a: spec.http[1].directResponse.body.bytes: cannot be set together with "string"`,
		`x.yaml:15:5: VirtualService shop/a: spec.http[1].fault: cannot be set together with "directResponse"`,
		`x.yaml:16:5: VirtualService shop/a: spec.http[1].rewrite: cannot be set together with "directResponse"`,
		"x.yaml:17:5: VirtualService shop/a: spec.http[2].route: is required, unless there is a redirect, a directResponse or a delegate",
		`x.yaml:20:31: VirtualService shop/a: spec.http[3].headers.request.set[host]: the authority is already set by "spec.http[3].rewrite.authority"`,
		`x.yaml:20:47: VirtualService shop/a: spec.http[3].headers.request.add[:authority]: the authority is already set by "spec.http[3].rewrite.authority"`,
		`x.yaml:22:75: VirtualService shop/a: spec.http[3].route[0].headers.request.set[Host]: the authority is already set by "spec.http[3].rewrite.authority"`,
		"x.yaml:24:14: VirtualService shop/a: spec.http[4].rewrite: needs uri, uriRegexRewrite or authority",
	}},
	{name: "redirects and direct responses", yaml: `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a, namespace: shop}
spec:
  hosts: [payment]
  http:
  - redirect: {}
  - redirect: {uri: /a, prefixRewrite: /b, scheme: ftp, redirectCode: 304, port: 70000}
  - match: [{uri: {exact: /a}}]
    redirect: {prefixRewrite: /b, port: 1, derivePort: FROM_REQUEST_PORT}
  - directResponse: {status: 99, body: {bytes: "!"}}
  - redirect: {uri: b}
  - redirect: {prefixRewrite: b/}
  - redirect: {authority: "evil.example/a?"}
  - redirect: {authority: "::1"}
  - redirect: {authority: "[::1]:80"}
  - redirect: {authority: "Other.example:8443"}
  - redirect: {uri: /a%zz}
  - rewrite: {uri: /a%2}
    route: [{destination: {host: payment}}]
  - rewrite: {uri: "/a#b%23"}
    route: [{destination: {host: payment}}]
  - redirect: {uri: "%PREFIX()%new"}
  - rewrite: {uriRegexRewrite: {match: "/(a)", rewrite: "\\2"}}
    route: [{destination: {host: payment}}]
`, want: []string{
		"x.yaml:7:15: VirtualService shop/a: spec.http[0].redirect: needs uri, prefixRewrite, authority, scheme or port",
		`x.yaml:8:25: VirtualService shop/a: spec.http[1].redirect.prefixRewrite: cannot be set together with "uri"`,
		`x.yaml:8:52: VirtualService shop/a: spec.http[1].redirect.scheme: "ftp" is neither http nor https`,
		"x.yaml:8:71: VirtualService shop/a: spec.http[1].redirect.redirectCode: 304 is not supported: use 301, 302, 303, 307 or 308",
		"x.yaml:8:82: VirtualService shop/a: spec.http[1].redirect.port: 70000 is not a port: use 1..65535",
		"x.yaml:10:16: VirtualService shop/a: spec.http[2].redirect.prefixRewrite: needs matches by uri.prefix",
		`x.yaml:10:44: VirtualService shop/a: spec.http[2].redirect.derivePort: cannot be set together with "port"`,
		"x.yaml:11:30: VirtualService shop/a: spec.http[3].directResponse.status: 99 is not in 200..599",
		"x.yaml:11:48: VirtualService shop/a: spec.http[3].directResponse.body.bytes: expected base64: illegal base64 data at input byte 0",
		`x.yaml:12:21: VirtualService shop/a: spec.http[4].redirect.uri: "b" does not begin with a slash: write "/b"`,
		`x.yaml:13:31: VirtualService shop/a: spec.http[5].redirect.prefixRewrite: "b/" does not begin with a slash: write "/b/"`,
		`x.yaml:14:27: VirtualService shop/a: spec.http[6].redirect.authority: "evil.example/a?" is not a host: write a name or an address, with a port or without`,
		`x.yaml:15:27: VirtualService shop/a: spec.http[7].redirect.authority: "::1" is not a host: write a name or an address, with a port or without`,
		`x.yaml:18:21: VirtualService shop/a: spec.http[10].redirect.uri: "/a%zz": a percent sign begins an escape of two hexadecimal digits: write %25 for the sign itself`,
		`x.yaml:19:20: VirtualService shop/a: spec.http[11].rewrite.uri: "/a%2": a percent sign begins an escape of two hexadecimal digits: write %25 for the sign itself`,
		`x.yaml:21:20: VirtualService shop/a: spec.http[12].rewrite.uri: "/a#b%23" has a fragment, which is never sent: remove it, or write %23`,
		`x.yaml:23:21: VirtualService shop/a: spec.http[13].redirect.uri: "%PREFIX()%new": there are no commands in it: prefixRewrite keeps what follows the prefix of a match`,
		`x.yaml:24:57: VirtualService shop/a: spec.http[14].rewrite.uriRegexRewrite.rewrite: has "\2", but the last group of the expression is "\1"`,
	}},
	{name: "timeouts and retries", yaml: `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a, namespace: shop}
spec:
  hosts: [payment]
  http:
  - timeout: 0s
    retries: {attempts: -1}
    route: [{destination: {host: payment}}]
  - timeout: 5
    retries: {perTryTimeout: 1s, retryOn: 5xx}
    route: [{destination: {host: payment}}]
  - retries: {attempts: 1, perTryTimeout: 1us, backoff: 0.5ms, retryOn: "5xx, reset,99,retriable-header"}
    route: [{destination: {host: payment}}]
`, want: []string{
		"x.yaml:7:14: VirtualService shop/a: spec.http[0].timeout: 0s is too short: use at least 1ms, or leave the field out",
		"x.yaml:8:25: VirtualService shop/a: spec.http[0].retries.attempts: -1 is negative",
		`x.yaml:10:14: VirtualService shop/a: spec.http[1].timeout: "5" is not a duration: write it like 1.5s, 250ms or 1h30m`,
		"x.yaml:11:15: VirtualService shop/a: spec.http[1].retries.perTryTimeout: has no effect with 0 attempts, the default: set attempts",
		"x.yaml:11:34: VirtualService shop/a: spec.http[1].retries.retryOn: has no effect with 0 attempts, the default: set attempts",
		"x.yaml:13:43: VirtualService shop/a: spec.http[2].retries.perTryTimeout: 1µs is too short: use at least 1ms, or leave the field out",
		"x.yaml:13:57: VirtualService shop/a: spec.http[2].retries.backoff: 500µs is too short: use at least 1ms, or leave the field out",
		`x.yaml:13:73: VirtualService shop/a: spec.http[2].retries.retryOn: " reset" is neither a status code nor one of 5xx, gateway-error, reset, reset-before-request, connect-failure, retriable-4xx, refused-stream, retriable-status-codes, envoy-ratelimited, retriable-headers, http3-post-connect-failure, cancelled, deadline-exceeded, internal, resource-exhausted, unavailable`,
		`x.yaml:13:73: VirtualService shop/a: spec.http[2].retries.retryOn: "99" is neither a status code nor one of 5xx, gateway-error, reset, reset-before-request, connect-failure, retriable-4xx, refused-stream, retriable-status-codes, envoy-ratelimited, retriable-headers, http3-post-connect-failure, cancelled, deadline-exceeded, internal, resource-exhausted, unavailable`,
		`x.yaml:13:73: VirtualService shop/a: spec.http[2].retries.retryOn: "retriable-header" is neither a status code nor one of 5xx, gateway-error, reset, reset-before-request, connect-failure, retriable-4xx, refused-stream, retriable-status-codes, envoy-ratelimited, retriable-headers, http3-post-connect-failure, cancelled, deadline-exceeded, internal, resource-exhausted, unavailable`,
	}},
	{name: "faults", yaml: `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a, namespace: shop}
spec:
  hosts: [payment]
  http:
  - fault: {}
    route: [{destination: {host: payment}}]
  - fault: {delay: {percentage: {value: 1}}, abort: {percentage: {value: 101}}}
    route: [{destination: {host: payment}}]
  - fault: {delay: {fixedDelay: 0s, percent: 101}, abort: {httpStatus: 99}}
    route: [{destination: {host: payment}}]
  - fault: {delay: {fixedDelay: 1s, percent: 1, percentage: {value: 0.00001}}, abort: {grpcStatus: "14"}}
    route: [{destination: {host: payment}}]
  - fault: {delay: {fixedDelay: 1s, percent: 1, percentage: {value: 1}}, abort: {grpcStatus: OK, httpStatus: 500}}
    route: [{destination: {host: payment}}]
`, want: []string{
		"x.yaml:7:12: VirtualService shop/a: spec.http[0].fault: needs delay or abort",
		"x.yaml:9:13: VirtualService shop/a: spec.http[1].fault.delay.fixedDelay: is required",
		"x.yaml:9:53: VirtualService shop/a: spec.http[1].fault.abort: needs httpStatus or grpcStatus",
		"x.yaml:9:74: VirtualService shop/a: spec.http[1].fault.abort.percentage.value: 101 is neither 0 nor in 0.0001..100",
		"x.yaml:11:33: VirtualService shop/a: spec.http[2].fault.delay.fixedDelay: 0s is too short: use at least 1ms, or leave the field out",
		"x.yaml:11:46: VirtualService shop/a: spec.http[2].fault.delay.percent: 101 is not in 0..100",
		"x.yaml:11:72: VirtualService shop/a: spec.http[2].fault.abort.httpStatus: 99 is not in 200..599",
		"x.yaml:13:69: VirtualService shop/a: spec.http[3].fault.delay.percentage.value: 1e-05 is neither 0 nor in 0.0001..100",
		`x.yaml:13:100: VirtualService shop/a: spec.http[3].fault.abort.grpcStatus: "14" is not the name of a gRPC status, like UNAVAILABLE`,
		`x.yaml:15:37: VirtualService shop/a: spec.http[4].fault.delay.percent: cannot be set together with "percentage"`,
		`x.yaml:15:98: VirtualService shop/a: spec.http[4].fault.abort.httpStatus: cannot be set together with "grpcStatus"`,
	}},
	{name: "command operators", yaml: `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a, namespace: shop}
spec:
  hosts: [payment]
  http:
  - headers:
      request:
        set:
          x-a: "%REQ(a?b):3% of %ROUTE_NAME%, 100%%"
          x-b: "%REQ(a)%%BYTES_SENT%"
          x-c: "%RESPONSE_CODE%"
          x-d: "%REQ(a):0%"
          host: "%REQ(a)%"
      response: {set: {x-e: "%RESPONSE_CODE%"}}
    route: [{destination: {host: payment}}]
`, want: []string{
		`x.yaml:11:16: VirtualService shop/a: spec.http[0].headers.request.set[x-b]: the command operator BYTES_SENT is not supported: use one of DOWNSTREAM_DIRECT_REMOTE_ADDRESS, DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT, DOWNSTREAM_DIRECT_REMOTE_PORT, DOWNSTREAM_LOCAL_ADDRESS, DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT, DOWNSTREAM_LOCAL_PORT, DOWNSTREAM_PEER_URI_SAN, DOWNSTREAM_REMOTE_ADDRESS, DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT, DOWNSTREAM_REMOTE_PORT, HOSTNAME, PROTOCOL, QUERY_PARAM, REQ, ROUTE_NAME, START_TIME, UPSTREAM_CLUSTER`,
		`x.yaml:12:16: VirtualService shop/a: spec.http[0].headers.request.set[x-c]: the command operator RESPONSE_CODE is for responses: nothing is known of them when a request is sent`,
		`x.yaml:13:16: VirtualService shop/a: spec.http[0].headers.request.set[x-d]: "%" begins no command operator: write "%%" for a percent sign`,
		`x.yaml:14:17: VirtualService shop/a: spec.http[0].headers.request.set[host]: has a percent sign, and there are no command operators here: remove %`,
	}},
	{name: "header operations", yaml: `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a, namespace: shop}
spec:
  hosts: [payment]
  http:
  - headers:
      request: {set: {":path": a, x-a: "%HOSTNAME"}, add: {"a b": c, x-b: "a\nb"}, remove: [host, ":method", ""]}
      response: {set: {host: a}, add: {":status": "200"}, remove: [Host]}
    route:
    - destination: {host: payment}
      headers: {request: {set: {"": a}}, response: {merge: {}}}
`, want: []string{
		"x.yaml:8:23: VirtualService shop/a: spec.http[0].headers.request.set[:path]: is not a header that can be changed",
		`x.yaml:8:40: VirtualService shop/a: spec.http[0].headers.request.set[x-a]: "%" begins no command operator: write "%%" for a percent sign`,
		"x.yaml:8:60: VirtualService shop/a: spec.http[0].headers.request.add[a b]: is not a header that can be changed",
		`x.yaml:8:75: VirtualService shop/a: spec.http[0].headers.request.add[x-b]: has the control character '\n'`,
		`x.yaml:8:93: VirtualService shop/a: spec.http[0].headers.request.remove[0]: "host" is not a header that can be removed`,
		`x.yaml:8:99: VirtualService shop/a: spec.http[0].headers.request.remove[1]: ":method" is not a header that can be removed`,
		`x.yaml:8:110: VirtualService shop/a: spec.http[0].headers.request.remove[2]: "" is not a header that can be removed`,
		"x.yaml:9:24: VirtualService shop/a: spec.http[0].headers.response.set[host]: is not a header that can be changed",
		"x.yaml:9:40: VirtualService shop/a: spec.http[0].headers.response.add[:status]: is not a header that can be changed",
		`x.yaml:9:68: VirtualService shop/a: spec.http[0].headers.response.remove[0]: "Host" is not a header that can be removed`,
		"x.yaml:12:33: VirtualService shop/a: spec.http[0].route[0].headers.request.set[]: is not a header that can be changed",
		"x.yaml:12:53: VirtualService shop/a: spec.http[0].route[0].headers.response.merge: unknown field",
	}},
}
