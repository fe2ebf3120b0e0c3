package xds

import (
	"fmt"
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
	// outgoing is that of the version in force while the newest config has another
	// one, or none; nil otherwise.
	outgoing *resource[discovery.Assignment]
	// secrets are those of the newest config and of the version in force.
	secrets secrets

	// result is the last one that could be told, if told is set. It stays in
	// force while pending: a cluster that changes its endpoints' name keeps
	// the old configuration with the old endpoints until the new ones are
	// there, however long that takes.
	result  discovery.ClusterResult
	told    bool
	pending bool
	// changed is whether it is among those that changed since the target was published.
	changed bool
	// defect is what keeps the newest config from being put into force, if that is a
	// mistake of its own and another version works.
	defect error
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
	c.defect = nil
	c.secrets.followLocked(client, f, c.secretUses())
	switch {
	case config == nil:
		c.leaveEndpointsLocked()
		c.fail(f, c.config.err)
	case len(config.Aggregate) > 0:
		c.followEndpointsLocked(client, f, "") // what it consists of is resolved when all are up to date
	case config.Static != nil:
		c.followEndpointsLocked(client, f, "")
		c.use(f, config, config.Static)
	default:
		c.followEndpointsLocked(client, f, config.EDSName)
		switch {
		case c.endpoints.value != nil:
			c.use(f, config, c.endpoints.value)
		case c.works() && c.result.Cluster.EDSName != config.EDSName && c.hold():
			// Those of the new name may never come, or be refused: the old ones are
			// good, and ambient tells what is wrong.
		default:
			c.fail(f, c.endpoints.err)
		}
	}
	c.secrets.followLocked(client, f, c.secretUses())
}

// secretUses are those of the newest config, and of the version in force.
func (c *cluster) secretUses() []discovery.SecretUse {
	var uses []discovery.SecretUse
	if c.config.value != nil {
		uses = c.config.value.SecretUses()
	}
	if c.works() && c.result.Cluster != c.config.value {
		uses = append(slices.Clip(uses), c.result.Cluster.SecretUses()...)
	}
	return uses
}

// followEndpointsLocked follows the endpoints of a name, "" for none. Those of the
// version in force are followed until another one is.
func (c *cluster) followEndpointsLocked(client watchClient, f follower, name string) {
	if c.endpoints != nil && c.endpoints.name == name {
		return
	}
	if c.endpoints != nil && c.works() && c.result.Cluster.EDSName == c.endpoints.name {
		c.outgoing.leaveLocked()
		c.outgoing = c.endpoints
	} else {
		c.endpoints.leaveLocked()
	}
	c.endpoints = nil
	switch {
	case name == "":
	case c.outgoing != nil && c.outgoing.name == name: // back again
		c.endpoints, c.outgoing = c.outgoing, nil
	default:
		c.endpoints = watchLocked(client, f, decode.EndpointURL, name, asIs[discovery.Assignment])
		c.endpoints.cluster = c
	}
}

// works reports whether there is a version in force that calls can use.
func (c *cluster) works() bool { return c.told && c.result.Err == nil }

// hold keeps the version that works in force, with the newest of its endpoints and
// secrets. It reports whether that can be done: what the control plane takes away of
// it must not stay.
func (c *cluster) hold() bool {
	values, complete, _ := c.secrets.values(c.result.Cluster.SecretUses())
	if !complete {
		return false
	}
	if c.outgoing != nil {
		if c.outgoing.value == nil {
			return false
		}
		c.result.Endpoints = c.outgoing.value
	}
	c.result.Secrets, c.pending = values, true
	return true
}

// lose notes that what is in force is gone before what is new is there.
func (c *cluster) lose() {
	c.enforce(discovery.ClusterResult{Err: fmt.Errorf("cluster %q: what it consisted of is gone, and its new version is not complete", c.config.name)})
	c.pending = true
}

// use takes a configuration into force, once its secrets are there.
func (c *cluster) use(f follower, config *discovery.Cluster, endpoints *discovery.Assignment) {
	values, complete, err := c.secrets.values(config.SecretUses())
	if !complete {
		c.fail(f, err)
		return
	}
	c.enforce(discovery.ClusterResult{Cluster: config, Endpoints: endpoints, Secrets: values})
}

// enforce makes a result the one in force.
func (c *cluster) enforce(result discovery.ClusterResult) {
	c.result, c.told, c.pending = result, true, false
	c.outgoing.leaveLocked()
	c.outgoing = nil
}

// fail notes that there is nothing new to use. Without an error, or with one
// that will pass and is waited for, that is no result.
func (c *cluster) fail(f follower, err error) {
	waits := isOffline(err) && f.waitsLocked(err)
	c.pending = err == nil || waits && !isOffline(c.result.Err)
	if !c.pending {
		c.enforce(discovery.ClusterResult{Err: referenced(err)})
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
	return c.result.Err != nil || c.defect != nil || c.config.err != nil || c.endpoints != nil && c.endpoints.err != nil ||
		c.outgoing != nil && c.outgoing.err != nil || c.secrets.troubled()
}

// ambient adds what is wrong and not told by the result.
func (c *cluster) ambient(found *troubles) {
	if c.told && !c.pending && c.result.Err != nil {
		return
	}
	found.add(referenced(c.config.err))
	found.add(referenced(c.defect))
	for _, endpoints := range []*resource[discovery.Assignment]{c.endpoints, c.outgoing} {
		if endpoints != nil {
			found.add(referenced(endpoints.err))
		}
	}
	c.secrets.ambient(found)
}

func (c *cluster) leaveEndpointsLocked() {
	c.endpoints.leaveLocked()
	c.outgoing.leaveLocked()
	c.endpoints, c.outgoing = nil, nil
}

// leaveLocked ends the watches.
func (c *cluster) leaveLocked() {
	c.config.leaveLocked()
	c.leaveEndpointsLocked()
	c.secrets.leaveLocked()
}

func sameResult(a, b discovery.ClusterResult) bool {
	return a.Cluster == b.Cluster && a.Endpoints == b.Endpoints && slices.Equal(a.Leaves, b.Leaves) &&
		maps.Equal(a.Secrets, b.Secrets) && sameError(a.Err, b.Err)
}
