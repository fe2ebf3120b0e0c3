package grpcmesh_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/retry"
)

// With everything failing, slowly, retries and hedges together send at most 1.3 times
// what is offered: a fifth more, and what may always be in flight.
func TestG9_RetriesAndHedgesTogetherAmplifyByLessThanAThird(t *testing.T) {
	t.Parallel()
	for name, hedge := range map[string]*retry.Hedge{
		"retries": nil, "retries and hedges": {Delay: 20 * time.Millisecond}, "hedges on the per-try timeout": {OnPerTryTimeout: true},
	} {
		for _, kind := range callKinds {
			t.Run(name+", "+kind.name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					const calls, perTick = 1000, 10 // 500 a second, each of which takes 100 ms
					f := newFixture(t)
					b := &backend{before: func(context.Context, int64) error {
						time.Sleep(100 * time.Millisecond)
						return status.Error(codes.Unavailable, "scripted failure")
					}}
					f.serve(endpoint, b)
					route := retrying(4, retry.OnGRPCUnavailable|retry.On5xx)
					route.Forward.Retry.Backoff = retry.Backoff{Base: 5 * time.Millisecond}
					route.Forward.Retry.PerTryTimeout = 80 * time.Millisecond
					route.Forward.Hedge = hedge
					c := cluster("main", endpoint)
					c.Cluster.RetryBudget[0] = &retry.Budget{Percent: 20, MinConcurrency: 3}
					f.configure(route, c)
					client := f.client()
					var wg sync.WaitGroup
					for i := range calls {
						if i%perTick == 0 {
							time.Sleep(20 * time.Millisecond)
						}
						wg.Go(func() {
							ctx := metadata.AppendToOutgoingContext(withTimeout(t), "idempotency-key", "7")
							if err := kind.call(ctx, client); err == nil {
								t.Error("a call went well")
							}
						})
					}
					wg.Wait()
					time.Sleep(time.Second) // the server lets go of what was given up
					synctest.Wait()
					if ratio := float64(b.calls.Load()) / calls; ratio > 1.3 || ratio < 1.05 {
						t.Errorf("%d calls made %d: %.2f times", calls, b.calls.Load(), ratio)
					}
				})
			})
		}
	}
}

// G9, BR9: a throttle bounds what is sent in number, however few calls there are and
// however long attempts take.
func TestG9_AThrottleEndsRetriesHoweverFewCallsThereAre(t *testing.T) {
	t.Parallel()
	for name, hedge := range map[string]*retry.Hedge{"retries": nil, "retries and hedges": {Delay: time.Millisecond}} {
		for _, kind := range callKinds {
			for _, callers := range []int{1, 5, 50} {
				t.Run(fmt.Sprintf("%s, %s, %d callers", name, kind.name, callers), func(t *testing.T) {
					t.Parallel()
					synctest.Test(t, func(t *testing.T) {
						const each = 30
						f := newFixture(t)
						b := &backend{before: func(context.Context, int64) error {
							time.Sleep(3 * time.Millisecond)
							return status.Error(codes.Unavailable, "scripted failure")
						}}
						f.serve(endpoint, b)
						route := retrying(4, retry.OnGRPCUnavailable)
						route.Forward.Retry.Backoff = retry.Backoff{Base: time.Millisecond}
						route.Forward.Hedge = hedge
						c := cluster("main", endpoint)
						c.Cluster.RetryBudget[0] = &retry.Budget{Percent: 20, MinConcurrency: 3}
						c.Cluster.RetryThrottle = &retry.ThrottleSettings{MaxTokens: 10, TokenRatio: 0.1}
						f.configure(route, c)
						client := f.client()
						var wg sync.WaitGroup
						for range callers {
							wg.Go(func() {
								for range each {
									ctx := metadata.AppendToOutgoingContext(withTimeout(t), "idempotency-key", "7")
									if err := kind.call(ctx, client); err == nil {
										t.Error("a call went well")
									}
								}
							})
						}
						wg.Wait()
						time.Sleep(time.Second) // the server lets go of what was given up
						synctest.Wait()
						calls := int64(callers * each)
						// Half of the tokens, and the hedges of those who called at first.
						extra := int64(5 + max(3, callers/4))
						if sent := b.calls.Load(); sent > calls+extra || sent > calls*13/10 || sent == calls {
							t.Errorf("%d calls made %d, want some more, but at most %d and 1.3 times", calls, sent, extra)
						}
					})
				})
			}
		}
	}
}
