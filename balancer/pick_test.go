package balancer

import (
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
)

func TestAvoidedHostsAreNotPickedWhileThereIsAnother(t *testing.T) {
	t.Parallel()
	for _, c := range policyCases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := seededSet(t, c.config, LocalityEndpoints{Endpoints: endpoints(30, c.weight)})
			var avoid []*Host
			for range 30 {
				h := mustPick(t, s, avoid...)
				if slices.Contains(avoid, h) {
					t.Fatalf("pick %d is %q, which was to be avoided", len(avoid)+1, h.Endpoint().Address)
				}
				avoid = append(avoid, h)
			}
			mustPick(t, s, avoid...)
		})
	}
}

func TestAvoidGoesToAnotherLocalityOrPriorityWithTraffic(t *testing.T) {
	t.Parallel()
	t.Run("locality", func(t *testing.T) {
		t.Parallel()
		s := seededSet(t, Config{LocalityWeighted: true}, partly("X", 0, 1000, 1, 1, Healthy), partly("Y", 0, 1, 1, 1, Healthy))
		x, y := hostAt(t, s, "X-0"), hostAt(t, s, "Y-0")
		for range 50 {
			if h := mustPick(t, s, x); h != y {
				t.Fatalf("picked %q, want Y", h.Endpoint().Address)
			}
		}
	})
	t.Run("not a priority without traffic", func(t *testing.T) {
		t.Parallel()
		s := seededSet(t, Config{}, partly("p0", 0, 1, 1, 1, Healthy), partly("p1", 1, 1, 1, 1, Healthy))
		first := hostAt(t, s, "p0-0")
		if h := mustPick(t, s, first); h != first {
			t.Errorf("picked %q, want the only host of the first priority again", h.Endpoint().Address)
		}
	})
}

func TestReachableHostsArePreferred(t *testing.T) {
	t.Parallel()
	for _, c := range policyCases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := seededSet(t, c.config, LocalityEndpoints{Endpoints: endpoints(300, c.weight)})
			only := hostAt(t, s, address(150))
			for h := range s.Hosts() {
				h.SetReachable(h == only)
			}
			for range 100 {
				if h := mustPick(t, s); h != only {
					t.Fatalf("picked %q, which is not reachable", h.Endpoint().Address)
				}
			}
			// A reachable host that failed is better than an unreachable one.
			if h := mustPick(t, s, only); h != only {
				t.Errorf("picked %q, which is not reachable", h.Endpoint().Address)
			}
			only.SetReachable(false)
			got := counts(t, s, 600, byAddress)
			if len(got) < 2 {
				t.Errorf("with no host reachable all picks went to %v, want them spread", got)
			}
			// The first search found nothing and said so; it must not be believed
			// for longer than it is true.
			only.SetReachable(true)
			for range 100 {
				if h := mustPick(t, s); h != only {
					t.Fatalf("picked %q, want the host that has become reachable", h.Endpoint().Address)
				}
			}
		})
	}
}

func TestUnreachableHostsAreReplacedByOtherPriorities(t *testing.T) {
	t.Parallel()
	p2 := partly("p2", 2, 1, 3, 3, Healthy)
	degraded := partly("d", 0, 1, 1, 1, Degraded)
	s := seededSet(t, Config{}, partly("p0", 0, 1, 6, 6, Healthy), degraded, p2)
	down := func(zone string) {
		for h := range s.Hosts() {
			if h.Locality().Zone == zone {
				h.SetReachable(false)
			}
		}
	}
	for _, zone := range []string{"p0", "p2", "d"} {
		if got := counts(t, s, 60, byZone); got[zone] != 60 {
			t.Errorf("picks %v, want all in %s", got, zone)
		}
		down(zone)
	}
	if got := counts(t, s, 60, byZone); got["p0"] != 60 {
		t.Errorf("with nothing reachable picks %v, want all in p0", got)
	}
	for range 20 {
		first := mustPick(t, s)
		if second := mustPick(t, s, first); second == first {
			t.Fatal("with nothing reachable the avoided host was picked again")
		}
	}
	hostAt(t, s, "p0-3").SetReachable(true)
	if got := counts(t, s, 60, byAddress); got["p0-3"] != 60 {
		t.Errorf("picks %v, want all at the reachable host", got)
	}
}

func TestRoundRobinGoesAroundThoughNothingIsReachable(t *testing.T) {
	t.Parallel()
	// Nine turns are taken for the first pick, so nine hosts would show it if
	// every pick did so.
	s := seededSet(t, Config{}, LocalityEndpoints{Endpoints: endpoints(9, equalWeights)})
	for h := range s.Hosts() {
		h.SetReachable(false)
	}
	mustPick(t, s)
	for address, n := range counts(t, s, 90, byAddress) {
		if n != 10 {
			t.Errorf("%q has %d of 90 picks, want 10", address, n)
		}
	}
}

func TestASearchThatFindsNothingIsNotRepeated(t *testing.T) {
	t.Parallel()
	s := seededSet(t, Config{}, LocalityEndpoints{Endpoints: endpoints(1000, equalWeights)})
	for h := range s.Hosts() {
		h.SetReachable(false)
	}
	mustPick(t, s)
	g := s.snapshot.Load().choices[0].groups[0]
	if got, want := g.exhausted.Load(), s.revivals.Load(); got != want {
		t.Fatalf("after a search in vain the note says %d, want %d", got, want)
	}
	// With the note the hosts are not looked at.
	search := search{revivals: s.revivals.Load(), random: func() uint64 { t.Error("searched again"); return 0 }}
	if h := search.in(g, &PickInfo{}); h != nil {
		t.Errorf("found %q", h.Endpoint().Address)
	}
	hostAt(t, s, address(7)).SetReachable(false) // no change
	if got, want := g.exhausted.Load(), s.revivals.Load(); got != want {
		t.Error("telling the same again made the note void")
	}
}

func TestAHostThatLeftStaysValid(t *testing.T) {
	t.Parallel()
	// A host that left may still be picked by a call that loaded the snapshot
	// before: it must stay valid.
	s := NewSet(Config{}, nil)
	s.Update(Config{}, []LocalityEndpoints{weighted(1, 1)})
	old := s.snapshot.Load()
	_, removed := s.Update(Config{}, nil)
	if len(removed) != 2 {
		t.Fatalf("%d hosts left, want 2", len(removed))
	}
	h := s.draw(old, query{}, Part{}).pick(query{})
	h.Begin()
	h.SetReachable(false)
	h.SetReachable(true)
	h.End()
	if h.Endpoint().Address == "" {
		t.Error("a host that left has no address")
	}
}

func TestRandomNumbersMayBeExtreme(t *testing.T) {
	t.Parallel()
	var r atomic.Uint64
	for _, c := range policyCases {
		for _, n := range []int{1, 2, 3, 30} {
			s := newSet(c.config, nil, r.Load)
			for _, x := range []uint64{0, 1<<32 - 1, 1<<64 - 1, 1 << 63} {
				r.Store(x)
				s.Update(c.config, []LocalityEndpoints{
					{Endpoints: endpoints(n, c.weight)},
					{Priority: 1, Endpoints: []Endpoint{{Address: "b"}, {Address: "c", Health: Unhealthy}}},
				})
				for range 3 {
					mustPick(t, s)
				}
			}
		}
	}
}

func TestAPreferredLocalityIsPickedWhileItCanBe(t *testing.T) {
	t.Parallel()
	here, there := Locality{Zone: "here"}, Locality{Zone: "there"}
	for _, weighted := range []bool{false, true} {
		s := seededSet(t, Config{LocalityWeighted: weighted},
			LocalityEndpoints{Locality: there, Weight: 99, Endpoints: endpoints(30, equalWeights)},
			LocalityEndpoints{Locality: here, Weight: 1, Endpoints: []Endpoint{{Address: "a:1"}, {Address: "b:1"}}})
		pick := func() Locality {
			h, err := s.Pick(PickInfo{Prefer: &here})
			if err != nil {
				t.Fatal(err)
			}
			return h.Locality()
		}
		for range 100 {
			if got := pick(); got != here {
				t.Fatalf("weighted %t: picked in %v", weighted, got)
			}
		}
		for h := range s.Hosts() {
			h.SetReachable(h.Locality() != here)
		}
		if got := pick(); got != there {
			t.Errorf("weighted %t: picked in %v, where nothing is reachable", weighted, got)
		}
		elsewhere := Locality{Zone: "nowhere"}
		if _, err := s.Pick(PickInfo{Prefer: &elsewhere}); err != nil {
			t.Errorf("weighted %t: %v", weighted, err)
		}
	}
}

func TestWhatIsEmptyInAPreferredLocalityStandsForAny(t *testing.T) {
	t.Parallel()
	places := []Locality{{}, {"eu", "", ""}, {"eu", "a", ""}, {"eu", "b", "1"}, {"us", "a", ""}, {"us", "a", "1"}}
	all := make([]LocalityEndpoints, len(places))
	for i := range places {
		all[i] = LocalityEndpoints{Locality: places[i], Endpoints: []Endpoint{{Address: fmt.Sprintf("10.0.0.%d:80", i)}}}
	}
	s := seededSet(t, Config{}, all...)
	for _, c := range []struct {
		prefer Locality
		want   []Locality
	}{
		{Locality{Region: "eu"}, places[1:4]},
		{Locality{Region: "eu", Zone: "b"}, places[3:4]},
		{Locality{Region: "us", Zone: "a"}, places[4:6]},
		{Locality{Region: "us", Zone: "a", SubZone: "1"}, places[5:6]},
		{Locality{SubZone: "1"}, []Locality{places[3], places[5]}},
		{Locality{Region: "asia"}, places}, // and each has its turn, although nothing is preferred
	} {
		picked := make(map[Locality]bool)
		for range 200 {
			h, err := s.Pick(PickInfo{Prefer: &c.prefer})
			if err != nil {
				t.Fatal(err)
			}
			picked[h.Locality()] = true
		}
		candidates, err := s.CandidatesFor(&PickInfo{Prefer: &c.prefer})
		if err != nil || len(candidates) != len(c.want) {
			t.Errorf("prefer %q: %d candidates, %v", c.prefer, len(candidates), err)
		}
		for _, there := range c.want {
			if !picked[there] {
				t.Errorf("prefer %q: never picked in %q", c.prefer, there)
			}
			delete(picked, there)
		}
		if len(picked) > 0 {
			t.Errorf("prefer %q: picked in %v", c.prefer, picked)
		}
	}
}
