package upstream

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/outcome"
)

// rawServer serves each connection with a function, until the test ends.
func (w *world) rawServer(address string, serve func(conn net.Conn)) {
	w.t.Helper()
	listener, err := w.network.Listen(address)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = listener.Close() })
	go func() { // ends with the listener
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() { // ends with the connection
				serve(conn)
				_ = conn.Close()
			}()
		}
	}()
}

// http1Server answers requests until spoil says that it will not. It counts the
// requests whose first byte it has seen.
func (w *world) http1Server(address string, spoil func(number int64, conn net.Conn, r *bufio.Reader) bool) *atomic.Int64 {
	w.t.Helper()
	var requests atomic.Int64
	w.rawServer(address, func(conn net.Conn) {
		r := bufio.NewReader(conn)
		for {
			if _, err := r.Peek(1); err != nil || spoil(requests.Add(1), conn, r) {
				return
			}
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			if _, err := io.Copy(io.Discard, req.Body); err != nil {
				return
			}
			if _, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"); err != nil {
				return
			}
		}
	})
	return &requests
}

var methods = []string{
	http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace,
	http.MethodPut, http.MethodDelete, http.MethodPost, http.MethodPatch,
}

// net/http's Transport sends a request again by itself when a keep-alive
// connection dies under it, if it thinks that it may. An attempt is one attempt.
func TestBR20_BN11_ADyingKeepAliveConnectionSeesEachRequestOnce(t *testing.T) {
	t.Parallel()
	deaths := map[string]func(conn net.Conn, r *bufio.Reader){
		"it closes at the first byte": func(net.Conn, *bufio.Reader) {},
		"it closes after the request": func(_ net.Conn, r *bufio.Reader) {
			if req, err := http.ReadRequest(r); err == nil {
				_, _ = io.Copy(io.Discard, req.Body)
			}
		},
		"it closes within the response": func(conn net.Conn, _ *bufio.Reader) {
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Le")
		},
	}
	for death, die := range deaths {
		for _, method := range methods {
			for _, body := range []string{"", "42"} {
				t.Run(death+", "+method+" with body "+body, func(t *testing.T) {
					t.Parallel()
					synctest.Test(t, func(t *testing.T) {
						w := newWorld(t)
						requests := w.http1Server(paymentAddress, func(number int64, conn net.Conn, r *bufio.Reader) bool {
							if number == 2 {
								die(conn, r)
							}
							return number == 2
						})
						c, e := w.one(nil)
						get(t, e)
						var content io.Reader
						if body != "" {
							content = bytes.NewReader([]byte(body)) // with GetBody
						}
						req := newRequest(t.Context(), t, method, content)
						req.Header.Set("Idempotency-Key", "7") // net/http takes that as leave to send again
						_, failure := e.RoundTrip(req, 0)
						if failure == nil || failure.Kind != outcome.Reset || !failure.Sent {
							t.Errorf("got %+v, want a reset after something was sent", failure)
						}
						synctest.Wait()
						if got := requests.Load(); got != 2 {
							t.Errorf("the server saw %d requests, want 2", got)
						}
						w.expectConnections(1, 1)
						expectIdle(t, c, 0)
					})
				})
			}
		}
	}
}

func TestAConnectionThatDiedIdleIsNotUsed(t *testing.T) {
	t.Parallel()
	for _, method := range methods {
		t.Run(method, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				requests := w.http1Server(paymentAddress, func(number int64, conn net.Conn, _ *bufio.Reader) bool {
					if number == 1 {
						_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
					}
					return number == 1
				})
				_, e := w.one(nil)
				get(t, e)
				synctest.Wait()
				resp, failure := e.RoundTrip(newRequest(t.Context(), t, method, nil), 0)
				if failure != nil {
					t.Fatal(failure.Err)
				}
				read(t, resp)
				if got := requests.Load(); got != 2 {
					t.Errorf("the server saw %d requests, want 2", got)
				}
				w.expectConnections(2, 1)
			})
		})
	}
}

// stuckConn fails every write from the second request on, before it takes a byte.
type stuckConn struct {
	net.Conn
	stuck *atomic.Bool
}

func (c *stuckConn) Write(p []byte) (int, error) {
	if c.stuck.Load() {
		return 0, errors.New("broken pipe")
	}
	return c.Conn.Write(p)
}

func TestNothingWrittenIsCertified(t *testing.T) {
	t.Parallel()
	for _, method := range methods {
		t.Run(method, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				s := w.serve(paymentAddress, answer)
				var stuck atomic.Bool
				w.dial = func(ctx context.Context, network, address string) (net.Conn, error) {
					conn, err := w.network.DialContext(ctx, network, address)
					return &stuckConn{conn, &stuck}, err
				}
				_, e := w.one(nil)
				get(t, e)
				stuck.Store(true)
				_, failure := e.RoundTrip(newRequest(t.Context(), t, method, nil), 0)
				if failure == nil || failure.Kind != outcome.ResetBeforeRequest || failure.Sent {
					t.Errorf("got %+v, want a reset before the request", failure)
				}
				if got := s.calls.Load(); got != 1 {
					t.Errorf("the server got %d calls, want 1", got)
				}
				w.expectConnections(1, 1)
			})
		})
	}
}

// http2Server answers the first stream of each connection as the test says.
func (w *world) http2Server(address string, react func(f *http2.Framer, stream uint32), settings ...http2.Setting) {
	w.t.Helper()
	w.rawServer(address, func(conn net.Conn) {
		if _, err := io.ReadFull(conn, make([]byte, len(http2.ClientPreface))); err != nil {
			return
		}
		f := http2.NewFramer(conn, conn)
		if f.WriteSettings(settings...) != nil {
			return
		}
		for {
			frame, err := f.ReadFrame()
			if err != nil {
				return
			}
			if settings, ok := frame.(*http2.SettingsFrame); ok && !settings.IsAck() && f.WriteSettingsAck() != nil {
				return
			}
			if headers, ok := frame.(*http2.HeadersFrame); ok {
				react(f, headers.StreamID)
			}
		}
	})
}

// net/http does not export its HTTP/2 errors: here is each kind of them, made by
// the real thing.
func TestHTTP2Failures(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		react func(f *http2.Framer, stream uint32)
		kind  outcome.Kind
		sent  bool
	}{
		{
			name:  "REFUSED_STREAM certifies that nothing was done",
			react: func(f *http2.Framer, id uint32) { _ = f.WriteRSTStream(id, http2.ErrCodeRefusedStream) },
			kind:  outcome.RefusedStream, sent: true,
		},
		{
			name:  "another reset does not",
			react: func(f *http2.Framer, id uint32) { _ = f.WriteRSTStream(id, http2.ErrCodeInternal) },
			kind:  outcome.Reset, sent: true,
		},
		{
			name:  "a graceful GOAWAY excludes the stream",
			react: func(f *http2.Framer, _ uint32) { _ = f.WriteGoAway(0, http2.ErrCodeNo, nil) },
			kind:  outcome.RefusedStream, sent: true,
		},
		{
			name: "a graceful GOAWAY includes the stream, which is then reset",
			react: func(f *http2.Framer, id uint32) {
				_ = f.WriteGoAway(id, http2.ErrCodeNo, nil)
				_ = f.WriteRSTStream(id, http2.ErrCodeInternal)
			},
			kind: outcome.Reset, sent: true,
		},
		{
			name: "a header that is none",
			react: func(f *http2.Framer, id uint32) {
				var block bytes.Buffer
				_ = hpack.NewEncoder(&block).WriteField(hpack.HeaderField{Name: ":status", Value: "many"})
				_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block.Bytes(), EndHeaders: true})
			},
			kind: outcome.Reset, sent: true,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.http2Server(paymentAddress, tt.react)
				c, e := w.one(speakHTTP2)
				_, failure := e.RoundTrip(newRequest(t.Context(), t, http.MethodPost, strings.NewReader("42")), 0)
				if failure == nil || failure.Kind != tt.kind || failure.Sent != tt.sent {
					t.Errorf("got %+v, want %v, sent: %t", failure, tt.kind, tt.sent)
				}
				synctest.Wait()
				if u := c.Gate(0).Usage(); u.Pending != 0 {
					t.Errorf("in use: %+v", u)
				}
			})
		})
	}
}

func TestHTTP2ConnectionThatBreaksUnderACall(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		s := w.serve(paymentAddress, func(http.ResponseWriter, *http.Request) { select {} })
		s.Handler = http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		c, e := w.one(speakHTTP2)
		call := start(t.Context(), t, e)
		synctest.Wait()
		_ = s.Close()
		<-call.done
		if f := call.failure; f == nil || f.Kind != outcome.Reset || !f.Sent {
			t.Errorf("got %+v, want a reset", f)
		}
		w.expectConnections(1, 1)
		expectIdle(t, c, 0)
	})
}

func TestARequestThatCannotBeSentAsItIsIsTheCallersFault(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		edit  func(*discovery.Cluster)
		spoil func(*http.Request)
	}{
		{"HTTP/1.1, a body that is too short", nil, func(r *http.Request) { r.ContentLength = 5 }},
		{"HTTP/1.1, a body that is too long", nil, func(r *http.Request) { r.ContentLength = 1 }},
		{"HTTP/2, a body that is too long", speakHTTP2, func(r *http.Request) { r.ContentLength = 1 }},
		{"HTTP/2, an upgrade", speakHTTP2, func(r *http.Request) { r.Header.Set("Upgrade", "websocket") }},
		{"HTTP/2, a header of the connection", speakHTTP2, func(r *http.Request) { r.Header.Set("Connection", "X-Hop") }},
		{"HTTP/2, a transfer encoding", speakHTTP2, func(r *http.Request) { r.Header.Set("Transfer-Encoding", "gzip") }},
		{"HTTP/2, a path that is none", speakHTTP2, func(r *http.Request) { r.URL.Opaque = "charge" }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.serve(paymentAddress, answer)
				_, e := w.one(test.edit)
				req := newRequest(t.Context(), t, http.MethodPost, io.NopCloser(strings.NewReader("42")))
				test.spoil(req)
				_, failure := e.RoundTrip(req, 0)
				if failure == nil {
					t.Fatal("the request was sent")
				}
				if failure.Kind != outcome.BodyFailure {
					t.Errorf("%v: %v", failure.Kind, failure.Err)
				}
			})
		})
	}
}

func TestAnInvalidRequestIsRefusedAndCostsNoConnection(t *testing.T) {
	t.Parallel()
	for name, edit := range map[string]func(*discovery.Cluster){"HTTP/1.1": nil, "HTTP/2.0": speakHTTP2} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				s := w.serve(paymentAddress, answer)
				c, e := w.one(edit)
				for range 3 {
					req := newRequest(t.Context(), t, http.MethodPost, strings.NewReader("42"))
					req.Header["X-Bad"] = []string{"a\nb"}
					if _, failure := e.RoundTrip(req, 0); failure == nil {
						t.Fatal("the request was sent")
					}
				}
				if got := s.calls.Load(); got != 0 {
					t.Errorf("the server got %d calls", got)
				}
				get(t, e)
				w.expectConnections(1, 0)
				expectIdle(t, c, 1)
			})
		})
	}
}

func TestBC5_AnUpgradedConnectionCountsUntilItIsClosed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.serve(paymentAddress, func(rw http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Upgrade") == "" {
				answer(rw, r)
				return
			}
			conn, buffered, err := http.NewResponseController(rw).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
			go func() { // ends with the connection
				_, _ = io.Copy(conn, buffered)
				_ = conn.Close()
			}()
		})
		c, e := w.one(nil)
		upgrade := func() io.ReadWriteCloser {
			req := newRequest(t.Context(), t, http.MethodGet, nil)
			req.Header.Set("Connection", "Upgrade")
			req.Header.Set("Upgrade", "echo")
			resp, failure := e.RoundTrip(req, 0)
			if failure != nil {
				t.Fatal(failure.Err)
			}
			return resp.Body.(io.ReadWriteCloser)
		}
		first := upgrade()
		if _, err := io.WriteString(first, "hello"); err != nil {
			t.Fatal(err)
		}
		echo := make([]byte, 5)
		if _, err := io.ReadFull(first, echo); err != nil || string(echo) != "hello" {
			t.Errorf("got %q, %v", echo, err)
		}
		expectIdle(t, c, 1)
		w.expectConnections(1, 0)
		get(t, e)
		expectIdle(t, c, 2)
		_ = first.Close()
		_ = first.Close()
		expectIdle(t, c, 1)
		w.expectConnections(2, 1)

		second := upgrade()
		w.manager.Close()
		if _, err := second.Read(echo); err == nil {
			t.Error("an upgraded connection is open after Close")
		}
		expectIdle(t, c, 0)
	})
}

// S27: whatever becomes of a call, the counts return to zero.
func TestBC5_CountsReturnWhateverBecomesOfACall(t *testing.T) {
	t.Parallel()
	const repeat = 1000
	tests := map[string]func(t *testing.T, e *Endpoint){
		"success": func(t *testing.T, e *Endpoint) {
			t.Helper()
			get(t, e)
		},
		"error": func(t *testing.T, e *Endpoint) {
			t.Helper()
			req := newRequest(t.Context(), t, http.MethodDelete, nil)
			if _, failure := e.RoundTrip(req, 0); failure == nil {
				t.Error("the call succeeded")
			}
		},
		"cancel": func(t *testing.T, e *Endpoint) {
			t.Helper()
			ctx, cancel := context.WithCancel(t.Context())
			call := start(ctx, t, e)
			cancel()
			<-call.done
		},
		"timeout": func(t *testing.T, e *Endpoint) {
			t.Helper()
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			defer cancel()
			_, failure := e.RoundTrip(newRequest(ctx, t, http.MethodPut, nil), 0)
			if failure == nil {
				t.Error("the call succeeded")
			}
		},
		"early close of the body": func(t *testing.T, e *Endpoint) {
			t.Helper()
			resp, failure := e.RoundTrip(newRequest(t.Context(), t, http.MethodPost, nil), 0)
			if failure != nil {
				t.Error(failure.Err)
				return
			}
			_ = resp.Body.Close()
		},
	}
	for protocol, edit := range map[string]func(*discovery.Cluster){"HTTP/1.1": func(*discovery.Cluster) {}, "HTTP/2.0": speakHTTP2} {
		for name, do := range tests {
			t.Run(name+" over "+protocol, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t)
					w.serve(paymentAddress, func(rw http.ResponseWriter, r *http.Request) {
						switch r.Method {
						case http.MethodDelete:
							panic(http.ErrAbortHandler)
						case http.MethodPut:
							<-r.Context().Done()
						case http.MethodPost:
							_, _ = io.Copy(rw, io.LimitReader(zeros{}, 100<<10))
						default:
							answer(rw, r)
						}
					})
					c, e := w.one(func(c *discovery.Cluster) {
						edit(c)
						c.IdleTimeout = time.Minute
					})
					for range repeat {
						do(t, e)
					}
					time.Sleep(time.Minute)
					expectIdle(t, c, 0)
					opened, closed := w.connections()
					if opened != closed {
						t.Errorf("%d connections opened, %d closed", opened, closed)
					}
					if got := e.Host().Active(); got != 0 {
						t.Errorf("%d calls are active", got)
					}
				})
			})
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }
