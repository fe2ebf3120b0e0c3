package mesh_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/interop/grpc_testing"

	"github.com/inboardmesh/inboard/internal/memnet"
	"github.com/inboardmesh/inboard/mesh/meshtest"
)

// TestV48_NobodyHoldsAConnectionThatSaysNothing: the headers of a request have 10 s, and
// a connection without a request an hour, whatever it has said before.
func TestV48_NobodyHoldsAConnectionThatSaysNothing(t *testing.T) {
	t.Parallel()
	const headers, idle = 10 * time.Second, time.Hour + time.Second // to say that it ends
	const settings = "\x00\x00\x00\x04\x00\x00\x00\x00\x00"
	tests := []struct {
		name, text string
		grpc       bool
		after      time.Duration // when it is closed, at the latest
	}{
		{"nothing", "", false, 15 * time.Second}, // it could be TLS
		{"half a line", "GET / HT", false, headers},
		{"half of the headers", "GET / HTTP/1.1\r\nHost: a\r\n", false, headers},
		{"headers, and the headers of another request", "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost", false, headers},
		{"a request", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", false, idle},
		{"a preface", http2.ClientPreface, false, headers},
		{"a preface and settings", http2.ClientPreface + settings, false, idle},
		{"half a frame of headers", http2.ClientPreface + settings + "\x00\x00\x20\x01\x04\x00\x00\x00\x01\x82", false, idle},
		{"headers without their end", http2.ClientPreface + settings + "\x00\x00\x01\x01\x00\x00\x00\x00\x01\x82", false, idle},
		{"half a preface of gRPC", http2.ClientPreface[:20], true, 2 * time.Minute},
		{"a preface of gRPC", http2.ClientPreface, true, 2 * time.Minute},
		// gRPC waits for a while whether there is a request on the way.
		{"a preface and settings of gRPC", http2.ClientPreface + settings, true, idle + 2*time.Minute},
		{"half a frame of headers of gRPC", http2.ClientPreface + settings + "\x00\x00\x20\x01\x04\x00\x00\x00\x01\x82", true, idle + 2*time.Minute},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := meshtest.New(t)
				m := w.Workload("payment.shop")
				network := new(memnet.Network)
				inner, err := network.Listen("10.9.9.9:80")
				if err != nil {
					t.Fatal(err)
				}
				ln, err := m.Serve(t.Context(), inner)
				if err != nil {
					t.Fatal(err)
				}
				if tt.grpc {
					server := grpc.NewServer(m.ServerOptions()...)
					grpc_testing.RegisterTestServiceServer(server, hostileService{})
					done := make(chan struct{})
					go func() { // until the test ends
						defer close(done)
						_ = server.Serve(ln)
					}()
					t.Cleanup(func() {
						server.Stop()
						<-done
					})
				} else {
					serveUntilEnd(t, m.Server(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})), ln)
				}
				conn, err := network.DialContext(t.Context(), "tcp", "10.9.9.9:80")
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				since := time.Now()
				go func() { _, _ = io.WriteString(conn, tt.text) }() // ends with the connection
				_ = conn.SetReadDeadline(since.Add(48 * time.Hour))
				_, _ = io.Copy(io.Discard, conn)
				if took := time.Since(since); took > tt.after {
					t.Errorf("it is closed after %v, want %v at the latest", took, tt.after)
				}
			})
		})
	}
}

// endlessService answers for ever. Its messages are of the size up to which grpc-go does
// not take a buffer of a MiB for each.
type endlessService struct {
	hostileService

	running *atomic.Int64
}

func (s endlessService) StreamingOutputCall(_ *grpc_testing.StreamingOutputCallRequest, stream grpc.ServerStreamingServer[grpc_testing.StreamingOutputCallResponse]) error {
	s.running.Add(1)
	defer s.running.Add(-1)
	reply := &grpc_testing.StreamingOutputCallResponse{Payload: &grpc_testing.Payload{Body: make([]byte, 31<<10)}}
	for {
		if err := stream.Send(reply); err != nil {
			return err
		}
	}
}

// TestV48_AClientThatDoesNotReadHoldsLittleOfTheServer: it asks for endless responses over
// HTTP/1.1, HTTP/2 and gRPC, and reads none. Each costs less than a MiB, others are
// served meanwhile, and nothing runs when it has gone.
func TestV48_AClientThatDoesNotReadHoldsLittleOfTheServer(t *testing.T) { //nolint:paralleltest // it reads what the whole process holds
	const requests, most = 64, 1 << 20
	var running atomic.Int64
	m, ln := listenRaw(t, newRawXDS(t), "", "")
	serveUntilEnd(t, m.Server(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/short" {
			return
		}
		running.Add(1)
		defer running.Add(-1)
		piece := make([]byte, 64<<10)
		for r.Context().Err() == nil {
			if _, err := w.Write(piece); err != nil {
				return
			}
		}
	})), ln)
	n, rpc := listenRaw(t, newRawXDS(t), "", "")
	server := grpc.NewServer(n.ServerOptions()...)
	grpc_testing.RegisterTestServiceServer(server, endlessService{running: &running})
	done := make(chan struct{})
	go func() { // until the test ends
		defer close(done)
		_ = server.Serve(rpc)
	}()
	t.Cleanup(func() {
		server.Stop()
		<-done
	})
	short := func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+ln.Addr().String()+"/short", http.NoBody)
		if err != nil {
			return err
		}
		resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
		if err == nil {
			_ = resp.Body.Close()
		}
		return err
	}
	streams := func(address string, fields [][2]string, body string) func() []net.Conn {
		return func() []net.Conn {
			c := dialHTTP2(t, address)
			for i := range uint32(requests) {
				_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*i + 1, BlockFragment: c.fields(fields), EndHeaders: true, EndStream: body == ""})
				if body != "" {
					_ = c.WriteData(2*i+1, true, []byte(body))
				}
			}
			_ = c.written.Flush()
			return []net.Conn{c.Conn}
		}
	}
	for _, tt := range []struct {
		name string
		ask  func() []net.Conn
		work func(ctx context.Context) error
	}{
		{"HTTP/1.1", func() []net.Conn {
			conns := make([]net.Conn, 0, requests)
			for range requests {
				conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", ln.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
				conns = append(conns, conn)
			}
			return conns
		}, short},
		{"HTTP/2", streams(ln.Addr().String(), [][2]string{{":method", "GET"}, {":scheme", "http"}, {":authority", "a"}, {":path", "/"}}, ""), short},
		{"gRPC", streams(rpc.Addr().String(), [][2]string{
			{":method", "POST"}, {":scheme", "http"}, {":authority", "a"}, {":path", grpc_testing.TestService_StreamingOutputCall_FullMethodName},
			{"content-type", "application/grpc"}, {"te", "trailers"},
		}, strings.Repeat("\x00", 5)), func(ctx context.Context) error {
			_, err := outsider(t, rpc.Addr().String()).EmptyCall(ctx, new(grpc_testing.Empty))
			return err
		}},
	} {
		before := heldNow()
		conns := tt.ask()
		until(t, tt.name+": all are served", func() bool { return running.Load() == requests })
		for range 5 {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			if err := tt.work(ctx); err != nil {
				t.Errorf("%s: another client: %v", tt.name, err)
			}
			cancel()
		}
		if grown := (heldNow() - before) / requests; grown > most {
			t.Errorf("%s: %d KiB are held for each request", tt.name, grown>>10)
		}
		for _, conn := range conns {
			_ = conn.Close()
		}
		until(t, tt.name+": nothing runs any more", func() bool { return running.Load() == 0 })
	}
}
