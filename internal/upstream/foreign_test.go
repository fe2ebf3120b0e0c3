package upstream

import (
	"context"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/observe"
)

// TestBC5_APanicOfForeignCodeKeepsNoConnection: hooks and the traces of an application
// run while a call waits for its connection, and while it uses it. What they do costs
// that connection at most.
func TestBC5_APanicOfForeignCodeKeepsNoConnection(t *testing.T) {
	t.Parallel()
	tests := map[string]func(w *world, e *Endpoint, end func()){
		"a trace, at the first byte": func(w *world, e *Endpoint, end func()) {
			ctx := httptrace.WithClientTrace(w.t.Context(), &httptrace.ClientTrace{GotFirstResponseByte: end})
			_, _ = e.RoundTrip(newRequest(ctx, w.t, http.MethodGet, nil), discovery.PriorityDefault)
		},
		"a trace, at an interim response": func(w *world, e *Endpoint, end func()) {
			ctx := httptrace.WithClientTrace(w.t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(int, textproto.MIMEHeader) error {
				end()
				return nil
			}})
			_, _ = e.RoundTrip(newRequest(ctx, w.t, http.MethodPut, nil), discovery.PriorityDefault)
		},
		"the hook of an overflow": func(w *world, e *Endpoint, end func()) {
			ctx, cancel := context.WithCancel(w.t.Context())
			defer cancel() // whoever waits is let go, if the hook ends this
			busy := start(ctx, w.t, e)
			synctest.Wait()
			defer func() {
				cancel()
				<-busy.done
			}()
			_, _ = e.RoundTrip(newRequest(w.t.Context(), w.t, http.MethodGet, nil), discovery.PriorityDefault)
		},
		"the hook of the health": func(w *world, e *Endpoint, end func()) {
			_, _ = e.RoundTrip(newRequest(w.t.Context(), w.t, http.MethodDelete, nil), discovery.PriorityDefault)
		},
	}
	for name, run := range tests {
		for how, end := range map[string]func(){"panics": func() { panic("foreign code") }, "ends the goroutine": runtime.Goexit} {
			t.Run(name+", "+how, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t)
					var armed atomic.Bool
					hook := func() {
						if armed.Load() {
							end()
						}
					}
					w.manager.options.Hooks.Overflowed = func(observe.OverflowEvent) { hook() }
					w.manager.options.Hooks.HealthChanged = func(observe.HealthEvent) { hook() }
					w.serve(paymentAddress, func(rw http.ResponseWriter, r *http.Request) {
						switch r.Method {
						case http.MethodPut:
							rw.WriteHeader(http.StatusEarlyHints)
						case http.MethodDelete:
							rw.Header().Set(FailHeader, "true")
							_, _ = rw.Write(make([]byte, 100<<10))
						case http.MethodGet:
							if r.URL.Path != "/healthz" {
								time.Sleep(time.Second)
							}
						}
					})
					c, e := w.one(func(c *discovery.Cluster) {
						c.Limits[0].MaxConnections = 1
						c.HealthCheck = httpCheck()
					})
					synctest.Wait() // the check has its connection
					for range 3 {
						armed.Store(true)
						ended := make(chan any, 1)
						go func() {
							done := false
							defer func() {
								ended <- done
								_ = recover()
							}()
							run(w, e, end)
							done = true
						}()
						if done := <-ended; done == true {
							t.Error("it has not run")
						}
						armed.Store(false)
						synctest.Wait() // its connection is closed
						if got := c.Gate(discovery.PriorityDefault).Usage(); got.Pending != 0 || got.Connections > 1 {
							t.Errorf("in use: %+v", got)
						}
						ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
						start(ctx, t, e).wait(t)
						cancel()
						time.Sleep(5 * time.Second)
					}
				})
			})
		}
	}
}
