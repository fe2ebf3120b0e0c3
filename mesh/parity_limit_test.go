package mesh_test

import (
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/inboardmesh/inboard/outcome"
)

func parityLimitRows() []parityRow {
	retrying := "- retries: {attempts: 1, retryOn: \"5xx,unavailable\"}" + toV2
	failed := parityWant{status: 503, code: codes.Unavailable, instance: "v2", arrivals: 1}
	again := parityWant{status: 200, instance: "v2", arrivals: 2}
	// oneRetry is for a cluster that allows one retry at a time.
	oneRetry := func(t *testing.T, p *parityProbe) {
		release := p.hold(t, 1, parityCall{script: "fail,hang"}, 2)
		failed.check(t, p.parityProtocol, p.call(t, parityCall{script: "fail,ok"}))
		release()
		again.check(t, p.parityProtocol, p.call(t, parityCall{script: "fail,ok"}))
	}
	return []parityRow{
		{
			name: "connectionPool.http.http2MaxRequests", routes: noRetries + toV2,
			rule: "trafficPolicy: {connectionPool: {http: {http2MaxRequests: 2}}}",
			run: func(t *testing.T, p *parityProbe) {
				release := p.hold(t, 2, parityCall{script: "hang"}, 1)
				overflowed.check(t, p.parityProtocol, p.call(t, parityCall{}))
				release()
				by("v2").check(t, p.parityProtocol, p.call(t, parityCall{}))
			},
		},
		{
			name: "connectionPool.http.maxRetries", routes: retrying,
			rule: "trafficPolicy: {connectionPool: {http: {maxRetries: 1}}}", run: oneRetry,
		},
		{
			name: "retryBudget.minRetryConcurrency", routes: retrying,
			rule: "trafficPolicy: {retryBudget: {percent: 0, minRetryConcurrency: 1}}", run: oneRetry,
		},
		{
			name: "retryBudget.percent", routes: retrying,
			rule: "trafficPolicy: {retryBudget: {percent: 100, minRetryConcurrency: 1}, connectionPool: {http: {maxRetries: 1}}}",
			run: func(t *testing.T, p *parityProbe) {
				release := p.hold(t, 2, parityCall{script: "hang"}, 1)
				releaseRetry := p.hold(t, 1, parityCall{script: "fail,hang"}, 2)
				again.check(t, p.parityProtocol, p.call(t, parityCall{script: "fail,ok"}))
				releaseRetry()
				release()
			},
		},
		{
			name: "breaker opens and recovers", routes: noRetries + toV2,
			ruleAnnotations: `inboard.breaker: "{failureRatio: 0.5, minimumRequests: 4, window: 10s, openTime: 500ms, halfOpenProbes: 1}"`,
			run: func(t *testing.T, p *parityProbe) {
				by("v2").check(t, p.parityProtocol, p.call(t, parityCall{}))
				start := time.Now()
				for range 3 {
					failed.check(t, p.parityProtocol, p.call(t, parityCall{script: "fail"}))
				}
				open := p.call(t, parityCall{})
				overflowed.check(t, p.parityProtocol, open)
				if open.Arrivals != 0 {
					t.Errorf("the payment got the call that was refused")
				}
				until(t, "the breaker lets a probe through", func() bool { return p.call(t, parityCall{}).Err == nil })
				if took := time.Since(start); took < 500*time.Millisecond {
					t.Errorf("it was open for %v", took)
				}
				by("v2").check(t, p.parityProtocol, p.call(t, parityCall{}))
			},
		},
		{
			name: "breaker of each endpoint", routes: noRetries + toV1,
			ruleAnnotations: `inboard.breaker: "{failureRatio: 1, minimumRequests: 3, window: 1m, openTime: 1h, scope: endpoint}"`,
			run: func(t *testing.T, p *parityProbe) {
				counts := make(map[string]int)
				var tripped string
				for tripped == "" {
					r := p.call(t, parityCall{script: "fail"})
					if r.Instance == "" {
						t.Fatalf("%v", r)
					}
					if counts[r.Instance]++; counts[r.Instance] == 3 {
						tripped = r.Instance
					}
				}
				for range 10 {
					if r := p.call(t, parityCall{}); r.Instance == tripped || r.Instance == "" {
						t.Errorf("the breaker of %s is open: %v", tripped, r)
					}
				}
			},
		},
		{
			name: "without the annotation there is no breaker", routes: noRetries + toV2,
			run: func(t *testing.T, p *parityProbe) {
				for range 30 {
					failed.check(t, p.parityProtocol, p.call(t, parityCall{script: "fail"}))
				}
			},
		},
	}
}

func parityOutlierRows() []parityRow {
	// ejects fails calls of one payment with a script until it is ejected, and
	// looks at where calls go then.
	ejects := func(script, reason string, failures int) func(*testing.T, *parityProbe) {
		return func(t *testing.T, p *parityProbe) {
			counts := make(map[string]int)
			var ejected string
			for ejected == "" {
				if r := p.call(t, parityCall{script: script}); r.Instance == "" {
					t.Fatalf("%v", r)
				} else if counts[r.Instance]++; counts[r.Instance] == failures {
					ejected = r.Instance
				}
			}
			if got := p.world.ejections(p.cluster("v1")); !slices.Equal(got, []string{reason}) {
				t.Fatalf("ejections: %q, want %q", got, reason)
			}
			for range 10 {
				if r := p.call(t, parityCall{}); r.Instance == ejected || r.Instance == "" {
					t.Errorf("%s is ejected: %v", ejected, r)
				}
			}
		}
	}
	return []parityRow{
		{
			name: "outlierDetection.consecutive5xxErrors", routes: noRetries + toV1,
			rule: "trafficPolicy: {outlierDetection: {consecutive5xxErrors: 2, maxEjectionPercent: 50}}",
			run:  ejects("fail=500/13", "consecutive-5xx", 2),
		},
		{
			name: "outlierDetection.consecutiveGatewayErrors", routes: noRetries + toV1,
			rule: "trafficPolicy: {outlierDetection: {consecutive5xxErrors: 0, consecutiveGatewayErrors: 2, maxEjectionPercent: 50}}",
			run: func(t *testing.T, p *parityProbe) {
				for range 8 {
					p.call(t, parityCall{script: "fail=500/13"})
				}
				if got := p.world.ejections(p.cluster("v1")); len(got) != 0 {
					t.Errorf("ejections for what is no gateway error: %q", got)
				}
				ejects("fail=503/14", "consecutive-gateway-failure", 2)(t, p)
			},
		},
		{
			name: "outlierDetection.maxEjectionPercent", routes: noRetries + toV1,
			rule: "trafficPolicy: {outlierDetection: {consecutive5xxErrors: 1, maxEjectionPercent: 50}}",
			run: func(t *testing.T, p *parityProbe) {
				for range 10 {
					p.call(t, parityCall{script: "fail=500/13"})
				}
				if got := p.world.ejections(p.cluster("v1")); len(got) != 1 {
					t.Errorf("of two payments %d were ejected", len(got))
				}
			},
		},
		{
			name: "outlierDetection.minHealthPercent", routes: noRetries + toV1,
			rule: "trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}, outlierDetection: {consecutive5xxErrors: 1, maxEjectionPercent: 50, minHealthPercent: 60}}",
			run: func(t *testing.T, p *parityProbe) {
				p.call(t, parityCall{script: "fail=500/13"})
				if got := p.world.ejections(p.cluster("v1")); len(got) != 1 {
					t.Errorf("%d ejections", len(got))
				}
				seen := make(map[string]bool)
				for range 10 {
					seen[p.call(t, parityCall{}).Instance] = true
				}
				if !seen["v1-a"] || !seen["v1-b"] {
					t.Errorf("one of two is healthy, less than 60 %%, so both must be used: %v", seen)
				}
			},
		},
		{
			name: "outlierDetection.baseEjectionTime and interval", routes: noRetries + toV1,
			rule: "trafficPolicy: {outlierDetection: {consecutive5xxErrors: 1, maxEjectionPercent: 50, baseEjectionTime: 200ms, interval: 50ms}}",
			run: func(t *testing.T, p *parityProbe) {
				start := time.Now()
				failing := p.call(t, parityCall{script: "fail=500/13"}).Instance
				until(t, "the payment is taken back", func() bool { return p.call(t, parityCall{}).Instance == failing })
				if out := time.Since(start); out < 200*time.Millisecond {
					t.Errorf("it was out for %v", out)
				}
			},
		},
		{
			name: "outlierDetection.consecutiveLocalOriginFailures", routes: noRetries + toV1,
			endpoints: []parityEndpoint{{}, {instance: "v1-a"}},
			rule: `trafficPolicy:
  loadBalancer: {simple: ROUND_ROBIN}
  connectionPool: {tcp: {connectTimeout: 50ms}}
  outlierDetection: {splitExternalLocalOriginErrors: true, consecutiveLocalOriginFailures: 1, maxEjectionPercent: 50}`,
			run: func(t *testing.T, p *parityProbe) {
				until(t, "the endpoint that does not answer is ejected", func() bool {
					r := p.call(t, parityCall{})
					if r.Err != nil {
						failedBy(outcome.ConnectFailure, codes.Unavailable).check(t, p.parityProtocol, r)
					}
					return len(p.world.ejections(p.cluster("v1"))) > 0
				})
				if got := p.world.ejections(p.cluster("v1")); !slices.Equal(got, []string{"consecutive-local-origin-failure"}) {
					t.Errorf("ejections: %q", got)
				}
			},
		},
		{
			name: "outlierDetection.splitExternalLocalOriginErrors keeps timeouts out of errors", routes: "- timeout: 50ms\n  retries: {attempts: 0}" + toV1,
			rule: "trafficPolicy: {outlierDetection: {splitExternalLocalOriginErrors: true, consecutive5xxErrors: 1, maxEjectionPercent: 50}}",
			run: func(t *testing.T, p *parityProbe) {
				for range 3 {
					failedBy(outcome.Timeout, codes.DeadlineExceeded).check(t, p.parityProtocol, p.call(t, parityCall{script: "hang"}))
				}
				if got := p.world.ejections(p.cluster("v1")); len(got) != 0 {
					t.Errorf("ejections: %q", got)
				}
			},
		},
	}
}
