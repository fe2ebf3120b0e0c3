package mesh_test

import (
	"net/http"
	"slices"
	"testing"
)

// grpcHasNoOrigins is why gRPC has nothing to do with CORS.
const grpcHasNoOrigins = "CORS is for browsers, which do not call over gRPC"

// copied makes a call that v1 answers, and waits until it has arrived so often:
// once, and once for each copy.
func copied(arrivals int64) func(t *testing.T, p *parityProbe) {
	return func(t *testing.T, p *parityProbe) {
		t.Helper()
		id := p.world.newID(p.parityProtocol, p.host)
		by("v1").check(t, p.parityProtocol, p.call(t, parityCall{id: id}))
		until(t, "the copies have arrived", func() bool { return p.world.Arrivals(id) == arrivals })
	}
}

// hasHeaders checks headers of a response; "" is none.
func hasHeaders(want map[string]string) func(*testing.T, *parityProbe, *parityResult) {
	return func(t *testing.T, _ *parityProbe, r *parityResult) {
		t.Helper()
		for name, value := range want {
			var values []string
			if value != "" {
				values = []string{value}
			}
			if got := r.header(name); !slices.Equal(got, values) {
				t.Errorf("%s: %q, want %q", name, got, value)
			}
		}
	}
}

// parityMirrorRows are about copies of requests, and about rewrites by expression.
func parityMirrorRows() []parityRow {
	return []parityRow{
		{name: "mirror", routes: "- mirror: {host: HOST, subset: v2}" + toV1, run: copied(2)},
		{
			name: "mirror that nobody serves", routes: "- mirror: {host: HOST, subset: none}" + toV1,
			run: copied(1),
		},
		{
			name:   "mirrorPercentage",
			routes: "- mirror: {host: HOST, subset: v2}\n  mirrorPercentage: {value: 100}" + toV1, run: copied(2),
		},
		{
			name:   "mirrorPercent",
			routes: "- mirror: {host: HOST, subset: v2}\n  mirrorPercent: 0" + toV1, run: copied(1),
		},
		{
			name: "mirrors",
			routes: "- mirrors: [{destination: {host: HOST, subset: v2}, percentage: {value: 100}}, {destination: {host: HOST, subset: v1}}, " +
				"{destination: {host: HOST, subset: v2}, percentage: {value: 0}}]" + toV1,
			run: copied(3),
		},
		{
			name: "HTTPRoute.filters.requestMirror", endpoints: []parityEndpoint{{instance: "v1-a"}},
			documents: parityGateway(`- filters:
  - {type: RequestMirror, requestMirror: {backendRef: SECOND}}
  - {type: RequestMirror, requestMirror: {backendRef: SECOND, percent: 0}}
  - {type: RequestMirror, requestMirror: {backendRef: SECOND, fraction: {numerator: 1, denominator: 1}}}
  backendRefs: [FIRST]`),
			run: copied(3),
		},
		{
			name: "GRPCRoute.filters.requestMirror", endpoints: []parityEndpoint{{instance: "v1-a"}},
			documents: gatewayDocument("GRPCRoute", "9090", `- filters:
  - {type: RequestMirror, requestMirror: {backendRef: SECOND}}
  - {type: RequestMirror, requestMirror: {backendRef: SECOND, percent: 0}}
  backendRefs: [FIRST]`) + paritySecond,
			run: func(t *testing.T, p *parityProbe) {
				t.Helper()
				if p.grpc {
					copied(2)(t, p)
				} else {
					copied(1)(t, p) // its ports have no route of their own
				}
			},
			why: "a GRPCRoute is attached to the port of gRPC here",
		},
		{
			name: "corsPolicy",
			routes: `- corsPolicy:
    allowOrigins: [{exact: "https://shop.example"}, {prefix: "https://a."}, {regex: "https://[b-c]"}]
    allowOrigin: ["https://old.example"]
    allowMethods: [GET, PUT]
    allowHeaders: [x-user]
    exposeHeaders: [x-total]
    maxAge: 1m
    allowCredentials: true
    unmatchedPreflights: IGNORE` + toV1,
			cases: []parityCase{
				{
					name: "a preflight", want: parityWant{status: http.StatusOK}, httpOnly: true, why: grpcHasNoOrigins,
					call: parityCall{method: http.MethodOptions, header: map[string]string{
						"origin": "https://shop.example", "access-control-request-method": "PUT",
					}},
					check: hasHeaders(map[string]string{
						"access-control-allow-origin": "https://shop.example", "access-control-allow-credentials": "true",
						"access-control-allow-methods": "GET,PUT", "access-control-allow-headers": "x-user", "access-control-max-age": "60",
					}),
				},
				{
					name: "a preflight of an origin that is not allowed", want: parityWant{status: http.StatusOK}, httpOnly: true, why: grpcHasNoOrigins,
					call: parityCall{method: http.MethodOptions, header: map[string]string{
						"origin": "https://evil.example", "access-control-request-method": "PUT",
					}},
					check: hasHeaders(map[string]string{"access-control-allow-origin": ""}),
				},
				{
					name: "a request", call: header("origin", "https://old.example"), want: by("v1"), httpOnly: true, why: grpcHasNoOrigins,
					check: hasHeaders(map[string]string{"access-control-allow-origin": "https://old.example", "access-control-expose-headers": "x-total"}),
				},
			},
		},
		{
			name:   "rewrite.uriRegexRewrite",
			routes: "- rewrite: {uriRegexRewrite: {match: '^/old[.](Service)/(.*)$', rewrite: '/grpc.testing.Test\\1/\\2'}}" + toV1,
			cases: []parityCase{{
				name: "what matches is replaced", call: parityCall{path: "/old.Service/EmptyCall", query: "a=b%2Fc"}, want: by("v1"),
				check: func(t *testing.T, p *parityProbe, r *parityResult) {
					if r.Reply.Path != parityMethod || !p.grpc && r.Reply.Query != "a=b%2Fc" {
						t.Errorf("path %q, query %q", r.Reply.Path, r.Reply.Query)
					}
				},
			}},
		},
	}
}
