package pipeline

import (
	"context"
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

func TestBF6_AnAbortAnswersWithoutAnAttempt(t *testing.T) {
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

func TestBF6_ADeadlineMayPassInADelay(t *testing.T) {
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
