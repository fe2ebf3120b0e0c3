package httpmesh

import (
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/outcome"
	"github.com/inboardmesh/inboard/retry"
)

// slowly has connections take so long.
func (w *world) slowly(d time.Duration) {
	w.dialed = func(conn net.Conn) net.Conn {
		time.Sleep(d)
		return conn
	}
}

// BT7: what the next hop is told is left when the request is sent, after the wait
// for a connection.
func TestBT7_TheWaitForAConnectionIsTakenFromWhatTheNextHopIsTold(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ perTry, want time.Duration }{{0, 3 * time.Second}, {2500 * time.Millisecond, 3 * time.Second}} {
		onBothProtocols(t, func(t *testing.T, protocol func(*discovery.Target)) {
			var told string
			w := newWorld(t, newTarget(protocol, limited(5*time.Second), retrying(retry.Policy{PerTryTimeout: tt.perTry})),
				func(_ http.ResponseWriter, r *http.Request) { told = r.Header.Get(DefaultDeadlineHeader) })
			w.slowly(2 * time.Second)
			_ = readAll(t, w.do(newRequest(t.Context(), t, http.MethodGet, paymentURL, nil)))
			w.idle()
			if want := strconv.FormatInt(tt.want.Milliseconds(), 10); told != want {
				t.Errorf("per-try timeout %v: the next hop was told %q, want %q", tt.perTry, told, want)
			}
		})
	}
}

// What cannot finish in what the wait for a connection has left is not sent. The
// connection serves the next.
func TestBT7_WhatTheWaitForAConnectionHasLeftMayBeTooLittle(t *testing.T) {
	t.Parallel()
	onBothProtocols(t, func(t *testing.T, protocol func(*discovery.Target)) {
		w := newWorld(t, newTarget(protocol, limited(5*time.Second), retrying(retry.Policy{MaxRetries: 2, On: retry.On5xx | retry.OnReset}),
			func(target *discovery.Target) { top(target).Forward.MinTime = 4 * time.Second }),
			func(http.ResponseWriter, *http.Request) {})
		w.slowly(2 * time.Second)
		body := &tracked{Reader: strings.NewReader("42")}
		begin := time.Now()
		resp, err := w.transport.RoundTrip(newRequest(t.Context(), t, http.MethodPost, paymentURL, body))
		e := failed(t, resp, err, outcome.Timeout)
		if took := time.Since(begin); e.Sent || e.Attempts != 1 || took != 2*time.Second || !strings.Contains(e.Error(), "not sent: 3s are left, and it needs 4s") {
			t.Errorf("got %v after %v", e, took)
		}
		w.idle()
		if n := w.served.Load(); n != 0 || body.closed.Load() == 0 {
			t.Errorf("%d requests were sent, the body was closed %d times", n, body.closed.Load())
		}
		begin = time.Now()
		_ = readAll(t, w.do(newRequest(t.Context(), t, http.MethodGet, paymentURL, nil)))
		if took := time.Since(begin); took != 0 {
			t.Errorf("the next took %v", took)
		}
		w.idle()
	})
}

// An attempt for which there is no time any more ends none that has begun.
func TestBT7_AHedgeThatComesTooLateEndsNobody(t *testing.T) {
	t.Parallel()
	onBothProtocols(t, func(t *testing.T, protocol func(*discovery.Target)) {
		target := newTarget(protocol, limited(5*time.Second), hedged, func(target *discovery.Target) {
			top(target).Forward.MinTime = 4 * time.Second
			top(target).Forward.Timeout = 5 * time.Second
			top(target).Forward.Retry.MaxRetries = 1
			other := target.Clusters["v1"]
			other.Endpoints.Localities[0].Endpoints = append(other.Endpoints.Localities[0].Endpoints, other.Endpoints.Localities[0].Endpoints[0])
			other.Endpoints.Localities[0].Endpoints[1].Address = "10.0.0.2:80"
		})
		serve := func(http.ResponseWriter, *http.Request) { time.Sleep(3 * time.Second) }
		w := newWorld(t, target, serve)
		w.serve("10.0.0.2:80", serve)
		var conns atomic.Int64
		w.dialed = func(conn net.Conn) net.Conn {
			if conns.Add(1) > 1 {
				time.Sleep(2 * time.Second)
			}
			return conn
		}
		resp := w.do(newRequest(t.Context(), t, http.MethodGet, paymentURL, nil))
		_ = readAll(t, resp)
		w.idle()
		if c := w.lastCall(); resp.StatusCode != http.StatusOK || c.Attempts != 2 || c.End.Sub(c.Start) != 3*time.Second || w.served.Load() != 1 {
			t.Errorf("status %d, %d attempts in %v, %d were sent", resp.StatusCode, c.Attempts, c.End.Sub(c.Start), w.served.Load())
		}
	})
}

// An early answer that another attempt takes the place of does not wait for a caller
// that is slow to give its body.
func TestBR15_AnEarlyAnswerIsLetGoWhileTheBodyIsRead(t *testing.T) {
	t.Parallel()
	onBothProtocols(t, func(t *testing.T, protocol func(*discovery.Target)) {
		w := newWorld(t, newTarget(protocol, limited(10*time.Second), retrying(retry.Policy{MaxRetries: 1, On: retry.On5xx})),
			func(rw http.ResponseWriter, _ *http.Request) {
				unavailableAtOnce(rw)
			})
		source, wait := trickle(1, time.Minute)
		defer wait()
		begin := time.Now()
		resp := w.do(newRequest(t.Context(), t, http.MethodPost, paymentURL, source))
		_ = resp.Body.Close()
		if took := time.Since(begin); w.served.Load() != 2 || took > time.Second {
			t.Errorf("%d attempts in %v", w.served.Load(), took)
		}
		w.idle()
	})
}
