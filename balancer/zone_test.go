package balancer

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// zones are healthy endpoints, so many in each zone, from "a" on.
func zones(counts ...int) []LocalityEndpoints {
	var all []LocalityEndpoints
	for i, n := range counts {
		all = append(all, partly(string(rune('a'+i)), 0, 1, n, n, Healthy))
	}
	return all
}

func TestBP8_ZoneAwareRouting(t *testing.T) {
	t.Parallel()
	const seed, picks = 3, 60_000
	here := Locality{Region: "r", Zone: "a"}
	for name, test := range map[string]struct {
		zone   ZoneAware
		config Config
		hosts  []LocalityEndpoints
		want   []float64 // percent of each zone
		off    string
	}{
		"all stays where there is room for it": {
			zone: ZoneAware{RoutingEnabled: 100, Callers: zones(2, 2)}, hosts: zones(3, 3), want: []float64{100, 0},
		},
		"the rest goes where there is room": { // Envoy docs: half of the callers, a quarter of the hosts
			zone: ZoneAware{RoutingEnabled: 100, Callers: zones(4, 2, 2)}, hosts: zones(2, 3, 3), want: []float64{50, 25, 25},
		},
		"not where the callers need the room themselves": {
			zone: ZoneAware{RoutingEnabled: 100, Callers: zones(2, 1, 1)}, hosts: zones(2, 2, 4), want: []float64{50, 0, 50},
		},
		"a part of the traffic only": {
			zone: ZoneAware{RoutingEnabled: 50, Callers: zones(2, 2)}, hosts: zones(3, 3), want: []float64{75, 25},
		},
		"none of the traffic": {
			zone: ZoneAware{Callers: zones(2, 2)}, hosts: zones(3, 3), want: []float64{50, 50},
		},
		"five hosts are too few": {
			zone: ZoneAware{RoutingEnabled: 100, Callers: zones(3, 3)}, hosts: zones(3, 2), want: []float64{60, 40}, off: zoneSmall,
		},
		"a smaller size is configured": {
			zone: ZoneAware{RoutingEnabled: 100, MinClusterSize: 2, Callers: zones(1, 1)}, hosts: zones(1, 1), want: []float64{100, 0},
		},
		"the caller's own cluster is not known": {
			zone: ZoneAware{RoutingEnabled: 100}, hosts: zones(3, 3), want: []float64{50, 50}, off: zoneNoCallers,
		},
		"the caller's own cluster is in panic": {
			zone:   ZoneAware{RoutingEnabled: 100, Callers: []LocalityEndpoints{partly("a", 0, 1, 5, 2, Healthy)}},
			config: Config{PanicThreshold: 50}, hosts: zones(3, 3), want: []float64{50, 50}, off: zonePanic,
		},
		"one zone is left": {
			zone: ZoneAware{RoutingEnabled: 100, Callers: zones(2, 2)}, hosts: []LocalityEndpoints{
				partly("a", 0, 1, 3, 0, Healthy), partly("b", 0, 1, 6, 6, Healthy),
			}, want: []float64{0, 100}, off: zoneOneOnly,
		},
		"nobody is here: the rest is where there is room beside the callers there": {
			zone: ZoneAware{RoutingEnabled: 100, Callers: zones(2, 2)}, hosts: []LocalityEndpoints{
				partly("a", 0, 1, 3, 0, Healthy), partly("b", 0, 1, 6, 6, Healthy), partly("c", 0, 1, 2, 2, Healthy),
			}, want: []float64{0, 50, 50},
		},
		"nobody is here, and no locality of that name is known": {
			zone:  ZoneAware{RoutingEnabled: 100, Callers: []LocalityEndpoints{partly("a", 0, 1, 2, 2, Healthy), partly("d", 0, 1, 2, 2, Healthy)}},
			hosts: []LocalityEndpoints{partly("b", 0, 1, 6, 6, Healthy), partly("c", 0, 1, 2, 2, Healthy)}, want: []float64{0, 75, 25},
		},
		"nobody is here, and nobody has room": {
			zone: ZoneAware{RoutingEnabled: 100, Callers: []LocalityEndpoints{
				partly("a", 0, 1, 1, 0, Healthy), partly("b", 0, 1, 3, 3, Healthy), partly("c", 0, 1, 1, 1, Healthy),
			}},
			hosts: []LocalityEndpoints{partly("b", 0, 1, 6, 6, Healthy), partly("c", 0, 1, 2, 2, Healthy)}, want: []float64{0, 50, 50},
		},
		"the callers here are unhealthy": {
			zone:  ZoneAware{RoutingEnabled: 100, Callers: []LocalityEndpoints{partly("a", 0, 1, 1, 0, Healthy), partly("b", 0, 1, 3, 3, Healthy)}},
			hosts: zones(3, 3), want: []float64{100, 0},
		},
		"degraded callers are no panic": {
			zone:   ZoneAware{RoutingEnabled: 100, Callers: []LocalityEndpoints{partly("a", 0, 1, 4, 2, Degraded), partly("b", 0, 1, 1, 1, Healthy)}},
			config: Config{PanicThreshold: 50}, hosts: zones(3, 3), want: []float64{100, 0},
		},
		"its own zone by force": {
			zone: ZoneAware{RoutingEnabled: 100, ForceLocal: 1, Callers: zones(9, 1)}, hosts: zones(1, 9), want: []float64{100, 0},
		},
		"too few for force": {
			zone: ZoneAware{RoutingEnabled: 100, ForceLocal: 3, Callers: zones(4, 4)}, hosts: zones(2, 6), want: []float64{50, 50},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(seed, seed))
			s := newSet(Config{}, nil, random.Uint64)
			config := test.config
			zone := test.zone
			zone.Local = here
			config.ZoneAware = &zone
			s.Update(config, test.hosts)
			if off := s.ZoneRouting(); off != test.off {
				t.Errorf("off because %q, want %q", off, test.off)
			}
			got := make([]float64, len(test.want))
			for range picks {
				h, err := s.Pick(PickInfo{})
				if err != nil {
					t.Fatal(err)
				}
				got[h.Locality().Zone[0]-'a'] += 100.0 / picks
			}
			for i, want := range test.want {
				if math.Abs(got[i]-want) > 1 {
					t.Errorf("the zones got %s %%, want %v", fmt.Sprintf("%.1f", got), test.want)
					break
				}
			}
		})
	}
}

// As in Envoy, a panic of the caller's own cluster fails its traffic if a panic is to.
func TestBP8_APanicOfTheCallersFailsTrafficIfThatIsConfigured(t *testing.T) {
	t.Parallel()
	zone := &ZoneAware{RoutingEnabled: 100, Local: Locality{Region: "r", Zone: "a"}, Callers: []LocalityEndpoints{partly("a", 0, 1, 5, 2, Healthy)}}
	for fail, want := range map[bool]error{false: nil, true: ErrPanic} {
		config := Config{PanicThreshold: 50, FailOnPanic: fail, ZoneAware: zone}
		s := NewSet(config, nil)
		s.Update(config, zones(3, 3))
		if _, err := s.Pick(PickInfo{}); !errors.Is(err, want) {
			t.Errorf("with FailOnPanic %t: %v, want %v", fail, err, want)
		}
	}
}

func TestBP8_WithoutALocalityThereIsNoZoneAwareRouting(t *testing.T) {
	t.Parallel()
	s := NewSet(Config{}, nil)
	s.Update(Config{ZoneAware: &ZoneAware{RoutingEnabled: 100, Callers: zones(2, 2)}}, zones(3, 3))
	if off := s.ZoneRouting(); off != zoneNoLocal {
		t.Errorf("off because %q, want %q", off, zoneNoLocal)
	}
}

func TestBP9_WithoutLocalityWeightsNothingGetsTraffic(t *testing.T) {
	t.Parallel()
	s := NewSet(Config{}, nil)
	config := Config{LocalityWeighted: true, PanicThreshold: 50}
	s.Update(config, []LocalityEndpoints{partly("a", 0, 0, 2, 2, Healthy), partly("b", 0, 0, 2, 2, Healthy)})
	if _, err := s.Pick(PickInfo{}); !errors.Is(err, ErrNoHealthyEndpoint) {
		t.Errorf("no locality has a weight: error %v, want %v", err, ErrNoHealthyEndpoint)
	}
	s.Update(config, []LocalityEndpoints{partly("a", 0, 0, 2, 2, Healthy), partly("b", 0, 1, 2, 2, Healthy)})
	for range 20 {
		if h, err := s.Pick(PickInfo{}); err != nil || h.Locality().Zone != "b" {
			t.Fatalf("picked %v, error %v, want the locality with a weight", h, err)
		}
	}
}
