package mesh_test

import "testing"

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
