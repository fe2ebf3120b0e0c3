package balancer

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestWhatIsPickedIsACandidate(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for range 300 {
		var localities []LocalityEndpoints
		number := 0
		for priority := range uint32(1 + r.IntN(3)) {
			l := LocalityEndpoints{Priority: priority, Weight: 1, Locality: Locality{Region: fmt.Sprint("r", priority)}}
			for range r.IntN(4) {
				number++
				l.Endpoints = append(l.Endpoints, Endpoint{
					Address: fmt.Sprintf("10.0.0.%d:80", number), Health: []Health{Healthy, Unhealthy, Degraded}[r.IntN(3)],
				})
			}
			localities = append(localities, l)
		}
		s := NewSet(Config{Policy: Policy(r.IntN(3)), PanicThreshold: float64(r.IntN(2) * 50), LocalityWeighted: r.IntN(2) == 0}, nil)
		s.Update(s.config, localities)
		for h := range s.Hosts() {
			h.SetReachable(r.IntN(3) > 0)
		}
		var prefer *Locality
		if r.IntN(2) == 0 {
			prefer = &Locality{Region: fmt.Sprint("r", r.IntN(3))}
		}
		candidates, err := s.CandidatesFor(&PickInfo{Prefer: prefer})
		for range 50 {
			h, pickErr := s.Pick(PickInfo{Prefer: prefer})
			if !errors.Is(pickErr, err) || pickErr == nil && !slices.Contains(candidates, h) {
				t.Fatalf("picked %v, %v; the candidates are %v, %v", h, pickErr, candidates, err)
			}
		}
	}
}

func TestEveryCandidateIsPickedSomeTime(t *testing.T) {
	t.Parallel()
	s := NewSet(Config{}, nil)
	s.Update(Config{}, []LocalityEndpoints{{Endpoints: []Endpoint{
		{Address: "10.0.0.1:80", Health: Healthy}, {Address: "10.0.0.2:80", Health: Unhealthy}, {Address: "10.0.0.3:80", Health: Healthy},
	}}})
	candidates, err := s.Candidates()
	if err != nil || len(candidates) != 2 {
		t.Fatalf("candidates %v, %v", candidates, err)
	}
	picked := make(map[*Host]bool)
	for range 2 {
		h, err := s.Pick(PickInfo{})
		if err != nil {
			t.Fatal(err)
		}
		picked[h] = true
	}
	for _, h := range candidates {
		if !picked[h] {
			t.Errorf("%v was not picked", h.Endpoint().Address)
		}
	}
}
