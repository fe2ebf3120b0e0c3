package xds

import (
	"maps"
	"net"
	"slices"
	"strconv"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"

	"github.com/inboardmesh/inboard/discovery"
)

// clusterStats are the load of a cluster, by localities and, if each is true, by
// endpoints too.
func clusterStats(load *discovery.ClusterLoad, each bool) *endpointv3.ClusterStats {
	stats := &endpointv3.ClusterStats{
		ClusterName: load.Cluster, ClusterServiceName: load.Service, TotalDroppedRequests: load.Dropped,
	}
	for _, category := range slices.Sorted(maps.Keys(load.Drops)) {
		stats.DroppedRequests = append(stats.DroppedRequests, &endpointv3.ClusterStats_DroppedRequests{
			Category: category, DroppedCount: load.Drops[category],
		})
	}
	for i := range load.Localities {
		stats.UpstreamLocalityStats = append(stats.UpstreamLocalityStats, localityStats(&load.Localities[i], each))
	}
	return stats
}

func localityStats(l *discovery.LocalityLoad, each bool) *endpointv3.UpstreamLocalityStats {
	stats := &endpointv3.UpstreamLocalityStats{
		Locality:                &corev3.Locality{Region: l.Locality.Region, Zone: l.Locality.Zone, SubZone: l.Locality.SubZone},
		TotalIssuedRequests:     l.Issued,
		TotalSuccessfulRequests: l.Succeeded,
		TotalErrorRequests:      l.Failed,
		TotalRequestsInProgress: l.InProgress,
	}
	for _, name := range slices.Sorted(maps.Keys(l.Metrics)) {
		addMetric(stats, name, l.Metrics[name])
	}
	if each {
		for i := range l.Endpoints {
			stats.UpstreamEndpointStats = append(stats.UpstreamEndpointStats, endpointStats(&l.Endpoints[i]))
		}
	}
	return stats
}

// endpointStats have all metrics by their names: there are no fields of their own for
// the utilizations, as a locality has.
func endpointStats(e *discovery.EndpointLoad) *endpointv3.UpstreamEndpointStats {
	stats := &endpointv3.UpstreamEndpointStats{
		Address:                 addressOf(e.Address),
		TotalIssuedRequests:     e.Issued,
		TotalSuccessfulRequests: e.Succeeded,
		TotalErrorRequests:      e.Failed,
		TotalRequestsInProgress: e.InProgress,
	}
	for _, name := range slices.Sorted(maps.Keys(e.Metrics)) {
		stats.LoadMetricStats = append(stats.LoadMetricStats, namedMetric(name, e.Metrics[name]))
	}
	return stats
}

// addressOf is an address as the control plane wrote it.
func addressOf(address string) *corev3.Address {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		host = address
	}
	port, _ := strconv.ParseUint(text, 10, 16) // decoded from a number
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: host, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(port)},
	}}}
}

func addMetric(stats *endpointv3.UpstreamLocalityStats, name string, m discovery.MetricLoad) {
	unnamed := &endpointv3.UnnamedEndpointLoadMetricStats{NumRequestsFinishedWithMetric: m.Count, TotalMetricValue: m.Total}
	switch name {
	case "cpu_utilization":
		stats.CpuUtilization = unnamed
	case "mem_utilization":
		stats.MemUtilization = unnamed
	case "application_utilization":
		stats.ApplicationUtilization = unnamed
	default:
		stats.LoadMetricStats = append(stats.LoadMetricStats, namedMetric(name, m))
	}
}

func namedMetric(name string, m discovery.MetricLoad) *endpointv3.EndpointLoadMetricStats {
	return &endpointv3.EndpointLoadMetricStats{MetricName: name, NumRequestsFinishedWithMetric: m.Count, TotalMetricValue: m.Total}
}
