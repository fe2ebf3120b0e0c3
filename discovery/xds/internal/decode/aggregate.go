package decode

import (
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	aggregatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/aggregate/v3"

	"github.com/inboardmesh/inboard/discovery"
)

var aggregateFields = []messageFields{
	{message: (*clusterv3.Cluster_CustomClusterType)(nil), read: "name typed_config"},
	{message: (*aggregatev3.ClusterConfig)(nil), read: "clusters"},
}

// ofLeaves are the fields of a Cluster that say how to choose or to reach an
// endpoint. An aggregate has none of its own: Envoy and gRFC A75 take what the
// cluster says that the endpoint is of.
const ofLeaves = "eds_cluster_config load_assignment least_request_lb_config round_robin_lb_config ring_hash_lb_config " +
	"maglev_lb_config lb_subset_config common_lb_config load_balancing_policy transport_socket transport_socket_matches " +
	"typed_extension_protocol_options upstream_connection_options preconnect_policy outlier_detection health_checks " +
	"lrs_server lrs_report_endpoint_metrics"

// aggregateCluster decodes a Cluster with a cluster_type. Of the limits it has that
// of retries, which may go to any of its clusters.
func (d *decoder) aggregateCluster(at path, m *clusterv3.Cluster) *discovery.Cluster {
	in := at.field("cluster_type").field("typed_config")
	c := &discovery.Cluster{
		Name:           m.GetName(),
		ConnectTimeout: defaultConnectTimeout,
		RetryThrottle:  d.throttleSettings(at.field("metadata"), m.GetMetadata()),
	}
	if m.GetConnectTimeout() != nil {
		c.ConnectTimeout = d.duration(at.field("connect_timeout"), m.GetConnectTimeout())
	}
	var config aggregatev3.ClusterConfig
	if d.unpack(in, m.GetClusterType().GetTypedConfig(), &config) {
		for i, name := range config.GetClusters() {
			switch name {
			case "":
				d.refusef(in.element("clusters", i), "must not be empty")
			case m.GetName():
				d.refusef(in.element("clusters", i), "%q is the cluster itself", name)
			}
		}
		c.Aggregate = firstOfEach(config.GetClusters())
	}
	if p := m.GetLbPolicy(); p != clusterv3.Cluster_CLUSTER_PROVIDED && p != clusterv3.Cluster_ROUND_ROBIN {
		d.refusef(at.field("lb_policy"), "%s is not supported for an aggregate cluster: set it in the clusters that it consists of", p)
	}
	fields := m.ProtoReflect().Descriptor().Fields()
	for name := range strings.FieldsSeq(ofLeaves) {
		for i := range fields.Len() {
			if fd := fields.Get(i); string(fd.Name()) == name && m.ProtoReflect().Has(fd) {
				d.refusef(at.field(name), "not supported for an aggregate cluster: set it in the clusters that it consists of")
			}
		}
	}
	c.Limits, c.RetryBudget = d.limits(at.field("circuit_breakers"), m.GetCircuitBreakers())
	d.onlyRetries(at.field("circuit_breakers"), m.GetCircuitBreakers())
	if one, each := d.breakerSettings(at.field("metadata"), m.GetMetadata()); one != nil || each != nil {
		d.refusef(at.field("metadata"), "error-rate breakers are not supported for an aggregate cluster: set them in the clusters that it consists of")
	}
	for _, key := range []string{balancerKey, prioritiesKey, subsettingKey} {
		if _, ok := m.GetMetadata().GetFilterMetadata()[key]; ok {
			d.refusef(at.field("metadata").entry("filter_metadata", key),
				"not supported for an aggregate cluster: set it in the clusters that it consists of")
		}
	}
	return c
}

// firstOfEach leaves out what was there before: a cluster that comes by twice counts
// where it comes first (gRFC A37).
func firstOfEach(names []string) []string {
	var once []string
	seen := make(map[string]struct{}, len(names))
	for _, name := range names {
		if _, ok := seen[name]; !ok {
			seen[name] = struct{}{}
			once = append(once, name)
		}
	}
	return once
}

// onlyRetries refuses the limits that an aggregate cluster does not have.
func (d *decoder) onlyRetries(at path, m *clusterv3.CircuitBreakers) {
	const reason = "not supported for an aggregate cluster: set it in the clusters that it consists of"
	for i, t := range m.GetThresholds() {
		for _, limit := range []struct {
			name string
			set  bool
		}{
			{"max_connections", t.GetMaxConnections() != nil},
			{"max_pending_requests", t.GetMaxPendingRequests() != nil},
			{"max_requests", t.GetMaxRequests() != nil},
			{"track_remaining", t.GetTrackRemaining()},
		} {
			if limit.set {
				d.refusef(at.element("thresholds", i).field(limit.name), reason)
			}
		}
	}
	if len(m.GetPerHostThresholds()) > 0 {
		d.refusef(at.field("per_host_thresholds"), reason)
	}
}
