package decode

import (
	"maps"
	"slices"
	"strings"

	xdstypev3 "github.com/cncf/xds/go/xds/type/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	subsettingv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/random_subsetting/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/inboardmesh/inboard/balancer"
)

var ownBalancingFields = []messageFields{
	{message: (*subsettingv3.RandomSubsetting)(nil), read: "subset_size child_policy"},
	{message: (*xdstypev3.TypedStruct)(nil), read: "type_url value"},
}

const (
	// balancerKey is where a cluster's metadata names a policy: one of the
	// application's, or peakEWMA. It goes before lb_policy.
	balancerKey = "inboard.balancer"
	// subsettingKey is where a cluster's metadata lets clients have some of its
	// endpoints only.
	subsettingKey = "inboard.subsetting"
	// prioritiesKey is where a cluster's metadata says how priorities are chosen.
	prioritiesKey = "inboard.priorities"
	// peakEWMA is the name of the policy that no control plane has a message for.
	peakEWMA = "inboard.peak_ewma"
)

// subsetting decodes the policy that gives clients some endpoints (gRFC A68).
func (d *decoder) subsetting(in path, m *subsettingv3.RandomSubsetting, depth int) balancing {
	b := d.balancingPolicy(in.field("child_policy"), m.GetChildPolicy(), depth+1)
	if b.Subsetting.Size != 0 {
		d.refusef(in.field("child_policy"), "a part of a part of the endpoints is not supported")
	}
	if b.Subsetting.Size = m.GetSubsetSize().GetValue(); b.Subsetting.Size == 0 {
		d.refusef(in.field("subset_size"), "must be more than 0")
	}
	return b
}

// named decodes a policy that has no message: its name is behind the last slash of
// the type (gRFC A52). known is false for one that is not there.
func (d *decoder) named(in path, a *anypb.Any) (b balancing, known bool) {
	m := &xdstypev3.TypedStruct{}
	if a.UnmarshalTo(m) != nil {
		return b, false
	}
	name := m.GetTypeUrl()[strings.LastIndexByte(m.GetTypeUrl(), '/')+1:]
	if _, own := d.policies[name]; !own && name != peakEWMA {
		return b, false
	}
	if d.unpack(in, a, m) {
		b.Config = d.namedPolicy(in.field("value"), name, m.GetValue())
	}
	return b, true
}

// namedPolicy makes the configuration of a policy that is known.
func (d *decoder) namedPolicy(at path, name string, config *structpb.Struct) balancer.Config {
	if own, ok := d.policies[name]; ok {
		if own.Config = nil; config != nil {
			own.Config = config.AsMap()
		}
		return balancer.Config{Policy: balancer.CustomPolicy, Custom: &own}
	}
	b := balancer.Config{Policy: balancer.PeakEWMA}
	for _, field := range slices.Sorted(maps.Keys(config.GetFields())) {
		in, value := at.field(field), config.GetFields()[field]
		if field != "decayTime" {
			d.refusef(in, "unknown: use decayTime")
		} else if b.DecayTime = d.period(in, value, 0); b.DecayTime <= 0 {
			d.refusef(in, "must be more than 0")
		}
	}
	return b
}

// ownBalancing takes over what the metadata of a cluster say beside its policy.
func (d *decoder) ownBalancing(at path, m *corev3.Metadata, b *balancing) {
	if config, ok := m.GetFilterMetadata()[balancerKey]; ok {
		d.balancerByName(at.entry("filter_metadata", balancerKey), config, b)
	}
	if config, ok := m.GetFilterMetadata()[prioritiesKey]; ok {
		b.Failover = d.failover(at.entry("filter_metadata", prioritiesKey), config)
	}
	config, ok := m.GetFilterMetadata()[subsettingKey]
	if !ok {
		return
	}
	at = at.entry("filter_metadata", subsettingKey)
	for _, name := range slices.Sorted(maps.Keys(config.GetFields())) {
		if in := at.field(name); name == "size" {
			b.Subsetting.Size = d.count(in, config.GetFields()[name], 1)
		} else {
			d.refusef(in, "unknown: use size")
		}
	}
	if b.Subsetting.Size == 0 {
		d.refusef(at.field("size"), "must be more than 0")
	}
}

// failover decodes how priorities are chosen: as Envoy or gRPC does.
func (d *decoder) failover(at path, m *structpb.Struct) *balancer.Failover {
	policy, f := "", &balancer.Failover{}
	for _, field := range slices.Sorted(maps.Keys(m.GetFields())) {
		in, value := at.field(field), m.GetFields()[field]
		switch field {
		case "policy":
			policy, _ = stringValue(value)
		case "connectWithin":
			if f.ConnectWithin = d.period(in, value, 0); f.ConnectWithin <= 0 {
				d.refusef(in, "must be more than 0")
			}
		default:
			d.refusef(in, "unknown: use policy and connectWithin")
		}
	}
	switch policy {
	case "grpc":
		return f
	case "envoy":
		if f.ConnectWithin != 0 {
			d.refusef(at.field("connectWithin"), "has no effect with the policy envoy: remove it")
		}
	default:
		d.refusef(at.field("policy"), "must be grpc or envoy")
	}
	return nil
}

// ownPolicies has the policy that the metadata of a cluster name, as if the process
// brought it.
func ownPolicies(m *clusterv3.Cluster) map[string]balancer.Custom {
	name := m.GetMetadata().GetFilterMetadata()[balancerKey].GetFields()["policy"].GetStringValue()
	if name == "" || name == peakEWMA {
		return nil
	}
	return map[string]balancer.Custom{name: {Name: name}}
}

func (d *decoder) balancerByName(at path, m *structpb.Struct, b *balancing) {
	name, config := "", (*structpb.Struct)(nil)
	for _, field := range slices.Sorted(maps.Keys(m.GetFields())) {
		in, value := at.field(field), m.GetFields()[field]
		switch field {
		case "policy":
			var ok bool
			if name, ok = stringValue(value); !ok {
				d.refusef(in, "must be a string: is %s", valueText(value))
				return
			}
		case "config":
			if config = value.GetStructValue(); config == nil {
				d.refusef(in, "must be an object: is %s", valueText(value))
			}
		default:
			d.refusef(in, "unknown: use policy and config")
		}
	}
	if _, own := d.policies[name]; !own && name != peakEWMA {
		known := append(slices.Sorted(maps.Keys(d.policies)), peakEWMA)
		d.refusef(at.field("policy"), "this process has no policy %q: it has %q", name, known)
		return
	}
	own := d.namedPolicy(at.field("config"), name, config)
	b.Policy, b.Custom, b.DecayTime, b.hash = own.Policy, own.Custom, own.DecayTime, nil
	b.SlowStart, b.HashBalanceFactor = balancer.SlowStart{}, 0
}
