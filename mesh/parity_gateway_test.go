package mesh_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/inboardmesh/inboard/outcome"
)

// paritySecond is a further host of a row, whose payment is v2-a.
const paritySecond = `
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: second-ROW, namespace: shop}
spec:
  hosts: [second.HOST]
  resolution: STATIC
  location: MESH_INTERNAL
  ports: [{number: 80, name: http, protocol: HTTP}, {number: 82, name: http2, protocol: HTTP2}, {number: 9090, name: grpc, protocol: GRPC}]
  endpoints: [{address: 127.0.0.1, ports: {http: HTTP(v2-a), http2: HTTP(v2-a), grpc: GRPC(v2-a)}, serviceAccount: payment}]`

// parityGateway are HTTPRoutes of a row, one for each port, because a backend
// has the port in its reference. FIRST and SECOND in the rules, a list that
// begins in the first column, are references to the payments v1 and v2, and PORT is
// the port.
func parityGateway(rules string) string {
	var documents []string
	for _, port := range []string{"80", "82", "9090"} {
		documents = append(documents, gatewayDocument("HTTPRoute", port, rules))
	}
	return strings.Join(documents, "\n---\n") + paritySecond
}

func gatewayDocument(kind, port, rules string) string {
	host := func(name string) string {
		return fmt.Sprintf("{group: networking.istio.io, kind: Hostname, name: %s, port: %s}", name, port)
	}
	return fmt.Sprintf(`apiVersion: gateway.networking.k8s.io/v1
kind: %s
metadata: {name: ROW-%s, namespace: shop}
spec:
  parentRefs: [{group: networking.istio.io, kind: ServiceEntry, name: ROW, port: %[2]s}]
  rules:
`, kind, port) + "  " + strings.ReplaceAll(strings.NewReplacer("FIRST", host("HOST"), "SECOND", host("second.HOST"), "PORT", port).Replace(rules), "\n", "\n  ")
}

// parityGatewayRows are about routes of the Gateway API.
func parityGatewayRows() []parityRow {
	first := []parityEndpoint{{instance: "v1-a"}}
	return []parityRow{
		{
			name: "HTTPRoute.matches", endpoints: first,
			documents: parityGateway(`- {matches: [{path: {value: /grpc.testing.TestService}}], backendRefs: [SECOND]}
- {matches: [{path: {value: /grpc.testing.TestService}, headers: [{name: X-User, value: anna}]}], backendRefs: [FIRST]}
- {matches: [{path: {type: RegularExpression, value: "/a.B/[A-Z]+"}, method: POST}], backendRefs: [FIRST]}`),
			cases: []parityCase{
				{name: "a prefix", want: by("v2")},
				{name: "a prefix and a header go first", call: header("x-user", "anna"), want: by("v1")},
				{name: "an expression", call: parityCall{path: "/a.B/C"}, want: by("v1")},
				{name: "half an element", call: parityCall{path: "/grpc.testing.TestServices/EmptyCall"}, want: unrouted},
				{name: "nothing", call: parityCall{path: "/x.Y/Z"}, want: unrouted},
			},
		},
		{
			name: "HTTPRoute.matches.queryParams", endpoints: first,
			documents: parityGateway("- {matches: [{queryParams: [{name: v, value: \"2\"}]}], backendRefs: [SECOND]}\n- {backendRefs: [FIRST]}"),
			cases: []parityCase{
				{name: "no query", want: by("v1")},
				{name: "the value", call: parityCall{query: "v=2"}, want: by("v2"), httpOnly: true, why: grpcIsPost},
			},
		},
		{
			name: "HTTPRoute.filters of headers", endpoints: first,
			documents: parityGateway(`- filters:
  - {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-set, value: "100%"}], add: [{name: x-add, value: more}], remove: [x-drop]}}
  - {type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-answer, value: new}]}}
  backendRefs: [FIRST]`),
			cases: []parityCase{{
				name: "set, add and remove",
				call: parityCall{header: map[string]string{"x-set": "old", "x-add": "old", "x-drop": "old"}, answer: "x-answer=old"},
				want: by("v1"), check: func(t *testing.T, _ *parityProbe, r *parityResult) {
					for name, want := range map[string][]string{"x-set": {"100%"}, "x-add": {"old", "more"}, "x-drop": nil} {
						if got := r.sent(name); !slices.Equal(got, want) {
							t.Errorf("request %s: %q, want %q", name, got, want)
						}
					}
					if got := r.header("x-answer"); !slices.Equal(got, []string{"new"}) {
						t.Errorf("response x-answer: %q", got)
					}
				},
			}},
		},
		{
			name: "HTTPRoute.filters.urlRewrite replaces a prefix", endpoints: first,
			documents: parityGateway(`- matches: [{path: {value: /a/}}]
  filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /xyz/}}}]
  backendRefs: [FIRST]
- matches: [{path: {value: /strip}}]
  filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}]
  backendRefs: [FIRST]
- matches: [{path: {type: Exact, value: /whole}}]
  filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: /other}}}]
  backendRefs: [FIRST]`),
			cases: []parityCase{
				rewritten("/a/b", "/xyz/b"), rewritten("/a", "/xyz"), rewritten("/a/", "/xyz/"),
				rewritten("/strip/grpc.testing.TestService/EmptyCall", parityMethod), rewritten("/strip", "/"), rewritten("/strip/", "/"),
				rewritten("/whole", "/other"),
			},
		},
		{
			name: "HTTPRoute.filters.requestRedirect", endpoints: first,
			documents: parityGateway("- filters: [{type: RequestRedirect, requestRedirect: {hostname: elsewhere.example.com, port: 81, path: {type: ReplaceFullPath, replaceFullPath: /to}}}]"),
			cases: []parityCase{{
				name: "another place", want: parityWant{status: http.StatusFound}, grpc: &parityWant{code: codes.Unknown},
				why: "gRPC has no redirects: the status is mapped (gRFC A33)",
				check: func(t *testing.T, p *parityProbe, r *parityResult) {
					if got := r.header("Location"); !p.grpc && !slices.Equal(got, []string{"http://elsewhere.example.com:81/to"}) {
						t.Errorf("location %q", got)
					}
				},
			}},
		},
		{
			name: "HTTPRoute.backendRefs without a weight", endpoints: first,
			documents: parityGateway("- {matches: [{headers: [{name: x-none, value: \"1\"}]}]}\n- {backendRefs: [FIRST]}"),
			cases: []parityCase{
				{name: "the rule", call: header("x-none", "1"), want: parityWant{status: http.StatusInternalServerError}, grpc: &parityWant{code: codes.Unknown},
					why: "an HTTP status that the configuration gives becomes a code (gRFC A33)"},
				{name: "another", want: by("v1")},
			},
		},
		{
			name: "HTTPRoute.backendRefs to what is not there", endpoints: first,
			documents: parityGateway("- {matches: [{headers: [{name: x-gone, value: \"1\"}]}], backendRefs: [{name: gone, port: 1}]}\n- {backendRefs: [FIRST, {name: gone, port: 1, weight: 3}]}"),
			run: func(t *testing.T, p *parityProbe) {
				lost := parityWant{status: http.StatusInternalServerError}
				if p.grpc {
					lost = parityWant{code: codes.Unknown}
				}
				lost.check(t, p.parityProtocol, p.call(t, header("x-gone", "1")))
				// 4 standard deviations of 400 draws are 35 calls.
				const n, want, tolerance = 400, 100, 35
				served := 0
				for range n {
					r := p.call(t, parityCall{})
					if r.Instance == "v1-a" {
						served++
						continue
					}
					lost.check(t, p.parityProtocol, r)
				}
				if served < want-tolerance || served > want+tolerance {
					t.Errorf("%d calls of %d reach the backend that is there", served, n)
				}
			},
			why: "an HTTP status that the configuration gives becomes a code (gRFC A33)",
		},
		{
			name: "HTTPRoute.filters.cors", endpoints: first,
			documents: parityGateway(`- filters:
  - type: CORS
    cors: {allowOrigins: ["https://*.example.com"], allowMethods: [GET, PUT], allowHeaders: [x-user], exposeHeaders: [x-total], allowCredentials: true, maxAge: 60}
  backendRefs: [FIRST]`),
			cases: []parityCase{
				{
					name: "a preflight", want: parityWant{status: http.StatusOK}, httpOnly: true, why: grpcHasNoOrigins,
					call: preflight("https://a.shop.example.com"),
					check: hasHeaders(map[string]string{
						"access-control-allow-origin": "https://a.shop.example.com", "access-control-allow-credentials": "true",
						"access-control-allow-methods": "GET,PUT", "access-control-allow-headers": "x-user", "access-control-max-age": "60",
					}),
				},
				{
					name: "a preflight of an origin that is not allowed", want: parityWant{status: http.StatusOK}, httpOnly: true, why: grpcHasNoOrigins,
					call: preflight("https://example.com.evil"), check: hasHeaders(map[string]string{"access-control-allow-origin": ""}),
				},
				{
					name: "a request", call: header("origin", "https://b.example.com"), want: by("v1"), httpOnly: true, why: grpcHasNoOrigins,
					check: hasHeaders(map[string]string{"access-control-allow-origin": "https://b.example.com", "access-control-expose-headers": "x-total"}),
				},
			},
		},
		{
			name: "HTTPRoute.timeouts", endpoints: first,
			documents: parityGateway("- {timeouts: {request: 500ms, backendRequest: 200ms}, backendRefs: [FIRST]}"),
			cases: []parityCase{{
				name: "a payment that hangs", call: parityCall{script: "hang"}, want: failedBy(outcome.PerTryTimeout, codes.DeadlineExceeded),
				check: func(t *testing.T, _ *parityProbe, r *parityResult) { checkTook(t, r, 200*time.Millisecond) },
			}},
		},
		{
			name: "GRPCRoute", endpoints: first,
			documents: gatewayDocument("GRPCRoute", "9090", `- {matches: [{method: {service: grpc.testing.TestService}}], backendRefs: [FIRST]}
- {matches: [{method: {service: grpc.testing.TestService, method: Other}}], backendRefs: [SECOND]}
- {matches: [{method: {service: gone.Service}}]}`) + paritySecond,
			run: func(t *testing.T, p *parityProbe) {
				for _, c := range []struct {
					path string
					want parityWant
				}{
					{parityMethod, by("v1")}, {"/grpc.testing.TestService/Other", by("v2")},
					{"/gone.Service/A", parityWant{code: codes.Unavailable}}, {"/x.Y/Z", unrouted},
				} {
					if !p.grpc {
						c.want = by("v1") // its ports have no route of their own
					}
					c.want.check(t, p.parityProtocol, p.call(t, parityCall{path: c.path}))
				}
			},
			why: "a GRPCRoute is attached to the port of gRPC here",
		},
	}
}

// preflight is what a browser asks before it calls from an origin.
func preflight(origin string) parityCall {
	return parityCall{method: http.MethodOptions, header: map[string]string{"origin": origin, "access-control-request-method": "PUT"}}
}

// rewritten is a call whose path arrives as another.
func rewritten(from, to string) parityCase {
	return parityCase{
		name: from + " becomes " + to, call: parityCall{path: from}, want: by("v1"), httpOnly: true,
		why: "the path of a gRPC call is its method, which only paths of two elements name",
		check: func(t *testing.T, _ *parityProbe, r *parityResult) {
			if r.Reply.Path != to {
				t.Errorf("path %q, want %q", r.Reply.Path, to)
			}
		},
	}
}
