package httpmesh

import (
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/outcome"
)

// max_stream_duration ends whatever an application waits for: its client, or
// something else.
func TestBT3_TheMaximumDurationEndsWhatAHandlerWaitsFor(t *testing.T) {
	t.Parallel()
	const answer = "downstream duration timeout\n"
	tests := []struct {
		name   string
		body   func(*testing.T) io.Reader
		serve  http.HandlerFunc
		status int
		answer string
		broken bool // the response has begun, and has no end
	}{
		{"a body that stands still", standsStill, readsAll, 408, answer, false},
		{"a body that moves", moves, readsAll, 408, answer, false},
		{"an application that waits for something else", nil, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, 408, answer, false},
		{"an application that waits for its client and has begun to answer", standsStill, func(rw http.ResponseWriter, r *http.Request) {
			control := http.NewResponseController(rw)
			_ = control.EnableFullDuplex()
			_, _ = io.WriteString(rw, "half")
			_ = control.Flush()
			_, _ = io.Copy(io.Discard, r.Body)
		}, 200, "half", true},
		{"an application whose client does not read", nil, func(rw http.ResponseWriter, _ *http.Request) {
			for {
				if _, err := rw.Write(make([]byte, 64<<10)); err != nil {
					return
				}
			}
		}, 200, "", true},
		{"an application that is in time", nil, func(rw http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(rw, "whole") }, 200, "whole", false},
	}
	for _, tt := range tests {
		for protocol, http2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2": true} {
			t.Run(tt.name+", "+protocol, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t, newTarget(), nil)
					w.serveInbound(paymentAddress, plaintext(func(c *discovery.FilterChain) { c.MaxStreamDuration = time.Second }), "", tt.serve)
					var body io.Reader
					if tt.body != nil {
						body = tt.body(t)
					}
					begin := time.Now()
					resp, err := w.outsider(http2).RoundTrip(newRequest(t.Context(), t, http.MethodPost, paymentURL, body))
					if err != nil {
						t.Fatal(err)
					}
					if tt.broken {
						time.Sleep(time.Until(begin.Add(time.Second))) // who reads at once may read on
					}
					content, err := io.ReadAll(resp.Body)
					took := time.Since(begin)
					_ = resp.Body.Close()
					if (err != nil) != tt.broken || resp.StatusCode != tt.status || tt.answer != "" && string(content) != tt.answer {
						t.Errorf("got %d %.100q, %v, want %d %q", resp.StatusCode, content, err, tt.status, tt.answer)
					}
					if ended := tt.broken || tt.status == 408; ended && took != time.Second {
						t.Errorf("took %v", took)
					}
					if call := w.lastCall(); (call.Outcome.Kind == outcome.Local) != (tt.status == 408) {
						t.Errorf("the call ended with %+v", call.Outcome)
					}
				})
			})
		}
	}
}
