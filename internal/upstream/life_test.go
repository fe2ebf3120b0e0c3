package upstream

import (
	"context"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/memnet"
	"github.com/inboardmesh/inboard/internal/tlstest"
	"github.com/inboardmesh/inboard/outcome"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

func TestBN6_IdleConnectionsAreClosedAfterTheIdleTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.serve(paymentAddress, answer)
		c, e := w.one(func(c *discovery.Cluster) { c.IdleTimeout = time.Minute })
		get(t, e)
		time.Sleep(time.Minute - time.Nanosecond)
		w.expectConnections(1, 0)
		time.Sleep(time.Nanosecond)
		w.expectConnections(1, 1)
		expectIdle(t, c, 0)
		if conn, _ := get(t, e); conn != "2" {
			t.Errorf("answered by connection %s, want 2", conn)
		}
	})
}

func TestACallIsNotIdleHoweverLongItTakes(t *testing.T) {
	t.Parallel()
	for name, edit := range map[string]func(*discovery.Cluster){"HTTP/1.1": func(*discovery.Cluster) {}, "HTTP/2.0": speakHTTP2} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.serve(paymentAddress, func(rw http.ResponseWriter, r *http.Request) {
					time.Sleep(time.Hour)
					answer(rw, r)
				})
				_, e := w.one(func(c *discovery.Cluster) {
					edit(c)
					c.IdleTimeout = time.Minute
				})
				get(t, e)
				w.expectConnections(1, 0)
				time.Sleep(30 * time.Second)
				if conn, _ := get(t, e); conn != "1" { // after the time of the first pause
					t.Errorf("answered by connection %s, want 1", conn)
				}
				w.expectConnections(1, 0)
				time.Sleep(time.Minute)
				w.expectConnections(1, 1)
			})
		})
	}
}

// TestBN6_WhicheverTimeIsOverFirstEndsAConnection: that of its certificates, whose last
// tenth is not used, its own, or that in which it is idle.
func TestBN6_WhicheverTimeIsOverFirstEndsAConnection(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name                         string
		certificates, duration, idle time.Duration
		want                         time.Duration
	}{
		{"the certificates", 20 * time.Second, time.Minute, time.Hour, 18 * time.Second},
		{"its duration", 20 * time.Second, 10 * time.Second, time.Hour, 10 * time.Second},
		{"the idle time", 20 * time.Second, 10 * time.Second, 5 * time.Second, 5 * time.Second},
		{"the certificates before the idle time", 20 * time.Second, 0, time.Minute, 18 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				ca, now := tlstest.NewCA(t), time.Now()
				issue := func(id string) *meshtls.Static {
					i, err := meshtls.NewIdentity(
						ca.Issue(t, tlstest.Leaf{URIs: []string{id}, NotBefore: now, NotAfter: now.Add(tt.certificates)}), []*x509.Certificate{ca.Certificate})
					if err != nil {
						t.Fatal(err)
					}
					return meshtls.NewStatic(i)
				}
				w.identities["default"] = issue(customerID)
				w.serve(paymentAddress, answer, secure(t, issue(paymentID), "http/1.1"))
				_, e := w.one(func(c *discovery.Cluster) {
					mutualTLS(c)
					c.MaxConnectionDuration, c.IdleTimeout = tt.duration, tt.idle
				})
				get(t, e)
				time.Sleep(tt.want - time.Millisecond)
				w.expectConnections(1, 0)
				time.Sleep(time.Millisecond)
				w.expectConnections(1, 1)
			})
		})
	}
}

func TestWithoutAnIdleTimeoutConnectionsStay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.serve(paymentAddress, answer)
		_, e := w.one(nil)
		get(t, e)
		time.Sleep(24 * time.Hour)
		if conn, _ := get(t, e); conn != "1" {
			t.Errorf("answered by connection %s, want 1", conn)
		}
	})
}

func TestAChangedIdleTimeoutAppliesAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.serve(paymentAddress, answer)
		idle := func(d time.Duration) map[string]discovery.ClusterResult {
			return result(func(c *discovery.Cluster) { c.IdleTimeout = d }, paymentAddress)
		}
		get(t, endpoint(t, w.hold(idle(time.Hour)), paymentAddress))
		w.hold(idle(time.Minute))
		time.Sleep(time.Minute)
		w.expectConnections(1, 1)
	})
}

func TestBC6_BN6_MaxConnectionDuration(t *testing.T) {
	t.Parallel()
	for name, edit := range map[string]func(*discovery.Cluster){"HTTP/1.1": func(*discovery.Cluster) {}, "HTTP/2.0": speakHTTP2} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				pause := time.Duration(0)
				w.serve(paymentAddress, func(rw http.ResponseWriter, r *http.Request) {
					time.Sleep(pause)
					answer(rw, r)
				})
				c, e := w.one(func(c *discovery.Cluster) {
					edit(c)
					c.MaxConnectionDuration = time.Minute
				})
				get(t, e)
				time.Sleep(30 * time.Second)
				pause = 45 * time.Second
				inFlight := start(t.Context(), t, e)
				time.Sleep(30 * time.Second)
				w.expectConnections(1, 0) // its call goes on
				pause = 0
				if conn, _ := get(t, e); conn != "2" {
					t.Errorf("answered by connection %s, want 2: the first is too old", conn)
				}
				if conn := inFlight.wait(t); conn != "1" {
					t.Errorf("answered by connection %s, want 1", conn)
				}
				w.expectConnections(2, 1)
				time.Sleep(time.Minute) // an idle connection is closed at its time
				w.expectConnections(2, 2)
				expectIdle(t, c, 0)
			})
		})
	}
}

func TestBN10_AnEndpointThatLeftDrains(t *testing.T) {
	t.Parallel()
	for name, edit := range map[string]func(*discovery.Cluster){"HTTP/1.1": nil, "HTTP/2.0": speakHTTP2} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				const other = "10.0.0.2:80"
				w := newWorld(t)
				release := make(chan struct{})
				w.serve(paymentAddress, func(rw http.ResponseWriter, r *http.Request) {
					if r.Method == http.MethodGet {
						<-release
					}
					answer(rw, r)
				})
				w.serve(other, answer)
				c := w.hold(result(edit, paymentAddress, other))
				e := endpoint(t, c, paymentAddress)
				get(t, endpoint(t, c, other))
				inFlight := start(t.Context(), t, e)
				synctest.Wait()
				resp, failure := e.RoundTrip(newRequest(t.Context(), t, http.MethodPut, nil), 0)
				if failure != nil {
					t.Fatal(failure.Err)
				}
				read(t, resp)
				opened, _ := w.connections() // HTTP/1.1 needs one more
				w.hold(result(edit, other))
				if !e.Draining() {
					t.Error("the endpoint does not drain")
				}
				if opened == 3 {
					w.expectConnections(3, 1) // the idle one
				} else {
					w.expectConnections(2, 0)
				}
				// A call that was routed before the endpoint left still finds its way.
				late, failure := e.RoundTrip(newRequest(t.Context(), t, http.MethodPut, nil), 0)
				if failure != nil {
					t.Fatal(failure.Err)
				}
				read(t, late)
				close(release)
				inFlight.wait(t)
				synctest.Wait()
				opened, closed := w.connections()
				if opened-closed != 1 {
					t.Errorf("%d connections opened and %d closed, want one left", opened, closed)
				}
				expectIdle(t, c, 1)
			})
		})
	}
}

func TestAReleasedClusterDrains(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		release := make(chan struct{})
		w.serve(paymentAddress, func(rw http.ResponseWriter, r *http.Request) {
			<-release
			answer(rw, r)
		})
		results := result(nil, paymentAddress)
		first, second := w.manager.Hold(results), w.manager.Hold(results)
		c := first["payment"]
		if c != second["payment"] {
			t.Fatal("two holders have two clusters")
		}
		inFlight := start(t.Context(), t, endpoint(t, c, paymentAddress))
		synctest.Wait()
		w.manager.Release(first)
		w.expectConnections(1, 0)
		w.manager.Release(second)
		w.expectConnections(1, 0)
		third := w.manager.Hold(results)
		if third["payment"] == c {
			t.Error("a cluster that drains was given out again")
		}
		close(release)
		inFlight.wait(t)
		w.expectConnections(1, 1)
		expectIdle(t, c, 0)
	})
}

func TestWhatSurvivesAnUpdateKeepsItsConnections(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const other = "10.0.0.2:80"
		w := newWorld(t)
		w.serve(paymentAddress, answer)
		c, e := w.one(nil)
		get(t, e)
		for i, results := range []map[string]discovery.ClusterResult{
			result(nil, paymentAddress, other),
			result(func(c *discovery.Cluster) { c.Limits[0].MaxRequests = 7 }, other, paymentAddress),
			{"payment": {Err: errors.New("rejected")}},
			result(nil, paymentAddress),
		} {
			if w.hold(results) != c || endpoint(t, c, paymentAddress) != e {
				t.Fatalf("update %d: the cluster or its endpoint is another", i)
			}
			if conn, _ := get(t, e); conn != "1" {
				t.Errorf("update %d: answered by connection %s, want 1", i, conn)
			}
		}
		w.expectConnections(1, 0)
	})
}

func TestANewProtocolMeansNewConnections(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		release := make(chan struct{})
		close(release)
		w.serve(paymentAddress, func(rw http.ResponseWriter, r *http.Request) {
			<-release
			answer(rw, r)
		})
		c, e := w.one(nil)
		generation := c.Generation()
		get(t, e)
		release = make(chan struct{})
		inFlight := start(t.Context(), t, e)
		synctest.Wait()
		w.hold(result(speakHTTP2, paymentAddress))
		if c.Generation() == generation {
			t.Error("the generation is the same")
		}
		w.expectConnections(1, 0)
		close(release)
		inFlight.wait(t)
		if conn, proto := get(t, e); conn != "2" || proto != "HTTP/2.0" {
			t.Errorf("answered by connection %s over %s", conn, proto)
		}
		w.expectConnections(2, 1)
	})
}

func TestConnectFailure(t *testing.T) {
	t.Parallel()
	for name, edit := range map[string]func(*discovery.Cluster){"HTTP/1.1": nil, "HTTP/2.0": speakHTTP2} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				c, e := w.one(edit)
				body := &closing{Reader: strings.NewReader("42")}
				req := newRequest(t.Context(), t, http.MethodPost, body)
				_, failure := e.RoundTrip(req, 0)
				if failure == nil || failure.Kind != outcome.ConnectFailure || failure.Sent {
					t.Fatalf("got %+v, want a connect failure", failure)
				}
				if got, want := failure.Err.Error(), "dial mem 10.0.0.1:80: connection refused"; got != want {
					t.Errorf("got %q, want %q", got, want)
				}
				if body.closed != 1 {
					t.Errorf("the request's body was closed %d times", body.closed)
				}
				w.mu.Lock()
				if len(w.opened) != 1 || w.opened[0].Err == nil || w.opened[0].Endpoint != paymentAddress || w.opened[0].Cluster != "payment" {
					t.Errorf("reported %+v", w.opened)
				}
				w.mu.Unlock()
				expectIdle(t, c, 0)
			})
		})
	}
}

// closing counts how often it is closed.
type closing struct {
	io.Reader
	closed int
}

func (c *closing) Close() error {
	c.closed++
	return nil
}

// The handshake of TLS is within the connect timeout.
func TestBT6_TheConnectTimeoutIncludesTheHandshake(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, _, _ := secureWorld(t)
		w.dial = func(context.Context, string, string) (net.Conn, error) {
			time.Sleep(200 * time.Millisecond)
			client, server := memnet.Pipe() // the server says nothing
			t.Cleanup(func() { _ = server.Close() })
			return client, nil
		}
		c, e := w.one(func(c *discovery.Cluster) {
			mutualTLS(c)
			c.ConnectTimeout = 300 * time.Millisecond
		})
		begin := time.Now()
		_, failure := e.RoundTrip(newRequest(t.Context(), t, http.MethodGet, nil), 0)
		if took := time.Since(begin); failure == nil || failure.Kind != outcome.ConnectFailure || failure.Sent || took != 300*time.Millisecond {
			t.Errorf("got %+v after %v", failure, took)
		}
		expectIdle(t, c, 0)
	})
}

func TestBT6_ConnectTimeout(t *testing.T) {
	t.Parallel()
	tests := map[string]struct{ timeout, want time.Duration }{
		"the cluster's":     {timeout: 300 * time.Millisecond, want: 300 * time.Millisecond},
		"Envoy's 5 s else":  {want: 5 * time.Second},
		"longer than usual": {timeout: time.Minute, want: time.Minute},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
					<-ctx.Done()
					return nil, context.Cause(ctx)
				}
				c, e := w.one(func(c *discovery.Cluster) { c.ConnectTimeout = tt.timeout })
				begin := time.Now()
				_, failure := e.RoundTrip(newRequest(t.Context(), t, http.MethodGet, nil), 0)
				if failure == nil || failure.Kind != outcome.ConnectFailure || failure.Sent || !errors.Is(failure.Err, context.DeadlineExceeded) {
					t.Errorf("got %+v, want a connect failure", failure)
				}
				if took := time.Since(begin); took != tt.want {
					t.Errorf("it took %v, want %v", took, tt.want)
				}
				expectIdle(t, c, 0)
			})
		})
	}
}

// A dial that its call does not wait for any more goes on: the next call
// profits.
func TestAConnectionOutlivesTheCallThatAskedForIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.serve(paymentAddress, answer)
		w.dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			time.Sleep(2 * time.Second)
			return w.network.DialContext(ctx, network, address)
		}
		c, e := w.one(nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, failure := e.RoundTrip(newRequest(ctx, t, http.MethodGet, nil), 0)
		if failure == nil || failure.Kind != outcome.Canceled || failure.Sent {
			t.Fatalf("got %+v", failure)
		}
		time.Sleep(time.Second)
		begin := time.Now()
		get(t, e)
		if took := time.Since(begin); took != 0 {
			t.Errorf("the next call waited %v", took)
		}
		w.expectConnections(1, 0)
		expectIdle(t, c, 1)
	})
}

func TestAnEndpointThatCannotBeReachedIsAvoidedForAWhile(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		_, e := w.one(nil)
		want := firstBackoff
		for n := range 20 {
			if _, failure := e.RoundTrip(newRequest(t.Context(), t, http.MethodGet, nil), 0); failure == nil {
				t.Fatal("a call succeeded without a server")
			}
			if e.Host().Reachable() {
				t.Fatal("the endpoint counts as reachable")
			}
			begin := time.Now()
			for !e.Host().Reachable() {
				time.Sleep(time.Millisecond)
			}
			took := time.Since(begin)
			low, high := time.Duration(float64(want)*0.8), time.Duration(float64(want)*1.2)+time.Millisecond
			if took < low || took > high {
				t.Errorf("failure %d: avoided for %v, want between %v and %v", n, took, low, high)
			}
			want = min(time.Duration(float64(want)*backoffFactor), maxBackoff)
		}
		w.serve(paymentAddress, answer)
		get(t, e)
		_ = w
	})
}

var errRefused = errors.New("connection refused")

func TestASuccessEndsTheBackoff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		_, e := w.one(nil)
		for range 5 {
			e.ConnectFailed(errRefused)
			time.Sleep(time.Minute)
		}
		e.ConnectFailed(errRefused)
		w.serve(paymentAddress, answer)
		get(t, e) // nothing else is there, so it is tried in spite of the back-off
		if !e.Host().Reachable() {
			t.Error("the endpoint counts as unreachable after a success")
		}
		e.ConnectFailed(errRefused)
		time.Sleep(firstBackoff * 5 / 4)
		if !e.Host().Reachable() {
			t.Error("the first failure after a success is avoided for longer than the first back-off")
		}
	})
}

func TestCloseEndsEverything(t *testing.T) {
	t.Parallel()
	for name, edit := range map[string]func(*discovery.Cluster){"HTTP/1.1": func(*discovery.Cluster) {}, "HTTP/2.0": speakHTTP2} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				const draining, dialing = "10.0.0.2:80", "10.0.0.3:80"
				w := newWorld(t)
				hang := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
				w.serve(paymentAddress, hang, streams(1))
				w.serve(draining, hang)
				w.dial = func(ctx context.Context, network, address string) (net.Conn, error) {
					if address == dialing {
						<-ctx.Done()
						return nil, context.Cause(ctx)
					}
					return w.network.DialContext(ctx, network, address)
				}
				limited := func(c *discovery.Cluster) {
					edit(c)
					c.Limits[0].MaxConnections = 2
				}
				results := result(limited, paymentAddress, draining, dialing)
				c := w.hold(results)
				leaving := start(t.Context(), t, endpoint(t, c, draining))
				synctest.Wait()
				w.hold(result(limited, paymentAddress, dialing))
				calls := startOneByOne(t, endpoint(t, c, paymentAddress), 3) // two of them wait
				calls = append(calls, start(t.Context(), t, endpoint(t, c, dialing)), leaving)
				synctest.Wait()
				w.manager.Close()
				for i, call := range calls {
					<-call.done
					if call.failure == nil {
						t.Errorf("call %d succeeded", i)
						continue
					}
					if k := call.failure.Kind; k != outcome.Closed && k != outcome.Reset {
						t.Errorf("call %d: %v: %v", i, k, call.failure.Err)
					}
					if k := call.failure.Kind; k == outcome.Reset != call.failure.Sent {
						t.Errorf("call %d: %v, sent: %t", i, k, call.failure.Sent)
					}
				}
				if _, failure := endpoint(t, c, paymentAddress).RoundTrip(newRequest(t.Context(), t, http.MethodGet, nil), 0); failure == nil || failure.Kind != outcome.Closed || !errors.Is(failure.Err, ErrClosed) {
					t.Errorf("a call after Close got %+v", failure)
				}
				w.manager.Close() // once more does nothing
				expectIdle(t, c, 0)
			})
		})
	}
}
