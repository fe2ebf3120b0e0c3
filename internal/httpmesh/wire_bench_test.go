package httpmesh

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/cputime"
	"github.com/inboardmesh/inboard/internal/pipeline"
	"github.com/inboardmesh/inboard/internal/upstream"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/retry"
)

// echoServer answers every request on loopback with the same bytes and without
// an allocation, so that what is counted is the client's.
func echoServer(tb testing.TB) (address string) {
	tb.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { answerAll(conn) })
		}
	})
	tb.Cleanup(func() {
		_ = ln.Close()
		wg.Wait()
	})
	return ln.Addr().String()
}

// answerAll serves a connection until the client closes it.
func answerAll(conn net.Conn) {
	defer conn.Close()
	answer := []byte("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello")
	lines := bufio.NewReader(conn)
	for {
		for {
			line, err := lines.ReadSlice('\n')
			if err != nil {
				return
			}
			if len(line) == len("\r\n") {
				break
			}
		}
		if _, err := conn.Write(answer); err != nil {
			return
		}
	}
}

// newWireTransport is the whole client with real connections to address.
func newWireTransport(tb testing.TB, address string, hooks *observe.Hooks, edit ...func(*discovery.Target)) *Transport {
	tb.Helper()
	target := benchTarget()
	for _, f := range edit {
		f(target)
	}
	for _, cluster := range target.Clusters {
		cluster.Endpoints.Localities = []balancer.LocalityEndpoints{{
			Weight: 1, Endpoints: []balancer.Endpoint{{Address: address, Weight: 1, Health: balancer.Healthy}},
		}}
	}
	manager := upstream.NewManager(upstream.Options{Hooks: hooks, Dial: new(net.Dialer).DialContext, Transport: new(http.Transport)})
	outbound := pipeline.NewOutbound(fixed{target}, manager, hooks)
	tb.Cleanup(func() {
		outbound.Close()
		manager.Close()
	})
	return NewTransport(outbound, nil)
}

// newPlainTransport is net/http's, whatever the URL, to the same address.
func newPlainTransport(tb testing.TB, address string) *http.Transport {
	tb.Helper()
	plain := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", address)
	}}
	tb.Cleanup(plain.CloseIdleConnections)
	return plain
}

// BenchmarkWire is a call with its connection, beside the same without the
// mesh: HTTP/1.1 over loopback, in plaintext, to a server that costs nothing.
func BenchmarkWire(b *testing.B) {
	address := echoServer(b)
	plain := newPlainTransport(b, address)
	cases := []struct {
		name      string
		transport http.RoundTripper
	}{
		{"without the mesh", plain},
		{"without the mesh, with a timeout", timed{plain}},
		{"telemetry off", newWireTransport(b, address, &observe.Hooks{})},
		{"telemetry on, not sampled", newWireTransport(b, address, telemetry(b))},
	}
	for _, c := range cases {
		b.Run(c.name, func(b *testing.B) {
			req := newBenchRequest(b)
			cputime.Loop(b, func() { get(b, c.transport, req) })
		})
	}
}

// BenchmarkWireHTTP2 is the same over HTTP/2, with net/http's server. Callers have a
// timeout, as they mostly do, which ends before the route's; the route has one for each
// try, too, and retries what Istio has retried by default.
func BenchmarkWireHTTP2(b *testing.B) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") })}
	server.Protocols = new(http.Protocols)
	server.Protocols.SetUnencryptedHTTP2(true)
	var wg sync.WaitGroup
	wg.Go(func() { _ = server.Serve(ln) })
	b.Cleanup(func() {
		_ = server.Close()
		wg.Wait()
	})
	address := ln.Addr().String()
	plain := newPlainTransport(b, address)
	plain.Protocols = server.Protocols
	over2 := func(target *discovery.Target) {
		for _, cluster := range target.Clusters {
			cluster.Cluster.Protocol = discovery.HTTP2
		}
		policy := target.Routes.VirtualHosts[0].Routes[1].Forward.Retry
		policy.PerTryTimeout, policy.On = time.Second, policy.On|retry.OnGRPCUnavailable
	}
	cases := []struct {
		name      string
		transport http.RoundTripper
	}{
		{"without the mesh", plain},
		{"telemetry off", newWireTransport(b, address, &observe.Hooks{}, over2)},
		{"telemetry on, not sampled", newWireTransport(b, address, telemetry(b), over2)},
	}
	for _, c := range cases {
		b.Run(c.name, func(b *testing.B) {
			req := newBenchRequest(b)
			transport := timed{c.transport}
			cputime.Loop(b, func() { get(b, transport, req) })
		})
	}
}

// timed gives each request the time that the mesh's route gives it.
type timed struct{ http.RoundTripper }

func (t timed) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithTimeout(req.Context(), 2*time.Second)
	resp, err := t.RoundTripper.RoundTrip(req.WithContext(ctx))
	if err != nil {
		cancel()
		return nil, err
	}
	resp.Body = &canceling{resp.Body, cancel}
	return resp, nil
}

type canceling struct {
	io.ReadCloser
	cancel context.CancelFunc
}

func (c *canceling) Close() error {
	defer c.cancel()
	return c.ReadCloser.Close()
}
