package upstream

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/outcome"
)

// TestBN11_SpareConnectionsThatDieFailNoCall. They were made for calls to come, or for calls
// that took another, and end with their server, which is back at once. Nothing was sent over
// them: the calls that find them dead have others, of which the last are made.
func TestBN11_SpareConnectionsThatDieFailNoCall(t *testing.T) {
	t.Parallel()
	for name, protocol := range map[string]func(*discovery.Cluster){
		"HTTP/1.1": func(*discovery.Cluster) {}, "HTTP/2": speakHTTP2,
	} {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			t.Run(name+" "+method, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t)
					handler := func(rw http.ResponseWriter, r *http.Request) {
						if r.Method == http.MethodHead {
							time.Sleep(100 * time.Millisecond)
						}
						answer(rw, r)
					}
					first := w.serve(paymentAddress, handler, streams(5))
					c, e := w.one(preconnect(3, protocol))
					call := func(method string) {
						var body io.Reader
						if method == http.MethodPost {
							body = strings.NewReader("42")
						}
						resp, failure := e.RoundTrip(newRequest(t.Context(), t, method, body), discovery.PriorityDefault)
						if failure != nil {
							t.Errorf("%v (sent: %t): %v", failure.Kind, failure.Sent, failure.Err)
							return
						}
						_ = read(t, resp)
					}
					done := make(chan struct{})
					for range 20 {
						go func() { // the test waits for it
							call(http.MethodHead)
							done <- struct{}{}
						}()
					}
					for range 20 {
						<-done
					}
					_ = first.Close()
					synctest.Wait()
					w.serve(paymentAddress, handler)
					for range 30 {
						call(method)
					}
					synctest.Wait()
					if usage := c.Gate(0).Usage(); usage.Pending != 0 {
						t.Errorf("in use: %+v", usage)
					}
				})
			})
		}
	}
}

// A server that ends all of its connections is none that can be connected to, also if they
// are made before they are needed: the call has an end.
func TestSpareConnectionsToAServerThatEndsThemAreNotMadeWithoutEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var dials atomic.Int64
		w.dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			dials.Add(1)
			conn, err := w.network.DialContext(ctx, network, address)
			time.Sleep(5 * time.Millisecond) // a way there and back
			return conn, err
		}
		w.rawServer(paymentAddress, func(net.Conn) {})
		_, e := w.one(preconnect(3))
		for i := range 5 {
			dials.Store(0)
			_, failure := e.RoundTrip(newRequest(t.Context(), t, http.MethodPost, nil), discovery.PriorityDefault)
			if failure == nil || failure.Kind != outcome.ConnectFailure || failure.Sent || dials.Load() > 12 {
				t.Errorf("call %d: failure %+v after %d dials", i, failure, dials.Load())
			}
			synctest.Wait()
		}
	})
}

// TestBN11_ASpareConnectionMayBeDyingAsAnyOther that was idle.
func TestBN11_ASpareConnectionMayBeDyingAsAnyOther(t *testing.T) {
	t.Parallel()
	for name, rest := range map[string]bool{"spare": true, "made for the call": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.http1Server(paymentAddress, func(number int64, conn net.Conn, r *bufio.Reader) bool {
					if number == 1 && rest {
						time.Sleep(100 * time.Millisecond)
						return false
					}
					_, _ = http.ReadRequest(r)
					return true
				})
				_, e := w.one(preconnect(2))
				if rest {
					first := start(t.Context(), t, e)
					synctest.Wait()
					defer first.wait(t)
				}
				_, failure := e.RoundTrip(newRequest(t.Context(), t, http.MethodGet, nil), discovery.PriorityDefault)
				if failure == nil || failure.Kind != outcome.Reset || failure.Stale != rest {
					t.Errorf("the failure is %+v", failure)
				}
			})
		})
	}
}
