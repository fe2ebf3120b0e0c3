package upstream

import "github.com/inboardmesh/inboard/balancer"

// Holds reports whether the cluster has an endpoint with the address, or with one of
// several between commas, whatever its health.
func (c *Cluster) Holds(address string) bool {
	for _, leaf := range c.Leaves() {
		if leaf.set.Holds(address) {
			return true
		}
	}
	return c.set.Holds(address)
}

// Pins reports whether the endpoint that a pick is pinned to can be used.
func (c *Cluster) Pins(info balancer.PickInfo) bool {
	return pinning(c.Leaves(), &info) >= 0 || c.set.Pins(info)
}

// pinning is the leaf with the endpoint that a pick is pinned to, negative without
// one that can be used.
func pinning(leaves []*Cluster, info *balancer.PickInfo) int {
	if info.Pinned == "" {
		return -1
	}
	for i, leaf := range leaves {
		if leaf.Err() == nil && leaf.set.Pins(*info) {
			return i
		}
	}
	return -1
}
