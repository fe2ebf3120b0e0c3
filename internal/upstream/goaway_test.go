package upstream

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/outcome"
)

// TestBN10_AGoAwayOverAnIdleConnectionEndsIt, and no call waits for room on it: servers
// that drain leave it to the client to close.
func TestBN10_AGoAwayOverAnIdleConnectionEndsIt(t *testing.T) {
	t.Parallel()
	for name, behind := range map[string]time.Duration{"when it is idle": time.Second, "behind a response": 0} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				var streams atomic.Int64
				w.http2Server(paymentAddress, func(f *http2.Framer, stream uint32) {
					_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: []byte{0x88}, EndHeaders: true, EndStream: true})
					if streams.Add(1) == 1 {
						time.Sleep(behind)
						_ = f.WriteGoAway(stream, http2.ErrCodeNo, nil)
					}
				})
				c, e := w.one(speakHTTP2)
				start(t.Context(), t, e).wait(t)
				time.Sleep(2 * time.Second)
				w.expectConnections(1, 1)
				begin := time.Now()
				start(t.Context(), t, e).wait(t)
				if took := time.Since(begin); took != 0 {
					t.Errorf("the next call took %v", took)
				}
				w.expectConnections(2, 1)
				expectIdle(t, c, 1)
			})
		})
	}
}

// A server that only ever says GOAWAY is not dialed again and again: twice, for the first
// one may have been about to be replaced.
func TestAGoAwayBeforeTheFirstRequestIsAConnectFailure(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.rawServer(paymentAddress, func(conn net.Conn) {
			// At once: it is known before the connection is offered to the call.
			var both bytes.Buffer
			f := http2.NewFramer(&both, nil)
			_ = f.WriteSettings()
			_ = f.WriteGoAway(0, http2.ErrCodeNo, nil)
			_, _ = conn.Write(both.Bytes())
			_, _ = io.Copy(io.Discard, conn)
		})
		c, e := w.one(speakHTTP2)
		_, failure := e.RoundTrip(newRequest(t.Context(), t, http.MethodGet, nil), discovery.PriorityDefault)
		if failure == nil || failure.Kind != outcome.ConnectFailure || failure.Sent {
			t.Errorf("got %+v", failure)
		}
		w.expectConnections(2, 2)
		expectIdle(t, c, 0)
	})
}
