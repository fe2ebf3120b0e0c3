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
	{"custom-on-tcp", "a policy for all of a database", ledgerEntry + ledgerAsks("{}"), []string{
		`spec.action: denies the connections to port 5432 of a workload of namespace "shop" that it would ask about: nobody is asked about connections`,
	}},
	{"custom-on-tcp", "a policy for its port", ledgerEntry + ledgerAsks(`{to: [{operation: {ports: ["5432"], paths: [/a]}}]}`), []string{
		`spec.action: denies the connections to port 5432 of a workload of namespace "shop" that it would ask about: nobody is asked about connections`,
	}},
	{"custom-on-tcp", "a policy for another port", ledgerEntry + ledgerAsks(`{to: [{operation: {ports: ["8080"]}}, {operation: {notPorts: ["5432"]}}]}`), nil},
	{"custom-on-tcp", "a policy for requests", ledgerAsks("{}"), nil},
	{"no-requests", "a route for a database", ledgerEntry + "---\n" + strings.Replace(gatewayHTTPRoute, `kind: Service, group: "", name: payment, port: 8080`, "kind: ServiceEntry, group: networking.istio.io, name: ledger", 1), []string{
		`spec.parentRefs[0]: is not accepted: port 5432 of "ledger.shop.svc.cluster.local" speaks a protocol of TCP, which has no requests`,
	}},
	{"no-requests", "a route for a port of HTTP", gatewayHTTPRoute, nil},
	{"persistent-session", "a Service by cookie", strings.Replace(cartSlice(" []"), "{name: cart, namespace: shop}", "{name: cart, namespace: shop, labels: {istio.io/persistent-session: place}}", 1), []string{
		`metadata.labels[istio.io/persistent-session]: has no effect: use consistentHash of a DestinationRule, or the filter stateful_session of xDS, and remove the label`,
	}},
	{"persistent-session", "a ServiceEntry by header", strings.Replace(ledgerEntry, "namespace: shop", "namespace: shop, labels: {istio.io/persistent-session-header: x-place}", 1), []string{
		`metadata.labels[istio.io/persistent-session-header]: has no effect: use consistentHash of a DestinationRule, or the filter stateful_session of xDS, and remove the label`,
	}},
	{"persistent-session", "a Service without", cartSlice(" []"), nil},
	{"symmetric-key", "a secret", requestAuthentication("shop", "a", "", `{issuer: us, jwks: '{"keys":[{"kty":"oct","alg":"HS256","k":"MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE"}]}'}`), []string{
		`spec.jwtRules[0].jwks: has a symmetric key: each workload that gets it can make tokens of "us"`,
	}},
	{"symmetric-key", "a public key", requestAuthentication("shop", "a", "", `{issuer: us, jwks: '`+keysJSON+`'}`), nil},
	{"grpc-route-port", "a GRPCRoute for all ports", strings.NewReplacer("HTTPRoute", "GRPCRoute", "\"\", name: payment, port: 8080", "\"\", name: payment").Replace(gatewayHTTPRoute), []string{
		`spec.parentRefs[0]: is for port 8080 of "payment.shop.svc.cluster.local" too, over which no gRPC call is made: set port`,
	}},
	{"grpc-route-port", "a GRPCRoute for a port of HTTP", strings.Replace(gatewayHTTPRoute, "HTTPRoute", "GRPCRoute", 1), []string{
		`spec.parentRefs[0]: is for port 8080 of "payment.shop.svc.cluster.local", over which no gRPC call is made: every request there is routed as one`,
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
		`spec.rules[0].backendRefs[0].name: no Service or ServiceEntry has the host "paymnet.shop.svc.cluster.local": did you mean "payment.shop.svc.cluster.local"? (BackendNotFound): its share of the requests is answered with 500`,
		`spec.rules[0].backendRefs[1].port: "payment.shop.svc.cluster.local" has no port 1: it has 8080, 9090 (BackendNotFound): its share of the requests is answered with 500`,
		`spec.rules[0].backendRefs[2].kind: "Bucket" of group "" is not supported: use a Service, or a Hostname of group "networking.istio.io" (InvalidKind): its share of the requests is answered with 500`,
	}},
	{"unknown-backend", "a mirror that is not there", strings.Replace(gatewayHTTPRoute, "- backendRefs", "- filters: [{type: RequestMirror, requestMirror: {backendRef: {name: nowhere, port: 1}}}]\n    backendRefs", 1), []string{
		`spec.rules[0].filters[0].requestMirror.backendRef.name: no Service or ServiceEntry has the host "nowhere.shop.svc.cluster.local" (BackendNotFound): nothing is copied`,
	}},
	{"unknown-backend", "a backend that is there", gatewayHTTPRoute, nil},
	{"foreign-gateway", "for gateways alone", payRules("  - " + payRoute + "\n  gateways: [mehs]\n"), []string{
		`spec.gateways: has no effect: this is a mesh without gateways, and "mesh" is not among them`,
	}},
	{"foreign-gateway", "for gateways and the mesh", payRules("  - " + payRoute + "\n  gateways: [ingress, mesh]\n"), nil},
	{"skipped-document", "of another kind", other("apps/v1", "Deployment", ""), []string{
		`kind: "Deployment" is not read: Services, EndpointSlices and Pods say where a service runs, or a ServiceEntry of resolution STATIC`,
	}},
	{"skipped-document", "Endpoints beside slices", cartSlice("- {addresses: [10.1.0.1]}") + "---\n" + strings.Replace(other("v1", "Endpoints", ""), "name: a", "name: cart", 1), []string{
		`kind: "Endpoints" is not read: EndpointSlices say where a Service is`,
	}},
	{"skipped-document", "a ConfigMap that is not of a revision of Istio", strings.Replace(other("v1", "ConfigMap", "data: {a.json: none}\n"), "name: a", "name: istio-grafana-dashboards", 1), []string{
		`kind: "ConfigMap" is not read: it is not about the mesh`,
	}},
	{"skipped-document", "of a kind that is read", gatewayHTTPRoute, nil},
	{"unknown-parent", "parents of others that are not there", strings.Replace(gatewayHTTPRoute, "parentRefs: [", `parentRefs: [{kind: Service, group: "", name: gone, namespace: bank}, {kind: Service, group: "", name: ledger, namespace: bank, port: 1}, {kind: Service, group: "", name: ledger, namespace: bank, sectionName: grpc}, {kind: Service, group: "", name: hidden, namespace: bank}, {kind: ServiceEntry, group: networking.istio.io, name: gone, namespace: bank}, `, 1) + "---\n" +
		document("ServiceEntry", "bank", "hidden", "  hosts: [hidden.bank.svc.cluster.local]\n  exportTo: [.]\n  resolution: STATIC\n  ports: [{name: http, number: 80, protocol: HTTP}]\n"), []string{
		`spec.parentRefs[0].name: no Service or ServiceEntry has the host "gone.bank.svc.cluster.local": the route is not accepted (NoMatchingParent)`,
		`spec.parentRefs[1].port: "ledger.bank.svc.cluster.local" has no port 1: it has 7070: the route is not accepted (NoMatchingParent)`,
		`spec.parentRefs[2].sectionName: "ledger.bank.svc.cluster.local" has no port with the name "grpc": the route is not accepted (NoMatchingParent)`,
		`spec.parentRefs[3].name: "hidden.bank.svc.cluster.local" is not exported to "shop": the route is not accepted (NoMatchingParent)`,
		`spec.parentRefs[4].name: there is no ServiceEntry bank/gone: the route is not accepted (NoMatchingParent)`,
	}},
	{"unknown-parent", "a parent of others that is there", strings.NewReplacer("name: payment, port: 8080}]\n  rules", "name: ledger, namespace: bank}]\n  rules").Replace(gatewayHTTPRoute), nil},
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
		`spec.host: "*.example.com": no Service or ServiceEntry has such a host: it has no effect`,
	}},
	{"unknown-host", "what another namespace does not have", payRules(`
  - match: [{uri: {exact: /a}}]
    route: [{destination: {host: gone.bank.svc.cluster.local, port: {number: 80}}}]
    mirror: {host: gone.bank.svc.cluster.local, subset: v1}
  - route: [{destination: {host: ledger.bank.svc.cluster.local, subset: v1}, weight: 50}, {destination: {host: ledger.bank.svc.cluster.local, port: {number: 1}}, weight: 50}]
`) + "---\n" + document("VirtualService", "shop", "b", "  hosts: [gone.bank.svc.cluster.local]\n  http: [{directResponse: {status: 200}}]\n") +
		document("VirtualService", "shop", "c", "  hosts: [ledger.bank.svc.cluster.local]\n  http: [{match: [{port: 1}], directResponse: {status: 200}}]\n") +
		document("DestinationRule", "shop", "b", "  host: gone.bank.svc.cluster.local\n  trafficPolicy: {loadBalancer: {consistentHash: {useSourceIp: true}}}\n") +
		document("DestinationRule", "shop", "c", "  host: ledger.bank.svc.cluster.local\n  trafficPolicy: {portLevelSettings: [{port: {number: 1}}]}\n"), []string{
		`spec.http[0].route[0].destination.host: no Service or ServiceEntry has the host "gone.bank.svc.cluster.local": calls to it fail`,
		`spec.http[0].mirror.host: no Service or ServiceEntry has the host "gone.bank.svc.cluster.local": calls to it fail`,
		`spec.http[1].route[0].destination.subset: no DestinationRule of "ledger.bank.svc.cluster.local" has a subset "v1": it has none: calls to it fail`,
		`spec.http[1].route[1].destination.port.number: "ledger.bank.svc.cluster.local" has no port 1: it has 7070: calls to it fail`,
		`spec.hosts[0]: no Service or ServiceEntry has the host "gone.bank.svc.cluster.local": it has no effect`,
		`spec.http[0].match[0].port: no host of the VirtualService has port 1: it has no effect`,
		`spec.host: no Service or ServiceEntry has the host "gone.bank.svc.cluster.local": it has no effect`,
		`spec.trafficPolicy.portLevelSettings[0].port.number: "ledger.bank.svc.cluster.local" has no port 1: it has no effect`,
	}},
	{"unknown-host", "hosts of the gateways beside one of the mesh", document("VirtualService", "shop", "a", `
  hosts: [shop.example.com, payment, "*.example.com", paymnet]
  gateways: [edge, mesh]
  http:
  - match: [{port: 443}]
    route: [{destination: {host: payment}}]
  - route: [{destination: {host: payment}}]
`), []string{
		`spec.hosts[0]: no Service or ServiceEntry has the host "shop.example.com": in the mesh it has no effect, which is right for a host of the gateways alone`,
		`spec.hosts[2]: "*.example.com": no Service or ServiceEntry has such a host: it has no effect`,
		`spec.hosts[3]: no Service or ServiceEntry has the host "paymnet.shop.svc.cluster.local": did you mean "payment.shop.svc.cluster.local"?: in the mesh it has no effect, which is right for a host of the gateways alone`,
	}},
	{"unknown-host", "a wildcard for something", document("DestinationRule", "shop", "a", "  host: '*.shop.svc.cluster.local'\n"), nil},
	{"no-endpoint-slice", "a Service with Pods", kubernetesService("[{name: http, port: 80}]") + "---\napiVersion: v1\nkind: Pod\nmetadata: {name: cart-1, namespace: shop}\n", []string{
		`metadata.name: no EndpointSlice is of "cart.shop.svc.cluster.local": it has no endpoint, and calls to it fail`,
	}},
	{"no-endpoint-slice", "a Service without an endpoint at the moment", cartSlice(" []"), nil},
	{"unknown-node", "a zone without a Node", cartSlice("- {addresses: [10.1.0.1], nodeName: n1, zone: z1, targetRef: {kind: Pod, name: cart-1}}"), []string{
		`endpoints[0]: no document has the Node "n1" of 10.1.0.1: its region is not known`,
	}},
	{"unknown-node", "a zone with its Node", cartSlice("- {addresses: [10.1.0.1], nodeName: n1, zone: z1, targetRef: {kind: Pod, name: cart-1}}") +
		"---\n{apiVersion: v1, kind: Node, metadata: {name: n1, labels: {topology.kubernetes.io/region: eu}}}\n", nil},
	{"unknown-node", "no zone", cartSlice("- {addresses: [10.1.0.1], nodeName: n1, targetRef: {kind: Pod, name: cart-1}}"), nil},
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
	{"unknown-protocol", "ports of a ServiceEntry whose callers encrypt by themselves", document("ServiceEntry", "shop", "api", `
  hosts: [api.example.com]
  ports: [{name: https, number: 443, protocol: HTTPS}, {name: tls, number: 8443, protocol: tls}]
`) + "---\n" + document("DestinationRule", "shop", "api", "  host: api.example.com\n  trafficPolicy: {portLevelSettings: [{port: {number: 443}, loadBalancer: {simple: RANDOM}}]}\n"), []string{
		`spec.ports[0]: port 443 is not in the mesh, because its callers encrypt by themselves (HTTPS): their calls go round it; TCP can carry that inside of mutual TLS`,
		`spec.ports[1]: port 8443 is not in the mesh, because its callers encrypt by themselves (tls): their calls go round it; TCP can carry that inside of mutual TLS`,
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
	{"shadowed-route", "expressions behind a prefix", payRules(`
  - {match: [{uri: {prefix: /api}}], directResponse: {status: 200}}
  - {match: [{uri: {regex: "/api/v[0-9]+/.*"}}, {uri: {regex: "/api.*"}, method: {exact: GET}}, {uri: {regex: "(/api|/apx)/.*"}}, {uri: {regex: "(?i)/api/.*"}}, {uri: {regex: "/ap.*"}}], directResponse: {status: 200}}
`), []string{
		`spec.http[1].match[0]: is never reached: spec.http[0].match[0] of VirtualService shop/a (x.yaml:8) matches all of it`,
		`spec.http[1].match[1]: is never reached: spec.http[0].match[0] of VirtualService shop/a (x.yaml:8) matches all of it`,
	}},
	{"shadowed-route", "expressions of the Gateway API behind a prefix", strings.Replace(gatewayHTTPRoute, "- backendRefs", `- matches:
    - {path: {type: RegularExpression, value: "/a/v[0-9]+"}}
    - {path: {type: RegularExpression, value: "/ab.*"}}
    - {path: {type: RegularExpression, value: "/b/.*"}, method: GET}
    - {path: {type: RegularExpression, value: "/b/.*"}, headers: [{name: x, value: y}]}
    - {path: {value: /a}}
    - {path: {value: /b}, headers: [{name: x, value: y}]}
    backendRefs`, 1), []string{
		`spec.rules[0].matches[0]: is never reached: spec.rules[0].matches[4] of HTTPRoute shop/web (x.yaml:12) matches all of it, and goes before it`,
		`spec.rules[0].matches[3]: is never reached: spec.rules[0].matches[5] of HTTPRoute shop/web (x.yaml:13) matches all of it, and goes before it`,
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

	{"ineffective-retry", "conditions that hold for nothing", payRules("  - " + payRoute + "\n    retries: {attempts: 2, retryOn: \"connect-failure,retriable-headers,http3-post-connect-failure\"}\n"), []string{
		`spec.http[0].retries.retryOn: "retriable-headers" repeats nothing: a VirtualService cannot say which headers`,
		`spec.http[0].retries.retryOn: "http3-post-connect-failure" repeats nothing: the mesh does not speak HTTP/3`,
	}},
	{"ineffective-retry", "conditions that hold", payRules("  - " + payRoute + "\n    retries: {attempts: 2, retryOn: \"connect-failure,503\"}\n"), nil},
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
	{"impossible-match", "methods of a policy", policy("shop", "p", `{action: DENY, rules: [{to: [{operation: {methods: [get, GET, get*, purge], notMethods: [post]}}]}]}`), []string{
		`spec.rules[0].to[0].operation.methods[0]: "get" is met by no request: methods are in upper case, write GET`,
		`spec.rules[0].to[0].operation.notMethods[0]: "post" is met by no request: methods are in upper case, write POST`,
	}},
	{"impossible-match", "methods of a policy as they are", policy("shop", "p", `{action: DENY, rules: [{to: [{operation: {methods: [GET, "*"]}}]}]}`), nil},
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
		`spec.selector.matchLabels: no endpoint of the namespace "shop" has these labels: the policy is for no workload of the documents, only for those that join with such labels of their own`,
	}},
	{"unmatched-selector", "of an AuthorizationPolicy and of a RequestAuthentication", policy("shop", "deny", `{selector: {matchLabels: {version: v9}}, action: DENY, rules: [{}]}`) +
		requestAuthentication("shop", "a", "selector: {matchLabels: {version: v8}}, ", `{issuer: us, jwks: '`+keysJSON+`'}`), []string{
		`spec.selector.matchLabels: no endpoint of the namespace "shop" has these labels: the policy is for no workload of the documents, only for those that join with such labels of their own`,
		`spec.selector.matchLabels: no endpoint of the namespace "shop" has these labels: the policy is for no workload of the documents, only for those that join with such labels of their own`,
	}},
	{"unmatched-selector", "of policies of workloads that are in another namespace, and of the root namespace", policy("bank", "p", `{selector: {matchLabels: {version: v1}}, rules: [{}]}`) +
		policy("istio-system", "p", `{selector: {matchLabels: {version: v9}}, rules: [{}]}`), []string{
		`spec.selector.matchLabels: no endpoint of the namespace "bank" has these labels: the policy is for no workload of the documents, only for those that join with such labels of their own`,
		`spec.selector.matchLabels: no endpoint of any namespace has these labels: the policy is for no workload of the documents, only for those that join with such labels of their own`,
	}},
	{"unmatched-selector", "of policies of workloads that are there, and of none in particular", policy("shop", "p", `{selector: {matchLabels: {version: v1}}, rules: [{}]}`) +
		policy("istio-system", "p", `{selector: {matchLabels: {version: v1}}, rules: [{}]}`) + policy("istio-system", "q", `{rules: [{}]}`) + policy("shop", "q", `{rules: [{}]}`) +
		requestAuthentication("shop", "a", "selector: {matchLabels: {version: v1}}, ", `{issuer: us, jwks: '`+keysJSON+`'}`), nil},
	{"unmatched-selector", "of policies without one, in a namespace that is misspelled, and in one without endpoints", policy("shpo", "p", `{action: DENY, rules: [{}]}`) +
		requestAuthentication("bank", "a", "", `{issuer: us, jwks: '`+keysJSON+`'}`) + "---\n" + strings.Replace(strict, "namespace: shop", "namespace: nowhere", 1), []string{
		`metadata.namespace: no workload of the documents is in the namespace "shpo": the policy is only for those that join there: did you mean "shop"?`,
		`metadata.namespace: no workload of the documents is in the namespace "bank": the policy is only for those that join there`,
		`metadata.namespace: no workload of the documents is in the namespace "nowhere": the policy is only for those that join there`,
	}},
	{"unmatched-selector", "of policies without one, in a namespace of a Pod, and of a WorkloadEntry", cartPod + policy("web", "p", `{rules: [{}]}`) +
		"---\n" + document("WorkloadEntry", "vm", "one", "  address: 10.0.0.8\n") + policy("vm", "p", `{rules: [{}]}`), nil},
	{"unmatched-selector", "of a Pod that no document has, whose labels may be any", cartSlice("- {addresses: [10.1.0.1]}") +
		policy("shop", "p", `{selector: {matchLabels: {app: cart}}, rules: [{}]}`) + "---\n" + peerPolicy("  selector: {matchLabels: {app: cart}}\n  portLevelMtls: {8080: {mode: STRICT}}\n"), nil},
	{"unmatched-selector", "of workloads that are there", peerPolicy("  selector: {matchLabels: {version: v1}}\n"), nil},
}

const cartPod = `apiVersion: v1
kind: Pod
metadata: {name: web-1, namespace: web}
`

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

// ledgerAsks is a policy that asks a provider, with a rule.
func ledgerAsks(rule string) string {
	return policy("shop", "ask", "{action: CUSTOM, provider: {name: nobody}, rules: ["+rule+"]}")
}

func peerPolicy(spec string) string {
	return "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: a, namespace: shop}\nspec:\n" + spec
}

// delegating is a rule for /pay that delegates to one for a path.
func delegating(path string) string {
	return document("VirtualService", "shop", "root", "  hosts: [payment]\n  http:\n  - match: [{uri: {prefix: /pay}}]\n    delegate: {name: leaf}\n") +
		"---\n" + document("VirtualService", "shop", "leaf", "  http:\n  - match: [{uri: {prefix: "+path+"}}]\n    "+payRoute+"\n")
}

// allLintCases are the cases of all files.
var allLintCases = slices.Concat(lintCases, balancingLintCases, policyLintCases)

func TestLints(t *testing.T) {
	t.Parallel()
	for _, c := range allLintCases {
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
			if !slices.ContainsFunc(allLintCases, func(c lintCase) bool { return c.code == l.Code && (len(c.want) > 0) == positive }) {
				t.Errorf("%s has no case with a warning: %v", l.Code, positive)
			}
		}
	}
}
