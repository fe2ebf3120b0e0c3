package httpmesh

import (
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/outcome"
)

// An endpoint that begins to speak another protocol, which nobody asked for, says
// nothing that the caller could wait for.
func TestAnUnaskedSwitchOfProtocolsIsAFailure(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, newTarget(limited(time.Second)), func(rw http.ResponseWriter, _ *http.Request) {
			conn, _, err := http.NewResponseController(rw).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
			_, _ = io.Copy(io.Discard, conn) // until the caller closes it
			_ = conn.Close()
		})
		begin := time.Now()
		resp, err := w.transport.RoundTrip(newRequest(t.Context(), t, http.MethodGet, paymentURL, nil))
		if e := failed(t, resp, err, outcome.Reset); !e.Sent || time.Since(begin) != 0 {
			t.Errorf("got %v after %v", e, time.Since(begin))
		}
		w.idle()
	})
}
