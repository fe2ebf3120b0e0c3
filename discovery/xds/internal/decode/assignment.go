package decode

import (
	"math"
	"strconv"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/discovery"
)

var assignmentFields = []messageFields{
	{
		message: (*endpointv3.ClusterLoadAssignment)(nil), read: "cluster_name endpoints policy",
		instead: map[string]string{"named_endpoints": "write each endpoint where it is used"},
	},
	{
		message: (*endpointv3.ClusterLoadAssignment_Policy)(nil), read: "drop_overloads overprovisioning_factor",
		instead: map[string]string{
			"endpoint_stale_after":     "endpoints hold until the control plane takes them away",
			"weighted_priority_health": "the health of a priority is the share of its endpoints, each counted once",
		},
	},
	{message: (*endpointv3.ClusterLoadAssignment_Policy_DropOverload)(nil), read: "category drop_percentage"},
	{
		message: (*endpointv3.LocalityLbEndpoints)(nil),
		read:    "locality lb_endpoints load_balancing_weight priority",
		// Of the metadata of localities what chooses a transport socket is refused,
		// and nothing else has a reader; no Envoy implements proximity.
		harmless: "metadata proximity",
		instead: map[string]string{
			"load_balancer_endpoints":      "use lb_endpoints",
			"leds_cluster_locality_config": "use lb_endpoints",
		},
	},
	{message: (*corev3.Locality)(nil), read: "region zone sub_zone"},
	{
		message: (*endpointv3.LbEndpoint)(nil), read: "endpoint health_status metadata load_balancing_weight",
		instead: map[string]string{"endpoint_name": "use endpoint"},
	},
	{message: (*endpointv3.Endpoint_AdditionalAddress)(nil), read: "address"},
	{
		message: (*endpointv3.Endpoint)(nil),
		read:    "address additional_addresses hostname health_check_config",
		// It names metrics.
		harmless: "observability_name",
	},
}

// defaultOverprovisioning is Envoy's overprovisioning_factor.
const defaultOverprovisioning = 140

// edsAssignment decodes the resource.
func (d *decoder) edsAssignment(at path, m *endpointv3.ClusterLoadAssignment) *discovery.Assignment {
	return d.assignment(at, m, assignmentRules{})
}

// assignmentRules are what differs between the sources of assignments.
type assignmentRules struct {
	// names allows names in the place of IP addresses.
	names bool
}

// assignment decodes a ClusterLoadAssignment.
func (d *decoder) assignment(at path, m *endpointv3.ClusterLoadAssignment, rules assignmentRules) *discovery.Assignment {
	a := &discovery.Assignment{
		Name:                   m.GetClusterName(),
		Localities:             d.localities(at, m.GetEndpoints(), rules),
		OverprovisioningFactor: defaultOverprovisioning,
	}
	if factor := m.GetPolicy().GetOverprovisioningFactor(); factor != nil {
		a.OverprovisioningFactor = factor.GetValue()
	}
	for _, drop := range m.GetPolicy().GetDropOverloads() {
		a.Drops = append(a.Drops, discovery.Drop{
			Category:   drop.GetCategory(),
			PerMillion: perMillion(drop.GetDropPercentage()),
		})
	}
	return a
}

// localityKey is what must be unique among the localities.
type localityKey struct {
	locality balancer.Locality
	priority uint32
}

// localities decodes and checks the localities as gRFC A27 asks: no gap in the
// priorities, no locality twice in a priority, no endpoint twice, and weights
// whose sum fits 32 bits.
func (d *decoder) localities(at path, list []*endpointv3.LocalityLbEndpoints, rules assignmentRules) []discovery.LocalityEndpoints {
	var localities []discovery.LocalityEndpoints
	seen := make(map[localityKey]path, len(list))
	weights := make(map[uint32]uint64)
	places := newEndpointPlaces(d.endpointCount(list))
	for i, m := range list {
		in := at.element("endpoints", i)
		l := discovery.LocalityEndpoints{
			Locality: balancer.Locality{
				Region:  m.GetLocality().GetRegion(),
				Zone:    m.GetLocality().GetZone(),
				SubZone: m.GetLocality().GetSubZone(),
			},
			Weight:    m.GetLoadBalancingWeight().GetValue(),
			Priority:  m.GetPriority(),
			Endpoints: d.endpoints(in, i, m.GetLbEndpoints(), places, rules),
		}
		if _, ok := m.GetMetadata().GetFilterMetadata()[discovery.TLSMatchMetadata]; ok {
			// Envoy looks here for an endpoint whose own metadata no match is for.
			d.refusef(in.field("metadata").entry("filter_metadata", discovery.TLSMatchMetadata),
				"not supported for a locality: set it in the metadata of its endpoints")
		}
		key := localityKey{locality: l.Locality, priority: l.Priority}
		if first, ok := seen[key]; ok {
			d.refusef(in.field("locality"), "%q is also the locality of %s, at the same priority", l.Locality, first)
		} else {
			seen[key] = in
		}
		weights[l.Priority] += uint64(l.Weight)
		if weights[l.Priority] > math.MaxUint32 {
			d.refusef(in.field("load_balancing_weight"), "the weights of priority %d add up to more than %d", l.Priority, uint32(math.MaxUint32))
		}
		// One without a weight is used unless its cluster balances by locality weight,
		// as in Envoy: then the balancer leaves it out (gRFC A27, which knows no other
		// cluster). A weight of 0, which Envoy refuses, says that nothing is to come here.
		if m.GetLoadBalancingWeight() == nil || l.Weight > 0 {
			localities = append(localities, l)
		}
	}
	for p := range uint32(len(weights)) {
		if _, ok := weights[p]; !ok {
			d.refusef(at.field("endpoints"), "no locality has priority %d, but one has a later priority", p)
			break
		}
	}
	return localities
}

func (d *decoder) endpointCount(list []*endpointv3.LocalityLbEndpoints) int {
	n := 0
	for i, l := range list {
		n += len(l.GetLbEndpoints()) + len(d.plain.of(i))
	}
	return n
}

// endpoints decodes the endpoints of one locality.
func (d *decoder) endpoints(at path, locality int, list []*endpointv3.LbEndpoint, places *endpointPlaces, rules assignmentRules) []balancer.Endpoint {
	endpoints := d.plain.of(locality)
	if endpoints == nil {
		endpoints = d.lbEndpoints(at, list, rules)
	}
	var weights uint64
	for i := range endpoints {
		e := &endpoints[i]
		weights += uint64(e.Weight)
		if weights > math.MaxUint32 {
			d.refusef(at.element("lb_endpoints", i).field("load_balancing_weight"), "the weights of the locality add up to more than %d", uint32(math.MaxUint32))
		}
		here := endpointPlace{locality: uint32(locality), endpoint: uint32(i)}
		d.place(at, e.Address, places, here)
		for _, address := range e.Additional {
			d.place(at, address, places, here)
		}
	}
	return endpoints
}

func (d *decoder) lbEndpoints(at path, list []*endpointv3.LbEndpoint, rules assignmentRules) []balancer.Endpoint {
	if len(list) == 0 {
		return nil
	}
	endpoints := make([]balancer.Endpoint, len(list))
	for i, m := range list {
		in := at.element("lb_endpoints", i)
		endpoints[i] = balancer.Endpoint{
			Address:    d.endpointAddress(in.field("endpoint").field("address"), m.GetEndpoint().GetAddress(), rules),
			Additional: d.additional(in.field("endpoint"), m.GetEndpoint(), rules),
			Hostname:   m.GetEndpoint().GetHostname(),
			Weight:     m.GetLoadBalancingWeight().GetValue(),
			Health:     healthStatus(m.GetHealthStatus()),
			Metadata:   endpointMetadata(m.GetMetadata()),
			Check:      d.endpointCheck(in.field("endpoint").field("health_check_config"), m.GetEndpoint().GetHealthCheckConfig()),
		}
	}
	return endpoints
}

// place takes note of an address, which no endpoint has twice and no two have.
func (d *decoder) place(at path, address string, places *endpointPlaces, here endpointPlace) {
	if address == "" {
		return
	}
	if first, ok := places.add(address, here); ok {
		d.refusef(at.element("lb_endpoints", int(here.endpoint)), "%s is also the address of endpoints[%d].lb_endpoints[%d]", address, first.locality, first.endpoint)
	}
}

// additional decodes the further addresses of an endpoint.
func (d *decoder) additional(at path, m *endpointv3.Endpoint, rules assignmentRules) []string {
	var addresses []string
	for i, a := range m.GetAdditionalAddresses() {
		in := at.element("additional_addresses", i)
		if rules.names {
			d.refusef(in, "not supported in a cluster whose addresses are names: the resolver says which addresses there are")
			break
		}
		addresses = append(addresses, d.socketAddress(in.field("address"), a.GetAddress()))
	}
	return addresses
}

// endpointAddress decodes the address of an endpoint.
func (d *decoder) endpointAddress(at path, m *corev3.Address, rules assignmentRules) string {
	if rules.names {
		return d.namedAddress(at, m)
	}
	return d.socketAddress(at, m)
}

// healthStatus converts a HealthStatus. One that this version does not know is not
// fit for use (gRFC A27).
func healthStatus(s corev3.HealthStatus) balancer.Health {
	switch s {
	case corev3.HealthStatus_UNKNOWN:
		return balancer.Unknown
	case corev3.HealthStatus_HEALTHY:
		return balancer.Healthy
	case corev3.HealthStatus_DRAINING:
		return balancer.Draining
	case corev3.HealthStatus_TIMEOUT:
		return balancer.Timeout
	case corev3.HealthStatus_DEGRADED:
		return balancer.Degraded
	}
	return balancer.Unhealthy
}

// endpointMetadata keeps the strings and the bools of filter metadata; values of
// other types have no place in the model.
func endpointMetadata(m *corev3.Metadata) map[string]map[string]string {
	var metadata map[string]map[string]string
	for namespace, values := range m.GetFilterMetadata() {
		for key, value := range values.GetFields() {
			text, ok := metadataText(value)
			if !ok {
				continue
			}
			if metadata == nil {
				metadata = make(map[string]map[string]string, len(m.GetFilterMetadata()))
			}
			if metadata[namespace] == nil {
				metadata[namespace] = make(map[string]string, len(values.GetFields()))
			}
			metadata[namespace][key] = text
		}
	}
	return metadata
}

// metadataText is a value of metadata as the model has it: "true" for true.
func metadataText(v *structpb.Value) (string, bool) {
	if b, ok := v.GetKind().(*structpb.Value_BoolValue); ok {
		return strconv.FormatBool(b.BoolValue), true
	}
	return stringValue(v)
}
