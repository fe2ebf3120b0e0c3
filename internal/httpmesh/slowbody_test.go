package httpmesh

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/retry"
)

// TestASlowGetBodyHoldsUpNobodyElse: a hedge whose body is not there yet is no reason to
// wait for, and its body is closed when it comes.
func TestASlowGetBodyHoldsUpNobodyElse(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name         string
		serves, took time.Duration
		status       int // 0 for none
	}{
		{"the first attempt is answered", 200 * time.Millisecond, 200 * time.Millisecond, http.StatusOK},
		{"the time of the call is over", time.Hour, 500 * time.Millisecond, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			onBothProtocols(t, func(t *testing.T, protocol func(*discovery.Target)) {
				target := newTarget(protocol, retrying(retry.Policy{MaxRetries: 1}))
				top(target).Forward.Hedge = &retry.Hedge{Delay: 50 * time.Millisecond}
				w := newWorld(t, target, func(_ http.ResponseWriter, r *http.Request) {
					_, _ = io.Copy(io.Discard, r.Body)
					select {
					case <-time.After(tt.serves):
					case <-r.Context().Done():
					}
				})
				ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
				defer cancel()
				req := newRequest(ctx, t, http.MethodPut, paymentURL, strings.NewReader("abc"))
				req.Header.Set("Idempotency-Key", "1")
				var late tracked
				var asked atomic.Int64
				req.GetBody = func() (io.ReadCloser, error) {
					asked.Add(1)
					time.Sleep(3 * time.Second)
					late.Reader = strings.NewReader("abc")
					return &late, nil
				}
				begin := time.Now()
				resp, err := w.transport.RoundTrip(req)
				took := time.Since(begin)
				status := 0
				if err == nil {
					status = resp.StatusCode
					_ = readAll(t, resp)
				}
				if status != tt.status || took != tt.took {
					t.Errorf("status %d (%v) after %v, want %d after %v", status, err, took, tt.status, tt.took)
				}
				w.idle()
				time.Sleep(3 * time.Second)
				synctest.Wait()
				if asked.Load() != 1 || late.closed.Load() == 0 || w.served.Load() != 1 {
					t.Errorf("GetBody was asked %d times, its body closed %d times, and %d requests arrived", asked.Load(), late.closed.Load(), w.served.Load())
				}
			})
		})
	}
}
