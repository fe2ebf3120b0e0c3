package balancer

import "math"

// defaultChoices is Envoy's default choice_count.
const defaultChoices = 2

// newLeastRequest returns the less busy of a few random hosts; nil weights are
// equal.
func newLeastRequest(hosts []*Host, weights []uint64, config Config, random func() uint64) chooser {
	choices := config.ChoiceCount
	if choices < 2 {
		choices = defaultChoices
	}
	if weights == nil {
		return &leastRequest{hosts: hosts, choices: choices, random: random}
	}
	bias := config.ActiveRequestBias
	if !(bias > 0) {
		bias = 1
	}
	w := &weightedLeastRequest{hosts: hosts, weights: weights, bias: bias, random: random}
	w.candidates = min(int(choices), maxCandidates)
	if len(hosts) > maxCandidates {
		w.slots = aliasSlots(weights)
	}
	return w
}

// leastRequest is power of two choices (or of more): of some different hosts that
// are drawn at random the one with the fewest requests in flight. Reachable hosts
// are better than others.
type leastRequest struct {
	hosts   []*Host
	choices uint32
	random  func() uint64
}

func (l *leastRequest) next() int {
	n := uint32(len(l.hosts))
	if n == 1 {
		return 0
	}
	if n > 2 && n <= l.choices {
		return l.scan()
	}
	r := l.random()
	best := below(high(r), n)
	for c := uint32(1); c < l.choices && c < n; c++ {
		if c > 1 {
			r = l.random()
		}
		other := below(uint32(r), n-1)
		if other >= best {
			other++
		}
		if lessBusy(l.hosts[other], l.hosts[best]) {
			best = other
		}
	}
	return best
}

// scan compares all hosts and chooses among the best at random.
func (l *leastRequest) scan() int {
	best, equals := 0, uint32(1)
	for i := 1; i < len(l.hosts); i++ {
		switch {
		case lessBusy(l.hosts[i], l.hosts[best]):
			best, equals = i, 1
		case !lessBusy(l.hosts[best], l.hosts[i]):
			equals++
			if below(high(l.random()), equals) == 0 {
				best = i
			}
		}
	}
	return best
}

func lessBusy(a, b *Host) bool {
	if a.Reachable() != b.Reachable() {
		return a.Reachable()
	}
	return a.Active() < b.Active()
}

// maxCandidates bounds what one pick compares.
const maxCandidates = 16

// weightedLeastRequest chooses with probabilities in proportion to
// weight/(active+1)^bias, as Envoy's least request does for unequal weights.
//
// Up to maxCandidates hosts are all weighed, so that the rule is exact. Of more
// hosts some candidates are drawn by weight, and 1/(active+1)^bias decides among
// them: that is exact as long as all are equally busy, and otherwise nearer to the
// rule the more candidates there are.
type weightedLeastRequest struct {
	hosts      []*Host
	weights    []uint64
	slots      []aliasSlot // nil if all are weighed
	candidates int
	bias       float64
	random     func() uint64
}

func (w *weightedLeastRequest) next() int {
	var candidates [maxCandidates]candidate
	drawn := candidates[:w.candidates]
	if w.slots == nil {
		drawn = candidates[:len(w.hosts)]
		for i := range drawn {
			drawn[i] = candidate{index: i, weight: float64(w.weights[i])}
		}
	} else {
		for i := range drawn {
			drawn[i] = candidate{index: aliasIndex(w.slots, w.random()), weight: 1}
		}
	}
	return w.choose(drawn)
}

type candidate struct {
	index        int
	weight, busy float64
	reachable    bool
}

// choose weighs the candidates by their requests in flight and draws one. If any
// is reachable, the others weigh nothing.
func (w *weightedLeastRequest) choose(candidates []candidate) int {
	var least float64
	reachable := false
	for i := range candidates {
		c := &candidates[i]
		h := w.hosts[c.index]
		c.busy, c.reachable = float64(h.Active()+1), h.Reachable()
		if c.reachable && !reachable || c.reachable == reachable && (i == 0 || c.busy < least) {
			least = c.busy
		}
		reachable = reachable || c.reachable
	}
	var sum float64
	for i := range candidates {
		c := &candidates[i]
		// In proportion to the least busy one, which a large bias cannot make
		// vanish.
		idle := least / c.busy
		if w.bias != 1 {
			idle = math.Pow(idle, w.bias)
		}
		if c.reachable != reachable {
			idle = 0
		}
		c.weight *= idle
		sum += c.weight
	}
	r := float64(w.random()>>11) / (1 << 53) * sum
	last := 0
	for i, c := range candidates {
		if c.weight == 0 {
			continue
		}
		if r < c.weight {
			return c.index
		}
		r -= c.weight
		last = i
	}
	return candidates[last].index
}
