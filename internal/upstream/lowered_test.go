package upstream

import (
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/outcome"
)

// sparing is a server of HTTP/2 that allows more streams or fewer as it likes.
type sparing struct {
	t     *testing.T
	takes time.Duration // a request

	mu       sync.Mutex
	framer   *http2.Framer // guarded by mu, its writes; of the last connection
	allowed  uint32        // guarded by mu; on new connections, and on the last one
	running  uint32        // guarded by mu; on all
	requests int           // guarded by mu
	began    []time.Duration
	begin    time.Time
}

func newSparing(w *world, allowed uint32, takes time.Duration) *sparing {
	s := &sparing{t: w.t, takes: takes, allowed: allowed, begin: time.Now()}
	w.rawServer(paymentAddress, s.serve)
	return s
}

// allow says on the last connection that it takes so many streams from now on, and
// returns when the peer knows.
func (s *sparing) allow(streams uint32) {
	s.mu.Lock()
	s.allowed = streams
	_ = s.framer.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: streams})
	s.mu.Unlock()
	synctest.Wait()
}

// goAway says on the last connection that it takes no more streams.
func (s *sparing) goAway() {
	s.mu.Lock()
	_ = s.framer.WriteGoAway(0, http2.ErrCodeNo, nil)
	s.mu.Unlock()
	synctest.Wait()
}

func (s *sparing) serve(conn net.Conn) {
	if _, err := io.ReadFull(conn, make([]byte, len(http2.ClientPreface))); err != nil {
		return
	}
	f := http2.NewFramer(conn, conn)
	s.mu.Lock()
	s.framer = f
	_ = f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 16}, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: s.allowed})
	_ = f.WriteSettingsAck()
	s.mu.Unlock()
	var running sync.WaitGroup
	defer running.Wait()
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return
		}
		headers, ok := frame.(*http2.HeadersFrame)
		if !ok {
			continue
		}
		id := headers.StreamID
		s.mu.Lock()
		s.running++
		s.requests++
		s.began = append(s.began, time.Since(s.begin))
		if s.running > s.allowed {
			s.t.Errorf("%d streams at %v, %d are allowed", s.running, time.Since(s.begin), s.allowed)
		}
		s.mu.Unlock()
		running.Go(func() {
			time.Sleep(s.takes)
			s.mu.Lock()
			defer s.mu.Unlock()
			s.running--
			_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: []byte{0x88}, EndHeaders: true, EndStream: true}) // :status 200
		})
	}
}

// departing is told that a request is about to be sent.
type departing func()

func (d departing) Depart() *Failure {
	d()
	return nil
}

func (departing) Anew() bool { return false }

// TestBN3_CallsThatAreAboutToBeSentKeepToALimitThatIsLowered: they wait for a stream as
// those do who have no connection yet, and get one as soon as the peer takes more.
func TestBN3_CallsThatAreAboutToBeSentKeepToALimitThatIsLowered(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		calls int
		// lower is done when the calls are about to be sent, and later after a minute.
		lower, later func(s *sparing)
		connections  int
		// took is when the last of the calls has ended, each of which takes a second.
		took time.Duration
	}{
		"none for a minute": {
			calls: 3, lower: func(s *sparing) { s.allow(0) }, later: func(s *sparing) { s.allow(3) },
			connections: 1, took: time.Minute + time.Second,
		},
		"none for a minute, one at a time then": {
			calls: 3, lower: func(s *sparing) { s.allow(0) }, later: func(s *sparing) { s.allow(1) },
			connections: 1, took: time.Minute + 3*time.Second,
		},
		"one of three": {
			calls: 3, lower: func(s *sparing) { s.allow(1) }, later: func(*sparing) {},
			connections: 1, took: 3 * time.Second,
		},
		"fewer and more again": {
			calls: 3, lower: func(s *sparing) { s.allow(0); s.allow(3) }, later: func(*sparing) {},
			connections: 1, took: time.Second,
		},
		"the connection goes away": {
			calls: 3, lower: func(s *sparing) { s.goAway() }, later: func(*sparing) {},
			connections: 2, took: time.Second,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				s := newSparing(w, 4, time.Second)
				c, e := w.one(func(c *discovery.Cluster) {
					speakHTTP2(c)
					c.Limits[0].MaxConnections = 1
					c.ConnectTimeout = 2 * time.Minute // bounds the wait for a stream, too
				})
				lowered := make(chan struct{})
				begin := time.Now()
				var calls sync.WaitGroup
				for range tt.calls {
					calls.Go(func() {
						req := newRequest(t.Context(), t, http.MethodGet, nil)
						resp, failure := e.Send(req, discovery.PriorityDefault, departing(func() { <-lowered }))
						if failure != nil {
							t.Errorf("%v (sent: %t): %v", failure.Kind, failure.Sent, failure.Err)
							return
						}
						read(t, resp)
					})
				}
				synctest.Wait()
				tt.lower(s)
				close(lowered)
				time.Sleep(time.Minute)
				tt.later(s)
				if took := time.Since(begin); took < time.Minute {
					t.Fatal(took)
				}
				calls.Wait()
				last := s.began[len(s.began)-1] + s.takes
				if s.requests != tt.calls || last != tt.took {
					t.Errorf("%d requests, the last ended after %v, want %d and %v", s.requests, last, tt.calls, tt.took)
				}
				w.expectConnections(tt.connections, tt.connections-1)
				expectIdle(t, c, 1)
			})
		})
	}
}

// TestBN3_AReservationKeepsToWhatThePeerAllows, also that of a health check, which no
// other call is behind.
func TestBN3_AReservationKeepsToWhatThePeerAllows(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		s := newSparing(w, 1, 0)
		_, e := w.one(speakHTTP2)
		d, err := e.dial(t.Context(), wireHTTP2)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = d.cc.Close() }()
		for _, allowed := range []uint32{1, 0, 3, 1} {
			s.allow(allowed)
			for i := range allowed {
				if n := d.cc.Available(); n != int(allowed-i) {
					t.Errorf("%d of %d are available", n, allowed)
				}
				if err := d.cc.Reserve(); err != nil {
					t.Errorf("%d of %d: %v", i+1, allowed, err)
				}
			}
			if d.cc.Reserve() == nil || d.cc.Available() != 0 || d.cc.refuses() {
				t.Errorf("more than %d are reserved", allowed)
			}
			for range allowed {
				d.cc.Release()
			}
		}
	})
}

// A server that says GOAWAY whenever a request is about to be sent gets two connections.
func TestBN10_AConnectionThatGoesBeforeItsFirstRequestIsReplacedOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		s := newSparing(w, 4, 0)
		c, e := w.one(speakHTTP2)
		_, failure := e.Send(newRequest(t.Context(), t, http.MethodGet, nil), discovery.PriorityDefault, departing(s.goAway))
		if failure == nil || failure.Kind != outcome.ConnectFailure || failure.Sent {
			t.Errorf("got %+v, want a connect failure", failure)
		}
		w.expectConnections(2, 2)
		expectIdle(t, c, 0)
	})
}

// TestBN11_ARepetitionOverHTTP2SharesAConnection: pings find out whether it is dead.
func TestBN11_ARepetitionOverHTTP2SharesAConnection(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.serve(paymentAddress, answer)
		_, e := w.one(speakHTTP2)
		get(t, e)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		resp, failure := e.Send(newRequest(ctx, t, http.MethodGet, nil), discovery.PriorityDefault, repetition{})
		if failure != nil {
			t.Fatal(failure.Err)
		}
		read(t, resp)
		w.expectConnections(1, 0)
	})
}
