package ads_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/discovery/xds/internal/ads"
	"github.com/inboardmesh/inboard/internal/adstest"
)

const (
	ones   = "xdstp://one/" + cluster + "/shop/*"
	anyOne = "xdstp://one/" + cluster + "/shop/a"
	anyTwo = "xdstp://two/" + cluster + "/a"
)

// collection watches that of the authority "one" and something of "two", and returns
// the streams to both servers.
func collection(h *harness, two *adstest.Server) (w *recorder, s, other *adstest.Stream) {
	h.t.Helper()
	w = h.watch(cds, ones)
	s = h.server.Accept()
	h.expectSubscribe(s, cds, "", "", nil, []string{ones})
	h.respond(s, cds, "v1", "n1", adstest.Resource(anyOne, "v1", packed(cds, "x=1")))
	h.expectACK(s, cds, "v1", "n1")
	w.expect(h.t, "changed 1")
	h.watch(cds, anyTwo)
	other = two.Accept()
	h.expectSubscribe(other, cds, "", "", nil, []string{anyTwo})
	return w, s, other
}

func TestX95_ACollectionIsNotTakenAwayByTheServerOfAnotherAuthority(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h, two := federated(t, true)
		w, _, other := collection(h, two)
		h.respond(other, cds, "v1", "n1", "removed:"+ones, "removed:"+anyOne, adstest.Resource(anyTwo, "v1", packed(cds, "x=2")))
		h.expectACK(other, cds, "v1", "n1")
		w.expect(t)
		h.server.Stop()
		time.Sleep(time.Minute)
		w.expect(t) // it has shown something, and has no value of its own
		if got := h.state(cds, anyOne); got.Resource != "1" || got.State != ads.StateAcked {
			t.Errorf("state %+v", got)
		}
	})
}

func TestX95_AnotherAuthoritysServerPutsNothingIntoACollection(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h, two := federated(t, true)
		w, _, other := collection(h, two)
		all := h.watch(cds, ads.Wildcard)
		for i := range 100 {
			nonce := fmt.Sprint("n", i)
			h.respond(other, cds, nonce, nonce,
				adstest.Resource(fmt.Sprintf("xdstp://one/%s/shop/b%d", cluster, i), "v1", packed(cds, "x=3")),
				adstest.Resource(fmt.Sprintf("xdstp://one/%s/shop/c%d", cluster, i), "v1", packed(cds, "x=!bad")),
				adstest.Resource(fmt.Sprintf("plain%d", i), "v1", packed(cds, "x=4")))
			h.expectACK(other, cds, nonce, nonce)
		}
		w.expect(t)
		all.expect(t)
		if n := len(h.client.Dump()); n != 2 {
			t.Errorf("%d resources are known, want the one of the collection and the one that is watched", n)
		}
	})
}

func TestX26_ACollectionThatIsGivenUpLeavesWhatIsKeptOfAnotherAuthority(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h, two := federated(t, true)
		_, far := func() (*adstest.Stream, *recorder) {
			all := h.watch(cds, "xdstp://two/"+cluster+"/*")
			s := two.Accept()
			s.RecvType(cds)
			return s, all
		}()
		_, a := h.startWith(cds, "a", "1")
		h.server.Stop()
		time.Sleep(time.Second)
		a.cancel()
		far.cancel()
		time.Sleep(time.Minute)
		if events := h.watch(cds, "a").take(); len(events) == 0 || events[0].value != "1" {
			t.Errorf("events %q, want the value first", events)
		}
	})
}

func TestX26_WhatIsOfACollectionIsKeptWhileItsServerIsAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h, two := federated(t, true)
		w, _, _ := collection(h, two)
		h.server.Stop()
		time.Sleep(time.Second)
		w.cancel()
		time.Sleep(time.Minute)
		if events := h.watch(cds, ones).take(); len(events) == 0 || events[0].value != "1" {
			t.Errorf("events %q, want the value first", events)
		}
	})
}

// sharing has two servers: "both" asks the first and then the second, "back" the second
// and then the first.
func sharing(t *testing.T, deltaMode bool) (h *harness, second *adstest.Server) {
	t.Helper()
	second = adstest.Start(t, adstest.Config{Address: "second.test"})
	h = newHarness(t, deltaMode, func(o *ads.Options) {
		one := o.Servers[0]
		two := ads.ServerConfig{Name: "second.test", Dial: second.Dial, Mode: one.Mode}
		o.Authorities = map[string][]ads.ServerConfig{"both": {one, two}, "back": {two, one}}
	})
	return h, second
}

func bothSharing(t *testing.T, test func(h *harness, second *adstest.Server)) {
	t.Helper()
	for name, deltaMode := range map[string]bool{"state of the world": false, "delta": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { test(sharing(t, deltaMode)) })
		})
	}
}

// given is a name that an authority gives, and its resource.
func given(authority, id string) string { return "xdstp://" + authority + "/" + cluster + "/" + id }

func value(name, version, text string) any {
	return adstest.Resource(name, version, packed(cds, "x="+text))
}

// hold watches a name and answers it.
func (h *harness) hold(server *adstest.Server, s *adstest.Stream, name, version, nonce, text string) (*adstest.Stream, *recorder) {
	h.t.Helper()
	w := h.watch(cds, name)
	if s == nil {
		s = server.Accept()
	}
	s.RecvType(cds)
	h.respond(s, cds, version, nonce, value(name, version, text))
	s.RecvType(cds)
	w.expect(h.t, "changed "+text)
	return s, w
}

func TestX98_X99_TwoAuthoritiesFallBackToEachOthersServersAndReturn(t *testing.T) {
	t.Parallel()
	bothSharing(t, func(h *harness, second *adstest.Server) {
		a, b := given("both", "a"), given("back", "b")
		_, wa := h.hold(h.server, nil, a, "v1", "n1", "1")
		_, wb := h.hold(second, nil, b, "v1", "n1", "2")
		h.server.Stop()
		second.Stop()
		time.Sleep(3 * time.Second)
		wa.take()
		wb.take()
		newA, newB := h.watch(cds, given("both", "new")), h.watch(cds, given("back", "new"))
		synctest.Wait()
		h.server.Restart()
		second.Restart()
		first, other := h.server.Accept(), second.Accept()
		for _, s := range []*adstest.Stream{first, other} {
			r := s.RecvType(cds)
			if names := append(r.Names, r.Subscribe...); len(names) != 4 {
				h.t.Errorf("request %v, want the names of both authorities", r)
			}
		}
		// Each answers for its own and lies about the other's.
		h.respond(first, cds, "m1", "m1", value(a, "m1", "10"), value(given("both", "new"), "m1", "11"), "removed:"+b)
		h.respond(other, cds, "m1", "m1", value(b, "m1", "20"), value(given("back", "new"), "m1", "21"), "removed:"+a)
		synctest.Wait()
		for _, w := range []*recorder{wa, wb, newA, newB} {
			events := w.take()
			for _, e := range events {
				if e.kind == "error" && !errors.Is(e.err, ads.ErrOffline) {
					h.t.Errorf("events %q", events)
				}
			}
			if len(events) == 0 || events[len(events)-1].kind != "changed" {
				h.t.Errorf("events %q, want a value last", events)
			}
		}
		// Both have returned: neither is asked for the names of the other.
		time.Sleep(time.Second)
		for name, want := range map[string]string{a: "10", b: "20", given("both", "new"): "11", given("back", "new"): "21"} {
			if got := h.state(cds, name); got.Resource != want || got.Err != nil {
				h.t.Errorf("state %+v, want %s", got, want)
			}
		}
		h.respond(first, cds, "m2", "m2", value(a, "m2", "12"), value(given("both", "new"), "m2", "11"), value(b, "m2", "99"))
		synctest.Wait()
		if got := h.state(cds, b); got.Resource != "20" {
			h.t.Errorf("state %+v: it is what the server of the other authority says", got)
		}
	})
}

func TestX27_WhatIsKeptEndsWithAServerThatIsFallenBackTo(t *testing.T) {
	t.Parallel()
	bothSharing(t, func(h *harness, second *adstest.Server) {
		gone := given("both", "gone")
		other, _ := h.hold(second, nil, given("back", "b"), "v1", "n1", "2")
		s, _ := h.hold(h.server, nil, given("both", "a"), "v1", "n1", "1")
		w := h.watch(cds, gone)
		s.RecvType(cds)
		h.respond(s, cds, "v2", "n2", value(given("both", "a"), "v1", "1"), value(gone, "v2", "2"))
		s.RecvType(cds)
		w.expect(h.t, "changed 2")
		h.server.Stop()
		time.Sleep(3 * time.Second)
		w.cancel()
		h.watch(cds, given("both", "new")) // falls back
		other.RecvType(cds)
		again := h.watch(cds, gone)
		if events := again.take(); len(events) != 0 {
			h.t.Errorf("events %q: the second server can be asked, and has not answered", events)
		}
	})
}

func TestX37_X99_TheServerThatReturnsDoesNotTakeAwayWhatItHasNotHeardOf(t *testing.T) {
	t.Parallel()
	for _, strict := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			second := adstest.Start(t, adstest.Config{Address: "second.test"})
			h := newHarness(t, false, func(o *ads.Options) {
				o.Servers[0].FailOnDataErrors = strict
				o.Servers = append(o.Servers, ads.ServerConfig{Name: "second.test", Dial: second.Dial, Mode: ads.ModeSotW})
			})
			h.server.Stop()
			h.watch(cds, "a")
			time.Sleep(time.Second)
			s2 := second.Accept()
			s2.RecvType(cds)
			h.respond(s2, cds, "v1", "n1", "a=1")
			s2.RecvType(cds)
			h.server.Restart()
			s1 := h.server.Accept()
			s1.RecvType(cds) // names a alone
			b := h.watch(cds, "b")
			s2.RecvType(cds)
			h.respond(s2, cds, "v2", "n2", "a=1", "b=2")
			s2.RecvType(cds)
			b.expect(t, "changed 2")
			h.respond(s1, cds, "m1", "m1", "a=1") // written before it heard of b
			b.expect(t)
			s1.RecvType(cds)
			s1.RecvType(cds)
			h.respond(s1, cds, "m2", "m2", "a=1", "b=3")
			b.expect(t, "changed 3")

			h.respond(s1, cds, "m3", "m3", "a=1")
			kind := map[bool]string{false: "ambient", true: "error"}[strict]
			b.expect(t, kind+" removed by xDS server")
		})
	}
}

func TestX99_WhatTheServerThatReturnsDoesNotHaveIsGoneAfterItsTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		second := adstest.Start(t, adstest.Config{Address: "second.test"})
		h := newHarness(t, false, func(o *ads.Options) {
			o.Servers = append(o.Servers, ads.ServerConfig{Name: "second.test", Dial: second.Dial, Mode: ads.ModeSotW})
		})
		h.server.Stop()
		h.watch(cds, "a")
		b := h.watch(cds, "b")
		time.Sleep(time.Second)
		s2 := second.Accept()
		s2.RecvType(cds)
		h.respond(s2, cds, "v1", "n1", "a=1", "b=2")
		s2.RecvType(cds)
		b.expect(t, "changed 2")
		h.server.Restart()
		s1 := h.server.Accept()
		s1.RecvType(cds)
		h.respond(s1, cds, "m1", "m1", "a=1")
		s1.RecvType(cds)
		time.Sleep(14 * time.Second)
		b.expect(t)
		time.Sleep(2 * time.Second)
		b.expect(t, "ambient removed by xDS server")
		if got := h.state(cds, "b"); got.Resource != "2" || got.State != ads.StateDoesNotExist {
			t.Errorf("state %+v", got)
		}
	})
}

func TestX92_TwoFormsOfOneNameInAResponseAreOneNameTwice(t *testing.T) {
	t.Parallel()
	withAuthorities(t, func(h *harness, two *adstest.Server) {
		const one = "xdstp://two/" + cluster + "/a%62c/d%2fe?a=1&b=2"
		const known = "xdstp://two/" + cluster + "/abc/d%2Fe?a=1&b=2"
		const other = "xdstp://two/" + cluster + "/other"
		s, w := h.hold(two, nil, one, "v1", "n1", "1")
		h.watch(cds, other)
		s.RecvType(cds)
		h.respond(s, cds, "v2", "n2",
			value("xdstp://two/"+cluster+"/abc/d%2fe?b=2&a=0&a=1", "v2", "2"), value(known, "v2", "3"), value(other, "v2", "4"))
		h.expectNACK(s, cds, "v1", "n2", []string{known, other}, "appears 2 times")
		if got := h.state(cds, known); got.Resource != "1" || got.State != ads.StateNacked {
			h.t.Errorf("state %+v, want what was in force", got)
		}
		if got := h.state(cds, other); got.Resource != "4" {
			h.t.Errorf("state %+v", got)
		}
		w.expect(h.t, "ambient appears 2 times")
		h.respond(s, cds, "v3", "n3", value(one, "v3", "5"), value(other, "v3", "4"))
		h.expectACK(s, cds, "v3", "n3", known, other)
		w.expect(h.t, "changed 5")
	})
}

func TestX94_CloseWaitsForNoneOfTheServers(t *testing.T) {
	t.Parallel()
	bothSharing(t, func(h *harness, second *adstest.Server) {
		h.hold(h.server, nil, given("both", "a"), "v1", "n1", "1")
		h.hold(second, nil, given("back", "b"), "v1", "n1", "2")
		h.server.Freeze()
		second.Stop()
		time.Sleep(3 * time.Second)
		h.watch(cds, given("both", "new"))
		h.watch(cds, given("back", "new"))
		begun := time.Now()
		if err := h.client.Close(); err != nil {
			h.t.Error(err)
		}
		if took := time.Since(begun); took > 0 {
			h.t.Errorf("Close took %v", took)
		}
	})
}
