package ads_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/discovery/xds/internal/ads"
	"github.com/inboardmesh/inboard/internal/adstest"
)

// pair is a client with a second server to fall back to.
type pair struct {
	*harness
	second *adstest.Server
}

// withTwo runs a test with each variant and two servers.
func withTwo(t *testing.T, test func(*pair), setups ...setup) {
	t.Helper()
	for _, deltaMode := range []bool{false, true} {
		name := "state of the world"
		if deltaMode {
			name = "delta"
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { test(newPair(t, deltaMode, setups...)) })
		})
	}
}

func newPair(t *testing.T, delta bool, setups ...setup) *pair {
	second := adstest.Start(t, adstest.Config{Address: "second.test"})
	return &pair{second: second, harness: newHarness(t, delta, append([]setup{func(o *ads.Options) {
		o.Servers = append(o.Servers, ads.ServerConfig{Name: "second.test", Dial: second.Dial, Mode: o.Servers[0].Mode})
	}}, setups...)...)}
}

// lose stops the primary and waits until the client has noticed.
func (p *pair) lose() {
	p.server.Stop()
	time.Sleep(3 * time.Second)
}

// toSecond is a client that has fallen back: "a" came from the primary, "b" was
// wanted later; the second has sent both.
func (p *pair) toSecond() (s *adstest.Stream, a, b *recorder) {
	p.t.Helper()
	_, a = p.startWith(cds, "a", "1")
	p.lose()
	b = p.watch(cds, "b")
	s = p.second.Accept()
	p.expectSubscribe(s, cds, "", "", []string{"a", "b"}, []string{"a", "b"})
	p.respond(s, cds, "s1", "m1", "a=from second", "b=from second")
	p.expectACK(s, cds, "s1", "m1", "a", "b")
	b.expect(p.t, "changed from second")
	return s, a, b
}

func TestX96_TheSecondServerIsUsedIfTheFirstIsAwayAtTheStart(t *testing.T) {
	t.Parallel()
	withTwo(t, func(p *pair) {
		p.server.Stop()
		start := time.Now()
		w := p.watch(cds, "a")
		s := p.second.Accept()
		if took := time.Since(start); took > time.Second {
			p.t.Errorf("asked after %v", took)
		}
		p.expectSubscribe(s, cds, "", "", []string{"a"}, []string{"a"})
		p.respond(s, cds, "v1", "n1", "a=1")
		p.expectACK(s, cds, "v1", "n1", "a")
		w.expect(p.t, "changed 1")
	})
}

func TestX97_WithEverythingCachedThereIsNoFallback(t *testing.T) {
	t.Parallel()
	withTwo(t, func(p *pair) {
		_, w := p.startWith(cds, "a", "1")
		p.server.Stop()
		p.second.ExpectNoStream(5 * time.Minute)
		w.expect(p.t, "ambient is unavailable")
		if n := len(p.second.Connects()); n != 0 {
			p.t.Errorf("%d connections to the second server", n)
		}
	})
}

func TestX98_ALostServerWithSomethingUncachedIsReplacedForAllNames(t *testing.T) {
	t.Parallel()
	t.Run("something wanted before the loss", func(t *testing.T) {
		t.Parallel()
		withTwo(t, func(p *pair) {
			s, a := p.startWith(cds, "a", "1")
			b := p.watch(eds, "b")
			p.expectSubscribe(s, eds, "", "", []string{"b"}, []string{"b"})
			p.server.Stop()
			second := p.second.Accept()
			p.expectSubscribe(second, cds, "", "", []string{"a"}, []string{"a"})
			p.expectSubscribe(second, eds, "", "", []string{"b"}, []string{"b"})
			p.respond(second, eds, "s1", "m1", "b=2")
			p.expectACK(second, eds, "s1", "m1", "b")
			b.expect(p.t, "changed 2")
			a.expect(p.t)
			if got := p.state(cds, "a"); got.Resource != "1" || got.State != ads.StateAcked {
				p.t.Errorf("a is %v %v", got.Resource, got.State)
			}
		})
	})
	t.Run("something wanted after the loss", func(t *testing.T) {
		t.Parallel()
		withTwo(t, func(p *pair) {
			_, a, _ := p.toSecond()
			// "a" was told that nobody could be reached, and then that the
			// second server has another version.
			events := a.take()
			if len(events) == 0 || events[len(events)-1].value != "from second" {
				p.t.Errorf("events %q, want the second server's version", events)
			}
		})
	})
}

func TestX29_VersionsBelongToTheServer(t *testing.T) {
	t.Parallel()
	withTwo(t, func(p *pair) {
		p.toSecond() // checks that the second server gets no version
		p.server.Restart()
		s := p.server.Accept()
		// The first server is asked for everything: what it sends shows that it
		// is back.
		r := p.expectSubscribe(s, cds, "", "", []string{"a", "b"}, []string{"a", "b"})
		if len(r.InitialVersions) != 0 {
			p.t.Errorf("initial versions %v, want none", r.InitialVersions)
		}
	})
}

func TestX99_ThePreferredServerIsReturnedToWithItsFirstResource(t *testing.T) {
	t.Parallel()
	withTwo(t, func(p *pair) {
		second, a, b := p.toSecond()
		a.take()
		p.server.Restart()
		first := p.server.Accept()
		p.expectSubscribe(first, cds, "", "", []string{"a", "b"}, []string{"a", "b"})
		// Both are heard until the first one sends something.
		p.respond(second, cds, "s2", "m2", "a=2", "b=from second")
		p.expectACK(second, cds, "s2", "m2", "a", "b")
		a.expect(p.t, "changed 2")
		if n := p.second.Open(); n != 1 {
			p.t.Errorf("%d connections to the second server before the first one has sent anything", n)
		}

		p.respond(first, cds, "v2", "n2", "a=3", "b=3")
		p.expectACK(first, cds, "v2", "n2", "a", "b")
		synctest.Wait()
		if n := p.second.Open(); n != 0 {
			p.t.Errorf("%d connections to the second server", n)
		}
		a.expect(p.t, "changed 3")
		b.expect(p.t, "changed 3")
		p.second.ExpectNoStream(5 * time.Minute)
		first.ExpectNone(time.Minute)

		// Once more, for nothing of the first time may be left.
		p.lose()
		a.expect(p.t, "ambient is unavailable")
		c := p.watch(cds, "c")
		second = p.second.Accept()
		p.expectSubscribe(second, cds, "", "", []string{"a", "b", "c"}, []string{"a", "b", "c"})
		p.respond(second, cds, "s1", "m1", "c=1")
		p.expectACK(second, cds, "s1", "m1", "a", "b", "c")
		c.expect(p.t, "changed 1")
		a.expect(p.t, "changed 3") // the error is over
	})
}

func TestX99_ARejectedResourceIsNoReturn(t *testing.T) {
	t.Parallel()
	withTwo(t, func(p *pair) {
		second, a, _ := p.toSecond()
		a.take()
		p.server.Restart()
		first := p.server.Accept()
		p.expectSubscribe(first, cds, "", "", []string{"a", "b"}, []string{"a", "b"})
		p.respond(first, cds, "v2", "n2", "a=!bad")
		p.expectNACK(first, cds, "", "n2", []string{"a", "b"}, `"a"`, "bad")
		a.expect(p.t, "ambient bad")
		p.respond(second, cds, "s2", "m2", "a=2", "b=2")
		p.expectACK(second, cds, "s2", "m2", "a", "b")
		a.expect(p.t, "changed 2")
	})
}

func TestX100_WatchersHearOfALossWhenNoServerIsLeft(t *testing.T) {
	t.Parallel()
	withTwo(t, func(p *pair) {
		p.second.Stop()
		s, w := p.start(cds, "a")
		p.server.Stop()
		s.Pending()
		events := w.take()
		time.Sleep(5 * time.Second)
		events = append(events, w.take()...)
		if len(events) == 0 {
			p.t.Fatal("nothing was told")
		}
		for _, event := range events { // the reason may change
			if event.kind != "error" || status.Code(event.err) != codes.Unavailable ||
				!strings.Contains(event.err.Error(), `"xds.test"`) || !strings.Contains(event.err.Error(), `"second.test"`) {
				p.t.Errorf("event %q, want that neither server is there", event)
			}
		}
		p.second.Restart()
		second := p.second.Accept()
		p.expectSubscribe(second, cds, "", "", []string{"a"}, []string{"a"})
		p.respond(second, cds, "v1", "n1", "a=1")
		w.expect(p.t, "changed 1")
	})
}

func TestWhatThePreferredServerGaveIsNotTakenAwayByAnother(t *testing.T) {
	t.Parallel()
	withTwo(t, func(p *pair) {
		_, a := p.startWith(cds, "a", "1")
		p.lose()
		b := p.watch(cds, "b")
		s := p.second.Accept()
		p.expectSubscribe(s, cds, "", "", []string{"a", "b"}, []string{"a", "b"})
		p.respond(s, cds, "s1", "m1", "b=1", "removed:a") // the state of the world leaves it out
		p.expectACK(s, cds, "s1", "m1", "a", "b")
		b.expect(p.t, "changed 1")
		if got := p.state(cds, "a"); got.Resource != "1" || got.State != ads.StateAcked {
			p.t.Errorf("a is %v, %v", got.Resource, got.State)
		}
		// It is the preferred one's to say.
		a.take()
		p.server.Restart()
		first := p.server.Accept()
		p.expectSubscribe(first, cds, "", "", []string{"a", "b"}, []string{"a", "b"})
		p.respond(first, cds, "v2", "n2", "b=2", "removed:a")
		p.expectACK(first, cds, "v2", "n2", "a", "b")
		a.expect(p.t, "error removed")
	}, func(o *ads.Options) {
		for i := range o.Servers {
			o.Servers[i].FailOnDataErrors = true
		}
	})
}

func TestASilentServerIsWaitedForAfterAReturnAsWell(t *testing.T) {
	t.Parallel()
	withTwo(t, func(p *pair) {
		second, _, _ := p.toSecond()
		c := p.watch(eds, "c")
		p.expectSubscribe(second, eds, "", "", []string{"c"}, []string{"c"})
		time.Sleep(5 * time.Second)
		p.server.Restart()
		first := p.server.Accept()
		p.expectSubscribe(first, cds, "", "", []string{"a", "b"}, []string{"a", "b"})
		p.expectSubscribe(first, eds, "", "", []string{"c"}, []string{"c"})
		p.respond(first, cds, "v2", "n2", "a=3", "b=3")
		p.expectACK(first, cds, "v2", "n2", "a", "b")
		time.Sleep(16 * time.Second)
		c.expect(p.t, "error did not answer within 15s")
	})
}

// A server that spoke delta is replaced by one that does not. What is held stays
// in force, and the versions of the one variant are not told to the other.
func TestNothingIsLostWhenAServerStopsSpeakingDelta(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		config := adstest.Config{}
		server := adstest.Start(t, config)
		old := adstest.Start(t, adstest.Config{Address: "old.test", RefuseDelta: true})
		now := server
		h := newHarnessOn(t, server, true, func(o *ads.Options) {
			o.Servers[0].Mode = ads.ModeAuto
			o.Servers[0].Dial = func(ctx context.Context) (*grpc.ClientConn, error) { return now.Dial(ctx) }
		})
		_, w := h.startWith(cds, "a", "1")
		e := h.watch(eds, "e")
		now = old
		server.Stop()
		s := old.Accept()
		if s.Delta {
			t.Fatal("the stream is one of delta")
		}
		h.delta = false
		h.expectSubscribe(s, cds, "", "", []string{"a"}, nil)
		h.expectSubscribe(s, eds, "", "", []string{"e"}, nil)
		if got := h.state(cds, "a"); got.Resource != "1" || got.State != ads.StateAcked {
			t.Errorf("a is %v, %v", got.Resource, got.State)
		}
		h.respond(s, cds, "5", "n", "a=2")
		h.expectACK(s, cds, "5", "n", "a")
		h.respond(s, eds, "5", "n", "e=1")
		e.take()
		for _, event := range w.take() {
			if event.kind == "error" {
				t.Errorf("event %q", event)
			}
		}
		if got := h.state(cds, "a"); got.Resource != "2" {
			t.Errorf("a is %v", got.Resource)
		}
	})
}

func TestThousandFallbacksAndReturnsLeaveNothing(t *testing.T) {
	t.Parallel()
	withTwo(t, func(p *pair) {
		const rounds = 50
		w := p.watch(cds, "a")
		for round := range rounds {
			first := p.server.Accept()
			first.RecvType(cds)
			p.respond(first, cds, fmt.Sprint(round), "n", fmt.Sprintf("a=%d", round))
			first.RecvType(cds)
			p.lose()
			extra := p.watch(cds, fmt.Sprint("extra-", round))
			second := p.second.Accept()
			second.RecvType(cds)
			extra.cancel()
			p.server.Restart()
		}
		for _, event := range w.take() {
			if event.kind == "error" {
				p.t.Errorf("event %q", event)
			}
		}
		if n := len(p.client.Dump()); n > 2 {
			p.t.Errorf("%d resources are known", n)
		}
	})
}
