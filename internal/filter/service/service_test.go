package service_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/breaker"
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/filter/service"
	"github.com/inboardmesh/inboard/internal/memnet"
	"github.com/inboardmesh/inboard/internal/upstream"
	"github.com/inboardmesh/inboard/observe"
)

// world is a cluster "keys" and a network.
type world struct {
	network *memnet.Network
	client  *service.Client
	dials   atomic.Int64
	refused []string
	hooks   *observe.Hooks
}

// newWorld has endpoints at addresses, in the order in which they are tried.
func newWorld(t *testing.T, limits breaker.Limits, addresses ...string) *world {
	w := &world{network: new(memnet.Network)}
	hooks := &observe.Hooks{Overflowed: func(e observe.OverflowEvent) { w.refused = append(w.refused, e.Resource) }}
	w.hooks = hooks
	row := balancer.ConsecutiveFailures{Threshold: 1, Enforcing: 100}
	outlier := &balancer.OutlierConfig{Interval: time.Hour, MaxEjectionPercent: 100, Consecutive5xx: row}
	m := upstream.NewManager(upstream.Options{Hooks: hooks, Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		w.dials.Add(1)
		return w.network.DialContext(ctx, network, address)
	}})
	t.Cleanup(m.Close)
	locality := discovery.LocalityEndpoints{Weight: 1}
	for _, address := range addresses {
		locality.Endpoints = append(locality.Endpoints, balancer.Endpoint{Address: address, Weight: 1})
	}
	held := m.Hold(map[string]discovery.ClusterResult{
		"keys": {
			Cluster:   &discovery.Cluster{Name: "keys", Protocol: discovery.HTTP1, Limits: [2]breaker.Limits{limits, limits}, Outlier: outlier, Balancer: balancer.Config{PanicThreshold: 100}},
			Endpoints: &discovery.Assignment{Name: "keys", Localities: []discovery.LocalityEndpoints{locality}},
		},
		"broken": {Err: errors.New("refused by the control plane")},
	})
	t.Cleanup(func() { m.Release(held) })
	w.client = service.NewClient(m.Find, hooks)
	return w
}

// serve serves at an address until the test's end.
func (w *world) serve(t *testing.T, address string, h http.HandlerFunc) {
	t.Helper()
	ln, err := w.network.Listen(address)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h, ReadHeaderTimeout: time.Hour}
	var done sync.WaitGroup
	done.Go(func() { _ = s.Serve(ln) })
	t.Cleanup(func() {
		_ = s.Close()
		done.Wait()
	})
}

// do asks for /keys with a body.
func (w *world) do(ctx context.Context, t *testing.T, cluster string, limit int64, secure bool) (*service.Response, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://issuer/keys", strings.NewReader("question"))
	if err != nil {
		t.Fatal(err)
	}
	return w.client.Do(ctx, cluster, req, limit, secure)
}

const (
	first  = "10.0.0.1:80"
	second = "10.0.0.2:80"
)

func TestAResponseIsReadToItsEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, breaker.DefaultLimits, first)
		w.serve(t, first, func(rw http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			rw.Header().Set("Trailer", "X-End")
			_, _ = io.WriteString(rw, r.Host+r.URL.Path+" "+string(body))
			rw.Header().Set("X-End", "yes")
		})
		resp, err := w.do(t.Context(), t, "keys", 100, false)
		if err != nil {
			t.Fatal(err)
		}
		if resp.Status != 200 || string(resp.Body) != "issuer/keys question" || resp.Trailer.Get("X-End") != "yes" {
			t.Errorf("got %+v, body %q", resp, resp.Body)
		}
	})
}

// TestV33_OnlyClustersAreCalled: nothing that a service answers leads elsewhere,
// and nothing that it sends is kept without a limit.
func TestV33_OnlyClustersAreCalled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, breaker.DefaultLimits, first)
		var elsewhere atomic.Int64
		w.serve(t, "169.254.169.254:80", func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) })
		var answer http.HandlerFunc
		w.serve(t, first, func(rw http.ResponseWriter, r *http.Request) { answer(rw, r) })

		answer = func(rw http.ResponseWriter, r *http.Request) {
			http.Redirect(rw, r, "http://169.254.169.254/latest/meta-data", http.StatusTemporaryRedirect)
		}
		resp, err := w.do(t.Context(), t, "keys", 1000, false)
		if err != nil || resp.Status != http.StatusTemporaryRedirect {
			t.Errorf("a redirect: %v, %v", resp, err)
		}
		if n := elsewhere.Load(); n != 0 {
			t.Errorf("a redirect was followed %d times", n)
		}

		answer = func(rw http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(rw, strings.Repeat("x", 101)) }
		if _, err := w.do(t.Context(), t, "keys", 100, false); err == nil || !strings.HasSuffix(err.Error(), "the response has more than 100 bytes") || service.ReasonOf(err) != service.Invalid {
			t.Errorf("a response that is too long: %v", err)
		}
		if resp, err := w.do(t.Context(), t, "keys", 101, false); err != nil || len(resp.Body) != 101 {
			t.Errorf("a response that is as long as it may be: %v", err)
		}

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		answer = func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.ReadAll(r.Body) // the server notices that the caller goes only then
			<-r.Context().Done()
		}
		if _, err := w.do(ctx, t, "keys", 100, false); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("no response: %v", err)
		}
	})
}

func TestWhatCannotBeCalled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, breaker.DefaultLimits, first)
		for _, tt := range []struct {
			name, cluster string
			secure        bool
			want          string
			reason        service.Reason
		}{
			{"an unknown cluster", "gone", false, `cluster "gone": not configured`, service.Cluster},
			{"a cluster without TLS, for https", "keys", true, `cluster "keys": has no TLS, which the scheme https needs`, service.Cluster},
			{"nobody there", "keys", false, `cluster "keys": endpoint 10.0.0.1:80: `, service.Unreachable},
		} {
			if _, err := w.do(t.Context(), t, tt.cluster, 100, tt.secure); err == nil || !strings.HasPrefix(err.Error(), tt.want) || service.ReasonOf(err) != tt.reason {
				t.Errorf("%s: %v, %s, want %s, %s", tt.name, err, service.ReasonOf(err), tt.want, tt.reason)
			}
		}
	})
}

func TestAnotherEndpointIsTriedWhileNothingWasSent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, breaker.DefaultLimits, first, second)
		var served atomic.Int64
		w.serve(t, second, func(_ http.ResponseWriter, r *http.Request) {
			if body, _ := io.ReadAll(r.Body); string(body) == "question" {
				served.Add(1)
			}
		})
		for range 4 { // whichever comes first
			if _, err := w.do(t.Context(), t, "keys", 100, false); err != nil {
				t.Error(err)
			}
		}
		if n := served.Load(); n != 4 {
			t.Errorf("%d of 4 arrived whole", n)
		}
	})
}

func TestWhatMayHaveArrivedIsNotSentAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, breaker.DefaultLimits, first, second)
		var arrived atomic.Int64
		breakOff := func(rw http.ResponseWriter, r *http.Request) {
			arrived.Add(1)
			_, _ = io.ReadAll(r.Body)
			conn, _, err := http.NewResponseController(rw).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			_ = conn.Close()
		}
		w.serve(t, first, breakOff)
		w.serve(t, second, breakOff)
		if _, err := w.do(t.Context(), t, "keys", 100, false); err == nil || service.ReasonOf(err) != service.Broken {
			t.Errorf("%v, %s", err, service.ReasonOf(err))
		}
		if n := arrived.Load(); n != 1 {
			t.Errorf("arrived %d times", n)
		}
	})
}

// A service that does not answer in the time that the configuration gives it has
// failed. One for whose answer nobody waits any more has not.
func TestWhoseTimeItWasThatEndedACall(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		timeout time.Duration // of the configuration
		caller  time.Duration
		headers bool // are sent before the silence
		fault   bool
	}{
		{"the configuration's", time.Second, time.Minute, false, true},
		{"the caller's", time.Minute, time.Second, false, false},
		{"the configuration's, in an answer", time.Second, time.Minute, true, false},
		{"the caller's, in an answer", time.Minute, time.Second, true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ejected := 0
				w := newWorld(t, breaker.DefaultLimits, first, second)
				w.hooks.EndpointEjected = func(observe.EjectionEvent) { ejected++ }
				silent := func(rw http.ResponseWriter, r *http.Request) {
					_, _ = io.Copy(io.Discard, r.Body)
					if tt.headers {
						_, _ = io.WriteString(rw, "an")
						_ = http.NewResponseController(rw).Flush()
					}
					<-r.Context().Done()
				}
				w.serve(t, first, silent)
				w.serve(t, second, silent)
				for range 2 {
					caller, cancel := context.WithTimeout(t.Context(), tt.caller)
					ctx, stop := service.WithTimeout(caller, tt.timeout)
					if _, err := w.do(ctx, t, "keys", 100, false); !errors.Is(err, context.DeadlineExceeded) || service.ReasonOf(err) != service.Timeout {
						t.Errorf("the call ended with %v, %s", err, service.ReasonOf(err))
					}
					stop()
					cancel()
				}
				synctest.Wait()
				if ejected > 0 != tt.fault {
					t.Errorf("%d endpoints ejected, the service's fault: %t", ejected, tt.fault)
				}
			})
		})
	}
}

func TestLimitsOfTheClusterHold(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		limits := breaker.DefaultLimits
		limits.MaxRequests = 1
		w := newWorld(t, limits, first)
		hold := make(chan struct{})
		w.serve(t, first, func(http.ResponseWriter, *http.Request) { <-hold })
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := w.do(t.Context(), t, "keys", 100, false); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		if _, err := w.do(t.Context(), t, "keys", 100, false); err == nil || !strings.HasSuffix(err.Error(), "circuit breaker: too many requests") || service.ReasonOf(err) != service.Overflow {
			t.Errorf("one too many: %v", err)
		}
		close(hold)
		wg.Wait()
		if _, err := w.do(t.Context(), t, "keys", 100, false); err != nil {
			t.Errorf("afterwards: %v", err)
		}
		if len(w.refused) != 1 || w.refused[0] != "requests" {
			t.Errorf("reported %v", w.refused)
		}
	})
}

// TestASwitchOfProtocolsIsNoAnswer: what follows it has no end but the connection's, and
// a caller must not wait for that.
func TestASwitchOfProtocolsIsNoAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, breaker.DefaultLimits, first)
		gone := make(chan struct{})
		w.serve(t, first, func(rw http.ResponseWriter, _ *http.Request) {
			defer close(gone)
			conn, _, err := rw.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
			_, _ = io.Copy(io.Discard, conn) // until the client closes it
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := w.do(ctx, t, "keys", 100, false); err == nil || !strings.Contains(err.Error(), "switches") {
			t.Errorf("%v", err)
		}
		<-gone // the connection does not stay
	})
}
