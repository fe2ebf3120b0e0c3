package upstream

import (
	"slices"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/observe"
)

// Spare returns a manager of clusters that nobody calls, with the options of m: to
// look at a configuration that is not in force. It reports nothing. Close ends it.
func (m *Manager) Spare() *Manager {
	options := m.options
	options.Hooks = &observe.Hooks{}
	spare := NewManager(options)
	spare.idle = true
	return spare
}

// Running is the cluster of a name that is called, nil if none is. Whoever gets it
// does not hold it: it is to be looked at.
func (m *Manager) Running(name string) *Cluster {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.clusters[name]
}

// Assignment is the endpoints in force as configured, nil before the first.
func (c *Cluster) Assignment() *discovery.Assignment { return c.state.Load().endpoints }

// TLSSettings is how the endpoint is reached now, nil for plaintext. It must not be changed.
func (e *Endpoint) TLSSettings() *discovery.UpstreamTLS {
	if t := e.cluster.state.Load().tlsOf(e); t != nil {
		return t.settings
	}
	return nil
}

// OfSubset reports whether a host is one of those that calls for a subset may go to.
func (c *Cluster) OfSubset(h *balancer.Host, m *balancer.Match) bool { return c.set.OfSubset(h, m) }

// Parted says how many endpoints there are, and how many of them the cluster uses because
// it gives each process a part of them; 0 and 0 without subsetting, or if that is all.
func (c *Cluster) Parted() (used, all int) {
	state := c.state.Load()
	if state.config == nil || state.endpoints == nil || state.config.Balancer.Subsetting.Size == 0 {
		return 0, 0
	}
	addresses := make(map[string]bool)
	for _, l := range c.names.Load().localities(state.endpoints.Localities) {
		for i := range l.Endpoints {
			addresses[l.Endpoints[i].Address] = true
		}
	}
	if used = c.set.Len(); used == len(addresses) {
		return 0, 0
	}
	return used, len(addresses)
}

// Warmth is the share of its weight that slow start leaves a host now; 1 if nobody calls
// the cluster.
func (c *Cluster) Warmth(h *balancer.Host) float64 {
	config := c.Config()
	if config == nil || c.manager.idle {
		return 1
	}
	return h.Warmth(&config.Balancer)
}

// Turn is a cluster that a first attempt may go to now, the hosts of which it takes
// one there, and why there is none. Panics are those of its priorities that the attempt
// may come to and that are in panic, see [balancer.Set.Panics].
type Turn struct {
	Cluster *Cluster
	Hosts   []*balancer.Host
	Err     error
	Panics  []uint32
}

// Turns are the clusters that [Cluster.Leaf] may choose for a first attempt now, with
// what Pick takes one of: c alone, or of an aggregate those that traffic comes to. What
// a session or a hash determines is not left to chance. Of info it looks at Prefer, Match,
// Pinned, Strict, Hash and Hashed, and of the hashes at what they are in the cluster.
func (c *Cluster) Turns(info balancer.PickInfo, hashes LeafHashes) []Turn {
	leaves := c.Leaves()
	if len(leaves) == 0 || info.Hashed || pinning(leaves, &info) >= 0 {
		leaf := c.Leaf(&info)
		hashes.In(leaf, &info)
		return []Turn{leaf.turn(info)}
	}
	var turns []Turn
	add := func(leaf *Cluster, part balancer.Part) {
		narrowed := info
		narrowed.Part = part
		hashes.In(leaf, &narrowed)
		next := leaf.turn(narrowed)
		at := slices.IndexFunc(turns, func(t Turn) bool { return t.Cluster == leaf })
		if at < 0 {
			turns = append(turns, next)
			return
		}
		panics := slices.Concat(turns[at].Panics, next.Panics)
		if turns[at].Err != nil {
			turns[at] = next
		} else {
			turns[at].Hosts = append(turns[at].Hosts, next.Hosts...)
		}
		slices.Sort(panics)
		turns[at].Panics = slices.Compact(panics)
	}
	for i, parts := range balancer.Parts(len(leaves), func(i int) balancer.Capacity { return leaves[i].capacity() }) {
		for _, part := range parts {
			leaf := leaves[i]
			if !leaf.usable(&balancer.PickInfo{Match: info.Match}) {
				part = balancer.Part{}
				if other := slices.IndexFunc(leaves, func(l *Cluster) bool { return l.usable(&balancer.PickInfo{Match: info.Match}) }); other >= 0 {
					leaf = leaves[other]
				}
			}
			add(leaf, part)
		}
	}
	return turns
}

// turn is the turn of a cluster that is no aggregate.
func (c *Cluster) turn(info balancer.PickInfo) Turn {
	t := Turn{Cluster: c}
	if t.Err = c.Err(); t.Err != nil {
		return t
	}
	if c.Config().EndpointBreaker != nil {
		info.Refuses = Tripped
	}
	if info.InFlight = c.inFlight(); info.Hashed {
		info.InFlight++ // the call that would be made
	}
	t.Hosts, t.Err = c.set.CandidatesFor(&info)
	t.Panics = c.set.Panics(&info)
	return t
}
