package upstream

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/breaker"
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/outcome"
)

func streams(n int) func(*http.Server) {
	return func(s *http.Server) { s.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: n} }
}

// startOneByOne starts calls, each when the one before has arrived: a new
// connection does not know how many streams its server allows.
func startOneByOne(t *testing.T, e *Endpoint, n int) []*call {
	t.Helper()
	calls := make([]*call, 0, n)
	for range n {
		calls = append(calls, start(t.Context(), t, e))
		synctest.Wait()
	}
	return calls
}

func TestAnHTTP2ConnectionIsShared(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.serve(paymentAddress, func(rw http.ResponseWriter, r *http.Request) {
			time.Sleep(time.Second)
			answer(rw, r)
		})
		_, e := w.one(speakHTTP2)
		begin := time.Now()
		var calls []*call
		for range 50 {
			calls = append(calls, start(t.Context(), t, e))
		}
		for _, call := range calls {
			call.wait(t)
		}
		if took := time.Since(begin); took != time.Second {
			t.Errorf("50 calls of 1 s took %v", took)
		}
		w.expectConnections(1, 0)
	})
}

func TestAPoolGrowsAtTheStreamLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		release := make(chan struct{})
		w.serve(paymentAddress, func(rw http.ResponseWriter, r *http.Request) {
			<-release
			answer(rw, r)
		}, streams(3))
		c, e := w.one(speakHTTP2)
		calls := startOneByOne(t, e, 10)
		w.expectConnections(4, 0)
		close(release)
		perConnection := map[string]int{}
		for _, call := range calls {
			perConnection[call.wait(t)]++
		}
		if got, want := fmt.Sprint(perConnection), "map[1:3 2:3 3:3 4:1]"; got != want {
			t.Errorf("calls per connection: %s, want %s", got, want)
		}
		expectIdle(t, c, 4)
	})
}

func TestCallsWaitForAStreamAtTheConnectionLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.serve(paymentAddress, func(rw http.ResponseWriter, r *http.Request) {
			time.Sleep(time.Second)
			answer(rw, r)
		}, streams(2))
		c, e := w.one(func(c *discovery.Cluster) {
			speakHTTP2(c)
			c.Limits[0].MaxConnections = 1
		})
		begin := time.Now()
		calls := startOneByOne(t, e, 6)
		if got, want := c.Gate(0).Usage(), (breaker.Usage{Connections: 1, Pending: 4}); got != want {
			t.Errorf("in use: %+v, want %+v", got, want)
		}
		for i, call := range calls {
			call.wait(t)
			if took, want := time.Since(begin), time.Duration(i/2+1)*time.Second; took != want {
				t.Errorf("call %d ended after %v, want %v", i, took, want)
			}
		}
		w.expectConnections(1, 0)
		expectIdle(t, c, 1)
	})
}

// A server that refuses a stream certifies that it did not look at it.
func TestStreamsBeyondTheLimitOfANewConnectionAreRefused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		release := make(chan struct{})
		s := w.serve(paymentAddress, func(rw http.ResponseWriter, r *http.Request) {
			<-release
			answer(rw, r)
		}, streams(1))
		c, e := w.one(speakHTTP2)
		var calls []*call
		for range 5 {
			calls = append(calls, start(t.Context(), t, e))
		}
		synctest.Wait()
		close(release)
		answered := 0
		for _, call := range calls {
			<-call.done
			switch {
			case call.failure == nil:
				answered++
			case call.failure.Kind != outcome.RefusedStream:
				t.Errorf("got %v: %v, want a refused stream", call.failure.Kind, call.failure.Err)
			}
		}
		if got := s.calls.Load(); int(got) != answered {
			t.Errorf("the server handled %d calls, %d were answered", got, answered)
		}
		synctest.Wait()
		if u := c.Gate(0).Usage(); u.Pending != 0 {
			t.Errorf("in use: %+v", u)
		}
	})
}

// A server that shuts down lets the calls on its connections end and gets no
// new ones over them.
func TestAGracefulGoAwayFailsNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		release := make(chan struct{})
		first := w.serve(paymentAddress, func(rw http.ResponseWriter, r *http.Request) {
			<-release
			answer(rw, r)
		})
		c, e := w.one(speakHTTP2)
		inFlight := start(t.Context(), t, e)
		synctest.Wait()
		down := make(chan error)
		go func() { down <- first.Shutdown(context.Background()) }()
		synctest.Wait()
		second := w.serve(paymentAddress, answer)
		if conn, _ := get(t, e); conn != "1" || second.calls.Load() != 1 {
			t.Errorf("answered by connection %s, the new server got %d calls", conn, second.calls.Load())
		}
		close(release)
		inFlight.wait(t)
		if err := <-down; err != nil {
			t.Error(err)
		}
		w.expectConnections(2, 1)
		expectIdle(t, c, 1)
	})
}

func TestAnHTTP2ConnectionIsIdleAfterItsLastCall(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.serve(paymentAddress, answer)
		c, e := w.one(func(c *discovery.Cluster) {
			speakHTTP2(c)
			c.IdleTimeout = time.Minute
		})
		for range 5 {
			get(t, e)
			time.Sleep(30 * time.Second)
		}
		w.expectConnections(1, 0)
		time.Sleep(30 * time.Second)
		w.expectConnections(1, 1)
		expectIdle(t, c, 0)
	})
}

// net/http's own limit for idle connections, which is 90 s by default, is not
// the cluster's.
func TestTheTemplatesIdleTimeoutDoesNotApply(t *testing.T) {
	t.Parallel()
	for name, edit := range map[string]func(*discovery.Cluster){"HTTP/1.1": func(*discovery.Cluster) {}, "HTTP/2.0": speakHTTP2} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.manager.options.Transport = &http.Transport{IdleConnTimeout: time.Second}
				w.serve(paymentAddress, answer)
				_, e := w.one(func(c *discovery.Cluster) {
					edit(c)
					c.IdleTimeout = time.Hour
				})
				get(t, e)
				time.Sleep(time.Hour - time.Millisecond)
				w.expectConnections(1, 0)
				time.Sleep(time.Millisecond)
				w.expectConnections(1, 1)
			})
		})
	}
}

func TestHTTPDownstreamSpeaksWhatTheRequestSpeaks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.serve(paymentAddress, answer)
		_, e := w.one(func(c *discovery.Cluster) { c.Protocol = discovery.HTTPDownstream })
		for major, want := range map[int]string{1: "HTTP/1.1", 2: "HTTP/2.0"} {
			req := newRequest(t.Context(), t, http.MethodGet, nil)
			req.ProtoMajor = major
			resp, failure := e.RoundTrip(req, discovery.PriorityDefault)
			if failure != nil {
				t.Fatal(failure.Err)
			}
			if got := read(t, resp); got != want {
				t.Errorf("ProtoMajor %d: the server saw %s, want %s", major, got, want)
			}
		}
		w.expectConnections(2, 0)
	})
}

func TestHTTPAutoWithoutTLSIsHTTP1(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.serve(paymentAddress, answer)
		_, e := w.one(func(c *discovery.Cluster) { c.Protocol = discovery.HTTPAuto })
		if _, proto := get(t, e); proto != "HTTP/1.1" {
			t.Errorf("the server saw %s", proto)
		}
	})
}
