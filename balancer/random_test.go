package balancer

import (
	"math"
	"testing"
)

func TestBL7_RandomIsByWeight(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		weights []uint32
	}{
		{"equal", []uint32{4, 4, 4, 4}},
		{"unequal", []uint32{1, 2, 3, 4}},
		{"zero counts as one", []uint32{0, 9}},
		{"extremes", []uint32{1, math.MaxUint32, 1}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			const n = 40_000
			s := seededSet(t, Config{Policy: Random}, weighted(tt.weights...))
			got := counts(t, s, n, byAddress)
			var sum float64
			for _, w := range tt.weights {
				sum += float64(max(w, 1))
			}
			for i, w := range tt.weights {
				checkShare(t, address(i), got[address(i)], n, float64(max(w, 1))/sum)
			}
		})
	}
}

// The table holds each weight exactly, but for the rounding of one threshold.
func TestAliasTableHoldsTheWeights(t *testing.T) {
	t.Parallel()
	random := seeded(t)
	for range 200 {
		n := 2 + below(high(random()), 50)
		weights := make([]uint64, n)
		var sum uint64
		for i := range weights {
			weights[i] = 1 + random()>>(32+random()%30)
			sum += weights[i]
		}
		slots := aliasSlots(weights)
		mass := make([]float64, n)
		for i, slot := range slots {
			own := float64(slot.threshold) / (1 << 32)
			mass[i] += own
			mass[slot.other] += 1 - own
		}
		for i, w := range weights {
			want := float64(w) / float64(sum) * float64(n)
			if math.Abs(mass[i]-want) > float64(n)/(1<<32) {
				t.Fatalf("weights %v: index %d has %v slots, want %v", weights, i, mass[i], want)
			}
		}
	}
}
