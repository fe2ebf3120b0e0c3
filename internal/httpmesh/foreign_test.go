package httpmesh

import (
	"context"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/retry"
)

// TestForeignCodeThatPanicsLeavesNothingOpen: whichever hook panics, or ends the
// goroutine, the caller's body is closed, and so is a response that nobody gets.
func TestForeignCodeThatPanicsLeavesNothingOpen(t *testing.T) {
	t.Parallel()
	hooks := map[string]func(h *observe.Hooks, act func()){
		"CallStarted": func(h *observe.Hooks, act func()) {
			h.CallStarted = func(ctx context.Context, _ *observe.Call) context.Context { act(); return ctx }
		},
		"AttemptStarted": func(h *observe.Hooks, act func()) {
			h.AttemptStarted = func(ctx context.Context, _ *observe.Attempt) context.Context { act(); return ctx }
		},
		"AttemptEnded": func(h *observe.Hooks, act func()) {
			h.AttemptEnded = func(context.Context, *observe.Attempt) { act() }
		},
		"CallEnded":  func(h *observe.Hooks, act func()) { h.CallEnded = func(context.Context, *observe.Call) { act() } },
		"Overflowed": func(h *observe.Hooks, act func()) { h.Overflowed = func(observe.OverflowEvent) { act() } },
	}
	for name, set := range hooks {
		for how, act := range map[string]func(){"panics": func() { panic("foreign") }, "ends the goroutine": runtime.Goexit} {
			t.Run(name+" "+how, func(t *testing.T) {
				t.Parallel()
				onBothProtocols(t, func(t *testing.T, protocol func(*discovery.Target)) {
					target := newTarget(protocol, retrying(retry.Policy{MaxRetries: 1, On: retry.On5xx}))
					target.Clusters["v1"].Cluster.Limits[0].MaxRetries = 0 // Overflowed is told
					w := newWorld(t, target, func(rw http.ResponseWriter, r *http.Request) {
						rw.WriteHeader(http.StatusServiceUnavailable)
						_ = http.NewResponseController(rw).Flush()
						<-r.Context().Done() // until the response is let go of
					})
					set(w.hooks, act)
					body := &tracked{Reader: strings.NewReader("abc")}
					done := make(chan struct{})
					go func() { // ends with the call
						defer close(done)
						defer func() { _ = recover() }()
						resp, err := w.transport.RoundTrip(newRequest(t.Context(), t, http.MethodPost, paymentURL, body))
						if err == nil {
							_ = resp.Body.Close()
						}
					}()
					<-done
					w.handlers.Wait()
					synctest.Wait()
					if body.closed.Load() == 0 {
						t.Error("the caller's body is open")
					}
					w.idle()
				})
			})
		}
	}
}
