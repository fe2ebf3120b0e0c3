package ads_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/inboardmesh/inboard/discovery/xds/internal/ads"
	"github.com/inboardmesh/inboard/internal/adstest"
)

func TestX44_UnansweredNameDoesNotExistAfter15Seconds(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		start := time.Now()
		_, w := h.start(cds, "a")
		time.Sleep(14 * time.Second)
		w.expect(h.t)
		time.Sleep(2 * time.Second)
		events := w.expect(h.t, `error Cluster "a": not known to the control plane: xDS server "xds.test" did not answer within 15s`)
		if !notFound(events) || events[0].at.Sub(start) != 15*time.Second {
			h.t.Errorf("events %q at %v", events, events[0].at.Sub(start))
		}
		if got := h.state(cds, "a"); got.State != ads.StateDoesNotExist || got.State.String() != "DOES_NOT_EXIST" {
			h.t.Errorf("state %+v", got)
		}
		late := h.watch(cds, "a")
		late.expect(h.t, "error did not answer")
		time.Sleep(time.Hour)
		w.expect(h.t)
	})
}

func TestX45_TimerDoesNotRunWithoutAStream(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		h.server.Stop()
		w := h.watch(cds, "a")
		time.Sleep(time.Minute)
		if notFound(w.expect(h.t, "error is unavailable")) {
			h.t.Error("a resource must not be called unknown while nobody could be asked")
		}
		if got := h.state(cds, "a"); got.State != ads.StateRequested {
			h.t.Errorf("state %+v", got)
		}
	})
}

func TestX46_TimerRestartsOnTheNextStream(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		h.watch(cds, "a").cancel()
		s, _ := h.startWith(lds, "l", "1") // so that the stream has answered
		w := h.watch(cds, "a")
		s.RecvType(cds)
		time.Sleep(10 * time.Second)
		h.server.Stop()
		time.Sleep(2 * time.Second)
		h.server.Restart()
		s = h.server.Accept()
		s.RecvType(cds)
		asked := s.RecvType(lds).At
		time.Sleep(14 * time.Second)
		for _, e := range w.take() {
			if notFound([]event{e}) {
				h.t.Errorf("told %q %v after the new request", e, time.Since(asked))
			}
		}
		time.Sleep(1001 * time.Millisecond)
		if events := w.take(); !notFound(events) || events[0].at.Sub(asked) != 15*time.Second {
			h.t.Errorf("events %q, want not found 15 s after %v", events, asked)
		}
	})
}

func TestX47_TimerNeverRunsForWhatIsCached(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		s, w := h.startWith(cds, "a", "1")
		s.End(nil)
		s = h.server.Accept()
		s.Recv()
		time.Sleep(time.Hour)
		w.expect(h.t)
		if got := h.state(cds, "a"); got.State != ads.StateAcked {
			h.t.Errorf("state %+v", got)
		}
	})
}

func TestX48_ResourceThatComesAfterTheTimerIsServed(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		s, w := h.start(cds, "a")
		time.Sleep(20 * time.Second)
		w.expect(h.t, "error did not answer")
		h.respond(s, cds, "v1", "n1", "a=1")
		h.expectACK(s, cds, "v1", "n1", "a")
		w.expect(h.t, "changed 1")
		if got := h.state(cds, "a"); got.State != ads.StateAcked || got.Err != nil {
			h.t.Errorf("state %+v", got)
		}
	})
}

func TestX49_RejectionStopsTheTimer(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		s, w := h.start(cds, "a")
		time.Sleep(10 * time.Second)
		h.respond(s, cds, "v1", "n1", "a=!bad")
		h.expectNACK(s, cds, "", "n1", []string{"a"})
		time.Sleep(time.Minute)
		if notFound(w.expect(h.t, "error invalid: bad")) {
			h.t.Error("an invalid resource must not be taken for one that does not exist")
		}
	})
}

func TestX49_TimerDoesNotCallUnknownWhatMayHaveBeenUnreadable(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		s, w := h.start(cds, "a")
		h.respond(s, cds, "v1", "n1", "garbage")
		h.expectNACK(s, cds, "", "n1", []string{"a"}, "resource 0: ")
		time.Sleep(time.Minute)
		if notFound(w.expect(h.t, `error "garbage" cannot be parsed`)) {
			h.t.Error("that it does not exist was concluded from a rejected response")
		}
		if got := h.state(cds, "a"); got.State != ads.StateNacked {
			h.t.Errorf("state %+v", got)
		}
	})
}

func TestX49_SilenceOnTheNextStreamIsDoesNotExist(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		s, w := h.start(cds, "a")
		h.respond(s, cds, "v1", "n1", "garbage")
		h.expectNACK(s, cds, "", "n1", []string{"a"}, "resource 0: ")
		s.End(nil)
		s = h.server.Accept()
		s.Recv()
		time.Sleep(16 * time.Second)
		if !notFound(w.expect(h.t, "error did not answer within 15s")) {
			h.t.Error("want ErrNotFound")
		}
	})
}

func TestX50_TransientTimerFiresAfter30SecondsAndIsNotNotFound(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		_, w := h.start(cds, "a")
		time.Sleep(29 * time.Second)
		w.expect(h.t)
		time.Sleep(2 * time.Second)
		if notFound(w.expect(h.t, "error did not answer within 30s")) {
			h.t.Error("a transient error must not wrap ErrNotFound")
		}
		if got := h.state(cds, "a"); got.State != ads.StateTimeout {
			h.t.Errorf("state %+v", got)
		}
	}, func(o *ads.Options) { o.Servers[0].ResourceTimerIsTransientError = true })
}

func TestX51_ServerReportsErrorsForNames(t *testing.T) {
	t.Parallel()
	resourceError := func(name string, code codes.Code) *discoveryv3.ResourceError {
		return &discoveryv3.ResourceError{
			ResourceName: &discoveryv3.ResourceName{Name: name},
			ErrorDetail:  &statuspb.Status{Code: int32(code), Message: "because"},
		}
	}
	send := func(h *harness, s *adstest.Stream, version, nonce string, errs ...*discoveryv3.ResourceError) {
		if h.delta {
			m := adstest.DeltaResponse(cds, nonce)
			m.ResourceErrors = errs
			s.Send(m)
		} else {
			m := adstest.Response(cds, version, nonce)
			m.ResourceErrors = errs
			s.Send(m)
		}
		h.expectACK(s, cds, version, nonce, "a", "b")
	}
	for _, test := range []struct {
		name     string
		code     codes.Code
		setups   []setup
		cached   string
		notFound bool
		passes   bool
	}{
		{"not found", codes.NotFound, nil, "ambient", true, false},
		{"permission denied", codes.PermissionDenied, nil, "ambient", false, false},
		{"transient", codes.Unavailable, nil, "ambient", false, true},
		{"a code without a meaning", codes.InvalidArgument, nil, "ambient", false, true},
		{"not found that fails on data errors", codes.NotFound, []setup{failOnDataErrors}, "error", true, false},
		{"permission denied that fails on data errors", codes.PermissionDenied, []setup{failOnDataErrors}, "error", false, false},
		{"transient that fails on data errors", codes.Internal, []setup{failOnDataErrors}, "ambient", false, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			both(t, func(h *harness) {
				s, a := h.startWith(cds, "a", "1")
				b := h.watch(cds, "b")
				s.RecvType(cds)
				send(h, s, "v2", "n2", resourceError("a", test.code), resourceError("b", test.code), resourceError("c", test.code))
				if got := notFound(a.expect(h.t, test.cached+" because ("+test.code.String()+")")); got != test.notFound {
					h.t.Errorf("wraps ErrNotFound: %v, want %v", got, test.notFound)
				}
				events := b.expect(h.t, "error because")
				if got := notFound(events); got != test.notFound {
					h.t.Errorf("wraps ErrNotFound: %v, want %v", got, test.notFound)
				}
				if len(events) == 1 && errors.Is(events[0].err, ads.ErrTransient) != test.passes {
					h.t.Errorf("%v: wraps ErrTransient: %v, want %v", events[0].err, !test.passes, test.passes)
				}
				// Remembered, and the timer is stopped.
				time.Sleep(time.Minute)
				b.expect(h.t)
				h.watch(cds, "b").expect(h.t, "error because")
				if got := h.state(cds, "b"); got.State != ads.StateReceivedError {
					h.t.Errorf("state %+v", got)
				}
				h.respond(s, cds, "v3", "n3", "a=1", "b=1")
				a.expect(h.t, "changed 1")
				b.expect(h.t, "changed 1")
			}, test.setups...)
		})
	}
}

// withTTL wraps a resource for either variant.
func withTTL(h *harness, name, version, value string, ttl time.Duration) any {
	r := &discoveryv3.Resource{Name: name, Version: version}
	if value != "" {
		r.Resource = packed(cds, name+"="+value)
	}
	if ttl != 0 {
		r.Ttl = durationpb.New(ttl)
	}
	return r
}

func TestX90_ResourceWithATimeToLiveExpires(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		s, w := h.start(cds, "a")
		h.respond(s, cds, "v1", "n1", withTTL(h, "a", "v1", "1", 2*time.Second))
		h.expectACK(s, cds, "v1", "n1", "a")
		w.expect(h.t, "changed 1")
		time.Sleep(1900 * time.Millisecond)
		w.expect(h.t)
		time.Sleep(200 * time.Millisecond)
		if !notFound(w.expect(h.t, "error its time to live of 2s is over")) {
			h.t.Error("want ErrNotFound")
		}
		if got := h.state(cds, "a"); got.State != ads.StateDoesNotExist || got.Resource != nil {
			h.t.Errorf("state %+v", got)
		}
		h.respond(s, cds, "v1", "n2", withTTL(h, "a", "v1", "1", 2*time.Second))
		w.expect(h.t, "changed 1")
		// A version without one cancels the timer.
		h.respond(s, cds, "v1", "n3", withTTL(h, "a", "v1", "1", 0))
		time.Sleep(time.Hour)
		w.expect(h.t)
	})
}

func TestX90_TimeToLiveRunsWithoutTheServer(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		s, w := h.start(cds, "a")
		h.respond(s, cds, "v1", "n1", withTTL(h, "a", "v1", "1", time.Minute))
		w.expect(h.t, "changed 1")
		h.server.Stop()
		time.Sleep(2 * time.Minute)
		w.expect(h.t, "ambient is unavailable", "error time to live")
	})
}

func TestX91_HeartbeatExtendsTheTimeToLive(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		s, w := h.start(cds, "a")
		h.respond(s, cds, "v1", "n1", withTTL(h, "a", "v1", "1", 2*time.Second))
		h.expectACK(s, cds, "v1", "n1", "a")
		for range 5 {
			time.Sleep(1500 * time.Millisecond)
			h.respond(s, cds, "v1", "n2", withTTL(h, "a", "v1", "", 2*time.Second))
			h.expectACK(s, cds, "v1", "n2", "a")
		}
		w.expect(h.t, "changed 1")
		time.Sleep(2100 * time.Millisecond)
		w.expect(h.t, "error time to live")
		// A heartbeat for something that is not held says nothing.
		h.respond(s, cds, "v1", "n3", withTTL(h, "a", "v1", "", 2*time.Second))
		h.expectACK(s, cds, "v1", "n3", "a")
		w.expect(h.t)
	})
}

// expiryRecorder is a recorder that hears of times to live as well.
type expiryRecorder struct{ recorder }

func (r *expiryRecorder) Expires(expires bool) { r.note(event{kind: "expires", value: expires}) }

func TestX91_WatchersHearWhetherThereIsATimeToLive(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		w := new(expiryRecorder)
		h.t.Cleanup(h.client.Watch(cds, "a", w))
		s := h.server.Accept()
		h.expectSubscribe(s, cds, "", "", []string{"a"}, []string{"a"})
		send := func(nonce, value string, ttl time.Duration) {
			h.respond(s, cds, "v1", nonce, withTTL(h, "a", "v1", value, ttl))
			h.expectACK(s, cds, "v1", nonce, "a")
		}
		send("n1", "1", 0)
		w.expect(h.t, "expires false", "changed 1")
		send("n2", "", time.Minute) // a heartbeat
		w.expect(h.t, "expires true")
		send("n3", "", time.Minute)
		w.expect(h.t)
		late := new(expiryRecorder)
		h.t.Cleanup(h.client.Watch(cds, "a", late))
		synctest.Wait()
		late.expect(h.t, "expires true", "changed 1")
		send("n4", "1", 0) // the same bytes
		w.expect(h.t, "expires false")
		send("n5", "1", time.Second)
		time.Sleep(2 * time.Second)
		w.expect(h.t, "expires true", "error time to live")
		send("n6", "1", 0)
		w.expect(h.t, "expires false", "changed 1")
	})
}

func TestX91_HeartbeatWithAnotherVersionIsRejected(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		s, w := h.startWith(cds, "a", "1")
		h.respond(s, cds, "v2", "n2", withTTL(h, "a", "v2", "", time.Second))
		h.expectNACK(s, cds, "v1", "n2", []string{"a"}, `version "v2" is not the one in force ("v1")`)
		w.expect(h.t, "ambient resource: not set")
	})
}

func TestX90_TimeToLiveMustBePositive(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		s, w := h.startWith(cds, "a", "1")
		h.respond(s, cds, "v2", "n2", withTTL(h, "a", "v2", "2", -time.Second))
		h.expectNACK(s, cds, "v1", "n2", []string{"a"}, "ttl: -1s is not positive")
		w.expect(h.t, "ambient ttl")
	})
}
