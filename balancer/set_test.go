package balancer

import (
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"unsafe"

	"github.com/inboardmesh/inboard/internal/racing"
)

func TestUpdateKeepsHostsByAddress(t *testing.T) {
	t.Parallel()
	var attached []string
	s := NewSet(Config{}, func(h *Host) any {
		attached = append(attached, h.Endpoint().Address)
		return "state of " + h.Endpoint().Address
	})
	zone := func(z string, addresses ...string) LocalityEndpoints {
		l := LocalityEndpoints{Locality: Locality{Region: "r", Zone: z}}
		for _, a := range addresses {
			l.Endpoints = append(l.Endpoints, Endpoint{Address: a, Weight: uint32(len(attached) + 1)})
		}
		return l
	}
	added, removed := s.Update(Config{}, []LocalityEndpoints{zone("x", "a", "b", "c")})
	if got := names(added); !slices.Equal(got, []string{"a", "b", "c"}) || len(removed) != 0 {
		t.Fatalf("added %v, removed %v", got, names(removed))
	}
	b := hostAt(t, s, "b")
	b.Begin()
	b.SetReachable(false)

	added, removed = s.Update(Config{}, []LocalityEndpoints{zone("x", "d", "a"), zone("y", "b", "a")})
	if !slices.Equal(names(added), []string{"d"}) || !slices.Equal(names(removed), []string{"c"}) {
		t.Errorf("added %v, removed %v, want d and c", names(added), names(removed))
	}
	if got := names(slices.Collect(s.Hosts())); !slices.Equal(got, []string{"d", "a", "b"}) || s.Len() != 3 {
		t.Errorf("hosts %v and Len %d, want d, a and b: the second a does not count", got, s.Len())
	}
	if hostAt(t, s, "b") != b || b.Active() != 1 || b.Reachable() {
		t.Error("b lost what was known about it")
	}
	if got := b.Locality().Zone; got != "y" {
		t.Errorf("b is in zone %q, want its new one, y", got)
	}
	if got := b.Endpoint().Weight; got != 4 {
		t.Errorf("b has weight %d, want its new one, 4", got)
	}
	if got := b.Attached(); got != "state of b" {
		t.Errorf("b has %v attached", got)
	}
	if !slices.Equal(attached, []string{"a", "b", "c", "d"}) {
		t.Errorf("attached to %v, want to each host once", attached)
	}

	c := removed[0]
	if c.Endpoint().Address != "c" {
		t.Errorf("the removed host is %q now", c.Endpoint().Address)
	}
	_, removed = s.Update(Config{}, nil)
	if len(removed) != 3 || s.Len() != 0 {
		t.Errorf("%d removed, %d left, want 3 and 0", len(removed), s.Len())
	}
	added, _ = s.Update(Config{}, []LocalityEndpoints{zone("x", "c")})
	if len(added) != 1 || added[0] == c {
		t.Error("an address that comes back is not a new host")
	}
}

func names(hosts []*Host) []string {
	var list []string
	for _, h := range hosts {
		list = append(list, h.Endpoint().Address)
	}
	return list
}

// Random updates leave the same hosts as a map would.
func TestUpdateAgreesWithAMap(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(seed, 1))
	t.Logf("seed %d", seed)
	s := NewSet(Config{}, nil)
	known := make(map[string]*Host)
	for range 300 {
		localities := make([]LocalityEndpoints, 1+random.IntN(4))
		want := make(map[string]bool)
		for _, i := range random.Perm(40)[:random.IntN(40)] {
			l := &localities[random.IntN(len(localities))]
			l.Endpoints = append(l.Endpoints, Endpoint{Address: address(i), Weight: random.Uint32N(3)})
			want[address(i)] = true
		}
		for i := range localities {
			localities[i].Priority = random.Uint32N(3)
			localities[i].Weight = random.Uint32N(3)
		}
		cfg := Config{Policy: Policy(random.IntN(3)), LocalityWeighted: random.IntN(2) == 0, PanicThreshold: 50}
		added, removed := s.Update(cfg, localities)
		for _, h := range added {
			if known[h.Endpoint().Address] != nil {
				t.Fatalf("%q was added twice", h.Endpoint().Address)
			}
			known[h.Endpoint().Address] = h
		}
		for _, h := range removed {
			if known[h.Endpoint().Address] != h || want[h.Endpoint().Address] {
				t.Fatalf("%q was removed wrongly", h.Endpoint().Address)
			}
			delete(known, h.Endpoint().Address)
		}
		if len(known) != len(want) || s.Len() != len(want) {
			t.Fatalf("%d hosts, %d by its reports, want %d", s.Len(), len(known), len(want))
		}
		for h := range s.Hosts() {
			if known[h.Endpoint().Address] != h || !want[h.Endpoint().Address] {
				t.Fatalf("host %q is not the one known", h.Endpoint().Address)
			}
		}
		for range 20 {
			if h, err := s.Pick(PickInfo{}); err == nil && known[h.Endpoint().Address] != h {
				t.Fatalf("picked %q, which is not in the set", h.Endpoint().Address)
			}
		}
	}
}

func TestHostCounts(t *testing.T) {
	t.Parallel()
	s := seededSet(t, Config{}, weighted(1))
	h := hostAt(t, s, address(0))
	h.Begin()
	h.Begin()
	h.End()
	if got := h.Active(); got != 1 {
		t.Errorf("%d active, want 1", got)
	}
	h.End()
	defer func() {
		if got := recover(); got != "balancer: Host.End without Begin" {
			t.Errorf("End without Begin panicked with %v", got)
		}
	}()
	h.End()
}

func TestHostFitsACacheLine(t *testing.T) {
	t.Parallel()
	if size := unsafe.Offsetof(Host{}.began); size > 64 {
		t.Errorf("a host has %d bytes, want at most 64", size)
	}
	if size := unsafe.Sizeof(cursor{}); size != 64 {
		t.Errorf("a cursor has %d bytes, want a cache line of 64", size)
	}
}

func TestPickAllocatesNothing(t *testing.T) {
	for _, c := range policyCases {
		for _, weightedLocalities := range []bool{false, true} {
			cfg := c.config
			cfg.LocalityWeighted = weightedLocalities
			s := NewSet(cfg, nil)
			s.Update(cfg, []LocalityEndpoints{
				{Weight: 1, Locality: Locality{Zone: "x"}, Endpoints: endpoints(100, c.weight)},
				{Weight: 2, Locality: Locality{Zone: "y"}, Endpoints: []Endpoint{{Address: "y"}, {Address: "z"}}},
			})
			hostAt(t, s, "y").SetReachable(false)
			avoid := []*Host{hostAt(t, s, address(0)), hostAt(t, s, "z")}
			if n := testing.AllocsPerRun(1000, func() {
				if _, err := s.Pick(PickInfo{Avoid: avoid}); err != nil {
					t.Error(err)
				}
			}); n != 0 {
				t.Errorf("%s, weighted localities %v: %v allocations per pick, want 0", c.name, weightedLocalities, n)
			}
		}
	}
}

func TestConcurrentPickAndUpdate(t *testing.T) {
	t.Parallel()
	for _, c := range policyCases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := NewSet(c.config, func(h *Host) any { return h.Endpoint().Address })
			version := func(i int) []LocalityEndpoints {
				list := endpoints(50, c.weight)
				return []LocalityEndpoints{{Endpoints: list[:20+i%10]}, {Priority: uint32(i % 2), Endpoints: list[25+i%5:]}}
			}
			s.Update(c.config, version(0))
			var done atomic.Bool
			var wg sync.WaitGroup
			for range 4 {
				wg.Go(func() {
					var avoid []*Host
					for i := 0; !done.Load(); i++ {
						h, err := s.Pick(PickInfo{Avoid: avoid})
						if err != nil {
							t.Error(err)
							return
						}
						h.Begin()
						if h.Attached() != h.Endpoint().Address {
							t.Errorf("host %q has %v attached", h.Endpoint().Address, h.Attached())
						}
						h.SetReachable(i%3 != 0)
						_ = h.Locality()
						avoid = append(avoid[:0], h)
						h.End()
					}
				})
			}
			updates := 200
			if racing.Enabled {
				updates = 40
			}
			for i := range updates {
				s.Update(c.config, version(i))
				for range s.Hosts() {
					_ = s.Len()
				}
			}
			done.Store(true)
			wg.Wait()
			for h := range s.Hosts() {
				if h.Active() != 0 {
					t.Errorf("%q has %d requests in flight at the end", h.Endpoint().Address, h.Active())
				}
			}
		})
	}
}

func TestLocalityString(t *testing.T) {
	t.Parallel()
	for want, l := range map[string]Locality{
		"":      {},
		"r":     {Region: "r"},
		"r/z":   {Region: "r", Zone: "z"},
		"r/z/s": {Region: "r", Zone: "z", SubZone: "s"},
		"//s":   {SubZone: "s"},
	} {
		if got := l.String(); got != want {
			t.Errorf("%+v is %q, want %q", l, got, want)
		}
	}
}
