package ads_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/discovery/xds/internal/ads"
	"github.com/inboardmesh/inboard/internal/adstest"
	"github.com/inboardmesh/inboard/observe"
)

var errRestart = status.Error(codes.Unavailable, "the server restarts")

func TestX21_StreamThatAnsweredAndClosedIsNoError(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		s, w := h.startWith(cds, "a", "1")
		waiting := h.watch(cds, "b")
		s.RecvType(cds)
		for i := range 3 {
			s.End(errRestart)
			s = h.server.Accept()
			if r := h.expectSubscribe(s, cds, fmt.Sprintf("v%d", i+1), "", []string{"a", "b"}, []string{"a", "b"}); h.delta && r.InitialVersions["a"] == "" {
				h.t.Errorf("request %v, want the version of a", r)
			}
			version, nonce := fmt.Sprintf("v%d", i+2), fmt.Sprintf("m%d", i)
			h.respond(s, cds, version, nonce, "a=1")
			h.expectACK(s, cds, version, nonce, "a", "b")
		}
		w.expect(h.t)
		waiting.expect(h.t)
	})
}

func TestX22_StreamClosedBeforeAResponseIsAnErrorWithoutACache(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		end  error
		text string
	}{
		{"an error status", errRestart, "the server restarts"},
		{"no status", nil, "the server closed the stream"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			both(t, func(h *harness) {
				s, w := h.start(cds, "a")
				s.End(test.end)
				events := w.expect(h.t, `error Cluster "a": xDS server "xds.test" is unavailable: `)
				if len(events) > 0 && (!strings.Contains(events[0].String(), test.text) || notFound(events) || !errors.Is(events[0].err, ads.ErrOffline)) {
					h.t.Errorf("event %q, want %q and that it is about the connection", events[0], test.text)
				}
				late := h.watch(cds, "late")
				late.expect(h.t, `error Cluster "late": xDS server "xds.test" is unavailable`)
				if got := h.state(cds, "a"); got.State != ads.StateRequested {
					h.t.Errorf("state %+v", got)
				}
				// The next failure of the same kind is no news.
				s = h.server.Accept()
				s.Recv()
				s.End(test.end)
				w.expect(h.t)
				late.expect(h.t)
				s = h.server.Accept()
				s.Recv()
				h.respond(s, cds, "v1", "n1", "a=1")
				w.expect(h.t, "changed 1")
				late.expect(h.t)
			})
		})
	}
}

func TestX22_UnreachableServerIsAnErrorWithoutACache(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		h.server.Stop()
		w := h.watch(cds, "a")
		events := w.expect(h.t, `error Cluster "a": xDS server "xds.test" is unavailable`)
		if len(events) == 1 && status.Code(events[0].err) != codes.Unavailable {
			h.t.Errorf("event %q, want the status to be in the chain", events[0])
		}
	})
}

func TestX22_DialErrorIsAnErrorWithoutACache(t *testing.T) {
	t.Parallel()
	cause := errors.New("no such credentials")
	both(t, func(h *harness) {
		w := h.watch(cds, "a")
		events := w.expect(h.t, "error is unavailable: dial: no such credentials")
		if len(events) == 1 && !errors.Is(events[0].err, cause) {
			h.t.Errorf("event %q does not wrap its cause", events[0])
		}
	}, func(o *ads.Options) {
		o.Servers[0].Dial = func(context.Context) (*grpc.ClientConn, error) { return nil, cause }
	})
}

func TestX23_LostServerIsAmbientForWhatIsCached(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		_, w := h.startWith(cds, "a", "1")
		h.server.Stop()
		time.Sleep(time.Minute)
		w.expect(h.t, `ambient Cluster "a": xDS server "xds.test" is unavailable`)
		late := h.watch(cds, "a")
		late.expect(h.t, "changed 1", "ambient is unavailable")
		h.server.Restart()
		s := h.server.Accept()
		s.Recv()
		h.respond(s, cds, "v1", "n1", "a=1")
		// The same bytes, but the error is over.
		w.expect(h.t, "changed 1")
		late.expect(h.t, "changed 1")
	})
}

func TestX23_ErrorIsOverWhenADeltaServerHasNothingToSay(t *testing.T) {
	t.Parallel()
	delta(t, func(h *harness) {
		_, w := h.startWith(cds, "a", "1")
		h.server.Stop()
		time.Sleep(10 * time.Second)
		w.expect(h.t, "ambient is unavailable")
		h.server.Restart()
		s := h.server.Accept()
		s.Recv()
		w.expect(h.t)
		s.ExpectNone(16 * time.Second)
		w.expect(h.t, "changed 1")
	})
}

// dials records when the client dials.
type dials struct {
	mu    sync.Mutex
	times []time.Time // guarded by mu
}

func (d *dials) record(o *ads.Options) {
	dial := o.Servers[0].Dial
	o.Servers[0].Dial = func(ctx context.Context) (*grpc.ClientConn, error) {
		d.mu.Lock()
		d.times = append(d.times, time.Now())
		d.mu.Unlock()
		return dial(ctx)
	}
}

func (d *dials) take() []time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	times := d.times
	d.times = nil
	return times
}

func TestX24_BackOffGrowsToItsCapAndIsResetByAResponse(t *testing.T) {
	t.Parallel()
	dialled := new(dials)
	sotw(t, func(h *harness) {
		h.server.Stop()
		h.watch(cds, "a")
		time.Sleep(40 * time.Minute)
		times := dialled.take()
		if len(times) < 15 {
			h.t.Fatalf("%d attempts in 40 minutes", len(times))
		}
		want := 1.0
		for i := 1; i < len(times); i++ {
			got := times[i].Sub(times[i-1]).Seconds()
			low, high := max(0.8*want, 1), 1.2*want
			if got < low-1e-6 || got > high+1e-6 {
				h.t.Errorf("gap %d is %.3f s, want %.3f to %.3f", i, got, low, high)
			}
			want = min(want*1.6, 120)
		}

		h.server.Restart()
		s := h.server.Accept()
		s.Recv()
		h.respond(s, cds, "v1", "n1", "a=1")
		s.Recv()
		synctest.Wait()
		dialled.take()
		h.server.Stop()
		start := time.Now()
		time.Sleep(10 * time.Second)
		times = dialled.take()
		if len(times) == 0 || times[0].Sub(start) > 3*time.Second {
			h.t.Errorf("dials %v after %v, want the back-off to begin again", times, start)
		}
	}, dialled.record)
}

func TestX25_ServerThatAnswersOnceAndDiesIsCalledOnceASecond(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		h.watch(cds, "a")
		start := time.Now()
		streams := 0
		for time.Since(start) < time.Minute {
			s := h.server.Accept()
			streams++
			s.Recv()
			h.respond(s, cds, "v1", "n1", "a=1")
			s.Recv()
			s.End(nil)
		}
		if streams > 61 || streams < 50 {
			h.t.Errorf("%d streams in a minute, want about 60", streams)
		}
	})
}

func TestX25_ConnectionIsReplacedOnlyWhenItBreaks(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		s, _ := h.startWith(cds, "a", "1")
		s.End(nil)
		s = h.server.Accept()
		s.Recv()
		if got := len(h.server.Connects()); got != 1 {
			h.t.Errorf("%d connections for two streams, want 1", got)
		}
	})
}

func TestX26_CacheOutlivesTheServer(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		_, w := h.startWith(eds, "a", "1")
		h.server.Stop()
		time.Sleep(6 * time.Hour)
		w.expect(h.t, "ambient is unavailable")
		late := h.watch(eds, "a")
		late.expect(h.t, "changed 1", "ambient is unavailable")
		if got := h.state(eds, "a"); got.State != ads.StateAcked || got.Version != "v1" {
			h.t.Errorf("state %+v", got)
		}
	})
}

func TestX27_FirstRequestListsTheWatchesOfNow(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		s, a := h.startWith(cds, "a", "1")
		h.watch(cds, "b")
		s.RecvType(cds)
		h.server.Stop()
		synctest.Wait()
		a.cancel()
		h.watch(cds, "c")
		h.watch(eds, "e")
		if got := h.client.Dump(); len(got) != 3 {
			h.t.Errorf("dump %+v, want nothing of what was given up", got)
		}
		h.server.Restart()
		s = h.server.Accept()
		r := h.expectSubscribe(s, cds, "v1", "", []string{"b", "c"}, []string{"b", "c"})
		if r.InitialVersions != nil {
			h.t.Errorf("request %v, want no version of what was given up", r)
		}
		h.expectSubscribe(s, eds, "", "", []string{"e"}, []string{"e"})
		s.ExpectNone(time.Second)
	})
}

func TestX28_VanishedPeerIsNoticedByKeepalive(t *testing.T) {
	t.Parallel()
	for _, deltaMode := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			broke := make(chan time.Time, 100)
			h := newHarness(t, deltaMode, func(o *ads.Options) {
				o.Hooks.StreamChanged = func(e observe.StreamEvent) {
					if !e.Connected {
						broke <- time.Now()
					}
				}
			})
			h.server.DialWith(grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 20 * time.Second}))
			_, w := h.startWith(cds, "a", "1")
			synctest.Wait()
			h.server.Freeze()
			start := time.Now()
			if got := (<-broke).Sub(start); got > time.Minute {
				t.Errorf("noticed after %v, want at most 60 s", got)
			}
			h.server.Thaw()
			s := h.server.Accept()
			s.Recv()
			h.respond(s, cds, "v2", "n2", "a=2")
			if events := w.take(); len(events) == 0 || events[len(events)-1].value != "2" {
				t.Errorf("events %q", events)
			}
		})
	}
}

func TestServerThatAcceptsAndSaysNothingIsUnavailable(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		h.server.Freeze()
		w := h.watch(cds, "a")
		time.Sleep(25 * time.Second)
		if notFound(w.expect(h.t, "error is unavailable")) {
			h.t.Error("a server that says nothing has not said that the resource does not exist")
		}
		h.server.Thaw()
		s := h.server.Accept()
		s.Recv()
		h.respond(s, cds, "v1", "n1", "a=1")
		w.expect(h.t, "changed 1")
	})
}

func TestX19_WildcardHearsThatTheServerIsAwayOnlyWhileItHasNothing(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		h.server.Stop()
		all := h.watch(cds, ads.Wildcard)
		all.expect(h.t, `error Cluster "*": xDS server "xds.test" is unavailable`)
		late := h.watch(cds, ads.Wildcard)
		late.expect(h.t, "error is unavailable")
		h.server.Restart()
		s := h.server.Accept()
		s.Recv()
		h.respond(s, cds, "v1", "n1", "a=1")
		all.expect(h.t, "changed 1")
		late.expect(h.t, "changed 1")
		h.server.Stop()
		time.Sleep(time.Minute)
		all.expect(h.t)
	})
}

func TestX30_ResponseOf25MiBIsAccepted(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		s, w := h.start(cds, "a")
		big := strings.Repeat("x", 25<<20)
		h.respond(s, cds, "v1", "n1", "a="+big)
		h.expectACK(s, cds, "v1", "n1", "a")
		if events := w.take(); len(events) != 1 || events[0].value != big {
			h.t.Errorf("%d events", len(events))
		}
	})
}

func TestX31_RestartedServerMayCountFromOneAgain(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		s, w := h.start(cds, "a")
		for i := range 3 {
			version := fmt.Sprint(i + 1)
			h.respond(s, cds, version, version, "a=first"+version)
			h.expectACK(s, cds, version, version, "a")
		}
		h.server.Stop()
		synctest.Wait()
		h.server.Restart()
		s = h.server.Accept()
		h.expectSubscribe(s, cds, "3", "", []string{"a"}, []string{"a"})
		for i := range 3 {
			version := fmt.Sprint(i + 1)
			h.respond(s, cds, version, version, "a=second"+version)
			h.expectACK(s, cds, version, version, "a")
		}
		if events := w.take(); events[len(events)-1].value != "second3" {
			h.t.Errorf("events %q", events)
		}
	})
}

func TestModeAuto_FallsBackForGoodWhenDeltaIsUnimplemented(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var events []observe.StreamEvent
		server := adstest.Start(t, adstest.Config{RefuseDelta: true})
		h := newHarnessOn(t, server, false, func(o *ads.Options) {
			o.Servers[0].Mode = ads.ModeAuto
			o.Hooks.StreamChanged = func(e observe.StreamEvent) { events = append(events, e) }
		})
		start := time.Now()
		w := h.watch(cds, "a")
		s := h.server.Accept()
		if r := s.Recv(); s.Delta || !r.At.Equal(start) || r.Node == nil {
			t.Errorf("delta %v, request %v after %v; want the state of the world at once", s.Delta, r, time.Since(start))
		}
		h.respond(s, cds, "v1", "n1", "a=1")
		h.expectACK(s, cds, "v1", "n1", "a")
		s.End(nil)
		s = h.server.Accept()
		h.expectSubscribe(s, cds, "v1", "", []string{"a"}, nil)
		w.expect(t, "changed 1")
		if got := len(h.server.Connects()); got != 1 {
			t.Errorf("%d connections, want 1", got)
		}
		got := make([]bool, 0, len(events))
		for _, e := range events {
			got = append(got, e.Connected)
		}
		if !slices.Equal(got, []bool{true, false, true}) {
			t.Errorf("stream events %v, want up, down, up", events)
		}
	})
}

// istiod answers over delta, and forgets the names: nothing in its answer is used, and
// all is asked for once more, at once and over the same connection.
func TestDeltaOfAServerThatDoesNotNameItself(t *testing.T) {
	t.Parallel()
	for _, mode := range []ads.Mode{ads.ModeAuto, ads.ModeDelta} {
		synctest.Test(t, func(t *testing.T) {
			h := newHarnessOn(t, adstest.Start(t, adstest.Config{}), true, func(o *ads.Options) {
				o.Servers[0].Mode, o.Servers[0].DeltaOnlyNamed = mode, true
			})
			start := time.Now()
			w := h.watch(cds, "a")
			s := h.server.Accept()
			if r := s.Recv(); !s.Delta || r.Node == nil {
				t.Errorf("delta %v, request %v", s.Delta, r)
			}
			s.Send(adstest.DeltaResponse(cds, "n1", text(cds, "a", "1", "delta")))
			s = h.server.Accept()
			if r := s.Recv(); s.Delta || r.Node == nil || !slices.Equal(r.Names, []string{"a"}) || r.Version != "" || !r.At.Equal(start) {
				t.Errorf("delta %v, request %v after %v; want the state of the world at once", s.Delta, r, time.Since(start))
			}
			w.expect(t)
			if got := len(h.server.Connects()); got != 1 {
				t.Errorf("%d connections, want 1", got)
			}
			s.End(nil)
			if s = h.server.Accept(); s.Delta {
				t.Error("delta is tried once more")
			}
		})
	}
}

func TestDeltaOfAServerThatNamesItself(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHarnessOn(t, adstest.Start(t, adstest.Config{}), true, func(o *ads.Options) { o.Servers[0].DeltaOnlyNamed = true })
		w := h.watch(cds, "a")
		s := h.server.Accept()
		s.Recv()
		response := adstest.DeltaResponse(cds, "n1", text(cds, "a", "1", "one"))
		response.ControlPlane = &corev3.ControlPlane{Identifier: "theirs"}
		s.Send(response)
		s.Recv()
		w.expect(t, "changed one")
		// It is said once a stream, and need not be said again.
		s.Send(adstest.DeltaResponse(cds, "n2", text(cds, "a", "2", "two")))
		s.Recv()
		w.expect(t, "changed two")
	})
}

func TestModeDelta_DoesNotFallBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := adstest.Start(t, adstest.Config{RefuseDelta: true})
		h := newHarnessOn(t, server, true)
		w := h.watch(cds, "a")
		h.server.ExpectNoStream(time.Minute)
		w.expect(t, "error Unimplemented")
	})
}

func TestConnectionIsClosedAfterTheLastWatch(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		_, w := h.startWith(cds, "a", "1")
		w.cancel()
		time.Sleep(29 * time.Second)
		if h.server.Open() != 1 {
			h.t.Error("closed too early: a new watch would have to connect again")
		}
		time.Sleep(2 * time.Second)
		if h.server.Open() != 0 {
			h.t.Error("the connection is still open")
		}
		w.expect(h.t)
		h.server.ExpectNoStream(time.Hour)
		again := h.watch(cds, "a")
		s := h.server.Accept()
		h.expectSubscribe(s, cds, "", "", []string{"a"}, []string{"a"})
		again.expect(h.t)
	})
}

func TestNoConnectionBeforeTheFirstWatch(t *testing.T) {
	t.Parallel()
	dialled := new(dials)
	both(t, func(h *harness) {
		h.server.ExpectNoStream(time.Hour)
		if got := dialled.take(); len(got) != 0 {
			h.t.Errorf("dialled at %v", got)
		}
	}, dialled.record)
}

func TestStreamChangesAreReported(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var events []string
	sotw(t, func(h *harness) {
		s, _ := h.startWith(cds, "a", "1")
		s.End(errRestart)
		h.server.Accept()
		synctest.Wait()
		if err := h.client.Close(); err != nil {
			h.t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		want := []string{"true <nil>", "false rpc error: code = Unavailable desc = the server restarts", "true <nil>", "false <nil>"}
		if !slices.Equal(events, want) {
			h.t.Errorf("events %q, want %q", events, want)
		}
	}, func(o *ads.Options) {
		o.Hooks.StreamChanged = func(e observe.StreamEvent) {
			mu.Lock()
			defer mu.Unlock()
			events = append(events, fmt.Sprintf("%v %v", e.Connected, e.Err))
		}
	})
}
