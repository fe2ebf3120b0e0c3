package ads_test

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/discovery/xds/internal/ads"
	"github.com/inboardmesh/inboard/internal/adstest"
)

const cluster = "envoy.config.cluster.v3.Cluster"

// federated adds the authorities "one" (the same server as for names without
// one), "two" (a server of its own) and "three" (that server again).
func federated(t *testing.T, deltaMode bool) (h *harness, two *adstest.Server) {
	t.Helper()
	two = adstest.Start(t, adstest.Config{Address: "two.test"})
	h = newHarness(t, deltaMode, func(o *ads.Options) {
		server := ads.ServerConfig{Name: "two.test", Dial: two.Dial, Mode: o.Servers[0].Mode}
		o.Authorities = map[string][]ads.ServerConfig{"one": nil, "two": {server}, "three": {server}}
	})
	return h, two
}

func withAuthorities(t *testing.T, test func(h *harness, two *adstest.Server)) {
	t.Helper()
	for _, deltaMode := range []bool{false, true} {
		name := "state of the world"
		if deltaMode {
			name = "delta"
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { test(federated(t, deltaMode)) })
		})
	}
}

func TestX92_ContextParametersHaveNoOrder(t *testing.T) {
	t.Parallel()
	withAuthorities(t, func(h *harness, two *adstest.Server) {
		const (
			asked = "xdstp://two/" + cluster + "/payment?b=2&a=0&a=1"
			known = "xdstp://two/" + cluster + "/payment?a=1&b=2"
			sent  = "xdstp://two/" + cluster + "/payment?b=2&a=1"
		)
		w := h.watch(cds, asked)
		again := h.watch(cds, sent)
		s := two.Accept()
		h.expectSubscribe(s, cds, "", "", []string{known}, []string{known})
		h.respond(s, cds, "v1", "n1", adstest.Resource(sent, "v1", packed(cds, "ignored=1")))
		h.expectACK(s, cds, "v1", "n1", known)
		w.expect(h.t, "changed 1")
		again.expect(h.t, "changed 1")
		if got := h.state(cds, known); got.Version != "v1" {
			h.t.Errorf("state %+v", got)
		}
		s.ExpectNone(time.Minute)
	})
}

func TestX93_NamesThatCannotBeAskedForAreErrorsAtOnce(t *testing.T) {
	t.Parallel()
	withAuthorities(t, func(h *harness, two *adstest.Server) {
		for name, want := range map[string]string{
			"xdstp://nobody/" + cluster + "/a":            `error the bootstrap has no authority "nobody"`,
			"xdstp:///" + cluster + "/a":                  `error the bootstrap has no authority ""`,
			"xdstp://two/envoy.config.core.v3.Node/a":     `error the resource name is of the type "envoy.config.core.v3.Node", not of "` + cluster + `"`,
			"xdstp://two/" + cluster:                      `error the resource name is not of the form`,
			"xdstp://two/" + cluster + "/a#x":             `error the resource name has a fragment`,
			"xdstp:two/" + cluster + "/a":                 `error the resource name does not begin with "xdstp://AUTHORITY/"`,
			"xdstp://two/" + cluster + "/a?b=%zz":         `error the context parameters`,
			"xdstp://two/" + cluster + "/%zz":             `error the resource name is no URI`,
			"xdstp://me@two/" + cluster + "/a":            `error the resource name has user information`,
			"xdstp://two/x/" + strings.Repeat("a", 1<<17): `error the resource name is longer than`,
		} {
			h.watch(cds, name).expect(h.t, want)
		}
		two.ExpectNoStream(time.Minute)
		h.server.ExpectNoStream(time.Second)
	})
}

func TestX94_AuthoritiesOfOneServerShareItsChannelWhichOpensWhenItIsNeeded(t *testing.T) {
	t.Parallel()
	withAuthorities(t, func(h *harness, two *adstest.Server) {
		s := h.watchAndAccept(h.server, "a", "xdstp://one/"+cluster+"/a")
		two.ExpectNoStream(time.Minute)
		s.ExpectNone(time.Second)

		other := h.watchAndAccept(two, "xdstp://two/"+cluster+"/a", "xdstp://three/"+cluster+"/a")
		other.ExpectNone(time.Minute)
		for _, server := range []*adstest.Server{h.server, two} {
			if n := len(server.Connects()); n != 1 {
				h.t.Errorf("%d connections, want 1", n)
			}
		}
	})
}

// watchAndAccept watches two clusters, one after the other, and answers.
func (h *harness) watchAndAccept(server *adstest.Server, first, second string) *adstest.Stream {
	h.t.Helper()
	w := h.watch(cds, first)
	s := server.Accept()
	h.expectSubscribe(s, cds, "", "", []string{first}, []string{first})
	h.respond(s, cds, "v1", "n1", adstest.Resource(first, "v1", packed(cds, "ignored=1")))
	h.expectACK(s, cds, "v1", "n1", first)
	w.expect(h.t, "changed 1")
	w = h.watch(cds, second)
	both := slices.Sorted(slices.Values([]string{first, second}))
	h.expectSubscribe(s, cds, "v1", "n1", both, []string{second})
	h.respond(s, cds, "v2", "n2", adstest.Resource(first, "v1", packed(cds, "ignored=1")), adstest.Resource(second, "v2", packed(cds, "ignored=2")))
	h.expectACK(s, cds, "v2", "n2", both...)
	w.expect(h.t, "changed 2")
	return s
}

func TestX95_ACollectionShowsWhatIsInIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h, two := federated(t, true)
		const (
			all   = "xdstp://two/" + cluster + "/shop/*?a=1"
			one   = "xdstp://two/" + cluster + "/shop/one?a=1"
			other = "xdstp://two/" + cluster + "/shop/two?a=1"
		)
		w := h.watch(cds, all)
		s := two.Accept()
		h.expectSubscribe(s, cds, "", "", nil, []string{all})
		h.respond(s, cds, "v1", "n1",
			adstest.Resource(one, "v1", packed(cds, "x=1")),
			adstest.Resource(other, "v1", packed(cds, "x=2")),
			adstest.Resource("xdstp://two/"+cluster+"/shop/deep/er?a=1", "v1", packed(cds, "x=3")),
			adstest.Resource("xdstp://two/"+cluster+"/shop/one", "v1", packed(cds, "x=4")),
			adstest.Resource("plain", "v1", packed(cds, "x=5")))
		h.expectACK(s, cds, "v1", "n1")
		w.expect(t, "changed 1", "changed 2")
		if n := len(h.client.Dump()); n != 2 {
			t.Errorf("%d resources are known, want those of the collection", n)
		}
		// A later watcher sees what is known.
		late := h.watch(cds, all)
		if events := late.take(); len(events) != 2 {
			t.Errorf("events %q", events)
		}
		h.respond(s, cds, "v2", "n2", "removed:"+one, adstest.Resource(other, "v2", packed(cds, "x=!bad")))
		h.expectNACK(s, cds, "", "n2", nil, other)
		w.take()
		if n := len(h.client.Dump()); n != 2 {
			t.Errorf("%d resources are known after a rejected response", n)
		}
		h.respond(s, cds, "v3", "n3", "removed:"+one)
		h.expectACK(s, cds, "v3", "n3")
		w.expect(t, "error removed")

		h.respond(s, cds, "v4", "n4", "removed:"+all)
		h.expectACK(s, cds, "v4", "n4")
		if events := w.take(); len(events) != 2 || !notFound(events) {
			t.Errorf("events %q, want that nothing is left", events)
		}
		if n := len(h.client.Dump()); n != 0 {
			t.Errorf("%d resources are known", n)
		}
		h.respond(s, cds, "v5", "n5", adstest.Resource(one, "v5", packed(cds, "x=5")))
		h.expectACK(s, cds, "v5", "n5")
		w.expect(t, "changed 5")

		w.cancel()
		late.cancel()
		h.expectUnsubscribe(s, cds, "", "", nil, []string{all})
		if n := len(h.client.Dump()); n != 0 {
			t.Errorf("%d resources are known after the last watch", n)
		}
	})
}

func TestX95_AnEmptyCollectionDoesNotExist(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h, two := federated(t, true)
		const all = "xdstp://two/" + cluster + "/*"
		w := h.watch(cds, all)
		s := two.Accept()
		h.expectSubscribe(s, cds, "", "", nil, []string{all})
		h.respond(s, cds, "v1", "n1", "removed:"+all)
		h.expectACK(s, cds, "v1", "n1")
		if events := w.take(); len(events) != 1 || !notFound(events) {
			t.Errorf("events %q, want that there is nothing", events)
		}
	})
}

func TestX95_ACollectionNeedsDelta(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h, two := federated(t, false)
		name := "xdstp://two/" + cluster + "/one"
		s := func() *adstest.Stream {
			h.watch(cds, name)
			s := two.Accept()
			h.expectSubscribe(s, cds, "", "", []string{name}, nil)
			h.respond(s, cds, "v1", "n1", adstest.Resource(name, "v1", packed(cds, "x=1")))
			h.expectACK(s, cds, "v1", "n1", name)
			return s
		}()
		w := h.watch(cds, "xdstp://two/"+cluster+"/*")
		s.ExpectNone(time.Minute)
		w.expect(t, "changed 1", "error need the delta variant")
	})
}

func TestLosingOneAuthorityLeavesTheOthersAlone(t *testing.T) {
	t.Parallel()
	withAuthorities(t, func(h *harness, two *adstest.Server) {
		plain := h.watch(cds, "a")
		h.server.Accept()
		far := h.watch(cds, "xdstp://two/"+cluster+"/a")
		two.Accept()
		two.Stop()
		time.Sleep(3 * time.Second)
		if events := far.take(); len(events) == 0 || events[0].kind != "error" {
			h.t.Errorf("events %q, want that the server is away", events)
		}
		plain.expect(h.t)
	})
}
