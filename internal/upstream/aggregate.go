package upstream

import (
	"cmp"
	"maps"
	"math/rand/v2"
	"slices"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/discovery"
)

// Leaf returns the cluster that an attempt goes to, of which the limits, the
// breaker and the endpoints are, and narrows info to what the attempt may pick
// there. That is c itself unless c is an aggregate: then it is one of those that it
// consists of, whose priorities follow one another. One without an endpoint that
// can be reached, and that is not to be avoided, is passed over for the next.
func (c *Cluster) Leaf(info *balancer.PickInfo) *Cluster {
	leaves := c.state.Load().leaves
	if len(leaves) == 0 {
		return c
	}
	if i := pinning(leaves, info); i >= 0 {
		return leafAt(leaves, i, info)
	}
	random := rand.Uint64()
	if info.Hashed {
		random = info.Hash
	}
	first, part := balancer.Chain(len(leaves), func(i int) balancer.Capacity { return leaves[i].capacity() }, random)
	info.Part = part
	if leaf := leafAt(leaves, first, info); leaf.usable(info) {
		return leaf
	}
	info.Part = balancer.Part{}
	for i := range leaves {
		if i == first {
			continue
		}
		if leaf := leafAt(leaves, i, info); leaf.usable(info) {
			return leaf
		}
	}
	return leafAt(leaves, first, info)
}

// leafAt returns a leaf. Before its priorities are those of the leaves before it.
func leafAt(leaves []*Cluster, at int, info *balancer.PickInfo) *Cluster {
	info.PriorityBase = 0
	for _, before := range leaves[:at] {
		info.PriorityBase += uint32(before.set.Capacity().Priorities)
	}
	return leaves[at]
}

// capacity is what the cluster offers to an aggregate.
func (c *Cluster) capacity() balancer.Capacity {
	if c.Err() != nil {
		return balancer.Capacity{}
	}
	return c.set.Capacity()
}

// usable reports whether an attempt that goes to the cluster would find an endpoint.
func (c *Cluster) usable(info *balancer.PickInfo) bool {
	config := c.Config()
	if config == nil || c.Err() != nil {
		return false
	}
	if config.EndpointBreaker == nil {
		return c.set.Usable(info)
	}
	refusing := *info
	refusing.Refuses = Tripped
	return c.set.Usable(&refusing)
}

// Leaves are the clusters that an aggregate consists of, in order; nil for others.
func (c *Cluster) Leaves() []*Cluster { return c.state.Load().leaves }

// leavesOf finds the leaves of an aggregate among the clusters that are held with it.
func leavesOf(held map[string]*Cluster, names []string) []*Cluster {
	var leaves []*Cluster
	for _, name := range names {
		if c := held[name]; c != nil {
			leaves = append(leaves, c)
		}
	}
	return leaves
}

// applying is the order in which configurations that belong together are applied, so that
// an aggregate has somewhere to send calls all the time: first the clusters that have
// endpoints for calls, then the aggregates, then those that have none any more.
func applying(results map[string]discovery.ClusterResult) []string {
	rank := func(name string) int {
		switch r := results[name]; {
		case len(r.Leaves) > 0:
			return 1
		case r.Err == nil && r.Cluster != nil && serves(r.Endpoints):
			return 0
		}
		return 2
	}
	names := slices.Collect(maps.Keys(results))
	if slices.ContainsFunc(names, func(name string) bool { return rank(name) == 1 }) {
		slices.SortFunc(names, func(a, b string) int { return cmp.Compare(rank(a), rank(b)) })
	}
	return names
}

// serves reports whether an assignment has an endpoint for calls.
func serves(assignment *discovery.Assignment) bool {
	if assignment == nil {
		return false
	}
	fit := func(e balancer.Endpoint) bool {
		return e.Health == balancer.Unknown || e.Health == balancer.Healthy || e.Health == balancer.Degraded
	}
	return slices.ContainsFunc(assignment.Localities, func(l discovery.LocalityEndpoints) bool {
		return slices.ContainsFunc(l.Endpoints, fit)
	})
}

// Exhausted reports whether the cluster has no endpoint left that can be reached
// and is not to be avoided.
func (c *Cluster) Exhausted(info balancer.PickInfo) bool { return !c.usable(&info) }
