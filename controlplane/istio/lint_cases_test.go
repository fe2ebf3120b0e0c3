package istio_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/inboardmesh/inboard/controlplane/istio"
)

// lintCase is a set of documents beside shop, and the warnings with a code that
// there must be, in their order: their fields and messages.
type lintCase struct {
	code, name string
	yaml       string
	want       []string
}

// payRules is a VirtualService of payment.
func payRules(http string) string {
	return document("VirtualService", "shop", "a", "  hosts: [payment]\n  http:\n"+http)
}

const (
	payRoute = "route: [{destination: {host: payment}}]"
	// posted is a rule for POST whose retries follow.
	posted = "  - match: [{method: {exact: POST}}]\n    " + payRoute + "\n    "
)

// subsets is a rule with the subset v1 of payment.
var subsets = document("DestinationRule", "shop", "payment", `
  host: payment
  subsets: [{name: v1, labels: {version: v1}}]
`)

// webCaller is the service web, whose callers wait for 2 s.
const webCaller = `
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: web, namespace: shop}
spec:
  hosts: [web.shop.svc.cluster.local]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{name: http, number: 80, protocol: HTTP}]
  endpoints: [{address: 10.0.0.7, serviceAccount: web, labels: {app: web}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: shop}
spec:
  hosts: [web]
  http: [{timeout: TIMEOUT, route: [{destination: {host: web}}]}]
---
`

// kubernetesService is the Service cart.
func kubernetesService(ports string) string {
	return "apiVersion: v1\nkind: Service\nmetadata: {name: cart, namespace: shop}\nspec: {ports: " + ports + "}\n"
}

// cartSlice is the Service cart with endpoints, and one Pod.
func cartSlice(endpoints string) string {
	return kubernetesService("[{name: http, port: 80}]") + `---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: cart-a, namespace: shop, labels: {kubernetes.io/service-name: cart}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints:
` + endpoints + `
---
apiVersion: v1
kind: Pod
metadata: {name: cart-1, namespace: shop}
`
}

var lintCases = []lintCase{
	{"conflicting-route", "one kind of route only", gatewayHTTPRoute, nil},
	{"conflicting-route", "an HTTPRoute beside a GRPCRoute", gatewayHTTPRoute + "---\n" + strings.NewReplacer("HTTPRoute", "GRPCRoute", "8080", "9090", "name: web", "name: rpc").Replace(gatewayHTTPRoute) + "---\n" + strings.NewReplacer("port: 8080", "port: 9090", "name: web", "name: lost").Replace(gatewayHTTPRoute), []string{
		`spec.parentRefs[0]: is not accepted (Conflicted) for port 9090 of "payment.shop.svc.cluster.local": GRPCRoute shop/rpc (x.yaml:9) is for the same calls, and goes before an HTTPRoute`,
	}},
	{"grpc-route-port", "a GRPCRoute for all ports", strings.NewReplacer("HTTPRoute", "GRPCRoute", "\"\", name: payment, port: 8080", "\"\", name: payment").Replace(gatewayHTTPRoute), []string{
		`spec.parentRefs[0]: is for port 8080 of "payment.shop.svc.cluster.local" too, over which no gRPC call is made: set port`,
	}},
	{"grpc-route-port", "a GRPCRoute for one port", strings.NewReplacer("HTTPRoute", "GRPCRoute", "8080", "9090").Replace(gatewayHTTPRoute), nil},
	{"ineffective-failover", "without outlier detection", failover(""), []string{
		"spec.trafficPolicy.loadBalancer.localityLbSetting: failover has no effect without outlierDetection, which finds the endpoints that fail",
	}},
	{"ineffective-failover", "with outlier detection", failover("outlierDetection: {consecutive5xxErrors: 5}"), nil},
	{"ineffective-hostnames", "hostnames", strings.Replace(gatewayHTTPRoute, "rules:", "hostnames: [a.example]\n  rules:", 1), []string{
		`spec.hostnames: has no effect on routes of a Service: match the header Host instead`,
	}},
	{"ineffective-hostnames", "no hostnames", gatewayHTTPRoute, nil},
	{"unknown-backend", "backends that are not there", strings.Replace(gatewayHTTPRoute, "[{name: payment, port: 8080}]", "[{name: paymnet, port: 8080, weight: 1}, {name: payment, port: 1, weight: 2}, {kind: Bucket, name: a, weight: 0}]\n    filters: [{type: RequestMirror, requestMirror: {backendRef: {name: nowhere, port: 1}}}]", 1), []string{
		`spec.rules[0].backendRefs[0].name: no ServiceEntry has the host "paymnet.shop.svc.cluster.local": did you mean "payment.shop.svc.cluster.local"? (BackendNotFound): its share of the requests is answered with 500`,
		`spec.rules[0].backendRefs[1].port: "payment.shop.svc.cluster.local" has no port 1: it has 8080, 9090 (BackendNotFound): its share of the requests is answered with 500`,
		`spec.rules[0].backendRefs[2].kind: "Bucket" of group "" is not supported: use a Service, or a Hostname of group "networking.istio.io" (InvalidKind): its share of the requests is answered with 500`,
	}},
	{"unknown-backend", "a mirror that is not there", strings.Replace(gatewayHTTPRoute, "- backendRefs", "- filters: [{type: RequestMirror, requestMirror: {backendRef: {name: nowhere, port: 1}}}]\n    backendRefs", 1), []string{
		`spec.rules[0].filters[0].requestMirror.backendRef.name: no ServiceEntry has the host "nowhere.shop.svc.cluster.local" (BackendNotFound): nothing is copied`,
	}},
	{"unknown-backend", "a backend that is there", gatewayHTTPRoute, nil},
	{"foreign-parent", "a Gateway beside a Service", strings.Replace(gatewayHTTPRoute, "parentRefs: [", "parentRefs: [{name: ingress}, ", 1), []string{
		`spec.parentRefs[0]: is not accepted: this is a mesh, and Gateway shop/ingress is a gateway: calls of the mesh do not pass it`,
	}},
	{"foreign-parent", "a Service", gatewayHTTPRoute, nil},
	{"no-backend", "no backend with a weight", strings.Replace(gatewayHTTPRoute, "[{name: payment, port: 8080}]", "[{name: payment, port: 8080, weight: 0}]", 1), []string{
		`spec.rules[0].backendRefs: there is no backend with a weight: every request is answered with 500`,
	}},
	{"no-backend", "a backend with a weight", gatewayHTTPRoute, nil},
	{"ineffective-match", "a delegate outside of its root", delegating("/api"), []string{
		`spec.http[0].match[0]: has no effect: it is not within the match of spec.http[0] of VirtualService shop/root (x.yaml:7), which delegates to it`,
	}},
	{"ineffective-match", "a delegate within its root", delegating("/pay/api"), nil},
	{"invisible-destination", "a route to what its callers do not see", document("ServiceEntry", "bank", "vault", `
  hosts: [vault.bank.svc.cluster.local]
  exportTo: [.]
  resolution: STATIC
  ports: [{name: http, number: 8080, protocol: HTTP}]
`) + "---\n" + document("VirtualService", "bank", "a", `
  hosts: [ledger]
  http: [{route: [{destination: {host: vault}}]}]
`), []string{
		`spec.http[0].route: "vault.bank.svc.cluster.local" is not visible to clients in other namespaces, who get this route: their calls fail`,
	}},
	{"invisible-destination", "a route to what all see", payRules("  - " + payRoute + "\n"), nil},
	{"overridden-host", "the newer of two", strings.Replace(payRules("  - "+payRoute+"\n"), "name: a,", "name: b, creationTimestamp: 2026-01-02T00:00:00Z,", 1) + "---\n" +
		strings.Replace(payRules("  - "+payRoute+"\n"), "name: a,", "name: a, creationTimestamp: 2026-01-01T00:00:00Z,", 1), []string{
		`spec.hosts[0]: has no effect on "payment.shop.svc.cluster.local": the older VirtualService shop/a (x.yaml:11) wins`,
	}},
	{"overridden-host", "one alone", payRules("  - " + payRoute + "\n"), nil},
	{"unknown-host", "a wildcard for nothing", document("DestinationRule", "shop", "a", "  host: '*.example.com'\n"), []string{
		`spec.host: "*.example.com": no ServiceEntry has such a host: it has no effect`,
	}},
	{"unknown-host", "a wildcard for something", document("DestinationRule", "shop", "a", "  host: '*.shop.svc.cluster.local'\n"), nil},
	{"unknown-pod", "an endpoint without a Pod", cartSlice("- {addresses: [10.1.0.1]}"), []string{
		`endpoints[0]: no document has the Pod of 10.1.0.1: its labels and service account are not known`,
	}},
	{"unknown-pod", "an endpoint with its Pod", cartSlice("- {addresses: [10.1.0.1], targetRef: {kind: Pod, name: cart-1}}"), nil},
	{"unknown-protocol", "ports of whatever", kubernetesService("[{name: db, port: 1}, {port: 2}, {name: http, port: 3, appProtocol: tls}, {name: grpc-web, port: 4}, {name: http-a, port: 5, protocol: UDP}]"), []string{
		`spec.ports[0]: port 1 is not in the mesh: nothing says that it speaks HTTP, HTTP/2, gRPC or TCP`,
		`spec.ports[1]: port 2 is not in the mesh: nothing says that it speaks HTTP, HTTP/2, gRPC or TCP`,
		`spec.ports[2]: port 3 is not in the mesh: nothing says that it speaks HTTP, HTTP/2, gRPC or TCP`,
		`spec.ports[3]: port 4 is not in the mesh: nothing says that it speaks HTTP, HTTP/2, gRPC or TCP`,
		`spec.ports[4]: port 5 is not in the mesh: nothing says that it speaks HTTP, HTTP/2, gRPC or TCP`,
	}},
	{"unknown-protocol", "ports of the mesh", kubernetesService("[{name: http, port: 1}, {name: http2-a, port: 2}, {name: grpc-b, port: 3}, {port: 4, name: x, appProtocol: HTTP}, {name: y, port: 5, appProtocol: kubernetes.io/h2c}, {name: tcp-db, port: 6}, {name: z, port: 7, appProtocol: redis}]"), nil},
	{"unused-delegate", "a delegate of nobody", document("VirtualService", "shop", "a", "  http: [{"+payRoute+"}]\n"), []string{
		`spec: has no hosts, and no VirtualService delegates to it: it has no effect`,
	}},
	{"unused-delegate", "a delegate of somebody", delegating("/pay/api"), nil},

	{"shadowed-route", "a rule after one for all", payRules("  - match: [{uri: {prefix: /}}]\n    " + payRoute + "\n  - match: [{uri: {exact: /a}}]\n    " + payRoute + "\n"), []string{
		`spec.http[1].match[0]: is never reached: spec.http[0].match[0] of VirtualService shop/a (x.yaml:7) matches all of it`,
	}},
	{"shadowed-route", "a rule without a match after one for all", payRules("  - " + payRoute + "\n  - " + payRoute + "\n"), []string{
		`spec.http[1]: is never reached: spec.http[0] of VirtualService shop/a (x.yaml:7) is for every request that gets here`,
	}},
	{"shadowed-route", "every way in which one match covers another", payRules(`
  - {match: [{uri: {prefix: /a}}], directResponse: {status: 200}}
  - {match: [{uri: {exact: /ab}, method: {exact: GET}}], directResponse: {status: 200}}
  - {match: [{uri: {prefix: /abc}, port: 8080}], directResponse: {status: 200}}
  - {match: [{uri: {regex: "/r.*"}, headers: {x: {prefix: a}}}], directResponse: {status: 200}}
  - {match: [{uri: {exact: /rs}, headers: {x: {exact: ab}, y: {exact: z}}}], directResponse: {status: 200}}
  - {match: [{uri: {prefix: /C}, ignoreUriCase: true, withoutHeaders: {x: {exact: a}}}], directResponse: {status: 200}}
  - {match: [{uri: {exact: /cd}, withoutHeaders: {x: {prefix: a}}}], directResponse: {status: 200}}
  - {match: [{queryParams: {q: {regex: "*"}}}], directResponse: {status: 200}}
  - {match: [{uri: {prefix: /d}, queryParams: {q: {exact: "1"}}, sourceNamespace: shop}], directResponse: {status: 200}}
`), []string{
		`spec.http[1].match[0]: is never reached: spec.http[0].match[0] of VirtualService shop/a (x.yaml:8) matches all of it`,
		`spec.http[2].match[0]: is never reached: spec.http[0].match[0] of VirtualService shop/a (x.yaml:8) matches all of it`,
		`spec.http[4].match[0]: is never reached: spec.http[3].match[0] of VirtualService shop/a (x.yaml:11) matches all of it`,
		`spec.http[6].match[0]: is never reached: spec.http[5].match[0] of VirtualService shop/a (x.yaml:13) matches all of it`,
		`spec.http[8].match[0]: is never reached: spec.http[7].match[0] of VirtualService shop/a (x.yaml:15) matches all of it`,
	}},
	{"shadowed-route", "matches that leave something", payRules(`
  - {match: [{uri: {exact: /a}}], directResponse: {status: 200}}
  - {match: [{uri: {prefix: /a}, method: {exact: GET}}], directResponse: {status: 200}}
  - {match: [{uri: {prefix: /a}, port: 8080}], directResponse: {status: 200}}
  - {match: [{uri: {prefix: /a}, headers: {x: {exact: a}}}], directResponse: {status: 200}}
  - {match: [{uri: {prefix: /a}, headers: {x: {prefix: a}}}], directResponse: {status: 200}}
  - {match: [{uri: {prefix: /a}, withoutHeaders: {x: {prefix: a}}}], directResponse: {status: 200}}
  - {match: [{uri: {prefix: /a}, withoutHeaders: {x: {exact: a}}}], directResponse: {status: 200}}
  - {match: [{uri: {prefix: /A}}], directResponse: {status: 200}}
  - {match: [{uri: {prefix: /A}, ignoreUriCase: true, sourceNamespace: shop}], directResponse: {status: 200}}
  - {match: [{uri: {regex: "/a.*"}}], directResponse: {status: 200}}
  - directResponse: {status: 200}
`), nil},

	{"weight-sum", "weights whose sum is no int32", subsets + "---\n" + payRules("  - route: [{destination: {host: payment}, weight: 2147483647}, {destination: {host: payment, subset: v1}, weight: 2147483647}]\n"), []string{
		`spec.http[0].route: the weights sum up to 4294967294 and not to 100: each is a share of 4294967294, and no percentage`,
	}},
	{"weight-sum", "weights that are no percentages", subsets + "---\n" + payRules("  - route: [{destination: {host: payment}, weight: 1}, {destination: {host: payment, subset: v1}, weight: 2}]\n"), []string{
		`spec.http[0].route: the weights sum up to 3 and not to 100: each is a share of 3, and no percentage`,
	}},
	{"weight-sum", "percentages", subsets + "---\n" + payRules("  - route: [{destination: {host: payment}, weight: 99}, {destination: {host: payment, subset: v1}, weight: 1}]\n"), nil},
	{"missing-weight", "a destination without a weight", subsets + "---\n" + payRules("  - route: [{destination: {host: payment}, weight: 100}, {destination: {host: payment, subset: v1}}]\n"), []string{
		`spec.http[0].route[1].weight: is missing among several destinations: this one gets no request`,
	}},
	{"missing-weight", "a weight of 0, and a destination alone", subsets + "---\n" + payRules("  - {match: [{uri: {exact: /a}}], route: [{destination: {host: payment}, weight: 100}, {destination: {host: payment, subset: v1}, weight: 0}]}\n  - "+payRoute+"\n"), nil},

	{"retry-non-idempotent", "POST", payRules(posted + "retries: {attempts: 2, retryOn: \"connect-failure,5xx\"}\n"), []string{
		`spec.http[0].retries.retryOn: "5xx" repeats POST requests on which the server may have acted already`,
	}},
	{"retry-non-idempotent", "PATCH by an expression, with a status", payRules("  - match: [{method: {regex: \"PUT|PATCH\"}}]\n    " + payRoute + "\n    retries: {attempts: 2, retryOn: \"503\"}\n"), []string{
		`spec.http[0].retries.retryOn: "503" repeats PATCH requests on which the server may have acted already`,
	}},
	{"retry-non-idempotent", "every method, as a rule without one", payRules("  - " + payRoute + "\n    retries: {attempts: 2, retryOn: 5xx}\n"), []string{
		`spec.http[0].retries.retryOn: "5xx" repeats POST and PATCH requests on which the server may have acted already`,
	}},
	{"retry-non-idempotent", "what earlier rules leave", payRules("  - match: [{uri: {prefix: /}, method: {exact: POST}}]\n    " + payRoute + "\n  - match: [{uri: {prefix: /a}}]\n    " + payRoute + "\n    retries: {attempts: 2, retryOn: 5xx}\n"), []string{
		`spec.http[1].retries.retryOn: "5xx" repeats PATCH requests on which the server may have acted already`,
	}},
	{"retry-non-idempotent", "a POST with times that do not fit has both warnings", payRules("  - timeout: 1s\n    " + payRoute + "\n    retries: {attempts: 2, retryOn: 5xx, perTryTimeout: 2s}\n"), []string{
		`spec.http[0].retries.retryOn: "5xx" repeats POST and PATCH requests on which the server may have acted already`,
	}},
	{"per-try-timeout", "of what is repeated with POST", payRules("  - timeout: 1s\n    " + payRoute + "\n    retries: {attempts: 2, retryOn: 5xx, perTryTimeout: 2s}\n"), []string{
		`spec.http[0].retries.perTryTimeout: 2s has no effect: the timeout of the route, 1s, is not longer`,
	}},
	{"retry-non-idempotent", "codes of an HTTPRoute", strings.Replace(gatewayHTTPRoute, "- backendRefs", "- retry: {codes: [500], attempts: 2}\n    backendRefs", 1), []string{
		`spec.rules[0].retry.codes: repeat POST and PATCH requests on which the server may have acted already`,
	}},
	{"retry-non-idempotent", "codes of an HTTPRoute for GET", strings.Replace(gatewayHTTPRoute, "- backendRefs", "- retry: {codes: [500], attempts: 2}\n    matches: [{method: GET}]\n    backendRefs", 1), nil},
	{"retries-exceed-timeout", "of an HTTPRoute", strings.Replace(gatewayHTTPRoute, "- backendRefs", "- retry: {attempts: 3}\n    timeouts: {request: 2s, backendRequest: 1s}\n    backendRefs", 1), []string{
		`spec.rules[0].timeouts.backendRequest: 4 attempts of 1s do not fit into the timeout of the route, 2s: at most 2 can take that long`,
	}},
	{"redirect-loop", "of an HTTPRoute", strings.Replace(gatewayHTTPRoute, "- backendRefs: [{name: payment, port: 8080}]", "- matches: [{path: {value: /a}}]\n    filters: [{type: RequestRedirect, requestRedirect: {path: {type: ReplaceFullPath, replaceFullPath: /a/b}}}]", 1), []string{
		`spec.rules[0].filters[0].requestRedirect.path.replaceFullPath: "/a/b" is redirected by the same rule: whoever follows it never arrives`,
	}},
	{"redirect-loop", "of an HTTPRoute to elsewhere", strings.Replace(gatewayHTTPRoute, "- backendRefs: [{name: payment, port: 8080}]", "- matches: [{path: {value: /a}}]\n    filters: [{type: RequestRedirect, requestRedirect: {path: {type: ReplaceFullPath, replaceFullPath: /ab}}}]", 1), nil},
	{"missing-weight", "of an HTTPRoute", strings.Replace(gatewayHTTPRoute, "[{name: payment, port: 8080}]", "[{name: payment, port: 8080, weight: 90}, {name: payment, port: 9090}]", 1), []string{
		`spec.rules[0].backendRefs[1].weight: is missing among others: this backend has the weight 1 of 91`,
	}},
	{"missing-weight", "none in an HTTPRoute", strings.Replace(gatewayHTTPRoute, "[{name: payment, port: 8080}]", "[{name: payment, port: 8080}, {name: payment, port: 9090}]", 1), nil},
	{"shadowed-route", "the same match in two HTTPRoutes", gatewayHTTPRoute + "---\n" + strings.Replace(gatewayHTTPRoute, "name: web", "name: zeb", 1), []string{
		`spec.rules[0]: is never reached: spec.rules[0] of HTTPRoute shop/web (x.yaml:7) matches the same, and goes before it`,
	}},
	{"shadowed-route", "the same match twice in a GRPCRoute", strings.NewReplacer("HTTPRoute", "GRPCRoute", "8080", "9090", "- backendRefs: ", "- matches: [{method: {service: a.B}}, {method: {service: a.B}}]\n    backendRefs: ").Replace(gatewayHTTPRoute), []string{
		`spec.rules[0].matches[1]: is never reached: spec.rules[0].matches[0] of GRPCRoute shop/web (x.yaml:7) matches the same, and goes before it`,
	}},
	{"shadowed-route", "two HTTPRoutes for different paths", gatewayHTTPRoute + "---\n" + strings.NewReplacer("name: web", "name: zeb", "- backendRefs", "- matches: [{path: {value: /a}}]\n    backendRefs").Replace(gatewayHTTPRoute), nil},
	{"impossible-match", "paths without a slash, and a method in lower case", payRules(`
  - {match: [{uri: {prefix: a}}], directResponse: {status: 200}}
  - {match: [{uri: {exact: ''}}], directResponse: {status: 200}}
  - {match: [{uri: {exact: a/b}}], directResponse: {status: 200}}
  - {match: [{uri: {regex: 'api/.*'}}], directResponse: {status: 200}}
  - {match: [{method: {exact: get}}], directResponse: {status: 200}}
`), []string{
		`spec.http[0].match[0].uri.prefix: "a" is met by no request: paths begin with a slash`,
		`spec.http[1].match[0].uri.exact: "" is met by no request: the shortest path is /`,
		`spec.http[2].match[0].uri.exact: "a/b" is met by no request: paths begin with a slash`,
		`spec.http[3].match[0].uri.regex: "api/.*" is met by no request: paths begin with a slash`,
		`spec.http[4].match[0].method.exact: "get" is met by no request: methods are in upper case, write GET`,
	}},
	{"impossible-match", "paths that there are", payRules(`
  - {match: [{uri: {prefix: /a}}, {uri: {exact: /}}, {uri: {exact: '*'}}, {uri: {regex: '.*b'}}, {uri: {regex: '(?i)/c'}}, {uri: {prefix: ''}}], directResponse: {status: 200}}
  - {match: [{method: {exact: purge}}], directResponse: {status: 200}}
`), nil},

	{"retry-non-idempotent", "POST, where nothing was sent", payRules(posted + "retries: {attempts: 2, retryOn: \"connect-failure,refused-stream,reset-before-request\"}\n"), nil},
	{"retry-non-idempotent", "POST, with the default", payRules(posted + "retries: {attempts: 2}\n"), nil},
	{"retry-non-idempotent", "GET", payRules(strings.Replace(posted, "POST", "GET", 1) + "retries: {attempts: 2, retryOn: 5xx}\n"), nil},

	{"per-try-timeout", "as long as the timeout", payRules("  - timeout: 2s\n    retries: {attempts: 1, perTryTimeout: 2s}\n    " + payRoute + "\n"), []string{
		`spec.http[0].retries.perTryTimeout: 2s has no effect: the timeout of the route, 2s, is not longer`,
	}},
	{"per-try-timeout", "shorter, and without a timeout", payRules("  - match: [{uri: {exact: /a}}]\n    timeout: 2s\n    retries: {attempts: 1, perTryTimeout: 1s}\n    " + payRoute + "\n  - retries: {attempts: 1, perTryTimeout: 2s}\n    " + payRoute + "\n"), nil},
	{"retries-exceed-timeout", "three of which two fit", payRules("  - timeout: 2s\n    retries: {attempts: 2, perTryTimeout: 900ms}\n    " + payRoute + "\n"), []string{
		`spec.http[0].retries.perTryTimeout: 3 attempts of 900ms do not fit into the timeout of the route, 2s: at most 2 can take that long`,
	}},
	{"retries-exceed-timeout", "three that fit", payRules("  - timeout: 3s\n    retries: {attempts: 2, perTryTimeout: 900ms}\n    " + payRoute + "\n"), nil},

	{"prefix-rewrite", "two slashes, and none", payRules("  - match: [{uri: {prefix: /a}}, {uri: {prefix: /b/}}]\n    rewrite: {uri: /}\n    " + payRoute + "\n  - match: [{uri: {prefix: /c/}}]\n    redirect: {prefixRewrite: /d}\n"), []string{
		`spec.http[0].rewrite.uri: "/" in the place of the prefix "/a" makes "//x" of "/a/x"`,
		`spec.http[1].redirect.prefixRewrite: "/d" in the place of the prefix "/c/" makes "/dx" of "/c/x"`,
	}},
	{"prefix-rewrite", "of everything", payRules("  - match: [{uri: {prefix: /}}]\n    rewrite: {uri: /v1}\n    " + payRoute + "\n"), []string{
		`spec.http[0].rewrite.uri: "/v1" in the place of the prefix "/" makes "/v1x" of "/x"`,
	}},
	{"prefix-rewrite", "what fits", payRules("  - match: [{uri: {prefix: /a/}}, {uri: {prefix: /a}}]\n    rewrite: {uri: /}\n    " + payRoute + "\n  - match: [{uri: {prefix: /b}}, {uri: {exact: /c/}}]\n    rewrite: {uri: /d}\n    " + payRoute + "\n"), nil},
	{"rewrite-query", "of a prefix, and of every path", payRules("  - match: [{uri: {prefix: /a}}]\n    rewrite: {uri: \"/v2?tier=gold\"}\n    " + payRoute + "\n  - rewrite: {uri: \"/v2/?tier=gold\"}\n    " + payRoute + "\n"), []string{
		`spec.http[0].rewrite.uri: "/v2?tier=gold" has a query, which what follows becomes a part of: a request with the query "a=b" is sent as "/v2?tier=gold/x?a=b"`,
		`spec.http[1].rewrite.uri: "/v2/?tier=gold" has a query, which what follows becomes a part of: a request with the query "a=b" is sent as "/v2/?tier=goldx?a=b"`,
	}},
	{"rewrite-query", "of an exact path", payRules("  - match: [{uri: {exact: /a}}]\n    rewrite: {uri: \"/v2?tier=gold\"}\n    " + payRoute + "\n  - " + payRoute + "\n"), []string{
		`spec.http[0].rewrite.uri: "/v2?tier=gold" has a query, which what follows becomes a part of: a request with the query "a=b" is sent as "/v2?tier=gold?a=b"`,
	}},
	{"rewrite-query", "a question mark that is escaped", payRules("  - rewrite: {uri: \"/v2%3Ftier\"}\n    " + payRoute + "\n"), nil},
	{"body-not-sent", "statuses without content", payRules("  - match: [{uri: {prefix: /a}}]\n    directResponse: {status: 204, body: {string: done}}\n  - directResponse: {status: 304, body: {bytes: aGVsbG8=}}\n"), []string{
		`spec.http[0].directResponse.body: responses with the status 204 have no body: it is not sent`,
		`spec.http[1].directResponse.body: responses with the status 304 have no body: it is not sent`,
	}},
	{"body-not-sent", "others", payRules("  - match: [{uri: {prefix: /a}}]\n    directResponse: {status: 204}\n  - directResponse: {status: 200, body: {string: done}}\n"), nil},
	{"cors-credentials", "of everybody", payRules("  - corsPolicy:\n      allowCredentials: true\n      allowOrigins: [{exact: \"*\"}, {prefix: \"https://\"}, {regex: \".*\"}, {regex: \"https://.*[.]shop\"}]\n      allowHeaders: [x-a, \"*\"]\n      allowMethods: [GET, \"*\"]\n    " + payRoute + "\n"), []string{
		`spec.http[0].corsPolicy.allowOrigins[0]: every origin may use the credentials of whoever visits it`,
		`spec.http[0].corsPolicy.allowOrigins[1]: every origin may use the credentials of whoever visits it`,
		`spec.http[0].corsPolicy.allowOrigins[2]: every origin may use the credentials of whoever visits it`,
		`spec.http[0].corsPolicy.allowHeaders[1]: beside credentials "*" is a name for browsers, and stands for nothing else`,
		`spec.http[0].corsPolicy.allowMethods[1]: beside credentials "*" is a name for browsers, and stands for nothing else`,
	}},
	{"cors-credentials", "in the old field", payRules("  - corsPolicy: {allowCredentials: true, allowOrigin: [\"*\"]}\n    " + payRoute + "\n"), []string{
		`spec.http[0].corsPolicy.allowOrigin[0]: every origin may use the credentials of whoever visits it`,
	}},
	{"cors-credentials", "of an HTTPRoute", strings.Replace(gatewayHTTPRoute, "- backendRefs", "- filters: [{type: CORS, cors: {allowCredentials: true, allowOrigins: [\"https://*\", \"https://*.shop\"]}}]\n    backendRefs", 1), []string{
		`spec.rules[0].filters[0].cors.allowOrigins[0]: every origin may use the credentials of whoever visits it`,
	}},
	{"cors-credentials", "without credentials, and of those who are meant", payRules("  - match: [{uri: {prefix: /a}}]\n    corsPolicy: {allowOrigins: [{exact: \"*\"}], allowMethods: [\"*\"]}\n    " + payRoute + "\n  - corsPolicy: {allowCredentials: true, allowOrigins: [{exact: \"https://web.shop\"}], allowMethods: [GET]}\n    " + payRoute + "\n"), nil},
	{"redirect-loop", "to what is matched again", payRules("  - match: [{uri: {prefix: /old}}]\n    redirect: {uri: /old/new}\n"), []string{
		`spec.http[0].redirect.uri: "/old/new" is redirected by the same rule: whoever follows it never arrives`,
	}},
	{"redirect-loop", "elsewhere", payRules("  - match: [{uri: {prefix: /old}}]\n    redirect: {uri: /new}\n  - match: [{uri: {exact: /there}}]\n    redirect: {uri: /there, authority: other}\n  - match: [{uri: {exact: /m}, method: {exact: GET}}]\n    redirect: {uri: /m}\n"), nil},

	{"timeout-exceeds-caller", "a service that waits for longer than its callers", strings.Replace(webCaller, "TIMEOUT", "2s", 1) + payRules("  - match: [{sourceLabels: {app: web}}]\n    timeout: 3s\n    "+payRoute+"\n"), []string{
		`spec.http[0].timeout: 3s is longer than the 2s for which callers of "web.shop.svc.cluster.local" wait (spec.http[0].timeout of VirtualService shop/web (x.yaml:16)): the answer comes when nobody waits for it`,
	}},
	{"timeout-exceeds-caller", "a service that waits for less", strings.Replace(webCaller, "TIMEOUT", "4s", 1) + payRules("  - match: [{sourceLabels: {app: web}}]\n    timeout: 3s\n    "+payRoute+"\n"), nil},
	{"timeout-exceeds-caller", "somebody else", strings.Replace(webCaller, "TIMEOUT", "2s", 1) + payRules("  - match: [{sourceNamespace: bank}]\n    timeout: 3s\n    "+payRoute+"\n"), nil},

	{"empty-subset", "labels that no endpoint has", document("DestinationRule", "shop", "payment", "  host: payment\n  subsets: [{name: v2, labels: {version: v2}}]\n"), []string{
		`spec.subsets[0].labels: no endpoint of "payment.shop.svc.cluster.local" has these labels: calls to the subset "v2" fail`,
	}},
	{"empty-subset", "labels that an endpoint has, and a service without endpoints", subsets + "---\n" + document("DestinationRule", "bank", "ledger", "  host: ledger\n  subsets: [{name: v2, labels: {version: v2}}]\n"), nil},
	{"unused-destination-rule", "where nobody looks", document("DestinationRule", "bank", "payment", "  host: payment.shop.svc.cluster.local\n  exportTo: [shop]\n") + "---\n" + subsets, []string{
		`spec.host: no client uses the rule: another one is for "payment.shop.svc.cluster.local", or it is exported to nobody who looks for it`,
	}},
	{"unused-destination-rule", "of the service and of clients", document("DestinationRule", "bank", "payment", "  host: payment.shop.svc.cluster.local\n  exportTo: [.]\n") + "---\n" + subsets, nil},
	{"mtls-conflict", "plaintext to who refuses it", strict + document("DestinationRule", "shop", "payment", "  host: payment\n  trafficPolicy: {tls: {mode: DISABLE}}\n"), []string{
		`spec.trafficPolicy.tls.mode: DISABLE, and by a PeerAuthentication port 8080 of endpoint 10.0.0.1 accepts mutual TLS only: calls to it fail`,
		`spec.trafficPolicy.tls.mode: DISABLE, and by a PeerAuthentication port 9090 of endpoint 10.0.0.1 accepts mutual TLS only: calls to it fail`,
	}},
	{"mtls-conflict", "mutual TLS to who does not speak it", strings.Replace(strict, "STRICT", "DISABLE", 1) + document("DestinationRule", "shop", "payment", "  host: payment\n  trafficPolicy: {portLevelSettings: [{port: {number: 9090}, tls: {mode: ISTIO_MUTUAL}}]}\n"), []string{
		`spec.trafficPolicy.portLevelSettings[0].tls.mode: ISTIO_MUTUAL, and by a PeerAuthentication port 9090 of endpoint 10.0.0.1 accepts plaintext only: calls to it fail`,
	}},
	{"mtls-conflict", "mutual TLS to who asks for it", strict + document("DestinationRule", "shop", "payment", "  host: payment\n  trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}\n"), nil},

	{"unmatched-selector", "of a ServiceEntry and of a PeerAuthentication", document("ServiceEntry", "bank", "vault", `
  hosts: [vault.bank.svc.cluster.local]
  resolution: STATIC
  ports: [{name: http, number: 80, protocol: HTTP}]
  workloadSelector: {labels: {app: vault}}
`) + "---\n" + peerPolicy("  selector: {matchLabels: {version: v9}}\n"), []string{
		`spec.workloadSelector.labels: no WorkloadEntry of the namespace "bank" has these labels: the service has no endpoints`,
		`spec.selector.matchLabels: no endpoint of the namespace "shop" has these labels: the policy has no effect`,
	}},
	{"unmatched-selector", "of workloads that are there", peerPolicy("  selector: {matchLabels: {version: v1}}\n"), nil},
	{"unknown-provider", "of nobody", policy("shop", "p", `{action: CUSTOM, provider: {name: gone}, rules: [{}]}`), []string{
		`spec.provider.name: no extension provider of the mesh configuration is called "gone": every request is denied`,
	}},
	{"unknown-provider", "of the mesh configuration", providers + policy("shop", "p", `{action: CUSTOM, provider: {name: opa}, rules: [{}]}`), nil},
	{"unserved-port", "the port of nobody", peerPolicy("  selector: {matchLabels: {version: v1}}\n  portLevelMtls: {80: {mode: STRICT}, 8080: {mode: STRICT}}\n"), []string{
		`spec.portLevelMtls[80]: no selected endpoint serves port 80: the number is that of the process, targetPort, and not of the service`,
	}},
	{"unserved-port", "a port that is served", peerPolicy("  selector: {matchLabels: {version: v1}}\n  portLevelMtls: {8080: {mode: STRICT}}\n"), nil},
}

const gatewayHTTPRoute = `apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: shop}
spec:
  parentRefs: [{kind: Service, group: "", name: payment, port: 8080}]
  rules:
  - backendRefs: [{name: payment, port: 8080}]
`

const strict = `apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: shop}
spec: {mtls: {mode: STRICT}}
---
`

func failover(outlier string) string {
	return document("DestinationRule", "shop", "payment", "  host: payment\n  trafficPolicy:\n    loadBalancer: {localityLbSetting: {failover: [{from: eu, to: ap}]}}\n    "+outlier+"\n")
}

func peerPolicy(spec string) string {
	return "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: a, namespace: shop}\nspec:\n" + spec
}

// delegating is a rule for /pay that delegates to one for a path.
func delegating(path string) string {
	return document("VirtualService", "shop", "root", "  hosts: [payment]\n  http:\n  - match: [{uri: {prefix: /pay}}]\n    delegate: {name: leaf}\n") +
		"---\n" + document("VirtualService", "shop", "leaf", "  http:\n  - match: [{uri: {prefix: "+path+"}}]\n    "+payRoute+"\n")
}

func TestLints(t *testing.T) {
	t.Parallel()
	for _, c := range lintCases {
		t.Run(c.code+"/"+c.name, func(t *testing.T) {
			t.Parallel()
			config, problems := istio.Parse([]istio.File{
				{Name: "shop.yaml", Data: []byte(shop)}, {Name: "x.yaml", Data: []byte(strings.TrimPrefix(strings.TrimPrefix(c.yaml, "\n"), "---\n"))},
			}, istio.Options{})
			if len(problems) > 0 {
				t.Fatalf("problems %v", problems)
			}
			var got []string
			for _, w := range config.Warnings() {
				if w.Code == c.code {
					got = append(got, w.Field+": "+w.Message)
				}
				if w.Line == 0 || w.Object == "" || !w.Warning {
					t.Errorf("a warning that nobody finds: %+v", w)
				}
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("warnings (-want +got):\n%s", diff)
			}
		})
	}
}

func TestEveryLintHasACaseForAndAgainstIt(t *testing.T) {
	t.Parallel()
	for _, l := range istio.Lints() {
		for _, positive := range []bool{true, false} {
			if !slices.ContainsFunc(lintCases, func(c lintCase) bool { return c.code == l.Code && (len(c.want) > 0) == positive }) {
				t.Errorf("%s has no case with a warning: %v", l.Code, positive)
			}
		}
	}
}
