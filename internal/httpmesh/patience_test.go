package httpmesh

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/outcome"
)

// outsider is a client outside the mesh, over one version of HTTP.
func (w *world) outsider(http2 bool) *http.Transport {
	w.t.Helper()
	client := &http.Transport{Protocols: new(http.Protocols), DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return w.network.DialContext(ctx, network, paymentAddress)
	}}
	client.Protocols.SetHTTP1(!http2)
	client.Protocols.SetUnencryptedHTTP2(http2)
	w.t.Cleanup(client.CloseIdleConnections)
	return client
}

// standsStill is a body of which the second half never comes.
func standsStill(t *testing.T) io.Reader {
	t.Helper()
	body, write := io.Pipe()
	t.Cleanup(func() { _ = write.Close() })
	go func() { _, _ = write.Write([]byte("half")) }() // ends with the first read, or the body
	return body
}

// moves is a body that is slow, and comes.
func moves(t *testing.T) io.Reader {
	t.Helper()
	return &pieces{Reader: strings.NewReader("12345"), most: 1, pause: 800 * time.Millisecond}
}

func readsAll(rw http.ResponseWriter, r *http.Request) {
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		http.Error(rw, "bad body", http.StatusBadRequest)
	}
}

func TestBT6_AServersPatienceWithItsClients(t *testing.T) {
	t.Parallel()
	const second = time.Second
	idle := func(c *discovery.FilterChain) { c.StreamIdleTimeout = second }
	whole := func(c *discovery.FilterChain) { c.RequestTimeout = 2 * second }
	tests := []struct {
		name   string
		limit  func(*discovery.FilterChain)
		body   func(*testing.T) io.Reader
		serve  http.HandlerFunc
		status int           // 0 is a reset after the response has begun
		answer string        // of the mesh
		took   time.Duration // 0 is whatever it takes
	}{
		{"a body that stands still", idle, standsStill, readsAll, 408, "stream timeout", second},
		{"a body that is not read", idle, standsStill, func(http.ResponseWriter, *http.Request) {}, 200, "", 0},
		{"a body that moves", idle, moves, readsAll, 200, "", 0},
		{"a body that takes too long", whole, moves, readsAll, 408, "request timeout", 2 * second},
		{"a body in time, and an application that takes long", whole, nil, func(http.ResponseWriter, *http.Request) { time.Sleep(5 * second) }, 200, "", 5 * second},
		{"an application that takes too long", idle, nil, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, 408, "stream timeout", second},
		{"an application that says what it makes of that", idle, nil, func(rw http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
			rw.Header().Set("Content-Length", "3")
			if _, err := io.WriteString(rw, "odd"); !errors.Is(err, context.Cause(r.Context())) {
				panic("its answer has nowhere to go")
			}
		}, 408, "stream timeout", second},
		{"a response that stands still", idle, nil, func(rw http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(rw, "x")
			_ = http.NewResponseController(rw).Flush()
			<-r.Context().Done()
		}, 0, "", second},
		{"a response that moves", idle, nil, func(rw http.ResponseWriter, _ *http.Request) {
			for range 5 {
				time.Sleep(900 * time.Millisecond)
				_, _ = io.WriteString(rw, "x")
				_ = http.NewResponseController(rw).Flush()
			}
		}, 200, "", 4500 * time.Millisecond},
	}
	for _, tt := range tests {
		for protocol, http2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2": true} {
			t.Run(tt.name+" over "+protocol, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t, newTarget(), nil)
					w.serveInbound(paymentAddress, plaintext(tt.limit), "", tt.serve)
					var body io.Reader
					if tt.body != nil {
						body = tt.body(t)
					}
					begin := time.Now()
					resp, err := w.outsider(http2).RoundTrip(newRequest(t.Context(), t, http.MethodPost, paymentURL, body))
					if err != nil {
						t.Fatal(err)
					}
					content, err := io.ReadAll(resp.Body)
					took := time.Since(begin)
					_ = resp.Body.Close()
					if tt.took > 0 && took != tt.took {
						t.Errorf("took %v, want %v", took, tt.took)
					}
					want := tt.status
					if want == 0 {
						want = http.StatusOK
					}
					if (err == nil) != (tt.status != 0) {
						t.Errorf("%q ended with %v", content, err)
					}
					if resp.StatusCode != want || !strings.HasPrefix(string(content), tt.answer) {
						t.Errorf("got %d %q, want %d %q", resp.StatusCode, content, want, tt.answer)
					}
					call := w.lastCall()
					local := call.Outcome.Kind == outcome.Local
					if call.Direction != observe.Inbound || local != (tt.answer != "") || local && call.Outcome.Status != http.StatusRequestTimeout {
						t.Errorf("the call ended with %+v", call.Outcome)
					}
				})
			})
		}
	}
}

// A client that does not read holds nobody for longer than it may stand still.
func TestBT6_AClientThatDoesNotReadIsCutOff(t *testing.T) {
	t.Parallel()
	for protocol, http2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2": true} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, newTarget(), nil)
				ended := make(chan error, 1)
				w.serveInbound(paymentAddress, plaintext(func(c *discovery.FilterChain) { c.StreamIdleTimeout = time.Second }), "",
					http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
						for {
							if _, err := rw.Write(make([]byte, 64<<10)); err != nil {
								ended <- err
								return
							}
						}
					}))
				begin := time.Now()
				resp, err := w.outsider(http2).RoundTrip(newRequest(t.Context(), t, http.MethodGet, paymentURL, nil))
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				if err := <-ended; time.Since(begin) != time.Second {
					t.Errorf("%v after %v", err, time.Since(begin))
				}
			})
		})
	}
}

// What an application has taken over has no timeouts of the mesh any more.
func TestBT6_AnUpgradedConnectionIsTheApplications(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, newTarget(), nil)
		w.serveInbound(paymentAddress, plaintext(func(c *discovery.FilterChain) { c.StreamIdleTimeout = time.Second }), "",
			http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				conn, _, err := http.NewResponseController(rw).Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				defer conn.Close()
				_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
				time.Sleep(3 * time.Second)
				if err := r.Context().Err(); err != nil {
					t.Errorf("its context has ended: %v", err)
				}
				_, _ = io.WriteString(conn, "hello")
			}))
		req := newRequest(t.Context(), t, http.MethodGet, paymentURL, nil)
		req.Header = http.Header{"Connection": {"Upgrade"}, "Upgrade": {"x"}}
		resp, err := w.outsider(false).RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if content, err := io.ReadAll(resp.Body); resp.StatusCode != http.StatusSwitchingProtocols || string(content) != "hello" {
			t.Errorf("got %d %q, %v", resp.StatusCode, content, err)
		}
	})
}

// pieces gives few bytes at a time, each after a pause.
type pieces struct {
	io.Reader
	most  int
	pause time.Duration
}

func (r *pieces) Read(p []byte) (int, error) {
	if r.pause > 0 {
		time.Sleep(r.pause)
	}
	return r.Reader.Read(p[:min(len(p), r.most)])
}
