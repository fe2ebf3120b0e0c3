package httpmesh

import (
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/outcome"
	"github.com/inboardmesh/inboard/retry"
)

func TestBR18_EachAttemptHasTheRoutesHeadersOnce(t *testing.T) {
	t.Parallel()
	onBothProtocols(t, func(t *testing.T, protocol func(*discovery.Target)) {
		var mu sync.Mutex
		var seen [][]string
		w := newWorld(t, newTarget(protocol, retrying(retry.Policy{MaxRetries: 2, On: retry.On5xx}), func(target *discovery.Target) {
			top(target).Forward.HostRewrite = "v2.shop"
			top(target).Headers.RequestAdd = []discovery.HeaderValue{{Name: "x-route", Value: "1"}}
		}), func(rw http.ResponseWriter, r *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			seen = append(seen, append(slices.Clone(r.Header["X-Route"]), r.Host))
			rw.WriteHeader(http.StatusServiceUnavailable)
		})
		req := newRequest(t.Context(), t, http.MethodGet, paymentURL, nil)
		_ = readAll(t, w.do(req))
		want := []string{"1", "v2.shop"}
		if !slices.EqualFunc(seen, [][]string{want, want, want}, slices.Equal[[]string]) {
			t.Errorf("the attempts had %q", seen)
		}
		if len(req.Header) != 0 || req.Host != "payment.shop" {
			t.Errorf("the caller's request became %v, %s", req.Header, req.Host)
		}
		w.idle()
	})
}

// BT10: what a timeout ends is over everywhere: at the server, whose stream is
// reset or whose connection is closed, and in every count.
func TestBT10_ATimeoutFreesWhatTheCallHeld(t *testing.T) {
	t.Parallel()
	limits := map[string]func(*discovery.Target){
		"the route's":    limited(time.Second),
		"an attempt's":   retrying(retry.Policy{PerTryTimeout: time.Second}),
		"an idle stream": func(target *discovery.Target) { top(target).Forward.IdleTimeout = new(time.Second) },
	}
	for name, limit := range limits {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			onBothProtocols(t, func(t *testing.T, protocol func(*discovery.Target)) {
				var ended time.Time
				w := newWorld(t, newTarget(protocol, limit), func(_ http.ResponseWriter, r *http.Request) {
					<-r.Context().Done()
					ended = time.Now()
				})
				begin := time.Now()
				resp, err := w.transport.RoundTrip(newRequest(t.Context(), t, http.MethodGet, paymentURL, nil))
				if err == nil || resp != nil {
					t.Fatal("a server that hangs has answered")
				}
				if k := w.lastCall().Outcome.Kind; k != outcome.Timeout && k != outcome.PerTryTimeout {
					t.Errorf("the call ended with %v", k)
				}
				synctest.Wait()
				if got := ended.Sub(begin); got != time.Second {
					t.Errorf("the server learned of it after %v", got)
				}
				w.idle()
			})
		})
	}
}
