package upstream

import (
	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/discovery"
)

// zoneAware adds to a configuration with zone aware routing what is known of the
// caller.
func (c *Cluster) zoneAware(config balancer.Config, local *discovery.Assignment) balancer.Config {
	if config.ZoneAware == nil {
		return config
	}
	zone := *config.ZoneAware
	zone.Local = c.manager.options.Locality
	if local != nil {
		zone.Callers = local.Localities
	}
	config.ZoneAware = &zone
	return config
}

// ZoneRouting says whether the cluster's zone aware routing acts, and if not, why;
// "" if none is configured.
func (c *Cluster) ZoneRouting() string {
	config := c.Config()
	switch off := c.set.ZoneRouting(); {
	case config == nil || config.Balancer.ZoneAware == nil:
		return ""
	case off != "":
		return "off: " + off
	}
	return "on"
}
