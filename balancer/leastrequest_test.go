package balancer

import (
	"fmt"
	"math"
	"testing"
)

func TestBL2_EqualWeightsTakeTheLessBusyOfTwo(t *testing.T) {
	t.Parallel()
	const n = 40_000
	tests := []struct {
		name    string
		choices uint32
		hosts   int
		want    float64 // of picks of the only idle host
	}{
		{"two choices by default", 0, 10, 2.0 / 10},
		{"one choice is two", 1, 10, 2.0 / 10},
		{"two choices", 2, 10, 2.0 / 10},
		{"five choices", 5, 10, 5.0 / 10},
		{"two hosts", 2, 2, 1},
		{"more choices than hosts", 20, 10, 1},
		{"one host", 2, 1, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cfg := Config{Policy: LeastRequest, ChoiceCount: tt.choices}
			s := seededSet(t, cfg, LocalityEndpoints{Endpoints: endpoints(tt.hosts, equalWeights)})
			busy := make([]int, tt.hosts)
			for i := range busy {
				busy[i] = 3
			}
			busy[tt.hosts/2] = 0
			setActive(s, busy...)
			got := counts(t, s, n, byAddress)
			if tt.choices < 3 || tt.want == 1 {
				checkShare(t, "the idle host", got[address(tt.hosts/2)], n, tt.want)
				return
			}
			// Further choices differ from the best so far, not from all before.
			if share := float64(got[address(tt.hosts/2)]) / n; share < tt.want*0.85 || share > tt.want {
				t.Errorf("share of the idle host %.3f, want up to %.3f", share, tt.want)
			}
		})
	}
}

func TestBL2_EquallyBusyHostsShareEqually(t *testing.T) {
	t.Parallel()
	for _, choices := range []uint32{2, 3, 10} {
		for _, hosts := range []int{2, 3, 5} {
			t.Run(fmt.Sprintf("%d choices of %d", choices, hosts), func(t *testing.T) {
				t.Parallel()
				const n = 40_000
				cfg := Config{Policy: LeastRequest, ChoiceCount: choices}
				s := seededSet(t, cfg, LocalityEndpoints{Endpoints: endpoints(hosts, equalWeights)})
				got := counts(t, s, n, byAddress)
				for i := range hosts {
					checkShare(t, address(i), got[address(i)], n, 1/float64(hosts))
				}
			})
		}
	}
}

// share = weight/(active+1)^bias over the sum of all.
func TestBL2_UnequalWeightsAreDividedByLoad(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		weights []uint32
		active  []int
		bias    float64
	}{
		{"idle", []uint32{1, 2, 3}, []int{0, 0, 0}, 0},
		{"load cancels weight", []uint32{2, 1}, []int{1, 0}, 1},
		{"bias of one by default", []uint32{1, 4}, []int{0, 3}, 0},
		{"larger bias", []uint32{1, 8}, []int{0, 1}, 2},
		{"smaller bias", []uint32{1, 8}, []int{0, 3}, 0.5},
		{"sixteen", []uint32{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}, []int{0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7}, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			const n = 40_000
			s := seededSet(t, Config{Policy: LeastRequest, ActiveRequestBias: tt.bias}, weighted(tt.weights...))
			setActive(s, tt.active...)
			bias := tt.bias
			if bias == 0 {
				bias = 1
			}
			effective := make([]float64, len(tt.weights))
			var sum float64
			for i, w := range tt.weights {
				effective[i] = float64(w) / math.Pow(float64(tt.active[i]+1), bias)
				sum += effective[i]
			}
			got := counts(t, s, n, byAddress)
			for i := range effective {
				checkShare(t, address(i), got[address(i)], n, effective[i]/sum)
			}
		})
	}
}

func TestBL2_ManyUnequalWeights(t *testing.T) {
	t.Parallel()
	const hosts, n = 40, 80_000
	weight := func(i int) uint32 { return uint32(1 + i) }
	heavy := func(h *Host) bool { return h.Endpoint().Weight > hosts/2 }
	// The heavier half weighs 21+...+40 of 1+...+40.
	const heavyShare = 610.0 / 820

	t.Run("idle hosts get their weight", func(t *testing.T) {
		t.Parallel()
		s := seededSet(t, Config{Policy: LeastRequest}, LocalityEndpoints{Endpoints: endpoints(hosts, weight)})
		got := counts(t, s, n, byAddress)
		for i := range hosts {
			checkShare(t, address(i), got[address(i)], n, float64(weight(i))/820)
		}
	})
	t.Run("equally busy hosts get their weight", func(t *testing.T) {
		t.Parallel()
		s := seededSet(t, Config{Policy: LeastRequest}, LocalityEndpoints{Endpoints: endpoints(hosts, weight)})
		for h := range s.Hosts() {
			h.Begin()
			h.Begin()
		}
		got := counts(t, s, n, heavy)
		checkShare(t, "the heavier half", got[true], n, heavyShare)
	})
	t.Run("more candidates come nearer to the rule", func(t *testing.T) {
		t.Parallel()
		// The heavier half is three times as busy: its share by the rule is
		// 610/4 of 610/4+210.
		const rule = 610.0 / 4 / (610.0/4 + 210)
		var off []float64
		for _, choices := range []uint32{2, 4, 16} {
			s := seededSet(t, Config{Policy: LeastRequest, ChoiceCount: choices}, LocalityEndpoints{Endpoints: endpoints(hosts, weight)})
			for h := range s.Hosts() {
				if heavy(h) {
					h.Begin()
					h.Begin()
					h.Begin()
				}
			}
			share := float64(counts(t, s, n, heavy)[true]) / n
			if share >= heavyShare {
				t.Errorf("%d candidates: the busy half has %.3f, want less than its weight %.3f", choices, share, heavyShare)
			}
			off = append(off, share-rule)
		}
		if !(off[0] > off[1] && off[1] > off[2] && off[2] < 0.06) {
			t.Errorf("distance to the rule with 2, 4 and 16 candidates %.3f, want it to fall below 0.06", off)
		}
	})
	t.Run("a huge bias leaves the least busy", func(t *testing.T) {
		t.Parallel()
		cfg := Config{Policy: LeastRequest, ActiveRequestBias: 1e6}
		s := seededSet(t, cfg, weighted(1, 2, 3))
		setActive(s, 4, 2, 3)
		got := counts(t, s, 100, byAddress)
		if got[address(1)] != 100 {
			t.Errorf("picks %v, want all at the least busy %q", got, address(1))
		}
	})
}

// Simulated callers with one slow host: it must not collect the requests.
func TestBL2_ASlowHostGetsLess(t *testing.T) {
	t.Parallel()
	for _, weights := range [][]uint32{{1, 1, 1, 1}, {2, 1, 2, 1}} {
		s := seededSet(t, Config{Policy: LeastRequest}, weighted(weights...))
		slow := hostAt(t, s, address(0))
		var inFlight []*Host
		got := make(map[*Host]int)
		for range 4_000 {
			h := mustPick(t, s)
			got[h]++
			h.Begin()
			if h == slow && len(inFlight) < 50 {
				inFlight = append(inFlight, h)
			} else {
				h.End()
			}
		}
		if got[slow] > 600 {
			t.Errorf("weights %v: the slow host got %d of 4000 picks, want few", weights, got[slow])
		}
		for _, h := range inFlight {
			h.End()
		}
		if slow.Active() != 0 {
			t.Errorf("%d requests in flight at the end, want 0", slow.Active())
		}
	}
}
