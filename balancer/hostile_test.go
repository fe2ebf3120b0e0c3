package balancer

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"
)

// hostile makes configurations of what is possible and nobody means: extreme weights,
// holes in the priorities, one address in several localities, nothing that is healthy,
// subsets of nothing.
type hostile struct{ *rand.Rand }

func choose[T any](r hostile, values ...T) T { return values[r.IntN(len(values))] }

func (r hostile) config() Config {
	c := Config{
		Policy:      choose(r, RoundRobin, LeastRequest, Random, RingHash, Maglev, ClientWeighted, PeakEWMA, PickFirst),
		ChoiceCount: choose[uint32](r, 0, 1, 2, 7, math.MaxUint32), FullScan: r.IntN(4) == 0,
		ActiveRequestBias: choose(r, 0, 1, 0.5, 1e300), MinRingSize: choose[uint64](r, 0, 1, 3, 8<<20), MaxRingSize: choose[uint64](r, 0, 1, 2, 8<<20),
		MaglevSize: choose[uint64](r, 0, 2, 3, 101), HashBalanceFactor: choose[uint32](r, 0, 0, 100, 150, math.MaxUint32),
		PanicThreshold: choose(r, 0, 0.0001, 50, 100), FailOnPanic: r.IntN(4) == 0, LocalityWeighted: r.IntN(2) == 0,
		OverprovisioningFactor: choose[uint32](r, 0, 1, 140, math.MaxUint32), Shuffle: r.IntN(2) == 0, RingMurmur: r.IntN(2) == 0,
	}
	if r.IntN(3) == 0 {
		c.SlowStart = SlowStart{Window: choose(r, time.Nanosecond, time.Minute, math.MaxInt64/4), Aggression: choose(r, 0, 1, 1e-300, 1e300), MinWeightPercent: choose(r, 0, 0.0001, 100)}
	}
	switch r.IntN(6) {
	case 0:
		c.Failover = &Failover{ConnectWithin: choose(r, 0, time.Nanosecond)}
	case 1:
		c.ZoneAware = &ZoneAware{
			RoutingEnabled: choose(r, 0, 0.00001, 30, 100), MinClusterSize: choose[uint64](r, 1, 6, math.MaxUint64), ForceLocal: choose[uint32](r, 0, 1, 9),
			ByWeight: r.IntN(2) == 0, Local: r.locality(), Callers: r.localities(),
		}
	}
	if r.IntN(3) == 0 {
		c.Subsets = &Subsets{
			Fallback: choose(r, FallbackUnset, FallbackNone, FallbackAny, FallbackDefault), PanicAny: r.IntN(4) == 0, LocalityWeightAware: r.IntN(2) == 0,
			Default: choose(r, nil, map[string]string{"v": "1"}, map[string]string{"nobody": "has this"}),
			Selectors: []SubsetSelector{
				{Keys: []string{"v", "w"}, Fallback: FallbackKeysSubset, FallbackKeys: []string{"w"}},
				{Keys: []string{"w"}, Fallback: FallbackKeysSubset}, {Keys: []string{"v"}},
			},
		}
	}
	return c
}

func (r hostile) locality() Locality { return Locality{Zone: choose(r, "", "a", "b", "c")} }

func (r hostile) localities() []LocalityEndpoints {
	var list []LocalityEndpoints
	health := choose(r, []Health{Unknown, Healthy}, []Health{Healthy, Degraded, Unhealthy}, []Health{Draining}, []Health{Unhealthy, Timeout, 77})
	for range r.IntN(6) {
		l := LocalityEndpoints{Locality: r.locality(), Weight: choose[uint32](r, 0, 1, 3, math.MaxUint32), Priority: choose[uint32](r, 0, 0, 1, 7, math.MaxUint32)}
		weights := choose(r, []uint32{1}, []uint32{0, 1, 5}, []uint32{1, math.MaxUint32}, []uint32{math.MaxUint32})
		for range r.IntN(choose(r, 2, 5, 40)) {
			l.Endpoints = append(l.Endpoints, Endpoint{
				Address: fmt.Sprintf("10.0.0.%d:80", r.IntN(60)), Weight: choose(r, weights...), Health: choose(r, health...),
				Metadata: choose(r, nil, map[string]map[string]string{"envoy.lb": {"v": choose(r, "1", "2"), "hash_key": choose(r, "", "x")}}),
			})
		}
		list = append(list, l)
	}
	return list
}

func (r hostile) pick(s *Set) PickInfo {
	info := PickInfo{
		Hash: choose(r, 0, math.MaxUint64, r.Uint64()), Hashed: r.IntN(2) == 0, InFlight: choose[int64](r, 0, 5, math.MaxInt64, -1),
		Match:  choose(r, nil, NewMatch(map[string]string{"v": "1"}), NewMatch(map[string]string{"v": "2", "w": "3"}), NewMatch(map[string]string{"z": ""})),
		Pinned: choose(r, "", "", "10.0.0.1:80", ",10.0.0.99:80,", "\x00"), Strict: r.IntN(4) == 0,
		AvoidPriorities: choose(r, nil, nil, []uint32{0, 1, 7}), Beyond: r.IntN(4) == 0,
	}
	for h := range s.Hosts() {
		if r.IntN(5) == 0 {
			info.Avoid = append(info.Avoid, h)
		}
	}
	if r.IntN(3) == 0 {
		info.Prefer = &Locality{Zone: "a"}
	}
	return info
}

// Whatever the configuration, a pick is one of the hosts or a known error, and ends;
// nothing that is not healthy is picked without a panic threshold.
func TestHostileConfigurationsArePickedFrom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for seed := range uint64(1_500) {
			r := hostile{rand.New(rand.NewPCG(seed, 1))}
			s := newSet(Config{}, nil, r.Uint64)
			began := make(map[*Host]int)
			for range 1 + r.IntN(4) { // hosts change their places and their weights meanwhile
				config := r.config()
				s.Update(config, r.localities())
				there := make(map[*Host]bool)
				for h := range s.Hosts() {
					there[h] = true
					h.SetReachable(r.IntN(4) > 0)
				}
				for range 20 {
					info := r.pick(s)
					h, err := s.Pick(info)
					if err != nil {
						if h != nil || !errors.Is(err, ErrNoEndpoint) && !errors.Is(err, ErrNoHealthyEndpoint) && !errors.Is(err, ErrPanic) && !errors.Is(err, ErrNoSubset) && !errors.Is(err, ErrPinned) {
							t.Fatalf("seed %d: host %v, error %v", seed, h, err)
						}
						continue
					}
					if !there[h] {
						t.Fatalf("seed %d: %v is none of the hosts: %+v", seed, h, config)
					}
					if health := h.Endpoint().Health; config.PanicThreshold == 0 && health != Unknown && health != Healthy && health != Degraded {
						t.Fatalf("seed %d: %s of health %d is picked: %+v", seed, h.Endpoint().Address, health, config)
					}
					h.Begin()
					began[h]++
				}
				if r.IntN(2) == 0 {
					time.Sleep(choose(r, time.Nanosecond, time.Second, time.Hour))
					s.Reweigh()
				}
			}
			for h, n := range began {
				if got := h.Active(); got != int64(n) {
					t.Fatalf("seed %d: %d requests are in flight, want %d", seed, got, n)
				}
			}
		}
	})
}
