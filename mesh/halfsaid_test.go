package mesh_test

import (
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// TestV29_WhoStopsInTheMiddleOfItsFirstWordsIsClosed: behind the look at the first byte,
// which has a time of its own, the server of the mesh gives nobody more than its time
// for headers, whichever protocol the beginning belongs to.
func TestV29_WhoStopsInTheMiddleOfItsFirstWordsIsClosed(t *testing.T) {
	t.Parallel()
	m, ln := listenRaw(t, newRawXDS(t), "", "")
	var served atomic.Int64
	server := m.Server(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { served.Add(1) }))
	server.ReadHeaderTimeout = 200 * time.Millisecond
	serveUntilEnd(t, server, ln)
	var waiting sync.WaitGroup
	for _, text := range []string{
		"G", "GET / HT", "GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\nHost: a\r\nX-A: b", "\r\n",
		"P", "PRI", "PRI * HTTP/2.0\r\n", "PRI * HTTP/2.0\r\n\r\n", http2.ClientPreface[:len(http2.ClientPreface)-1],
		http2.ClientPreface, http2.ClientPreface + "\x00\x00\x00\x04", http2.ClientPreface + "\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00",
	} {
		waiting.Go(func() { // until the server, or the deadline, ends the connection
			conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", ln.Addr().String())
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(time.Minute))
			_, _ = io.WriteString(conn, text)
			if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("behind %q the connection stays open", text)
			}
		})
	}
	waiting.Wait()
	if served.Load() != 0 {
		t.Errorf("%d halves of requests are served", served.Load())
	}
}
