package pipeline

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/route"
	"github.com/inboardmesh/inboard/outcome"
	"github.com/inboardmesh/inboard/retry"
)

// reply is response headers.
type reply map[string]string

func (r reply) Values(name string) []string {
	if value, ok := r[name]; ok {
		return []string{value}
	}
	return nil
}

func present(name string) discovery.HeaderMatch {
	return discovery.HeaderMatch{Name: name, Kind: discovery.HeaderPresent, Present: true}
}

func TestBR2_RetriableHeaders(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		on      retry.Conditions
		headers discovery.RetryHeaders
		request reply
		answer  reply
		status  int
		want    int
	}{
		{name: "a success with the header", on: retry.OnRetriableHeaders, headers: discovery.RetryHeaders{Response: []discovery.HeaderMatch{present("x-other"), present("x-again")}}, answer: reply{"x-again": ""}, status: 200, want: 3},
		{name: "without the header", on: retry.OnRetriableHeaders, headers: discovery.RetryHeaders{Response: []discovery.HeaderMatch{present("x-again")}}, answer: reply{"x-other": "1"}, status: 503, want: 1},
		{name: "without the condition", on: retry.OnReset, headers: discovery.RetryHeaders{Response: []discovery.HeaderMatch{present("x-again")}}, answer: reply{"x-again": "1"}, status: 503, want: 1},
		{name: "of a rate limit", on: retry.OnRetriableHeaders, headers: discovery.RetryHeaders{Response: []discovery.HeaderMatch{present("x-again")}}, answer: reply{"x-again": "1", "x-envoy-ratelimited": "true"}, status: 200, want: 1},
		{name: "an inverted match", on: retry.OnRetriableHeaders, headers: discovery.RetryHeaders{Response: []discovery.HeaderMatch{{Name: "x-done", String: discovery.StringMatch{Value: "yes"}, Invert: true, TreatMissingAsEmpty: true}}}, status: 200, want: 3},
		{name: "a request that may be retried", on: retry.On5xx, headers: discovery.RetryHeaders{Request: []discovery.HeaderMatch{present("x-no"), present("x-may")}}, request: reply{"x-may": "1"}, status: 503, want: 3},
		{name: "a request that may not", on: retry.On5xx, headers: discovery.RetryHeaders{Request: []discovery.HeaderMatch{present("x-may")}}, status: 503, want: 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				b.configure(newTarget(retrying(retry.Policy{MaxRetries: 2, On: tt.on}), func(target *discovery.Target) {
					top(target).Forward.RetryHeaders = &tt.headers
				}))
				d := &adapter{attempt: func(_ context.Context, a *Attempt, _ int) outcome.Outcome {
					a.Reply = tt.answer
					o := response(tt.status)
					return o
				}}
				c := b.prepare(d)
				o := c.Run(t.Context(), &route.Request{Method: "GET", Host: "payment.shop", Path: "/", Header: tt.request})
				c.Finish(o)
				if d.attempts != tt.want || o.Status != tt.status {
					t.Errorf("%d attempts and status %d, want %d and %d", d.attempts, o.Status, tt.want, tt.status)
				}
				b.idle("v1")
			})
		})
	}
}

// spread is a cluster of endpoints with metadata and priorities.
func spread(endpoints ...balancer.LocalityEndpoints) func(*discovery.Target) {
	return func(t *discovery.Target) {
		c := t.Clusters["v1"]
		c.Endpoints.Localities = endpoints
		t.Clusters["v1"] = c
	}
}

func one(priority uint32, address string, metadata ...string) balancer.LocalityEndpoints {
	lb := make(map[string]string)
	for i := 0; i < len(metadata); i += 2 {
		lb[metadata[i]] = metadata[i+1]
	}
	return balancer.LocalityEndpoints{
		Locality: balancer.Locality{Zone: address}, Weight: 1, Priority: priority,
		Endpoints: []balancer.Endpoint{{Address: address, Metadata: map[string]map[string]string{"envoy.lb": lb}}},
	}
}

func TestBR16_RetriesLeaveOutWhatThePredicatesOmit(t *testing.T) {
	t.Parallel()
	canary := one(0, "10.0.0.1:80", "canary", "true", "stage", "test")
	stable := one(0, "10.0.0.2:80", "canary", "false", "stage", "prod")
	tests := []struct {
		name   string
		policy retry.Policy
		hosts  []balancer.LocalityEndpoints
		want   []string // where retries may go
	}{
		{"canaries", retry.Policy{OmitCanary: true}, []balancer.LocalityEndpoints{canary, stable}, []string{"10.0.0.2:80"}},
		{"by metadata", retry.Policy{OmitMetadata: map[string]string{"stage": "prod"}}, []balancer.LocalityEndpoints{canary, stable}, []string{"10.0.0.1:80"}},
		{"when there is nothing else", retry.Policy{OmitCanary: true}, []balancer.LocalityEndpoints{canary}, []string{"10.0.0.1:80"}},
		{"canaries and the host before", retry.Policy{OmitCanary: true, AvoidPreviousHosts: true, MaxRetries: 1}, []balancer.LocalityEndpoints{canary, stable, one(0, "10.0.0.3:80")}, []string{"10.0.0.2:80", "10.0.0.3:80"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				tt.policy.MaxRetries, tt.policy.On = max(1, tt.policy.MaxRetries), retry.On5xx
				b.configure(newTarget(retrying(tt.policy), spread(tt.hosts...)))
				var went []string
				for range 40 {
					d := &adapter{attempt: always(response(503))}
					b.run(t.Context(), d)
					went = append(went, d.endpoints[1:]...)
				}
				if slices.ContainsFunc(went, func(address string) bool { return !slices.Contains(tt.want, address) }) {
					t.Errorf("retries went to %q, want only %q", went, tt.want)
				}
			})
		})
	}
}

func TestRetriesGoToPrioritiesThatWereNotTried(t *testing.T) {
	t.Parallel()
	const p0, p1, p2 = "10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"
	for name, tt := range map[string]struct {
		every uint32
		want  []string
	}{
		"not at all":                {0, []string{p0, p0, p0, p0, p0, p0, p0}},
		"after each attempt":        {1, []string{p0, p1, p2, p0, p1, p2, p0}},
		"after every other attempt": {2, []string{p0, p0, p1, p1, p2, p2, p0}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				b.configure(newTarget(retrying(retry.Policy{MaxRetries: 6, On: retry.On5xx, PriorityUpdates: tt.every}),
					spread(one(0, p0), one(1, p1), one(2, p2))))
				d := &adapter{attempt: always(response(503))}
				b.run(t.Context(), d)
				if !slices.Equal(d.endpoints, tt.want) {
					t.Errorf("attempts went to\n%q, want\n%q", d.endpoints, tt.want)
				}
			})
		})
	}
}

func TestBR9_TheClustersThrottleHoldsForAllCalls(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.configure(newTarget(retrying(retry.Policy{MaxRetries: 1, On: retry.On5xx}), func(target *discovery.Target) {
			v1(target).RetryThrottle = &retry.ThrottleSettings{MaxTokens: 10, TokenRatio: 1}
		}))
		failing := func() int {
			d := &adapter{attempt: always(response(503))}
			b.run(t.Context(), d)
			return d.attempts
		}
		var attempts []int
		for range 5 {
			attempts = append(attempts, failing())
		}
		// Each attempt that fails takes a token: 8, 6, 5, and then no more.
		if want := []int{2, 2, 1, 1, 1}; !slices.Equal(attempts, want) {
			t.Errorf("attempts %v, want %v", attempts, want)
		}
		for range 4 { // 3 + 4
			b.run(t.Context(), &adapter{})
		}
		if got := failing(); got != 2 {
			t.Errorf("%d attempts after successes", got)
		}
		if !slices.Contains(b.events, "overflow of v1: throttle") {
			t.Error("nobody was told of the throttle")
		}
	})
}

// BR8, BR9: a server that forbids a retry takes a token, whatever its status is: grpc-go
// counts so.
func TestBR9_APushBackThatForbidsTakesAToken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.configure(newTarget(retrying(retry.Policy{MaxRetries: 1, On: retry.OnGRPCUnavailable}), func(target *discovery.Target) {
			v1(target).RetryThrottle = &retry.ThrottleSettings{MaxTokens: 4, TokenRatio: 1}
		}))
		call := func(code uint32, pushback string) int {
			o := outcome.Outcome{Kind: outcome.Response, GRPC: true, Code: code, Sent: true, Header: func(name string) string {
				if name == "grpc-retry-pushback-ms" {
					return pushback
				}
				return ""
			}}
			d := &adapter{attempt: always(o)}
			b.run(t.Context(), d)
			return d.attempts
		}
		const internal, unavailable = 13, 14
		for range 3 {
			if got := call(internal, ""); got != 1 {
				t.Errorf("%d attempts of a failure that the policy is not about", got)
			}
		}
		if got := call(unavailable, ""); got != 2 { // 3, and with its retry 2: half of them
			t.Errorf("%d attempts with a full bucket", got)
		}
		for range 3 {
			b.run(t.Context(), &adapter{attempt: always(outcome.Outcome{Kind: outcome.Response, GRPC: true, Sent: true})})
		}
		for range 2 {
			if got := call(internal, "-1"); got != 1 {
				t.Errorf("%d attempts although the server forbade them", got)
			}
		}
		if got := call(unavailable, ""); got != 1 {
			t.Errorf("%d attempts after two that the server forbade to repeat", got)
		}
		b.idle("v1")
	})
}
