package balancer

import (
	"slices"
	"time"
)

// snapshot is everything that a pick needs. It is immutable but for the cursors
// and the notes of groups.
type snapshot struct {
	// hosts is all of them, in the order of the configuration.
	hosts []*Host
	// choices are what traffic is divided among; empty if err is set.
	choices []choice
	// reserve is what has no traffic and serves if no host of the choices is
	// reachable, best first.
	reserve []*group
	// levels are all priorities, the preferred one first, with Config.Failover; nil
	// without it.
	levels []choice
	// hashing and timed say what picks need.
	hashing, timed bool
	// subsets is nil without them, and within them.
	subsets *subsets
	err     error
	// zoneOff is why there is no zone aware routing.
	zoneOff string
	// capacity is what the set has to offer beside others.
	capacity Capacity
	// addresses and pinnable are for picks that are pinned; nil within subsets.
	addresses *addresses
	pinnable  HealthSet
}

// choice is the part of a priority that gets a share of the traffic: its healthy
// hosts, its degraded hosts, or in a panic all.
type choice struct {
	// below is the share in percent, added to that of the choices before.
	below uint32
	// groups has one element, or one for each weighted locality, or none if what
	// comes here is to fail.
	groups []*group
	// order chooses one of several groups, by their weights.
	order   chooser
	weights []uint64
	// degraded says that the share is that of degraded hosts.
	degraded bool
	// panics says that the priority is in panic. priority is only set if it is.
	panics   bool
	priority uint32
	// standing and within are for those of snapshot.levels.
	standing *standing
	within   time.Duration
}

// pick returns the group for the next request, nil if it is to fail.
func (c *choice) pick() *group {
	switch {
	case c.order != nil:
		return c.groups[c.order.next()]
	case len(c.groups) == 0:
		return nil
	}
	return c.groups[0]
}

// span is the hosts of one locality of the configuration.
type span struct {
	locality *LocalityEndpoints
	hosts    []*Host
}

// class is a kind of hosts that are used together.
type class uint8

const (
	healthyHosts class = iota
	degradedHosts
	allHosts
)

// in reports whether a host belongs to a class.
func (h *Host) in(c class) bool { return c == allHosts || h.class() == c }

// class is the smallest class of a host. Those that are ejected, or fail their
// checks, are unhealthy, as in Envoy, so that they count for priorities and panic.
func (h *Host) class() class {
	if !h.inService() {
		return allHosts
	}
	switch checked := h.Check().class(); h.Endpoint().Health {
	case Unknown, Healthy:
		return checked
	case Degraded:
		return max(checked, degradedHosts)
	}
	return allHosts
}

// builder makes a snapshot.
type builder struct {
	config Config
	random func() uint64
	// old are the cursors of the snapshot before, so that an update does not begin
	// every turn anew; cursors are those in use.
	old, cursors cursors
	// salt is the set's own; at is the time since the set's epoch.
	salt  uint64
	epoch time.Time
	at    time.Duration
	// standings are those of priorities, by priority.
	standings map[uint32]*standing
	// unused says that there are no picks from the snapshot in the making.
	unused bool
}

func (b *builder) build(hosts []*Host, spans []span) *snapshot {
	s := &snapshot{hosts: hosts, hashing: b.config.Policy.hashes(), timed: b.config.timed()}
	levels := b.levels(spans)
	s.capacity = capacityOf(levels, b.config)
	if b.config.Failover != nil {
		if b.failover(s, levels); len(hosts) == 0 {
			s.err = ErrNoEndpoint
		} else if len(s.levels) == 0 {
			s.err = ErrNoHealthyEndpoint
		}
		return s
	}
	shares, panicking := divide(levels, b.config)
	var below uint32
	for i, level := range levels {
		share := shares[i]
		if panicking[i] {
			// A panic knows neither health nor localities, as in Envoy.
			if all := share.healthy + share.degraded; all > 0 {
				below += all
				panicked := choice{below: below, panics: true, priority: level.priority}
				if !b.config.FailOnPanic {
					panicked.groups = []*group{b.merged(level, allHosts)}
				}
				s.choices = append(s.choices, panicked)
			}
			continue
		}
		for _, part := range []struct {
			class class
			share uint32
		}{{healthyHosts, share.healthy}, {degradedHosts, share.degraded}} {
			if part.share > 0 {
				below += part.share
				made := b.choice(level, part.class, below)
				if b.config.ZoneAware != nil && level.priority == 0 && part.class == healthyHosts {
					var zoned choice
					switch zoned, s.zoneOff = b.zoned(level, below); {
					case s.zoneOff == "":
						made = zoned
					case s.zoneOff == zonePanic && b.config.FailOnPanic && b.config.ZoneAware.RoutingEnabled >= 100:
						made = choice{below: below} // as in Envoy
					}
				}
				made.degraded = part.class == degradedHosts
				s.choices = append(s.choices, made)
			}
		}
	}
	switch {
	case len(hosts) == 0:
		s.err = ErrNoEndpoint
	case len(s.choices) == 0:
		s.err = ErrNoHealthyEndpoint
	default:
		s.reserve = b.reserve(levels, shares, panicking)
	}
	return s
}

// levels sorts the localities by priority. With weighted localities those without
// a weight are not there (gRFC A27).
func (b *builder) levels(spans []span) []*level {
	byPriority := make(map[uint32]*level)
	var levels []*level
	for _, sp := range spans {
		if len(sp.hosts) == 0 || b.config.LocalityWeighted && sp.locality.Weight == 0 {
			continue
		}
		l := byPriority[sp.locality.Priority]
		if l == nil {
			l = &level{priority: sp.locality.Priority}
			byPriority[l.priority] = l
			levels = append(levels, l)
		}
		l.add(sp)
	}
	sortLevels(levels)
	return levels
}

// choice makes the choice for one class of a level.
func (b *builder) choice(l *level, c class, below uint32) choice {
	if !b.config.LocalityWeighted || b.config.Policy.hashes() {
		return choice{below: below, groups: []*group{b.merged(l, c)}}
	}
	made := choice{below: below}
	var weights []uint64
	for i, sp := range l.spans {
		available := l.counts[i].of(c)
		if available == 0 {
			continue
		}
		hosts := selectHosts([]span{sp}, c, available)
		key := cursorKey{priority: l.priority, locality: sp.locality.Locality, class: c}
		made.groups = append(made.groups, b.group(hosts, key))
		weights = append(weights, localityWeight(sp.locality.Weight, available, l.counts[i].total, b.config.overprovisioning()))
	}
	if len(made.groups) > 1 {
		made.order, made.weights = newTurns(weights, b.cursor(cursorKey{priority: l.priority, class: c, order: true})), weights
	}
	return made
}

// merged makes one group of all localities of a level.
func (b *builder) merged(l *level, c class) *group {
	hosts, key := selectHosts(l.spans, c, l.sum.of(c)), cursorKey{priority: l.priority, class: c}
	if b.config.Policy.hashes() && !b.unused {
		return b.hashed(hosts, l, c)
	}
	return b.group(hosts, key)
}

// reserve makes the groups without traffic: first the healthy ones of all
// priorities, then the degraded ones.
func (b *builder) reserve(levels []*level, shares []share, panicking []bool) []*group {
	var groups []*group
	for _, c := range []class{healthyHosts, degradedHosts} {
		for i, l := range levels {
			if !panicking[i] && shares[i].of(c) == 0 && l.sum.of(c) > 0 {
				groups = append(groups, &group{hosts: selectHosts(l.spans, c, l.sum.of(c))})
			}
		}
	}
	return groups
}

// group makes a group that is picked from by the policy.
func (b *builder) group(hosts []*Host, key cursorKey) *group {
	g := &group{hosts: hosts}
	if b.unused {
		return g
	}
	weights := weightsOf(hosts)
	switch b.config.Policy {
	case LeastRequest:
		g.chooser = newLeastRequest(hosts, weights, b.config, b.random)
		g.picker = b.warm(g.chooser, hosts)
	case Random:
		g.chooser = newDraw(len(hosts), weights, b.random)
	case PeakEWMA:
		g.picker = b.peakEWMA(hosts, weights)
	case PickFirst:
		g.picker = newFirst(hosts, b.config.Shuffle, b.salt, b.cursor(key))
	case CustomPolicy:
		g.picker = newCustom(b.config.Custom, hosts)
	case ClientWeighted:
		g.chooser = b.turns(len(hosts), clientWeights(hosts, b.at, &b.config.ClientWeighted), key)
		g.picker = b.warm(g.chooser, hosts)
	default:
		g.chooser = b.turns(len(hosts), weights, key)
		g.picker = b.warm(g.chooser, hosts)
	}
	return g
}

// turns is round robin; nil weights are equal.
func (b *builder) turns(n int, weights []uint64, key cursorKey) chooser {
	if weights == nil {
		return &turns{cursor: b.cursor(key), n: uint64(n)}
	}
	return newTurns(weights, b.cursor(key))
}

func (b *builder) peakEWMA(hosts []*Host, weights []uint64) picker {
	p := &peakEWMA{hosts: hosts, epoch: b.epoch, decay: orDefault(b.config.DecayTime, defaultDecay).Seconds(), random: b.random}
	if weights != nil {
		p.draw = newDraw(len(hosts), weights, b.random)
	}
	return p
}

// hashed makes the group of a policy that hashes. All localities are in one ring
// or table: with weighted ones, each locality's hosts have its share (Envoy).
func (b *builder) hashed(hosts []*Host, l *level, c class) *group {
	g := &group{hosts: hosts}
	weights := make([]float64, 0, len(hosts))
	for i, sp := range l.spans {
		if b.config.LocalityWeighted && c != allHosts && l.counts[i].of(c) == 0 {
			continue
		}
		first := len(weights)
		var sum float64
		for _, h := range sp.hosts {
			if h.in(c) {
				weights = append(weights, float64(h.weight()))
				sum += float64(h.weight())
			}
		}
		if b.config.LocalityWeighted {
			for j := range weights[first:] {
				weights[first+j] *= float64(sp.locality.Weight) / sum
			}
		}
	}
	shares := hashShares(weights)
	if b.config.Policy == Maglev {
		g.picker = newMaglev(hosts, shares, &b.config)
	} else {
		g.picker = newRing(hosts, shares, &b.config)
	}
	if b.config.HashBalanceFactor > 0 {
		g.picker = &bounded{picker: g.picker, hosts: hosts, shares: shares, factor: b.config.HashBalanceFactor}
	}
	return g
}

func (b *builder) cursor(key cursorKey) *cursor {
	c := b.old.find(key)
	if c == nil {
		c = &cursor{}
		// A random start, so that many clients do not begin at one host.
		c.n.Store(b.random())
	}
	b.cursors.add(key, c)
	return c
}

// selectHosts returns the n hosts of a class. It copies only if it must.
func selectHosts(spans []span, c class, n int) []*Host {
	if len(spans) == 1 && len(spans[0].hosts) == n {
		return spans[0].hosts
	}
	hosts := make([]*Host, 0, n)
	for _, sp := range spans {
		for _, h := range sp.hosts {
			if h.in(c) {
				hosts = append(hosts, h)
			}
		}
	}
	return hosts
}

// weightsOf returns the weights of the hosts, nil if they are equal.
func weightsOf(hosts []*Host) []uint64 {
	first := hosts[0].weight()
	if !slices.ContainsFunc(hosts, func(h *Host) bool { return h.weight() != first }) {
		return nil
	}
	weights := make([]uint64, len(hosts))
	for i, h := range hosts {
		weights[i] = h.weight()
	}
	return weights
}

func (h *Host) weight() uint64 { return uint64(max(h.Endpoint().Weight, 1)) }
