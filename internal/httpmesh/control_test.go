package httpmesh

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/pipeline"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/retry"
)

func TestBR19_TheApplicationsHeadersControlItsCall(t *testing.T) {
	t.Parallel()
	onBothProtocols(t, func(t *testing.T, protocol func(*discovery.Target)) {
		var w *world
		var mu sync.Mutex
		var seen []string
		w = newWorld(t, newTarget(protocol, retrying(retry.Policy{MaxRetries: 5, On: retry.OnReset}), func(target *discovery.Target) {
			top(target).Forward.AttemptCount = true
		}), func(rw http.ResponseWriter, r *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			for name := range r.Header {
				if strings.HasPrefix(name, "X-Envoy-") && name != attemptCount {
					t.Errorf("the upstream got %s", name)
				}
			}
			seen = append(seen, r.Header.Get(attemptCount))
			rw.WriteHeader(http.StatusServiceUnavailable)
		})
		req := newRequest(t.Context(), t, http.MethodGet, paymentURL, nil)
		req.Header.Set("X-Envoy-Retry-On", "gateway-error")
		req.Header.Set("X-Envoy-Max-Retries", "2")
		_ = readAll(t, w.do(req))
		if got := strings.Join(seen, " "); got != "1 2 3" {
			t.Errorf("the attempts said that they were %q", got)
		}
		if req.Header.Get("X-Envoy-Retry-On") == "" {
			t.Error("the caller's request was changed")
		}
		w.idle()
	})
}

func TestBR19_TheCallerIsToldHowManyAttemptsThereWere(t *testing.T) {
	t.Parallel()
	onBothProtocols(t, func(t *testing.T, protocol func(*discovery.Target)) {
		var w *world
		w = newWorld(t, newTarget(protocol, retrying(retry.Policy{MaxRetries: 5, On: retry.On5xx}), func(target *discovery.Target) {
			top(target).Forward.AttemptCountInResponse = true
		}), func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set(attemptCount, "99") // another proxy's
			if w.served.Load() < 3 {
				rw.WriteHeader(http.StatusServiceUnavailable)
			}
		})
		resp := w.do(newRequest(t.Context(), t, http.MethodGet, paymentURL, nil))
		_ = readAll(t, resp)
		if got := resp.Header.Values(attemptCount); !slices.Equal(got, []string{"3"}) {
			t.Errorf("told %q", got)
		}
		w.idle()
	})
}

func TestBR19_ARetryAfterATimeoutSaysSo(t *testing.T) {
	t.Parallel()
	onBothProtocols(t, func(t *testing.T, protocol func(*discovery.Target)) {
		var w *world
		var mu sync.Mutex
		var seen []string
		w = newWorld(t, newTarget(protocol, retrying(retry.Policy{MaxRetries: 5, On: retry.On5xx, PerTryTimeout: time.Second}), func(target *discovery.Target) {
			top(target).Forward.TimeoutRetry = true
		}), func(rw http.ResponseWriter, r *http.Request) {
			mu.Lock()
			seen = append(seen, r.Header.Get(timeoutRetry))
			n := len(seen)
			mu.Unlock()
			switch n {
			case 1:
				<-r.Context().Done()
			case 2:
				rw.WriteHeader(http.StatusServiceUnavailable)
			}
		})
		_ = readAll(t, w.do(newRequest(t.Context(), t, http.MethodGet, paymentURL, nil)))
		if !slices.Equal(seen, []string{"", "true", ""}) {
			t.Errorf("the attempts said %q", seen)
		}
		w.idle()
	})
}

func TestBR19_AServerRemovesWhatComesFromOutside(t *testing.T) {
	t.Parallel()
	var got http.Header
	handler, req := newBenchHandler(t, &observe.Hooks{}, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r.Header.Clone() }))
	req.Header = http.Header{"X-Envoy-Expected-Rq-Timeout-Ms": {"1000"}, "X-Other": {"1"}}
	want := req.Header.Clone()
	for i, name := range []string{
		"Retry-On", "Retry-Grpc-On", "Max-Retries", "Retriable-Status-Codes", "Retriable-Header-Names",
		"Hedge-On-Per-Try-Timeout", "Upstream-Rq-Timeout-Ms", "Upstream-Rq-Per-Try-Timeout-Ms",
	} {
		req.Header.Set("X-Envoy-"+name, strconv.Itoa(i))
	}
	handler.ServeHTTP(httptest.NewRecorder(), req)
	if len(got) != len(want) {
		t.Errorf("the application got %v", got)
	}
	for name := range got {
		if pipeline.IsControl(name) {
			t.Errorf("the application got %s", name)
		}
	}
}
