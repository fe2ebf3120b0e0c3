package upstream

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/memnet"
	"github.com/inboardmesh/inboard/internal/tlstest"
	"github.com/inboardmesh/inboard/outcome"
)

// TestBN11_ASpareConnectionOfHTTP2MayBeDyingAsAnyOther that was idle, and one that was made
// for its first request may not.
func TestBN11_ASpareConnectionOfHTTP2MayBeDyingAsAnyOther(t *testing.T) {
	t.Parallel()
	for name, rest := range map[string]bool{"spare": true, "made for the call": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				var streams atomic.Int64
				w.rawServer(paymentAddress, func(conn net.Conn) {
					if _, err := io.ReadFull(conn, make([]byte, len(http2.ClientPreface))); err != nil {
						return
					}
					f := http2.NewFramer(conn, conn)
					_ = f.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1})
					for {
						frame, err := f.ReadFrame()
						if err != nil {
							return
						}
						if headers, ok := frame.(*http2.HeadersFrame); ok {
							n := streams.Add(1)
							if n > 2 || !rest {
								return
							}
							if n == 2 { // it keeps its connection
								continue
							}
							_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: headers.StreamID, BlockFragment: []byte{0x88}, EndHeaders: true, EndStream: true})
						}
					}
				})
				_, e := w.one(preconnect(2, speakHTTP2))
				if rest {
					get(t, e)
					ctx, cancel := context.WithCancel(t.Context())
					second := start(ctx, t, e)
					w.expectConnections(2, 0)
					defer func() {
						cancel()
						<-second.done
					}()
				}
				_, failure := e.RoundTrip(newRequest(t.Context(), t, http.MethodGet, nil), discovery.PriorityDefault)
				if failure == nil || failure.Kind != outcome.Reset || !failure.Sent || failure.Stale != rest {
					t.Errorf("the failure is %+v", failure)
				}
			})
		})
	}
}

// TestWhatTheMeshEndsItselfWasNotEndedByThePeer, who may read what was sent yet: a connection
// whose PING has no answer, or one that takes nothing.
func TestWhatTheMeshEndsItselfWasNotEndedByThePeer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var streams atomic.Int64
		w.http2Server(paymentAddress, func(f *http2.Framer, stream uint32) {
			if streams.Add(1) == 1 {
				_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: []byte{0x88}, EndHeaders: true, EndStream: true})
			}
		})
		_, e := w.one(func(c *discovery.Cluster) {
			speakHTTP2(c)
			c.HTTP2.Pings = discovery.Pings{Interval: time.Second, Timeout: time.Second / 2}
		})
		get(t, e)
		_, failure := e.RoundTrip(newRequest(t.Context(), t, http.MethodGet, nil), discovery.PriorityDefault)
		if failure == nil || failure.Kind != outcome.Reset || !failure.Sent || failure.Stale {
			t.Errorf("the failure is %+v", failure)
		}
	})
}

// deafConn fails its writes when it is deaf.
type deafConn struct {
	net.Conn
	err  error
	deaf atomic.Bool
	took int
}

func (c *deafConn) Write(p []byte) (int, error) {
	if c.deaf.Load() {
		return c.took, c.err
	}
	return c.Conn.Write(p)
}

// TestWhatAPeerHasSaidIsReadWhenItTakesNothing any more: an answer that it gave before it
// closed is the answer. If the connection has no end then, it gets one.
func TestWhatAPeerHasSaidIsReadWhenItTakesNothing(t *testing.T) {
	t.Parallel()
	const answers, closes, stays = "it answers", "it has closed", "it stays open"
	for _, tt := range []struct {
		name, peer string
		err        error
		took       int
		kind       outcome.Kind // 0 is an answer
		sent       bool
		stale      bool
		after      time.Duration
	}{
		{name: "reset before anything was written", peer: closes, err: syscall.ECONNRESET, kind: outcome.ResetBeforeRequest, stale: true},
		{name: "closed before anything was written", peer: closes, err: syscall.EPIPE, kind: outcome.ResetBeforeRequest, stale: true},
		{name: "reset in the midst of the request", peer: closes, err: syscall.ECONNRESET, took: 3, kind: outcome.Reset, sent: true, stale: true},
		{name: "another failure", peer: closes, err: errors.New("no"), kind: outcome.Reset, sent: true},
		{name: "answered", peer: answers, err: syscall.EPIPE, took: 3},
		{name: "open", peer: stays, err: syscall.EPIPE, kind: outcome.Reset, sent: true, after: lastWordsTime},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				deaf := &deafConn{err: tt.err, took: tt.took}
				w.dial = func(ctx context.Context, network, address string) (net.Conn, error) {
					conn, err := w.network.DialContext(ctx, network, address)
					deaf.Conn = conn
					return deaf, err
				}
				react := make(chan struct{})
				w.rawServer(paymentAddress, func(conn net.Conn) {
					_, _ = io.ReadFull(conn, make([]byte, len(http2.ClientPreface)))
					f := http2.NewFramer(conn, conn)
					_ = f.WriteSettings()
					for {
						frame, err := f.ReadFrame()
						if err != nil {
							return
						}
						if _, ok := frame.(*http2.HeadersFrame); ok {
							break
						}
					}
					ok := http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x88}, EndHeaders: true, EndStream: true}
					_ = f.WriteHeaders(ok)
					<-react
					switch tt.peer {
					case answers:
						ok.StreamID = 3
						_ = f.WriteHeaders(ok)
					case stays:
						_, _ = io.Copy(io.Discard, conn)
					}
				})
				_, e := w.one(speakHTTP2)
				get(t, e)
				synctest.Wait()
				deaf.deaf.Store(true)
				begin := time.Now()
				result := make(chan *Failure, 1)
				go func() { // the test waits for it
					resp, failure := e.RoundTrip(newRequest(t.Context(), t, http.MethodGet, nil), discovery.PriorityDefault)
					if failure == nil {
						_ = read(t, resp)
					}
					result <- failure
				}()
				synctest.Wait() // nothing is written, and the end has not come
				close(react)
				failure := <-result
				if tt.kind == 0 {
					if failure != nil {
						t.Errorf("the failure is %+v", failure)
					}
					return
				}
				if failure == nil || failure.Kind != tt.kind || failure.Sent != tt.sent || failure.Stale != tt.stale {
					t.Errorf("the failure is %+v", failure)
				}
				if took := time.Since(begin); took != tt.after {
					t.Errorf("it took %v, want %v", took, tt.after)
				}
			})
		})
	}
}

// TestHalfARecordIsASignOfLife: the peer had begun to say something.
func TestHalfARecordIsASignOfLife(t *testing.T) {
	t.Parallel()
	certificate := tlstest.NewCA(t).Workload(t, paymentID)
	for _, cut := range []int{0, 1, recordHeader, recordHeader + 3} {
		t.Run(fmt.Sprintf("%d bytes", cut), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				raw, end := memnet.Pipe()
				go func() { // ends with the connection
					defer end.Close()
					g := &gathering{Conn: end}
					server := tls.Server(g, &tls.Config{Certificates: []tls.Certificate{certificate}, SessionTicketsDisabled: true})
					if _, err := io.ReadFull(server, make([]byte, 4)); err != nil {
						return
					}
					g.holds = true
					_, _ = io.WriteString(server, "a frame")
					_, _ = end.Write(bytes.Clone(g.held.Bytes()[:cut]))
				}()
				secured := tls.Client(&recordsConn{Conn: raw}, &tls.Config{InsecureSkipVerify: true})
				if err := secured.HandshakeContext(t.Context()); err != nil {
					t.Fatal(err)
				}
				c := newFramesConn(secured, secured)
				defer c.Close()
				c.answered.Store(true)
				then := c.now()
				if _, err := io.WriteString(c, "ping"); err != nil {
					t.Fatal(err)
				}
				_, err := c.Read(make([]byte, 100))
				c.gone.Store(true) // a reset, of which memory knows none
				lost, ok := errors.AsType[*lostError](c.explain(then, err))
				if stale := ok && lost.stale; stale != (cut == 0) {
					t.Errorf("behind %d bytes: %v", cut, err)
				}
			})
		})
	}
}
