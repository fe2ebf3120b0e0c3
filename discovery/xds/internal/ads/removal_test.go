package ads_test

import (
	"testing"
	"testing/synctest"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/inboardmesh/inboard/discovery/xds/internal/ads"
	"github.com/inboardmesh/inboard/internal/adstest"
)

func failOnDataErrors(o *ads.Options) { o.Servers[0].FailOnDataErrors = true }

func TestX33_OmittedResourceIsKeptWithAnAmbientError(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		s, w := h.startWith(cds, "a", "1")
		h.watch(cds, "b")
		s.RecvType(cds)
		h.respond(s, cds, "v2", "n2", "b=1", "removed:a")
		h.expectACK(s, cds, "v2", "n2", "a", "b")
		if events := w.expect(h.t, `ambient Cluster "a": not known to the control plane: removed by xDS server "xds.test"`); !notFound(events) {
			h.t.Errorf("events %q, want them to wrap ErrNotFound", events)
		}
		if got := h.state(cds, "a"); got.State != ads.StateDoesNotExist || got.Resource != "1" {
			h.t.Errorf("state %+v, want the value to be kept", got)
		}
		late := h.watch(cds, "a")
		late.expect(h.t, "changed 1", "ambient removed")
		// The same omission again is no news.
		h.respond(s, cds, "v3", "n3", "b=1", "removed:a")
		h.expectACK(s, cds, "v3", "n3", "a", "b")
		w.expect(h.t)
	})
}

func TestX33_OmittedResourceIsDroppedWithFailOnDataErrors(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		s, w := h.startWith(lds, "a", "1")
		h.respond(s, lds, "v2", "n2", "removed:a")
		h.expectACK(s, lds, "v2", "n2", "a")
		if events := w.expect(h.t, `error Listener "a": not known to the control plane: removed`); !notFound(events) {
			h.t.Errorf("events %q, want them to wrap ErrNotFound", events)
		}
		if got := h.state(lds, "a"); got.State != ads.StateDoesNotExist || got.Resource != nil {
			h.t.Errorf("state %+v, want no value", got)
		}
		late := h.watch(lds, "a")
		late.expect(h.t, "error removed")
		h.respond(s, lds, "v3", "n3", "a=1")
		w.expect(h.t, "changed 1")
		late.expect(h.t, "changed 1")
	}, failOnDataErrors)
}

func TestX34_OmissionOfRoutesAndEndpointsMeansNothing(t *testing.T) {
	t.Parallel()
	for _, typeURL := range []string{rds, eds} {
		both(t, func(h *harness) {
			s, w := h.startWith(typeURL, "a", "1")
			b := h.watch(typeURL, "b")
			s.RecvType(typeURL)
			h.respond(s, typeURL, "v2", "n2", "b=1")
			h.expectACK(s, typeURL, "v2", "n2", "a", "b")
			b.expect(h.t, "changed 1")
			w.expect(h.t)
			if got := h.state(typeURL, "a"); got.State != ads.StateAcked {
				h.t.Errorf("state %+v", got)
			}
		})
	}
}

func TestX34_OmissionInADeltaResponseMeansNothing(t *testing.T) {
	t.Parallel()
	delta(t, func(h *harness) {
		s, w := h.startWith(cds, "a", "1")
		h.watch(cds, "b")
		s.RecvType(cds)
		h.respond(s, cds, "v2", "n2", "b=1")
		h.expectACK(s, cds, "", "n2")
		h.respond(s, cds, "v3", "n3")
		h.expectACK(s, cds, "", "n3")
		w.expect(h.t)
	})
}

func TestX35_EmptyRouteOrEndpointResponseChangesNothing(t *testing.T) {
	t.Parallel()
	for _, typeURL := range []string{rds, eds} {
		both(t, func(h *harness) {
			s, w := h.startWith(typeURL, "a", "1")
			h.respond(s, typeURL, "v2", "n2")
			h.expectACK(s, typeURL, "v2", "n2", "a")
			w.expect(h.t)
		})
	}
}

func TestX36_EmptyListenerOrClusterResponseRemovesAll(t *testing.T) {
	t.Parallel()
	for _, typeURL := range []string{lds, cds} {
		sotw(t, func(h *harness) {
			s, a := h.startWith(typeURL, "a", "1")
			b := h.watch(typeURL, "b")
			s.RecvType(typeURL)
			h.respond(s, typeURL, "v2", "n2", "a=1", "b=1")
			h.expectACK(s, typeURL, "v2", "n2", "a", "b")
			b.take()
			h.respond(s, typeURL, "v3", "n3")
			h.expectACK(s, typeURL, "v3", "n3", "a", "b")
			if !notFound(a.expect(h.t, "ambient removed")) || !notFound(b.expect(h.t, "ambient removed")) {
				h.t.Error("want both to be reported as removed")
			}
		})
	}
}

func TestX37_NewSubscriptionIsNotRemovedByAnOlderResponse(t *testing.T) {
	t.Parallel()
	sotw(t, func(h *harness) {
		s, _ := h.startWith(lds, "a", "1")
		b := h.watch(lds, "b")
		asked := s.RecvType(lds)
		time.Sleep(5 * time.Second)
		h.respond(s, lds, "v2", "n2", "a=2")
		h.expectACK(s, lds, "v2", "n2", "a", "b")
		b.expect(h.t)
		if got := h.state(lds, "b"); got.State != ads.StateRequested {
			h.t.Errorf("state %+v", got)
		}
		time.Sleep(10*time.Second + time.Millisecond)
		events := b.expect(h.t, "error did not answer within 15s")
		if len(events) == 1 && events[0].at.Sub(asked.At) != 15*time.Second {
			h.t.Errorf("told after %v, want 15 s", events[0].at.Sub(asked.At))
		}
	})
}

func TestX38_RemovedResourceThatComesBackIsResumed(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		s, w := h.startWith(cds, "a", "1")
		h.respond(s, cds, "v2", "n2", "removed:a")
		h.expectACK(s, cds, "v2", "n2", "a")
		w.expect(h.t, "ambient removed")
		h.respond(s, cds, "v3", "n3", "a=1")
		h.expectACK(s, cds, "v3", "n3", "a")
		w.expect(h.t, "changed 1")
		if got := h.state(cds, "a"); got.State != ads.StateAcked || got.Err != nil {
			h.t.Errorf("state %+v", got)
		}
	})
}

func TestX38_RemovedResourceIsNotClaimedToBeHeldAfterAReconnect(t *testing.T) {
	t.Parallel()
	delta(t, func(h *harness) {
		s, _ := h.startWith(cds, "a", "1")
		h.respond(s, cds, "v2", "n2", "removed:a")
		h.expectACK(s, cds, "", "n2")
		s.End(nil)
		s = h.server.Accept()
		if r := s.RecvType(cds); r.InitialVersions != nil {
			h.t.Errorf("request %v: the server would not send v1 again", r)
		}
	})
}

func TestX39_NothingIsRemovedByARejectedResponse(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		bad  any
		text string
	}{
		{"an entry whose bytes have no name", "garbage", `resource 0: "garbage" cannot be parsed`},
		{"an entry of another type", adstest.Any(packed(rds, "a=2")), "does not match the message-wide type URL"},
		{"an invalid entry of another name", "b=!bad", `resource 0 "b": invalid: bad`},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			for _, deltaMode := range []bool{false, true} {
				for _, setups := range [][]setup{nil, {failOnDataErrors}} {
					synctest.Test(t, func(t *testing.T) {
						h := newHarness(t, deltaMode, setups...)
						s, w := h.startWith(cds, "a", "1")
						h.watch(cds, "b")
						s.RecvType(cds)
						bad := test.bad
						if _, ok := bad.(string); !ok && deltaMode {
							bad = &discoveryv3.Resource{Resource: packed(rds, "a=2")}
						}
						h.respond(s, cds, "v2", "n2", bad, "removed:a")
						h.expectNACK(s, cds, "v1", "n2", []string{"a", "b"}, test.text)
						w.expect(t)
						if got := h.state(cds, "a"); got.State != ads.StateAcked || got.Resource != "1" {
							t.Errorf("state %+v", got)
						}
					})
				}
			}
		})
	}
}

func TestX40_X41_UnsubscribedEndpointsAreAskedForAnew(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		s, _ := h.startWith(cds, "a", "1")
		w := h.watch(eds, "a")
		h.expectSubscribe(s, eds, "", "", []string{"a"}, []string{"a"})
		h.respond(s, eds, "v1", "n1", "a=endpoints")
		h.expectACK(s, eds, "v1", "n1", "a")
		synctest.Wait() // the watcher hears of it beside the ACK
		w.cancel()
		h.expectUnsubscribe(s, eds, "v1", "n1", nil, []string{"a"})
		again := h.watch(eds, "a")
		h.expectSubscribe(s, eds, "", "n1", []string{"a"}, []string{"a"})
		// Although it is not resent, nothing stale is used, and the timer says
		// that it is missing.
		time.Sleep(16 * time.Second)
		again.expect(h.t, "error did not answer within 15s")
		h.respond(s, eds, "v1", "n2", "a=endpoints")
		again.expect(h.t, "changed endpoints")
		w.expect(h.t, "changed endpoints")
	})
}

func TestX87_DeltaRemovalOfEndpointsInUseKeepsThem(t *testing.T) {
	t.Parallel()
	for _, typeURL := range []string{rds, eds} {
		delta(t, func(h *harness) {
			s, w := h.startWith(typeURL, "a", "1")
			h.respond(s, typeURL, "v2", "n2", "removed:a")
			h.expectACK(s, typeURL, "", "n2")
			w.expect(h.t, "ambient removed by xDS server")
			if got := h.state(typeURL, "a"); got.Resource != "1" {
				h.t.Errorf("state %+v", got)
			}
		})
	}
}

func TestDeltaRemovalAnswersForAResourceThatNeverExisted(t *testing.T) {
	t.Parallel()
	delta(t, func(h *harness) {
		s, w := h.start(cds, "a")
		h.respond(s, cds, "v1", "n1", "removed:a")
		h.expectACK(s, cds, "", "n1")
		if !notFound(w.expect(h.t, "error says that it does not exist")) {
			h.t.Error("want ErrNotFound")
		}
		// The timer is stopped: nothing else comes.
		time.Sleep(time.Minute)
		w.expect(h.t)
	})
}

func TestDeltaRemovalByResourceName(t *testing.T) {
	t.Parallel()
	delta(t, func(h *harness) {
		s, w := h.startWith(cds, "a", "1")
		m := adstest.DeltaResponse(cds, "n2")
		m.RemovedResourceNames = []*discoveryv3.ResourceName{{Name: "a"}}
		s.Send(m)
		h.expectACK(s, cds, "", "n2")
		w.expect(h.t, "ambient removed")
	})
}

func TestX89_WildcardStaysWhenANameIsGivenUp(t *testing.T) {
	t.Parallel()
	for _, answer := range []string{"a=1", "removed:a"} {
		delta(t, func(h *harness) {
			all := h.watch(cds, ads.Wildcard)
			a := h.watch(cds, "a")
			s := h.server.Accept()
			h.expectSubscribe(s, cds, "", "", nil, []string{"*", "a"})
			h.respond(s, cds, "v1", "n1", "a=1", "b=1")
			h.expectACK(s, cds, "", "n1")
			a.cancel()
			h.expectUnsubscribe(s, cds, "", "", nil, []string{"a"})
			all.take()
			h.respond(s, cds, "v2", "n2", answer)
			h.expectACK(s, cds, "", "n2")
			if answer == "a=1" {
				all.expect(h.t)
			} else if !notFound(all.expect(h.t, `error Cluster "a"`)) {
				h.t.Error("want ErrNotFound")
			}
			h.respond(s, cds, "v3", "n3", "b=2")
			all.expect(h.t, "changed 2")
		})
	}
}
