package http1_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/inboardmesh/inboard/internal/http1"
)

// BenchmarkExchange is a request over loopback on one connection, beside the two
// ways of net/http.
func BenchmarkExchange(b *testing.B) {
	text := "HTTP/1.1 200 OK\r\nContent-Length: 1024\r\n\r\n" + strings.Repeat("x", 1024)
	dial := func(b *testing.B) net.Conn {
		b.Helper()
		ln, err := (&net.ListenConfig{}).Listen(b.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = ln.Close() })
		go func() {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
			// A server that costs as little as possible.
			request := make([]byte, 4096)
			for {
				if _, err := conn.Read(request); err != nil {
					return
				}
				if _, err := io.WriteString(conn, text); err != nil {
					return
				}
			}
		}()
		conn, err := (&net.Dialer{}).DialContext(b.Context(), "tcp", ln.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = conn.Close() })
		return conn
	}
	transport := func(b *testing.B) *http.Transport {
		b.Helper()
		conn := dial(b)
		return &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return conn, nil }}
	}
	for _, c := range []struct {
		name string
		make func(b *testing.B) http.RoundTripper
	}{
		{"http.Transport", func(b *testing.B) http.RoundTripper { b.Helper(); return transport(b) }},
		{"http.ClientConn", func(b *testing.B) http.RoundTripper {
			b.Helper()
			cc, err := transport(b).NewClientConn(b.Context(), "http", "payment:80")
			if err != nil {
				b.Fatal(err)
			}
			return cc
		}},
		{"http1", func(b *testing.B) http.RoundTripper {
			b.Helper()
			return reserving{http1.New(dial(b), new(http1.Options))}
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			rt := c.make(b)
			ctx, cancel := context.WithCancel(b.Context())
			defer cancel()
			b.ReportAllocs()
			for b.Loop() {
				req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://payment/charge", http.NoBody)
				if err != nil {
					b.Fatal(err)
				}
				resp, err := rt.RoundTrip(req)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := io.Copy(io.Discard, resp.Body); err != nil {
					b.Fatal(err)
				}
				_ = resp.Body.Close()
			}
		})
	}
}

// reserving does what a pool does for each request.
type reserving struct{ *http1.Conn }

func (r reserving) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := r.Reserve(); err != nil {
		return nil, err
	}
	return r.Conn.RoundTrip(req)
}
