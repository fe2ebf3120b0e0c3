package httpmesh

import (
	"errors"
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

// A caller who has nothing to send at the moment does not keep a call from noticing
// that its stream has ended, with or without a time limit.
func TestAStalledBodyDoesNotHideThatTheStreamHasEnded(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		getBody bool
		retries uint32
		status  int // of the answer, 0 for none
		served  int64
		took    time.Duration
	}{
		{"nothing is repeated", false, 0, 0, 1, time.Second},
		{"a body that can be had again is", true, 1, http.StatusOK, 2, time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			// Over HTTP/1.1 net/http's server waits for the body before it ends the
			// connection.
			synctest.Test(t, func(t *testing.T) {
				target := newTarget(over(discovery.HTTP2), retrying(retry.Policy{MaxRetries: tt.retries, On: retry.OnReset}))
				var requests atomic.Int64
				w := newWorld(t, target, func(_ http.ResponseWriter, r *http.Request) {
					if requests.Add(1) == 1 {
						_, _ = io.ReadFull(r.Body, make([]byte, len("abc")))
						panic(http.ErrAbortHandler)
					}
					_, _ = io.Copy(io.Discard, r.Body)
				})
				reader, writer := io.Pipe()
				written := make(chan struct{})
				go func() {
					defer close(written)
					_, _ = writer.Write([]byte("abc"))
				}()
				req := newRequest(t.Context(), t, http.MethodPost, paymentURL, reader)
				if tt.getBody {
					req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("abcdef")), nil }
				}
				begin := time.Now()
				resp, err := w.transport.RoundTrip(req)
				took := time.Since(begin)
				status := 0
				if err == nil {
					status = resp.StatusCode
					_ = readAll(t, resp)
				} else if errors.Is(err, io.ErrClosedPipe) {
					t.Errorf("the caller's body is blamed: %v", err)
				}
				<-written
				w.idle()
				if n := requests.Load(); status != tt.status || n != tt.served || took < tt.took || took > tt.took+time.Second {
					t.Errorf("status %d (%v) after %v and %d requests, want %d after %v and %d", status, err, took, n, tt.status, tt.took, tt.served)
				}
			})
		})
	}
}

// A connection that has carried other requests may have been closed while it was idle,
// which shows at once: a request that was served for a while was not too late for it.
func TestARequestThatWasServedForAWhileIsNotRepeated(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		serves   time.Duration
		repeated bool
	}{{"it ends at once", 0, true}, {"it ends after five seconds", 5 * time.Second, false}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, newTarget(over(discovery.HTTP1)), func(_ http.ResponseWriter, r *http.Request) {
					if r.URL.Path == "/dies" {
						time.Sleep(tt.serves)
						panic(http.ErrAbortHandler)
					}
				})
				_ = readAll(t, w.do(newRequest(t.Context(), t, http.MethodGet, paymentURL, nil)))
				resp, err := w.transport.RoundTrip(newRequest(t.Context(), t, http.MethodGet, "http://payment.shop/dies", nil))
				if err == nil {
					_ = resp.Body.Close()
					t.Fatalf("status %d", resp.StatusCode)
				}
				w.idle()
				if n := w.served.Load(); n > 2 != tt.repeated {
					t.Errorf("%d requests were served with the first", n)
				}
			})
		})
	}
}
