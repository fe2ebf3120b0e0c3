package httpmesh

import (
	"context"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/retry"
)

// TestS27_NothingStaysCountedOverHTTP: 10,000 calls end in every way that there is,
// with retries and hedges, and nothing counts any more.
func TestS27_NothingStaysCountedOverHTTP(t *testing.T) {
	t.Parallel()
	const callers, each = 50, 200
	onBothProtocols(t, func(t *testing.T, protocol func(*discovery.Target)) {
		var n atomic.Int64
		w := newWorld(t, newTarget(protocol, hedged, func(target *discovery.Target) {
			f := top(target).Forward
			f.Timeout = 200 * time.Millisecond
			f.Retry.PerTryTimeout, f.Retry.On = 90*time.Millisecond, retry.On5xx|retry.OnReset|retry.OnConnectFailure
		}), func(rw http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Upgrade") != "" {
				conn, _, err := http.NewResponseController(rw).Hijack()
				if err != nil {
					return // HTTP/2 has no upgrades
				}
				_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
				_ = conn.Close()
				return
			}
			switch n.Add(1) % 8 {
			case 0:
				rw.WriteHeader(http.StatusServiceUnavailable)
			case 1:
				panic(http.ErrAbortHandler)
			case 2:
				<-r.Context().Done()
			case 3: // so late that it is hedged
				select {
				case <-time.After(70 * time.Millisecond):
				case <-r.Context().Done():
				}
			case 4: // in the middle of its body
				_, _ = rw.Write(make([]byte, 10_000))
				_ = http.NewResponseController(rw).Flush()
				panic(http.ErrAbortHandler)
			default:
				_, _ = rw.Write(make([]byte, 1000))
			}
		})
		var wg sync.WaitGroup
		for i := range callers {
			wg.Go(func() {
				for j := range each {
					ctx, cancel := context.WithCancel(t.Context())
					if (i+j)%7 == 0 {
						time.AfterFunc(time.Duration(j)*time.Millisecond/2, cancel)
					}
					req := newRequest(ctx, t, http.MethodGet, paymentURL, nil)
					if (i+j)%11 == 0 {
						req.Header.Set("Connection", "Upgrade")
						req.Header.Set("Upgrade", "echo")
					}
					resp, err := w.transport.RoundTrip(req)
					if err == nil { // how it ends does not matter
						if (i+j)%3 > 0 {
							_, _ = io.Copy(io.Discard, resp.Body)
						}
						_ = resp.Body.Close()
					}
					cancel()
				}
			})
		}
		wg.Wait()
		synctest.Wait()
		time.Sleep(time.Second) // attempts that were given up have ended
		synctest.Wait()
		w.idle()
		w.mu.Lock()
		defer w.mu.Unlock()
		if len(w.calls) != callers*each {
			t.Errorf("%d calls ended, want %d", len(w.calls), callers*each)
		}
		if len(w.attempts) < callers*each+100 {
			t.Errorf("%d attempts: there were hardly any retries and hedges", len(w.attempts))
		}
	})
}
