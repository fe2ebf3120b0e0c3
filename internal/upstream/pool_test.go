package upstream

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/breaker"
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/outcome"
)

func speakHTTP2(c *discovery.Cluster) { c.Protocol = discovery.HTTP2 }

func TestBN1_ConnectionsAreReused(t *testing.T) {
	t.Parallel()
	for name, edit := range map[string]func(*discovery.Cluster){"HTTP/1.1": nil, "HTTP/2.0": speakHTTP2} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.serve(paymentAddress, answer)
				c, e := w.one(edit)
				for range 10 {
					if conn, proto := get(t, e); conn != "1" || proto != name {
						t.Errorf("answered by connection %s over %s, want 1 over %s", conn, proto, name)
					}
				}
				w.expectConnections(1, 0)
				expectIdle(t, c, 1)
			})
		})
	}
}

// The connection that was used last is used next, so that those which a burst
// left behind become idle and are closed.
func TestBN1_TheLatestIdleConnectionIsUsedFirst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		release := make(chan struct{})
		w.serve(paymentAddress, func(rw http.ResponseWriter, r *http.Request) {
			<-release
			answer(rw, r)
		})
		c, e := w.one(func(c *discovery.Cluster) { c.IdleTimeout = time.Minute })
		var calls []*call
		for range 3 {
			calls = append(calls, start(t.Context(), t, e))
			synctest.Wait()
		}
		close(release)
		synctest.Wait()
		for _, call := range calls {
			call.wait(t)
		}
		w.expectConnections(3, 0)
		last, _ := get(t, e)
		for range 9 {
			time.Sleep(10 * time.Second)
			if conn, _ := get(t, e); conn != last {
				t.Errorf("answered by connection %s, want %s, which was used last", conn, last)
			}
		}
		w.expectConnections(3, 2)
		expectIdle(t, c, 1)
	})
}

// A connection that has come and is not offered yet is spoken for: the call that waits
// for it needs no other when the next call comes.
func TestBN1_AConnectionOnItsWayToACallIsNotDialedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		answered, offered := make(chan struct{}), make(chan struct{})
		var came atomic.Int64
		w.opening = func() {
			if came.Add(1) == 1 {
				<-offered
			}
		}
		w.serve(paymentAddress, func(rw http.ResponseWriter, r *http.Request) {
			<-answered
			answer(rw, r)
		})
		c, e := w.one(nil)
		first := start(t.Context(), t, e)
		synctest.Wait()
		second := start(t.Context(), t, e)
		synctest.Wait()
		close(offered)
		synctest.Wait()
		close(answered)
		first.wait(t)
		second.wait(t)
		w.expectConnections(2, 0)
		expectIdle(t, c, 2)
	})
}

func TestBC1_CallsWaitForAConnectionAtTheLimit(t *testing.T) {
	t.Parallel()
	for name, edit := range map[string]func(*discovery.Cluster){
		"of the cluster":   func(c *discovery.Cluster) { c.Limits[0].MaxConnections = 2 },
		"of each endpoint": func(c *discovery.Cluster) { c.HostConnections[0] = 2 },
		"of each endpoint over HTTP/2": func(c *discovery.Cluster) {
			limitedTo(1)(c)
			c.HostConnections[0] = 2
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.serve(paymentAddress, func(rw http.ResponseWriter, r *http.Request) {
					time.Sleep(time.Second)
					answer(rw, r)
				})
				c, e := w.one(edit)
				begin := time.Now()
				var calls []*call
				for range 10 {
					calls = append(calls, start(t.Context(), t, e))
				}
				for _, call := range calls {
					call.wait(t)
				}
				if took := time.Since(begin); took != 5*time.Second {
					t.Errorf("10 calls of 1 s over 2 connections took %v, want 5 s", took)
				}
				w.expectConnections(2, 0)
				expectIdle(t, c, 2)
			})
		})
	}
}

func TestBN1_WaitersAreServedInTheirOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.serve(paymentAddress, func(rw http.ResponseWriter, r *http.Request) {
			time.Sleep(time.Second)
			answer(rw, r)
		})
		_, e := w.one(func(c *discovery.Cluster) { c.Limits[0].MaxConnections = 1 })
		begin := time.Now()
		var calls []*call
		for range 4 {
			calls = append(calls, start(t.Context(), t, e))
			synctest.Wait()
		}
		for i, call := range calls {
			call.wait(t)
			if took := time.Since(begin); took != time.Duration(i+1)*time.Second {
				t.Errorf("call %d ended after %v", i, took)
			}
		}
	})
}

func TestBC1_TooManyPendingRequestsOverflow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		release := make(chan struct{})
		s := w.serve(paymentAddress, func(rw http.ResponseWriter, r *http.Request) {
			<-release
			answer(rw, r)
		})
		c, e := w.one(func(c *discovery.Cluster) {
			c.Limits[0].MaxConnections, c.Limits[0].MaxPendingRequests = 1, 1
		})
		first := start(t.Context(), t, e)
		synctest.Wait()
		second := start(t.Context(), t, e)
		synctest.Wait()
		if got, want := c.Gate(0).Usage(), (breaker.Usage{Connections: 1, Pending: 1}); got != want {
			t.Errorf("in use: %+v, want %+v", got, want)
		}
		third := start(t.Context(), t, e)
		<-third.done
		if f := third.failure; f == nil || f.Kind != outcome.Overflow || f.Sent || f.Err.Error() != "circuit breaker: too many pending requests" {
			t.Errorf("the third call got %+v, want an overflow", f)
		}
		w.expectOverflows("connections", "pending")
		close(release)
		first.wait(t)
		second.wait(t)
		if got := s.calls.Load(); got != 2 {
			t.Errorf("the server got %d calls, want 2", got)
		}
		expectIdle(t, c, 1)
	})
}

// The limit counts connections of the whole cluster. An endpoint without any
// connection gets one in spite of it, or its calls would wait for ever. It counts, too.
func TestBC1_AnEndpointIsNeverWithoutAConnection(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const other = "10.0.0.2:80"
		w := newWorld(t)
		w.serve(paymentAddress, answer)
		w.serve(other, answer)
		c := w.hold(result(func(c *discovery.Cluster) { c.Limits[0].MaxConnections = 1 }, paymentAddress, other))
		get(t, endpoint(t, c, paymentAddress))
		get(t, endpoint(t, c, other))
		w.expectConnections(2, 0)
		expectIdle(t, c, 2)
	})
}

func TestBC3_LimitsMayChangeAtAnyTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		release := make(chan struct{})
		w.serve(paymentAddress, func(rw http.ResponseWriter, r *http.Request) {
			<-release
			answer(rw, r)
		})
		limited := func(n uint32) func(*discovery.Cluster) {
			return func(c *discovery.Cluster) { c.Limits[0].MaxConnections = n }
		}
		c, e := w.one(limited(3))
		var calls []*call
		for range 5 {
			calls = append(calls, start(t.Context(), t, e))
		}
		w.expectConnections(3, 0)
		w.manager.Release(map[string]*Cluster{"payment": w.hold(result(limited(1), paymentAddress))})
		calls = append(calls, start(t.Context(), t, e))
		w.expectConnections(3, 0)
		w.manager.Release(map[string]*Cluster{"payment": w.hold(result(limited(4), paymentAddress))})
		synctest.Wait()
		if opened, _ := w.connections(); opened != 4 {
			t.Errorf("%d connections after the limit was raised to 4", opened)
		}
		close(release)
		for _, call := range calls {
			call.wait(t)
		}
		expectIdle(t, c, 4)
	})
}

func TestACallThatGivesUpWaitingLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.serve(paymentAddress, func(rw http.ResponseWriter, r *http.Request) {
			time.Sleep(time.Minute)
			answer(rw, r)
		})
		c, e := w.one(func(c *discovery.Cluster) { c.Limits[0].MaxConnections = 1 })
		first := start(t.Context(), t, e)
		synctest.Wait()
		gaveUp := errors.New("gave up")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, gaveUp)
		defer cancel()
		second := start(ctx, t, e)
		<-second.done
		if f := second.failure; f == nil || f.Kind != outcome.Canceled || f.Sent || !errors.Is(f.Err, gaveUp) {
			t.Errorf("got %+v, want a failure with the context's cause", f)
		}
		if got, want := c.Gate(0).Usage(), (breaker.Usage{Connections: 1}); got != want {
			t.Errorf("in use: %+v, want %+v", got, want)
		}
		first.wait(t)
		if conn, _ := get(t, e); conn != "1" {
			t.Errorf("answered by connection %s, want 1", conn)
		}
		expectIdle(t, c, 1)
	})
}

func TestBC6_BN6_MaxRequestsPerConnection(t *testing.T) {
	t.Parallel()
	for name, edit := range map[string]func(*discovery.Cluster){"HTTP/1.1": nil, "HTTP/2.0": speakHTTP2} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				perConnection := map[string]int{}
				w.serve(paymentAddress, answer)
				c, e := w.one(func(c *discovery.Cluster) {
					if edit != nil {
						edit(c)
					}
					c.MaxRequestsPerConnection = 3
				})
				for range 10 {
					conn, _ := get(t, e)
					perConnection[conn]++
				}
				want := map[string]int{"1": 3, "2": 3, "3": 3, "4": 1}
				for conn, n := range want {
					if perConnection[conn] != n {
						t.Errorf("calls per connection: %v, want %v", perConnection, want)
						break
					}
				}
				w.expectConnections(4, 3)
				expectIdle(t, c, 1)
			})
		})
	}
}

// Those who wait for a new HTTP/2 connection get it together: they count, too.
func TestBC6_MaxRequestsPerConnectionCountsWaiters(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.serve(paymentAddress, func(rw http.ResponseWriter, r *http.Request) {
			time.Sleep(time.Second)
			answer(rw, r)
		})
		c, e := w.one(func(c *discovery.Cluster) {
			speakHTTP2(c)
			c.MaxRequestsPerConnection = 3
		})
		var calls []*call
		for range 10 {
			calls = append(calls, start(t.Context(), t, e))
		}
		perConnection := map[string]int{}
		for _, call := range calls {
			conn := call.wait(t)
			perConnection[conn]++
		}
		for conn, n := range perConnection {
			if n > 3 {
				t.Errorf("connection %s carried %d calls, want at most 3", conn, n)
			}
		}
		w.expectConnections(4, 3)
		expectIdle(t, c, 1)
	})
}

func TestBN4_PrioritiesHaveConnectionsAndLimitsOfTheirOwn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.serve(paymentAddress, answer)
		c, e := w.one(nil)
		get(t, e)
		resp, failure := e.RoundTrip(newRequest(t.Context(), t, http.MethodGet, nil), discovery.PriorityHigh)
		if failure != nil {
			t.Fatal(failure.Err)
		}
		read(t, resp)
		w.expectConnections(2, 0)
		for p, gate := range c.gates {
			if got := gate.Usage().Connections; got != 1 {
				t.Errorf("priority %d: %d connections, want 1", p, got)
			}
		}
	})
}
