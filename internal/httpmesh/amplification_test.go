package httpmesh

import (
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/retry"
)

// With everything failing, slowly, retries and hedges together send at most 1.3 times
// what is offered: a fifth more, and what may always be in flight.
func TestG9_RetriesAndHedgesTogetherAmplifyByLessThanAThird(t *testing.T) {
	t.Parallel()
	for name, hedge := range map[string]*retry.Hedge{
		"retries": nil, "retries and hedges": {Delay: 20 * time.Millisecond}, "hedges on the per-try timeout": {OnPerTryTimeout: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			onBothProtocols(t, func(t *testing.T, protocol func(*discovery.Target)) {
				const calls, perTick = 2000, 10 // 500 a second, each of which takes 100 ms
				w := newWorld(t, newTarget(protocol, retrying(retry.Policy{
					MaxRetries: 5, On: retry.On5xx, Backoff: retry.Backoff{Base: 5 * time.Millisecond}, PerTryTimeout: 80 * time.Millisecond,
				}), func(target *discovery.Target) {
					top(target).Forward.Hedge = hedge
					v1 := target.Clusters["v1"].Cluster
					v1.RetryBudget[0] = &retry.Budget{Percent: 20, MinConcurrency: 3}
				}), func(rw http.ResponseWriter, _ *http.Request) {
					time.Sleep(100 * time.Millisecond)
					rw.WriteHeader(http.StatusServiceUnavailable)
				})
				var wg sync.WaitGroup
				for i := range calls {
					if i%perTick == 0 {
						time.Sleep(20 * time.Millisecond)
					}
					wg.Go(func() {
						if resp, err := w.transport.RoundTrip(newRequest(t.Context(), t, http.MethodGet, paymentURL, nil)); err == nil {
							_ = resp.Body.Close()
						}
					})
				}
				wg.Wait()
				w.idle()
				if ratio := float64(w.served.Load()) / calls; ratio > 1.3 || ratio < 1.05 {
					t.Errorf("%d calls made %d requests: %.2f times", calls, w.served.Load(), ratio)
				}
			})
		})
	}
}

// G9, BR9: a throttle bounds what is sent in number, however few calls there are and
// however long attempts take: where a budget always lets three retries be in flight,
// which beside few calls is much, the throttle ends them.
func TestG9_AThrottleEndsRetriesHoweverFewCallsThereAre(t *testing.T) {
	t.Parallel()
	for name, hedge := range map[string]*retry.Hedge{"retries": nil, "retries and hedges": {Delay: time.Millisecond}} {
		for _, callers := range []int{1, 5, 50} {
			t.Run(fmt.Sprintf("%s, %d callers", name, callers), func(t *testing.T) {
				t.Parallel()
				onBothProtocols(t, func(t *testing.T, protocol func(*discovery.Target)) {
					const each = 30
					w := newWorld(t, newTarget(protocol, retrying(retry.Policy{
						MaxRetries: 10, On: retry.On5xx, Backoff: retry.Backoff{Base: time.Millisecond},
					}), func(target *discovery.Target) {
						top(target).Forward.Hedge = hedge
						v1 := target.Clusters["v1"].Cluster
						v1.RetryBudget[0] = &retry.Budget{Percent: 20, MinConcurrency: 3}
						v1.RetryThrottle = &retry.ThrottleSettings{MaxTokens: 10, TokenRatio: 0.1}
					}), func(rw http.ResponseWriter, _ *http.Request) {
						time.Sleep(3 * time.Millisecond)
						rw.WriteHeader(http.StatusServiceUnavailable)
					})
					var wg sync.WaitGroup
					for range callers {
						wg.Go(func() {
							for range each {
								if resp, err := w.transport.RoundTrip(newRequest(t.Context(), t, http.MethodGet, paymentURL, nil)); err == nil {
									_ = resp.Body.Close()
								}
							}
						})
					}
					wg.Wait()
					w.idle()
					calls := int64(callers * each)
					// Half of the tokens, and the hedges of those who called at first.
					extra := int64(5 + max(3, callers/4))
					if sent := w.served.Load(); sent > calls+extra || sent > calls*13/10 || sent == calls {
						t.Errorf("%d calls made %d requests, want some more, but at most %d and 1.3 times", calls, sent, extra)
					}
				})
			})
		}
	}
}
