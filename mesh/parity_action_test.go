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

// grpcNeedsMessage is why gRPC cannot take what HTTP takes for an answer.
const grpcNeedsMessage = "a gRPC call cannot end well without a message: the status is mapped (gRFC A33)"

// grpcHasNoRedirects is why a redirect fails a gRPC call.
const grpcHasNoRedirects = "gRPC has no redirects: the status is mapped (gRFC A33)"

// grpcHasItsAgent is why the user agent of gRPC is not the configuration's.
const grpcHasItsAgent = "grpc-go sends its own user agent with every call, and takes none from metadata"

// statusAsHeader is what HTTP makes of a gRPC status.
const statusAsHeader = "HTTP gets what a gRPC client would get on the wire, so that the fault can be seen: 200 and the header grpc-status, which Envoy sends to gRPC requests only (to others 200 and a text)"

func parityActionRows() []parityRow {
	var rows []parityRow
	for _, group := range [][]parityRow{parityForwardRows(), parityMirrorRows(), parityHeaderRows(), parityFaultRows(), parityAnswerRows()} {
		rows = append(rows, group...)
	}
	return rows
}

func parityForwardRows() []parityRow {
	return []parityRow{
		{
			name:   "route.destination.subset",
			routes: "- route: [{destination: {host: HOST, subset: v2}}]",
			run: func(t *testing.T, p *parityProbe) {
				for range 10 {
					by("v2").check(t, p.parityProtocol, p.call(t, parityCall{}))
				}
			},
		},
		{
			name: "route.destination.port",
			service: `ports:
- {number: 80, name: http, protocol: HTTP}
- {number: 82, name: http2, protocol: HTTP2}
- {number: 9090, name: grpc, protocol: GRPC}
- {number: 83, name: away-http, protocol: HTTP2, targetPort: HTTP(v2-a)}
- {number: 9091, name: away-grpc, protocol: GRPC, targetPort: GRPC(v2-a)}`,
			endpoints: []parityEndpoint{{instance: "v1-a"}},
			routes: "- match: [{headers: {x-away: {}}, port: 9090}]\n  route: [{destination: {host: HOST, port: {number: 9091}}}]\n" +
				"- match: [{headers: {x-away: {}}}]\n  route: [{destination: {host: HOST, port: {number: 83}}}]\n" +
				"- route: [{destination: {host: HOST}}]",
			cases: []parityCase{
				{
					name: "another port of the service", call: header("x-away", "1"), want: by("v2"),
					check: func(t *testing.T, _ *parityProbe, r *parityResult) {
						if r.Reply.Proto != "HTTP/2.0" {
							t.Errorf("protocol %s: the port's is HTTP/2", r.Reply.Proto)
						}
					},
				},
				{name: "the port that was called", want: by("v1")},
			},
		},
		{
			name: "route.weight",
			routes: `- route:
  - {destination: {host: HOST, subset: v1}, weight: 75}
  - {destination: {host: HOST, subset: v2}, weight: 25}
`,
			run: func(t *testing.T, p *parityProbe) {
				// 4 standard deviations of 400 draws are 35 calls.
				const n, want, tolerance = 400, 300, 35
				v1 := 0
				for range n {
					r := p.call(t, parityCall{})
					by("v").check(t, p.parityProtocol, r)
					if strings.HasPrefix(r.Instance, "v1") {
						v1++
					}
				}
				if v1 < want-tolerance || v1 > want+tolerance {
					t.Errorf("v1 got %d calls of %d", v1, n)
				}
			},
		},
		{
			name: "a weight of 0 gets nothing",
			routes: `- route:
  - {destination: {host: HOST, subset: v1}, weight: 0}
  - {destination: {host: HOST, subset: v2}, weight: 100}
`,
			run: func(t *testing.T, p *parityProbe) {
				for range 30 {
					by("v2").check(t, p.parityProtocol, p.call(t, parityCall{}))
				}
			},
		},
		{
			name:   "rewrite.uri replaces the prefix that matched",
			routes: "- match: [{uri: {prefix: /old.Service/}}]\n  rewrite: {uri: /grpc.testing.TestService/}" + toV1,
			cases: []parityCase{{
				name: "the rest is kept", call: parityCall{path: "/old.Service/EmptyCall", query: "a=b%2Fc"}, want: by("v1"),
				check: func(t *testing.T, p *parityProbe, r *parityResult) {
					if r.Reply.Path != parityMethod {
						t.Errorf("path %q", r.Reply.Path)
					}
					if !p.grpc && r.Reply.Query != "a=b%2Fc" {
						t.Errorf("query %q", r.Reply.Query)
					}
				},
			}},
		},
		{
			name:   "rewrite.uri replaces an exact path",
			routes: "- match: [{uri: {exact: /old.Service/Other}}]\n  rewrite: {uri: " + parityMethod + "}" + toV1,
			cases: []parityCase{{
				name: "as a whole", call: parityCall{path: "/old.Service/Other"}, want: by("v1"),
				check: func(t *testing.T, _ *parityProbe, r *parityResult) {
					if r.Reply.Path != parityMethod {
						t.Errorf("path %q", r.Reply.Path)
					}
				},
			}},
		},
		{
			name:   "rewrite.authority",
			routes: "- rewrite: {authority: other.shop}" + toV1,
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
			name:   "without a rewrite the authority is the caller's",
			routes: "- match: [{uri: {prefix: /}}]" + toV1,
			cases: []parityCase{{
				name: "with the port", want: by("v1"),
				check: func(t *testing.T, p *parityProbe, r *parityResult) {
					want := p.host + ":" + p.port
					if r.Reply.Host != want {
						t.Errorf("host %q, want %q", r.Reply.Host, want)
					}
				},
			}},
		},
		{
			name:   "timeout",
			routes: "- timeout: 500ms\n  retries: {attempts: 0}" + toV1,
			cases: []parityCase{
				{
					name: "a payment that hangs", call: parityCall{script: "hang"}, want: failedBy(outcome.Timeout, codes.DeadlineExceeded),
					check: func(t *testing.T, _ *parityProbe, r *parityResult) { checkTook(t, r, 500*time.Millisecond) },
				},
				{
					name: "a payment that is told how long its caller waits", want: by("v1"),
					check: func(t *testing.T, _ *parityProbe, r *parityResult) {
						if r.Reply.Deadline <= 0 || r.Reply.Deadline > 500 {
							t.Errorf("%d ms are left", r.Reply.Deadline)
						}
					},
				},
				{
					name: "the caller's own time is shorter", call: parityCall{script: "hang", timeout: 100 * time.Millisecond},
					want:  failedBy(outcome.Timeout, codes.DeadlineExceeded),
					check: func(t *testing.T, _ *parityProbe, r *parityResult) { checkTook(t, r, 100*time.Millisecond) },
				},
			},
		},
		{
			name:   "without a timeout the caller decides",
			routes: "- match: [{uri: {prefix: /}}]" + toV1,
			cases: []parityCase{{
				name: "the deadline is the caller's", call: parityCall{timeout: 7 * time.Second}, want: by("v1"),
				check: func(t *testing.T, _ *parityProbe, r *parityResult) {
					if r.Reply.Deadline <= 5000 || r.Reply.Deadline > 7000 {
						t.Errorf("%d ms are left", r.Reply.Deadline)
					}
				},
			}},
		},
	}
}

// checkTook compares a duration with what it must be. The machine may be busy,
// so it may be longer.
func checkTook(t *testing.T, r *parityResult, want time.Duration) {
	t.Helper()
	if r.Took < want || r.Took > want+5*time.Second {
		t.Errorf("took %v, want %v", r.Took, want)
	}
}

func parityHeaderRows() []parityRow {
	operations := `
    request:
      set: {x-set: new}
      add: {x-add: more}
      remove: [x-drop]
    response:
      set: {x-answer: new}
      add: {x-more: more}
      remove: [x-secret]
`
	call := parityCall{
		header: map[string]string{"x-set": "old", "x-add": "old", "x-drop": "old", "x-keep": "old"},
		answer: "x-answer=old,x-more=old,x-secret=s",
	}
	check := func(t *testing.T, _ *parityProbe, r *parityResult) {
		for name, want := range map[string][]string{"x-set": {"new"}, "x-add": {"old", "more"}, "x-drop": nil, "x-keep": {"old"}} {
			if got := r.sent(name); !slices.Equal(got, want) {
				t.Errorf("request %s: %q, want %q", name, got, want)
			}
		}
		for name, want := range map[string][]string{"x-answer": {"new"}, "x-more": {"old", "more"}, "x-secret": nil} {
			if got := r.header(name); !slices.Equal(got, want) {
				t.Errorf("response %s: %q, want %q", name, got, want)
			}
		}
	}
	// Of two levels the destination's operations come first in Envoy, so that
	// the route's win.
	levels := `- headers: {request: {set: {x-level: route}}, response: {set: {x-level: route}}}
  route:
  - destination: {host: HOST, subset: v1}
    weight: 50
    headers: {request: {set: {x-level: destination, x-own: v1}}, response: {set: {x-level: destination}}}
  - destination: {host: HOST, subset: v2}
    weight: 50
    headers: {request: {set: {x-own: v2, ":authority": of-v2.shop}}}
`
	return []parityRow{
		{
			name:   "headers of the route",
			routes: "- headers:" + operations + "  route: [{destination: {host: HOST, subset: v1}}]",
			cases:  []parityCase{{name: "set, add and remove", call: call, want: by("v1"), check: check}},
		},
		{
			name:   "headers of the only destination",
			routes: "- route:\n  - destination: {host: HOST, subset: v1}\n    headers:" + strings.ReplaceAll(operations, "\n    ", "\n      "),
			cases:  []parityCase{{name: "set, add and remove", call: call, want: by("v1"), check: check}},
		},
		{
			name: "headers with command operators",
			routes: `- name: named
  headers:
    request:
      set: {x-set: "by %REQ(x-who?x-other)% of %ROUTE_NAME%, 100%%", x-short: "%REQ(x-long):3%", x-none: "%REQ(x-nobody)%"}
      add: {x-add: "%UPSTREAM_CLUSTER%"}
    response: {set: {x-answer: "%RESPONSE_CODE% %RESP(x-old)%"}}` + toV1,
			cases: []parityCase{{
				name: "the values are those of the request and of its answer", want: by("v1"),
				call: parityCall{header: map[string]string{"x-who": "ann", "x-long": "abcdef"}, answer: "x-old=before"},
				check: func(t *testing.T, p *parityProbe, r *parityResult) {
					for name, want := range map[string]string{"x-set": "by ann of named, 100%", "x-short": "abc"} {
						if got := r.sent(name); !slices.Equal(got, []string{want}) {
							t.Errorf("request %s: %q, want %q", name, got, want)
						}
					}
					if got := r.sent("x-none"); got != nil {
						t.Errorf("request x-none: %q: an empty value is not sent", got)
					}
					if got := r.sent("x-add"); len(got) != 1 || !strings.HasPrefix(got[0], "outbound|"+p.port+"|v1|") {
						t.Errorf("request x-add: %q", got)
					}
					if got := r.header("x-answer"); !slices.Equal(got, []string{"200 before"}) {
						t.Errorf("response x-answer: %q", got)
					}
				},
			}},
		},
		{
			name:   "headers of several destinations",
			routes: levels,
			run: func(t *testing.T, p *parityProbe) {
				seen := make(map[string]bool)
				for range 40 {
					r := p.call(t, parityCall{})
					by("v").check(t, p.parityProtocol, r)
					version, _, _ := strings.Cut(r.Instance, "-")
					seen[version] = true
					if got := r.sent("x-own"); !slices.Equal(got, []string{version}) {
						t.Errorf("%s: x-own %q", version, got)
					}
					if got := r.Reply.Host == "of-v2.shop"; got != (version == "v2") {
						t.Errorf("%s: the host %q", version, r.Reply.Host)
					}
					for side, got := range map[string][]string{"request": r.sent("x-level"), "response": r.header("x-level")} {
						if !slices.Equal(got, []string{"route"}) {
							t.Errorf("%s: %s x-level %q", version, side, got)
						}
					}
				}
				if len(seen) != 2 {
					t.Errorf("only %v answered", seen)
				}
			},
		},
		{
			name:   "headers.request.set of the authority",
			routes: "- headers: {request: {set: {\":authority\": other.shop}}}" + toV1,
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
			name:   "headers.request of user-agent",
			routes: "- match: [{headers: {x-own: {}}}]\n  headers: {request: {set: {user-agent: route/1}}}" + toV1 + "\n- headers: {request: {remove: [user-agent]}}" + toV1,
			cases: []parityCase{
				{name: "none is sent", want: by("v1"), why: grpcHasItsAgent, check: agentIs("")},
				{
					name: "the application's is not sent", call: header("user-agent", "customer/1"),
					want: by("v1"), why: grpcHasItsAgent, check: agentIs(""),
				},
				{name: "the route's is sent", call: header("x-own", "1"), want: by("v1"), why: grpcHasItsAgent, check: agentIs("route/1")},
			},
		},
		{
			name: "header operations come once, also when a call is retried",
			routes: "- retries: {attempts: 2, retryOn: \"5xx,unavailable\"}\n  headers: {request: {add: {x-add: more}}, response: {add: {x-more: more}}}" +
				toV1,
			cases: []parityCase{{
				name: "the third attempt", want: parityWant{status: 200, instance: "v1", arrivals: 3},
				call: parityCall{script: "fail,fail,ok", header: map[string]string{"x-add": "old"}, answer: "x-more=old"},
				check: func(t *testing.T, _ *parityProbe, r *parityResult) {
					if got := r.sent("x-add"); !slices.Equal(got, []string{"old", "more"}) {
						t.Errorf("request x-add %q", got)
					}
					if got := r.header("x-more"); !slices.Equal(got, []string{"old", "more"}) {
						t.Errorf("response x-more %q", got)
					}
				},
			}},
		},
	}
}

// agentIs expects a user agent over HTTP, "" is none. That of gRPC cannot be changed.
func agentIs(want string) func(*testing.T, *parityProbe, *parityResult) {
	return func(t *testing.T, p *parityProbe, r *parityResult) {
		t.Helper()
		got := r.sent("user-agent")
		switch {
		case p.grpc:
			if len(got) != 1 || !strings.HasPrefix(got[0], "grpc-go/") {
				t.Errorf("user-agent %q", got)
			}
		case want == "" && len(got) > 0, want != "" && !slices.Equal(got, []string{want}):
			t.Errorf("user-agent %q, want %q", got, want)
		}
	}
}

func parityFaultRows() []parityRow {
	rows := []parityRow{
		{
			name:   "fault.delay",
			routes: "- fault: {delay: {fixedDelay: 150ms, percentage: {value: 100}}}" + toV1,
			cases: []parityCase{{
				name: "every call", want: by("v1"),
				check: func(t *testing.T, _ *parityProbe, r *parityResult) { checkTook(t, r, 150*time.Millisecond) },
			}},
		},
		{
			name:   "fault.delay.percent",
			routes: "- fault: {delay: {fixedDelay: 150ms, percent: 100}}" + toV1,
			cases: []parityCase{{
				name: "every call", want: by("v1"),
				check: func(t *testing.T, _ *parityProbe, r *parityResult) { checkTook(t, r, 150*time.Millisecond) },
			}},
		},
		{
			name:   "a delay longer than the caller waits",
			routes: "- fault: {delay: {fixedDelay: 10s, percentage: {value: 100}}}" + toV1,
			cases: []parityCase{{
				name: "ends with the caller's time", call: parityCall{timeout: 100 * time.Millisecond},
				want: failedBy(outcome.Timeout, codes.DeadlineExceeded),
				check: func(t *testing.T, _ *parityProbe, r *parityResult) {
					checkTook(t, r, 100*time.Millisecond)
					if r.Arrivals != 0 {
						t.Errorf("%d attempts", r.Arrivals)
					}
				},
			}},
		},
		{
			name:   "fault.abort.grpcStatus",
			routes: "- fault: {abort: {grpcStatus: NOT_FOUND, percentage: {value: 100}}}" + toV1,
			cases: []parityCase{{
				name: "every call", want: parityWant{status: 200, code: codes.NotFound}, why: statusAsHeader,
				check: func(t *testing.T, p *parityProbe, r *parityResult) {
					// HTTP gets the answer that a gRPC call would get.
					if !p.grpc && !slices.Equal(r.header("Grpc-Status"), []string{"5"}) {
						t.Errorf("grpc-status %q", r.header("Grpc-Status"))
					}
				},
			}},
		},
		{
			name:   "fault.abort.percentage",
			routes: "- fault: {abort: {httpStatus: 503, percentage: {value: 50}}}" + toV1,
			run: func(t *testing.T, p *parityProbe) {
				const n, want, tolerance = 200, 100, 29 // 4 standard deviations
				aborted := 0
				for range n {
					if r := p.call(t, parityCall{}); r.Instance == "" {
						aborted++
					}
				}
				if aborted < want-tolerance || aborted > want+tolerance {
					t.Errorf("%d of %d calls were aborted", aborted, n)
				}
			},
		},
		{
			name:   "a fault without a percentage is none",
			routes: "- fault: {abort: {httpStatus: 503}}" + toV1,
			cases:  []parityCase{{name: "every call", want: by("v1")}},
		},
		{
			name:   "a fault is not retried",
			routes: "- fault: {abort: {httpStatus: 503, percentage: {value: 100}}}\n  retries: {attempts: 3, backoff: 1h, retryOn: \"5xx,unavailable\"}" + toV1,
			cases: []parityCase{{
				name: "every call", want: parityWant{status: 503, code: codes.Unavailable},
				check: func(t *testing.T, _ *parityProbe, r *parityResult) {
					if r.Arrivals != 0 {
						t.Errorf("%d attempts", r.Arrivals)
					}
					checkTook(t, r, 0) // and no back-off
				},
			}},
		},
	}
	for _, mapped := range []struct {
		status int
		code   codes.Code
	}{
		{400, codes.Internal},
		{401, codes.Unauthenticated},
		{403, codes.PermissionDenied},
		{404, codes.Unimplemented},
		{429, codes.Unavailable},
		{500, codes.Unknown},
		{502, codes.Unavailable},
		{503, codes.Unavailable},
		{504, codes.Unavailable},
	} {
		rows = append(rows, parityRow{
			name:   fmt.Sprintf("fault.abort.httpStatus %d is %v to gRPC (gRFC A33)", mapped.status, mapped.code),
			routes: fmt.Sprintf("- fault: {abort: {httpStatus: %d, percentage: {value: 100}}}%s", mapped.status, toV1),
			cases: []parityCase{{
				name: "every call", want: parityWant{status: mapped.status, code: mapped.code},
				check: func(t *testing.T, _ *parityProbe, r *parityResult) {
					if r.Arrivals != 0 || !strings.Contains(r.Body, "fault filter abort") {
						t.Errorf("%v: body %q", r, r.Body)
					}
				},
			}},
		})
	}
	return rows
}

func parityAnswerRows() []parityRow {
	redirect := func(fields string, status int, location string) parityRow {
		return parityRow{
			name:   "redirect: " + fields,
			routes: "- match: [{uri: {prefix: /grpc.testing.TestService/}}]\n  redirect: {" + fields + "}",
			cases: []parityCase{{
				name: "every call", call: parityCall{query: "a=b"}, want: parityWant{status: status},
				grpc: &parityWant{code: codes.Unknown}, why: grpcHasNoRedirects,
				check: func(t *testing.T, p *parityProbe, r *parityResult) {
					if p.grpc {
						return
					}
					want := strings.NewReplacer("HOST", p.host, "PORT", p.port).Replace(location)
					if got := r.header("Location"); !slices.Equal(got, []string{want}) {
						t.Errorf("location %q, want %q", got, want)
					}
				},
			}},
		}
	}
	direct := func(fields string, status int, code codes.Code, body string) parityRow {
		why := ""
		if status == http.StatusOK {
			why = grpcNeedsMessage
		}
		return parityRow{
			name:   "directResponse: " + fields,
			routes: "- directResponse: {" + fields + "}",
			cases: []parityCase{{
				name: "every call", want: parityWant{status: status, code: code}, why: why,
				check: func(t *testing.T, p *parityProbe, r *parityResult) {
					want := body
					if p.grpc && body == "" {
						want = "mesh: direct response"
					}
					if r.Body != want {
						t.Errorf("body %q", r.Body)
					}
				},
			}},
		}
	}
	return []parityRow{
		redirect("uri: /new", http.StatusMovedPermanently, "http://HOST:PORT/new?a=b"),
		redirect("prefixRewrite: /new/", http.StatusMovedPermanently, "http://HOST:PORT/new/EmptyCall?a=b"),
		redirect("authority: other.shop", http.StatusMovedPermanently, "http://other.shop"+parityMethod+"?a=b"),
		redirect("scheme: https, authority: other.shop, redirectCode: 308", http.StatusPermanentRedirect, "https://other.shop"+parityMethod+"?a=b"),
		redirect("authority: other.shop, port: 8443", http.StatusMovedPermanently, "http://other.shop:8443"+parityMethod+"?a=b"),
		redirect("authority: other.shop, derivePort: FROM_PROTOCOL_DEFAULT, redirectCode: 302", http.StatusFound, "http://other.shop"+parityMethod+"?a=b"),
		redirect("uri: /new, redirectCode: 303", http.StatusSeeOther, "http://HOST:PORT/new?a=b"),
		redirect("uri: /new, redirectCode: 307", http.StatusTemporaryRedirect, "http://HOST:PORT/new?a=b"),
		direct("status: 403, body: {string: go away}", http.StatusForbidden, codes.PermissionDenied, "go away"),
		direct("status: 503", http.StatusServiceUnavailable, codes.Unavailable, ""),
		direct("status: 404, body: {string: 100 % Käse}", http.StatusNotFound, codes.Unimplemented, "100 % Käse"),
		direct("status: 200, body: {bytes: aGVsbG8=}", http.StatusOK, codes.Unknown, "hello"),
	}
}
