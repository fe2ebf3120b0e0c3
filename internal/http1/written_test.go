package http1_test

import (
	"bufio"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/internal/http1"
	"github.com/inboardmesh/inboard/internal/memnet"
)

// slowToReturn is a connection whose Write comes back long after it was made, as
// that of a goroutine that is not scheduled.
type slowToReturn struct{ net.Conn }

func (c slowToReturn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	time.Sleep(time.Second)
	return n, err
}

func (c slowToReturn) NetConn() net.Conn { return c.Conn }

// A peer may read what was written, and end, before the Write of it has returned.
func TestAWriteThatIsUnderWayIsWritten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client, peer := memnet.Pipe()
		go func() {
			s := &server{conn: peer, br: bufio.NewReader(peer)}
			_ = head(s) && hangUp(s)
		}()
		conn := http1.New(slowToReturn{client}, new(http1.Options))
		defer conn.Close()
		req := newRequest(t.Context(), t)
		req.Method = http.MethodPost
		req.Body, req.ContentLength = &trackedBody{Reader: slow(0, "hello")()}, 5
		_, err := conn.RoundTrip(req)
		if e, ok := err.(*http1.Error); !ok || !e.Written {
			t.Errorf("got %#v", err)
		}
		time.Sleep(time.Minute) // the writer notices
	})
}
