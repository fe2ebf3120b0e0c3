package ads_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/discovery/xds/internal/ads"
	"github.com/inboardmesh/inboard/internal/adstest"
)

func TestX01_NodeIsOnTheFirstRequestOfEachStream(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		h.watch(cds, "a")
		s := h.server.Accept()
		first := s.Recv()
		if first.Node.GetId() != "node-1" || first.Node.GetUserAgentName() != "inboard" {
			h.t.Errorf("first request %v, want the node", first)
		}
		for _, feature := range []string{"xds.config.resource-in-sotw", "xds.config.supports-resource-ttl"} {
			if !slices.Contains(first.Node.GetClientFeatures(), feature) {
				h.t.Errorf("client features %q, want %q", first.Node.GetClientFeatures(), feature)
			}
		}
		h.watch(eds, "b")
		if second := s.RecvType(eds); second.Node != nil {
			h.t.Errorf("second request %v, want no node", second)
		}
		h.respond(s, cds, "v1", "n1", "a=1")
		if ack := s.RecvType(cds); ack.Node != nil {
			h.t.Errorf("ACK %v, want no node", ack)
		}
		s.End(nil)
		s = h.server.Accept()
		if again := s.Recv(); again.Node.GetId() != "node-1" {
			h.t.Errorf("first request of the second stream %v, want the node", again)
		}
	})
}

func TestX02_FirstSubscriptionHasNoVersionAndNoNonce(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		for _, name := range []string{"b", "a", "c"} {
			h.watch(cds, name)
		}
		s := h.server.Accept()
		all := []string{"a", "b", "c"}
		h.expectSubscribe(s, cds, "", "", all, all)
		s.ExpectNone(time.Second)
	})
}

func TestX03_ValidResponseIsAcknowledgedOnce(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		s, w := h.start(cds, "a")
		h.respond(s, cds, "v1", "n1", "a=1")
		h.expectACK(s, cds, "v1", "n1", "a")
		s.ExpectNone(time.Minute)
		w.expect(h.t, "changed 1")
	})
}

func TestX03_EachOfManyResponsesIsAcknowledged(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		s, w := h.start(cds, "a")
		for i := range 50 {
			h.respond(s, cds, fmt.Sprintf("v%d", i), fmt.Sprintf("n%d", i), fmt.Sprintf("a=%d", i))
		}
		for i := range 50 {
			h.expectACK(s, cds, fmt.Sprintf("v%d", i), fmt.Sprintf("n%d", i), "a")
		}
		s.ExpectNone(time.Minute)
		if events := w.take(); len(events) != 50 || events[49].value != "49" {
			h.t.Errorf("events %q", events)
		}
	})
}

func TestX04_InvalidResponseIsRejectedWithTheLastGoodVersion(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		s, w := h.startWith(cds, "a", "1")
		h.respond(s, cds, "v2", "n2", "a=!no such policy")
		h.expectNACK(s, cds, "v1", "n2", []string{"a"}, `resource 0 "a": invalid: no such policy`)
		w.expect(h.t, `ambient Cluster "a": version "v2" is rejected: invalid: no such policy`)
		if got := h.state(cds, "a"); got.State != ads.StateNacked || got.Version != "v1" || got.Resource != "1" || got.RejectedVersion != "v2" {
			h.t.Errorf("state %+v", got)
		}
	})
}

func TestX05_InvalidFirstResponseIsRejectedWithoutAVersion(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		s, w := h.start(cds, "a")
		h.respond(s, cds, "v1", "n1", "a=!bad")
		h.expectNACK(s, cds, "", "n1", []string{"a"}, `"a"`)
		if events := w.expect(h.t, "error invalid: bad"); notFound(events) {
			h.t.Error("an invalid resource must not be taken for one that does not exist")
		}
	})
}

func TestX06_ValidResponseAfterARejectionClearsTheError(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		s, w := h.startWith(cds, "a", "1")
		h.respond(s, cds, "v2", "n2", "a=!bad")
		h.expectNACK(s, cds, "v1", "n2", []string{"a"})
		h.respond(s, cds, "v3", "n3", "a=3")
		h.expectACK(s, cds, "v3", "n3", "a")
		w.expect(h.t, "ambient bad", "changed 3")
		if got := h.state(cds, "a"); got.State != ads.StateAcked || got.Err != nil || got.RejectedVersion != "" || got.Version != "v3" {
			h.t.Errorf("state %+v", got)
		}
		late := h.watch(cds, "a")
		late.expect(h.t, "changed 3")
	})
}

func TestX06_ReturnToTheOldBytesClearsTheError(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		s, w := h.startWith(cds, "a", "1")
		h.respond(s, cds, "v2", "n2", "a=!bad")
		h.expectNACK(s, cds, "v1", "n2", []string{"a"})
		h.respond(s, cds, "v1", "n3", "a=1")
		h.expectACK(s, cds, "v1", "n3", "a")
		w.expect(h.t, "ambient bad", "changed 1")
	})
}

func TestX07_SubscriptionWhileRejectedIsNoSecondRejection(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		s, _ := h.startWith(cds, "a", "1")
		h.respond(s, cds, "v2", "n2", "a=!bad")
		h.expectNACK(s, cds, "v1", "n2", []string{"a"})
		h.watch(cds, "b")
		h.expectSubscribe(s, cds, "v1", "n2", []string{"a", "b"}, []string{"b"})
	})
}

func TestX08_VersionsAndNoncesOfTypesDoNotMix(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		h.watch(lds, "l")
		h.watch(cds, "c")
		s := h.server.Accept()
		h.expectSubscribe(s, lds, "", "", []string{"l"}, []string{"l"})
		h.expectSubscribe(s, cds, "", "", []string{"c"}, []string{"c"})
		h.respond(s, lds, "7", "n7", "l=1")
		h.expectACK(s, lds, "7", "n7", "l")
		h.respond(s, cds, "2", "n2", "c=1")
		h.expectACK(s, cds, "2", "n2", "c")
		h.watch(lds, "l2")
		h.expectSubscribe(s, lds, "7", "n7", []string{"l", "l2"}, []string{"l2"})
		h.respond(s, cds, "3", "n3", "c=!bad")
		h.expectNACK(s, cds, "2", "n3", []string{"c"})
		h.watch(lds, "l3")
		h.expectSubscribe(s, lds, "7", "n7", []string{"l", "l2", "l3"}, []string{"l3"})
	})
}

func TestX09_AcknowledgementCarriesTheWholeListAfterACrossing(t *testing.T) {
	t.Parallel()
	sotw(t, func(h *harness) {
		s, _ := h.startWith(eds, "a", "1")
		// The subscription of b leaves while the next response is on its way,
		// so that the server drops it for its stale nonce.
		h.watch(eds, "b")
		h.expectSubscribe(s, eds, "v1", "n1", []string{"a", "b"}, nil)
		h.respond(s, eds, "v2", "n2", "a=2")
		h.expectACK(s, eds, "v2", "n2", "a", "b")
	})
}

func TestX10_UnansweredRequestIsNotRepeated(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		s, w := h.start(cds, "a")
		s.ExpectNone(14 * time.Second)
		w.expect(h.t)
		s.ExpectNone(time.Hour)
		h.server.ExpectNoStream(time.Hour)
		// A second watcher of the same name adds nothing to the request.
		h.watch(cds, "a")
		s.ExpectNone(time.Hour)
	})
}

func TestX11_VersionsAreOpaque(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		s, w := h.startWith(cds, "a", "1")
		h.respond(s, cds, "v1", "n2", "a=2")
		h.expectACK(s, cds, "v1", "n2", "a")
		h.respond(s, cds, "", "n3", "a=3")
		h.expectACK(s, cds, "", "n3", "a")
		h.respond(s, cds, "v0", "n4", "a=4")
		h.expectACK(s, cds, "v0", "n4", "a")
		w.expect(h.t, "changed 2", "changed 3", "changed 4")
	})
}

func TestX12_IdenticalResourceIsAcknowledgedAndNotTold(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		s, w := h.startWith(cds, "a", "1")
		for i := range 3 {
			version, nonce := fmt.Sprintf("w%d", i), fmt.Sprintf("m%d", i)
			h.respond(s, cds, version, nonce, "a=1")
			h.expectACK(s, cds, version, nonce, "a")
		}
		w.expect(h.t)
	})
}

func TestX12_IdenticalResourceIsNotDecodedAgain(t *testing.T) {
	t.Parallel()
	decoded := 0
	sotw(t, func(h *harness) {
		s, _ := h.startWith(cds, "a", "1")
		h.respond(s, cds, "v2", "n2", "a=1")
		h.expectACK(s, cds, "v2", "n2", "a")
		synctest.Wait()
		if decoded != 1 {
			h.t.Errorf("decoded %d times, want once", decoded)
		}
	}, func(o *ads.Options) {
		o.Types[2].Decode = func(b []byte) (string, any, error) {
			decoded++
			return decodeText(b)
		}
	})
}

func TestX13_UnaskedResourcesAreIgnored(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		s, w := h.start(cds, "a")
		h.respond(s, cds, "v1", "n1", "a=1", "b=1", "c=!bad")
		h.expectACK(s, cds, "v1", "n1", "a")
		w.expect(h.t, "changed 1")
		if got := h.client.Dump(); len(got) != 1 {
			h.t.Errorf("dump %+v, want a alone", got)
		}
		// What was ignored is not in the cache either.
		b := h.watch(cds, "b")
		b.expect(h.t)
		h.expectSubscribe(s, cds, "v1", "n1", []string{"a", "b"}, []string{"b"})
	})
}

func TestX13_UnaskedResourcesAreNotDecodedIfTheirNameIsKnown(t *testing.T) {
	t.Parallel()
	decoded := 0
	delta(t, func(h *harness) {
		s, _ := h.start(cds, "a")
		h.respond(s, cds, "v1", "n1", "b=1", "a=1", "c=1")
		h.expectACK(s, cds, "", "n1")
		synctest.Wait()
		if decoded != 1 {
			h.t.Errorf("decoded %d resources, want 1", decoded)
		}
	}, func(o *ads.Options) {
		o.Types[2].Decode = func(b []byte) (string, any, error) {
			decoded++
			return decodeText(b)
		}
	})
}

func TestX14_ResponseOfAForeignTypeIsIgnored(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		s, w := h.start(cds, "a")
		h.respond(s, eds, "v1", "n1", "a=1")
		h.respond(s, "type.googleapis.com/unknown.Type", "v1", "n2", "a=1")
		s.ExpectNone(10 * time.Second)
		h.respond(s, cds, "v1", "n3", "a=1")
		h.expectACK(s, cds, "v1", "n3", "a")
		w.expect(h.t, "changed 1")
	})
}

func TestX15_SecondSubscriptionKeepsTheFirst(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		s, _ := h.start(cds, "a")
		h.watch(cds, "b")
		h.expectSubscribe(s, cds, "", "", []string{"a", "b"}, []string{"b"})
	})
}

func TestX16_ResponseAfterUnsubscribingIsAcknowledgedAndNotDelivered(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		s, w := h.start(cds, "a")
		w.cancel()
		h.expectUnsubscribe(s, cds, "", "", nil, []string{"a"})
		h.respond(s, cds, "v1", "n1", "a=1")
		h.expectACK(s, cds, "v1", "n1")
		w.expect(h.t)
		if got := h.client.Dump(); len(got) != 0 {
			h.t.Errorf("dump %+v, want nothing", got)
		}
	})
}

// The nonce is kept on purpose. Servers answer a request only if it carries the
// nonce of their latest response (go-control-plane's sotw server, for one), and
// would ignore a subscription that came without.
func TestX17_LastUnsubscriptionSendsAnEmptyListAndForgetsTheVersion(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		h.watch(cds, "keep")
		s := h.server.Accept()
		s.RecvType(cds)
		w := h.watch(eds, "a")
		h.expectSubscribe(s, eds, "", "", []string{"a"}, []string{"a"})
		h.respond(s, eds, "v1", "n1", "a=1")
		h.expectACK(s, eds, "v1", "n1", "a")
		w.expect(h.t, "changed 1") // or it may be cancelled before it hears of it
		w.cancel()
		h.expectUnsubscribe(s, eds, "v1", "n1", nil, []string{"a"})
		again := h.watch(eds, "a")
		h.expectSubscribe(s, eds, "", "n1", []string{"a"}, []string{"a"})
		again.expect(h.t)
		h.respond(s, eds, "v1", "n2", "a=1")
		h.expectACK(s, eds, "v1", "n2", "a")
		again.expect(h.t, "changed 1")
		w.expect(h.t)
	})
}

func TestX18_WatchWithoutAStreamIsRequestedAsSoonAsThereIsOne(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		h.server.Stop()
		w := h.watch(cds, "a")
		time.Sleep(3 * time.Second)
		h.watch(cds, "b")
		w.expect(h.t, `error Cluster "a": xDS server "xds.test" is unavailable`)
		h.server.Restart()
		s := h.server.Accept()
		h.expectSubscribe(s, cds, "", "", []string{"a", "b"}, []string{"a", "b"})
	})
}

func TestX19_WildcardIsAnEmptyListUntilANameIsSent(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		all := h.watch(cds, ads.Wildcard)
		s := h.server.Accept()
		h.expectSubscribe(s, cds, "", "", nil, nil)
		h.respond(s, cds, "v1", "n1", "a=1", "b=1")
		h.expectACK(s, cds, "v1", "n1")
		all.expect(h.t, "changed 1", "changed 1")
		a := h.watch(cds, "a")
		a.expect(h.t, "changed 1")
		h.expectSubscribe(s, cds, "v1", "n1", []string{"*", "a"}, []string{"a"})
		a.cancel()
		h.expectUnsubscribe(s, cds, "v1", "n1", []string{"*"}, []string{"a"})
		if len(h.client.Dump()) != 2 {
			h.t.Errorf("dump %+v, want a and b", h.client.Dump())
		}
		h.watch(cds, "b")
		h.expectSubscribe(s, cds, "v1", "n1", []string{"*", "b"}, []string{"b"})
		all.cancel()
		h.expectUnsubscribe(s, cds, "v1", "n1", []string{"b"}, []string{"*"})
		if got := h.client.Dump(); len(got) != 1 || got[0].Name != "b" {
			h.t.Errorf("dump %+v, want b alone", got)
		}
	})
}

func TestX19_WildcardThatIsGivenUpAloneIsNamedFirst(t *testing.T) {
	t.Parallel()
	sotw(t, func(h *harness) {
		h.watch(eds, "keep")
		all := h.watch(cds, ads.Wildcard)
		s := h.server.Accept()
		s.RecvType(eds)
		h.expectSubscribe(s, cds, "", "", nil, nil)
		h.respond(s, cds, "v1", "n1", "a=1")
		h.expectACK(s, cds, "v1", "n1")
		synctest.Wait() // the watcher hears of it beside the ACK
		all.cancel()
		h.expectUnsubscribe(s, cds, "v1", "n1", []string{"*"}, nil)
		h.expectUnsubscribe(s, cds, "", "n1", nil, nil)
		h.respond(s, cds, "v2", "n2", "a=2")
		h.expectACK(s, cds, "v2", "n2")
		all.expect(h.t, "changed 1")
		if got := h.client.Dump(); len(got) != 1 {
			h.t.Errorf("dump %+v, want the endpoints alone", got)
		}
	})
}

func TestX19_WildcardHearsOfRemovalsAndRejectionsByName(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		all := h.watch(cds, ads.Wildcard)
		s := h.server.Accept()
		s.RecvType(cds)
		h.respond(s, cds, "v1", "n1", "a=1", "b=1")
		h.expectACK(s, cds, "v1", "n1")
		all.take()
		h.respond(s, cds, "v2", "n2", "a=1", "b=!bad", "c=!worse")
		h.expectNACK(s, cds, "v1", "n2", nil, `"b": invalid: bad`, `"c": invalid: worse`)
		all.expect(h.t, `ambient Cluster "b"`, `error Cluster "c"`)
		h.respond(s, cds, "v3", "n3", "a=1", "removed:b", "removed:c")
		h.expectACK(s, cds, "v3", "n3")
		if events := all.take(); len(events) != 2 || events[0].kind != "error" || !notFound(events[:1]) || !notFound(events[1:]) {
			h.t.Errorf("events %q, want b and c to be gone", events)
		}
		if got := h.client.Dump(); len(got) != 1 || got[0].Name != "a" {
			h.t.Errorf("dump %+v, want a alone", got)
		}
	})
}

func TestX20_TypesGoInTheOrderOfTheFirstWatchOnOneStream(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		order := []string{lds, rds, cds, eds}
		for _, typeURL := range order {
			h.watch(typeURL, "x")
		}
		s := h.server.Accept()
		for _, typeURL := range order {
			s.RecvType(typeURL)
		}
		h.server.ExpectNoStream(time.Minute)
		s.End(status.Error(codes.Unavailable, "restart"))
		s = h.server.Accept()
		for _, typeURL := range order {
			s.RecvType(typeURL)
		}
	})
}

func TestX82_X83_X84_DeltaSendsWhatItHoldsOnceAfterAReconnect(t *testing.T) {
	t.Parallel()
	delta(t, func(h *harness) {
		for _, name := range []string{"a", "b", "c"} {
			h.watch(cds, name)
		}
		s := h.server.Accept()
		// X82: the first stream of all has nothing to tell.
		if first := s.RecvType(cds); first.InitialVersions != nil {
			h.t.Errorf("first request %v, want no versions", first)
		}
		s.Send(adstest.DeltaResponse(cds, "n1", text(cds, "a", "va", "1"), text(cds, "b", "vb", "1")))
		h.expectACK(s, cds, "", "n1")
		s.Send(adstest.DeltaResponse(cds, "n2", text(cds, "b", "vb2", "!bad")))
		h.expectNACK(s, cds, "", "n2", nil)
		s.End(nil)

		// X83: accepted versions only.
		s = h.server.Accept()
		first := s.RecvType(cds)
		if fmt.Sprint(first.InitialVersions) != "map[a:va b:vb]" || !slices.Equal(first.Subscribe, []string{"a", "b", "c"}) {
			h.t.Errorf("first request %v, want every subscription and the accepted versions", first)
		}
		// X84: a later subscription has no nonce and no versions.
		h.watch(cds, "d")
		if later := s.RecvType(cds); later.Nonce != "" || later.InitialVersions != nil || !slices.Equal(later.Subscribe, []string{"d"}) {
			h.t.Errorf("later request %v", later)
		}
	})
}

func TestX85_DeltaRejectionLeavesWhatIsHeld(t *testing.T) {
	t.Parallel()
	delta(t, func(h *harness) {
		s, w := h.startWith(eds, "a", "1")
		h.respond(s, eds, "v2", "n2", "a=!bad")
		h.expectNACK(s, eds, "", "n2", nil, `"a": invalid: bad`)
		if got := h.state(eds, "a"); got.Version != "v1" || got.Resource != "1" {
			h.t.Errorf("state %+v", got)
		}
		w.expect(h.t, "ambient bad")
	})
}

func TestX86_DeltaRemovalOfSomethingUnknownIsAcknowledged(t *testing.T) {
	t.Parallel()
	delta(t, func(h *harness) {
		s, w := h.startWith(eds, "a", "1")
		h.respond(s, eds, "v2", "n2", "removed:zzz")
		h.expectACK(s, eds, "", "n2")
		w.expect(h.t)
	})
}

func TestX88_SubscribingAgainAcceptsTheSameVersion(t *testing.T) {
	t.Parallel()
	delta(t, func(h *harness) {
		h.watch(cds, "keep")
		w := h.watch(cds, "a")
		s := h.server.Accept()
		s.RecvType(cds)
		h.respond(s, cds, "v1", "n1", "a=1")
		h.expectACK(s, cds, "", "n1")
		w.cancel()
		h.expectUnsubscribe(s, cds, "", "", nil, []string{"a"})
		again := h.watch(cds, "a")
		h.expectSubscribe(s, cds, "", "", nil, []string{"a"})
		h.respond(s, cds, "v1", "n2", "a=1")
		h.expectACK(s, cds, "", "n2")
		again.expect(h.t, "changed 1")
	})
}

func TestX88_SubscribingAgainBeforeTheServerHeardKeepsTheValue(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		s, w := h.startWith(cds, "a", "1")
		again := new(recorder)
		// Inside a callback nothing is sent between the two.
		w.on = func() {
			w.cancel()
			again.cancel = h.client.Watch(cds, "a", again)
		}
		h.respond(s, cds, "v2", "n2", "a=2")
		h.expectACK(s, cds, "v2", "n2", "a")
		w.expect(h.t, "changed 2")
		if h.state(cds, "a").Resource != "2" {
			h.t.Errorf("state %+v", h.state(cds, "a"))
		}
		for _, e := range again.take() {
			if e.kind != "changed" {
				h.t.Errorf("event %q", e)
			}
		}
	})
}

func text(typeURL, name, version, value string) *discoveryv3.Resource {
	return &discoveryv3.Resource{Name: name, Version: version, Resource: packed(typeURL, name+"="+value)}
}
