package relay

import (
	"net"
	"net/netip"
	"strconv"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/retry"
)

type (
	loadAssignment = endpointv3.ClusterLoadAssignment
	retryBudget    = retry.Budget
)

// socket is how endpoints of a cluster are reached.
type socket struct {
	// name is that of a TLSMatch; "" is the cluster's own.
	name string
	tls  *discovery.UpstreamTLS
}

// socketOf is how an endpoint is reached.
func socketOf(c *discovery.Cluster, ep *balancer.Endpoint) socket {
	for i := range c.TLSMatches {
		if m := &c.TLSMatches[i]; m.Matches(ep.Metadata) {
			return socket{name: m.Name, tls: m.TLS}
		}
	}
	return socket{tls: c.TLS}
}

// chooseTLS chooses how a guest reaches the endpoints of a cluster, which has to
// be the same for all: with TLS, if any of them is reached with TLS. It also
// returns how many endpoints are then left out, so that none is spoken to in
// another way than it is to be.
func chooseTLS(c *discovery.Cluster, a *discovery.Assignment) (chosen socket, left int) {
	if len(c.TLSMatches) == 0 {
		return socket{tls: c.TLS}, 0
	}
	found := false
	total := make(map[string]int)
	all := 0
	for i := range a.Localities {
		for j := range a.Localities[i].Endpoints {
			s := socketOf(c, &a.Localities[i].Endpoints[j])
			total[s.name]++
			all++
			if !found || chosen.tls == nil && s.tls != nil {
				chosen, found = s, true
			}
		}
	}
	if found {
		return chosen, all - total[chosen.name]
	}
	for i := range c.TLSMatches { // nothing is called, and what comes had better be secure
		if m := &c.TLSMatches[i]; m.TLS != nil {
			return socket{name: m.Name, tls: m.TLS}, 0
		}
	}
	return socket{tls: c.TLS}, 0
}

// allAddresses reports whether all endpoints have literal addresses.
func allAddresses(a *discovery.Assignment) bool {
	for i := range a.Localities {
		for j := range a.Localities[i].Endpoints {
			if _, err := netip.ParseAddrPort(a.Localities[i].Endpoints[j].Address); err != nil {
				return false
			}
		}
	}
	return true
}

// assignment writes the endpoints that are wanted. grpc-go leaves out localities
// without a weight, which the mesh does only if the cluster is weighted by locality, and
// wants priorities without gaps.
func assignment(a *discovery.Assignment, wanted func(*balancer.Endpoint) bool, compact, weighted bool) *loadAssignment {
	out := &loadAssignment{}
	for _, d := range a.Drops {
		if out.Policy == nil {
			out.Policy = &endpointv3.ClusterLoadAssignment_Policy{}
		}
		out.Policy.DropOverloads = append(out.Policy.DropOverloads, &endpointv3.ClusterLoadAssignment_Policy_DropOverload{
			Category: d.Category, DropPercentage: percent(d.PerMillion, 1),
		})
	}
	used := make(map[uint32]bool)
	for i := range a.Localities {
		l := &a.Localities[i]
		if weighted && l.Weight == 0 {
			continue
		}
		locality := &endpointv3.LocalityLbEndpoints{
			Locality: &corev3.Locality{Region: l.Locality.Region, Zone: l.Locality.Zone, SubZone: l.Locality.SubZone},
			Priority: l.Priority,
		}
		weight := uint32(0)
		for j := range l.Endpoints {
			ep := &l.Endpoints[j]
			if !wanted(ep) {
				continue
			}
			weight += max(ep.Weight, 1)
			locality.LbEndpoints = append(locality.LbEndpoints, endpoint(ep))
		}
		if len(locality.GetLbEndpoints()) == 0 && compact {
			continue
		}
		if l.Weight > 0 {
			weight = l.Weight
		}
		locality.LoadBalancingWeight = wrapperspb.UInt32(max(weight, 1))
		used[l.Priority] = true
		out.Endpoints = append(out.Endpoints, locality)
	}
	for _, l := range out.GetEndpoints() {
		before := uint32(0)
		for p := range used {
			if p < l.GetPriority() {
				before++
			}
		}
		l.Priority = before
	}
	return out
}

// endpoint writes one endpoint. Its address was read from a resource, or is a
// name with a port.
func endpoint(ep *balancer.Endpoint) *endpointv3.LbEndpoint {
	to := &endpointv3.Endpoint{Address: hostAddress(ep.Address), Hostname: ep.Hostname}
	for _, more := range ep.Additional {
		to.AdditionalAddresses = append(to.AdditionalAddresses, &endpointv3.Endpoint_AdditionalAddress{Address: hostAddress(more)})
	}
	out := &endpointv3.LbEndpoint{
		HealthStatus: healths[ep.Health], HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: to},
	}
	if ep.Weight > 0 {
		out.LoadBalancingWeight = wrapperspb.UInt32(ep.Weight)
	}
	return out
}

// hostAddress is the address of "host:port".
func hostAddress(address string) *corev3.Address {
	host, port, _ := net.SplitHostPort(address)
	number, _ := strconv.ParseUint(port, 10, 16)
	return socketAddress(host, uint32(number))
}

func socketAddress(host string, port uint32) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: host, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: port},
	}}}
}

var healths = [...]corev3.HealthStatus{
	balancer.Unknown:   corev3.HealthStatus_UNKNOWN,
	balancer.Healthy:   corev3.HealthStatus_HEALTHY,
	balancer.Unhealthy: corev3.HealthStatus_UNHEALTHY,
	balancer.Draining:  corev3.HealthStatus_DRAINING,
	balancer.Timeout:   corev3.HealthStatus_TIMEOUT,
	balancer.Degraded:  corev3.HealthStatus_DEGRADED,
}
