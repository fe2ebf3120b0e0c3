package balancer

import (
	"fmt"
	"testing"
)

var policyCases = []struct {
	name   string
	config Config
	weight func(i int) uint32
}{
	{"round robin", Config{}, equalWeights},
	{"round robin weighted", Config{}, unequalWeights},
	{"least request", Config{Policy: LeastRequest}, equalWeights},
	{"least request weighted", Config{Policy: LeastRequest}, unequalWeights},
	{"random", Config{Policy: Random}, equalWeights},
	{"random weighted", Config{Policy: Random}, unequalWeights},
}

func BenchmarkPick(b *testing.B) {
	for _, c := range policyCases {
		for _, n := range []int{10, 10_000, 100_000} {
			b.Run(fmt.Sprintf("%s/%d", c.name, n), func(b *testing.B) {
				s := NewSet(c.config, nil)
				s.Update(c.config, []LocalityEndpoints{{Weight: 1, Endpoints: endpoints(n, c.weight)}})
				b.ReportAllocs()
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						_, err := s.Pick(PickInfo{})
						if err != nil {
							b.Error(err)
							return
						}
					}
				})
			})
		}
	}
}

func BenchmarkUpdateOneOf10000(b *testing.B) {
	for _, c := range policyCases {
		b.Run(c.name, func(b *testing.B) {
			s := NewSet(c.config, nil)
			versions := [2][]LocalityEndpoints{
				{{Endpoints: endpoints(10_000, c.weight)}},
				{{Endpoints: endpoints(10_000, c.weight)}},
			}
			versions[1][0].Endpoints[5_000].Address = "10.255.0.1:80"
			s.Update(c.config, versions[0])
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				added, removed := s.Update(c.config, versions[(i+1)%2])
				if len(added) != 1 || len(removed) != 1 {
					b.Fatalf("added %d, removed %d, want 1 and 1", len(added), len(removed))
				}
			}
		})
	}
}
