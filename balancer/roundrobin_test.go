package balancer

import (
	"fmt"
	"math"
	"testing"
)

func TestBL1_EqualWeightsStayWithinOne(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 2, 3, 7, 100} {
		t.Run(fmt.Sprintf("%d endpoints", n), func(t *testing.T) {
			t.Parallel()
			s := seededSet(t, Config{}, LocalityEndpoints{Endpoints: endpoints(n, equalWeights)})
			got := make(map[string]int)
			for picks := 1; picks <= 10*n+3; picks++ {
				got[byAddress(mustPick(t, s))]++
				for i := range n {
					if c := got[address(i)]; c < picks/n || c > (picks+n-1)/n {
						t.Fatalf("after %d picks %q has %d, want %d or one more", picks, address(i), c, picks/n)
					}
				}
			}
		})
	}
}

func TestBL1_WeightedRoundsAreExact(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		weights []uint32
	}{
		{"one heavy and two light", []uint32{5, 1, 1}},
		{"three different", []uint32{3, 2, 1}},
		{"common divisor", []uint32{10_000_000, 30_000_000}},
		{"zero counts as one", []uint32{0, 3}},
		{"the longest schedule", []uint32{1023, 1}},
		{"many", []uint32{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := seededSet(t, Config{}, weighted(tt.weights...))
			divisor := uint64(max(tt.weights[0], 1))
			for _, w := range tt.weights {
				divisor = gcd(divisor, uint64(max(w, 1)))
			}
			round := 0
			for _, w := range tt.weights {
				round += int(uint64(max(w, 1)) / divisor)
			}
			for range 3 {
				got := counts(t, s, round, byAddress)
				for i, w := range tt.weights {
					if want := int(uint64(max(w, 1)) / divisor); got[address(i)] != want {
						t.Errorf("a round of %d gave weight %d %d turns, want %d", round, w, got[address(i)], want)
					}
				}
			}
		})
	}
}

// At every moment each endpoint has its share of the turns, but for a few: the
// turns are spread, not bunched.
func TestBL1_WeightedTurnsAreSpreadSmoothly(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		weights []uint32
		off     float64
	}{
		{"schedule of two", []uint32{3, 1}, 1},
		{"schedule of many", []uint32{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, 2},
		{"spread of two", []uint32{2_000_003, 1_000_003}, 4},
		{"spread of extremes", []uint32{1, math.MaxUint32}, 2},
		{"spread of three", []uint32{900_001, 90_007, 9_001}, 4},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := seededSet(t, Config{}, weighted(tt.weights...))
			var sum float64
			for _, w := range tt.weights {
				sum += float64(w)
			}
			got := make(map[string]int)
			for picks := 1; picks <= 20_000; picks++ {
				got[byAddress(mustPick(t, s))]++
				for i, w := range tt.weights {
					want := float64(picks) * float64(w) / sum
					if off := math.Abs(float64(got[address(i)]) - want); off > tt.off {
						t.Fatalf("after %d picks weight %d has %d turns, want %.1f within %.1f", picks, w, got[address(i)], want, tt.off)
					}
				}
			}
		})
	}
}

func TestBL1_ManyUnequalWeightsGetTheirShares(t *testing.T) {
	t.Parallel()
	const n = 2_000
	s := seededSet(t, Config{}, LocalityEndpoints{Endpoints: endpoints(n, unequalWeights)})
	var sum float64
	for i := range n {
		sum += float64(unequalWeights(i))
	}
	const picks = 50 * n
	got := counts(t, s, picks, byAddress)
	for i := range n {
		want := picks * float64(unequalWeights(i)) / sum
		if off := math.Abs(float64(got[address(i)]) - want); off > 4 {
			t.Fatalf("%q has %d turns, want %.1f within 4", address(i), got[address(i)], want)
		}
	}
}

func TestBL1_ClientsStartAtDifferentEndpoints(t *testing.T) {
	t.Parallel()
	for _, weights := range [][]uint32{{1, 1, 1, 1}, {1, 2, 1, 2}, {1_000_003, 1_000_033, 1_000_037, 1_000_039}} {
		random := seeded(t)
		first := make(map[string]int)
		for range 200 {
			s := newSet(Config{}, nil, random)
			s.Update(Config{}, []LocalityEndpoints{weighted(weights...)})
			first[byAddress(mustPick(t, s))]++
		}
		if len(first) != len(weights) {
			t.Errorf("weights %v: 200 clients started at %d endpoints, want %d: %v", weights, len(first), len(weights), first)
		}
	}
}

func TestRoundRobinGoesOnAfterAnUpdate(t *testing.T) {
	t.Parallel()
	s := seededSet(t, Config{}, LocalityEndpoints{Endpoints: endpoints(2, equalWeights)})
	got := make(map[string]int)
	for range 101 {
		got[byAddress(mustPick(t, s))]++
		s.Update(Config{}, []LocalityEndpoints{{Endpoints: endpoints(2, equalWeights)}})
	}
	if d := got[address(0)] - got[address(1)]; d != 1 && d != -1 {
		t.Errorf("101 picks with an update after each gave %v, want a difference of one", got)
	}
}
