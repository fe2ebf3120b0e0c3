package ads_test

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/inboardmesh/inboard/discovery/xds/internal/ads"
	"github.com/inboardmesh/inboard/internal/adstest"
	"github.com/inboardmesh/inboard/observe"
)

func TestX53_GoodResourcesOfARejectedResponseAreUsed(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		s, a := h.startWith(cds, "a", "1")
		b := h.watch(cds, "b")
		s.RecvType(cds)
		h.respond(s, cds, "v2", "n2", "a=1", "b=1")
		h.expectACK(s, cds, "v2", "n2", "a", "b")
		b.expect(h.t, "changed 1")
		h.respond(s, cds, "v3", "n3", "a=3", "b=!bad")
		h.expectNACK(s, cds, "v2", "n3", []string{"a", "b"}, `rejected 1 of 2 resources: resource 1 "b": invalid: bad`)
		a.expect(h.t, "changed 3")
		b.expect(h.t, "ambient bad")
		if got := h.state(cds, "a"); got.State != ads.StateAcked || got.Version != "v3" || got.Resource != "3" {
			h.t.Errorf("a is %+v", got)
		}
		got := h.state(cds, "b")
		if got.State != ads.StateNacked || got.Version != "v2" || got.Resource != "1" || got.RejectedVersion != "v3" || !strings.Contains(got.Err.Error(), "invalid: bad") {
			h.t.Errorf("b is %+v", got)
		}
	})
}

func TestX54_EveryErrorIsListed(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		for _, name := range []string{"a", "b", "c"} {
			h.watch(cds, name)
		}
		s := h.server.Accept()
		s.RecvType(cds)
		h.respond(s, cds, "v1", "n1", "a=!first", "b=1", "c=!second", "garbage")
		h.expectNACK(s, cds, "", "n1", []string{"a", "b", "c"},
			"rejected 3 of 4", `resource 0 "a": invalid: first`, `resource 2 "c": invalid: second`, `resource 3: "garbage" cannot be parsed`)
	})
}

func TestX54_DetailIsBoundedAndValidUTF8(t *testing.T) {
	t.Parallel()
	sotw(t, func(h *harness) {
		h.watch(cds, "a")
		s := h.server.Accept()
		s.RecvType(cds)
		var resources []any
		for i := range 500 {
			resources = append(resources, fmt.Sprintf("a%d=!%s\xff", i, strings.Repeat("é", 1000)))
		}
		for i := range 500 {
			h.watch(cds, fmt.Sprintf("a%d", i))
		}
		synctest.Wait()
		s.Pending()
		h.respond(s, cds, "v1", "n1", resources...)
		r := s.RecvType(cds)
		message := r.Error.GetMessage()
		if len(message) > 300<<10 || !utf8.ValidString(message) || !strings.Contains(message, "more)") {
			h.t.Errorf("detail of %d bytes, ends in %q", len(message), message[max(0, len(message)-40):])
		}
	})
}

func TestX55_OneUndecodableResourceDoesNotDisturbTheOthers(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		const count = 9999
		all := h.watch(cds, ads.Wildcard)
		s := h.server.Accept()
		s.RecvType(cds)
		resources := make([]any, 0, count+1)
		for i := range count {
			resources = append(resources, fmt.Sprintf("c%d=%d", i, i))
		}
		resources = append(resources[:7000:7000], append([]any{"garbage"}, resources[7000:]...)...)
		h.respond(s, cds, "v1", "n1", resources...)
		h.expectNACK(s, cds, "", "n1", nil, "rejected 1 of 10000 resources: resource 7000: ")
		if got := len(all.take()); got != count {
			h.t.Errorf("%d resources were used, want %d", got, count)
		}
	})
}

func TestX56_DuplicateNamesAreRejectedAndTheOthersUsed(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		s, a := h.startWith(cds, "a", "1")
		b := h.watch(cds, "b")
		s.RecvType(cds)
		h.respond(s, cds, "v2", "n2", "a=2", "b=2", "a=3")
		h.expectNACK(s, cds, "v1", "n2", []string{"a", "b"}, `resource 0 "a": the name appears 2 times in one response (indexes [0 2])`)
		a.expect(h.t, "ambient appears 2 times")
		b.expect(h.t, "changed 2")
		if got := h.state(cds, "a"); got.Resource != "1" || got.Rejections != 1 {
			h.t.Errorf("a is %+v, want the last good version and one rejection", got)
		}
		// Even if both are the same.
		h.respond(s, cds, "v3", "n3", "a=1", "a=1", "b=2")
		h.expectNACK(s, cds, "v1", "n3", []string{"a", "b"}, "appears 2 times")
		// And even if nobody asked for them.
		h.respond(s, cds, "v4", "n4", "a=1", "b=2", "z=1", "z=2")
		h.expectNACK(s, cds, "v1", "n4", []string{"a", "b"}, `"z": the name appears 2 times`)
	})
}

// A name that is there very often costs no more than as many names: the reasons
// must not hold all indexes each.
func TestManyEntriesOfOneNameAreRejectedCheaply(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		s, a := h.startWith(cds, "a", "1")
		const times = 5000
		entries := make([]any, times)
		for i := range entries {
			entries[i] = "a=2"
		}
		h.respond(s, cds, "v2", "n2", entries...)
		h.expectNACK(s, cds, "v1", "n2", []string{"a"}, "the name appears 5000 times in one response (indexes [0 1 2 3 4 5 6 7 8 9], ...)")
		for _, e := range a.expect(h.t, "ambient appears 5000 times") {
			if n := len(e.err.Error()); n > 200 { // and so 5000 times
				h.t.Errorf("a reason has %d bytes", n)
			}
		}
	})
}

func TestX57_InnerTypeMustMatchTheResponse(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		s, w := h.startWith(cds, "a", "1")
		var wrong any = adstest.Any(packed(rds, "a=2"))
		if h.delta {
			wrong = &discoveryv3.Resource{Name: "a", Version: "v2", Resource: packed(rds, "a=2")}
		}
		h.respond(s, cds, "v2", "n2", wrong)
		h.expectNACK(s, cds, "v1", "n2", []string{"a"}, fmt.Sprintf("type %q does not match the message-wide type URL %q", rds, cds))
		h.respond(s, cds, "v3", "n3", "a=3")
		h.expectACK(s, cds, "v3", "n3", "a")
		if events := w.take(); len(events) == 0 || events[len(events)-1].value != "3" {
			h.t.Errorf("events %q", events)
		}
	})
}

func TestX58_WrappedResourcesAreUnwrappedAndTheWrappersNameWins(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		s, w := h.start(lds, "outer")
		h.respond(s, lds, "v1", "n1", &discoveryv3.Resource{Name: "outer", Version: "w1", Resource: packed(lds, "inner=1")})
		h.expectACK(s, lds, "v1", "n1", "outer")
		w.expect(h.t, "changed 1")
		if got := h.state(lds, "outer"); got.Version != "w1" {
			h.t.Errorf("state %+v, want the wrapper's version", got)
		}
		// An identical one is recognised under the wrapper's name.
		h.respond(s, lds, "v2", "n2", &discoveryv3.Resource{Name: "outer", Version: "w1", Resource: packed(lds, "inner=1")})
		h.expectACK(s, lds, "v2", "n2", "outer")
		w.expect(h.t)
	})
}

func TestX58_BrokenWrapperIsRejected(t *testing.T) {
	t.Parallel()
	sotw(t, func(h *harness) {
		s, w := h.startWith(lds, "a", "1")
		h.respond(s, lds, "v2", "n2", packed("type.googleapis.com/envoy.service.discovery.v3.Resource", "\xff\xff"))
		h.expectNACK(s, lds, "v1", "n2", []string{"a"}, "resource 0: unwrap type.googleapis.com/envoy.service.discovery.v3.Resource")
		h.respond(s, lds, "v3", "n3", &discoveryv3.Resource{})
		h.expectNACK(s, lds, "v1", "n3", []string{"a"}, "resource 0: resource: not set, and there is no name")
		w.expect(h.t)
	})
}

func TestX61_PanicOfADecoderIsARejection(t *testing.T) {
	t.Parallel()
	for _, deltaMode := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var told atomic.Int64
			h := newHarness(t, deltaMode, func(o *ads.Options) {
				o.Hooks.ResourceRejected = func(e observe.ResourceEvent) {
					if strings.Contains(e.Err.Error(), "panicked") {
						told.Add(1)
					}
				}
			})
			s, w := h.startWith(cds, "a", "1")
			h.respond(s, cds, "v2", "n2", "a=panic")
			h.expectNACK(s, cds, "v1", "n2", []string{"a"}, "the decoder panicked: boom")
			synctest.Wait()
			if n := told.Swap(0); n != 1 {
				t.Errorf("%d rejections were told to those who count, want 1", n)
			}
			if got := h.state(cds, "a"); got.Resource != "1" {
				t.Errorf("state %+v, want the last good version", got)
			}
			h.respond(s, cds, "v3", "n3", "a=3")
			h.expectACK(s, cds, "v3", "n3", "a")
			if events := w.take(); len(events) == 0 || events[len(events)-1].value != "3" {
				t.Errorf("events %q", events)
			}
		})
	}
}

func TestX62_NewWatcherGetsTheCachedValueAndThenTheError(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		s, w := h.startWith(cds, "a", "1")
		h.respond(s, cds, "v2", "n2", "a=!bad")
		h.expectNACK(s, cds, "v1", "n2", []string{"a"})
		w.expect(h.t, "ambient bad")
		late := h.watch(cds, "a")
		late.expect(h.t, "changed 1", "ambient bad")
		w.expect(h.t)
	})
}

func TestX63_FailOnDataErrorsDropsTheCachedValue(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		s, w := h.startWith(cds, "a", "1")
		h.respond(s, cds, "v2", "n2", "a=!bad")
		h.expectNACK(s, cds, "v1", "n2", []string{"a"})
		if notFound(w.expect(h.t, "error bad")) {
			h.t.Error("an invalid resource must not be taken for one that does not exist")
		}
		late := h.watch(cds, "a")
		late.expect(h.t, "error bad")
		h.respond(s, cds, "v3", "n3", "a=1")
		h.expectACK(s, cds, "v3", "n3", "a")
		w.expect(h.t, "changed 1")
		late.expect(h.t, "changed 1")
	}, failOnDataErrors)
}

func TestX64_X32_IdenticalRejectionIsToldOnceAndItsRateIsBounded(t *testing.T) {
	t.Parallel()
	for _, deltaMode := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var mu sync.Mutex
			var rejected []observe.ResourceEvent
			h := newHarness(t, deltaMode, func(o *ads.Options) {
				o.Hooks.ResourceRejected = func(e observe.ResourceEvent) {
					mu.Lock()
					defer mu.Unlock()
					rejected = append(rejected, e)
				}
			})
			s, w := h.startWith(cds, "a", "1")
			start := time.Now()
			for i := range 1000 {
				version, nonce := fmt.Sprintf("v%d", i+2), fmt.Sprintf("m%d", i)
				h.respond(s, cds, version, nonce, "a=!bad")
				h.expectNACK(s, cds, "v1", nonce, []string{"a"}, "bad")
			}
			if got := time.Since(start); got < 85*time.Second || got > 95*time.Second {
				t.Errorf("1000 rejections took %v, want 90 s: 100 at once, then 10 a second", got)
			}
			w.expect(t, "ambient bad")
			if got := h.state(cds, "a"); got.Rejections != 1000 || got.RejectedVersion != "v1001" {
				t.Errorf("state %+v", got)
			}
			mu.Lock()
			if len(rejected) != 1 || rejected[0].Name != "a" || rejected[0].Type != "Cluster" || rejected[0].Version != "v2" || rejected[0].Server != "xds.test" {
				t.Errorf("hook was told %+v, want one rejection of a", rejected)
			}
			mu.Unlock()
			// Another error is news.
			h.respond(s, cds, "v2000", "n2000", "a=!worse")
			w.expect(t, "ambient worse")
		})
	}
}

func TestX32_ChangesAreNotSlowedDown(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		s, w := h.start(cds, "a")
		start := time.Now()
		for i := range 1000 {
			h.respond(s, cds, fmt.Sprint(i), fmt.Sprint(i), fmt.Sprintf("a=%d", i))
			h.expectACK(s, cds, fmt.Sprint(i), fmt.Sprint(i), "a")
		}
		if got := time.Since(start); got != 0 {
			h.t.Errorf("1000 changes took %v", got)
		}
		if events := w.take(); len(events) != 1000 {
			h.t.Errorf("%d events", len(events))
		}
	})
}

func TestAcceptedAndUnreadableResourcesAreReported(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var events []string
		note := func(kind string) func(observe.ResourceEvent) {
			return func(e observe.ResourceEvent) {
				mu.Lock()
				defer mu.Unlock()
				events = append(events, fmt.Sprintf("%s %s %q %s %v", kind, e.Type, e.Name, e.Version, e.Err))
			}
		}
		h := newHarness(t, false, func(o *ads.Options) {
			o.Hooks.ResourceAccepted = note("accepted")
			o.Hooks.ResourceRejected = note("rejected")
		})
		s, _ := h.startWith(cds, "a", "1")
		h.respond(s, cds, "v2", "n2", "a=1")
		h.respond(s, cds, "v3", "n3", "a=3", "garbage")
		h.respond(s, cds, "v4", "n4", "a=3", "garbage")
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		want := []string{
			`accepted Cluster "a" v1 <nil>`,
			`accepted Cluster "a" v3 <nil>`,
			`rejected Cluster "" v3 rejected 1 of 2 resources: resource 1: "garbage" cannot be parsed`,
		}
		if strings.Join(events, "\n") != strings.Join(want, "\n") {
			t.Errorf("events %q, want %q", events, want)
		}
	})
}
