package httpmesh

import (
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/outcome"
	"github.com/inboardmesh/inboard/retry"
)

// unavailableAtOnce answers before the request's body has come.
func unavailableAtOnce(rw http.ResponseWriter) {
	control := http.NewResponseController(rw)
	_ = control.EnableFullDuplex() // over HTTP/2 it always is
	rw.WriteHeader(http.StatusServiceUnavailable)
	_ = control.Flush()
}

// An attempt that takes the place of one which still reads the caller's body waits
// for that read, and has what came of it.
func TestBR15_AnAttemptWaitsForTheReadOfTheOneBefore(t *testing.T) {
	t.Parallel()
	onBothProtocols(t, func(t *testing.T, protocol func(*discovery.Target)) {
		var got complete
		var w *world
		w = newWorld(t, newTarget(protocol, retrying(retry.Policy{MaxRetries: 2, On: retry.On5xx})),
			func(rw http.ResponseWriter, r *http.Request) {
				if w.served.Load() == 1 {
					unavailableAtOnce(rw)
					return
				}
				got.read(r)
			})
		body := &tracked{Reader: &pieces{Reader: strings.NewReader("0123456789"), most: 4, pause: time.Second}}
		begin := time.Now()
		resp := w.do(newRequest(t.Context(), t, http.MethodPost, paymentURL, body))
		_ = readAll(t, resp)
		w.idle()
		if resp.StatusCode != http.StatusOK || len(got.hashes) != 1 || got.hashes[0] != sum([]byte("0123456789")) {
			t.Errorf("status %d, complete bodies %v", resp.StatusCode, got.hashes)
		}
		if took := time.Since(begin).Truncate(time.Second); took != 4*time.Second {
			t.Errorf("took %v, the body takes 4s", took)
		}
	})
}

// A wait for another attempt's read ends with the attempt.
func TestBR15_AWaitForTheReadOfAnotherAttemptEndsWithTheAttempt(t *testing.T) {
	t.Parallel()
	onBothProtocols(t, func(t *testing.T, protocol func(*discovery.Target)) {
		var w *world
		w = newWorld(t, newTarget(protocol, limited(10*time.Second), retrying(retry.Policy{MaxRetries: 1, On: retry.On5xx, PerTryTimeout: 3 * time.Second})),
			func(rw http.ResponseWriter, r *http.Request) {
				if w.served.Load() == 1 {
					unavailableAtOnce(rw)
					return
				}
				_, _ = io.Copy(io.Discard, r.Body)
			})
		source, wait := trickle(1, time.Minute)
		defer wait()
		begin := time.Now()
		resp, err := w.transport.RoundTrip(newRequest(t.Context(), t, http.MethodPost, paymentURL, source))
		if err == nil {
			t.Errorf("got %d", resp.StatusCode)
			_ = resp.Body.Close()
		}
		if took := time.Since(begin).Truncate(time.Second); took != 3*time.Second {
			t.Errorf("%v after %v, want the per-try timeout", err, took)
		}
		w.idle()
	})
}

// The caller may set its trailers as long as its body is read, also by an attempt
// that another has replaced, which sends its own.
func TestBR15_TheTrailersOfAnAttemptAreItsOwn(t *testing.T) {
	t.Parallel()
	for _, getBody := range []bool{false, true} {
		onBothProtocols(t, func(t *testing.T, protocol func(*discovery.Target)) {
			var arrived atomic.Int64
			var sums []string
			w := newWorld(t, newTarget(protocol, mirrored(), retrying(retry.Policy{MaxRetries: 3, On: retry.On5xx})),
				func(rw http.ResponseWriter, r *http.Request) {
					if arrived.Add(1) < 3 {
						unavailableAtOnce(rw)
						return
					}
					_, _ = io.Copy(io.Discard, r.Body)
					sums = append(sums, r.Trailer.Get("X-Sum"))
				})
			var shadow arrivals
			w.serve(otherAddress, func(_ http.ResponseWriter, r *http.Request) { shadow.record(r) })
			req := newRequest(t.Context(), t, http.MethodPost, paymentURL, nil)
			req.Trailer = http.Header{"X-Sum": nil}
			open := func() io.ReadCloser {
				return &tracked{Reader: io.MultiReader(strings.NewReader("42"), atEnd(func() {
					time.Sleep(time.Second) // another attempt begins meanwhile
					req.Trailer.Set("X-Sum", "42")
				}))}
			}
			req.Body = open()
			if getBody {
				req.GetBody = func() (io.ReadCloser, error) { return open(), nil }
			}
			resp := w.do(req)
			_ = readAll(t, resp)
			w.idle()
			if resp.StatusCode != http.StatusOK || strings.Join(sums, " ") != "42" {
				t.Errorf("status %d, the trailers were %q", resp.StatusCode, sums)
			}
			if all := shadow.all(); len(all) != 1 || all[0].body != "42" || all[0].trailer.Get("X-Sum") != "42" {
				t.Errorf("the copies are %+v", all)
			}
		})
	}
}

// With its headers a response is the caller's: what becomes of its body is not made
// good by another attempt.
func TestBR13_AResponseThatHasBegunIsFinal(t *testing.T) {
	t.Parallel()
	onBothProtocols(t, func(t *testing.T, protocol func(*discovery.Target)) {
		w := newWorld(t, newTarget(protocol, retrying(retry.Policy{MaxRetries: 3, On: retry.On5xx | retry.OnReset})),
			func(rw http.ResponseWriter, _ *http.Request) {
				_, _ = io.WriteString(rw, "half")
				_ = http.NewResponseController(rw).Flush()
				panic(http.ErrAbortHandler)
			})
		resp := w.do(newRequest(t.Context(), t, http.MethodGet, paymentURL, nil))
		content, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		w.idle()
		if c := w.lastCall(); string(content) != "half" || err == nil || w.served.Load() != 1 || c.Attempts != 1 || c.Outcome.Kind != outcome.Reset {
			t.Errorf("got %q, %v after %d requests; the call ended with %v", content, err, w.served.Load(), c.Outcome.Kind)
		}
	})
}
