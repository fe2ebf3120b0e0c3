package balancer

import "slices"

// DefaultMinClusterSize is Envoy's default of [ZoneAware.MinClusterSize].
const DefaultMinClusterSize = 6

// ZoneAware keeps traffic in the caller's locality as far as that spreads it evenly
// (Envoy docs, zone aware load balancing). It is for the first priority of a set
// that does not balance by locality weight, and not for policies that hash.
type ZoneAware struct {
	// RoutingEnabled is the share of the traffic that it is for, in percent.
	RoutingEnabled float64
	// MinClusterSize is how many healthy hosts the first priority must have; 0 means
	// [DefaultMinClusterSize].
	MinClusterSize uint64
	// ForceLocal sends everything to the caller's locality while that has so many
	// healthy hosts; 0 does not.
	ForceLocal uint32
	// ByWeight compares localities by the weights of their healthy hosts, and not by
	// how many they are.
	ByWeight bool
	// Local is the caller's locality, Callers the endpoints of the caller's own
	// cluster: those that share the work with it. Without either there is no zone
	// aware routing.
	Local   Locality
	Callers []LocalityEndpoints
}

// Why there is no zone aware routing although it is configured.
const (
	zoneNoLocal    = "the caller's locality is not known"
	zoneNoCallers  = "the endpoints of the caller's own cluster are not known"
	zoneOneOnly    = "the endpoints are of one locality only"
	zoneSmall      = "too few healthy endpoints"
	zonePanic      = "too few endpoints of the caller's own cluster are healthy"
	zoneNoneOurs   = "the caller's own cluster has no endpoint in the caller's locality"
	zoneByLocality = "the cluster balances by locality weight, or by a hash"
)

// ZoneRouting returns why zone aware routing does not act: "" if it does, or is not
// configured.
func (s *Set) ZoneRouting() string { return s.snapshot.Load().zoneOff }

// zoned makes the choice of the healthy hosts of the first priority with zone aware
// routing, or says why there is none.
func (b *builder) zoned(l *level, below uint32) (made choice, off string) {
	z := b.config.ZoneAware
	if off := b.zoneOff(l); off != "" {
		return choice{}, off
	}
	here := slices.IndexFunc(l.spans, func(sp span) bool { return sp.locality.Locality == z.Local })
	shares := z.shares(l, here)
	made = choice{below: below}
	var weights []uint64
	add := func(g *group, share float64) {
		if weight := uint64(share * localityScale); weight > 0 {
			made.groups, weights = append(made.groups, g), append(weights, weight)
		}
	}
	for i, sp := range l.spans {
		if shares[i] > 0 {
			key := cursorKey{priority: l.priority, locality: sp.locality.Locality, class: healthyHosts}
			add(b.group(selectHosts([]span{sp}, healthyHosts, l.counts[i].healthy), key), shares[i]*z.RoutingEnabled/100)
		}
	}
	if z.RoutingEnabled < 100 {
		add(b.merged(l, healthyHosts), 1-z.RoutingEnabled/100)
	}
	if len(made.groups) > 1 {
		made.order, made.weights = newTurns(weights, b.cursor(cursorKey{priority: l.priority, class: healthyHosts, order: true})), weights
	}
	return made, ""
}

// zoneOff returns why there is no zone aware routing; "" if there is.
func (b *builder) zoneOff(l *level) string {
	z := b.config.ZoneAware
	localities := 0
	for i := range l.spans {
		if l.counts[i].healthy > 0 {
			localities++
		}
	}
	callers, usable, ours := z.callers()
	least := z.MinClusterSize
	if least == 0 {
		least = DefaultMinClusterSize
	}
	switch {
	case b.config.LocalityWeighted || b.config.Policy.hashes():
		return zoneByLocality
	case z.Local == (Locality{}):
		return zoneNoLocal
	case callers == 0:
		return zoneNoCallers
	case localities < 2:
		return zoneOneOnly
	case uint64(l.sum.healthy) < least:
		return zoneSmall
	case b.config.PanicThreshold > 0 && 100*float64(usable)/float64(callers) < b.config.PanicThreshold:
		return zonePanic
	case ours == 0:
		return zoneNoneOurs
	}
	return ""
}

// callers counts the caller's own cluster: all of it, what is healthy or degraded,
// and what of all is where the caller is.
func (z *ZoneAware) callers() (all, usable, here int) {
	for i := range z.Callers {
		l := &z.Callers[i]
		all += len(l.Endpoints)
		if l.Locality == z.Local {
			here += len(l.Endpoints)
		}
		for j := range l.Endpoints {
			if l.Endpoints[j].usual() || l.Endpoints[j].Health == Degraded {
				usable++
			}
		}
	}
	return all, usable, here
}

// usual reports whether the configuration says nothing against an endpoint.
func (e *Endpoint) usual() bool { return e.Health == Unknown || e.Health == Healthy }

// shares returns what each span gets of the traffic. Its own locality gets all if it
// has at least the share of the hosts that it has of the callers. Else it gets as
// much of the callers' traffic there as it has room for, which is none without a
// healthy host; the rest goes where there is more room than callers, in proportion.
// here is negative if no host is in the caller's locality.
func (z *ZoneAware) shares(l *level, here int) []float64 {
	shares := make([]float64, len(l.spans))
	if z.ForceLocal > 0 && here >= 0 && l.counts[here].healthy >= int(z.ForceLocal) {
		shares[here] = 1
		return shares
	}
	room, work := make([]float64, len(l.spans)), make(map[Locality]float64)
	var allRoom, allWork float64
	for i, sp := range l.spans {
		for _, h := range sp.hosts {
			if h.in(healthyHosts) {
				room[i] += z.weightOf(h.Endpoint())
			}
		}
		allRoom += room[i]
	}
	for i := range z.Callers {
		for j := range z.Callers[i].Endpoints {
			if e := &z.Callers[i].Endpoints[j]; e.usual() {
				work[z.Callers[i].Locality] += z.weightOf(e)
				allWork += z.weightOf(e)
			}
		}
	}
	keep := 0.0
	if here >= 0 && room[here] > 0 {
		// Without work of healthy callers there it is infinite.
		if keep = (room[here] / allRoom) / (work[z.Local] / max(allWork, 1)); keep >= 1 {
			shares[here] = 1
			return shares
		}
	}
	var residual float64
	localities := 0
	for i, sp := range l.spans {
		localities += min(l.counts[i].healthy, 1)
		if i != here {
			shares[i] = max(room[i]/allRoom-work[sp.locality.Locality]/max(allWork, 1), 0)
			residual += shares[i]
		}
	}
	for i := range shares {
		switch {
		case residual > 0:
			shares[i] *= (1 - keep) / residual
		case l.counts[i].healthy > 0: // nobody has room: any locality
			shares[i] = (1 - keep) / float64(localities)
		}
	}
	if here >= 0 && residual > 0 {
		shares[here] = keep
	} else if here >= 0 {
		shares[here] += keep
	}
	return shares
}

func (z *ZoneAware) weightOf(e *Endpoint) float64 {
	if z.ByWeight {
		return float64(max(e.Weight, 1))
	}
	return 1
}
