package balancer

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/inboardmesh/inboard/internal/cputime"
	"github.com/inboardmesh/inboard/outcome"
)

type policyCase struct {
	name   string
	config Config
	weight func(i int) uint32
}

// largestTable has five million places to be filled: too many for tests that fill them
// time and again.
var largestTable = policyCase{"maglev, largest table", Config{Policy: Maglev, MaglevSize: MaxMaglevSize}, equalWeights}

var policyCases = []policyCase{
	{"round robin", Config{}, equalWeights},
	{"round robin weighted", Config{}, unequalWeights},
	{"least request", Config{Policy: LeastRequest}, equalWeights},
	{"least request weighted", Config{Policy: LeastRequest}, unequalWeights},
	{"random", Config{Policy: Random}, equalWeights},
	{"random weighted", Config{Policy: Random}, unequalWeights},
	{"ring hash", Config{Policy: RingHash}, equalWeights},
	{"ring hash weighted", Config{Policy: RingHash}, unequalWeights},
	{"maglev", Config{Policy: Maglev}, equalWeights},
	{"maglev weighted", Config{Policy: Maglev}, unequalWeights},
	{"maglev, one has the weight", Config{Policy: Maglev}, onlyOneHeavy},
	{"maglev bounded", Config{Policy: Maglev, HashBalanceFactor: 150}, equalWeights},
	{"client weighted", Config{Policy: ClientWeighted}, equalWeights},
	{"peak ewma", Config{Policy: PeakEWMA}, equalWeights},
	{"peak ewma weighted", Config{Policy: PeakEWMA}, unequalWeights},
	{"round robin, slow start", Config{SlowStart: SlowStart{Window: time.Hour, MinWeightPercent: 10}}, equalWeights},
	{"round robin, slow start that is over", Config{SlowStart: SlowStart{Window: time.Nanosecond, MinWeightPercent: 10}}, equalWeights},
	{"least request, slow start", Config{Policy: LeastRequest, SlowStart: SlowStart{Window: time.Hour, MinWeightPercent: 10}}, equalWeights},
}

func BenchmarkPick(b *testing.B) {
	for _, c := range policyCases {
		for _, n := range []int{10, 10_000, 100_000} {
			b.Run(fmt.Sprintf("%s/%d", c.name, n), func(b *testing.B) {
				s := NewSet(c.config, nil)
				s.Update(c.config, []LocalityEndpoints{{Weight: 1, Endpoints: endpoints(n, c.weight)}})
				now := time.Now() // as the callers have it, who tell when an attempt began
				b.ReportAllocs()
				b.ResetTimer()
				begin, known := cputime.Used()
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						_, err := s.Pick(PickInfo{Now: now})
						if err != nil {
							b.Error(err)
							return
						}
					}
				})
				if end, _ := cputime.Used(); known { // what other processes do does not count
					b.ReportMetric(float64(end-begin)/float64(b.N), "cpu-ns/op")
				}
			})
		}
	}
}

// BenchmarkOneHost is the baseline of BenchmarkPick: to take any host of the list and to
// look at it, which every pick does at the end.
func BenchmarkOneHost(b *testing.B) {
	for _, n := range []int{10, 10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s := NewSet(Config{}, nil)
			s.Update(Config{}, []LocalityEndpoints{{Endpoints: endpoints(n, equalWeights)}})
			hosts := slices.Collect(s.Hosts())
			at := uint32(0)
			cputime.Loop(b, func() {
				// Where the next one is depends on this one, as what a pick reads depends
				// on what it has read.
				at += 0x9E3779B9 + uint32(hosts[below(at, uint32(n))].Active())
			})
		})
	}
}

func BenchmarkUpdateOneOf10000(b *testing.B) {
	for _, c := range append(slices.Clone(policyCases), largestTable) {
		b.Run(c.name, func(b *testing.B) {
			s := NewSet(c.config, nil)
			versions := [2][]LocalityEndpoints{
				{{Endpoints: endpoints(10_000, c.weight)}},
				{{Endpoints: endpoints(10_000, c.weight)}},
			}
			versions[1][0].Endpoints[5_000].Address = "10.255.0.1:80"
			s.Update(c.config, versions[0])
			i := 0
			cputime.Loop(b, func() {
				i++
				added, removed := s.Update(c.config, versions[i%2])
				if len(added) != 1 || len(removed) != 1 {
					b.Fatalf("added %d, removed %d, want 1 and 1", len(added), len(removed))
				}
			})
		})
	}
}

// BenchmarkReport is what outlier detection adds to a call: nothing but a look at
// the policy without one.
func BenchmarkReport(b *testing.B) {
	split := DefaultOutlierConfig()
	split.SplitLocalOrigin = true
	plain := DefaultOutlierConfig()
	for _, c := range []struct {
		name   string
		config *OutlierConfig
		o      *outcome.Outcome
	}{
		{"no policy", nil, &ok200},
		{"success", &plain, &ok200},
		{"success with the split", &split, &ok200},
		{"failure", &plain, &internal500},
		{"ignored", &plain, &outcome.Outcome{Kind: outcome.Canceled}},
	} {
		for _, n := range []int{1, 1000} {
			b.Run(fmt.Sprintf("%s/hosts=%d", c.name, n), func(b *testing.B) {
				s := NewSet(Config{}, nil)
				s.Update(Config{}, []LocalityEndpoints{{Endpoints: endpoints(n, equalWeights)}})
				s.SetOutlier(c.config)
				hosts := slices.Collect(s.Hosts())
				b.ReportAllocs()
				b.RunParallel(func(pb *testing.PB) {
					for i := 0; pb.Next(); i++ {
						hosts[i%n].Report(c.o)
					}
				})
			})
		}
	}
}

// BenchmarkEject is a whole ejection and return, of one host of many.
func BenchmarkEject(b *testing.B) {
	for _, n := range []int{10, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			config := OutlierConfig{MaxEjectionPercent: 10, Consecutive5xx: ConsecutiveFailures{Threshold: 1, Enforcing: 100}}
			s := NewSet(Config{}, nil)
			s.Update(Config{}, []LocalityEndpoints{{Endpoints: endpoints(n, equalWeights)}})
			s.SetOutlier(&config)
			h := slices.Collect(s.Hosts())[0]
			b.ReportAllocs()
			for b.Loop() {
				if _, ok := h.Report(&internal500); !ok {
					b.Fatal("not ejected")
				}
				if len(s.Sweep()) != 1 {
					b.Fatal("not returned")
				}
			}
		})
	}
}

// BenchmarkUpdateSubsets is one endpoint's change among 10,000 that are divided into
// subsets, beside the same without them.
func BenchmarkUpdateSubsets(b *testing.B) {
	by := func(keys ...string) *Subsets {
		s := &Subsets{}
		for _, k := range keys {
			s.Selectors = append(s.Selectors, SubsetSelector{Keys: []string{k}})
		}
		return s
	}
	for _, c := range []struct {
		name   string
		config Config
	}{
		{"none", Config{}},
		{"by version", Config{Subsets: by("version")}},
		{"by pod", Config{Subsets: by("pod")}},
		{"by version and by pod", Config{Subsets: by("version", "pod")}},
		{"maglev, none", Config{Policy: Maglev}},
		{"maglev, by version", Config{Policy: Maglev, Subsets: by("version")}},
	} {
		var versions [2][]LocalityEndpoints
		for v := range versions {
			localities := make([]LocalityEndpoints, 3)
			for i, e := range endpoints(10_000, unequalWeights) {
				if i == 5_000 {
					e.Address = fmt.Sprintf("10.255.0.%d:80", v)
				}
				e.Metadata = map[string]map[string]string{subsetNamespace: {"pod": e.Address, "version": fmt.Sprint(i % 5)}}
				l := &localities[i%3]
				l.Locality.Zone, l.Endpoints = fmt.Sprint(i%3), append(l.Endpoints, e)
			}
			versions[v] = localities
		}
		b.Run(c.name+"/update", func(b *testing.B) {
			s := NewSet(c.config, nil)
			s.Update(c.config, versions[0])
			i := 0
			cputime.Loop(b, func() {
				i++
				s.Update(c.config, versions[i%2])
			})
		})
		b.Run(c.name+"/check", func(b *testing.B) {
			s := NewSet(c.config, nil)
			s.Update(c.config, versions[0])
			h := slices.Collect(s.Hosts())[5_000]
			i := 0
			cputime.Loop(b, func() {
				i++
				s.SetCheck(h, [2]Check{Passing, Failing}[i%2])
			})
		})
	}
}
