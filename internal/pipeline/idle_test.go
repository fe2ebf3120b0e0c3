package pipeline

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/outcome"
	"github.com/inboardmesh/inboard/retry"
)

func TestBT2_ThePerTryIdleTimeoutEndsAnAttemptOnWhichNothingMoves(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.configure(newTarget(retrying(retry.Policy{MaxRetries: 1, On: retry.On5xx, PerTryIdleTimeout: time.Second, Backoff: retry.Backoff{Base: time.Millisecond}})))
		d := &adapter{attempt: func(ctx context.Context, a *Attempt, n int) outcome.Outcome {
			if n == 1 {
				return hang(ctx, a, n)
			}
			for range 5 { // it moves, slowly
				time.Sleep(900 * time.Millisecond)
				a.Moved()
			}
			return response(200)
		}}
		c := b.prepare(d)
		begin := time.Now()
		o := c.Run(t.Context(), newRouteRequest())
		if o.Status != 200 || d.attempts != 2 || time.Since(begin) < 5500*time.Millisecond {
			t.Errorf("%v, %d attempts after %v", o.Err, d.attempts, time.Since(begin))
		}
		if kind, _ := c.Last().Ended(); kind != outcome.Response {
			t.Errorf("the answer has ended: %v", kind)
		}
		time.Sleep(time.Second + 1) // it goes on while the answer is read
		synctest.Wait()
		kind, cause := c.Last().Ended()
		if kind != outcome.PerTryTimeout || !errors.Is(cause, errPerTryIdle) {
			t.Errorf("an answer that stands still ended with %v, %v", kind, cause)
		}
		c.Finish(o)
		b.idle("v1")
	})
}

func TestBT6_TheStreamIdleTimeoutEndsTheCall(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name     string
		listener time.Duration
		route    *time.Duration
		want     time.Duration
	}{
		{"the route's", time.Hour, new(time.Second), time.Second},
		{"the listener's", 2 * time.Second, nil, 2 * time.Second},
		{"off by the route", time.Second, new(time.Duration(0)), 3 * time.Second},
		{"none", 0, nil, 3 * time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				b.configure(newTarget(retrying(retry.Policy{MaxRetries: 3, On: retry.On5xx}), routeTimeout(3*time.Second), func(target *discovery.Target) {
					target.Listener.StreamIdleTimeout, top(target).Forward.IdleTimeout = tt.listener, tt.route
				}))
				d := &adapter{attempt: hang}
				expectErrorKind(t, b.took(t.Context(), d, tt.want), outcome.Timeout)
				if d.attempts != 1 {
					t.Errorf("%d attempts", d.attempts)
				}
			})
		})
	}
}

// The table of gRFC A31.
func TestBT4_TheLimitOfAGRPCCall(t *testing.T) {
	t.Parallel()
	const s = time.Second
	tests := []struct {
		name               string
		app, listener      time.Duration
		max, header        *time.Duration
		offset, want, http time.Duration
	}{
		{name: "nothing is set", want: 0},
		{name: "only the application's", app: 20 * s, want: 20 * s, http: 20 * s},
		{name: "the route's duration", max: new(10 * s), want: 10 * s, http: 10 * s},
		{name: "the application's is longer", app: 20 * s, max: new(10 * s), want: 10 * s, http: 10 * s},
		{name: "the application's is shorter", app: 5 * s, max: new(10 * s), want: 5 * s, http: 5 * s},
		{name: "the listener's", listener: 10 * s, want: 10 * s, http: 10 * s},
		{name: "the route's goes before the listener's", listener: 10 * s, max: new(20 * s), want: 20 * s, http: 20 * s},
		{name: "the route turns the listener's off", listener: 10 * s, max: new(0 * s), want: 0},
		{name: "the header's maximum goes before", max: new(10 * s), header: new(7 * s), want: 7 * s, http: 10 * s},
		{name: "a maximum of 0 leaves it to the application", max: new(10 * s), header: new(0 * s), want: 0, http: 10 * s},
		{name: "a maximum of 0, and an application that gave time", app: 20 * s, max: new(10 * s), header: new(0 * s), want: 20 * s, http: 10 * s},
		{name: "less the offset", app: 20 * s, offset: 2 * s, want: 18 * s, http: 20 * s},
		{name: "an offset without a deadline", max: new(10 * s), offset: 2 * s, want: 10 * s, http: 10 * s},
		{name: "an offset, and a shorter route", app: 20 * s, max: new(10 * s), offset: 2 * s, want: 10 * s, http: 10 * s},
	}
	for _, tt := range tests {
		for protocol, want := range map[observe.Protocol]time.Duration{observe.GRPC: tt.want, observe.HTTP: tt.http} {
			t.Run(tt.name+", "+protocol.String(), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					b := newBench(t)
					b.configure(newTarget(func(target *discovery.Target) {
						target.Listener.MaxStreamDuration = tt.listener
						f := top(target).Forward
						f.MaxStreamDuration, f.GRPCTimeoutHeaderMax, f.GRPCTimeoutHeaderOffset = tt.max, tt.header, tt.offset
					}))
					ctx := t.Context()
					if tt.app > 0 {
						var cancel context.CancelFunc
						ctx, cancel = context.WithTimeout(ctx, tt.app)
						defer cancel()
					}
					c := b.prepare(&adapter{})
					c.Observed.Protocol = protocol
					begin := time.Now()
					c.Finish(c.Run(ctx, newRouteRequest()))
					var got time.Duration
					if !c.Deadline.IsZero() {
						got = c.Deadline.Sub(begin)
					}
					if got != want {
						t.Errorf("the call has %v, want %v", got, want)
					}
				})
			})
		}
	}
}

func TestBT5_AnOffsetThatLeavesNothingEndsTheCallAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.configure(newTarget(func(target *discovery.Target) { top(target).Forward.GRPCTimeoutHeaderOffset = time.Second }))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		c := b.prepare(&adapter{attempt: hang})
		c.Observed.Protocol = observe.GRPC
		begin := time.Now()
		expectErrorKind(t, c.Run(ctx, newRouteRequest()), outcome.Timeout)
		if took := time.Since(begin); took != 0 {
			t.Errorf("took %v", took)
		}
		b.idle("v1")
	})
}

// With everything failing a cluster gets at most a fifth more, and what may
// always be in flight (Envoy's default budget).
func TestG9_RetriesAmplifyByLessThanAThird(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.configure(newTarget(retrying(retry.Policy{MaxRetries: 5, On: retry.On5xx, Backoff: retry.Backoff{Base: 5 * time.Millisecond}}), func(target *discovery.Target) {
			v1(target).RetryBudget[0] = &retry.Budget{Percent: 20, MinConcurrency: 3}
			v1(target).Limits[0].MaxRequests = 100_000
		}))
		const offered, perTick = 5000, 10 // 500 a second, each of which takes 100 ms
		ends := make(chan int, offered)
		for i := range offered {
			if i%perTick == 0 {
				time.Sleep(20 * time.Millisecond)
			}
			go func() {
				d := &adapter{attempt: func(context.Context, *Attempt, int) outcome.Outcome {
					time.Sleep(100 * time.Millisecond)
					return response(503)
				}}
				b.run(context.Background(), d)
				ends <- d.attempts
			}()
		}
		sent := 0
		for range offered {
			sent += <-ends
		}
		// A fifth of all that is in flight, the retries included, is a quarter of the rest.
		const most = 1 / (1 - 0.2)
		if ratio := float64(sent) / offered; ratio > most || ratio < 1.05 {
			t.Errorf("%d calls made %d attempts: %.3f times, want at most %v", offered, sent, ratio, most)
		}
		b.idle("v1")
	})
}

func TestS24_BackOffsStayWithinTheirBounds(t *testing.T) {
	t.Parallel()
	bounds := map[observe.Protocol][][2]time.Duration{ // BR5 and BR6, in fake time
		observe.HTTP: {{0, 25 * time.Millisecond}, {0, 75 * time.Millisecond}, {0, 175 * time.Millisecond}, {0, 250 * time.Millisecond}},
		observe.GRPC: {{20 * time.Millisecond, 30 * time.Millisecond}, {40 * time.Millisecond, 60 * time.Millisecond}, {80 * time.Millisecond, 120 * time.Millisecond}, {160 * time.Millisecond, 240 * time.Millisecond}},
	}
	for protocol, want := range bounds {
		t.Run(protocol.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				b.configure(newTarget(retrying(retry.Policy{MaxRetries: 4, On: retry.On5xx | retry.OnGRPCUnavailable})))
				answer := response(503)
				if protocol == observe.GRPC {
					answer = outcome.Outcome{Kind: outcome.Response, GRPC: true, Code: 14, Sent: true}
				}
				waits := make([][]time.Duration, len(want))
				for range 500 {
					d := &adapter{attempt: always(answer)}
					b.run(t.Context(), d)
					for i := range want {
						waits[i] = append(waits[i], d.began[i+1].Sub(d.began[i]))
					}
				}
				for i, w := range waits {
					low, high := slices.Min(w), slices.Max(w)
					span := want[i][1] - want[i][0]
					// 500 draws come within a twentieth of both ends, but for once in 10^11 runs.
					if low < want[i][0] || high >= want[i][1] || low > want[i][0]+span/20 || high < want[i][1]-span/20 {
						t.Errorf("wait %d: between %v and %v, want all of %v", i+1, low, high, want[i])
					}
				}
			})
		})
	}
}
