package decode

import (
	"math"
	"strings"

	xdstypev3 "github.com/cncf/xds/go/xds/type/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	cswrrv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/client_side_weighted_round_robin/v3"
	commonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/common/v3"
	leastrequestv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/least_request/v3"
	maglevv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/maglev/v3"
	pickfirstv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/pick_first/v3"
	randomv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/random/v3"
	subsettingv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/random_subsetting/v3"
	ringhashv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/ring_hash/v3"
	roundrobinv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/round_robin/v3"
	subsetv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/subset/v3"
	wrrlocalityv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/wrr_locality/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/discovery"
)

var balancingFields = []messageFields{
	{message: (*clusterv3.Cluster_LeastRequestLbConfig)(nil), read: "choice_count active_request_bias slow_start_config"},
	{message: (*clusterv3.Cluster_RoundRobinLbConfig)(nil), read: "slow_start_config"},
	{
		message: (*clusterv3.Cluster_CommonLbConfig)(nil),
		read: "healthy_panic_threshold locality_weighted_lb_config consistent_hashing_lb_config " +
			"ignore_new_hosts_until_first_hc zone_aware_lb_config override_host_status",
		// It delays what is applied at once here.
		harmless: "update_merge_window",
		instead: map[string]string{
			"close_connections_on_host_set_change": "connections to endpoints that stay are kept",
		},
	},
	{message: (*clusterv3.Cluster_CommonLbConfig_LocalityWeightedLbConfig)(nil)},
	{message: (*clusterv3.LoadBalancingPolicy)(nil), read: "policies"},
	{message: (*clusterv3.LoadBalancingPolicy_Policy)(nil), read: "typed_extension_config"},
	// The type of the configuration says which extension it is; the name of a
	// cluster specifier plugin is read all the same.
	{message: (*corev3.TypedExtensionConfig)(nil), read: "name typed_config"},
	{message: (*roundrobinv3.RoundRobin)(nil), read: "slow_start_config locality_lb_config"},
	{
		message: (*leastrequestv3.LeastRequest)(nil),
		read:    "choice_count active_request_bias slow_start_config locality_lb_config enable_full_scan selection_method",
	},
	{message: (*pickfirstv3.PickFirst)(nil), read: "shuffle_address_list"},
	{message: (*randomv3.Random)(nil), read: "locality_lb_config"},
	{message: (*wrrlocalityv3.WrrLocality)(nil), read: "endpoint_picking_policy"},
	{message: (*commonv3.LocalityLbConfig)(nil), read: "locality_weighted_lb_config zone_aware_lb_config"},
	{message: (*commonv3.LocalityLbConfig_LocalityWeightedLbConfig)(nil)},
}

const (
	// defaultPanicThreshold is Envoy's healthy_panic_threshold.
	defaultPanicThreshold = 50
	// maxPolicyDepth bounds policies within policies, as grpc-go does.
	maxPolicyDepth = 16
)

// balancing is how a cluster chooses an endpoint.
type balancing struct {
	balancer.Config

	// hash are the hash policies of the cluster itself.
	hash []discovery.HashPolicy
}

// balancer decodes the fields of a Cluster that say how to choose an endpoint.
func (d *decoder) balancer(at path, m *clusterv3.Cluster) balancing {
	var b balancing
	common := m.GetCommonLbConfig()
	in := at.field("common_lb_config")
	if policy := m.GetLoadBalancingPolicy(); policy != nil {
		b = d.balancingPolicy(at.field("load_balancing_policy"), policy, 0)
		for name, set := range map[string]bool{
			"locality_weighted_lb_config":  common.GetLocalityWeightedLbConfig() != nil,
			"consistent_hashing_lb_config": common.GetConsistentHashingLbConfig() != nil,
			"zone_aware_lb_config":         common.GetZoneAwareLbConfig() != nil,
		} {
			if set {
				d.refusef(in.field(name), "must not be set beside load_balancing_policy: set it in the policy")
			}
		}
		if m.GetLbSubsetConfig() != nil {
			d.refusef(at.field("lb_subset_config"), "must not be set beside load_balancing_policy: set it in the policy")
		}
	} else {
		b.Config = d.legacyPolicy(at, m)
		d.zoneAware(in.field("zone_aware_lb_config"), common.GetZoneAwareLbConfig(), &b.Config)
		b.LocalityWeighted = common.GetLocalityWeightedLbConfig() != nil
		hashing(common.GetConsistentHashingLbConfig(), &b.Config)
		b.Subsets = d.lbSubsets(at.field("lb_subset_config"), m.GetLbSubsetConfig())
	}
	b.Pinnable = pinnable(common.GetOverrideHostStatus())
	d.ownBalancing(at.field("metadata"), m.GetMetadata(), &b)
	// Envoy truncates it to full percents.
	b.PanicThreshold = math.Trunc(d.percent(in.field("healthy_panic_threshold"), common.GetHealthyPanicThreshold(), defaultPanicThreshold))
	return b
}

// legacyPolicy decodes lb_policy and lb_config.
func (d *decoder) legacyPolicy(at path, m *clusterv3.Cluster) balancer.Config {
	var config balancer.Config
	switch m.GetLbPolicy() {
	case clusterv3.Cluster_ROUND_ROBIN:
		slow := m.GetRoundRobinLbConfig().GetSlowStartConfig()
		config.SlowStart = d.slowStart(at.field("round_robin_lb_config").field("slow_start_config"), slow, slow != nil)
	case clusterv3.Cluster_LEAST_REQUEST:
		in := at.field("least_request_lb_config")
		c := m.GetLeastRequestLbConfig()
		config = d.leastRequest(in, c.GetChoiceCount(), c.GetActiveRequestBias())
		config.SlowStart = d.slowStart(in.field("slow_start_config"), c.GetSlowStartConfig(), c.GetSlowStartConfig() != nil)
	case clusterv3.Cluster_RANDOM:
		config.Policy = balancer.Random
	case clusterv3.Cluster_RING_HASH:
		config = d.ring(at.field("ring_hash_lb_config"), m.GetRingHashLbConfig(), m.GetRingHashLbConfig().GetHashFunction().String())
	case clusterv3.Cluster_MAGLEV:
		config = d.maglev(at.field("maglev_lb_config"), m.GetMaglevLbConfig().GetTableSize())
	case clusterv3.Cluster_LOAD_BALANCING_POLICY_CONFIG:
		d.refusef(at.field("load_balancing_policy"), "must be set for lb_policy LOAD_BALANCING_POLICY_CONFIG")
	default:
		d.refusef(at.field("lb_policy"), "%s is not supported: use ROUND_ROBIN, LEAST_REQUEST, RANDOM, RING_HASH or MAGLEV", m.GetLbPolicy())
	}
	for _, c := range []struct {
		field  string
		set    bool
		policy clusterv3.Cluster_LbPolicy
	}{
		{"least_request_lb_config", m.GetLeastRequestLbConfig() != nil, clusterv3.Cluster_LEAST_REQUEST},
		{"round_robin_lb_config", m.GetRoundRobinLbConfig() != nil, clusterv3.Cluster_ROUND_ROBIN},
		{"ring_hash_lb_config", m.GetRingHashLbConfig() != nil, clusterv3.Cluster_RING_HASH},
		{"maglev_lb_config", m.GetMaglevLbConfig() != nil, clusterv3.Cluster_MAGLEV},
	} {
		if c.set && m.GetLbPolicy() != c.policy {
			d.refusef(at.field(c.field), "must not be set for lb_policy %s", m.GetLbPolicy())
		}
	}
	return config
}

// leastRequest decodes what both configurations of least request have. Envoy's
// constraints have checked choice_count.
func (d *decoder) leastRequest(at path, choices *wrapperspb.UInt32Value, bias *corev3.RuntimeDouble) balancer.Config {
	config := balancer.Config{Policy: balancer.LeastRequest, ChoiceCount: choices.GetValue()}
	if bias != nil {
		config.ActiveRequestBias = bias.GetDefaultValue()
		if !(config.ActiveRequestBias > 0) || math.IsInf(config.ActiveRequestBias, 1) {
			d.refusef(at.field("active_request_bias").field("default_value"), "must be more than 0: is %v", config.ActiveRequestBias)
		}
	}
	return config
}

// balancingPolicy decodes the first policy of the list that is known (gRFC
// A52); the others are for other clients.
func (d *decoder) balancingPolicy(at path, m *clusterv3.LoadBalancingPolicy, depth int) balancing {
	if depth == maxPolicyDepth {
		d.refusef(at, "more than %d policies within each other", maxPolicyDepth)
		return balancing{}
	}
	var unknown []string
	for i, policy := range m.GetPolicies() {
		in := at.element("policies", i).field("typed_extension_config").field("typed_config")
		a := policy.GetTypedExtensionConfig().GetTypedConfig()
		if b, known := d.typedPolicy(in, a, depth); known {
			return b
		}
		unknown = append(unknown, typeName(a))
	}
	d.refusef(at.field("policies"), "none of the policies is supported: [%s]", strings.Join(unknown, ", "))
	return balancing{}
}

// typedPolicy decodes one policy. known is false for one that is not supported.
func (d *decoder) typedPolicy(in path, a *anypb.Any, depth int) (b balancing, known bool) {
	if is(a, (*xdstypev3.TypedStruct)(nil)) {
		return d.named(in, a)
	}
	m := policyMessage(a)
	if m == nil {
		return balancing{}, false
	}
	if !d.unpack(in, a, m) {
		return balancing{}, true
	}
	switch m := m.(type) {
	case *roundrobinv3.RoundRobin:
		b.SlowStart = d.slowStart(in.field("slow_start_config"), m.GetSlowStartConfig(), m.GetSlowStartConfig() != nil)
		d.localityConfig(in, m, &b.Config)
	case *leastrequestv3.LeastRequest:
		b.Config = d.leastRequest(in, m.GetChoiceCount(), m.GetActiveRequestBias())
		b.FullScan = m.GetSelectionMethod() == leastrequestv3.LeastRequest_FULL_SCAN ||
			m.GetEnableFullScan().GetValue() //nolint:staticcheck // the deprecated field is still in use
		b.SlowStart = d.slowStart(in.field("slow_start_config"), m.GetSlowStartConfig(), m.GetSlowStartConfig() != nil)
		d.localityConfig(in, m, &b.Config)
	case *randomv3.Random:
		b.Policy = balancer.Random
		d.localityConfig(in, m, &b.Config)
	case *ringhashv3.RingHash:
		b.Config, b.hash = d.typedRing(in, m)
	case *maglevv3.Maglev:
		b.Config, b.hash = d.typedMaglev(in, m)
	case *cswrrv3.ClientSideWeightedRoundRobin:
		b.Config = d.clientWeighted(in, m)
	case *pickfirstv3.PickFirst:
		b.Config = balancer.Config{Policy: balancer.PickFirst, Shuffle: m.GetShuffleAddressList()}
	case *subsetv3.Subset:
		b = d.balancingPolicy(in.field("subset_lb_policy"), m.GetSubsetLbPolicy(), depth+1)
		if b.Subsets != nil {
			d.refusef(in.field("subset_lb_policy"), "subsets of subsets are not supported")
		}
		b.Subsets = d.typedSubsets(in, m)
	case *subsettingv3.RandomSubsetting:
		b = d.subsetting(in, m, depth)
	case *wrrlocalityv3.WrrLocality:
		b = d.balancingPolicy(in.field("endpoint_picking_policy"), m.GetEndpointPickingPolicy(), depth+1)
		if b.ZoneAware != nil {
			d.refusef(in.field("endpoint_picking_policy"), "must not be zone aware: the weights choose the locality")
		}
		b.LocalityWeighted = true
	}
	return b, true
}

// policyMessage returns an empty message of the policy that a holds, nil if it is
// not supported.
func policyMessage(a *anypb.Any) proto.Message {
	for _, m := range []proto.Message{
		&roundrobinv3.RoundRobin{}, &leastrequestv3.LeastRequest{}, &randomv3.Random{}, &ringhashv3.RingHash{},
		&maglevv3.Maglev{}, &cswrrv3.ClientSideWeightedRoundRobin{}, &pickfirstv3.PickFirst{}, &subsetv3.Subset{},
		&wrrlocalityv3.WrrLocality{}, &subsettingv3.RandomSubsetting{},
	} {
		if is(a, m) {
			return m
		}
	}
	return nil
}

// localityConfig decodes how a policy balances among localities.
func (d *decoder) localityConfig(in path, policy interface {
	GetLocalityLbConfig() *commonv3.LocalityLbConfig
}, config *balancer.Config,
) {
	m := policy.GetLocalityLbConfig()
	config.LocalityWeighted = m.GetLocalityWeightedLbConfig() != nil
	d.typedZoneAware(in.field("locality_lb_config").field("zone_aware_lb_config"), m.GetZoneAwareLbConfig(), config)
}
