package mesh_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
)

// weightedGateway are two backends with weights and operations of their own.
const weightedGateway = `- backendRefs:
  - {group: networking.istio.io, kind: Hostname, name: HOST, port: PORT, weight: 1, filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-own, value: v1}]}}]}
  - {group: networking.istio.io, kind: Hostname, name: second.HOST, port: PORT, weight: 1, filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {add: [{name: x-own, value: v2}]}}]}`

// bothOwn makes calls until both backends have answered, each with its operations.
func bothOwn(t *testing.T, p *parityProbe) {
	t.Helper()
	seen := make(map[string]bool)
	for range 40 {
		r := p.call(t, parityCall{})
		by("v").check(t, p.parityProtocol, r)
		version, _, _ := strings.Cut(r.Instance, "-")
		seen[version] = true
		sent, answered := []string{"v1"}, []string(nil)
		if version == "v2" {
			sent, answered = nil, []string{"v2"}
		}
		if got := r.sent("x-own"); !slices.Equal(got, sent) {
			t.Errorf("%s: x-own %q arrives", version, got)
		}
		if got := r.header("x-own"); !slices.Equal(got, answered) {
			t.Errorf("%s: x-own %q is answered", version, got)
		}
	}
	if len(seen) != 2 {
		t.Errorf("only %v answered", seen)
	}
}

// parityGatewayMoreRows are about the fields of the Gateway API that a VirtualService
// has under other names.
func parityGatewayMoreRows() []parityRow {
	first := []parityEndpoint{{instance: "v1-a"}}
	return []parityRow{
		{
			name: "HTTPRoute.matches by expressions", endpoints: first,
			documents: parityGateway(`- {matches: [{headers: [{name: x-user, type: RegularExpression, value: "a.*"}]}, {queryParams: [{name: v, type: RegularExpression, value: "[0-9]"}]}], backendRefs: [SECOND]}
- {backendRefs: [FIRST]}`),
			cases: []parityCase{
				{name: "the header", call: header("x-user", "ann"), want: by("v2")},
				{name: "another header", call: header("x-user", "bob"), want: by("v1")},
				{name: "the query", call: parityCall{query: "v=7"}, want: by("v2"), httpOnly: true, why: grpcIsPost},
			},
		},
		{
			name: "HTTPRoute.retry", endpoints: first,
			documents: parityGateway("- {retry: {attempts: 3, codes: [503], backoff: 2ms}, backendRefs: [FIRST]}"),
			cases: []parityCase{
				{name: "a code that is listed", call: parityCall{script: "fail=503/14,fail=503/14,ok"}, want: parityWant{status: 200, instance: "v1", arrivals: 3}},
				{name: "another code", call: parityCall{script: "fail=500/2,ok"}, want: parityWant{status: 500, code: codes.Unknown, instance: "v1", arrivals: 1}},
				{
					name: "no more than the attempts", call: parityCall{script: "fail=503/14"},
					want: parityWant{status: 503, code: codes.Unavailable, instance: "v1", arrivals: 4},
				},
			},
		},
		{
			name: "HTTPRoute.filters.requestRedirect to another scheme", endpoints: first,
			documents: parityGateway("- filters: [{type: RequestRedirect, requestRedirect: {scheme: https, statusCode: 301}}]"),
			cases: []parityCase{{
				name: "the same path", want: parityWant{status: http.StatusMovedPermanently}, grpc: &parityWant{code: codes.Unknown},
				why: "gRPC has no redirects: the status is mapped (gRFC A33)",
				check: func(t *testing.T, p *parityProbe, r *parityResult) {
					port := ":443"
					if p.port == "80" {
						port = "" // Envoy takes it away with the scheme
					}
					if got := r.header("Location"); !p.grpc && (len(got) != 1 || got[0] != "https://"+p.host+port+parityMethod) {
						t.Errorf("location %q", got)
					}
				},
			}},
		},
		{
			name: "HTTPRoute.filters.urlRewrite of the host", endpoints: first,
			documents: parityGateway("- {filters: [{type: URLRewrite, urlRewrite: {hostname: other.shop}}], backendRefs: [FIRST]}"),
			cases: []parityCase{{
				name: "the payment sees it", want: by("v1"),
				check: func(t *testing.T, _ *parityProbe, r *parityResult) {
					if r.Reply.Host != "other.shop" {
						t.Errorf("host %q", r.Reply.Host)
					}
				},
			}},
		},
		{
			name: "HTTPRoute.backendRefs.filters", endpoints: first,
			documents: parityGateway(weightedGateway), run: bothOwn,
		},
		{
			name: "GRPCRoute.matches, filters and backendRefs", endpoints: first,
			documents: gatewayDocument("GRPCRoute", "9090", `- matches: [{headers: [{name: x-user, value: ann}]}, {method: {type: RegularExpression, service: "a[.].*"}}, {headers: [{name: x-user, type: RegularExpression, value: "b.*"}]}]
  filters:
  - {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-set, value: new}]}}
  - {type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-answer, value: new}]}}
  backendRefs: [SECOND]
`+weightedGateway) + paritySecond,
			run: func(t *testing.T, p *parityProbe) {
				if !p.grpc {
					by("v1").check(t, p.parityProtocol, p.call(t, parityCall{})) // its ports have no route of their own
					return
				}
				for _, c := range []parityCall{header("x-user", "ann"), header("x-user", "bob"), {path: "/a.B/C"}} {
					r := p.call(t, c)
					by("v2").check(t, p.parityProtocol, r)
					if got := r.sent("x-set"); !slices.Equal(got, []string{"new"}) {
						t.Errorf("request x-set: %q", got)
					}
					if got := r.header("x-answer"); !slices.Equal(got, []string{"new"}) {
						t.Errorf("response x-answer: %q", got)
					}
				}
				bothOwn(t, p)
			},
			why: "a GRPCRoute is attached to the port of gRPC here",
		},
	}
}
