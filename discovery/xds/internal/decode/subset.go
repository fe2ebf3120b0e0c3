package decode

import (
	"maps"
	"slices"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	subsetv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/subset/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/inboardmesh/inboard/balancer"
)

const (
	subsetFieldsRead   = "fallback_policy default_subset subset_selectors locality_weight_aware panic_mode_any"
	selectorFieldsRead = "keys fallback_policy fallback_keys_subset"
	// It says only how a subset of one host may be kept.
	selectorHarmless = "single_host_per_subset"

	metadataFallbackInstead = "use fallback_policy, of the whole or of a selector"
	scaleWeightInstead      = "a locality weighs the same in every subset: use locality_weight_aware alone"
	listAsAnyInstead        = "only strings are compared"
)

var subsetFields = []messageFields{
	{
		message: (*clusterv3.Cluster_LbSubsetConfig)(nil), read: subsetFieldsRead,
		instead: map[string]string{
			"list_as_any": listAsAnyInstead, "scale_locality_weight": scaleWeightInstead,
			"metadata_fallback_policy": metadataFallbackInstead,
		},
	},
	{message: (*clusterv3.Cluster_LbSubsetConfig_LbSubsetSelector)(nil), read: selectorFieldsRead, harmless: selectorHarmless},
	{
		message: (*subsetv3.Subset)(nil), read: subsetFieldsRead + " subset_lb_policy",
		instead: map[string]string{
			"list_as_any": listAsAnyInstead, "scale_locality_weight": scaleWeightInstead,
			"metadata_fallback_policy": metadataFallbackInstead,
			"allow_redundant_keys":     "a call asks for exactly the keys of a selector",
		},
	},
	{message: (*subsetv3.Subset_LbSubsetSelector)(nil), read: selectorFieldsRead, harmless: selectorHarmless},
}

// lbNamespace is the metadata that subsets are chosen by.
const lbNamespace = "envoy.lb"

// lbSubsets decodes lb_subset_config; nil is none. Without selectors it has no
// effect (Envoy).
func (d *decoder) lbSubsets(at path, m *clusterv3.Cluster_LbSubsetConfig) *balancer.Subsets {
	if len(m.GetSubsetSelectors()) == 0 {
		return nil
	}
	s := &balancer.Subsets{
		Fallback:            fallback(int32(m.GetFallbackPolicy())),
		Default:             d.subsetValues(at.field("default_subset"), m.GetDefaultSubset()),
		PanicAny:            m.GetPanicModeAny(),
		LocalityWeightAware: m.GetLocalityWeightAware(),
	}
	for i, selector := range m.GetSubsetSelectors() {
		s.Selectors = append(s.Selectors, d.selector(at.element("subset_selectors", i),
			selector.GetKeys(), int32(selector.GetFallbackPolicy()), selector.GetFallbackKeysSubset()))
	}
	return s
}

// typedSubsets decodes the extension but for its policy. Without selectors every
// call gets what the fallback says (Envoy, where only lb_subset_config is off then).
func (d *decoder) typedSubsets(at path, m *subsetv3.Subset) *balancer.Subsets {
	s := &balancer.Subsets{
		Fallback:            fallback(int32(m.GetFallbackPolicy())),
		Default:             d.subsetValues(at.field("default_subset"), m.GetDefaultSubset()),
		PanicAny:            m.GetPanicModeAny(),
		LocalityWeightAware: m.GetLocalityWeightAware(),
	}
	for i, selector := range m.GetSubsetSelectors() {
		s.Selectors = append(s.Selectors, d.selector(at.element("subset_selectors", i),
			selector.GetKeys(), int32(selector.GetFallbackPolicy()), selector.GetFallbackKeysSubset()))
	}
	return s
}

// fallback converts a policy of the whole, which is the same number in both
// messages. Envoy's constraints have checked it.
func fallback(policy int32) balancer.SubsetFallback {
	return [...]balancer.SubsetFallback{balancer.FallbackNone, balancer.FallbackAny, balancer.FallbackDefault}[min(uint32(policy), 2)]
}

// selector decodes one selector.
func (d *decoder) selector(at path, keys []string, policy int32, fallbackKeys []string) balancer.SubsetSelector {
	s := balancer.SubsetSelector{
		Keys: keys,
		Fallback: [...]balancer.SubsetFallback{
			balancer.FallbackUnset, balancer.FallbackNone, balancer.FallbackAny, balancer.FallbackDefault, balancer.FallbackKeysSubset,
		}[min(uint32(policy), 4)],
		FallbackKeys: fallbackKeys,
	}
	if len(keys) == 0 {
		d.refusef(at.field("keys"), "must not be empty")
	}
	within := func(key string) bool { return slices.Contains(keys, key) }
	switch in := at.field("fallback_keys_subset"); {
	case s.Fallback != balancer.FallbackKeysSubset && len(fallbackKeys) > 0:
		d.refusef(in, "is only for fallback_policy KEYS_SUBSET")
	case s.Fallback != balancer.FallbackKeysSubset:
	case len(fallbackKeys) == 0:
		d.refusef(in, "must be set for fallback_policy KEYS_SUBSET")
	case slices.ContainsFunc(fallbackKeys, func(key string) bool { return !within(key) }):
		d.refusef(in, "must be some of the keys")
	case !slices.ContainsFunc(keys, func(key string) bool { return !slices.Contains(fallbackKeys, key) }):
		d.refusef(in, "must not be all of the keys")
	}
	return s
}

// subsetValues decodes metadata to be matched. Of the metadata of endpoints only
// strings are kept, so that nothing else can be asked for.
func (d *decoder) subsetValues(at path, m *structpb.Struct) map[string]string {
	var values map[string]string
	for _, key := range slices.Sorted(maps.Keys(m.GetFields())) {
		text, ok := stringValue(m.GetFields()[key])
		if !ok {
			d.refusef(at.entry("fields", key), "must be a string")
		}
		if values == nil {
			values = make(map[string]string, len(m.GetFields()))
		}
		values[key] = text
	}
	return values
}

// metadataMatch decodes metadata_match of a route or of a weighted cluster. What
// is not for load balancers has no reader in Envoy either.
func (d *decoder) metadataMatch(at path, m *corev3.Metadata) map[string]string {
	in := at.field("metadata_match").entry("filter_metadata", lbNamespace)
	return d.subsetValues(in, m.GetFilterMetadata()[lbNamespace])
}

// merged is what a weighted cluster asks for: what its route does, and more.
func merged(route, own map[string]string) *balancer.Match {
	if len(own) == 0 {
		return balancer.NewMatch(route)
	}
	all := maps.Clone(own)
	for key, value := range route {
		if _, ok := all[key]; !ok {
			all[key] = value
		}
	}
	return balancer.NewMatch(all)
}
