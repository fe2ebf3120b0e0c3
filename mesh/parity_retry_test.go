package mesh_test

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/inboardmesh/inboard/outcome"
)

// grpcHasNoStatus is why conditions on the HTTP status never hold for an
// answered gRPC call.
const grpcHasNoStatus = "the HTTP status of a gRPC answer is 200; the gRPC status has conditions of its own"

// grpcHasFiveAttempts is the limit of gRPC's own retries.
const grpcHasFiveAttempts = "a gRPC call has five attempts at most (gRFC A6)"

// backoffsDiffer is how long the two wait.
const backoffsDiffer = "Envoy and gRPC draw the wait differently (rows BR5 and BR6)"

// httpHasNoCode is the same the other way round.
const httpHasNoCode = "an HTTP answer has no gRPC status"

func parityRetryRows() []parityRow {
	// condition is a row for one condition: a first attempt that ends as the
	// script says, and what HTTP and gRPC make of it.
	condition := func(on, script string, http, grpc parityWant, why string) parityRow {
		c := parityCase{name: script, call: parityCall{script: script + ",ok"}, want: http}
		if http.arrivals != grpc.arrivals {
			c.grpc, c.why = &grpc, why
		}
		return parityRow{
			name:   fmt.Sprintf("retries.retryOn %s: %s", on, script),
			routes: fmt.Sprintf("- retries: {attempts: 2, retryOn: %q}%s", on, toV1),
			cases:  []parityCase{c},
		}
	}
	again := parityWant{status: 200, instance: "v1", arrivals: 2}
	once := func(status int, code codes.Code) parityWant {
		return parityWant{status: status, code: code, instance: "v1", arrivals: 1}
	}
	rows := []parityRow{
		condition("5xx", "fail=500/14", again, once(500, codes.Unavailable), grpcHasNoStatus),
		condition("5xx", "fail=404/5", once(404, codes.NotFound), once(404, codes.NotFound), ""),
		condition("gateway-error", "fail=503/14", again, once(503, codes.Unavailable), grpcHasNoStatus),
		condition("gateway-error", "fail=500/2", once(500, codes.Unknown), once(500, codes.Unknown), ""),
		condition("retriable-4xx", "fail=409/10", again, once(409, codes.Aborted), grpcHasNoStatus),
		condition("503,504", "fail=504/4", again, once(504, codes.DeadlineExceeded), grpcHasNoStatus),
		condition("503,504", "fail=500/2", once(500, codes.Unknown), once(500, codes.Unknown), ""),
		condition("unavailable", "fail=503/14", once(503, codes.Unavailable), again, httpHasNoCode),
		condition("internal", "fail=500/13", once(500, codes.Internal), again, httpHasNoCode),
		condition("resource-exhausted", "fail=429/8", once(429, codes.ResourceExhausted), again, httpHasNoCode),
		condition("cancelled", "fail=499/1", once(499, codes.Canceled), again, httpHasNoCode),
		condition("deadline-exceeded", "fail=504/4", once(504, codes.DeadlineExceeded), again, httpHasNoCode),
		condition("connect-failure,refused-stream,reset-before-request", "fail=503/14", once(503, codes.Unavailable), once(503, codes.Unavailable), ""),
		condition("5xx,unavailable", "fail=503/14", again, again, ""),
		condition("retriable-headers,http3-post-connect-failure", "fail=503/14", once(503, codes.Unavailable), once(503, codes.Unavailable), ""),
	}
	return append(rows,
		parityRow{
			name:   "retries.attempts",
			routes: "- retries: {attempts: 3, retryOn: \"5xx,unavailable\"}" + toV1,
			cases: []parityCase{
				{name: "the last one succeeds", call: parityCall{script: "fail,fail,fail,ok"}, want: parityWant{status: 200, instance: "v1", arrivals: 4}},
				{name: "the last one fails", call: parityCall{script: "fail"}, want: parityWant{status: 503, code: codes.Unavailable, instance: "v1", arrivals: 4}},
			},
		},
		parityRow{
			name:   "retries.attempts above 4",
			routes: "- retries: {attempts: 6, backoff: 2ms, retryOn: \"5xx,unavailable\"}" + toV1,
			cases: []parityCase{{
				name: "none succeeds", call: parityCall{script: "fail"},
				want: parityWant{status: 503, instance: "v1", arrivals: 7},
				grpc: &parityWant{code: codes.Unavailable, instance: "v1", arrivals: 5}, why: grpcHasFiveAttempts,
			}},
		},
		parityRow{
			name:   "retries.attempts of 0",
			routes: "- retries: {attempts: 0}" + toV1,
			cases:  []parityCase{{name: "no retry", call: parityCall{script: "fail,ok"}, want: once(503, codes.Unavailable)}},
		},
		parityRow{
			name:   "without retries Istio's default holds",
			routes: "- match: [{uri: {prefix: /}}]" + toV1,
			cases: []parityCase{
				{
					name: "a failure", call: parityCall{script: "fail,fail,ok"}, want: once(503, codes.Unavailable),
					grpc: &parityWant{status: 200, instance: "v1", arrivals: 3},
					why:  "unavailable is in Istio's default conditions, 5xx is not",
				},
				{name: "a status that says nothing", call: parityCall{script: "fail=500/13,ok"}, want: once(500, codes.Internal)},
			},
		},
		parityRow{
			name:   "retries.perTryTimeout",
			routes: "- retries: {attempts: 2, perTryTimeout: 300ms, retryOn: \"5xx,unavailable\"}" + toV1,
			cases: []parityCase{
				{
					name: "the second attempt answers", call: parityCall{script: "hang,ok"}, want: again,
					check: func(t *testing.T, _ *parityProbe, r *parityResult) { checkTook(t, r, 300*time.Millisecond) },
				},
				{
					name: "no attempt answers", call: parityCall{script: "hang"}, want: failedBy(outcome.PerTryTimeout, codes.DeadlineExceeded),
					check: func(t *testing.T, _ *parityProbe, r *parityResult) {
						checkTook(t, r, 900*time.Millisecond)
						// A busy machine may not get as far as to the payment each time.
						if r.Arrivals == 0 || r.Arrivals > 3 || r.Failure.Attempts != 3 {
							t.Errorf("%d arrivals, %d attempts", r.Arrivals, r.Failure.Attempts)
						}
					},
				},
			},
		},
		parityRow{
			name:   "the timeout bounds all attempts",
			routes: "- timeout: 800ms\n  retries: {attempts: 9, perTryTimeout: 300ms, retryOn: \"5xx,unavailable\"}" + toV1,
			cases: []parityCase{{
				name: "no attempt answers", call: parityCall{script: "hang"}, want: failedBy(outcome.Timeout, codes.DeadlineExceeded),
				check: func(t *testing.T, _ *parityProbe, r *parityResult) {
					checkTook(t, r, 800*time.Millisecond)
					if n := r.Failure.Attempts; n < 2 || n > 3 {
						t.Errorf("%d attempts", n)
					}
				},
			}},
		},
		parityRow{
			name:   "retries.backoff",
			routes: "- retries: {attempts: 1, backoff: 300ms, retryOn: \"5xx,unavailable\"}" + toV1,
			cases: []parityCase{{
				name: "one wait", call: parityCall{script: "fail,ok"}, want: again, why: backoffsDiffer,
				check: func(t *testing.T, p *parityProbe, r *parityResult) {
					// HTTP waits at random up to it, gRPC for 0.8 to 1.2 of it.
					if p.grpc && r.Took < 240*time.Millisecond {
						t.Errorf("took %v", r.Took)
					}
				},
			}},
		},
		parityRow{
			name:   "retries.retryIgnorePreviousHosts",
			routes: "- retries: {attempts: 2, retryIgnorePreviousHosts: true, retryOn: \"5xx,unavailable\"}" + toV1,
			run: func(t *testing.T, p *parityProbe) {
				for range 10 {
					r := p.call(t, parityCall{script: "fail,ok"})
					again.check(t, p.parityProtocol, r)
				}
			},
		},
		parityRow{
			name:   "retries.retryRemoteLocalities",
			routes: "- retries: {attempts: 3, retryRemoteLocalities: true, retryOn: \"5xx,unavailable\"}" + toV1,
			// Without another locality there is nowhere else to go.
			cases: []parityCase{{name: "one locality", call: parityCall{script: "fail,fail,fail,ok"}, want: parityWant{status: 200, instance: "v1", arrivals: 4}}},
		},
		parityRow{
			name:   "a retry stays in the destination that was drawn",
			routes: "- retries: {attempts: 3, retryOn: \"5xx,unavailable\"}\n  route:\n  - {destination: {host: HOST, subset: v1}, weight: 50, headers: {request: {set: {x-own: v1}}}}\n  - {destination: {host: HOST, subset: v2}, weight: 50, headers: {request: {set: {x-own: v2}}}}\n",
			run: func(t *testing.T, p *parityProbe) {
				for range 10 {
					r := p.call(t, parityCall{script: "fail,fail,ok"})
					parityWant{status: 200, instance: "*", arrivals: 3}.check(t, p.parityProtocol, r)
					if own := r.sent("x-own"); len(own) != 1 || own[0] != r.Instance[:2] {
						t.Errorf("%s answered what was drawn for %q", r.Instance, own)
					}
				}
			},
		},
	)
}
