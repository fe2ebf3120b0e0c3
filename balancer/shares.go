package balancer

import "slices"

// Share is what a part of a priority gets of a set's traffic: its healthy hosts, its
// degraded ones, or in a panic all.
type Share struct {
	Priority uint32
	Degraded bool
	// Percent is of the traffic of the set.
	Percent float64
	// Localities are what localities get of that; nil if it is not divided by them.
	Localities []LocalityShare
}

// LocalityShare is what a locality gets of a [Share].
type LocalityShare struct {
	// Locality is that of all hosts that share this, Any is set if they have several.
	Locality Locality
	Any      bool
	// Percent is of the share.
	Percent float64
}

// Shares says how traffic with this match is divided now, in order; nil if nothing can
// be picked. Of end every place up to it counts, see [Parts]; the zero value is all. What a
// call prefers, and hosts that cannot be reached, are not considered.
func (s *Set) Shares(m *Match, end Part) []Share {
	snapshot := s.snapshot.Load()
	if snapshot.subsets != nil {
		snapshot, _ = snapshot.subsets.find(m)
	}
	if snapshot.err != nil {
		return nil
	}
	if snapshot.levels != nil {
		return []Share{snapshot.serving().share(100)}
	}
	all, counts := 100.0, func(*choice) bool { return true }
	if whole := snapshot.whole(end); whole > 0 {
		all, counts = end.At*float64(whole), func(c *choice) bool { return c.degraded == end.Degraded }
	}
	shares := make([]Share, 0, len(snapshot.choices))
	before, left := uint32(0), all
	for i := range snapshot.choices {
		c := &snapshot.choices[i]
		width := float64(c.below - before)
		before = c.below
		if given := min(width, left); counts(c) && given > rounding {
			shares = append(shares, c.share(100*given/all))
			left -= given
		}
	}
	return shares
}

func (c *choice) share(percent float64) Share {
	share := Share{Priority: c.priority, Degraded: c.degraded, Percent: percent}
	if len(c.groups) > 0 {
		share.Priority = c.groups[0].hosts[0].Priority()
	}
	sum := uint64(0)
	for _, w := range c.weights {
		sum += w
	}
	for i, w := range c.weights {
		hosts := c.groups[i].hosts
		l := LocalityShare{Locality: hosts[0].Locality(), Percent: 100 * float64(w) / float64(sum)}
		if l.Any = slices.ContainsFunc(hosts, func(h *Host) bool { return h.Locality() != l.Locality }); l.Any {
			l.Locality = Locality{}
		}
		share.Localities = append(share.Localities, l)
	}
	return share
}
