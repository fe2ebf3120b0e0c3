package decode

import (
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	commonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/common/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/inboardmesh/inboard/balancer"
)

var zoneFields = []messageFields{
	{
		message: (*clusterv3.Cluster_CommonLbConfig_ZoneAwareLbConfig)(nil),
		read:    "routing_enabled min_cluster_size fail_traffic_on_panic",
	},
	{
		message: (*commonv3.LocalityLbConfig_ZoneAwareLbConfig)(nil),
		read: "routing_enabled min_cluster_size fail_traffic_on_panic force_locality_direct_routing force_local_zone " +
			"locality_basis",
	},
	{message: (*commonv3.LocalityLbConfig_ZoneAwareLbConfig_ForceLocalZone)(nil), read: "min_size"},
}

// defaultRoutingEnabled is Envoy's routing_enabled.
const defaultRoutingEnabled = 100

// zoneAware decodes zone_aware_lb_config of a Cluster.
func (d *decoder) zoneAware(at path, m *clusterv3.Cluster_CommonLbConfig_ZoneAwareLbConfig, config *balancer.Config) {
	if m == nil {
		return
	}
	config.FailOnPanic = m.GetFailTrafficOnPanic()
	config.ZoneAware = &balancer.ZoneAware{
		RoutingEnabled: d.percent(at.field("routing_enabled"), m.GetRoutingEnabled(), defaultRoutingEnabled),
		MinClusterSize: minClusterSize(m.GetMinClusterSize()),
	}
}

// typedZoneAware decodes zone_aware_lb_config of a policy.
func (d *decoder) typedZoneAware(at path, m *commonv3.LocalityLbConfig_ZoneAwareLbConfig, config *balancer.Config) {
	if m == nil {
		return
	}
	config.FailOnPanic = m.GetFailTrafficOnPanic()
	config.ZoneAware = &balancer.ZoneAware{
		RoutingEnabled: d.percent(at.field("routing_enabled"), m.GetRoutingEnabled(), defaultRoutingEnabled),
		MinClusterSize: minClusterSize(m.GetMinClusterSize()),
		ByWeight:       m.GetLocalityBasis() == commonv3.LocalityLbConfig_ZoneAwareLbConfig_HEALTHY_HOSTS_WEIGHT,
	}
	if m.GetForceLocalityDirectRouting() { //nolint:staticcheck // the deprecated field is still in use
		config.ZoneAware.ForceLocal = 1
	}
	if force := m.GetForceLocalZone(); force != nil {
		config.ZoneAware.ForceLocal = 1
		if size := force.GetMinSize(); size != nil {
			config.ZoneAware.ForceLocal = max(size.GetValue(), 1)
		}
	}
}

// minClusterSize keeps a size of 0, which is no limit, apart from none.
func minClusterSize(v *wrapperspb.UInt64Value) uint64 {
	if v == nil {
		return 0
	}
	return max(v.GetValue(), 1)
}
