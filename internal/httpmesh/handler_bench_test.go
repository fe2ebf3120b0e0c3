package httpmesh

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/cputime"
	"github.com/inboardmesh/inboard/internal/inbound"
	"github.com/inboardmesh/inboard/internal/tlstest"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

// served is a source with one inbound configuration for every listener.
type served struct{ inbound *discovery.Inbound }

func (served) WatchTarget(string, func(discovery.Update[*discovery.Target])) func() {
	return func() {}
}

func (s served) WatchInbound(_ string, notify func(discovery.Update[*discovery.Inbound])) func() {
	notify(discovery.Update[*discovery.Inbound]{Value: s.inbound})
	return func() {}
}

func (served) Close() error { return nil }

// strict is what a control plane sends for STRICT mutual TLS, with one route for
// all requests if none are given.
func strict(routes ...*discovery.Route) *discovery.Inbound {
	if len(routes) == 0 {
		routes = []*discovery.Route{{Name: "default", Local: true}}
	}
	return &discovery.Inbound{Name: "inbound", Chains: []discovery.FilterChain{{
		Name:  "inbound",
		Match: discovery.ChainMatch{TransportProtocol: "tls"},
		TLS:   &discovery.DownstreamTLS{IdentityInstance: "default", RootInstance: "default", RequireClientCertificate: true},
		Routes: &discovery.RouteTable{Name: "inbound", VirtualHosts: []*discovery.VirtualHost{{
			Name: "inbound", Domains: []string{"*"}, Routes: routes,
		}}},
	}}}
}

// newBenchHandler is the server's side over next, and a request as it arrives
// there from a client of the mesh: over mutual TLS, with a deadline and a trace.
func newBenchHandler(tb testing.TB, hooks *observe.Hooks, next http.Handler, routes ...*discovery.Route) (http.Handler, *http.Request) {
	tb.Helper()
	return newFilteredHandler(tb, hooks, next, nil, routes...)
}

// newFilteredHandler is newBenchHandler with filters.
func newFilteredHandler(tb testing.TB, hooks *observe.Hooks, next http.Handler, filters []discovery.HTTPFilter, routes ...*discovery.Route) (http.Handler, *http.Request) {
	tb.Helper()
	in := strict(routes...)
	in.Chains[0].Filters = filters
	ca := tlstest.NewCA(tb)
	identity, err := meshtls.NewIdentity(ca.Workload(tb, "spiffe://cluster.local/ns/shop/sa/payment"), []*x509.Certificate{ca.Certificate})
	if err != nil {
		tb.Fatal(err)
	}
	listeners := inbound.New(inbound.Options{
		Source: served{in}, Hooks: hooks,
		Identity: func(string) (meshtls.Source, error) { return meshtls.NewStatic(identity), nil },
	})
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	ln, err := listeners.Listen(tb.Context(), inner)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := listeners.Close(); err != nil {
			tb.Error(err)
		}
	})

	req := newBenchRequest(tb)
	req = req.WithContext(context.WithValue(tb.Context(), http.LocalAddrContextKey, inner.Addr()))
	req.RequestURI = "/charge?order=7"
	req.Header.Set(DefaultDeadlineHeader, "2000")
	req.Header.Set("Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00")
	customer, err := meshtls.NewIdentity(ca.Workload(tb, "spiffe://cluster.local/ns/shop/sa/customer"), []*x509.Certificate{ca.Certificate})
	if err != nil {
		tb.Fatal(err)
	}
	req.TLS, req.RemoteAddr = connect(tb, ln, meshtls.NewStatic(customer))
	return &Handler{Listeners: listeners, Hooks: hooks, Next: next}, req
}

// connect opens a connection to a listener and returns it as the server sees it.
func connect(tb testing.TB, ln net.Listener, client meshtls.Source) (state *tls.ConnectionState, remote string) {
	tb.Helper()
	config, err := meshtls.ClientConfig(meshtls.ClientParams{Identity: client, Roots: client, Authorize: meshtls.AuthorizeAny()})
	if err != nil {
		tb.Fatal(err)
	}
	conn, err := (&tls.Dialer{Config: config}).DialContext(tb.Context(), "tcp", ln.Addr().String())
	if err != nil {
		tb.Fatal(err)
	}
	accepted, err := ln.Accept()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		_ = conn.Close()
		_ = accepted.Close()
	})
	return new(accepted.(*tls.Conn).ConnectionState()), accepted.RemoteAddr().String()
}

// sink is a response writer as that of HTTP/1.1 that keeps nothing.
type sink struct{ header http.Header }

func (s *sink) Header() http.Header                 { return s.header }
func (s *sink) Write(p []byte) (int, error)         { return len(p), nil }
func (s *sink) WriteHeader(int)                     {}
func (s *sink) Flush()                              {}
func (s *sink) ReadFrom(r io.Reader) (int64, error) { return io.Copy(io.Discard, r) }
func (s *sink) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return nil, nil, errors.New("not a connection")
}

// application answers without an allocation.
type application struct{}

var hello = []byte("hello")

func (application) ServeHTTP(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(hello) }

// BenchmarkHandler is what serving a request costs beside the connection and
// the application.
func BenchmarkHandler(b *testing.B) {
	bare := func(*testing.B) (http.Handler, *http.Request) { return application{}, newBenchRequest(b) }
	cases := []struct {
		name    string
		handler func(b *testing.B) (http.Handler, *http.Request)
	}{
		{"without the mesh", bare},
		{"telemetry off", func(b *testing.B) (http.Handler, *http.Request) {
			return newBenchHandler(b, &observe.Hooks{}, application{})
		}},
		{"telemetry on, not sampled", func(b *testing.B) (http.Handler, *http.Request) {
			return newBenchHandler(b, telemetry(b), application{})
		}},
	}
	for _, c := range cases {
		b.Run(c.name, func(b *testing.B) {
			handler, req := c.handler(b)
			w := &sink{header: make(http.Header)}
			cputime.Loop(b, func() { handler.ServeHTTP(w, req) })
		})
	}
}
