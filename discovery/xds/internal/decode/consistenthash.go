package decode

import (
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	commonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/common/v3"
	maglevv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/maglev/v3"
	ringhashv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/ring_hash/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/discovery"
)

var consistentHashFields = []messageFields{
	{message: (*clusterv3.Cluster_RingHashLbConfig)(nil), read: "minimum_ring_size maximum_ring_size hash_function"},
	{message: (*clusterv3.Cluster_MaglevLbConfig)(nil), read: "table_size"},
	{message: (*clusterv3.Cluster_CommonLbConfig_ConsistentHashingLbConfig)(nil), read: "use_hostname_for_hashing hash_balance_factor"},
	{
		message: (*ringhashv3.RingHash)(nil),
		read: "minimum_ring_size maximum_ring_size hash_function use_hostname_for_hashing hash_balance_factor " +
			"consistent_hashing_lb_config locality_weighted_lb_config",
	},
	{message: (*maglevv3.Maglev)(nil), read: "table_size consistent_hashing_lb_config locality_weighted_lb_config"},
	{message: (*commonv3.ConsistentHashingLbConfig)(nil), read: "use_hostname_for_hashing hash_balance_factor hash_policy"},
}

// ringHash is what both configurations of a ring have.
type ringHash interface {
	GetMinimumRingSize() *wrapperspb.UInt64Value
	GetMaximumRingSize() *wrapperspb.UInt64Value
}

// ring decodes the sizes of a ring, of which Envoy's constraints have checked the
// upper limits. hash is the hash function's name.
func (d *decoder) ring(at path, m ringHash, hash string) balancer.Config {
	config := balancer.Config{Policy: balancer.RingHash, RingMurmur: hash == "MURMUR_HASH_2"}
	least, most := uint64(balancer.DefaultMinRingSize), uint64(balancer.DefaultMaxRingSize)
	if v := m.GetMinimumRingSize(); v != nil {
		least = v.GetValue()
		config.MinRingSize = least
	}
	if v := m.GetMaximumRingSize(); v != nil {
		most = v.GetValue()
		config.MaxRingSize = most
	}
	switch {
	case m.GetMaximumRingSize() != nil && most == 0:
		d.refusef(at.field("maximum_ring_size"), "must be more than 0")
	case least > most:
		d.refusef(at.field("minimum_ring_size"), "%d is more than the maximum of %d", least, most)
	}
	switch hash {
	case "DEFAULT_HASH", "XX_HASH", "MURMUR_HASH_2":
	default:
		d.refusef(at.field("hash_function"), "%s is not supported: use XX_HASH or MURMUR_HASH_2", hash)
	}
	return config
}

// maglev decodes the size of a table.
func (d *decoder) maglev(at path, size *wrapperspb.UInt64Value) balancer.Config {
	config := balancer.Config{Policy: balancer.Maglev}
	if size != nil {
		config.MaglevSize = size.GetValue()
		if !balancer.ValidMaglevSize(config.MaglevSize) {
			d.refusef(at.field("table_size"), "must be a prime number up to %d: is %d", balancer.MaxMaglevSize, config.MaglevSize)
		}
	}
	return config
}

// consistentHashing is what the configurations for all hashing policies have.
type consistentHashing interface {
	GetUseHostnameForHashing() bool
	GetHashBalanceFactor() *wrapperspb.UInt32Value
}

// hashing decodes them into config. Envoy's constraints have checked that the
// factor is 100 or more.
func hashing(m consistentHashing, config *balancer.Config) {
	config.HashHostnames = m.GetUseHostnameForHashing()
	config.HashBalanceFactor = m.GetHashBalanceFactor().GetValue()
}

// typedRing decodes the extension.
func (d *decoder) typedRing(at path, m *ringhashv3.RingHash) (balancer.Config, []discovery.HashPolicy) {
	config := d.ring(at, m, m.GetHashFunction().String())
	hashing(m, &config)
	config.LocalityWeighted = m.GetLocalityWeightedLbConfig() != nil
	policies := d.typedHashing(at, m.GetConsistentHashingLbConfig(), &config)
	return config, policies
}

// typedMaglev decodes the extension.
func (d *decoder) typedMaglev(at path, m *maglevv3.Maglev) (balancer.Config, []discovery.HashPolicy) {
	config := d.maglev(at, m.GetTableSize())
	config.LocalityWeighted = m.GetLocalityWeightedLbConfig() != nil
	policies := d.typedHashing(at, m.GetConsistentHashingLbConfig(), &config)
	return config, policies
}

func (d *decoder) typedHashing(at path, m *commonv3.ConsistentHashingLbConfig, config *balancer.Config) []discovery.HashPolicy {
	if m == nil {
		return nil
	}
	hashing(m, config)
	return d.hashPolicies(at.field("consistent_hashing_lb_config"), m.GetHashPolicy())
}
