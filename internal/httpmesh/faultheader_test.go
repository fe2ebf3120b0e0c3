package httpmesh

import (
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/discovery"
)

// onBothSides runs a test with a fault of the client's and with one of the server's,
// over both protocols. send makes a request with headers, and returns its status, how
// long it took, and whether it has arrived.
func onBothSides(t *testing.T, fault *discovery.Fault, test func(t *testing.T, send func(header ...string) (status int, took time.Duration, arrived bool))) {
	t.Helper()
	filters := []discovery.HTTPFilter{{Name: "fault", Config: fault}}
	t.Run("the client's", func(t *testing.T) {
		t.Parallel()
		onBothProtocols(t, func(t *testing.T, protocol func(*discovery.Target)) {
			w := newWorld(t, newTarget(protocol, func(target *discovery.Target) { target.Listener.Filters = filters }), func(rw http.ResponseWriter, _ *http.Request) {
				rw.Header().Set("X-Arrived", "1")
			})
			test(t, w.sending(w.transport))
			w.idle()
		})
	})
	for protocol, http2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2": true} {
		t.Run("the server's, "+protocol, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, newTarget(), nil)
				w.serveInbound(paymentAddress, plaintext(func(c *discovery.FilterChain) { c.Filters = filters }), "",
					http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { rw.Header().Set("X-Arrived", "1") }))
				test(t, w.sending(w.outsider(http2)))
			})
		})
	}
}

func (w *world) sending(over http.RoundTripper) func(header ...string) (status int, took time.Duration, arrived bool) {
	return func(header ...string) (status int, took time.Duration, arrived bool) {
		req := newRequest(w.t.Context(), w.t, http.MethodGet, paymentURL, nil)
		for i := 0; i < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		begin := time.Now()
		resp, err := over.RoundTrip(req)
		if err != nil {
			w.t.Error(err)
			return 0, 0, false
		}
		_ = resp.Body.Close()
		return resp.StatusCode, time.Since(begin), resp.Header.Get("X-Arrived") != ""
	}
}

// The rows of internal/filter/fault, where HTTP sees them.
func TestBF4_HeadersControlFaultsOverHTTP(t *testing.T) {
	t.Parallel()
	const percent = 10_000
	controlled := &discovery.Fault{
		Delay: &discovery.FaultDelay{FromHeader: true, PerMillion: million, Unit: percent},
		Abort: &discovery.FaultAbort{FromHeader: true, PerMillion: million, Unit: percent},
	}
	never := &discovery.Fault{Abort: &discovery.FaultAbort{FromHeader: true, Unit: percent}}
	tests := []struct {
		name   string
		fault  *discovery.Fault
		header []string
		status int
		took   time.Duration
	}{
		{"nothing is asked for", controlled, nil, 200, 0},
		{"an abort", controlled, []string{"x-envoy-fault-abort-request", "418"}, 418, 0},
		{"a delay", controlled, []string{"x-envoy-fault-delay-request", "1500"}, 200, 1500 * time.Millisecond},
		{"a delay, then an abort", controlled, []string{"x-envoy-fault-delay-request", "1500", "x-envoy-fault-abort-request", "503"}, 503, 1500 * time.Millisecond},
		{"an abort of none", controlled, []string{"x-envoy-fault-abort-request", "418", "x-envoy-fault-abort-request-percentage", "0"}, 200, 0},
		{"a delay of none", controlled, []string{"x-envoy-fault-delay-request", "1500", "x-envoy-fault-delay-request-percentage", "0"}, 200, 0},
		{"more than is configured", never, []string{"x-envoy-fault-abort-request", "418", "x-envoy-fault-abort-request-percentage", "100"}, 200, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			onBothSides(t, tt.fault, func(t *testing.T, send func(...string) (int, time.Duration, bool)) {
				status, took, arrived := send(tt.header...)
				if status != tt.status || took != tt.took || arrived != (tt.status == 200) {
					t.Errorf("status %d after %v, arrived %t, want %d after %v", status, took, arrived, tt.status, tt.took)
				}
			})
		})
	}
}

func TestBF3_MaxActiveFaultsOverHTTP(t *testing.T) {
	t.Parallel()
	fault := &discovery.Fault{Delay: &discovery.FaultDelay{Fixed: time.Second, PerMillion: million}, MaxActive: 3}
	onBothSides(t, fault, func(t *testing.T, send func(...string) (int, time.Duration, bool)) {
		for range 2 { // the places are free again after the first round
			var mu sync.Mutex
			times := map[time.Duration]int{}
			var calls sync.WaitGroup
			for range 10 {
				calls.Go(func() {
					_, took, _ := send()
					mu.Lock()
					defer mu.Unlock()
					times[took]++
				})
			}
			calls.Wait()
			if times[0] != 7 || times[time.Second] != 3 {
				t.Errorf("the calls took %v, want 3 of them a second", times)
			}
		}
	})
}
