package httpmesh

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/retry"
)

// BR7: the server says when to come back, and is asked then, and not later than half of
// that after it.
func TestBR7_TheServerSaysWhenToComeBackOverHTTP(t *testing.T) {
	t.Parallel()
	onBothProtocols(t, func(t *testing.T, protocol func(*discovery.Target)) {
		var w *world
		w = newWorld(t, newTarget(protocol, retrying(retry.Policy{
			MaxRetries: 1, On: retry.On5xx,
			RateLimited: &retry.RateLimited{Max: time.Minute, Headers: []retry.ResetHeader{{Name: "retry-after"}}},
		})), func(rw http.ResponseWriter, _ *http.Request) {
			if w.served.Load() == 1 {
				rw.Header().Set("Retry-After", "4")
				rw.WriteHeader(http.StatusServiceUnavailable)
			}
		})
		begin := time.Now()
		resp := w.do(newRequest(t.Context(), t, http.MethodGet, paymentURL, nil))
		_ = readAll(t, resp)
		if took := time.Since(begin); resp.StatusCode != http.StatusOK || took < 4*time.Second || took > 6*time.Second {
			t.Errorf("status %d after %v", resp.StatusCode, took)
		}
		w.idle()
	})
}

// BR21: what the mesh refuses itself is not retried, whatever the policy says.
func TestBR21_WhatTheMeshRefusesIsNotRetriedOverHTTP(t *testing.T) {
	t.Parallel()
	fault := func(f *discovery.Fault) func(*discovery.Target) {
		return func(target *discovery.Target) {
			target.Listener.Filters = []discovery.HTTPFilter{{Name: "fault", Config: f}}
		}
	}
	for name, tt := range map[string]struct {
		edit     func(*discovery.Target)
		status   int // 0 is an error
		attempts int
	}{
		"a circuit breaker": {edit: func(target *discovery.Target) { target.Clusters["v1"].Cluster.Limits[0].MaxRequests = 0 }, attempts: 1},
		"drop_overload": {edit: func(target *discovery.Target) {
			target.Clusters["v1"].Endpoints.Drops = []discovery.Drop{{Category: "lb", PerMillion: 1_000_000}}
		}, status: 503},
		"an abort":                  {edit: fault(&discovery.Fault{Abort: &discovery.FaultAbort{HTTPStatus: 503, PerMillion: 1_000_000}}), status: 503},
		"the end of a delay's time": {edit: fault(&discovery.Fault{Delay: &discovery.FaultDelay{Fixed: time.Hour, PerMillion: 1_000_000}})},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			onBothProtocols(t, func(t *testing.T, protocol func(*discovery.Target)) {
				w := newWorld(t, newTarget(protocol, retrying(retry.Policy{
					MaxRetries: 3, On: ^retry.Conditions(0), RetriableStatusCodes: []int{503},
				}), tt.edit), func(http.ResponseWriter, *http.Request) {})
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				resp, err := w.transport.RoundTrip(newRequest(ctx, t, http.MethodGet, paymentURL, nil))
				status := 0
				if err == nil {
					status = resp.StatusCode
					_ = readAll(t, resp)
				}
				w.idle()
				if got := w.lastCall().Attempts; status != tt.status || got != tt.attempts || w.served.Load() != 0 {
					t.Errorf("status %d, %v, after %d attempts, of which %d arrived", status, err, got, w.served.Load())
				}
			})
		})
	}
}
