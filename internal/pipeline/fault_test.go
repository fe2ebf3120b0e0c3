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

// controlled is an adapter of requests with headers that control it.
type controlled struct {
	adapter
	call    *Call
	headers writable
}

func (d *controlled) Routed(*route.Decision) { d.call.Control(d.headers) }

// TestTheTimeOfACallIncludesItsDelays: it begins with the call, whatever the route's own
// timeout does, and ends the delay.
func TestTheTimeOfACallIncludesItsDelays(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		delay   time.Duration
		options CallOptions
		header  string
		took    time.Duration
		tried   int
	}{
		{"it ends in the delay", time.Minute, CallOptions{Timeout: time.Second}, "", time.Second, 0},
		{"it ends after the delay", time.Second, CallOptions{Timeout: 1500 * time.Millisecond}, "", 1500 * time.Millisecond, 1},
		{"it has passed before the delay", time.Minute, CallOptions{Timeout: -1}, "", 0, 0},
		{"the route's begins after the delay", time.Second, CallOptions{Timeout: time.Hour}, "", 3 * time.Second, 1},
		{"Envoy's header does, too", time.Second, CallOptions{}, "500", 1500 * time.Millisecond, 1},
		{"and is no more time than the application gives", time.Second, CallOptions{Timeout: 1500 * time.Millisecond}, "800", 1500 * time.Millisecond, 1},
		{"but may be less", time.Second, CallOptions{Timeout: 1900 * time.Millisecond}, "500", 1500 * time.Millisecond, 1},
		{"which is over in the delay, whatever the header says", time.Minute, CallOptions{Timeout: time.Second}, "500", time.Second, 0},
		{"it has passed, whatever the header says", time.Minute, CallOptions{Timeout: -1}, "500", 0, 0},
		{"the header is no limit", time.Minute, CallOptions{Timeout: time.Second}, "0", time.Second, 0},
		{"the header is no limit, after the delay", time.Second, CallOptions{Timeout: 1500 * time.Millisecond}, "0", 1500 * time.Millisecond, 1},
		{"the header is no limit, but the route's is", time.Second, CallOptions{}, "0", 3 * time.Second, 1},
		{"the header cannot be read", time.Minute, CallOptions{Timeout: time.Second}, "abc", time.Second, 0},
		{"the header cannot be read, after the delay", time.Second, CallOptions{Timeout: 1500 * time.Millisecond}, "abc", 1500 * time.Millisecond, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				b.configure(newTarget(routeTimeout(2*time.Second), faulty(&discovery.Fault{Delay: &discovery.FaultDelay{Fixed: tt.delay, PerMillion: everyCall}})))
				headers := writable{}
				if tt.header != "" {
					headers[timeoutControl] = []string{tt.header}
				}
				d := &controlled{adapter: adapter{attempt: hang}, headers: headers}
				c := b.prepare(&d.adapter)
				b.outbound.Prepare(c, b.outbound.Target(targetName), d)
				d.call = c
				req := newRouteRequest()
				req.Header = headers
				begin := time.Now()
				o := c.Run(WithOptions(t.Context(), tt.options), req)
				if took := time.Since(begin); o.Kind != outcome.Timeout || took != tt.took || d.attempts != tt.tried {
					t.Errorf("%v (%v) after %v and %d attempts, want a timeout after %v and %d", o.Kind, o.Err, took, d.attempts, tt.took, tt.tried)
				}
				b.idle("v1")
			})
		})
	}
}
