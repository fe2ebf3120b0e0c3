package pipeline

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/breaker"
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/outcome"
	"github.com/inboardmesh/inboard/retry"
)

// ejecting ejects any host after so many failures in a row of either origin, and
// does not take it back.
func ejecting(threshold uint32) func(*discovery.Target) {
	return func(t *discovery.Target) {
		row := balancer.ConsecutiveFailures{Threshold: threshold, Enforcing: 100}
		v1(t).Outlier = &balancer.OutlierConfig{
			Interval: time.Hour, BaseEjectionTime: time.Hour, MaxEjectionPercent: 100,
			SplitLocalOrigin: true, Consecutive5xx: row, ConsecutiveLocal: row,
		}
		v1(t).Balancer.PanicThreshold = 50 // so that there is always somebody to call
	}
}

// ejected returns the addresses of the ejected endpoints.
func (b *bench) ejected() []string {
	b.t.Helper()
	var addresses []string
	for e := range b.cluster("v1").Endpoints {
		if _, ok := e.Host().Ejected(); ok {
			addresses = append(addresses, e.Address())
		}
	}
	return addresses
}

func TestOutcomesAreTheEndpointsFaultOrNot(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		o     outcome.Outcome
		fault bool
	}{
		{response(200), false}, {response(404), false}, {response(429), false}, {response(500), true}, {response(503), true},
		{outcome.Outcome{Kind: outcome.Response, GRPC: true, Code: 14, Sent: true}, true},
		{outcome.Outcome{Kind: outcome.Response, GRPC: true, Code: 8, Sent: true}, false},
		{failure(outcome.ConnectFailure), false /* who dialed tells */}, {failure(outcome.Reset), true}, {failure(outcome.PerTryTimeout), true},
		{failure(outcome.Timeout), true}, {outcome.Outcome{Kind: outcome.Timeout}, false},
		{failure(outcome.Canceled), false}, {failure(outcome.Overflow), false}, {failure(outcome.Local), false},
		{failure(outcome.NoEndpoint), false}, {failure(outcome.BodyFailure), false},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t)
			b.configure(newTarget(ejecting(1), routeTimeout(time.Minute)))
			d := &adapter{attempt: always(tt.o)}
			b.run(t.Context(), d)
			got := b.ejected()
			if !tt.fault && got != nil || tt.fault && (len(got) != 1 || got[0] != d.endpoints[0]) {
				t.Errorf("%v, status %d, code %d, sent %t: ejected %q after calls to %q", tt.o.Kind, tt.o.Status, tt.o.Code, tt.o.Sent, got, d.endpoints)
			}
		})
	}
}

func TestEveryAttemptIsReportedOnce(t *testing.T) {
	t.Parallel()
	for threshold, want := range map[uint32]int{2: 2, 3: 0} {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t)
			// Four attempts in turn on two endpoints: two failures for each.
			b.configure(newTarget(ejecting(threshold), retrying(retry.Policy{MaxRetries: 3, On: retry.On5xx})))
			d := &adapter{attempt: always(response(503))}
			b.run(t.Context(), d)
			if got := b.ejected(); d.attempts != 4 || len(got) != want {
				t.Errorf("threshold %d: ejected %q after %d attempts on %q", threshold, got, d.attempts, d.endpoints)
			}
		})
	}
}

func TestConnectionsThatCannotBeMadeAreNotTheAttemptsToReport(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.configure(newTarget(ejecting(1)))
		d := &adapter{attempt: func(_ context.Context, a *Attempt, _ int) outcome.Outcome {
			for range 5 { // to and fro between two endpoints
				if _, err := a.Pick(); err != nil {
					t.Error(err)
				}
			}
			return failure(outcome.ConnectFailure)
		}}
		b.run(t.Context(), d)
		if got := b.ejected(); got != nil {
			t.Errorf("ejected by attempts that made no connection: %q", got)
		}
		b.idle("v1")
	})
}

// sent is a request that got its connection, and then no answer.
func sent(ctx context.Context, a *Attempt, n int) outcome.Outcome {
	if err := a.Depart(); err != nil {
		return outcome.Outcome{Kind: outcome.Timeout, Err: err}
	}
	return hang(ctx, a, n)
}

// late is sent after a wait for a connection.
func late(wait time.Duration) func(context.Context, *Attempt, int) outcome.Outcome {
	return func(ctx context.Context, a *Attempt, n int) outcome.Outcome {
		time.Sleep(wait)
		return sent(ctx, a, n)
	}
}

func within(d time.Duration) func(context.Context) (context.Context, context.CancelFunc) {
	return func(ctx context.Context) (context.Context, context.CancelFunc) { return context.WithTimeout(ctx, d) }
}

func optedFor(o CallOptions) func(context.Context) (context.Context, context.CancelFunc) {
	return func(ctx context.Context) (context.Context, context.CancelFunc) {
		return context.WithCancel(WithOptions(ctx, o))
	}
}

func idleLimit(d time.Duration) func(*discovery.Target) {
	return func(t *discovery.Target) { top(t).Forward.IdleTimeout = &d }
}

// What the configuration allows an endpoint counts against it; what a caller allows
// only if that was enough for anybody.
func TestATimeoutIsTheEndpointsFaultOrItsCallers(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		config func(*discovery.Target)
		caller func(context.Context) (context.Context, context.CancelFunc)
		send   func(context.Context, *Attempt, int) outcome.Outcome
		fault  bool
	}{
		{"the route's timeout", routeTimeout(2 * time.Millisecond), context.WithCancel, sent, true},
		{"the route's, and the caller has longer", routeTimeout(2 * time.Millisecond), within(time.Minute), sent, true},
		{"the route's, and the caller has as long", routeTimeout(2 * time.Millisecond), within(2 * time.Millisecond), sent, true},
		{"the per-try timeout", retrying(retry.Policy{PerTryTimeout: 2 * time.Millisecond}), within(time.Minute), sent, true},
		{"the per-try timeout of the caller's choice", nil, optedFor(CallOptions{PerTryTimeout: 2 * time.Millisecond}), sent, true},
		{"the stream's idle timeout", idleLimit(2 * time.Millisecond), within(time.Minute), sent, true},
		{"the caller's deadline of 2 ms", nil, within(2 * time.Millisecond), sent, false},
		{"the caller's deadline, shorter than the route's", routeTimeout(time.Minute), within(2 * time.Millisecond), sent, false},
		{"the caller's deadline, shorter than the per-try timeout", retrying(retry.Policy{PerTryTimeout: time.Minute}), within(2 * time.Millisecond), sent, false},
		{"the call's own timeout of 2 ms", routeTimeout(time.Minute), optedFor(CallOptions{Timeout: 2 * time.Millisecond}), sent, false},
		{"the caller's deadline of a second", nil, within(patience), sent, true},
		{"the call's own timeout of a second", nil, optedFor(CallOptions{Timeout: patience}), sent, true},
		{"a second, most of it before there was a connection", nil, within(patience), late(patience - time.Millisecond), false},
		{"more than a second before there was a connection, and one after", nil, within(3 * patience), late(2 * patience), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				edits := []func(*discovery.Target){ejecting(1)}
				if tt.config != nil {
					edits = append(edits, tt.config)
				}
				b.configure(newTarget(edits...))
				ctx, cancel := tt.caller(t.Context())
				defer cancel()
				o, _ := b.run(ctx, &adapter{attempt: tt.send})
				if got := len(b.ejected()); o.Kind != outcome.Timeout && o.Kind != outcome.PerTryTimeout || got > 0 != tt.fault {
					t.Errorf("%v: %d ejected, the endpoint's fault: %t", o.Err, got, tt.fault)
				}
				if try := b.tries[0].Outcome; try.Excused == tt.fault {
					t.Errorf("the observers were told of it as excused: %t", try.Excused)
				}
				b.idle("v1")
			})
		})
	}
}

// Envoy's router does not count them either: the endpoint has answered.
func TestATimeoutAfterTheResponseHasBegunIsNoFault(t *testing.T) {
	t.Parallel()
	for _, streaming := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t)
			b.configure(newTarget(ejecting(1), routeTimeout(time.Minute)))
			c := b.prepare(&adapter{attempt: func(_ context.Context, a *Attempt, _ int) outcome.Outcome {
				a.KeepPerTry = streaming
				return response(200)
			}})
			c.Run(t.Context(), newRouteRequest())
			if streaming {
				c.Last().Started()
			}
			time.Sleep(time.Minute)
			c.Finish(outcome.Outcome{Kind: outcome.Timeout, Sent: true, Err: context.Cause(c.Context())})
			if got := b.ejected(); got != nil {
				t.Errorf("streaming %t: ejected %q", streaming, got)
			}
		})
	}
}

// The attempts of a call that run beside each other share its fate, and its excuse.
func TestHedgedAttemptsShareTheExcuse(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		timeout time.Duration // of the caller
		want    int
	}{
		{"too short", patience / 2, 0},
		{"long enough for the first", patience + time.Millisecond, 1},
		{"long enough for both", 2 * patience, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				b.configure(newTarget(ejecting(1), retrying(retry.Policy{MaxRetries: 1}), func(t *discovery.Target) {
					top(t).Forward.Hedge = &retry.Hedge{Delay: 10 * time.Millisecond}
				}))
				ctx, cancel := context.WithTimeout(t.Context(), tt.timeout)
				defer cancel()
				d := &adapter{attempt: sent, hedgeable: true}
				b.run(ctx, d)
				synctest.Wait()
				if got := b.ejected(); len(got) != tt.want || d.attempts != 2 {
					t.Errorf("ejected %q after %d attempts, want %d", got, d.attempts, tt.want)
				}
			})
		})
	}
}

// A call that never got a connection, since all were in use, says nothing of the
// endpoint; one that was sent does.
func TestAnExhaustedPoolDoesNotOpenTheEndpointsBreaker(t *testing.T) {
	t.Parallel()
	for _, wasSent := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t)
			b.configure(newTarget(routeTimeout(time.Second), func(t *discovery.Target) {
				v1(t).EndpointBreaker = &breaker.Settings{FailureRatio: 0.5, MinRequests: 1, Window: time.Minute, OpenTime: time.Hour, HalfOpenProbes: 1}
			}))
			d := &adapter{attempt: func(ctx context.Context, _ *Attempt, _ int) outcome.Outcome {
				<-ctx.Done()
				return outcome.Outcome{Kind: outcome.Canceled, Sent: wasSent, Err: context.Cause(ctx)}
			}}
			for range 4 { // on two endpoints in turn
				b.run(t.Context(), d)
			}
			want := 4
			if wasSent {
				want = 2 // then both are open
			}
			if len(d.endpoints) != want {
				t.Errorf("sent %t: admitted to %q, want %d attempts", wasSent, d.endpoints, want)
			}
			b.idle("v1")
		})
	}
}
