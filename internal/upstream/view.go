package upstream

import (
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

// Candidates are the endpoints of which Pick takes one for a first attempt now, or
// why there is none. prefer is the locality that the call prefers, nil without.
func (c *Cluster) Candidates(prefer *balancer.Locality) ([]*balancer.Host, error) {
	leaves := c.Leaves()
	if len(leaves) == 0 {
		return c.set.CandidatesFor(prefer)
	}
	var all []*balancer.Host
	var failure error
	available := uint32(0)
	for _, leaf := range leaves { // until those that come first suffice
		if available >= 100 || !leaf.usable(&balancer.PickInfo{}) {
			continue
		}
		hosts, err := leaf.Candidates(prefer)
		if err != nil {
			failure = err
			continue
		}
		capacity := leaf.capacity()
		available += capacity.Healthy + capacity.Degraded
		all = append(all, hosts...)
	}
	if len(all) > 0 {
		return all, nil
	}
	if failure == nil {
		return leaves[0].Candidates(prefer)
	}
	return nil, failure
}
