package pipeline

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/breaker"
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/route"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/outcome"
	"github.com/inboardmesh/inboard/retry"
)

const (
	hedgeDelay = 50 * time.Millisecond
	longCall   = 1000 * time.Millisecond
)

func hedgedBy(h retry.Hedge, p retry.Policy) func(*discovery.Target) {
	return func(t *discovery.Target) { top(t).Forward.Hedge, top(t).Forward.Retry = &h, &p }
}

// takes answers attempts each after its own time, unless they are given up.
func takes(answers ...func() (time.Duration, outcome.Outcome)) func(context.Context, *Attempt, int) outcome.Outcome {
	return func(ctx context.Context, _ *Attempt, n int) outcome.Outcome {
		after, o := answers[min(n, len(answers))-1]()
		select {
		case <-time.After(after):
			return o
		case <-ctx.Done():
			return outcome.Outcome{Kind: outcome.Reset, Sent: true, Err: context.Cause(ctx)}
		}
	}
}

func after(ms int, o outcome.Outcome) func() (time.Duration, outcome.Outcome) {
	return func() (time.Duration, outcome.Outcome) { return time.Duration(ms) * time.Millisecond, o }
}

func TestAHedgeIsMadeAndTheFirstGoodAnswerWins(t *testing.T) {
	t.Parallel()
	policy := retry.Policy{MaxRetries: 2, On: retry.On5xx, Backoff: retry.Backoff{Base: time.Millisecond}}
	delay := retry.Hedge{Delay: hedgeDelay}
	perTry := policy
	perTry.PerTryTimeout = hedgeDelay
	onTimeout := retry.Hedge{OnPerTryTimeout: true}
	tests := []struct {
		name     string
		hedge    retry.Hedge
		policy   retry.Policy
		answers  []func() (time.Duration, outcome.Outcome)
		began    []int // milliseconds after the call
		took     int
		status   int
		unhedged bool
	}{
		{name: "the first is quick", hedge: delay, policy: policy, answers: []func() (time.Duration, outcome.Outcome){after(10, response(200))}, began: []int{0}, took: 10, status: 200},
		{name: "the second is quick", hedge: delay, policy: policy, answers: []func() (time.Duration, outcome.Outcome){after(500, response(200)), after(10, response(201))}, began: []int{0, 50}, took: 60, status: 201},
		{name: "the first answers after all", hedge: delay, policy: policy, answers: []func() (time.Duration, outcome.Outcome){after(70, response(200)), after(500, response(201))}, began: []int{0, 50}, took: 70, status: 200},
		{name: "all are slow", hedge: delay, policy: policy, answers: []func() (time.Duration, outcome.Outcome){after(500, response(200)), after(300, response(201)), after(100, response(202))}, began: []int{0, 50, 100}, took: 200, status: 202},
		{name: "no more than the policy allows", hedge: delay, policy: policy, answers: []func() (time.Duration, outcome.Outcome){after(500, response(200))}, began: []int{0, 50, 100}, took: 500, status: 200},
		{name: "no more than the hedge allows", hedge: retry.Hedge{Delay: hedgeDelay, MaxAttempts: 2}, policy: policy, answers: []func() (time.Duration, outcome.Outcome){after(500, response(200))}, began: []int{0, 50}, took: 500, status: 200},
		{name: "a failure hastens the next", hedge: delay, policy: policy, answers: []func() (time.Duration, outcome.Outcome){after(500, response(200)), after(10, response(503)), after(10, response(202))}, began: []int{0, 50, 60}, took: 70, status: 202},
		{name: "what is not retriable is the answer", hedge: delay, policy: policy, answers: []func() (time.Duration, outcome.Outcome){after(500, response(200)), after(10, response(404))}, began: []int{0, 50}, took: 60, status: 404},
		{name: "all fail", hedge: delay, policy: policy, answers: []func() (time.Duration, outcome.Outcome){after(60, response(503)), after(70, response(502)), after(80, response(500))}, began: []int{0, 50, 60}, took: 140, status: 500},
		{name: "after the per-try timeout", hedge: onTimeout, policy: perTry, answers: []func() (time.Duration, outcome.Outcome){after(500, response(200)), after(10, response(201))}, began: []int{0, 50}, took: 60, status: 201},
		{name: "a late failure after the per-try timeout is discarded", hedge: onTimeout, policy: perTry, answers: []func() (time.Duration, outcome.Outcome){after(60, response(503)), after(30, response(201))}, began: []int{0, 50}, took: 80, status: 201},
		{name: "what may not be repeated", unhedged: true, hedge: delay, policy: policy, answers: []func() (time.Duration, outcome.Outcome){after(500, response(200))}, began: []int{0}, took: 500, status: 200},
		{name: "without retries", hedge: delay, policy: retry.Policy{}, answers: []func() (time.Duration, outcome.Outcome){after(500, response(200))}, began: []int{0}, took: 500, status: 200},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				b.configure(newTarget(routeTimeout(longCall), hedgedBy(tt.hedge, tt.policy)))
				begin := time.Now()
				d := &adapter{hedgeable: !tt.unhedged, attempt: takes(tt.answers...)}
				o, c := b.run(t.Context(), d)
				if took := time.Since(begin); o.Status != tt.status || took != time.Duration(tt.took)*time.Millisecond {
					t.Errorf("status %d, %v after %v, want %d after %d ms", o.Status, o.Err, took, tt.status, tt.took)
				}
				synctest.Wait()
				var began []int
				for _, at := range d.began {
					began = append(began, int(at.Sub(begin).Milliseconds()))
				}
				if !slices.Equal(began, tt.began) || c.Observed.Attempts != len(tt.began) {
					t.Errorf("attempts began at %v and %d were counted, want %v", began, c.Observed.Attempts, tt.began)
				}
				if len(b.tries) != len(tt.began) || len(b.calls) != 1 {
					t.Errorf("%d attempts and %d calls ended, want %d and 1", len(b.tries), len(b.calls), len(tt.began))
				}
				for _, a := range b.tries {
					// Here the first one is always under way when another begins.
					if beside := a.Number > 1; a.Hedge != beside {
						t.Errorf("attempt %d: hedge %t", a.Number, a.Hedge)
					}
				}
				if last := b.events[len(b.events)-1]; last != "call ended: response" {
					t.Errorf("the last event was %q", last)
				}
				b.idle("v1")
			})
		})
	}
}

func TestAHedgeGoesToAnotherEndpoint(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.configure(newTarget(hedgedBy(retry.Hedge{Delay: hedgeDelay}, retry.Policy{MaxRetries: 1, On: retry.On5xx})))
		for range 10 {
			d := &adapter{hedgeable: true, attempt: takes(after(500, response(200)), after(10, response(201)))}
			b.run(t.Context(), d)
			if len(d.endpoints) != 2 || d.endpoints[0] == d.endpoints[1] {
				t.Fatalf("attempts went to %q", d.endpoints)
			}
		}
	})
}

func TestLosersAreGivenUpAndLetGoOf(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.configure(newTarget(hedgedBy(retry.Hedge{Delay: hedgeDelay}, retry.Policy{MaxRetries: 1, On: retry.On5xx})))
		canceled := make(chan error, 1)
		d := &adapter{hedgeable: true, attempt: func(ctx context.Context, _ *Attempt, n int) outcome.Outcome {
			if n == 1 {
				<-ctx.Done() // a response that comes nevertheless
				canceled <- ctx.Err()
				time.Sleep(time.Second)
				return response(200)
			}
			return response(201)
		}}
		begin := time.Now()
		o, _ := b.run(t.Context(), d)
		if o.Status != 201 || time.Since(begin) != hedgeDelay {
			t.Errorf("status %d after %v", o.Status, time.Since(begin))
		}
		<-canceled
		b.idle("v1") // it counts no more, although it has not returned
		b.expect("call", "attempt 1", "attempt 2", "attempt 1 ended: canceled", "attempt 2 ended: response", "call ended: response")
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if d.abandoned != 1 {
			t.Errorf("%d responses were let go of", d.abandoned)
		}
	})
}

func TestHedgesAreRetriesForEveryLimit(t *testing.T) {
	t.Parallel()
	limits := map[string]struct {
		edit func(*discovery.Cluster)
		want string
	}{
		"retries":  {func(c *discovery.Cluster) { c.Limits[0].MaxRetries = 0 }, "overflow of v1: retries"},
		"budget":   {func(c *discovery.Cluster) { c.RetryBudget[0] = &retry.Budget{} }, "overflow of v1: retries"},
		"requests": {func(c *discovery.Cluster) { c.Limits[0] = breaker.Limits{MaxRequests: 1, MaxRetries: 3} }, "overflow of v1: requests"},
	}
	for name, tt := range limits {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				b.configure(newTarget(hedgedBy(retry.Hedge{Delay: hedgeDelay}, retry.Policy{MaxRetries: 3, On: retry.On5xx}),
					func(target *discovery.Target) { tt.edit(v1(target)) }))
				d := &adapter{hedgeable: true, attempt: takes(after(500, response(200)))}
				o, _ := b.run(t.Context(), d)
				if o.Status != 200 || d.attempts != 1 {
					t.Errorf("status %d after %d attempts", o.Status, d.attempts)
				}
				if n := len(slices.DeleteFunc(slices.Clone(b.events), func(e string) bool { return e != tt.want })); n != 1 {
					t.Errorf("told %d times of %q: %q", n, tt.want, b.events)
				}
				b.idle("v1")
			})
		})
	}
}

func TestBR13_AHedgeThatWonIsFinal(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.configure(newTarget(hedgedBy(retry.Hedge{Delay: hedgeDelay}, retry.Policy{MaxRetries: 3, On: retry.On5xx})))
		d := &adapter{hedgeable: true, attempt: takes(after(500, response(200)), after(10, response(404)))}
		c := b.prepare(d)
		o := c.Run(t.Context(), &route.Request{Method: "GET", Host: "payment.shop", Path: "/"})
		if o.Status != 404 || c.Last().Observed.Number != 2 {
			t.Errorf("got %+v of attempt %d", o, c.Last().Observed.Number)
		}
		if c.Last().ctx.Err() != nil {
			t.Error("the context of the answer that is being read has ended")
		}
		if u := b.cluster("v1").Gate(0).Usage(); u.Requests != 1 || u.Retries != 1 {
			t.Errorf("in use while the answer is read: %+v", u)
		}
		time.Sleep(time.Second)
		c.Finish(o)
		if d.attempts != 2 {
			t.Errorf("%d attempts", d.attempts)
		}
		b.idle("v1")
	})
}

func TestAHedgedCallEndsWithItsTime(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		bound func(t *testing.T) (context.Context, context.CancelFunc)
		want  outcome.Kind
	}{
		"its route's": {func(t *testing.T) (context.Context, context.CancelFunc) {
			t.Helper()
			return t.Context(), func() {}
		}, outcome.Timeout},
		"its caller's deadline": {func(t *testing.T) (context.Context, context.CancelFunc) {
			t.Helper()
			return context.WithTimeout(t.Context(), longCall)
		}, outcome.Timeout},
		"its caller's patience": {func(t *testing.T) (context.Context, context.CancelFunc) {
			t.Helper()
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(longCall, cancel)
			return ctx, cancel
		}, outcome.Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				limit := longCall
				if name != "its route's" {
					limit = time.Hour
				}
				b.configure(newTarget(routeTimeout(limit), hedgedBy(retry.Hedge{Delay: hedgeDelay}, retry.Policy{MaxRetries: 2, On: retry.On5xx})))
				ctx, cancel := tt.bound(t)
				defer cancel()
				o := b.took(ctx, &adapter{hedgeable: true, attempt: hang}, longCall)
				expectErrorKind(t, o, tt.want)
				synctest.Wait()
				if len(b.tries) != 3 {
					t.Errorf("%d attempts ended", len(b.tries))
				}
			})
		})
	}
}

func TestAPanicOfAHedgedAttemptIsTheCallers(t *testing.T) {
	t.Parallel()
	for name, leave := range map[string]func(){
		"panic":  func() { panic("foreign code") },
		"goexit": runtime.Goexit,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				b.configure(newTarget(hedgedBy(retry.Hedge{Delay: hedgeDelay}, retry.Policy{MaxRetries: 2, On: retry.On5xx})))
				d := &adapter{hedgeable: true, attempt: func(ctx context.Context, a *Attempt, n int) outcome.Outcome {
					if n == 2 {
						leave()
					}
					return hang(ctx, a, n)
				}}
				ended := make(chan any)
				go func() {
					defer func() { ended <- recover() }()
					b.run(t.Context(), d)
					t.Error("the call returned")
				}()
				if got := <-ended; name == "panic" && got != "foreign code" {
					t.Errorf("recovered %v", got)
				}
				synctest.Wait()
				b.idle("v1")
				if len(b.calls) != 1 || len(b.tries) != 2 {
					t.Errorf("%d calls and %d attempts ended", len(b.calls), len(b.tries))
				}
			})
		})
	}
}

// A hook that panics as an attempt begins leaves nothing that closing waits for.
func TestAPanicOfAHookAsAHedgeBeginsLeavesNothing(t *testing.T) {
	t.Parallel()
	for number := 1; number <= 3; number++ {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t)
			b.configure(newTarget(hedgedBy(retry.Hedge{Delay: hedgeDelay}, retry.Policy{MaxRetries: 2, On: retry.On5xx})))
			b.onHook = func(event string) {
				if event == fmt.Sprint("attempt ", number) {
					panic("foreign code")
				}
			}
			ended := make(chan any)
			go func() {
				defer func() { ended <- recover() }()
				b.run(t.Context(), &adapter{hedgeable: true, attempt: hang})
			}()
			if got := <-ended; got != "foreign code" {
				t.Errorf("attempt %d: recovered %v", number, got)
			}
			synctest.Wait()
			b.idle("v1")
			b.outbound.Close()
		})
	}
}

func TestClosingEndsHedgedAttempts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.configure(newTarget(hedgedBy(retry.Hedge{Delay: hedgeDelay}, retry.Policy{MaxRetries: 2, On: retry.On5xx})))
		ended := make(chan outcome.Outcome)
		go func() {
			o, _ := b.run(t.Context(), &adapter{hedgeable: true, attempt: hang})
			ended <- o
		}()
		time.Sleep(hedgeDelay * 3 / 2)
		b.outbound.Close()
		if o := <-ended; o.Kind == outcome.Response {
			t.Errorf("got %+v", o)
		}
	})
}

func TestASlowEndpointIsToldOfItsTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.configure(newTarget(hedgedBy(retry.Hedge{OnPerTryTimeout: true}, retry.Policy{MaxRetries: 1, On: retry.On5xx, PerTryTimeout: hedgeDelay})))
		b.run(t.Context(), &adapter{hedgeable: true, attempt: takes(after(500, response(200)), after(10, response(201)))})
		synctest.Wait()
		slices.SortFunc(b.tries, func(a, b observe.Attempt) int { return a.Number - b.Number })
		if got := fmt.Sprint(b.tries[0].Outcome.Kind, " ", b.tries[1].Outcome.Kind); got != "per-try-timeout response" {
			t.Errorf("the attempts ended with %s", got)
		}
	})
}

// A round of attempts that the closing of the mesh keeps from beginning holds no
// permit for a retry.
func TestClosingBeforeARoundLeavesNoPermit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.configure(newTarget(routeTimeout(longCall), hedgedBy(retry.Hedge{Delay: longCall}, retry.Policy{MaxRetries: 2, On: retry.On5xx})))
		d := &adapter{hedgeable: true, attempt: always(response(503))}
		gate := b.cluster("v1").Gate(discovery.PriorityDefault)
		d.abandon = func() { b.outbound.Close() } // before the second round
		o, _ := b.run(t.Context(), d)
		if o.Kind != outcome.Closed {
			t.Errorf("got %v: %v", o.Kind, o.Err)
		}
		if got := gate.Usage(); got != (breaker.Usage{}) {
			t.Errorf("in use: %+v", got)
		}
	})
}

// TestAHedgedCallEndsWithTheMesh, whatever holds its attempts up: it may be code of the
// application, which the end of a context does not reach.
func TestAHedgedCallEndsWithTheMesh(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.configure(newTarget(routeTimeout(time.Hour), hedgedBy(retry.Hedge{Delay: hedgeDelay}, retry.Policy{MaxRetries: 1, On: retry.On5xx})))
		release := make(chan struct{})
		defer close(release)
		d := &adapter{hedgeable: true, attempt: func(context.Context, *Attempt, int) outcome.Outcome {
			<-release
			return outcome.Outcome{Kind: outcome.BodyFailure}
		}}
		time.AfterFunc(time.Second, b.outbound.Stop)
		begin := time.Now()
		o, _ := b.run(t.Context(), d)
		if took := time.Since(begin); took != time.Second || o.Kind != outcome.Closed {
			t.Errorf("it ended after %v as %v (%v), want 1 s and closed", took, o.Kind, o.Err)
		}
		if len(b.tries) != 2 || len(b.calls) != 1 {
			t.Errorf("%d attempts and %d calls ended, want 2 and 1", len(b.tries), len(b.calls))
		}
		b.idle("v1")
	})
}
