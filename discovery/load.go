package discovery

import "github.com/inboardmesh/inboard/balancer"

// LoadReports says that the control plane wants to know of the load of a cluster
// (LRS).
type LoadReports struct {
	// Metrics are the names of the endpoints' own metrics (ORCA) to report:
	// "cpu_utilization", "mem_utilization", "application_utilization",
	// "utilization.NAME", "named_metrics.NAME"; "named_metrics.*" is all of
	// that kind (gRFC A85). Without any, none are.
	Metrics []string
}

// ClusterLoad is what happened to the calls of a cluster since the last time that it
// was asked for.
type ClusterLoad struct {
	Cluster string
	// Service is the name of its endpoints at the control plane, "" if that is the
	// cluster's.
	Service    string
	Localities []LocalityLoad
	// Drops are the calls that drop_overloads refused, by category, Dropped those
	// and the ones that the limits refused.
	Drops   map[string]uint64
	Dropped uint64
}

// LocalityLoad is what happened to the calls to the endpoints of one locality. One
// attempt is one call.
type LocalityLoad struct {
	Locality balancer.Locality
	// Issued calls began; of all that ended, Succeeded and Failed; InProgress run
	// now.
	Issued, Succeeded, Failed, InProgress uint64
	// Metrics are the endpoints' own, by name.
	Metrics map[string]MetricLoad
	// Endpoints are the parts of it, sorted by address.
	Endpoints []EndpointLoad
}

// EndpointLoad is what happened to the calls to one endpoint.
type EndpointLoad struct {
	// Address is its "host:port".
	Address string
	// Issued calls began; of all that ended, Succeeded and Failed; InProgress run
	// now.
	Issued, Succeeded, Failed, InProgress uint64
	// Metrics are the endpoint's own, by name.
	Metrics map[string]MetricLoad
}

// MetricLoad is one metric of endpoints.
type MetricLoad struct {
	// Count is how many calls ended with the metric, Total the sum of its values.
	Count uint64
	Total float64
}
