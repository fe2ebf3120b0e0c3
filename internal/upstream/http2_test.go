package upstream

import (
	"context"
	"fmt"
	"io"
	"net"
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

// startOneByOne starts calls, each when the one before has arrived or waits.
func startOneByOne(t *testing.T, e *Endpoint, n int) []*call {
	t.Helper()
	calls := make([]*call, 0, n)
	for range n {
		calls = append(calls, start(t.Context(), t, e))
		synctest.Wait()
	}
	return calls
}

func TestBN3_AnHTTP2ConnectionIsShared(t *testing.T) {
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

func TestBN3_APoolGrowsAtTheStreamLimit(t *testing.T) {
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

func TestBN3_CallsWaitForAStreamAtTheConnectionLimit(t *testing.T) {
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

// Nothing is sent over a new connection before its server has said how many
// streams it allows.
func TestBN3_ABurstOverANewConnectionKeepsToTheStreamLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.serve(paymentAddress, func(rw http.ResponseWriter, r *http.Request) {
			time.Sleep(time.Second)
			answer(rw, r)
		}, streams(2))
		c, e := w.one(func(c *discovery.Cluster) {
			speakHTTP2(c)
			c.Limits[0].MaxConnections = 5
		})
		begin := time.Now()
		var calls []*call
		for range 50 {
			calls = append(calls, start(t.Context(), t, e))
		}
		for _, call := range calls {
			call.wait(t)
		}
		if took := time.Since(begin); took != 5*time.Second {
			t.Errorf("50 calls of 1 s over 5 connections of 2 streams took %v, want 5 s", took)
		}
		w.expectConnections(5, 0)
		expectIdle(t, c, 5)
	})
}

const clientPreface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" // RFC 9113, section 3.4

func TestAPeerThatDoesNotSpeakHTTP2CannotBeConnectedTo(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		peer func(net.Conn)
		want string
	}{
		"it says nothing": {
			peer: func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) },
			want: "http2: no settings from the peer: context deadline exceeded",
		},
		"it closes": {
			peer: func(conn net.Conn) { _, _ = io.ReadFull(conn, make([]byte, len(clientPreface))) },
			want: "http2: closed by the peer before its settings: does it speak HTTP/2?",
		},
		"it speaks HTTP/1.1": {
			peer: func(conn net.Conn) {
				_, _ = io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
				_, _ = io.Copy(io.Discard, conn)
			},
			want: "http2: closed by the peer before its settings: does it speak HTTP/2?",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				listener, err := w.network.Listen(paymentAddress)
				if err != nil {
					t.Fatal(err)
				}
				defer listener.Close()
				go func() { // ends with the connection
					conn, err := listener.Accept()
					if err != nil {
						return
					}
					tt.peer(conn)
					_ = conn.Close()
				}()
				c, e := w.one(func(c *discovery.Cluster) {
					speakHTTP2(c)
					c.ConnectTimeout = time.Second
				})
				_, failure := e.RoundTrip(newRequest(t.Context(), t, http.MethodGet, nil), 0)
				if failure == nil || failure.Kind != outcome.ConnectFailure || failure.Sent || failure.Err.Error() != tt.want {
					t.Errorf("got %+v, want a connect failure: %s", failure, tt.want)
				}
				w.expectConnections(0, 0)
				expectIdle(t, c, 0)
			})
		})
	}
}

// A server that shuts down lets the calls on its connections end and gets no
// new ones over them.
func TestBN10_AGracefulGoAwayFailsNothing(t *testing.T) {
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

func TestBT6_AnHTTP2ConnectionIsIdleAfterItsLastCall(t *testing.T) {
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

func TestBN9_HTTPDownstreamSpeaksWhatTheRequestSpeaks(t *testing.T) {
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

func TestBN9_HTTPAutoWithoutTLSIsHTTP1(t *testing.T) {
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
