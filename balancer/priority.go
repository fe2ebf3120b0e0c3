package balancer

import (
	"cmp"
	"math/bits"
	"slices"
)

// defaultOverprovisioning is Envoy's default factor in percent.
const defaultOverprovisioning = 140

func (c *Config) overprovisioning() uint64 {
	if c.OverprovisioningFactor == 0 {
		return defaultOverprovisioning
	}
	return uint64(c.OverprovisioningFactor)
}

// level is the localities of one priority.
type level struct {
	priority uint32
	spans    []span
	counts   []count // of each span
	sum      count
}

// count is how many hosts there are by health. total is without those that are
// excluded from the calculation.
type count struct{ hosts, total, healthy, degraded int }

func (c count) of(cl class) int {
	switch cl {
	case healthyHosts:
		return c.healthy
	case degradedHosts:
		return c.degraded
	}
	return c.hosts
}

func (l *level) add(sp span) {
	c := count{hosts: len(sp.hosts), total: len(sp.hosts)}
	for _, h := range sp.hosts {
		switch h.class() {
		case healthyHosts:
			c.healthy++
		case degradedHosts:
			c.degraded++
		case allHosts:
			if h.Check() == Excluded {
				c.total--
			}
		}
	}
	l.spans = append(l.spans, sp)
	l.counts = append(l.counts, c)
	l.sum.hosts += c.hosts
	l.sum.total += c.total
	l.sum.healthy += c.healthy
	l.sum.degraded += c.degraded
}

func sortLevels(levels []*level) {
	slices.SortFunc(levels, func(a, b *level) int { return cmp.Compare(a.priority, b.priority) })
}

// share is what a level gets of the traffic, in percent.
type share struct{ healthy, degraded uint32 }

func (s share) of(c class) uint32 {
	if c == healthyHosts {
		return s.healthy
	}
	return s.degraded
}

// divide divides the traffic among the levels, which all have hosts, and says
// which are in panic. The shares add up to 100, or to 0 if nothing may be used.
//
// It is Envoy's integer arithmetic (Envoy docs on priority levels, degraded
// endpoints and panic threshold): a level is as available as its share of healthy
// hosts times the overprovisioning factor, at most 100. The levels get that much,
// in order, until 100 are given; if all together do not have 100, in proportion.
// Degraded hosts get by the same rule what the healthy ones of all levels leave.
// What truncation leaves goes to the first level that has anything.
//
// Only if all together do not have 100 is a level in panic whose share of healthy
// and degraded hosts is below the threshold. If there is no usable host at all,
// the traffic is divided by the number of hosts.
func divide(levels []*level, config Config) (shares []share, panicking []bool) {
	shares = make([]share, len(levels))
	panicking = make([]bool, len(levels))
	available, sum := availabilities(levels, config.overprovisioning())
	total := uint32(min(100, sum))
	if total < 100 && config.PanicThreshold > 0 {
		for i, l := range levels {
			usable := 100 * float64(l.sum.healthy+l.sum.degraded) / float64(max(l.sum.total, 1))
			panicking[i] = usable < config.PanicThreshold
		}
	}
	if total == 0 {
		if config.PanicThreshold > 0 {
			divideByHosts(levels, shares)
		}
		return shares, panicking
	}
	left := uint32(100)
	take := func(available uint32) uint32 {
		part := min(available*100/total, left)
		left -= part
		return part
	}
	for i := range levels {
		shares[i].healthy = take(available[i].healthy)
	}
	for i := range levels {
		shares[i].degraded = take(available[i].degraded)
	}
	for i := range levels {
		if available[i].healthy > 0 {
			shares[i].healthy += left
			break
		}
		if available[i].degraded > 0 {
			shares[i].degraded += left
			break
		}
	}
	return shares, panicking
}

// divideByHosts is for levels without a usable host.
func divideByHosts(levels []*level, shares []share) {
	hosts := 0
	for _, l := range levels {
		hosts += l.sum.hosts
	}
	left := uint32(100)
	for i, l := range levels {
		shares[i].healthy = uint32(100 * l.sum.hosts / hosts)
		left -= shares[i].healthy
	}
	if len(levels) > 0 {
		shares[0].healthy += left
	}
}

// availabilities returns how available each level is, in percent, and their sum.
func availabilities(levels []*level, factor uint64) (available []share, sum uint64) {
	available = make([]share, len(levels))
	for i, l := range levels {
		available[i] = share{
			healthy:  availability(l.sum.healthy, l.sum.total, factor),
			degraded: availability(l.sum.degraded, l.sum.total, factor),
		}
		sum += uint64(available[i].healthy) + uint64(available[i].degraded)
	}
	if sum > 0 {
		return available, sum
	}
	// Truncation must not make the few usable hosts of large levels vanish.
	for i, l := range levels {
		available[i] = share{healthy: uint32(min(1, l.sum.healthy)), degraded: uint32(min(1, l.sum.degraded))}
		sum += uint64(available[i].healthy) + uint64(available[i].degraded)
	}
	return available, sum
}

// availability returns min(100, factor * n / total); a total of 0 is of nothing.
func availability(n, total int, factor uint64) uint32 {
	return uint32(min(100, factor*uint64(n)/uint64(max(total, 1))))
}

// localityScale keeps fractions of locality weights as integers.
const localityScale = 1 << 20

// localityWeight returns what a locality weighs when only some of its hosts are
// available: weight * min(1, factor * available / total), times localityScale and
// at least 1.
func localityWeight(weight uint32, available, total int, factor uint64) uint64 {
	whole := 100 * uint64(total)
	part := min(whole, factor*uint64(available))
	hi, lo := bits.Mul64(uint64(weight)*localityScale, part)
	scaled, _ := bits.Div64(hi, lo, whole)
	return max(scaled, 1)
}
