package ads_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/discovery/xds/internal/ads"
)

// released holds a and b, loses the server, and gives b up two minutes later. b is
// what is asked for again.
func released(h *harness) (a *recorder) {
	h.t.Helper()
	s, a := h.startWith(cds, "a", "1")
	b := h.watch(cds, "b")
	s.RecvType(cds)
	h.respond(s, cds, "v2", "n2", "a=1", "b=2")
	h.expectACK(s, cds, "v2", "n2", "a", "b")
	b.expect(h.t, "changed 2")
	h.server.Stop()
	time.Sleep(2 * time.Minute)
	b.cancel()
	a.take()
	return a
}

func TestX26_WhatWasReleasedWhileTheServerIsAwayIsThereForWhoAsksAgain(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		released(h)
		if slices.ContainsFunc(h.client.Dump(), func(s ads.ResourceState) bool { return s.Name == "b" }) {
			h.t.Error("b is in the dump, and nobody watches it")
		}
		time.Sleep(12 * time.Hour)
		for range 2 {
			b := h.watch(cds, "b")
			b.expect(h.t, "changed 2", `ambient Cluster "b": xDS server "xds.test" is unavailable`)
			b.cancel()
		}
		b := h.watch(cds, "b")
		b.take()
		h.server.Restart()
		s := h.server.Accept()
		r := h.expectSubscribe(s, cds, "v2", "", []string{"a", "b"}, []string{"a", "b"})
		if h.delta && r.InitialVersions["b"] != "v2" {
			h.t.Errorf("request %v, want the version of b", r)
		}
		h.respond(s, cds, "v3", "m1", "a=1", "b=3")
		h.expectACK(s, cds, "v3", "m1", "a", "b")
		b.expect(h.t, "changed 3")
	})
}

func TestX27_WhatIsKeptForNobodyIsNotAskedForAndEndsWithTheAnswerOfTheServer(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		a := released(h)
		h.server.Restart()
		s := h.server.Accept()
		if r := h.expectSubscribe(s, cds, "v2", "", []string{"a"}, []string{"a"}); len(r.InitialVersions) > 1 {
			h.t.Errorf("request %v, want a alone", r)
		}
		h.respond(s, cds, "v3", "m1", "a=3")
		h.expectACK(s, cds, "v3", "m1", "a")
		a.expect(h.t, "changed 3")
		b := h.watch(cds, "b")
		h.expectSubscribe(s, cds, "v3", "m1", []string{"a", "b"}, []string{"b"})
		b.expect(h.t) // it is asked for anew
	})
}

func TestX26_AServerThatOpensStreamsAndEndsThemCannotBeAsked(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		released(h)
		h.server.Restart()
		for range 3 {
			s := h.server.Accept()
			s.Recv()
			s.End(errRestart)
			synctest.Wait()
			b := h.watch(cds, "b")
			if events := b.take(); len(events) == 0 || events[0].value != "2" {
				h.t.Errorf("events %q, want the value first", events)
			}
			b.cancel()
		}
	})
}

func TestX26_TheLastOneThatIsReleasedIsKeptAndTheServerIsStillLookedFor(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		_, a := h.startWith(cds, "a", "1")
		h.server.Stop()
		time.Sleep(time.Second)
		a.cancel()
		time.Sleep(time.Hour)
		h.server.Restart()
		s := h.server.Accept()
		s.ExpectNone(time.Second) // nothing is watched
		time.Sleep(time.Minute)   // the server is there, and nobody needs it
		h.server.ExpectNoStream(time.Minute)
		if n := h.server.Open(); n != 0 {
			h.t.Errorf("%d connections are open, and nothing is watched", n)
		}
		a = h.watch(cds, "a")
		s = h.server.Accept()
		h.expectSubscribe(s, cds, "", "", []string{"a"}, []string{"a"})
		a.expect(h.t)
	})
}

func TestX19_WhatIsKeptIsOfTheWildcardThatIsWatchedNext(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		released(h)
		all := h.watch(cds, ads.Wildcard)
		if events := all.take(); !slices.ContainsFunc(events, func(e event) bool { return e.value == "2" }) {
			h.t.Errorf("events %q, want the value of b", events)
		}
		time.Sleep(25 * time.Hour)
		if got := h.state(cds, "b"); got.Resource != "2" {
			h.t.Errorf("state %+v, want the value", got)
		}
	})
}

func TestWhatIsKeptIsForgottenAfterADay(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		released(h)
		time.Sleep(24*time.Hour + time.Second)
		h.watch(cds, "b").expect(h.t, `error Cluster "b": xDS server "xds.test" is unavailable`)
	})
}

func TestX33_WhatTheServerTookAwayIsNotKeptForWhoComesLater(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		s, _ := h.startWith(cds, "a", "1")
		b := h.watch(cds, "b")
		s.RecvType(cds)
		h.respond(s, cds, "v2", "n2", "a=1", "b=2")
		h.expectACK(s, cds, "v2", "n2", "a", "b")
		h.respond(s, cds, "v3", "n3", "a=1", "removed:b")
		h.expectACK(s, cds, "v3", "n3", "a", "b")
		b.expect(h.t, "changed 2", "ambient removed")
		h.server.Stop()
		time.Sleep(time.Minute)
		b.cancel()
		events := h.watch(cds, "b").take()
		if len(events) != 1 || events[0].kind != "error" || !errors.Is(events[0].err, ads.ErrOffline) {
			h.t.Errorf("events %q, want that the server is away", events)
		}
	})
}

func TestX90_WhatIsKeptExpiresAsItWould(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		s, w := h.start(cds, "a")
		h.respond(s, cds, "v1", "n1", withTTL(h, "a", "v1", "1", time.Hour))
		h.expectACK(s, cds, "v1", "n1", "a")
		w.expect(h.t, "changed 1")
		h.server.Stop()
		time.Sleep(time.Minute)
		w.cancel()
		again := h.watch(cds, "a")
		if events := again.take(); len(events) == 0 || events[0].value != "1" {
			h.t.Errorf("events %q, want the value first", events)
		}
		again.cancel()
		time.Sleep(time.Hour)
		events := h.watch(cds, "a").take()
		if len(events) != 1 || !strings.Contains(events[0].String(), "is unavailable") {
			h.t.Errorf("events %q, want no value", events)
		}
	})
}

// What is released while the server is looked for anew is kept. At the end of the client
// nothing is: Close would wait until it may be forgotten.
func TestX26_NothingIsKeptByAClientThatIsClosed(t *testing.T) {
	t.Parallel()
	for range 20 { // of the two that are woken, the link's goroutine must be the second
		both(t, func(h *harness) {
			_, a := h.startWith(cds, "a", "1")
			h.server.Stop()
			time.Sleep(time.Second)
			h.server.Restart()
			h.server.Accept().RecvType(cds)
			begun := time.Now()
			a.cancel()
			if err := h.client.Close(); err != nil {
				h.t.Error(err)
			}
			if took := time.Since(begun); took > 0 {
				h.t.Errorf("Close took %v", took)
			}
		})
	}
}
