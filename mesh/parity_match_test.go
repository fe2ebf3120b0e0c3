package mesh_test

import (
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/inboardmesh/inboard/outcome"
)

// toV1 routes what matches to v1; what does not, has no route.
const toV1 = `
  route:
  - destination: {host: HOST, subset: v1}
`

// grpcIsPost is why gRPC has no cases with another method or with a query.
const grpcIsPost = "a gRPC call is a POST without a query"

func parityMatchRows() []parityRow {
	const other = "/grpc.testing.TestService/Other"
	upper := "/GRPC.testing.TestService/emptycall"
	return []parityRow{
		{
			name:   "without a VirtualService every call is forwarded",
			routes: "",
			cases: []parityCase{
				{name: "any path", call: parityCall{path: "/a.B/C"}, want: answered},
				{name: "GET", call: parityCall{method: "GET", path: "/", query: "a=b"}, want: answered, httpOnly: true, why: grpcIsPost},
			},
		},
		{
			name:   "match.uri.exact",
			routes: "- match: [{uri: {exact: " + parityMethod + "}}]" + toV1,
			cases: []parityCase{
				{name: "the path", want: by("v1")},
				{name: "a longer path", call: parityCall{path: parityMethod + "s"}, want: unrouted},
				{name: "another case", call: parityCall{path: upper}, want: unrouted},
				{name: "the query is not part of it", call: parityCall{query: "a=b"}, want: by("v1"), httpOnly: true, why: grpcIsPost},
			},
		},
		{
			name:   "match.uri.prefix",
			routes: "- match: [{uri: {prefix: /grpc.testing.}}]" + toV1,
			cases: []parityCase{
				{name: "a path with it", want: by("v1")},
				{name: "another path with it", call: parityCall{path: other}, want: by("v1")},
				{name: "a path without it", call: parityCall{path: "/other.Service/Method"}, want: unrouted},
			},
		},
		{
			name:   "match.uri.regex matches the whole path",
			routes: `- match: [{uri: {regex: "/grpc\\.testing\\.[A-Z]\\w+/Empty.*"}}]` + toV1,
			cases: []parityCase{
				{name: "a path that matches", want: by("v1")},
				{name: "a path of which a part matches", call: parityCall{path: "/x" + parityMethod}, want: unrouted},
				{name: "a path that does not match", call: parityCall{path: other}, want: unrouted},
			},
		},
		{
			name: "match.ignoreUriCase",
			routes: "- match: [{uri: {exact: " + parityMethod + "}, ignoreUriCase: true}]" + toV1 + `
- match: [{uri: {prefix: /Other.}, ignoreUriCase: true}]
  route:
  - destination: {host: HOST, subset: v2}
`,
			cases: []parityCase{
				{name: "an exact path", call: parityCall{path: upper}, want: by("v1")},
				{name: "a prefix", call: parityCall{path: "/oTHER.Service/Method"}, want: by("v2")},
				{name: "another path", call: parityCall{path: other}, want: unrouted},
			},
		},
		{
			name:   "match.method",
			routes: "- match: [{method: {exact: POST}}]" + toV1 + "- match: [{method: {regex: GET|HEAD}}]\n  route: [{destination: {host: HOST, subset: v2}}]\n",
			cases: []parityCase{
				{name: "POST", want: by("v1")},
				{name: "GET", call: parityCall{method: "GET"}, want: by("v2"), httpOnly: true, why: grpcIsPost},
				{name: "PUT", call: parityCall{method: "PUT"}, want: unrouted, httpOnly: true, why: grpcIsPost},
			},
		},
		{
			name:   "match.authority",
			routes: "- match: [{authority: {prefix: HOST}}]" + toV1,
			cases: []parityCase{
				{name: "the target's", want: by("v1")},
				{name: "the host without a port", call: parityCall{authority: "HOST"}, want: by("v1")},
				{name: "an authority that no virtual host has", call: parityCall{authority: "elsewhere.shop"}, want: unrouted},
			},
		},
		{
			name:   "match.headers.exact",
			routes: "- match: [{headers: {x-user: {exact: anna}}}]" + toV1 + "- route: [{destination: {host: HOST, subset: v2}}]\n",
			cases: []parityCase{
				{name: "the value", call: header("x-user", "anna"), want: by("v1")},
				{name: "another value", call: header("x-user", "annabel"), want: by("v2")},
				{name: "no header", want: by("v2")},
			},
		},
		{
			name:   "match.headers.prefix",
			routes: "- match: [{headers: {x-user: {prefix: an}}}]" + toV1 + "- route: [{destination: {host: HOST, subset: v2}}]\n",
			cases: []parityCase{
				{name: "a value with it", call: header("x-user", "anna"), want: by("v1")},
				{name: "a value without", call: header("x-user", "Anna"), want: by("v2")},
				{name: "no header", want: by("v2")},
			},
		},
		{
			name:   "match.headers.regex matches the whole value",
			routes: "- match: [{headers: {x-user: {regex: an+a}}}]" + toV1 + "- route: [{destination: {host: HOST, subset: v2}}]\n",
			cases: []parityCase{
				{name: "a value that matches", call: header("x-user", "annnna"), want: by("v1")},
				{name: "a value of which a part matches", call: header("x-user", "annabel"), want: by("v2")},
				{name: "no header", want: by("v2")},
			},
		},
		{
			name:   "match.headers with any value",
			routes: "- match: [{headers: {x-user: {}}}]" + toV1 + "- route: [{destination: {host: HOST, subset: v2}}]\n",
			cases: []parityCase{
				{name: "a value", call: header("x-user", "x"), want: by("v1")},
				{name: "no header", want: by("v2")},
			},
		},
		{
			name:   "several headers must all match",
			routes: "- match: [{headers: {x-user: {exact: anna}, x-beta: {exact: \"1\"}}}]" + toV1 + "- route: [{destination: {host: HOST, subset: v2}}]\n",
			cases: []parityCase{
				{name: "both", call: parityCall{header: map[string]string{"x-user": "anna", "x-beta": "1"}}, want: by("v1")},
				{name: "one", call: header("x-user", "anna"), want: by("v2")},
			},
		},
		{
			name:   "content-type is that of the protocol",
			routes: "- match: [{headers: {content-type: {exact: application/grpc}}}]" + toV1 + "- route: [{destination: {host: HOST, subset: v2}}]\n",
			cases: []parityCase{{
				name: "gRPC has its own", want: by("v2"), grpc: new(by("v1")),
				why: "the header is what tells gRPC from other HTTP/2 (gRFC A28)",
			}},
		},
		{
			name: "match.withoutHeaders",
			routes: "- match: [{withoutHeaders: {x-user: {exact: anna}, x-beta: {}}}]" + toV1 +
				"- route: [{destination: {host: HOST, subset: v2}}]\n",
			cases: []parityCase{
				{name: "no header", want: by("v1")},
				{name: "another value", call: header("x-user", "bert"), want: by("v1")},
				{name: "the value", call: header("x-user", "anna"), want: by("v2")},
				{name: "a header that must be absent", call: header("x-beta", "x"), want: by("v2")},
			},
		},
		{
			name: "match.queryParams",
			routes: `- match: [{queryParams: {user: {exact: anna}}}, {queryParams: {beta: {}}}, {queryParams: {v: {prefix: "1."}}}, {queryParams: {w: {regex: "[0-9]+"}}}]` + toV1 +
				"- route: [{destination: {host: HOST, subset: v2}}]\n",
			cases: []parityCase{
				{name: "no query", want: by("v2")},
				{name: "the value", call: parityCall{query: "x=y&user=anna"}, want: by("v1"), httpOnly: true, why: grpcIsPost},
				{name: "another value", call: parityCall{query: "user=bert"}, want: by("v2"), httpOnly: true, why: grpcIsPost},
				{name: "any value", call: parityCall{query: "beta"}, want: by("v1"), httpOnly: true, why: grpcIsPost},
				{name: "a prefix", call: parityCall{query: "v=1.2"}, want: by("v1"), httpOnly: true, why: grpcIsPost},
				{name: "a regex", call: parityCall{query: "w=12"}, want: by("v1"), httpOnly: true, why: grpcIsPost},
			},
		},
		{
			name:   "match.port",
			routes: "- match: [{port: 80}, {port: 82}, {port: 9090}]" + toV1,
			cases:  []parityCase{{name: "the port", want: by("v1")}},
		},
		{
			name: "match.port of another port",
			routes: `- match: [{port: 82}]
  route: [{destination: {host: HOST, subset: v2}}]
- route: [{destination: {host: HOST, subset: v1}}]
`,
			cases: []parityCase{{
				name: "the port decides", want: by("v"),
				check: func(t *testing.T, p *parityProbe, r *parityResult) {
					want := "v1"
					if p.port == "82" {
						want = "v2"
					}
					if !strings.HasPrefix(r.Instance, want) {
						t.Errorf("port %s went to %s", p.port, r.Instance)
					}
				},
			}},
		},
		{
			name: "the first rule that matches wins",
			routes: "- name: first\n  match: [{name: one, uri: {prefix: /}, headers: {x-one: {}}}, {headers: {x-two: {}}}]" + toV1 +
				"- match: [{uri: {exact: " + parityMethod + "}}]\n  route: [{destination: {host: HOST, subset: v2}}]\n",
			cases: []parityCase{
				{name: "the first", call: header("x-one", "1"), want: by("v1")},
				{name: "the first, by its other match", call: header("x-two", "1"), want: by("v1")},
				{name: "the second", want: by("v2")},
			},
		},
		{
			name: "the name of a route is in the error",
			routes: `- name: nowhere
  match: [{name: here}]
  route: [{destination: {host: HOST, subset: none}}]
`,
			cases: []parityCase{{
				name: "no endpoint", want: failedBy(outcome.NoEndpoint, codes.Unavailable),
				check: func(t *testing.T, _ *parityProbe, r *parityResult) {
					if r.Failure.Route != "nowhere.here" {
						t.Errorf("route %q", r.Failure.Route)
					}
				},
			}},
		},
		{
			name:   "gateways may name the mesh",
			routes: "- match: [{gateways: [mesh], uri: {prefix: /}}]" + toV1,
			cases:  []parityCase{{name: "any call", want: by("v1")}},
		},
	}
}

func header(name, value string) parityCall {
	return parityCall{header: map[string]string{name: value}}
}
