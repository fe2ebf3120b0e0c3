package pipeline

import (
	"context"
	"errors"
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/route"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/outcome"
	"github.com/inboardmesh/inboard/retry"
)

const everyCall = 1_000_000 // per million

func faulty(f *discovery.Fault) func(*discovery.Target) {
	return func(t *discovery.Target) {
		t.Listener.Filters = []discovery.HTTPFilter{{Name: "fault", Config: f}}
	}
}

func TestS28_DelayAndAbortAreDrawnIndependently(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const draws = 10_000
		var faults Faults
		fault := &discovery.Fault{
			Delay: &discovery.FaultDelay{Fixed: time.Second, PerMillion: 50_000},
			Abort: &discovery.FaultAbort{HTTPStatus: 503, PerMillion: 200_000},
		}
		counts := map[string]int{}
		for range draws {
			begin := time.Now()
			answer, err := faults.Inject(t.Context(), fault, getCharge())
			if err != nil {
				t.Fatal(err)
			}
			delayed := time.Since(begin) == time.Second
			if time.Since(begin) != 0 && !delayed {
				t.Fatalf("it took %v", time.Since(begin))
			}
			switch {
			case delayed && answer != nil:
				counts["both"]++
			case delayed:
				counts["delay"]++
			case answer != nil:
				counts["abort"]++
			}
		}
		for name, p := range map[string]float64{"both": 0.2 * 0.05, "delay": 0.05 * 0.8, "abort": 0.2 * 0.95} {
			// Five standard deviations: one failure in 1.7 million runs.
			tolerance := 5 * math.Sqrt(p*(1-p)/draws)
			if got := float64(counts[name]) / draws; math.Abs(got-p) > tolerance {
				t.Errorf("%s: %v of the calls, want %v ± %v", name, got, p, tolerance)
			}
		}
	})
}

func TestAnAbortAnswersWithoutAnAttempt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.configure(newTarget(retrying(retry.Policy{MaxRetries: 3, On: retry.On5xx}), faulty(&discovery.Fault{
			Delay: &discovery.FaultDelay{Fixed: time.Second, PerMillion: everyCall},
			Abort: &discovery.FaultAbort{HTTPStatus: 503, PerMillion: everyCall},
		})))
		d := &adapter{}
		begin := time.Now()
		o, c := b.run(t.Context(), d)
		if o.Kind != outcome.Local || o.Status != 503 || d.attempts+d.routed != 0 {
			t.Errorf("got %+v after %d attempts", o, d.attempts)
		}
		if took := time.Since(begin); took != time.Second {
			t.Errorf("the delay was %v", took)
		}
		if a := c.Answer; a == nil || a.Status != 503 || string(a.Body) != "fault filter abort" || a.Reason != "fault filter abort" {
			t.Errorf("the answer is %+v", c.Answer)
		}
		b.expect("call", "call ended: local")
	})
}

func TestAFaultNeedsItsHeaders(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.configure(newTarget(faulty(&discovery.Fault{
			Abort:   &discovery.FaultAbort{HTTPStatus: 503, PerMillion: everyCall},
			Headers: []discovery.HeaderMatch{{Name: ":path", String: discovery.StringMatch{Value: "/refund"}}},
		})))
		for path, want := range map[string]outcome.Kind{"/charge": outcome.Response, "/refund": outcome.Local} {
			c := b.prepare(&adapter{})
			req := getCharge()
			req.Path = path
			o := c.Run(t.Context(), req)
			c.Finish(o)
			if o.Kind != want {
				t.Errorf("%s: got %v, want %v", path, o.Kind, want)
			}
		}
	})
}

func TestARouteOverridesTheFault(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.configure(newTarget(
			faulty(&discovery.Fault{Abort: &discovery.FaultAbort{HTTPStatus: 503, PerMillion: everyCall}}),
			func(t *discovery.Target) {
				top(t).Filters = map[string]discovery.FilterOverride{"fault": {Disabled: true}}
			}))
		if o, _ := b.run(t.Context(), &adapter{}); o.Kind != outcome.Response {
			t.Errorf("got %v", o.Kind)
		}
	})
}

func TestADeadlineMayPassInADelay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.configure(newTarget(routeTimeout(time.Minute), faulty(&discovery.Fault{Delay: &discovery.FaultDelay{Fixed: time.Hour, PerMillion: everyCall}})))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		d := &adapter{}
		o := b.took(ctx, d, time.Second)
		e := expectError(t, o, outcome.Timeout, `mesh: target "payment.shop:80": route "top": cluster "v1": context deadline exceeded`)
		if !e.SafeToRetry() || d.attempts != 0 {
			t.Errorf("safe to retry: %t after %d attempts", e.SafeToRetry(), d.attempts)
		}
	})
}

// The route's time is not the fault's: the filter is above the router.
func TestADelayDoesNotUseUpTheRoutesTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.configure(newTarget(routeTimeout(time.Second), faulty(&discovery.Fault{Delay: &discovery.FaultDelay{Fixed: time.Hour, PerMillion: everyCall}})))
		expectErrorKind(t, b.took(t.Context(), &adapter{attempt: hang}, time.Hour+time.Second), outcome.Timeout)
	})
}

func TestMaxActiveFaults(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const calls = 10
		var faults Faults
		capped := &discovery.Fault{Delay: &discovery.FaultDelay{Fixed: time.Second, PerMillion: everyCall}, MaxActive: 3}
		other := &discovery.Fault{Delay: &discovery.FaultDelay{Fixed: time.Second, PerMillion: everyCall}, MaxActive: 3}
		for range 2 { // the places are free again after the first round
			var mu sync.Mutex
			delayed := map[*discovery.Fault]int{}
			var wg sync.WaitGroup
			begin := time.Now()
			for _, fault := range []*discovery.Fault{capped, other} {
				for range calls {
					wg.Go(func() {
						if _, err := faults.Inject(t.Context(), fault, getCharge()); err != nil {
							t.Error(err)
						}
						if time.Since(begin) > 0 {
							mu.Lock()
							defer mu.Unlock()
							delayed[fault]++
						}
					})
				}
			}
			wg.Wait()
			if delayed[capped] != 3 || delayed[other] != 3 {
				t.Errorf("%d and %d calls were delayed, want 3 each", delayed[capped], delayed[other])
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := faults.Inject(ctx, capped, getCharge()); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		if len(faults.active) != 0 {
			t.Errorf("%d faults are counted as active", len(faults.active))
		}
	})
}

func TestA33_HTTPStatusAsGRPCStatus(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]codes.Code{
		200: codes.Unknown, 400: codes.Internal, 401: codes.Unauthenticated, 403: codes.PermissionDenied,
		404: codes.Unimplemented, 429: codes.Unavailable, 500: codes.Unknown, 502: codes.Unavailable,
		503: codes.Unavailable, 504: codes.Unavailable,
	} {
		if got := (&Answer{Status: status}).GRPCCode(); got != want {
			t.Errorf("%d is %v, want %v", status, got, want)
		}
	}
	if got := (&Answer{Status: 404, IsGRPC: true, Code: uint32(codes.DataLoss)}).GRPCCode(); got != codes.DataLoss {
		t.Errorf("a gRPC status became %v", got)
	}
}

func TestAnAnswerToAGRPCCallHasAGRPCStatus(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.configure(newTarget(faulty(&discovery.Fault{Abort: &discovery.FaultAbort{HTTPStatus: 401, PerMillion: everyCall}})))
		c := b.prepare(&adapter{})
		c.Observed.Protocol = observe.GRPC
		o := c.Run(t.Context(), &route.Request{Method: "POST", Host: "payment.shop", Path: "/pay.Pay/Charge"})
		if o.Kind != outcome.Local || !o.GRPC || codes.Code(o.Code) != codes.Unauthenticated {
			t.Errorf("got %+v", o)
		}
	})
}
