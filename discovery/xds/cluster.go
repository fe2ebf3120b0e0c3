package xds

import (
	"maps"
	"slices"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/discovery/xds/internal/decode"
)

// cluster is one cluster of a target with its endpoints. It is guarded by the
// target's lock.
type cluster struct {
	config *resource[discovery.Cluster]
	// endpoints is that of the newest config, nil if it has none.
	endpoints *resource[discovery.Assignment]
	// secrets are those of the newest config.
	secrets secrets

	// result is the last one that could be told, if told is set. It stays in
	// force while pending: a cluster that changes its endpoints' name keeps
	// the old configuration with the old endpoints until the new ones are
	// there.
	result  discovery.ClusterResult
	told    bool
	pending bool
}

// newCluster begins to follow a cluster.
func newCluster(client watchClient, f follower, name string) *cluster {
	c := &cluster{
		config:  watchLocked(client, f, decode.ClusterURL, name, asIs[discovery.Cluster]),
		secrets: make(secrets),
	}
	c.config.cluster = c
	return c
}

// updateLocked works out what an event of its resources means.
func (c *cluster) updateLocked(client watchClient, f follower) {
	config := c.config.value
	if config == nil {
		c.secrets.leaveLocked()
	} else {
		c.secrets.followLocked(client, f, config.SecretUses())
	}
	switch {
	case config == nil:
		c.leaveEndpointsLocked()
		c.fail(c.config.err)
	case len(config.Aggregate) > 0:
		c.leaveEndpointsLocked() // what it consists of is resolved when all are up to date
	case config.Static != nil:
		c.leaveEndpointsLocked()
		c.use(config, config.Static)
	default:
		if c.endpoints == nil || c.endpoints.name != config.EDSName {
			c.endpoints.leaveLocked()
			c.endpoints = watchLocked(client, f, decode.EndpointURL, config.EDSName, asIs[discovery.Assignment])
			c.endpoints.cluster = c
		}
		if c.endpoints.value == nil {
			c.fail(c.endpoints.err)
			return
		}
		c.use(config, c.endpoints.value)
	}
}

// use takes a configuration into force, once its secrets are there.
func (c *cluster) use(config *discovery.Cluster, endpoints *discovery.Assignment) {
	values, complete, err := c.secrets.values(config.SecretUses())
	if !complete {
		c.fail(err)
		return
	}
	c.result = discovery.ClusterResult{Cluster: config, Endpoints: endpoints, Secrets: values}
	c.told, c.pending = true, false
}

// fail notes that there is nothing new to use. Without an error, or with one
// that will pass, that is no result.
func (c *cluster) fail(err error) {
	c.pending = err == nil || transient(err)
	if !c.pending {
		c.result = discovery.ClusterResult{Err: referenced(err)}
		c.told = true
	}
}

// ready reports whether a plan with the cluster can be put into force.
func (c *cluster) ready() bool {
	return c.told && (!c.pending || c.result.Err == nil)
}

// waitingFor returns what keeps the cluster from being ready, nil if nothing is
// wrong with it.
func (c *cluster) waitingFor() error {
	switch {
	case c.ready():
		return nil
	case c.config.err != nil:
		return c.config.err
	case c.endpoints != nil && c.endpoints.err != nil:
		return c.endpoints.err
	}
	return c.secrets.waitingFor()
}

// troubled reports whether anything may be wrong with the cluster.
func (c *cluster) troubled() bool {
	return c.result.Err != nil || c.config.err != nil || c.endpoints != nil && c.endpoints.err != nil || c.secrets.troubled()
}

// ambient adds what is wrong and not told by the result.
func (c *cluster) ambient(found *troubles) {
	if c.told && !c.pending && c.result.Err != nil {
		return
	}
	found.add(referenced(c.config.err))
	if c.endpoints != nil {
		found.add(referenced(c.endpoints.err))
	}
	c.secrets.ambient(found)
}

func (c *cluster) leaveEndpointsLocked() {
	c.endpoints.leaveLocked()
	c.endpoints = nil
}

// leaveLocked ends the watches.
func (c *cluster) leaveLocked() {
	c.config.leaveLocked()
	c.endpoints.leaveLocked()
	c.secrets.leaveLocked()
}

func sameResult(a, b discovery.ClusterResult) bool {
	return a.Cluster == b.Cluster && a.Endpoints == b.Endpoints && slices.Equal(a.Leaves, b.Leaves) &&
		maps.Equal(a.Secrets, b.Secrets) && sameError(a.Err, b.Err)
}
