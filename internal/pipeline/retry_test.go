package pipeline

import (
	"context"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/breaker"
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/outcome"
	"github.com/inboardmesh/inboard/retry"
)

func TestS23_AttemptsPerRetryCondition(t *testing.T) {
	t.Parallel()
	answered := map[string]func() outcome.Outcome{
		"200": func() outcome.Outcome { return response(200) },
		"409": func() outcome.Outcome { return response(409) },
		"418": func() outcome.Outcome { return response(418) },
		"500": func() outcome.Outcome { return response(500) },
		"503": func() outcome.Outcome { return response(503) },
		"503 of a rate limit": func() outcome.Outcome {
			o := response(503)
			o.Header = func(name string) string {
				if name == "x-envoy-ratelimited" {
					return "true"
				}
				return ""
			}
			return o
		},
		"connect failure": func() outcome.Outcome { return failure(outcome.ConnectFailure) },
		"reset":           func() outcome.Outcome { return failure(outcome.Reset) },
		"refused stream":  func() outcome.Outcome { return failure(outcome.RefusedStream) },
		"reset before":    func() outcome.Outcome { return failure(outcome.ResetBeforeRequest) },
		"body failure":    func() outcome.Outcome { return failure(outcome.BodyFailure) },
		"overflow":        func() outcome.Outcome { return failure(outcome.Overflow) },
	}
	// How many attempts there are with two retries, where it is not one. What
	// certainly was not processed is repeated once (refused) or three times
	// (nothing written) without asking the policy.
	always := map[string]int{"refused stream": 2, "reset before": 4}
	tests := map[string]map[string]int{
		"":                       {},
		"5xx":                    {"500": 3, "503": 3, "connect failure": 3, "reset": 3, "refused stream": 4, "reset before": 6},
		"gateway-error":          {"503": 3, "connect failure": 3, "reset": 3, "refused stream": 4, "reset before": 6},
		"reset":                  {"connect failure": 3, "reset": 3, "refused stream": 4, "reset before": 6},
		"reset-before-request":   {"connect failure": 3, "reset before": 6},
		"connect-failure":        {"connect failure": 3},
		"refused-stream":         {"refused stream": 4},
		"retriable-4xx":          {"409": 3},
		"retriable-status-codes": {"418": 3},
		"envoy-ratelimited":      {"503 of a rate limit": 3},
	}
	for on, counts := range tests {
		for name, answer := range answered {
			t.Run(on+"/"+name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					conditions, err := retry.ParseConditions(on)
					if err != nil {
						t.Fatal(err)
					}
					b := newBench(t)
					b.configure(newTarget(retrying(retry.Policy{MaxRetries: 2, On: conditions, RetriableStatusCodes: []int{418}})))
					d := &adapter{attempt: func(context.Context, *Attempt, int) outcome.Outcome { return answer() }}
					o, c := b.run(t.Context(), d)
					want := max(1, always[name], counts[name])
					if d.attempts != want || c.Observed.Attempts != want || d.abandoned != want-1 || d.routed != 1 {
						t.Errorf("%d attempts, %d observed, %d abandoned, routed %d times; want %d attempts",
							d.attempts, c.Observed.Attempts, d.abandoned, d.routed, want)
					}
					if got, want := o.Kind, answer().Kind; got != want {
						t.Errorf("the outcome is %v, want %v", got, want)
					}
					b.idle("v1")
				})
			})
		}
	}
}

func TestWhatCannotBeReplayedIsNotTriedAgain(t *testing.T) {
	t.Parallel()
	for _, o := range []outcome.Outcome{response(503), failure(outcome.Reset), failure(outcome.RefusedStream), failure(outcome.ResetBeforeRequest)} {
		t.Run(o.Kind.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				b.configure(newTarget(retrying(retry.Policy{MaxRetries: 5, On: retry.On5xx})))
				d := &adapter{attempt: always(o), unreplayable: true}
				if got, _ := b.run(t.Context(), d); got.Kind != o.Kind || d.attempts != 1 || d.abandoned != 0 {
					t.Errorf("%d attempts, outcome %v, want one and %v", d.attempts, got.Kind, o.Kind)
				}
				b.idle("v1")
			})
		})
	}
}

func TestARetryStopsAtASuccess(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.configure(newTarget(retrying(retry.Policy{MaxRetries: 5, On: retry.On5xx})))
		d := &adapter{attempt: func(_ context.Context, _ *Attempt, n int) outcome.Outcome {
			if n < 3 {
				return response(503)
			}
			return response(201)
		}}
		o, _ := b.run(t.Context(), d)
		if o.Status != 201 || d.attempts != 3 {
			t.Errorf("status %d after %d attempts", o.Status, d.attempts)
		}
		b.expect("call", "attempt 1", "attempt 1 ended: response", "attempt 2", "attempt 2 ended: response",
			"attempt 3", "attempt 3 ended: response", "call ended: response")
	})
}

func TestBR5_BackOffGrowsWithinItsBounds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const calls, retries = 300, 5
		b := newBench(t)
		b.configure(newTarget(retrying(retry.Policy{MaxRetries: retries, On: retry.On5xx})))
		bounds := []int{25, 75, 175, 250, 250} // in ms, Envoy's defaults
		var sum [retries]time.Duration
		for range calls {
			d := &adapter{attempt: always(response(503))}
			b.run(t.Context(), d)
			for i := range retries {
				wait := d.began[i+1].Sub(d.began[i])
				if wait < 0 || wait >= time.Duration(bounds[i])*time.Millisecond {
					t.Errorf("before retry %d: %v, want below %v ms", i+1, wait, bounds[i])
				}
				sum[i] += wait
			}
		}
		for i, total := range sum {
			mean := float64(total) / calls / float64(time.Millisecond)
			want := float64(bounds[i]) / 2
			// The mean of n uniform draws: five standard deviations.
			if tolerance := 5 * float64(bounds[i]) / math.Sqrt(12*calls); math.Abs(mean-want) > tolerance {
				t.Errorf("before retry %d: mean %v ms, want %v ± %v", i+1, mean, want, tolerance)
			}
		}
	})
}

func TestBR16_ARetryAvoidsTheEndpointThatFailed(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		policy retry.Policy
		o      outcome.Outcome
	}{
		"as the policy says":                       {retry.Policy{MaxRetries: 1, On: retry.On5xx, AvoidPreviousHosts: true}, response(503)},
		"always, if it could not be connected to":  {retry.Policy{MaxRetries: 1, On: retry.OnConnectFailure}, failure(outcome.ConnectFailure)},
		"always, if it refused, without a policy":  {retry.Policy{}, failure(outcome.RefusedStream)},
		"always, if it refused, and with a policy": {retry.Policy{MaxRetries: 1, On: retry.OnRefusedStream}, failure(outcome.RefusedStream)},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				b.configure(newTarget(retrying(tt.policy)))
				for range 20 {
					d := &adapter{attempt: func(_ context.Context, _ *Attempt, n int) outcome.Outcome {
						if n == 1 {
							return tt.o
						}
						return response(200)
					}}
					b.run(t.Context(), d)
					if len(d.endpoints) != 2 || d.endpoints[0] == d.endpoints[1] {
						t.Errorf("endpoints %q, want two of them", d.endpoints)
					}
				}
			})
		})
	}
}

func TestBR17_ARetryStaysInItsCluster(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.configure(newTarget(retrying(retry.Policy{MaxRetries: 5, On: retry.On5xx}), func(t *discovery.Target) {
			top(t).Forward.Clusters = []discovery.WeightedCluster{{Name: "v1", Weight: 1}, {Name: "v2", Weight: 1}}
			t.Clusters["v2"] = newCluster("v2", "10.0.1.1:80")
		}))
		for range 20 {
			clusters := map[string]bool{}
			d := &adapter{attempt: func(_ context.Context, a *Attempt, _ int) outcome.Outcome {
				clusters[a.Cluster().Name()] = true
				return response(503)
			}}
			b.run(t.Context(), d)
			if len(clusters) != 1 || d.attempts != 6 {
				t.Errorf("%d attempts in clusters %v", d.attempts, clusters)
			}
		}
	})
}

func TestBR10_RetryOverflowGivesTheOriginalResponse(t *testing.T) {
	t.Parallel()
	limits := map[string]func(*discovery.Target){
		"max_retries": func(t *discovery.Target) { v1(t).Limits[0].MaxRetries = 1 },
		"budget":      func(t *discovery.Target) { v1(t).RetryBudget[0] = &retry.Budget{Percent: 0, MinConcurrency: 1} },
	}
	for name, limit := range limits {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				b.configure(newTarget(limit, retrying(retry.Policy{MaxRetries: 3, On: retry.On5xx})))
				release := make(chan struct{})
				first := &adapter{attempt: func(_ context.Context, _ *Attempt, n int) outcome.Outcome {
					if n > 1 {
						<-release
					}
					return response(503)
				}}
				done := make(chan struct{})
				go func() {
					defer close(done)
					b.run(t.Context(), first)
				}()
				time.Sleep(time.Second) // the first call is in its retry
				b.locked(func() { b.events = nil })
				second := &adapter{attempt: always(response(503))}
				o, _ := b.run(t.Context(), second)
				if o.Kind != outcome.Response || o.Status != 503 || second.attempts != 1 || second.abandoned != 0 {
					t.Errorf("got %+v after %d attempts, want the response of the first", o, second.attempts)
				}
				b.expect("call", "attempt 1", "overflow of v1: retries", "attempt 1 ended: response", "call ended: response")
				close(release)
				<-done
				if first.attempts != 4 {
					t.Errorf("the first call made %d attempts", first.attempts)
				}
				b.idle("v1")
			})
		})
	}
}

func TestBC1_TooManyRequestsOverflow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.configure(newTarget(func(t *discovery.Target) { v1(t).Limits[0].MaxRequests = 2 },
			retrying(retry.Policy{MaxRetries: 3, On: retry.On5xx})))
		release := make(chan struct{})
		done := make(chan struct{}, 2)
		for range 2 {
			go func() {
				b.run(t.Context(), &adapter{attempt: func(context.Context, *Attempt, int) outcome.Outcome {
					<-release
					return response(200)
				}})
				done <- struct{}{}
			}()
		}
		synctest.Wait()
		b.locked(func() { b.events = nil })
		third := &adapter{}
		o, _ := b.run(t.Context(), third)
		e := expectError(t, o, outcome.Overflow, `mesh: target "payment.shop:80": route "top": cluster "v1": circuit breaker: too many requests`)
		if !e.SafeToRetry() || third.attempts != 0 {
			t.Errorf("safe to retry: %t; %d attempts", e.SafeToRetry(), third.attempts)
		}
		b.expect("call", "overflow of v1: requests", "call ended: overflow")
		close(release)
		<-done
		<-done
		b.idle("v1")
	})
}

func TestAnOpenBreakerOverflows(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.configure(newTarget(func(t *discovery.Target) {
			v1(t).Breaker = &breaker.Settings{FailureRatio: 0.5, MinRequests: 4, Window: 10 * time.Second, OpenTime: 5 * time.Second, HalfOpenProbes: 1}
		}, retrying(retry.Policy{MaxRetries: 9, On: retry.On5xx})))
		d := &adapter{attempt: always(response(503))}
		o, _ := b.run(t.Context(), d)
		e := expectError(t, o, outcome.Overflow, `mesh: target "payment.shop:80": route "top": cluster "v1": 5 attempts: error-rate breaker is open`)
		if e.SafeToRetry() || d.attempts != 4 {
			t.Errorf("safe to retry: %t after %d attempts", e.SafeToRetry(), d.attempts)
		}
		refused := &adapter{}
		o, _ = b.run(t.Context(), refused)
		expectError(t, o, outcome.Overflow, `mesh: target "payment.shop:80": route "top": cluster "v1": error-rate breaker is open`)
		if refused.attempts != 0 {
			t.Errorf("an open breaker let %d attempts pass", refused.attempts)
		}
		b.idle("v1")
		time.Sleep(5 * time.Second)
		if o, _ := b.run(t.Context(), &adapter{}); o.Kind != outcome.Response {
			t.Errorf("the probe got %v: %v", o.Kind, o.Err)
		}
		if got := b.cluster("v1").ErrorRate().State(); got != breaker.Closed {
			t.Errorf("the breaker is %v after a successful probe", got)
		}
	})
}

// An attempt that nobody is to blame for says nothing about the cluster.
func TestTheBreakerHearsTheVerdict(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		o    outcome.Outcome
		want breaker.State
	}{
		"failures open it":              {response(500), breaker.Open},
		"broken connections open it":    {failure(outcome.Reset), breaker.Open},
		"the caller's mistakes do not":  {response(404), breaker.Closed},
		"a body that cannot be read":    {failure(outcome.BodyFailure), breaker.Closed},
		"a refusal by a limit does not": {failure(outcome.Overflow), breaker.Closed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				b.configure(newTarget(func(t *discovery.Target) {
					v1(t).Breaker = &breaker.Settings{FailureRatio: 0.5, MinRequests: 4, Window: 10 * time.Second, OpenTime: 5 * time.Second, HalfOpenProbes: 1}
				}))
				for range 4 {
					b.run(t.Context(), &adapter{attempt: always(tt.o)})
				}
				if got := b.cluster("v1").ErrorRate().State(); got != tt.want {
					t.Errorf("the breaker is %v, want %v", got, tt.want)
				}
			})
		})
	}
}

func TestWhatWasNeverSentIsSafeToRetry(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		script []outcome.Outcome
		safe   bool
	}{
		"one connect failure":                {[]outcome.Outcome{failure(outcome.ConnectFailure)}, true},
		"connect failures only":              {[]outcome.Outcome{failure(outcome.ConnectFailure), failure(outcome.ConnectFailure), failure(outcome.ConnectFailure)}, true},
		"a reset":                            {[]outcome.Outcome{failure(outcome.Reset)}, false},
		"a reset before the connect failure": {[]outcome.Outcome{failure(outcome.Reset), failure(outcome.ConnectFailure)}, false},
		"an answer before it":                {[]outcome.Outcome{response(503), failure(outcome.ConnectFailure)}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				b.configure(newTarget(retrying(retry.Policy{MaxRetries: uint32(len(tt.script) - 1), On: retry.On5xx})))
				o, _ := b.run(t.Context(), &adapter{attempt: func(_ context.Context, _ *Attempt, n int) outcome.Outcome { return tt.script[n-1] }})
				last := tt.script[len(tt.script)-1]
				e := expectErrorKind(t, o, last.Kind)
				if e.SafeToRetry() != tt.safe {
					t.Errorf("safe to retry: %t, want %t: %v", e.SafeToRetry(), tt.safe, e)
				}
			})
		})
	}
}
