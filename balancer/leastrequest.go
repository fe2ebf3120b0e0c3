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
	if weights == nil && config.FullScan {
		choices = max(choices, uint32(len(hosts)))
	}
	if weights == nil {
		return &leastRequest{hosts: hosts, choices: choices, random: random}
	}
	bias := config.ActiveRequestBias
	if !(bias > 0) {
		bias = 1
	}
	w := &weightedLeastRequest{hosts: hosts, bias: bias, random: random}
	if len(hosts) <= maxCandidates {
		for _, weight := range weights {
			w.weights = append(w.weights, float64(weight))
		}
	} else {
		w.slots = aliasSlots(weights)
		w.candidates = min(int(choices), maxCandidates)
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
	hosts  []*Host
	bias   float64
	random func() uint64
	// weights is what all hosts are weighed by; nil if candidates are drawn.
	weights    []float64
	slots      []aliasSlot
	candidates int
}

func (w *weightedLeastRequest) next() int {
	var index [maxCandidates]int
	var weight [maxCandidates]float64
	var sum float64
	n := len(w.weights)
	for i := range n {
		index[i] = i
		weight[i] = w.weights[i] * w.idleness(w.hosts[i])
		sum += weight[i]
	}
	if n == 0 {
		n = w.candidates
		for i := range n {
			index[i] = aliasIndex(w.slots, w.random())
		}
		for i := range n {
			weight[i] = w.idleness(w.hosts[index[i]])
			sum += weight[i]
		}
	}
	r := float64(w.random()>>11) / (1 << 53) * sum
	for i, x := range weight[:n] {
		if r < x {
			return index[i]
		}
		r -= x
	}
	// Nothing weighs anything: no candidate is reachable, or the bias is so large
	// that only the least busy one counts. (Or rounding left a trace of r.)
	best := index[0]
	for _, i := range index[1:n] {
		if lessBusy(w.hosts[i], w.hosts[best]) {
			best = i
		}
	}
	return best
}

// idleness returns 1/(active+1)^bias, and 0 if the host is not reachable.
func (w *weightedLeastRequest) idleness(h *Host) float64 {
	switch {
	case !h.Reachable():
		return 0
	case w.bias == 1:
		return 1 / float64(h.Active()+1)
	}
	return math.Pow(float64(h.Active()+1), -w.bias)
}
