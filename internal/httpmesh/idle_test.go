package httpmesh

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/outcome"
	"github.com/inboardmesh/inboard/retry"
)

func TestBT6_AResponseThatStandsStillIsCutOff(t *testing.T) {
	t.Parallel()
	limits := map[string]func(*discovery.Target){
		"by the route":        func(target *discovery.Target) { top(target).Forward.IdleTimeout = new(time.Second) },
		"by the retry policy": retrying(retry.Policy{MaxRetries: 1, On: retry.On5xx, PerTryIdleTimeout: time.Second}),
	}
	for name, limit := range limits {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			onBothProtocols(t, func(t *testing.T, protocol func(*discovery.Target)) {
				w := newWorld(t, newTarget(protocol, limit), func(rw http.ResponseWriter, r *http.Request) {
					for range 5 { // slow, but it moves
						_, _ = io.WriteString(rw, "x")
						_ = http.NewResponseController(rw).Flush()
						time.Sleep(900 * time.Millisecond)
					}
					<-r.Context().Done()
				})
				begin := time.Now()
				resp := w.do(newRequest(t.Context(), t, http.MethodGet, paymentURL, nil))
				body, err := io.ReadAll(resp.Body)
				_ = resp.Body.Close()
				if took := time.Since(begin); err == nil || string(body) != "xxxxx" || took != 4*900*time.Millisecond+time.Second {
					t.Errorf("%q and %v after %v", body, err, took)
				}
				if k := w.lastCall().Outcome.Kind; k != outcome.Timeout && k != outcome.PerTryTimeout {
					t.Errorf("the call ended with %v", k)
				}
				w.idle()
			})
		})
	}
}

// A client that is slow to give its body is not an upstream that stands still.
func TestASlowRequestBodyIsNotIdle(t *testing.T) {
	t.Parallel()
	onBothProtocols(t, func(t *testing.T, protocol func(*discovery.Target)) {
		w := newWorld(t, newTarget(protocol, func(target *discovery.Target) { top(target).Forward.IdleTimeout = new(time.Second) }),
			func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
		body, write := io.Pipe()
		go func() {
			for range 5 {
				time.Sleep(800 * time.Millisecond)
				_, _ = io.Copy(write, strings.NewReader("x"))
			}
			_ = write.Close()
		}()
		resp := w.do(newRequest(t.Context(), t, http.MethodPost, paymentURL, body))
		if _ = readAll(t, resp); resp.StatusCode != http.StatusOK {
			t.Errorf("status %d", resp.StatusCode)
		}
		w.idle()
	})
}
