package httpmesh

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/outcome"
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
