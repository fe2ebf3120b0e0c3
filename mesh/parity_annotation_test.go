package mesh_test

import (
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/inboardmesh/inboard/outcome"
)

// parityAnnotationRows are of what Istio has no field for.
func parityAnnotationRows() []parityRow {
	retries := "- retries: {attempts: 2, backoff: 2ms, retryOn: \"5xx,unavailable\"}" + toV1
	return []parityRow{
		{
			name: "annotation inboard.hedge", routes: retries,
			annotations: `inboard.hedge: "{delay: 300ms, maxAttempts: 2}"`,
			cases: []parityCase{
				{
					name: "a call that may be repeated is made again beside the first",
					call: parityCall{script: "hang,ok", header: map[string]string{"Idempotency-Key": "7"}},
					want: parityWant{status: 200, instance: "v1", arrivals: 2},
				},
				{
					name: "another is not", call: parityCall{script: "hang,ok", timeout: time.Second},
					want: failedBy(outcome.Timeout, codes.DeadlineExceeded),
					check: func(t *testing.T, _ *parityProbe, r *parityResult) {
						if r.Failure.Attempts != 1 {
							t.Errorf("%d attempts", r.Failure.Attempts)
						}
					},
				},
			},
		},
		{
			name: "annotation inboard.deadline", routes: "- timeout: 60s\n  retries: {attempts: 0}" + toV1,
			annotations: `inboard.deadline: "{minimum: 30s}"`,
			cases: []parityCase{
				{
					name: "too little is left", want: failedBy(outcome.Timeout, codes.DeadlineExceeded),
					check: func(t *testing.T, _ *parityProbe, r *parityResult) {
						if r.Arrivals != 0 || !r.Failure.SafeToRetry() {
							t.Errorf("%d arrivals, safe to retry: %t", r.Arrivals, r.Failure.SafeToRetry())
						}
					},
				},
				{name: "enough is left", call: parityCall{timeout: 50 * time.Second}, want: parityWant{status: 200, instance: "v1", arrivals: 1}},
			},
		},
		{
			name:            "annotation inboard.retry_throttle",
			routes:          "- retries: {attempts: 4, backoff: 2ms, retryOn: \"5xx,unavailable\"}" + toV1,
			ruleAnnotations: `inboard.retry_throttle: "{maxTokens: 4, tokenRatio: 0.001}"`,
			cases: []parityCase{
				// Each failure takes a token; with half of them gone there are no retries.
				{name: "the first calls of a cluster", call: parityCall{script: "fail"}, want: parityWant{status: 503, code: codes.Unavailable, instance: "v1", arrivals: 2}},
				{name: "a later one", call: parityCall{script: "fail"}, want: parityWant{status: 503, code: codes.Unavailable, instance: "v1", arrivals: 1}},
			},
		},
		{
			// What is near never answers. Envoy's way would be to wait for the connect
			// timeout, and to try it again after each back-off.
			name: "annotation inboard.priorities", routes: "- retries: {attempts: 2, backoff: 2ms, retryOn: \"connect-failure,unavailable\"}" + toV1,
			ruleAnnotations: `inboard.priorities: "{policy: grpc, connectWithin: 400ms}"`,
			rule:            "trafficPolicy: {outlierDetection: {}, connectionPool: {tcp: {connectTimeout: 30s}}}",
			endpoints:       []parityEndpoint{placed("", "locality: r1/z1/s1"), placed("v1-a", "locality: r2")},
			run: func(t *testing.T, p *parityProbe) {
				first := p.call(t, parityCall{})
				by("v1").check(t, p.parityProtocol, first)
				if first.Took < 400*time.Millisecond {
					t.Errorf("the first call took %v, want the time to connect", first.Took)
				}
				begin := time.Now()
				for range 20 {
					by("v1").check(t, p.parityProtocol, p.call(t, parityCall{}))
				}
				if took := time.Since(begin); took > 5*time.Second {
					t.Errorf("20 calls took %v: they must not wait for what is near", took)
				}
			},
		},
	}
}
