package decode

import (
	"math"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	commonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/common/v3"
	leastrequestv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/least_request/v3"
	randomv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/random/v3"
	roundrobinv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/round_robin/v3"
	wrrlocalityv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/wrr_locality/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/inboardmesh/inboard/balancer"
)

var balancingFields = []messageFields{
	{message: (*clusterv3.Cluster_LeastRequestLbConfig)(nil), read: "choice_count active_request_bias"},
	{message: (*clusterv3.Cluster_RoundRobinLbConfig)(nil)},
	{
		message: (*clusterv3.Cluster_CommonLbConfig)(nil),
		read:    "healthy_panic_threshold locality_weighted_lb_config",
		// The first delays and the second waits for active health checks, which
		// a cluster cannot ask for.
		harmless: "update_merge_window ignore_new_hosts_until_first_hc",
	},
	{message: (*clusterv3.Cluster_CommonLbConfig_LocalityWeightedLbConfig)(nil)},
	{message: (*clusterv3.LoadBalancingPolicy)(nil), read: "policies"},
	{message: (*clusterv3.LoadBalancingPolicy_Policy)(nil), read: "typed_extension_config"},
	// The type of the configuration says which extension it is; the name of a
	// cluster specifier plugin is read all the same.
	{message: (*corev3.TypedExtensionConfig)(nil), read: "name typed_config"},
	{message: (*roundrobinv3.RoundRobin)(nil), read: "locality_lb_config"},
	{
		message: (*leastrequestv3.LeastRequest)(nil),
		read:    "choice_count active_request_bias locality_lb_config",
		zero:    "enable_full_scan",
	},
	{message: (*randomv3.Random)(nil), read: "locality_lb_config"},
	{message: (*wrrlocalityv3.WrrLocality)(nil), read: "endpoint_picking_policy"},
	{message: (*commonv3.LocalityLbConfig)(nil), read: "locality_weighted_lb_config"},
	{message: (*commonv3.LocalityLbConfig_LocalityWeightedLbConfig)(nil)},
}

const (
	// defaultPanicThreshold is Envoy's healthy_panic_threshold.
	defaultPanicThreshold = 50
	// maxPolicyDepth bounds policies within policies, as grpc-go does.
	maxPolicyDepth = 16
)

// balancer decodes the fields of a Cluster that say how to choose an endpoint.
func (d *decoder) balancer(at path, m *clusterv3.Cluster) balancer.Config {
	var config balancer.Config
	common := m.GetCommonLbConfig()
	in := at.field("common_lb_config")
	if policy := m.GetLoadBalancingPolicy(); policy != nil {
		config = d.balancingPolicy(at.field("load_balancing_policy"), policy, 0)
		if common.GetLocalityWeightedLbConfig() != nil {
			d.refusef(in.field("locality_weighted_lb_config"), "must not be set beside load_balancing_policy: set it in the policy")
		}
	} else {
		config = d.legacyPolicy(at, m)
		config.LocalityWeighted = common.GetLocalityWeightedLbConfig() != nil
	}
	// Envoy truncates it to full percents.
	config.PanicThreshold = math.Trunc(d.percent(in.field("healthy_panic_threshold"), common.GetHealthyPanicThreshold(), defaultPanicThreshold))
	return config
}

// legacyPolicy decodes lb_policy and lb_config.
func (d *decoder) legacyPolicy(at path, m *clusterv3.Cluster) balancer.Config {
	var config balancer.Config
	switch m.GetLbPolicy() {
	case clusterv3.Cluster_ROUND_ROBIN:
	case clusterv3.Cluster_LEAST_REQUEST:
		in := at.field("least_request_lb_config")
		c := m.GetLeastRequestLbConfig()
		config = d.leastRequest(in, c.GetChoiceCount(), c.GetActiveRequestBias())
	case clusterv3.Cluster_RANDOM:
		config.Policy = balancer.Random
	case clusterv3.Cluster_LOAD_BALANCING_POLICY_CONFIG:
		d.refusef(at.field("load_balancing_policy"), "must be set for lb_policy LOAD_BALANCING_POLICY_CONFIG")
	default:
		d.refusef(at.field("lb_policy"), "%s is not supported: use ROUND_ROBIN, LEAST_REQUEST or RANDOM", m.GetLbPolicy())
	}
	if m.GetLeastRequestLbConfig() != nil && m.GetLbPolicy() != clusterv3.Cluster_LEAST_REQUEST {
		d.refusef(at.field("least_request_lb_config"), "must not be set for lb_policy %s", m.GetLbPolicy())
	}
	if m.GetRoundRobinLbConfig() != nil && m.GetLbPolicy() != clusterv3.Cluster_ROUND_ROBIN {
		d.refusef(at.field("round_robin_lb_config"), "must not be set for lb_policy %s", m.GetLbPolicy())
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
func (d *decoder) balancingPolicy(at path, m *clusterv3.LoadBalancingPolicy, depth int) balancer.Config {
	if depth == maxPolicyDepth {
		d.refusef(at, "more than %d policies within each other", maxPolicyDepth)
		return balancer.Config{}
	}
	var unknown []string
	for i, policy := range m.GetPolicies() {
		in := at.element("policies", i).field("typed_extension_config").field("typed_config")
		a := policy.GetTypedExtensionConfig().GetTypedConfig()
		roundRobin, leastRequest := &roundrobinv3.RoundRobin{}, &leastrequestv3.LeastRequest{}
		random, wrrLocality := &randomv3.Random{}, &wrrlocalityv3.WrrLocality{}
		var config balancer.Config
		switch {
		case is(a, roundRobin):
			d.unpack(in, a, roundRobin)
			config.LocalityWeighted = localityWeighted(roundRobin)
		case is(a, leastRequest):
			d.unpack(in, a, leastRequest)
			config = d.leastRequest(in, leastRequest.GetChoiceCount(), leastRequest.GetActiveRequestBias())
			config.LocalityWeighted = localityWeighted(leastRequest)
		case is(a, random):
			d.unpack(in, a, random)
			config.Policy = balancer.Random
			config.LocalityWeighted = localityWeighted(random)
		case is(a, wrrLocality):
			d.unpack(in, a, wrrLocality)
			config = d.balancingPolicy(in.field("endpoint_picking_policy"), wrrLocality.GetEndpointPickingPolicy(), depth+1)
			config.LocalityWeighted = true
		default:
			unknown = append(unknown, typeName(a))
			continue
		}
		return config
	}
	d.refusef(at.field("policies"), "none of the policies is supported: [%s]", strings.Join(unknown, ", "))
	return balancer.Config{}
}

// localityWeighted tells whether a policy balances by locality weight.
func localityWeighted(policy interface {
	GetLocalityLbConfig() *commonv3.LocalityLbConfig
}) bool {
	return policy.GetLocalityLbConfig().GetLocalityWeightedLbConfig() != nil
}
