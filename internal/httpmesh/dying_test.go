package httpmesh

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/outcome"
	"github.com/inboardmesh/inboard/retry"
)

// dyingServer answers the first request of each connection, reads the second and
// closes without an answer: the worst that a server can do which is being
// replaced. It counts what it reads.
func dyingServer(t *testing.T) (address string, requests *atomic.Int64) {
	t.Helper()
	requests = new(atomic.Int64)
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				br := bufio.NewReader(conn)
				for i := range 2 {
					req, err := http.ReadRequest(br)
					if err != nil {
						return
					}
					_, _ = io.Copy(io.Discard, req.Body)
					requests.Add(1)
					if i == 0 {
						_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
					}
				}
			}()
		}
	}()
	return ln.Addr().String(), requests
}

func plainRoutes(t *discovery.Target) {
	for _, host := range t.Routes.VirtualHosts {
		for _, route := range host.Routes {
			if route.Forward != nil {
				route.Forward.Retry = nil
				route.Forward.Clusters = route.Forward.Clusters[:1]
			}
		}
	}
}

// A request on a connection that dies may have been acted on. It is repeated if
// that does no harm, as an attempt of its own, and never otherwise.
func TestBN11_ADyingConnectionFailsNoIdempotentCallAndRepeatsNoOther(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, method, key string
		body              io.Reader
		survives          bool
	}{
		{name: "GET", method: http.MethodGet, survives: true},
		{name: "HEAD", method: http.MethodHead, survives: true},
		{name: "PUT", method: http.MethodPut, body: strings.NewReader("a body"), survives: true},
		{name: "DELETE", method: http.MethodDelete, survives: true},
		{name: "OPTIONS", method: http.MethodOptions, survives: true},
		{name: "POST", method: http.MethodPost, body: strings.NewReader("a body")},
		{name: "PATCH", method: http.MethodPatch, body: strings.NewReader("a body")},
		{name: "POST with a key", method: http.MethodPost, key: "Idempotency-Key", body: strings.NewReader("a body"), survives: true},
		{name: "POST with the other key", method: http.MethodPost, key: "X-Idempotency-Key", survives: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			address, requests := dyingServer(t)
			attempts := 0
			tr := newWireTransport(t, address, &observe.Hooks{
				AttemptEnded: func(context.Context, *observe.Attempt) { attempts++ },
			}, plainRoutes)
			first, err := tr.RoundTrip(newRequest(t.Context(), t, http.MethodGet, "http://payment.shop/", nil))
			if err != nil {
				t.Fatal(err)
			}
			readAll(t, first)
			attempts = 0
			req := newRequest(t.Context(), t, c.method, "http://payment.shop/", c.body)
			if c.key != "" {
				req.Header.Set(c.key, "1")
			}
			resp, err := tr.RoundTrip(req)
			if !c.survives {
				failed(t, resp, err, outcome.Reset)
				if requests.Load() != 2 || attempts != 1 {
					t.Errorf("%d requests arrived, in %d attempts of the second call", requests.Load(), attempts)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			readAll(t, resp)
			if requests.Load() != 3 || attempts != 2 {
				t.Errorf("%d requests arrived, in %d attempts of the second call", requests.Load(), attempts)
			}
		})
	}
}

// A server that dies takes all of its connections with it: one resend is enough, for it
// goes by none that was idle. Nor does a server which ends what it is asked get more.
func TestBN11_OneRepetitionIsEnoughHoweverManyConnectionsDie(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		idle  int
		limit uint32
	}{{idle: 1}, {idle: 2}, {idle: 8}, {idle: 1, limit: 1}, {idle: 8, limit: 8}} {
		t.Run(fmt.Sprintf("%d idle, at most %d", c.idle, c.limit), func(t *testing.T) {
			t.Parallel()
			idle := c.idle
			address, requests := dyingServer(t)
			var attempts atomic.Int64
			tr := newWireTransport(t, address, &observe.Hooks{
				AttemptEnded: func(context.Context, *observe.Attempt) { attempts.Add(1) },
			}, plainRoutes, func(target *discovery.Target) {
				if c.limit > 0 {
					target.Clusters["v1"].Cluster.Limits[0].MaxConnections = c.limit
				}
			})
			var responses []*http.Response
			for range idle {
				resp, err := tr.RoundTrip(newRequest(t.Context(), t, http.MethodGet, "http://payment.shop/", nil))
				if err != nil {
					t.Fatal(err)
				}
				responses = append(responses, resp) // whose bodies hold their connections
			}
			for _, resp := range responses {
				readAll(t, resp)
			}
			resp, err := tr.RoundTrip(newRequest(t.Context(), t, http.MethodGet, "http://payment.shop/", nil))
			if err != nil {
				t.Fatal(err)
			}
			readAll(t, resp)
			if got, want := requests.Load(), int64(idle+2); got != want || attempts.Load() != want {
				t.Errorf("%d requests arrived, in %d attempts, want %d", got, attempts.Load(), want)
			}
		})
	}
}

func TestBN11_AServerThatEndsWhatItIsAskedGetsItTwice(t *testing.T) {
	t.Parallel()
	for name, throttle := range map[string]*retry.ThrottleSettings{"without a throttle": nil, "with one": {MaxTokens: 10, TokenRatio: 0.1}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, newTarget(func(target *discovery.Target) {
					plainRoutes(target)
					target.Clusters["v1"].Cluster.RetryThrottle = throttle
				}), func(rw http.ResponseWriter, r *http.Request) {
					if r.URL.Path == "/dies" {
						panic(http.ErrAbortHandler)
					}
				})
				const calls = 100
				for range calls {
					// The connection that it dies on has carried another request before.
					readAll(t, w.do(newRequest(t.Context(), t, http.MethodGet, paymentURL, nil)))
					resp, err := w.transport.RoundTrip(newRequest(t.Context(), t, http.MethodGet, "http://payment.shop/dies", nil))
					failed(t, resp, err, outcome.Reset)
				}
				extra := w.served.Load() - 2*calls
				if throttle == nil && extra != calls || throttle != nil && (extra == 0 || extra > 60) {
					t.Errorf("%d calls that die were repeated %d times", calls, extra)
				}
			})
		})
	}
}
