package upstream

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/health"
)

// byHand serves an address with what the test writes. It returns how many connections
// are open.
func (w *world) byHand(address string, converse func(net.Conn)) *atomic.Int64 {
	w.t.Helper()
	listener, err := w.network.Listen(address)
	if err != nil {
		w.t.Fatal(err)
	}
	open := new(atomic.Int64)
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			open.Add(1)
			serving.Go(func() {
				defer open.Add(-1)
				defer conn.Close()
				converse(conn)
				_, _ = io.Copy(io.Discard, conn) // until the peer has closed it
			})
		}
	})
	w.t.Cleanup(func() {
		_ = listener.Close()
		w.manager.Close()
		serving.Wait()
	})
	return open
}

// Whatever an endpoint sends of an answer, and then nothing, costs its check the
// timeout, and leaves no connection behind.
func TestHalfOfAnAnswerIsNone(t *testing.T) {
	t.Parallel()
	const settings = "\x00\x00\x00\x04\x00\x00\x00\x00\x00" // of HTTP/2
	overHTTP := health.Config{HTTP: &health.HTTP{Path: "/"}}
	overHTTP2 := health.Config{HTTP: &health.HTTP{Path: "/", Codec: health.HTTP2}}
	overGRPC := health.Config{GRPC: &health.GRPC{}}
	overTCP := health.Config{TCP: &health.TCP{Send: []byte("ping"), Receive: [][]byte{[]byte("pong")}}}
	for name, tt := range map[string]struct {
		check  health.Config
		answer string
	}{
		"nothing":                            {overHTTP, ""},
		"half of a status line":              {overHTTP, "HTTP/1.1 20"},
		"a head without an end":              {overHTTP, "HTTP/1.1 200 OK\r\nX-A: b\r\n"},
		"a body that does not come":          {overHTTP, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"},
		"half of a body":                     {overHTTP, "HTTP/1.1 200 OK\r\nContent-Length: 300\r\n\r\nwell"},
		"half of a chunk":                    {overHTTP, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nwe"},
		"trailers that do not come":          {overHTTP, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n"},
		"interim responses":                  {overHTTP, strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 5)},
		"nothing, over HTTP/2":               {overHTTP2, ""},
		"settings of HTTP/2":                 {overHTTP2, settings},
		"half of a frame":                    {overHTTP2, settings + "\x00\x00\x20\x01\x04"},
		"settings, and no health service":    {overGRPC, settings},
		"nothing of a health service":        {overGRPC, ""},
		"half of what must come over TCP":    {overTCP, "po"},
		"nothing of what must come over TCP": {overTCP, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				e := watchHealth(w)
				open := w.byHand(paymentAddress, func(conn net.Conn) { _, _ = io.WriteString(conn, tt.answer) })
				config := tt.check
				config.Timeout, config.Interval, config.NoTrafficInterval, config.UnhealthyThreshold = time.Second, time.Minute, time.Minute, 1
				held := w.manager.Hold(result(checkedBy(&config), paymentAddress))
				time.Sleep(time.Minute + 2*time.Second)
				e.expect(t, "1s: 10.0.0.1:80 is unfit")
				e.mu.Lock()
				checks := fmt.Sprintf("%.15q", e.checks)
				e.mu.Unlock()
				if want := `["1s: unreachable" "1m2s: unreachab"]`; checks != want {
					t.Errorf("checks %s, want %s", checks, want)
				}
				if n := open.Load(); n != 0 {
					t.Errorf("%d connections are open", n)
				}
				w.manager.Release(held)
			})
		})
	}
}

// Whatever ends a check that is under way ends it at once: its connection is closed,
// nothing is told of it, and no other follows.
func TestACheckThatNobodyWantsEndsAtOnce(t *testing.T) {
	t.Parallel()
	checked := func(c *health.Config) map[string]discovery.ClusterResult { return result(checkedBy(c), paymentAddress) }
	config := func() *health.Config {
		return &health.Config{Timeout: 50 * time.Second, Interval: time.Minute, NoTrafficInterval: time.Minute, UnhealthyThreshold: 1, HTTP: &health.HTTP{Path: "/"}}
	}
	for name, end := range map[string]func(w *world, held map[string]*Cluster){
		"the cluster is gone":    func(w *world, held map[string]*Cluster) { w.manager.Release(held) },
		"the endpoint is gone":   func(w *world, _ map[string]*Cluster) { w.hold(result(checkedBy(config()))) },
		"nothing is checked now": func(w *world, _ map[string]*Cluster) { w.hold(result(nil, paymentAddress)) },
		"the mesh is closed":     func(w *world, _ map[string]*Cluster) { w.manager.Close() },
		"the checks are of another": func(w *world, _ map[string]*Cluster) {
			tcp := config()
			tcp.HTTP, tcp.TCP = nil, &health.TCP{}
			w.hold(checked(tcp))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				e := watchHealth(w)
				asked := make(chan struct{}, 10)
				open := w.byHand(paymentAddress, func(conn net.Conn) {
					if _, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
						asked <- struct{}{}
					}
				})
				held := w.manager.Hold(checked(config()))
				<-asked
				time.Sleep(time.Second)
				end(w, held)
				synctest.Wait()
				if n := open.Load(); n != 0 {
					t.Errorf("%d connections are open", n)
				}
				time.Sleep(10 * time.Minute)
				e.expect(t)
				if len(asked) != 0 {
					t.Errorf("%d more checks were made", len(asked))
				}
			})
		})
	}
}
