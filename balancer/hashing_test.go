package balancer

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"sort"
	"testing"

	"github.com/cespare/xxhash/v2"
)

// pickHash returns the address for a hash.
func pickHash(t *testing.T, s *Set, hash uint64) string {
	t.Helper()
	h, err := s.Pick(PickInfo{Hash: hash, Hashed: true})
	if err != nil {
		t.Fatalf("Pick: %v", err)
	}
	return h.Endpoint().Address
}

// keyHash is the hash of the i-th of many keys.
func keyHash(i int) uint64 { return xxhash.Sum64String(fmt.Sprintf("user-%d", i)) }

// referenceRing computes Envoy's ring from its documentation, with a sort and a
// linear search.
func referenceRing(endpoints []Endpoint, least, most float64, murmur bool) func(hash uint64) string {
	var sum, smallest float64 = 0, 1
	for i := range endpoints {
		sum += float64(max(endpoints[i].Weight, 1))
	}
	for i := range endpoints {
		smallest = min(smallest, float64(max(endpoints[i].Weight, 1))/sum)
	}
	scale := min(math.Ceil(smallest*least)/smallest, most)
	type entry struct {
		hash    uint64
		address string
	}
	var ring []entry
	var current, target float64
	for i := range endpoints {
		target += scale * float64(max(endpoints[i].Weight, 1)) / sum
		for n := 0; current < target; n++ {
			key := fmt.Sprintf("%s_%d", endpoints[i].Address, n)
			hash := xxhash.Sum64String(key)
			if murmur { // held against the original by a test of its own
				hash = murmur2([]byte(key), murmurSeed)
			}
			ring = append(ring, entry{hash, endpoints[i].Address})
			current++
		}
	}
	sort.SliceStable(ring, func(i, j int) bool { return ring[i].hash < ring[j].hash })
	return func(hash uint64) string {
		for _, e := range ring {
			if e.hash >= hash {
				return e.address
			}
		}
		return ring[0].address
	}
}

func TestBL3_RingIsEnvoys(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name      string
		config    Config
		endpoints []Endpoint
		// least and most are what the reference is computed with.
		least, most float64
	}{
		{"equal weights", Config{}, endpoints(10, equalWeights), 1024, 8 << 20},
		{"murmur", Config{RingMurmur: true}, endpoints(10, equalWeights), 1024, 8 << 20},
		{"one endpoint", Config{}, endpoints(1, equalWeights), 1024, 8 << 20},
		{"unequal weights", Config{}, endpoints(7, func(i int) uint32 { return uint32(i + 1) }), 1024, 4096},
		{"a minimum of its own", Config{MinRingSize: 16}, endpoints(5, equalWeights), 16, 8 << 20},
		{"a maximum that makes fractions", Config{MinRingSize: 4, MaxRingSize: 6}, endpoints(4, equalWeights), 4, 6},
		{"more endpoints than the minimum", Config{}, endpoints(3_000, equalWeights), 1024, 8 << 20},
		{"the cap of 4096 points", Config{MinRingSize: 1 << 20}, endpoints(10, equalWeights), 4096, 4096},
		{"more endpoints than the cap", Config{}, endpoints(6_000, equalWeights), 1024, 6_000},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.config.Policy = RingHash
			s := seededSet(t, tt.config, LocalityEndpoints{Endpoints: tt.endpoints})
			want := referenceRing(tt.endpoints, tt.least, tt.most, tt.config.RingMurmur)
			hashes := []uint64{0, 1, math.MaxUint64, math.MaxUint64 - 1, 1 << 63}
			for i := range 2_000 {
				hashes = append(hashes, keyHash(i))
			}
			for _, hash := range hashes {
				if got := pickHash(t, s, hash); got != want(hash) {
					t.Fatalf("hash %#x: got %s, want %s", hash, got, want(hash))
				}
			}
		})
	}
}

// referenceMaglev fills the table as the paper and Envoy's weights say, without
// stepping.
func referenceMaglev(endpoints []Endpoint, size uint64) []string {
	sorted := slices.Clone(endpoints)
	sort.Slice(sorted, func(i, j int) bool { return sorted[i].Address < sorted[j].Address })
	var sum, largest float64
	for i := range sorted {
		sum += float64(max(sorted[i].Weight, 1))
	}
	share := func(i int) float64 { return float64(max(sorted[i].Weight, 1)) / sum }
	for i := range sorted {
		largest = max(largest, share(i))
	}
	table := make([]string, size)
	next, target := make([]uint64, len(sorted)), make([]float64, len(sorted))
	place := func(i int) uint64 {
		seeded := xxhash.NewWithSeed(1)
		_, _ = seeded.WriteString(sorted[i].Address)
		return (xxhash.Sum64String(sorted[i].Address)%size + (seeded.Sum64()%(size-1)+1)*next[i]) % size
	}
	filled := uint64(0)
	for round := 1.0; filled < size; round++ {
		for i := 0; i < len(sorted) && filled < size; i++ {
			if round*share(i) < target[i] {
				continue
			}
			target[i] += largest
			for table[place(i)] != "" {
				next[i]++
			}
			table[place(i)] = sorted[i].Address
			next[i]++
			filled++
		}
	}
	return table
}

func TestBL5_MaglevIsEnvoys(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name      string
		size      uint64
		endpoints []Endpoint
	}{
		{"equal weights", DefaultMaglevSize, endpoints(10, equalWeights)},
		{"unequal weights", DefaultMaglevSize, endpoints(9, func(i int) uint32 { return uint32(3*i + 1) })},
		{"a small table", 13, endpoints(5, equalWeights)},
		{"more endpoints than places", 13, endpoints(40, equalWeights)},
		{"one with nearly all the weight", 5_003, endpoints(100, onlyOneHeavy)},
		{"a few with most of the weight", 5_003, endpoints(100, func(i int) uint32 { return 1 + uint32(i%50/49)*7_919*uint32(i) })},
		{"one light one among heavy ones", 5_003, endpoints(100, func(i int) uint32 { return 1 + uint32(min(i, 1))*(math.MaxUint32-1) })},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := seededSet(t, Config{Policy: Maglev, MaglevSize: tt.size}, LocalityEndpoints{Endpoints: tt.endpoints})
			want := referenceMaglev(tt.endpoints, tt.size)
			for hash := range tt.size {
				if got := pickHash(t, s, hash); got != want[hash] {
					t.Fatalf("place %d: got %s, want %s", hash, got, want[hash])
				}
			}
			slices.Reverse(tt.endpoints)
			s.Update(Config{Policy: Maglev, MaglevSize: tt.size}, []LocalityEndpoints{{Endpoints: tt.endpoints}})
			for hash := range tt.size {
				if got := pickHash(t, s, hash); got != want[hash] {
					t.Fatalf("place %d after a change of order: got %s, want %s", hash, got, want[hash])
				}
			}
		})
	}
}

// Shares that are so small that their turn never comes.
func TestBL5_SharesOfNearlyNothing(t *testing.T) {
	t.Parallel()
	config := Config{Policy: Maglev, MaglevSize: 1009, LocalityWeighted: true}
	for n := 20; n < 60; n++ {
		small, large := partly("small", 0, 1, n, n, Healthy), partly("large", 0, math.MaxUint32, n, n, Healthy)
		for i := range n {
			small.Endpoints[i].Weight, large.Endpoints[i].Weight = uint32(1+i%7), uint32(1+i%5)
		}
		small.Endpoints[0].Weight, large.Endpoints[0].Weight = math.MaxUint32, math.MaxUint32
		s := seededSet(t, config, small, large)
		got := make(map[string]int)
		for hash := range uint64(1009) {
			got[pickHash(t, s, hash)]++
		}
		if got["large-0"] < 800 || len(got) < n {
			t.Errorf("%d hosts: %d have a place, the largest has %d", 2*n, len(got), got["large-0"])
		}
	}
}

func TestBL5_TableSizesArePrime(t *testing.T) {
	t.Parallel()
	for n, want := range map[uint64]bool{0: false, 1: false, 2: true, 4: false, 65_537: true, 65_536: false, 5_000_011: true, 5_000_077: false} {
		if got := ValidMaglevSize(n); got != want {
			t.Errorf("ValidMaglevSize(%d) is %v", n, got)
		}
	}
}

// moved counts the keys that are elsewhere in a second map than in the first, of
// those whose host is still there.
func moved(before, after map[int]string, gone string) (n int) {
	for key, address := range before {
		if address != gone && after[key] != address {
			n++
		}
	}
	return n
}

// keyMap is where n keys go.
func keyMap(t *testing.T, s *Set, n int) map[int]string {
	t.Helper()
	m := make(map[int]string, n)
	for i := range n {
		m[i] = pickHash(t, s, keyHash(i))
	}
	return m
}

// The first host of ten leaves and comes back. Of the keys of the others, a ring
// moves none as long as each host keeps its number of points. Envoy's rule for a
// minimum size gives each of nine hosts 114 points instead of 103, and the new ones
// take a tenth of the others' keys. Maglev moves a few: its paper measures about as
// many as the host that left had, which is twice what is needed.
func TestBL4_OneOfTenLeavesAndReturns(t *testing.T) {
	t.Parallel()
	const keys = 10_000
	for _, tt := range []struct {
		name   string
		config Config
		most   int
	}{
		{"a ring with a point for each host", Config{Policy: RingHash, MinRingSize: 9}, 0},
		{"a ring with Envoy's minimum", Config{Policy: RingHash}, keys * 12 / 100},
		{"maglev", Config{Policy: Maglev}, keys / 10},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			all := endpoints(10, equalWeights)
			s := seededSet(t, tt.config, LocalityEndpoints{Endpoints: all})
			before := keyMap(t, s, keys)
			s.Update(tt.config, []LocalityEndpoints{{Endpoints: all[1:]}})
			n := moved(before, keyMap(t, s, keys), all[0].Address)
			t.Logf("%d of the other hosts' %d keys moved", n, keys)
			if n > tt.most {
				t.Errorf("%d keys of other hosts moved, want at most %d", n, tt.most)
			}
			s.Update(tt.config, []LocalityEndpoints{{Endpoints: all}})
			if again := keyMap(t, s, keys); !maps.Equal(again, before) {
				t.Error("the map is another one after the host has returned")
			}
		})
	}
}

// A host that cannot be reached loses its keys to hosts that are the same for
// everybody, and the others' keys stay.
func TestBL3_UnreachableHostsArePassedOver(t *testing.T) {
	t.Parallel()
	for _, policy := range []Policy{RingHash, Maglev} {
		t.Run(fmt.Sprint(policy), func(t *testing.T) {
			t.Parallel()
			config := Config{Policy: policy}
			one := seededSet(t, config, LocalityEndpoints{Endpoints: endpoints(10, equalWeights)})
			two := newSet(config, nil, func() uint64 { return 0 })
			two.Update(config, []LocalityEndpoints{{Endpoints: endpoints(10, equalWeights)}})
			before := keyMap(t, one, 2_000)
			for _, s := range []*Set{one, two} {
				hostAt(t, s, address(3)).SetReachable(false)
				hostAt(t, s, address(4)).SetReachable(false)
			}
			after := keyMap(t, one, 2_000)
			if !maps.Equal(after, keyMap(t, two, 2_000)) {
				t.Error("two clients disagree about the alternatives")
			}
			for key, was := range before {
				unreachable := was == address(3) || was == address(4)
				if now := after[key]; now == address(3) || now == address(4) || !unreachable && now != was {
					t.Fatalf("key %d went from %s to %s", key, was, now)
				}
			}
		})
	}
}

func TestBL3_AttemptsAvoidHostsThatWereTried(t *testing.T) {
	t.Parallel()
	for _, policy := range []Policy{RingHash, Maglev} {
		s := seededSet(t, Config{Policy: policy}, LocalityEndpoints{Endpoints: endpoints(5, equalWeights)})
		var tried []*Host
		for range 5 {
			h, err := s.Pick(PickInfo{Hash: keyHash(1), Hashed: true, Avoid: tried})
			if err != nil || slices.Contains(tried, h) {
				t.Fatalf("policy %d: attempt %d got %v, %v", policy, len(tried)+1, h.Endpoint().Address, err)
			}
			tried = append(tried, h)
		}
	}
}

func TestBL3_WithoutAHashTheHostIsRandom(t *testing.T) {
	t.Parallel()
	const n = 20_000
	for _, policy := range []Policy{RingHash, Maglev} {
		config := Config{Policy: policy}
		s := seededSet(t, config, LocalityEndpoints{Endpoints: endpoints(4, equalWeights)})
		// What a random hash hits are the hosts' shares of the ring, which are
		// not quite equal: 256 points each, a deviation of 1/16.
		for host, count := range counts(t, s, n, byAddress) {
			if count < n/4*8/10 || count > n/4*12/10 {
				t.Errorf("policy %d: %s got %d of %d", policy, host, count, n)
			}
		}
	}
}

func TestBL5_SharesAreEven(t *testing.T) {
	t.Parallel()
	const n = 100_000
	s := seededSet(t, Config{Policy: Maglev}, LocalityEndpoints{Endpoints: endpoints(10, equalWeights)})
	got := make(map[string]int)
	for i := range n {
		got[pickHash(t, s, keyHash(i))]++
	}
	for host, count := range got {
		if math.Abs(float64(count)-n/10) > n/10*0.05 {
			t.Errorf("%s has %d of %d keys, want a tenth within 5 %%", host, count, n)
		}
	}
}

func TestBL3_HashKeysOfEndpoints(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name     string
		endpoint Endpoint
		config   Config
		want     string
	}{
		{"the address", Endpoint{Address: "10.0.0.1:80", Hostname: "a"}, Config{}, "10.0.0.1:80"},
		{"the host name", Endpoint{Address: "10.0.0.1:80", Hostname: "a"}, Config{HashHostnames: true}, "a"},
		{"no host name", Endpoint{Address: "10.0.0.1:80"}, Config{HashHostnames: true}, "10.0.0.1:80"},
		{
			"a key of its own",
			Endpoint{Address: "10.0.0.1:80", Hostname: "a", Metadata: map[string]map[string]string{"envoy.lb": {"hash_key": "k"}}},
			Config{HashHostnames: true}, "k",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := NewSet(Config{}, nil)
			s.Update(Config{}, []LocalityEndpoints{{Endpoints: []Endpoint{tt.endpoint}}})
			for h := range s.Hosts() {
				if got := h.Endpoint().hashKey(tt.config.HashHostnames); got != tt.want {
					t.Errorf("key %q, want %q", got, tt.want)
				}
			}
		})
	}
}

// With weighted localities there is one table for all, in which each locality has
// its share whatever the number of its hosts.
func TestBL5_LocalityWeights(t *testing.T) {
	t.Parallel()
	const n = 60_000
	config := Config{Policy: Maglev, LocalityWeighted: true}
	s := seededSet(t, config, partly("a", 0, 1, 2, 2, Healthy), partly("b", 0, 2, 8, 8, Healthy), partly("c", 0, 0, 8, 8, Healthy))
	got := make(map[string]int)
	for i := range n {
		h, err := s.Pick(PickInfo{Hash: keyHash(i), Hashed: true})
		if err != nil {
			t.Fatal(err)
		}
		got[byZone(h)]++
	}
	if share := float64(got["a"]) / n; math.Abs(share-1.0/3) > 0.01 || got["c"] != 0 {
		t.Errorf("shares are %v of %d, want 1:2:0", got, n)
	}
}

// The priority is drawn by the hash, so that a key stays where it is.
func TestBL3_ThePriorityIsChosenByTheHash(t *testing.T) {
	t.Parallel()
	const n = 10_000
	s := seededSet(t, Config{Policy: RingHash, PanicThreshold: 50}, partly("a", 0, 1, 10, 5, Healthy), partly("b", 1, 1, 10, 10, Healthy))
	first := keyMap(t, s, n)
	if !maps.Equal(first, keyMap(t, s, n)) {
		t.Error("keys move without a change")
	}
	inFirst := 0
	for _, address := range first {
		if address[0] == 'a' {
			inFirst++
		}
	}
	checkShare(t, "the first priority", inFirst, n, 0.70) // BP1: 50 % healthy is 70/30
}

// No host ever has more than its share of the requests in flight times the factor,
// rounded up once.
func TestBL6_LoadsAreBounded(t *testing.T) {
	t.Parallel()
	for _, policy := range []Policy{RingHash, Maglev} {
		for _, factor := range []uint32{100, 125, 199, 200} {
			for _, hosts := range []int64{1, 3, 10, 49, 75} {
				t.Run(fmt.Sprintf("policy %d, factor %d, %d hosts", policy, factor, hosts), func(t *testing.T) {
					t.Parallel()
					const calls = 1_000
					s := seededSet(t, Config{Policy: policy, HashBalanceFactor: factor}, LocalityEndpoints{Endpoints: endpoints(int(hosts), equalWeights)})
					stayed := int64(0)
					var first string
					for i := range int64(calls) {
						h, err := s.Pick(PickInfo{Hash: keyHash(int(i % 3)), Hashed: true, InFlight: i}) // three keys are hot
						if err != nil {
							t.Fatal(err)
						}
						h.Begin()
						limit := ((i+1)*int64(factor) + 100*hosts - 1) / (100 * hosts)
						if h.Active() > limit {
							t.Fatalf("call %d: %s has %d in flight, want at most %d", i, h.Endpoint().Address, h.Active(), limit)
						}
						if i == 0 {
							first = h.Endpoint().Address
						}
						if h.Endpoint().Address == first {
							stayed++
						}
					}
					if want := calls / hosts; stayed < want {
						t.Errorf("the host of a hot key got %d calls, want its share of %d", stayed, want)
					}
				})
			}
		}
	}
}

func TestBL6_OverflowGoesToTheSameHosts(t *testing.T) {
	t.Parallel()
	order := func() (list []string) {
		config := Config{Policy: Maglev, HashBalanceFactor: 120}
		s := NewSet(config, nil)
		s.Update(config, []LocalityEndpoints{{Endpoints: endpoints(10, equalWeights)}})
		for i := range int64(40) {
			h, err := s.Pick(PickInfo{Hash: keyHash(7), Hashed: true, InFlight: i})
			if err != nil {
				t.Fatal(err)
			}
			h.Begin()
			list = append(list, h.Endpoint().Address)
		}
		return list
	}
	if a, b := order(), order(); !slices.Equal(a, b) {
		t.Errorf("two clients send one hash to\n%v\nand\n%v", a, b)
	}
}
