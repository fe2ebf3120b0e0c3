package httpmesh

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/outcome"
)

const million = 1_000_000

// slowed limits responses to so many KiB per second.
func slowed(kibPerSecond uint64, edit ...func(*discovery.Fault)) func(*discovery.Target) {
	fault := &discovery.Fault{RateLimit: &discovery.FaultRateLimit{KiBPerSecond: kibPerSecond, PerMillion: million}, MaxActive: 1}
	for _, e := range edit {
		e(fault)
	}
	return func(t *discovery.Target) {
		t.Listener.Filters = []discovery.HTTPFilter{{Name: "fault", Config: fault}}
	}
}

func TestBF8_AResponseArrivesAsSlowlyAsConfigured(t *testing.T) {
	t.Parallel()
	onBothProtocols(t, func(t *testing.T, protocol func(*discovery.Target)) {
		const size = 64 << 10
		w := newWorld(t, newTarget(protocol, slowed(16)), func(rw http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(rw, strings.Repeat("x", size))
		})
		for range 2 { // the fault is not active any more when the first has ended
			start := time.Now()
			resp := w.do(newRequest(t.Context(), t, http.MethodGet, paymentURL, nil))
			if took := time.Since(start); took != 0 {
				t.Errorf("the headers took %v", took)
			}
			if n := len(readAll(t, resp)); n != size {
				t.Errorf("%d bytes arrived", n)
			}
			if took := time.Since(start).Round(time.Microsecond); took != 4*time.Second {
				t.Errorf("the body took %v", took)
			}
		}
		w.idle()
	})
}

func TestBF8_ASlowResponseEndsWithItsCall(t *testing.T) {
	t.Parallel()
	onBothProtocols(t, func(t *testing.T, protocol func(*discovery.Target)) {
		w := newWorld(t, newTarget(protocol, slowed(1), limited(3*time.Second)), func(rw http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(rw, strings.Repeat("x", 64<<10))
		})
		start := time.Now()
		resp := w.do(newRequest(t.Context(), t, http.MethodGet, paymentURL, nil))
		body, err := io.ReadAll(resp.Body)
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 3*time.Second || len(body) < 3000 || len(body) > 3<<10 {
			t.Errorf("%d bytes and %v after %v", len(body), err, time.Since(start))
		}
		if err := resp.Body.Close(); err != nil {
			t.Error(err)
		}
		if c := w.lastCall(); c.Outcome.Kind != outcome.Timeout {
			t.Errorf("the call ended with %v", c.Outcome.Kind)
		}

		// A body that is closed lets go of whoever waits in its Read.
		resp = w.do(newRequest(t.Context(), t, http.MethodGet, paymentURL, nil))
		read := make(chan error, 1)
		go func() {
			_, err := io.Copy(io.Discard, resp.Body)
			read <- err
		}()
		time.Sleep(time.Second + time.Millisecond)
		_ = resp.Body.Close()
		if err := <-read; err == nil {
			t.Error("the reader of a closed body read all of it")
		}
		w.idle()
	})
}

func TestBF8_AServersResponseLeavesAsSlowlyAsConfigured(t *testing.T) {
	t.Parallel()
	writers := map[string]func(http.ResponseWriter, string){
		"Write":       func(w http.ResponseWriter, s string) { _, _ = w.Write([]byte(s)) },
		"WriteString": func(w http.ResponseWriter, s string) { _, _ = io.WriteString(w, s) },
		"ReadFrom":    func(w http.ResponseWriter, s string) { _, _ = io.Copy(w, strings.NewReader(s)) },
	}
	fault := discovery.FilterOverride{Config: &discovery.Fault{RateLimit: &discovery.FaultRateLimit{KiBPerSecond: 100, PerMillion: million}}}
	for name, write := range writers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			body := strings.Repeat("x", 10<<10)
			handler, req := newFilteredHandler(t, &observe.Hooks{}, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { write(w, body) }),
				[]discovery.HTTPFilter{{Name: "fault", Config: &discovery.Fault{}}},
				&discovery.Route{Local: true, Filters: map[string]discovery.FilterOverride{"fault": fault}})
			rec := httptest.NewRecorder()
			start := time.Now()
			handler.ServeHTTP(rec, req)
			// In real time, which is never too short.
			if took := time.Since(start); took < 100*time.Millisecond {
				t.Errorf("it took %v", took)
			}
			if rec.Body.String() != body {
				t.Errorf("%d bytes left", rec.Body.Len())
			}
		})
	}
}
