package httpmesh

import (
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
