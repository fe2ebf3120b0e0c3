package upstream

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/inboardmesh/inboard/breaker"
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/memnet"
	"github.com/inboardmesh/inboard/outcome"
)

func limitedTo(streams uint32) func(*discovery.Cluster) {
	return func(c *discovery.Cluster) {
		speakHTTP2(c)
		c.HTTP2.MaxStreams = streams
	}
}

func TestAClusterLimitsTheStreamsOfAConnection(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		server, client, connections int
	}{
		"the client allows fewer": {server: 100, client: 3, connections: 4},
		"the server allows fewer": {server: 2, client: 3, connections: 5},
		"one at a time":           {server: 100, client: 1, connections: 10},
		"more than there are":     {server: 100, client: 50, connections: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				release := make(chan struct{})
				w.serve(paymentAddress, func(rw http.ResponseWriter, r *http.Request) {
					<-release
					answer(rw, r)
				}, streams(tt.server))
				c, e := w.one(limitedTo(uint32(tt.client)))
				calls := startOneByOne(t, e, 10)
				w.expectConnections(tt.connections, 0)
				close(release)
				perConnection := map[string]int{}
				for _, call := range calls {
					perConnection[call.wait(t)]++
				}
				for connection, n := range perConnection {
					if n > min(tt.server, tt.client) {
						t.Errorf("%d calls at a time on connection %s", n, connection)
					}
				}
				expectIdle(t, c, uint32(tt.connections))
			})
		})
	}
}

// A burst of calls does not wait for one connection after the other.
func TestABurstGetsTheConnectionsThatItNeedsAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.serve(paymentAddress, func(rw http.ResponseWriter, r *http.Request) {
			time.Sleep(time.Second)
			answer(rw, r)
		})
		c, e := w.one(limitedTo(5))
		begin := time.Now()
		var calls []*call
		for range 50 {
			calls = append(calls, start(t.Context(), t, e))
		}
		for _, call := range calls {
			call.wait(t)
		}
		if took := time.Since(begin); took != time.Second {
			t.Errorf("50 calls of 1 s took %v", took)
		}
		w.expectConnections(10, 0)
		expectIdle(t, c, 10)
	})
}

func TestCallsWaitForAStreamOfTheirOwnLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.serve(paymentAddress, func(rw http.ResponseWriter, r *http.Request) {
			time.Sleep(time.Second)
			answer(rw, r)
		})
		c, e := w.one(func(c *discovery.Cluster) {
			limitedTo(2)(c)
			c.Limits[0].MaxConnections = 1
		})
		begin := time.Now()
		calls := startOneByOne(t, e, 6)
		if got, want := c.Gate(0).Usage(), (breaker.Usage{Connections: 1, Pending: 4}); got != want {
			t.Errorf("in use: %+v, want %+v", got, want)
		}
		for i, call := range calls {
			call.wait(t)
			if took, want := time.Since(begin), time.Duration(i/2+1)*time.Second; took != want {
				t.Errorf("call %d ended after %v, want %v", i, took, want)
			}
		}
		w.expectConnections(1, 0)
		expectIdle(t, c, 1)
	})
}

// A peer that vanishes while a call is under way ends the call, and not only its
// timeout does; one that is there is not left.
func TestASilentPeerIsNoticed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.serve(paymentAddress, func(rw http.ResponseWriter, r *http.Request) {
			time.Sleep(time.Minute)
			answer(rw, r)
		})
		var conn *memnet.Mutable
		w.dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := w.network.DialContext(ctx, network, address)
			conn = memnet.NewMutable(c)
			return conn, err
		}
		c, e := w.one(func(c *discovery.Cluster) {
			speakHTTP2(c)
			c.HTTP2.Pings = discovery.Pings{Interval: 10 * time.Second, Timeout: 2 * time.Second}
		})
		get(t, e) // takes a minute
		w.expectConnections(1, 0)
		call := start(t.Context(), t, e)
		begin := time.Now()
		time.Sleep(5 * time.Second)
		conn.Silence()
		<-call.done
		if took := time.Since(begin); took > 12*time.Second {
			t.Errorf("noticed after %v, want at most 12 s", took)
		}
		if call.failure == nil || call.failure.Kind != outcome.Reset || !strings.Contains(call.failure.Err.Error(), "not answered a PING for 2s") {
			t.Errorf("the failure is %+v", call.failure)
		}
		w.expectConnections(1, 1)
		expectIdle(t, c, 0)
	})
}

// MAX_CONCURRENT_STREAMS may be zero (RFC 9113, section 6.5.2). Who says so has too much
// to do: more connections are no remedy.
func TestAServerThatTakesNoStreamIsNotDialedAgainAndAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		none := http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 0}
		w.http2Server(paymentAddress, func(*http2.Framer, uint32) { t.Error("a stream was opened") }, none)
		c, e := w.one(speakHTTP2)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		calls := []*call{start(ctx, t, e), start(ctx, t, e), start(ctx, t, e)}
		w.expectConnections(1, 0)
		for _, call := range calls {
			<-call.done
			if call.failure == nil || call.failure.Kind != outcome.ConnectFailure || call.failure.Sent || !strings.Contains(call.failure.Err.Error(), "MAX_CONCURRENT_STREAMS is 0") {
				t.Errorf("got %+v, want a failure to connect", call.failure)
			}
		}
		w.expectConnections(1, 0)
		expectIdle(t, c, 1)
	})
}

func TestAServerThatTakesStreamsLaterGetsThemThen(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.rawServer(paymentAddress, func(conn net.Conn) {
			if _, err := io.ReadFull(conn, make([]byte, len(http2.ClientPreface))); err != nil {
				return
			}
			f := http2.NewFramer(conn, conn)
			_ = f.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 0})
			_ = f.WriteSettingsAck()
			var opened sync.Once
			for {
				frame, err := f.ReadFrame()
				if err != nil {
					return
				}
				if headers, ok := frame.(*http2.HeadersFrame); ok {
					_ = f.WriteHeaders(http2.HeadersFrameParam{
						StreamID: headers.StreamID, BlockFragment: []byte{0x88}, EndHeaders: true, EndStream: true, // :status 200
					})
				}
				opened.Do(func() {
					time.Sleep(4 * time.Second)
					_ = f.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 10})
				})
			}
		})
		c, e := w.one(speakHTTP2)
		for _, call := range []*call{start(t.Context(), t, e), start(t.Context(), t, e)} {
			call.wait(t)
		}
		expectIdle(t, c, 1)
	})
}
