package balancer

import "slices"

// Capacity is what a set has to offer beside other sets, as an aggregate cluster
// looks at the clusters that it consists of.
type Capacity struct {
	// Healthy and Degraded are how available its priorities are together, in
	// percent of what the traffic needs, at most 100 together.
	Healthy, Degraded uint32
	// Hosts is how many it has, Priorities how many priorities they are in.
	Hosts, Priorities int
}

func capacityOf(levels []*level, config Config) Capacity {
	c := Capacity{Priorities: len(levels)}
	available, _ := availabilities(levels, config.overprovisioning())
	for i, l := range levels {
		c.Healthy += available[i].healthy
		c.Degraded += available[i].degraded
		c.Hosts += l.sum.hosts
	}
	c.Healthy = min(c.Healthy, 100)
	// A part of the set's traffic is a place in what its priorities get if they are
	// alone, in which degraded hosts get what healthy ones leave.
	c.Degraded = min(c.Degraded, 100-c.Healthy)
	if config.Failover != nil { // one healthy host is enough, and nothing else is
		c.Healthy, c.Degraded = 100*min(c.Healthy, 1), 0
	}
	return c
}

// Capacity returns what the set has to offer now. It is quick.
func (s *Set) Capacity() Capacity { return s.snapshot.Load().capacity }

// Part is a place in the traffic of a set: of the priorities that share it, it is
// one that a pick takes. So several sets are one long list of priorities.
type Part struct {
	// At is the place, above 0 and at most 1; 0 draws one.
	At float64
	// Degraded says that the traffic is that of degraded hosts.
	Degraded bool
}

// Chain divides traffic among n sets as if the priorities of each followed those of
// the one before (Envoy docs, aggregate cluster): it returns which set a request
// goes to, and the part of that set's traffic that it is of. random is a random
// number, or a hash for what is to stay together. n must be at least 1.
//
// Without anything available the sets get traffic by their numbers of hosts: each
// decides by its own panic mode what becomes of it.
func Chain(n int, of func(i int) Capacity, random uint64) (i int, part Part) {
	total, hosts := uint32(0), 0
	for i := range n {
		c := of(i)
		total += c.Healthy + c.Degraded
		hosts += c.Hosts
	}
	if total == 0 {
		at := int(random % uint64(max(hosts, 1)))
		for i := range n {
			if at -= of(i).Hosts; at < 0 {
				return i, Part{}
			}
		}
		return 0, Part{}
	}
	// Places are in units of availability, of which there are at most 100.
	total = min(total, 100)
	const steps = 1 << 20
	at := (float64(random%steps) + 0.5) / steps * float64(total)
	for _, degraded := range [2]bool{false, true} {
		for i := range n {
			c := of(i)
			available := c.Healthy
			if degraded {
				available = c.Degraded
			}
			if at < float64(available) {
				return i, Part{At: at / float64(available), Degraded: degraded}
			}
			at -= float64(available)
		}
	}
	return 0, Part{} // a capacity changed meanwhile
}

// Parts says what of the traffic that [Chain] divides comes to each of n sets: the
// parts that it may return with the set's number, each once, with the place that is the
// end of those. A set without parts gets nothing.
func Parts(n int, of func(i int) Capacity) [][]Part {
	parts := make([][]Part, n)
	total, hosts := uint32(0), 0
	for i := range n {
		c := of(i)
		total += c.Healthy + c.Degraded
		hosts += c.Hosts
	}
	if total == 0 {
		for i := range n {
			if of(i).Hosts > 0 || hosts == 0 && i == 0 {
				parts[i] = []Part{{}}
			}
		}
		return parts
	}
	left := min(total, 100)
	for _, degraded := range [2]bool{false, true} {
		for i := range n {
			c := of(i)
			available := c.Healthy
			if degraded {
				available = c.Degraded
			}
			if given := min(left, available); given > 0 {
				parts[i] = append(parts[i], Part{At: float64(given) / float64(available), Degraded: degraded})
				left -= given
			}
		}
	}
	return parts
}

// at returns the choice that a part of the traffic is of, nil if there is none any
// more.
func (s *snapshot) at(part Part) *choice {
	whole := uint32(0)
	for i, before := 0, uint32(0); i < len(s.choices); i++ {
		if s.choices[i].degraded == part.Degraded {
			whole += s.choices[i].below - before
		}
		before = s.choices[i].below
	}
	left := part.At * float64(whole)
	var last *choice
	for i, before := 0, uint32(0); i < len(s.choices); i++ {
		c := &s.choices[i]
		if c.degraded == part.Degraded {
			if last = c; left <= float64(c.below-before) {
				return c
			}
			left -= float64(c.below - before)
		}
		before = c.below
	}
	return last
}

// comesTo reports whether a choice gets something of the traffic up to a place.
func (s *snapshot) comesTo(i int, end Part) bool {
	if end.At == 0 || !slices.ContainsFunc(s.choices, func(c choice) bool { return c.degraded == end.Degraded }) {
		return true // it is of the whole
	}
	var whole, begins, before uint32
	for j := range s.choices {
		if s.choices[j].degraded == end.Degraded {
			if j < i {
				begins += s.choices[j].below - before
			}
			whole += s.choices[j].below - before
		}
		before = s.choices[j].below
	}
	return s.choices[i].degraded == end.Degraded && float64(begins)+rounding < end.At*float64(whole)
}

// rounding is what places may be off by.
const rounding = 1e-6

// whole is what the choices have together that a part is one of, in percent; 0 if it is of
// all of them.
func (s *snapshot) whole(of Part) (percent uint32) {
	if of.At == 0 {
		return 0
	}
	before := uint32(0)
	for i := range s.choices {
		if s.choices[i].degraded == of.Degraded {
			percent += s.choices[i].below - before
		}
		before = s.choices[i].below
	}
	return percent
}

// Usable reports whether a pick would find a host that is reachable and not to be
// avoided.
func (s *Set) Usable(info *PickInfo) bool {
	snapshot := s.snapshot.Load()
	if snapshot.subsets != nil {
		snapshot, _ = snapshot.subsets.find(info.Match)
	}
	if snapshot.err != nil {
		return false
	}
	search := search{revivals: s.revivals.Load(), random: s.random}
	for i := range snapshot.choices {
		for _, g := range snapshot.choices[i].groups {
			if search.in(g, info) != nil {
				return true
			}
		}
	}
	for _, g := range snapshot.reserve {
		if search.in(g, info) != nil {
			return true
		}
	}
	return false
}
