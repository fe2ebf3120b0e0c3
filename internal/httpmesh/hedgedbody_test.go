package httpmesh

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/retry"
)

// TestAHedgeWithoutABodyLeavesTheOthersAlone: the attempt that cannot have the body again
// is not made, and no other follows it; the one under way has its own, and goes on.
func TestAHedgeWithoutABodyLeavesTheOthersAlone(t *testing.T) {
	t.Parallel()
	gone := errors.New("the file is gone")
	for _, tt := range []struct {
		name   string
		status int // of the first attempt
	}{
		{"the first attempt is answered", http.StatusCreated},
		{"the first attempt fails, and cannot be made again", http.StatusServiceUnavailable},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			onBothProtocols(t, func(t *testing.T, protocol func(*discovery.Target)) {
				target := newTarget(protocol, retrying(retry.Policy{MaxRetries: 3, On: retry.On5xx}))
				top(target).Forward.Hedge = &retry.Hedge{Delay: 50 * time.Millisecond}
				w := newWorld(t, target, func(rw http.ResponseWriter, r *http.Request) {
					_, _ = io.Copy(io.Discard, r.Body)
					time.Sleep(200 * time.Millisecond)
					rw.WriteHeader(tt.status)
				})
				req := newRequest(t.Context(), t, http.MethodPut, paymentURL, strings.NewReader("abc"))
				req.Header.Set("Idempotency-Key", "1")
				asked := 0
				req.GetBody = func() (io.ReadCloser, error) {
					asked++
					return nil, gone
				}
				begin := time.Now()
				resp, err := w.transport.RoundTrip(req)
				if took := time.Since(begin); took < 200*time.Millisecond {
					t.Errorf("the call ended after %v", took)
				}
				if err != nil || resp.StatusCode != tt.status {
					t.Errorf("got %v, %v, want the status %d", resp, err, tt.status)
				} else {
					_ = readAll(t, resp)
				}
				w.idle()
				if n := w.served.Load(); n != 1 || asked != 1 {
					t.Errorf("%d requests arrived, and GetBody was asked %d times", n, asked)
				}
			})
		})
	}
}
