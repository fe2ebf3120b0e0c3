package upstream

import (
	"slices"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/discovery"
)

// LeafHash is what a call is hashed to in one of the clusters of an aggregate.
type LeafHash struct {
	Leaf   *Cluster
	Hash   uint64
	Hashed bool
}

// LeafHashes are what a call is hashed to in the clusters of an aggregate, if that is not
// the same in all: one has hash policies of its own. Otherwise they are nil.
type LeafHashes []LeafHash

// In has info pick by what the call is hashed to in a cluster.
func (h LeafHashes) In(c *Cluster, info *balancer.PickInfo) {
	if at := slices.IndexFunc(h, func(l LeafHash) bool { return l.Leaf == c }); at >= 0 {
		info.Hash, info.Hashed = h[at].Hash, h[at].Hashed
	}
}

// HashPolicies are by what the cluster picks if its route has these: its own go before
// them. own is whether they are its own, ok whether it looks at a hash at all. An
// aggregate does not, but the clusters that it consists of may.
func (c *Cluster) HashPolicies(route []discovery.HashPolicy) (policies []discovery.HashPolicy, own, ok bool) {
	config := c.Config()
	switch {
	case config == nil || !config.Balancer.Policy.Hashes():
		return nil, false, false
	case config.Hash != nil:
		return config.Hash, true, true
	}
	return route, false, true
}
