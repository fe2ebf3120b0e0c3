package http1_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/inboardmesh/inboard/internal/http1"
	"github.com/inboardmesh/inboard/internal/memnet"
)

// An end of the stream is the peer's: what this side closes is never told as one. So a
// POST that fails of an unexpected EOF was sent to a peer that closed its connection,
// as a server does that shuts down while it thinks the connection idle; whether it has
// read the request nobody can tell.
func TestAnUnexpectedEndIsThePeers(t *testing.T) {
	t.Parallel()
	const early = "the peer closed the connection before it answered: unexpected EOF"
	tests := []struct {
		name string
		// end is called when the second request is on its way, with both sides.
		end   func(c *http1.Conn, server net.Conn)
		peers bool
		text  string
		stale bool
	}{
		{"the peer closes without an answer", func(_ *http1.Conn, server net.Conn) { _ = server.Close() }, true, early, true},
		{"the peer closes within an answer", func(_ *http1.Conn, server net.Conn) {
			_, _ = io.WriteString(server, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n")
			_ = server.Close()
		}, true, "unexpected EOF", false},
		{"this side closes", func(c *http1.Conn, _ net.Conn) { _ = c.Close() }, false, "http1: the connection is closed", false},
		{"this side closes when the answer has begun", func(c *http1.Conn, server net.Conn) {
			_, _ = io.WriteString(server, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n")
			synctest.Wait()
			_ = c.Close()
		}, false, "http1: the connection is closed", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				client, server := memnet.Pipe()
				c := http1.New(client, new(http1.Options))
				defer c.Close()
				defer server.Close()
				second := make(chan struct{})
				go func() { // ends with the connection
					br := bufio.NewReader(server)
					for i := range 2 {
						req, err := http.ReadRequest(br)
						if err != nil {
							return
						}
						_, _ = io.Copy(io.Discard, req.Body)
						if i == 0 {
							_, _ = io.WriteString(server, ok2)
						}
					}
					close(second)
				}()
				post := func() (*http.Response, error) {
					req := newRequest(t.Context(), t)
					req.Method, req.Body, req.ContentLength = http.MethodPost, io.NopCloser(strings.NewReader("42")), 2
					return c.RoundTrip(req)
				}
				resp, err := post()
				if err != nil {
					t.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
				go func() {
					<-second
					tt.end(c, server)
				}()
				_, err = post()
				e, ok := errors.AsType[*http1.Error](err)
				if !ok || !e.Written || e.Stale != tt.stale || e.Error() != tt.text || errors.Is(err, io.ErrUnexpectedEOF) != tt.peers {
					t.Errorf("got %+v: %v, want %q", e, err, tt.text)
				}
			})
		})
	}
}
