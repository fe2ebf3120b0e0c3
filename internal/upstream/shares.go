package upstream

import (
	"slices"

	"github.com/inboardmesh/inboard/balancer"
)

// Share is what a part of a cluster gets of the traffic, in percent of that of the cluster
// that was asked about. Of an aggregate the cluster is one that it consists of.
type Share struct {
	balancer.Share

	Cluster *Cluster
}

// Shares says how the traffic of a subset is divided, see [balancer.Set.Shares]. Of an
// aggregate it is what [Cluster.Leaf] does for many first attempts.
func (c *Cluster) Shares(m *balancer.Match) []Share {
	leaves := c.Leaves()
	if len(leaves) == 0 {
		return c.shares(nil, m, balancer.Part{}, 100)
	}
	var all []Share
	total := 0.0
	parts := balancer.Parts(len(leaves), func(i int) balancer.Capacity { return leaves[i].capacity() })
	for i := range parts {
		for _, part := range parts[i] {
			total += leaves[i].bears(part)
		}
	}
	usable := func(leaf *Cluster) bool { return leaf.usable(&balancer.PickInfo{Match: m}) }
	for i := range parts {
		for _, part := range parts[i] {
			leaf, percent := leaves[i], 100.0
			if total > 0 {
				percent *= leaf.bears(part) / total
			}
			if !usable(leaf) {
				if other := slices.IndexFunc(leaves, usable); other >= 0 {
					leaf, part = leaves[other], balancer.Part{}
				}
			}
			all = leaf.shares(all, m, part, percent)
		}
	}
	slices.SortStableFunc(all, func(a, b Share) int { return slices.Index(leaves, a.Cluster) - slices.Index(leaves, b.Cluster) })
	return all
}

// bears is how much of the traffic of an aggregate comes to a part of the cluster, in a
// unit of the aggregate's: percent of what it needs or, if nothing is available, endpoints.
func (c *Cluster) bears(part balancer.Part) float64 {
	switch capacity := c.capacity(); {
	case part.At == 0:
		return float64(capacity.Hosts)
	case part.Degraded:
		return part.At * float64(capacity.Degraded)
	default:
		return part.At * float64(capacity.Healthy)
	}
}

// shares adds those of the cluster, of which a part gets so much, to all.
func (c *Cluster) shares(all []Share, m *balancer.Match, part balancer.Part, percent float64) []Share {
	for _, share := range c.set.Shares(m, part) {
		share.Percent *= percent / 100
		at := slices.IndexFunc(all, func(s Share) bool {
			return s.Cluster == c && s.Priority == share.Priority && s.Degraded == share.Degraded
		})
		if at < 0 {
			all = append(all, Share{share, c})
		} else {
			all[at].Percent += share.Percent
		}
	}
	return all
}
