package pipeline

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/route"
	"github.com/inboardmesh/inboard/outcome"
	"github.com/inboardmesh/inboard/retry"
)

func TestOptionsOfOneCallStayWithinTheRoutes(t *testing.T) {
	t.Parallel()
	policy := retry.Policy{MaxRetries: 3, On: retry.OnReset, PerTryTimeout: time.Second}
	tests := []struct {
		name     string
		options  CallOptions
		policy   *retry.Policy
		answer   outcome.Outcome
		attempts int
	}{
		{"no options", CallOptions{}, &policy, failure(outcome.Reset), 4},
		{"fewer retries", CallOptions{MaxRetries: new(uint32(1))}, &policy, failure(outcome.Reset), 2},
		{"no retries", CallOptions{MaxRetries: new(uint32(0))}, &policy, failure(outcome.Reset), 1},
		{"more retries than there can be", CallOptions{MaxRetries: new(uint32(9))}, &policy, failure(outcome.Reset), 4},
		{"another condition", CallOptions{RetryOn: retry.On5xx}, &policy, response(503), 4},
		{"the route's conditions stay", CallOptions{RetryOn: retry.On5xx}, &policy, failure(outcome.Reset), 4},
		{"statuses", CallOptions{RetryOn: retry.OnRetriableStatusCodes, RetriableStatusCodes: []int{418}}, &policy, response(418), 4},
		{"a route without a policy", CallOptions{RetryOn: retry.On5xx, MaxRetries: new(uint32(3))}, nil, response(503), 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				b.configure(newTarget(func(target *discovery.Target) { top(target).Forward.Retry = tt.policy }))
				d := &adapter{attempt: always(tt.answer)}
				b.run(WithOptions(t.Context(), tt.options), d)
				if d.attempts != tt.attempts {
					t.Errorf("%d attempts, want %d", d.attempts, tt.attempts)
				}
				// The next call has none of it.
				d = &adapter{attempt: always(failure(outcome.Reset))}
				want := 1
				if tt.policy != nil {
					want = 4
				}
				if b.run(t.Context(), d); d.attempts != want {
					t.Errorf("the call after it made %d attempts, want %d", d.attempts, want)
				}
				b.idle("v1")
			})
		})
	}
}

func TestTimeoutsOfOneCallOnlyShorten(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		options CallOptions
		want    time.Duration
	}{
		{"no options", CallOptions{}, 1000 * time.Millisecond},
		{"shorter", CallOptions{Timeout: 300 * time.Millisecond}, 300 * time.Millisecond},
		{"longer", CallOptions{Timeout: time.Hour}, 1000 * time.Millisecond},
		{"an attempt's is shorter", CallOptions{PerTryTimeout: 100 * time.Millisecond, MaxRetries: new(uint32(0))}, 100 * time.Millisecond},
		{"an attempt's is longer", CallOptions{PerTryTimeout: time.Hour, MaxRetries: new(uint32(0))}, 400 * time.Millisecond},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				b.configure(newTarget(routeTimeout(time.Second),
					retrying(retry.Policy{MaxRetries: 3, On: retry.OnReset, PerTryTimeout: 400 * time.Millisecond, Backoff: retry.Backoff{Base: time.Millisecond}})))
				b.took(WithOptions(t.Context(), tt.options), &adapter{attempt: hang}, tt.want)
			})
		})
	}
}

func TestTooLittleTimeIsNotBegun(t *testing.T) {
	t.Parallel()
	minimum := func(d time.Duration) func(*discovery.Target) {
		return func(target *discovery.Target) { top(target).Forward.MinTime = d }
	}
	t.Run("the first attempt", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t)
			b.configure(newTarget(minimum(20 * time.Millisecond)))
			ctx, cancel := context.WithTimeout(t.Context(), 19*time.Millisecond)
			defer cancel()
			d := &adapter{}
			o := b.took(ctx, d, 0)
			e := expectErrorKind(t, o, outcome.Timeout)
			const want = `mesh: target "payment.shop:80": route "top": cluster "v1": not sent: 19ms are left, and it needs 20ms`
			if d.attempts != 0 || e.Error() != want || !e.SafeToRetry() || !e.Timeout() {
				t.Errorf("%d attempts: %v, want %s", d.attempts, e, want)
			}
			ctx, cancel = context.WithTimeout(t.Context(), 20*time.Millisecond)
			defer cancel()
			if o, _ := b.run(ctx, d); o.Status != 200 {
				t.Errorf("with enough time: %v", o.Err)
			}
		})
	})
	t.Run("a retry", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t)
			b.configure(newTarget(routeTimeout(100*time.Millisecond), retrying(retry.Policy{MaxRetries: 5, On: retry.On5xx, Backoff: retry.Backoff{Base: time.Millisecond}})))
			d := &adapter{attempt: func(context.Context, *Attempt, int) outcome.Outcome {
				time.Sleep(60 * time.Millisecond)
				return response(503)
			}}
			o, _ := b.run(WithOptions(t.Context(), CallOptions{MinTime: 50 * time.Millisecond}), d)
			if o.Status != 503 || d.attempts != 1 {
				t.Errorf("%d attempts, outcome %+v", d.attempts, o)
			}
		})
	})
	t.Run("without a limit", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t)
			b.configure(newTarget(minimum(time.Hour)))
			if o, _ := b.run(t.Context(), &adapter{}); o.Status != 200 {
				t.Errorf("got %v", o.Err)
			}
		})
	})
}

func TestAPreferredLocalityIsGoneTo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.configure(newTarget(retrying(retry.Policy{MaxRetries: 1, On: retry.On5xx, AvoidPreviousHosts: true}),
			spread(one(0, "10.0.0.1:80"), one(0, "10.0.0.2:80"), one(0, "10.0.0.3:80"))))
		ctx := WithOptions(t.Context(), CallOptions{Locality: balancer.Locality{Zone: "10.0.0.2:80"}})
		for range 20 {
			d := &adapter{attempt: always(response(503))}
			b.run(ctx, d)
			if d.endpoints[0] != "10.0.0.2:80" || d.endpoints[1] == "10.0.0.2:80" {
				t.Fatalf("went to %q", d.endpoints)
			}
		}
	})
}

func TestTheHashKeyOfACallReachesThePick(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.configure(newTarget())
		_, c := b.run(WithOptions(t.Context(), CallOptions{HashKey: "ada"}), &adapter{})
		_, same := b.run(WithOptions(t.Context(), CallOptions{HashKey: "ada"}), &adapter{})
		_, other := b.run(WithOptions(t.Context(), CallOptions{HashKey: "bob"}), &adapter{})
		if !c.pick.Hashed || c.pick.Hash != same.pick.Hash || c.pick.Hash == other.pick.Hash {
			t.Errorf("hashes %x, %x and %x", c.pick.Hash, same.pick.Hash, other.pick.Hash)
		}
	})
}

func TestTheHighPriorityHasLimitsOfItsOwn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.configure(newTarget(func(target *discovery.Target) { v1(target).Limits[discovery.PriorityDefault].MaxRequests = 0 }))
		if o, _ := b.run(t.Context(), &adapter{}); o.Kind != outcome.Overflow {
			t.Errorf("got %v", o.Kind)
		}
		o, _ := b.run(WithOptions(t.Context(), CallOptions{Priority: discovery.PriorityHigh}), &adapter{})
		if o.Status != 200 {
			t.Errorf("with the high priority: %v", o.Err)
		}
	})
}

// writable is headers that can be changed.
type writable map[string][]string

func (w writable) Values(name string) []string { return w[name] }
func (w writable) Set(name, value string)      { w[name] = []string{value} }
func (w writable) Add(name, value string)      { w[name] = append(w[name], value) }
func (w writable) Del(name string)             { delete(w, name) }

func TestBR19_HeadersControlTheCallAndAreTakenOut(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, value string
		check       func(o *CallOptions) bool
	}{
		{"x-envoy-retry-on", "5xx, reset,unheard-of", func(o *CallOptions) bool { return o.RetryOn == retry.On5xx|retry.OnReset }},
		{"x-envoy-retry-grpc-on", "unavailable", func(o *CallOptions) bool { return o.RetryOn == retry.OnGRPCUnavailable }},
		{"x-envoy-max-retries", "2", func(o *CallOptions) bool { return *o.MaxRetries == 2 }},
		{"x-envoy-max-retries", "-1", func(o *CallOptions) bool { return o.MaxRetries == nil }},
		{"x-envoy-retriable-status-codes", "418, 503,x", func(o *CallOptions) bool {
			return len(o.RetriableStatusCodes) == 2 && o.RetriableStatusCodes[0] == 418 && o.RetriableStatusCodes[1] == 503
		}},
		{"x-envoy-retriable-header-names", "X-Again, ,x-b", func(o *CallOptions) bool { return strings.Join(o.RetriableHeaderNames, " ") == "X-Again x-b" }},
		{"x-envoy-hedge-on-per-try-timeout", "true", func(o *CallOptions) bool { return o.Hedge.OnPerTryTimeout }},
		{"x-envoy-hedge-on-per-try-timeout", "maybe", func(o *CallOptions) bool { return o.Hedge == nil }},
		{"x-envoy-upstream-rq-timeout-ms", "250", func(o *CallOptions) bool { return o.Timeout == 250*time.Millisecond }},
		{"x-envoy-upstream-rq-timeout-ms", "99999999999", func(o *CallOptions) bool { return o.Timeout == 0 }},
		{"x-envoy-upstream-rq-per-try-timeout-ms", "250", func(o *CallOptions) bool { return o.PerTryTimeout == 250*time.Millisecond }},
	}
	for _, tt := range tests {
		t.Run(tt.name+": "+tt.value, func(t *testing.T) {
			t.Parallel()
			var c Call
			h := writable{tt.name: {tt.value}, "x-other": {"1"}}
			if !IsControl(tt.name) || IsControl("x-envoy-expected-rq-timeout-ms") || IsControl("x-envoy-") || IsControl("accept") {
				t.Error("IsControl is wrong")
			}
			c.Control(h)
			if len(h) != 1 {
				t.Errorf("left are %v", h)
			}
			if !tt.check(c.options) {
				t.Errorf("options %+v", c.options)
			}
		})
	}
}

// A header's time applies beside the one of the context's options; 0 is none.
func TestBR19_OfTwoTimesTheShorterHolds(t *testing.T) {
	t.Parallel()
	const given, shorter = 300 * time.Millisecond, 100 * time.Millisecond
	for header, want := range map[string]time.Duration{"0": given, "100": shorter, "300": given, "500": given, "x": given} {
		c := Call{options: &CallOptions{Timeout: given, PerTryTimeout: given}}
		c.Control(writable{timeoutControl: {header}, "x-envoy-upstream-rq-per-try-timeout-ms": {header}})
		if c.options.Timeout != want || c.options.PerTryTimeout != want {
			t.Errorf("%q: %v, and %v for an attempt, want %v", header, c.options.Timeout, c.options.PerTryTimeout, want)
		}
	}
}

func TestBR19_HeadersDoNotChangeTheOptionsOfOtherCalls(t *testing.T) {
	t.Parallel()
	shared := CallOptions{RetriableStatusCodes: make([]int, 1, 8)}
	c := Call{options: &shared}
	c.Control(writable{"x-envoy-retriable-status-codes": {"418"}, "x-envoy-max-retries": {"1"}})
	if len(shared.RetriableStatusCodes) != 1 || shared.RetriableStatusCodes[:2][1] != 0 || shared.MaxRetries != nil {
		t.Errorf("the context's options became %+v", shared)
	}
	if len(c.options.RetriableStatusCodes) != 2 {
		t.Errorf("the call's options are %+v", c.options)
	}
}

var _ route.HeaderMap = writable(nil)
