package balancer

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"
)

// priorities returns levels of 100 hosts with so many healthy ones each.
func priorities(healthy ...int) []LocalityEndpoints {
	var list []LocalityEndpoints
	for p, n := range healthy {
		list = append(list, partly(fmt.Sprintf("p%d", p), uint32(p), 1, 100, n, Healthy))
	}
	return list
}

// percents returns the share of each priority, as the snapshot divides the
// traffic.
func percents(s *Set, levels int) []int {
	got := make([]int, levels)
	var before uint32
	for _, c := range s.snapshot.Load().choices {
		got[priorityOf(c.groups[0].hosts[0])] += int(c.below - before)
		before = c.below
	}
	return got
}

func priorityOf(h *Host) int { return int(h.Locality().Zone[1] - '0') }

func TestBP1_SpillsToTheNextPriority(t *testing.T) {
	t.Parallel()
	tests := []struct {
		healthy int
		want    []int
	}{
		{100, []int{100, 0}},
		{72, []int{100, 0}},
		{71, []int{99, 1}},
		{50, []int{70, 30}},
		{25, []int{35, 65}},
		{0, []int{0, 100}},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%d percent healthy", tt.healthy), func(t *testing.T) {
			t.Parallel()
			const n = 20_000
			s := seededSet(t, Config{PanicThreshold: 50}, priorities(tt.healthy, 100)...)
			if got := percents(s, 2); !slices.Equal(got, tt.want) {
				t.Errorf("division %v, want %v", got, tt.want)
			}
			unhealthy := 0
			got := counts(t, s, n, func(h *Host) int {
				if h.Endpoint().Health == Unhealthy {
					unhealthy++
				}
				return priorityOf(h)
			})
			for p, want := range tt.want {
				checkShare(t, fmt.Sprintf("priority %d", p), got[p], n, float64(want)/100)
			}
			if unhealthy != 0 {
				t.Errorf("%d picks were of unhealthy hosts, want none: the other priority suffices", unhealthy)
			}
		})
	}
}

func TestBP2_DividesByHealthIfAllTogetherDoNotSuffice(t *testing.T) {
	t.Parallel()
	tests := []struct {
		healthy, want []int
	}{
		{[]int{25, 25}, []int{50, 50}},
		// Envoy's page rounds to 36/36/28; its code truncates and gives the
		// rest to the first.
		{[]int{25, 25, 20}, []int{37, 35, 28}},
		{[]int{5, 0}, []int{100, 0}},
	}
	for _, tt := range tests {
		for _, threshold := range []float64{0, 50} {
			t.Run(fmt.Sprintf("%v with panic threshold %v", tt.healthy, threshold), func(t *testing.T) {
				t.Parallel()
				s := seededSet(t, Config{PanicThreshold: threshold}, priorities(tt.healthy...)...)
				if got := percents(s, len(tt.want)); !slices.Equal(got, tt.want) {
					t.Errorf("division %v, want %v", got, tt.want)
				}
				unhealthy := counts(t, s, 10_000, func(h *Host) bool { return h.Endpoint().Health == Unhealthy })[true]
				if threshold == 0 && unhealthy != 0 || threshold > 0 && unhealthy < 5_000 {
					t.Errorf("%d of 10000 picks were unhealthy, want them only in a panic", unhealthy)
				}
			})
		}
	}
}

// Envoy's panic page has 25/75 in this row, against its own formula.
func TestBP3_FollowsTheFormulaNotThePanicPage(t *testing.T) {
	t.Parallel()
	s := seededSet(t, Config{PanicThreshold: 50}, priorities(25, 100)...)
	if got, want := percents(s, 2), []int{35, 65}; !slices.Equal(got, want) {
		t.Errorf("division %v, want %v", got, want)
	}
}

func TestPanicUsesAllHosts(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name      string
		healthy   int
		threshold float64
		unhealthy float64 // share of picks
	}{
		{"below the threshold", 49, 50, 0.51},
		{"at the threshold", 50, 50, 0},
		{"above the threshold", 60, 50, 0},
		{"nothing healthy", 0, 50, 1},
		{"one of a hundred above a threshold of almost nothing", 1, 0.5, 0},
		{"no panic mode", 1, 0, 0},
		{"a threshold over all", 70, 100, 0.3},
		{"enough health despite a threshold over all", 72, 100, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			const n = 20_000
			s := seededSet(t, Config{Policy: Random, PanicThreshold: tt.threshold}, priorities(tt.healthy)...)
			got := counts(t, s, n, func(h *Host) bool { return h.Endpoint().Health == Unhealthy })
			checkShare(t, "unhealthy hosts", got[true], n, tt.unhealthy)
		})
	}
}

func TestPanicDividesByHostsIfNothingIsUsable(t *testing.T) {
	t.Parallel()
	s := seededSet(t, Config{PanicThreshold: 50},
		partly("p0", 0, 1, 30, 0, Healthy), partly("p1", 7, 1, 61, 0, Healthy))
	if got, want := percents(s, 2), []int{33 + 0, 67}; !slices.Equal(got, want) {
		t.Errorf("division %v, want %v", got, want)
	}
}

func TestFewUsableHostsOfManyAreNotRoundedAway(t *testing.T) {
	t.Parallel()
	s := seededSet(t, Config{}, partly("p0", 0, 1, 1000, 1, Healthy))
	if h := mustPick(t, s); h.Endpoint().Health != Healthy {
		t.Errorf("picked %q, want the healthy host", h.Endpoint().Address)
	}
}

func TestBP4_LocalityWeightsShrinkWithAvailability(t *testing.T) {
	t.Parallel()
	tests := []struct {
		available int
		want      float64 // share of X by the formula
		page      int     // in percent on Envoy's page, which rounds 32.6 to 32 and 32.9 to 33
	}{
		{100, 1.0 / 3, 33},
		{70, 0.98 / 2.98, 33},
		{69, 0.966 / 2.966, 32},
		{50, 0.7 / 2.7, 26},
		{25, 0.35 / 2.35, 15},
		{0, 0, 0},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%d percent of X available", tt.available), func(t *testing.T) {
			t.Parallel()
			if off := math.Abs(100*tt.want - float64(tt.page)); off >= 0.6 {
				t.Fatalf("the expectation %v is not that of the page, %d", tt.want, tt.page)
			}
			// Localities take turns, so that shares are exact but for a few.
			const n = 20_000
			s := seededSet(t, Config{LocalityWeighted: true, PanicThreshold: 20},
				partly("X", 0, 1, 100, tt.available, Healthy), partly("Y", 0, 2, 100, 100, Healthy))
			got := counts(t, s, n, byZone)
			if off := math.Abs(float64(got["X"]) - n*tt.want); off > 4 || got["X"]+got["Y"] != n {
				t.Errorf("X got %d of %d, want %.1f within 4", got["X"], n, n*tt.want)
			}
		})
	}
}

func TestLocalitiesWithoutWeightingAreOneSet(t *testing.T) {
	t.Parallel()
	s := seededSet(t, Config{}, partly("X", 0, 1, 10, 10, Healthy), partly("Y", 0, 9, 30, 30, Healthy))
	if got := counts(t, s, 400, byZone); got["X"] != 100 || got["Y"] != 300 {
		t.Errorf("picks %v, want them by the number of endpoints", got)
	}
}

func TestPanicIgnoresLocalityWeights(t *testing.T) {
	t.Parallel()
	s := seededSet(t, Config{LocalityWeighted: true, PanicThreshold: 50},
		partly("X", 0, 1, 10, 1, Healthy), partly("Y", 0, 9, 10, 1, Healthy))
	if got := counts(t, s, 400, byZone); got["X"] != 200 || got["Y"] != 200 {
		t.Errorf("picks %v, want them by the number of endpoints", got)
	}
}

func TestBP10_DegradedHostsHelpOut(t *testing.T) {
	t.Parallel()
	level := func(zone string, priority uint32, healthy, degraded, unhealthy int) LocalityEndpoints {
		l := partly(zone, priority, 1, healthy+degraded+unhealthy, healthy, Healthy)
		for i := range degraded {
			l.Endpoints[healthy+i].Health = Degraded
		}
		return l
	}
	tests := []struct {
		name   string
		levels []LocalityEndpoints
		// want is the percent of the healthy and of the degraded hosts of each level.
		want []int
	}{
		{"not needed", []LocalityEndpoints{level("p0", 0, 80, 20, 0)}, []int{100, 0}},
		{"half is degraded", []LocalityEndpoints{level("p0", 0, 50, 50, 0)}, []int{70, 30}},
		{"only degraded", []LocalityEndpoints{level("p0", 0, 0, 100, 0)}, []int{0, 100}},
		{"healthy ones of a later priority come first", []LocalityEndpoints{level("p0", 0, 50, 50, 0), level("p1", 1, 100, 0, 0)}, []int{70, 0, 30, 0}},
		{"degraded ones of both", []LocalityEndpoints{level("p0", 0, 50, 50, 0), level("p1", 1, 10, 90, 0)}, []int{70, 16, 14, 0}},
		{"too few of both", []LocalityEndpoints{level("p0", 0, 20, 20, 60)}, []int{50, 50}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			const n = 20_000
			s := seededSet(t, Config{}, tt.levels...)
			got := counts(t, s, n, func(h *Host) int {
				if h.Endpoint().Health == Degraded {
					return 2*priorityOf(h) + 1
				}
				return 2 * priorityOf(h)
			})
			for i, want := range tt.want {
				checkShare(t, fmt.Sprintf("part %d", i), got[i], n, float64(want)/100)
			}
		})
	}
}

func TestDegradedHostsKeepAPriorityOutOfPanic(t *testing.T) {
	t.Parallel()
	l := partly("p0", 0, 1, 100, 30, Healthy)
	for i := range 25 {
		l.Endpoints[30+i].Health = Degraded
	}
	s := seededSet(t, Config{PanicThreshold: 50}, l)
	if got := counts(t, s, 1000, func(h *Host) bool { return h.Endpoint().Health == Unhealthy }); got[true] != 0 {
		t.Errorf("%d of 1000 picks were unhealthy, want none", got[true])
	}
}

func TestOverprovisioningFactor(t *testing.T) {
	t.Parallel()
	for factor, want := range map[uint32][]int{0: {70, 30}, 100: {50, 50}, 140: {70, 30}, 200: {100, 0}, math.MaxUint32: {100, 0}} {
		s := seededSet(t, Config{OverprovisioningFactor: factor}, priorities(50, 100)...)
		if got := percents(s, 2); !slices.Equal(got, want) {
			t.Errorf("factor %d: division %v, want %v", factor, got, want)
		}
	}
}

func TestX79_LocalityWithoutWeightIsSkipped(t *testing.T) {
	t.Parallel()
	t.Run("beside one with a weight", func(t *testing.T) {
		t.Parallel()
		s := seededSet(t, Config{LocalityWeighted: true}, partly("X", 0, 0, 10, 10, Healthy), partly("Y", 0, 3, 10, 10, Healthy))
		if got := counts(t, s, 1000, byZone); got["X"] != 0 {
			t.Errorf("picks %v, want none of X", got)
		}
	})
	t.Run("does not count for its priority", func(t *testing.T) {
		t.Parallel()
		s := seededSet(t, Config{LocalityWeighted: true, PanicThreshold: 50},
			partly("p9", 0, 0, 100, 0, Healthy), partly("p0", 0, 1, 1, 1, Healthy), partly("p1", 1, 1, 10, 10, Healthy))
		if got, want := percents(s, 2), []int{100, 0}; !slices.Equal(got, want) {
			t.Errorf("division %v, want %v", got, want)
		}
	})
	t.Run("alone", func(t *testing.T) {
		t.Parallel()
		s := seededSet(t, Config{LocalityWeighted: true, PanicThreshold: 50}, partly("X", 0, 0, 10, 10, Healthy))
		if _, err := s.Pick(PickInfo{}); !errors.Is(err, ErrNoHealthyEndpoint) {
			t.Errorf("error %v, want %v", err, ErrNoHealthyEndpoint)
		}
		if s.Len() != 10 {
			t.Errorf("%d hosts, want 10: they are configured", s.Len())
		}
	})
	t.Run("weights mean nothing without weighting", func(t *testing.T) {
		t.Parallel()
		s := seededSet(t, Config{}, partly("X", 0, 0, 10, 10, Healthy))
		mustPick(t, s)
	})
}

func TestX80_HealthDecidesWhatIsUsed(t *testing.T) {
	t.Parallel()
	for health, used := range map[Health]bool{Unknown: true, Healthy: true, Unhealthy: false, Draining: false, Timeout: false, Health(99): false} {
		t.Run(fmt.Sprintf("health %d", health), func(t *testing.T) {
			t.Parallel()
			l := partly("X", 0, 1, 2, 1, Healthy)
			l.Endpoints[1].Health = health
			s := seededSet(t, Config{}, l)
			got := counts(t, s, 100, byAddress)["X-1"]
			if used && got != 50 || !used && got != 0 {
				t.Errorf("%d of 100 picks, want it used: %v", got, used)
			}
		})
	}
}

func TestPickErrors(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name       string
		config     Config
		localities []LocalityEndpoints
		want       error
		text       string
	}{
		{"before the first update", Config{}, nil, ErrNoEndpoint, "no endpoint in the cluster"},
		{"empty localities", Config{PanicThreshold: 50}, []LocalityEndpoints{{}, {Priority: 1}}, ErrNoEndpoint, "no endpoint in the cluster"},
		{"nothing healthy and no panic mode", Config{}, priorities(0, 0), ErrNoHealthyEndpoint, "no healthy endpoint in the cluster"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h, err := seededSet(t, tt.config, tt.localities...).Pick(PickInfo{})
			if h != nil || !errors.Is(err, tt.want) || err.Error() != tt.text {
				t.Errorf("host %v, error %v, want %q", h, err, tt.text)
			}
		})
	}
}
