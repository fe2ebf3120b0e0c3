package balancer

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

func TestAChainIsOneLongListOfPriorities(t *testing.T) {
	t.Parallel()
	const seed, draws = 7, 100_000
	// Of each set, the healthy and the total hosts of its priorities; what each
	// priority gets of the traffic, as one list (Envoy docs, aggregate cluster).
	for name, test := range map[string]struct {
		sets [][][2]int
		want []float64
	}{
		"the first suffices":             {sets: [][][2]int{{{10, 10}}, {{10, 10}}}, want: []float64{100, 0}},
		"the first bears what it can":    {sets: [][][2]int{{{5, 10}}, {{10, 10}}}, want: []float64{70, 30}},
		"a set's priorities are its own": {sets: [][][2]int{{{25, 100}, {25, 100}}, {{20, 100}, {100, 100}}}, want: []float64{35, 35, 28, 2}},
		"all together do not suffice":    {sets: [][][2]int{{{25, 100}}, {{25, 100}}}, want: []float64{50, 50}},
		"the first has nothing":          {sets: [][][2]int{{{0, 10}, {0, 5}}, {{3, 3}}}, want: []float64{0, 0, 100}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(seed, seed))
			var sets []*Set
			base := []int{0}
			for _, priorities := range test.sets {
				var localities []LocalityEndpoints
				for p, n := range priorities {
					l := partly(fmt.Sprint(p), uint32(p), 1, n[1], n[0], Healthy)
					localities = append(localities, l)
				}
				s := newSet(Config{}, nil, random.Uint64)
				s.Update(Config{}, localities)
				sets = append(sets, s)
				base = append(base, base[len(base)-1]+len(priorities))
			}
			got := make([]float64, base[len(base)-1])
			for range draws {
				i, part := Chain(len(sets), func(i int) Capacity { return sets[i].Capacity() }, random.Uint64())
				h, err := sets[i].Pick(PickInfo{Part: part})
				if err != nil {
					t.Fatal(err)
				}
				got[base[i]+int(h.Priority())] += 100.0 / draws
			}
			for p, want := range test.want { // 5 deviations of a share of 50 % are 0.8 points
				if math.Abs(got[p]-want) > 1 {
					t.Errorf("seed %d: the priorities got %.1f %%, want %v ± 1", seed, got, test.want)
					break
				}
			}
		})
	}
}

func BenchmarkChain(b *testing.B) {
	s := NewSet(Config{}, nil)
	s.Update(Config{}, []LocalityEndpoints{partly("a", 0, 1, 10, 10, Healthy)})
	b.ReportAllocs()
	for b.Loop() {
		_, _ = Chain(4, func(int) Capacity { return s.Capacity() }, 99)
	}
}
