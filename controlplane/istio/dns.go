package istio

import (
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	networking "istio.io/api/networking/v1alpha3"
)

// dnsMode is whether, and how, clients resolve the names of a service's endpoints.
type dnsMode uint8

const (
	// notNamed is resolution STATIC.
	notNamed dnsMode = iota
	// everyAddress is resolution DNS: each address is an endpoint.
	everyAddress
	// oneEndpoint is resolution DNS_ROUND_ROBIN: the name is the endpoint.
	oneEndpoint
)

const (
	// dnsRefresh is dnsRefreshRate of Istio's mesh configuration, dnsJitter that of
	// its clusters.
	dnsRefresh = 60 * time.Second
	dnsJitter  = 100 * time.Millisecond
)

func resolutionOf(spec *networking.ServiceEntry, a at) dnsMode {
	switch {
	case !a.written():
		a.errorf("is required: use STATIC and list the endpoints, or DNS")
	case spec.Resolution == networking.ServiceEntry_DNS:
		return everyAddress
	case spec.Resolution == networking.ServiceEntry_DNS_ROUND_ROBIN:
		return oneEndpoint
	case spec.Resolution != networking.ServiceEntry_STATIC:
		a.errorf("%v is not supported: use STATIC and list the endpoints, or DNS", spec.Resolution)
	}
	return notNamed
}

// checkEndpoints refuses what a cluster of the mode cannot have.
func (m dnsMode) checkEndpoints(endpoints []*endpoint, a at) {
	if m == oneEndpoint && len(endpoints) > 1 {
		a.field("endpoints").errorf("%d endpoints: resolution DNS_ROUND_ROBIN can have one, or none for the host itself", len(endpoints))
	}
}

// endpointsOf are the endpoints of a host: itself, if names are resolved and no
// endpoints are listed or selected, as in Istio.
func (m dnsMode) endpointsOf(host string, hostAt, a at, endpoints []*endpoint) []*endpoint {
	if m == notNamed || len(endpoints) > 0 || a.field("workloadSelector").written() {
		return endpoints
	}
	return []*endpoint{{at: hostAt, namespace: hostAt.obj.namespace, address: host, weight: 1}}
}

// apply makes the clients resolve the endpoints of a cluster.
func (m dnsMode) apply(c *clusterv3.Cluster, pl *placement) {
	kind := clusterv3.Cluster_STRICT_DNS
	if m == oneEndpoint {
		kind = clusterv3.Cluster_LOGICAL_DNS
	}
	c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: kind}
	c.EdsClusterConfig = nil
	c.LoadAssignment = pl.common
	c.DnsRefreshRate = durationpb.New(dnsRefresh)
	c.DnsJitter = durationpb.New(dnsJitter)
	c.RespectDnsTtl = true
	// Istio says V4_ONLY or ALL, by the addresses of the proxy.
	c.DnsLookupFamily = clusterv3.Cluster_V4_PREFERRED
}
