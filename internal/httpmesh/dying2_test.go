package httpmesh

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/http2"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/outcome"
)

// survival is which calls survive the death of their connection.
type survival int

const (
	nobody     survival = iota // for the server was alive when it had them
	idempotent                 // for nobody knows whether they were read
	everybody                  // for they were not processed
)

// TestBN11_ADyingConnectionOfHTTP2FailsNoIdempotentCallAndRepeatsNoOther: as over HTTP/1.1,
// and never if a byte has come since the request was sent.
func TestBN11_ADyingConnectionOfHTTP2FailsNoIdempotentCallAndRepeatsNoOther(t *testing.T) {
	t.Parallel()
	const kept, tooLarge = 1 << 10, 100 << 10
	methods := []struct {
		name, method, key string
		body              func() io.Reader // nil without one
		idempotent        bool
		unkept            bool
	}{
		{name: "GET", method: http.MethodGet, idempotent: true},
		{name: "HEAD", method: http.MethodHead, idempotent: true},
		{name: "DELETE", method: http.MethodDelete, idempotent: true},
		{name: "PUT", method: http.MethodPut, idempotent: true, body: func() io.Reader { return strings.NewReader("a body") }},
		{name: "PUT of a stream", method: http.MethodPut, idempotent: true, body: func() io.Reader { return stream(kept) }},
		{name: "PUT of a stream too large to be kept", method: http.MethodPut, idempotent: true, unkept: true, body: func() io.Reader { return stream(tooLarge) }},
		{name: "POST", method: http.MethodPost, body: func() io.Reader { return strings.NewReader("a body") }},
		{name: "POST without a body", method: http.MethodPost},
		{name: "PATCH", method: http.MethodPatch, body: func() io.Reader { return strings.NewReader("a body") }},
		{name: "POST with a key", method: http.MethodPost, key: "Idempotency-Key", idempotent: true, body: func() io.Reader { return strings.NewReader("a body") }},
		{name: "POST with the other key", method: http.MethodPost, key: "X-Idempotency-Key", idempotent: true},
	}
	for _, death := range []struct {
		name     string
		die      func(c *mortalConn, stream uint32)
		survives survival
		idle     bool // it dies before the request is sent, which is noticed later
		ackLate  bool
	}{
		{name: "closed when idle", idle: true, survives: idempotent, die: func(c *mortalConn, _ uint32) { _ = c.raw.Close() }},
		{name: "reset when idle", idle: true, survives: everybody, die: func(c *mortalConn, _ uint32) { c.reset() }},
		{name: "closed", survives: idempotent, die: func(*mortalConn, uint32) {}},
		{name: "reset", survives: idempotent, die: func(c *mortalConn, _ uint32) { c.reset() }},
		{name: "half closed", survives: idempotent, die: func(c *mortalConn, _ uint32) {
			_ = c.raw.CloseWrite()
			_, _ = io.Copy(io.Discard, c.raw) // until the client has gone
		}},
		{name: "reset behind an acknowledgement of SETTINGS", ackLate: true, die: func(c *mortalConn, _ uint32) {
			_ = c.WriteSettingsAck()
			c.reset()
		}},
		{name: "reset behind SETTINGS", die: func(c *mortalConn, _ uint32) {
			_ = c.WriteSettings()
			c.reset()
		}},
		{name: "reset behind a PING", die: func(c *mortalConn, _ uint32) {
			_ = c.WritePing(false, [8]byte{})
			c.reset()
		}},
		{name: "closed behind an answer to a PING", die: func(c *mortalConn, _ uint32) { _ = c.WritePing(true, [8]byte{}) }},
		{name: "reset behind a WINDOW_UPDATE", die: func(c *mortalConn, _ uint32) {
			_ = c.WriteWindowUpdate(0, 1)
			c.reset()
		}},
		{name: "closed behind half a frame", die: func(c *mortalConn, _ uint32) { _, _ = c.Conn.Write([]byte{0}) }},
		{name: "reset behind an interim response", die: func(c *mortalConn, stream uint32) {
			c.head(stream, "103", false)
			c.reset()
		}},
		{name: "closed behind a GOAWAY with the stream", die: func(c *mortalConn, stream uint32) { _ = c.WriteGoAway(stream, http2.ErrCodeNo, nil) }},
		{name: "closed behind a GOAWAY without the stream", survives: everybody, die: func(c *mortalConn, stream uint32) {
			_ = c.WriteGoAway(stream-2, http2.ErrCodeNo, nil)
			_ = c.raw.CloseWrite()
			_, _ = io.Copy(io.Discard, c.raw)
		}},
	} {
		for _, m := range methods {
			if m.unkept && death.idle {
				continue // nobody knows how much of its body is read meanwhile
			}
			for security, secured := range map[string]bool{"in the clear": false, "over TLS": true} {
				t.Run(death.name+", "+m.name+" "+security, func(t *testing.T) {
					t.Parallel()
					server := &mortal{answers: 1, over: 1, ackLate: death.ackLate, die: func(c *mortalConn, streams []uint32) {
						if death.idle {
							death.die(c, 0)
							return
						}
						death.die(c, streams[0])
					}}
					if death.idle {
						server.over = 0
					}
					w := newMortalWorld(t, server, secured, death.idle)
					w.get(t)
					if death.idle {
						<-(<-w.dialed).ended
					}
					var body io.Reader
					if m.body != nil {
						body = m.body()
					}
					req := newRequest(t.Context(), t, m.method, paymentURL, body)
					if m.key != "" {
						req.Header.Set(m.key, "1")
					}
					resp, err := w.RoundTrip(req)
					// The repetition is the first request of its connection.
					arrived, attempts := int64(2), int64(3)
					if !death.idle {
						arrived = 3
					}
					survives := death.survives == everybody || death.survives == idempotent && m.idempotent
					if survives && !m.unkept {
						if err != nil {
							t.Fatal(err)
						}
						readAll(t, resp)
					} else {
						kind := outcome.Reset
						if death.survives == everybody { // its GOAWAY says so
							kind = outcome.RefusedStream
						}
						failed(t, resp, err, kind)
						arrived--
						attempts--
					}
					if server.requests.Load() != arrived || w.attempts.Load() != attempts || w.calls.Load() != 2 {
						t.Errorf("%d requests arrived, in %d attempts of %d calls, want %d in %d of 2", server.requests.Load(), w.attempts.Load(), w.calls.Load(), arrived, attempts)
					}
				})
			}
		}
	}
}

// stream is a body that can be had only once.
func stream(n int) io.Reader { return io.MultiReader(strings.NewReader(strings.Repeat("x", n))) }

// TestBN11_ADeathBehindTheHeadOfAResponseIsTheResponses.
func TestBN11_ADeathBehindTheHeadOfAResponseIsTheResponses(t *testing.T) {
	t.Parallel()
	server := &mortal{answers: 1, over: 1, die: func(c *mortalConn, streams []uint32) {
		c.head(streams[0], "200", false)
		c.reset()
	}}
	w := newMortalWorld(t, server, true, false)
	w.get(t)
	resp, err := w.RoundTrip(newRequest(t.Context(), t, http.MethodGet, paymentURL, nil))
	if err == nil {
		if _, err = io.ReadAll(resp.Body); err == nil {
			t.Error("the body has an end")
		}
		_ = resp.Body.Close()
	}
	if server.requests.Load() != 2 || w.attempts.Load() != 2 {
		t.Errorf("%d requests arrived, in %d attempts", server.requests.Load(), w.attempts.Load())
	}
}

// TestBN11_ANewConnectionOfHTTP2WasNotIdle: what it dies over first is not sent again.
func TestBN11_ANewConnectionOfHTTP2WasNotIdle(t *testing.T) {
	t.Parallel()
	for n := 1; n <= 2; n++ {
		t.Run(fmt.Sprintf("%d requests", n), func(t *testing.T) {
			t.Parallel()
			server := &mortal{over: n, die: func(c *mortalConn, _ []uint32) { c.reset() }}
			w := newMortalWorld(t, server, false, false)
			var calls sync.WaitGroup
			for range n {
				calls.Go(func() {
					_, err := w.RoundTrip(newRequest(t.Context(), t, http.MethodGet, paymentURL, nil))
					if err == nil {
						t.Error("the call has an answer")
					}
				})
			}
			calls.Wait()
			if server.requests.Load() != int64(n) || w.attempts.Load() != int64(n) {
				t.Errorf("%d requests arrived, in %d attempts", server.requests.Load(), w.attempts.Load())
			}
		})
	}
}

// TestBN11_RequestsThatDieTogetherDecideEachForItself, and share a new connection.
func TestBN11_RequestsThatDieTogetherDecideEachForItself(t *testing.T) {
	t.Parallel()
	const each = 5
	server := &mortal{answers: 1, over: 2 * each, deaths: 1, die: func(c *mortalConn, _ []uint32) { c.reset() }}
	w := newMortalWorld(t, server, true, false)
	w.get(t)
	var calls sync.WaitGroup
	for i := range 2 * each {
		calls.Go(func() {
			method, body := http.MethodPut, io.Reader(nil)
			if i%2 == 0 {
				method, body = http.MethodPost, strings.NewReader("a body")
			}
			resp, err := w.RoundTrip(newRequest(t.Context(), t, method, paymentURL, body))
			if method == http.MethodPost {
				if err == nil {
					t.Error("a POST was answered")
				}
				return
			}
			if err != nil {
				t.Error(err)
				return
			}
			readAll(t, resp)
		})
	}
	calls.Wait()
	if w.opened.Load() != 2 || server.requests.Load() != 1+3*each || w.attempts.Load() != 1+3*each {
		t.Errorf("%d requests arrived over %d connections, in %d attempts", server.requests.Load(), w.opened.Load(), w.attempts.Load())
	}
}

// TestBN11_OneRepetitionOverHTTP2IsEnoughHoweverManyConnectionsDie.
func TestBN11_OneRepetitionOverHTTP2IsEnoughHoweverManyConnectionsDie(t *testing.T) {
	t.Parallel()
	for _, idle := range []int{1, 2, 8} {
		t.Run(fmt.Sprintf("%d idle", idle), func(t *testing.T) {
			t.Parallel()
			server := &mortal{answers: 1, over: 1, die: func(c *mortalConn, _ []uint32) { c.reset() }}
			together := make(chan struct{})
			server.arrived = func(n int64) { // each has a connection of its own
				if n == int64(idle) {
					close(together)
				}
				<-together
			}
			w := newMortalWorld(t, server, false, false, func(target *discovery.Target) {
				target.Clusters["v1"].Cluster.HTTP2.MaxStreams = 1
			})
			var calls sync.WaitGroup
			for range idle {
				calls.Go(func() { w.get(t) })
			}
			calls.Wait()
			w.get(t)
			if got, want := server.requests.Load(), int64(idle+2); got != want || w.attempts.Load() != want {
				t.Errorf("%d requests arrived, in %d attempts, want %d", got, w.attempts.Load(), want)
			}
		})
	}
}
