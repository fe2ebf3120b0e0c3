package balancer

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// seed makes the distribution tests repeatable.
const seed = 20240607

// seeded returns a source of random numbers and logs its seed.
func seeded(t *testing.T) func() uint64 {
	t.Helper()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, seed)).Uint64
}

// seededSet returns a set for picks from one goroutine.
func seededSet(t *testing.T, cfg Config, localities ...LocalityEndpoints) *Set {
	t.Helper()
	s := newSet(cfg, nil, seeded(t))
	s.Update(cfg, localities)
	return s
}

// endpoints returns n healthy endpoints with different addresses.
func endpoints(n int, weight func(i int) uint32) []Endpoint {
	list := make([]Endpoint, n)
	for i := range list {
		list[i] = Endpoint{Address: address(i), Weight: weight(i), Health: Healthy}
	}
	return list
}

func address(i int) string { return fmt.Sprintf("10.%d.%d.%d:8080", i>>16, i>>8&255, i&255) }

func equalWeights(int) uint32 { return 1 }

func unequalWeights(i int) uint32 { return uint32(1 + i*7919%1000) }

// onlyOneHeavy gives one endpoint nearly all the weight.
func onlyOneHeavy(i int) uint32 {
	if i == 1 {
		return math.MaxUint32
	}
	return 1
}

// weighted returns endpoints with these weights.
func weighted(weights ...uint32) LocalityEndpoints {
	return LocalityEndpoints{Endpoints: endpoints(len(weights), func(i int) uint32 { return weights[i] })}
}

// partly returns total endpoints of a locality, of which the first ones have the
// given health and the others are unhealthy. Addresses begin with the zone.
func partly(zone string, priority, weight uint32, total, usable int, health Health) LocalityEndpoints {
	l := LocalityEndpoints{Locality: Locality{Region: "r", Zone: zone}, Priority: priority, Weight: weight}
	for i := range total {
		e := Endpoint{Address: fmt.Sprintf("%s-%d", zone, i), Health: Unhealthy}
		if i < usable {
			e.Health = health
		}
		l.Endpoints = append(l.Endpoints, e)
	}
	return l
}

func mustPick(t *testing.T, s *Set, avoid ...*Host) *Host {
	t.Helper()
	h, err := s.Pick(PickInfo{Avoid: avoid})
	if err != nil {
		t.Fatalf("Pick: %v", err)
	}
	return h
}

// counts picks n times and counts by what key returns.
func counts[K comparable](t *testing.T, s *Set, n int, key func(*Host) K) map[K]int {
	t.Helper()
	got := make(map[K]int)
	for range n {
		got[key(mustPick(t, s))]++
	}
	return got
}

func byAddress(h *Host) string { return h.Endpoint().Address }

func byZone(h *Host) string { return h.Locality().Zone }

// checkShare compares a count of n draws with a probability, by four standard
// deviations.
func checkShare(t *testing.T, what string, count, n int, p float64) {
	t.Helper()
	got := float64(count) / float64(n)
	if tolerance := 4 * math.Sqrt(p*(1-p)/float64(n)); math.Abs(got-p) > tolerance {
		t.Errorf("%s: share %.4f, want %.4f within %.4f", what, got, p, tolerance)
	}
}

// hostAt returns the host of an address.
func hostAt(t *testing.T, s *Set, address string) *Host {
	t.Helper()
	for h := range s.Hosts() {
		if h.Endpoint().Address == address {
			return h
		}
	}
	t.Fatalf("no host %q", address)
	return nil
}

// setActive sets the requests in flight of the hosts, in order.
func setActive(s *Set, active ...int) {
	i := 0
	for h := range s.Hosts() {
		for range active[i] {
			h.Begin()
		}
		i++
	}
}
