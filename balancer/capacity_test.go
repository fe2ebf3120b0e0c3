package balancer

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
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

// What a set gets within a chain of one is what it gets alone; and Parts are what Chain
// returns, of which the candidates are those that are picked.
func TestPartsOfAChain(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, seed))
	for range 200 {
		sets := make([]*Set, 1+random.IntN(3))
		for i := range sets {
			var localities []LocalityEndpoints
			for p := range 1 + random.IntN(3) {
				l := LocalityEndpoints{Priority: uint32(p)}
				for j := range random.IntN(4) {
					l.Endpoints = append(l.Endpoints, Endpoint{Address: fmt.Sprintf("10.%d.%d.%d:80", i, p, j), Health: []Health{Healthy, Degraded, Unhealthy}[random.IntN(3)]})
				}
				localities = append(localities, l)
			}
			sets[i] = newSet(Config{}, nil, random.Uint64)
			sets[i].Update(Config{PanicThreshold: float64(random.IntN(2) * 50)}, localities)
		}
		of := func(i int) Capacity { return sets[i].Capacity() }
		parts := Parts(len(sets), of)
		candidates := make(map[*Host]bool)
		for i := range parts {
			for _, part := range parts[i] {
				hosts, _ := sets[i].CandidatesFor(&PickInfo{Part: part})
				for _, h := range hosts {
					candidates[h] = true
				}
			}
		}
		if len(sets) == 1 {
			alone, _ := sets[0].Candidates()
			if len(alone) != len(candidates) {
				t.Fatalf("%d get traffic alone, %d in a chain of one", len(alone), len(candidates))
			}
		}
		picked := make(map[*Host]bool)
		for range 3000 { // the smallest share is of 1 %, of some hosts in turn
			i, part := Chain(len(sets), of, random.Uint64())
			if !slices.ContainsFunc(parts[i], func(p Part) bool {
				return p.Degraded == part.Degraded && (p.At == 0) == (part.At == 0) && part.At <= p.At
			}) {
				t.Fatalf("set %d has the part %v, which is not of %v", i, part, parts[i])
			}
			if h, err := sets[i].Pick(PickInfo{Part: part}); err == nil {
				picked[h] = true
			}
		}
		for h := range picked {
			if !candidates[h] {
				t.Fatalf("%s was picked, which is no candidate", h.Endpoint().Address)
			}
		}
		if len(picked) != len(candidates) {
			t.Fatalf("%d hosts were picked of %d candidates", len(picked), len(candidates))
		}
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
