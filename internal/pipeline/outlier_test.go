package pipeline

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/balancer"
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
		{failure(outcome.ConnectFailure), true}, {failure(outcome.Reset), true}, {failure(outcome.PerTryTimeout), true},
		{failure(outcome.Timeout), true}, {outcome.Outcome{Kind: outcome.Timeout}, false},
		{failure(outcome.Canceled), false}, {failure(outcome.Overflow), false}, {failure(outcome.Local), false},
		{failure(outcome.NoEndpoint), false}, {failure(outcome.BodyFailure), false},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t)
			b.configure(newTarget(ejecting(1)))
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

func TestAnEndpointThatWasPassedOverIsReportedOnceInAnAttempt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.configure(newTarget(ejecting(2)))
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
			t.Errorf("ejected after one failure: %q", got)
		}
		b.run(t.Context(), d)
		if got := b.ejected(); len(got) != 2 {
			t.Errorf("ejected after the second failure of both: %q", got)
		}
		b.idle("v1")
	})
}
