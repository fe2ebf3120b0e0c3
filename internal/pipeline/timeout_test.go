package pipeline

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/outcome"
	"github.com/inboardmesh/inboard/retry"
)

// took runs a call and checks how long it took.
func (b *bench) took(ctx context.Context, d *adapter, want time.Duration) outcome.Outcome {
	b.t.Helper()
	begin := time.Now()
	o, _ := b.run(ctx, d)
	if got := time.Since(begin); got != want {
		b.t.Errorf("the call took %v, want %v", got, want)
	}
	b.idle("v1")
	return o
}

func TestBT1_TheRoutesTimeoutEndsTheCall(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.configure(newTarget(routeTimeout(time.Second), retrying(retry.Policy{MaxRetries: 3, On: retry.On5xx})))
		d := &adapter{attempt: hang}
		o := b.took(t.Context(), d, time.Second)
		e := expectErrorKind(t, o, outcome.Timeout)
		if d.attempts != 1 || !errors.Is(e, context.DeadlineExceeded) || !e.Timeout() || e.SafeToRetry() {
			t.Errorf("%d attempts: %v", d.attempts, e)
		}
	})
}

func TestBT1_WithoutATimeoutNothingEndsTheCall(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.configure(newTarget())
		b.took(t.Context(), &adapter{attempt: func(ctx context.Context, a *Attempt, _ int) outcome.Outcome {
			if _, ok := ctx.Deadline(); ok || !a.Deadline.IsZero() {
				t.Error("there is a deadline")
			}
			time.Sleep(24 * time.Hour)
			return response(200)
		}}, 24*time.Hour)
	})
}

func TestBT3_TheListenersLimitAppliesWhereTheRouteHasNone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.configure(newTarget(func(t *discovery.Target) { t.Listener.MaxStreamDuration = 2 * time.Second }))
		expectErrorKind(t, b.took(t.Context(), &adapter{attempt: hang}, 2*time.Second), outcome.Timeout)
	})
}

func TestBT2_ThePerTryTimeoutEndsAnAttempt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.configure(newTarget(retrying(retry.Policy{PerTryTimeout: time.Second})))
		o := b.took(t.Context(), &adapter{attempt: hang}, time.Second)
		e := expectErrorKind(t, o, outcome.PerTryTimeout)
		if !errors.Is(e, context.DeadlineExceeded) || !e.Timeout() {
			t.Errorf("got %v", e)
		}
		b.expect("call", "attempt 1", "attempt 1 ended: per-try-timeout", "call ended: per-try-timeout")
	})
}

// grpc-go calls an attempt whose context was canceled CANCELLED, and the peer, if
// it noticed first, DEADLINE_EXCEEDED. It is one failure, and no condition about
// cancellation holds for it.
func TestBT2_WhoeverNoticesFirstAGRPCAttemptThatIsTooLateIsNotCancelled(t *testing.T) {
	t.Parallel()
	for _, code := range []codes.Code{codes.Canceled, codes.DeadlineExceeded} {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t)
			b.configure(newTarget(routeTimeout(time.Minute), retrying(retry.Policy{
				PerTryTimeout: time.Second, MaxRetries: 3, On: retry.OnGRPCCancelled | retry.OnGRPCUnavailable,
			})))
			d := &adapter{attempt: func(ctx context.Context, _ *Attempt, _ int) outcome.Outcome {
				<-ctx.Done()
				return outcome.Outcome{Kind: outcome.Canceled, GRPC: true, Code: uint32(code), Sent: true, Err: ctx.Err()}
			}}
			o := b.took(t.Context(), d, time.Second)
			expectErrorKind(t, o, outcome.PerTryTimeout)
			if d.attempts != 1 || codes.Code(o.Code) != codes.DeadlineExceeded {
				t.Errorf("%v: %d attempts, then %v", code, d.attempts, codes.Code(o.Code))
			}
		})
	}
}

// Its time ends with the response's headers: a body may take longer.
func TestBT2_AnAnswerEndsThePerTryTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.configure(newTarget(retrying(retry.Policy{PerTryTimeout: time.Second})))
		var attempt context.Context
		c := b.prepare(&adapter{attempt: func(ctx context.Context, _ *Attempt, _ int) outcome.Outcome {
			attempt = ctx //nolint:fatcontext // to look at it afterwards
			return response(200)
		}})
		o := c.Run(t.Context(), getCharge())
		time.Sleep(time.Hour)
		if err := attempt.Err(); err != nil {
			t.Errorf("the attempt's context ended while its body is read: %v", err)
		}
		c.Finish(o)
		if attempt.Err() == nil {
			t.Error("the attempt's context goes on after the call")
		}
		b.idle("v1")
	})
}

// A response whose headers come at the very limit has a context that has ended: its
// body could not be read.
func TestBT2_AnAnswerAtTheVeryLimitIsTooLate(t *testing.T) {
	t.Parallel()
	for _, grpc := range []bool{false, true} {
		for _, waits := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				b.configure(newTarget(retrying(retry.Policy{MaxRetries: 1, On: retry.On5xx, PerTryTimeout: time.Second})))
				d := &adapter{attempt: func(ctx context.Context, _ *Attempt, n int) outcome.Outcome {
					if waits {
						_ = ctx.Done()
					}
					if n == 1 {
						time.Sleep(time.Second)
					}
					o := response(200)
					o.GRPC = grpc
					return o
				}}
				o, c := b.run(t.Context(), d)
				want, abandoned := 2, 2 // as too late, and as one that another follows
				if grpc {
					want, abandoned = 1, 0 // it is complete
				}
				if o.Kind != outcome.Response || c.Observed.Attempts != want || d.abandoned != abandoned {
					t.Errorf("gRPC %t: %v after %d attempts, %d let go of", grpc, o.Kind, c.Observed.Attempts, d.abandoned)
				}
				if !grpc && b.tries[0].Outcome.Kind != outcome.PerTryTimeout {
					t.Errorf("the first ended with %v", b.tries[0].Outcome.Kind)
				}
				b.idle("v1")
			})
		}
	}
}

// What an adapter lets go of may depend on the attempt's context: a connection
// is lost if that has ended.
func TestAnAttemptsContextEndsAfterItWasAbandoned(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.configure(newTarget(retrying(retry.Policy{On: retry.On5xx, MaxRetries: 1, PerTryTimeout: time.Second})))
		var attempt context.Context
		d := &adapter{attempt: func(ctx context.Context, _ *Attempt, n int) outcome.Outcome {
			attempt = ctx //nolint:fatcontext // to look at it afterwards
			return response(map[int]int{1: 503, 2: 200}[n])
		}}
		d.abandon = func() {
			if err := attempt.Err(); err != nil {
				t.Errorf("the context ended before: %v", err)
			}
		}
		b.run(t.Context(), d)
		if d.abandoned != 1 {
			t.Errorf("%d attempts were abandoned", d.abandoned)
		}
	})
}

// A stream is open before its response has begun.
func TestBT2_AnAdapterMayKeepThePerTryTimeoutRunning(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.configure(newTarget(retrying(retry.Policy{PerTryTimeout: time.Second})))
		open := func() (*Call, context.Context, *Attempt) {
			var ctx context.Context
			var attempt *Attempt
			c := b.prepare(&adapter{attempt: func(attemptCtx context.Context, a *Attempt, _ int) outcome.Outcome {
				a.KeepPerTry = true
				ctx, attempt = attemptCtx, a //nolint:fatcontext // to look at it afterwards
				return response(200)
			}})
			c.Run(t.Context(), getCharge())
			return c, ctx, attempt
		}
		first, ctx, _ := open()
		time.Sleep(time.Second)
		synctest.Wait()
		if ctx.Err() == nil {
			t.Error("the per-try timeout did not end the stream")
		}
		o := first.Resume(failure(outcome.Reset))
		expectErrorKind(t, o, outcome.PerTryTimeout)

		second, ctx, attempt := open()
		attempt.Started()
		time.Sleep(time.Hour)
		if err := ctx.Err(); err != nil {
			t.Errorf("the stream ended after it had started: %v", err)
		}
		second.Finish(response(200))
		b.idle("v1")
	})
}

func TestBT2_APerTryTimeoutNotBelowTheRoutesHasNoEffect(t *testing.T) {
	t.Parallel()
	for _, perTry := range []time.Duration{time.Second, 2 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t)
			b.configure(newTarget(routeTimeout(time.Second), retrying(retry.Policy{MaxRetries: 3, On: retry.On5xx, PerTryTimeout: perTry})))
			expectErrorKind(t, b.took(t.Context(), &adapter{attempt: hang}, time.Second), outcome.Timeout)
		})
	}
}

func TestS25_PerTryAndGlobalTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.configure(newTarget(routeTimeout(350*time.Millisecond),
			retrying(retry.Policy{MaxRetries: 10, On: retry.On5xx, PerTryTimeout: 100 * time.Millisecond})))
		for range 50 {
			d := &adapter{attempt: hang}
			begin := time.Now()
			o := b.took(t.Context(), d, 350*time.Millisecond)
			expectErrorKind(t, o, outcome.Timeout)
			if d.attempts > 4 {
				t.Errorf("%d attempts", d.attempts)
			}
			for _, at := range d.began {
				if !at.Before(begin.Add(350 * time.Millisecond)) {
					t.Errorf("an attempt began %v after the call", at.Sub(begin))
				}
			}
		}
	})
}

// BR22: the overall timeout covers back-off, and no attempt begins after it.
func TestBR22_NothingBeginsAfterTheTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.configure(newTarget(routeTimeout(time.Second),
			retrying(retry.Policy{MaxRetries: 1000, On: retry.On5xx, Backoff: retry.Backoff{Base: 10 * time.Millisecond, Max: 300 * time.Millisecond}})))
		for range 100 {
			d := &adapter{attempt: always(response(503))}
			begin := time.Now()
			o := b.took(t.Context(), d, time.Second)
			e := expectErrorKind(t, o, outcome.Timeout)
			if e.SafeToRetry() {
				t.Error("a call with attempts is safe to retry")
			}
			if last := d.began[len(d.began)-1]; !last.Before(begin.Add(time.Second)) {
				t.Errorf("an attempt began %v after the call", last.Sub(begin))
			}
		}
	})
}

func TestTheCallersDeadlineCounts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.configure(newTarget(routeTimeout(time.Minute), retrying(retry.Policy{MaxRetries: 3, On: retry.On5xx})))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		d := &adapter{attempt: func(ctx context.Context, a *Attempt, n int) outcome.Outcome {
			if deadline, _ := ctx.Deadline(); !deadline.Equal(a.Deadline) || time.Until(deadline) > time.Second {
				t.Errorf("the attempt's deadline is %v, the context's %v", a.Deadline, deadline)
			}
			return hang(ctx, a, n)
		}}
		expectErrorKind(t, b.took(ctx, d, time.Second), outcome.Timeout)
	})
}

func TestBT7_TheAttemptsDeadlineIsTheEarliest(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		route, perTry, caller, want time.Duration
	}{
		"the route's":   {route: time.Second, perTry: 2 * time.Second, caller: 3 * time.Second, want: time.Second},
		"the attempt's": {route: 2 * time.Second, perTry: time.Second, caller: 3 * time.Second, want: time.Second},
		"the caller's":  {route: 2 * time.Second, perTry: 3 * time.Second, caller: time.Second, want: time.Second},
		"only a route's": {
			route: time.Second, want: time.Second,
		},
		"only an attempt's": {perTry: time.Second, want: time.Second},
		"only the caller's": {caller: time.Second, want: time.Second},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				b.configure(newTarget(routeTimeout(tt.route), retrying(retry.Policy{PerTryTimeout: tt.perTry})))
				ctx := t.Context()
				if tt.caller > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, tt.caller)
					defer cancel()
				}
				b.run(ctx, &adapter{attempt: func(_ context.Context, a *Attempt, _ int) outcome.Outcome {
					if got := time.Until(a.Deadline); got != tt.want {
						t.Errorf("the deadline is in %v, want %v", got, tt.want)
					}
					return response(200)
				}})
			})
		})
	}
}

// The peer knows the deadline, too, and may be the first to notice it: what it
// says then is the same as what the own clock would have said.
func TestAPeerThatNoticesTheDeadlineFirstChangesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		for name, tt := range map[string]struct {
			edit []func(*discovery.Target)
			want outcome.Kind
		}{
			"the route's":   {[]func(*discovery.Target){routeTimeout(time.Second)}, outcome.Timeout},
			"the attempt's": {[]func(*discovery.Target){routeTimeout(2 * time.Second), retrying(retry.Policy{PerTryTimeout: time.Second})}, outcome.PerTryTimeout},
		} {
			b.configure(newTarget(tt.edit...))
			o, _ := b.run(t.Context(), &adapter{attempt: func(context.Context, *Attempt, int) outcome.Outcome {
				time.Sleep(time.Second)
				return outcome.Outcome{Kind: outcome.Response, GRPC: true, Code: 4, Sent: true, Err: errors.New("deadline exceeded")}
			}})
			if o.Kind != tt.want {
				t.Errorf("%s: got %v, want %v", name, o.Kind, tt.want)
			}
		}
	})
}

func TestACancelIsNobodysFailure(t *testing.T) {
	t.Parallel()
	for name, script := range map[string]func(context.Context, *Attempt, int) outcome.Outcome{
		"in an attempt":  hang,
		"in the backoff": always(response(503)),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				b.configure(newTarget(retrying(retry.Policy{MaxRetries: 1 << 20, On: retry.On5xx})))
				ctx, cancel := context.WithCancelCause(t.Context())
				gaveUp := errors.New("gave up")
				time.AfterFunc(time.Second, func() { cancel(gaveUp) })
				o := b.took(ctx, &adapter{attempt: script}, time.Second)
				e := expectErrorKind(t, o, outcome.Canceled)
				if !errors.Is(e, context.Canceled) || !errors.Is(e, gaveUp) || e.Timeout() {
					t.Errorf("got %v", e)
				}
			})
		})
	}
}

// A back-off that ends together with the call's time is not followed by an
// attempt.
func TestBR22_ABackOffUntilTheDeadlineIsTheLast(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.configure(newTarget(routeTimeout(time.Second), retrying(retry.Policy{MaxRetries: 3, On: retry.OnGRPCUnavailable})))
		for range 100 {
			d := &adapter{attempt: always(outcome.Outcome{
				Kind: outcome.Response, GRPC: true, Code: 14, Sent: true,
				Header: func(name string) string {
					if name == "grpc-retry-pushback-ms" {
						return "1000"
					}
					return ""
				},
			})}
			o := b.took(t.Context(), d, time.Second)
			expectErrorKind(t, o, outcome.Timeout)
			if d.attempts != 1 {
				t.Errorf("%d attempts", d.attempts)
			}
		}
	})
}

func TestStartedTellsWhetherItWasInTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.configure(newTarget(retrying(retry.Policy{PerTryTimeout: time.Second})))
		for wait, want := range map[time.Duration]bool{0: true, time.Second - 1: true, time.Second: false, time.Minute: false} {
			b.run(t.Context(), &adapter{attempt: func(_ context.Context, a *Attempt, _ int) outcome.Outcome {
				time.Sleep(wait)
				synctest.Wait()
				if got := a.Started(); got != want {
					t.Errorf("after %v: Started() = %t, want %t", wait, got, want)
				}
				return response(200)
			}})
		}
		b.configure(newTarget())
		b.run(t.Context(), &adapter{attempt: func(_ context.Context, a *Attempt, _ int) outcome.Outcome {
			if !a.Started() {
				t.Error("without a per-try timeout it was not in time")
			}
			return response(200)
		}})
	})
}
