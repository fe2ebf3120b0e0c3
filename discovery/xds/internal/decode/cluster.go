package decode

import (
	"maps"
	"slices"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	rawbufferv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/raw_buffer/v3"

	"github.com/inboardmesh/inboard/breaker"
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/retry"
)

var clusterFields = []messageFields{
	{
		message: (*clusterv3.Cluster)(nil),
		read: "name type cluster_type eds_cluster_config load_assignment connect_timeout lb_policy least_request_lb_config " +
			"round_robin_lb_config ring_hash_lb_config maglev_lb_config lb_subset_config common_lb_config load_balancing_policy circuit_breakers transport_socket transport_socket_matches " +
			"typed_extension_protocol_options metadata outlier_detection health_checks upstream_connection_options preconnect_policy " +
			"dns_refresh_rate dns_jitter dns_failure_refresh_rate dns_lookup_family lrs_server lrs_report_endpoint_metrics",
		// Metrics; Envoy's buffers, threads and start order; the settings of
		// original-destination clusters, which are refused; and which resolver is
		// asked, which clusters of type DNS refuse. The process's resolver does
		// not tell how long an answer holds.
		harmless: "alt_stat_name stats_matcher track_timeout_budgets track_cluster_stats " +
			"per_connection_buffer_limit_bytes wait_for_warm_on_init cleanup_interval " +
			"respect_dns_ttl dns_resolvers use_tcp_for_dns_lookups dns_resolution_config typed_dns_resolver_config " +
			// What the control plane has taken out is not used here, whatever its
			// health.
			"ignore_health_on_host_removal",
		instead: map[string]string{
			"http_protocol_options":                        "use typed_extension_protocol_options",
			"http2_protocol_options":                       "use typed_extension_protocol_options",
			"common_http_protocol_options":                 "use typed_extension_protocol_options",
			"upstream_http_protocol_options":               "use typed_extension_protocol_options",
			"max_requests_per_connection":                  "use typed_extension_protocol_options",
			"protocol_selection":                           "use use_downstream_protocol_config of typed_extension_protocol_options",
			"transport_socket_matcher":                     "use transport_socket_matches",
			"per_connection_buffer_high_watermark_timeout": "use timeouts of routes, and pings or keep-alive of connections",
			"upstream_bind_config":                         "the operating system chooses the local address",
			"original_dst_lb_config":                       "there are no clusters of original destinations",
			"close_connections_on_host_health_failure":     "calls that an endpoint has are left to end: use outlier_detection and timeouts",
			"filters":         "there are no network filters of connections to endpoints",
			"upstream_config": "there is one connection pool for all clusters",
			"connection_pool_per_downstream_connection": "the calls of all callers share connections",
			"queuing_policies":                          "what waits for a connection waits in turn: use max_pending_requests",
		},
	},
	{message: (*clusterv3.Cluster_RefreshRate)(nil), read: "base_interval max_interval"},
	{message: (*clusterv3.Cluster_TransportSocketMatch)(nil), read: "name match transport_socket"},
	{message: (*clusterv3.Cluster_EdsClusterConfig)(nil), read: "eds_config service_name"},
	{message: (*clusterv3.CircuitBreakers)(nil), read: "thresholds per_host_thresholds"},
	{
		message: (*clusterv3.CircuitBreakers_Thresholds)(nil),
		read:    "priority max_connections max_pending_requests max_requests max_retries retry_budget track_remaining",
		instead: map[string]string{"max_connection_pools": "a pool is an endpoint's: use max_connections"},
	},
	{
		message: (*clusterv3.CircuitBreakers_Thresholds_RetryBudget)(nil),
		read:    "budget_percent min_retry_concurrency",
		zero:    "budget_interval",
	},
	{message: (*rawbufferv3.RawBuffer)(nil)},
}

// Envoy's defaults.
const (
	defaultConnectTimeout = 5 * time.Second
	defaultBudgetPercent  = 20
	defaultBudgetRetries  = 3
)

// cluster decodes a Cluster of type EDS, STATIC, STRICT_DNS or LOGICAL_DNS, or an
// aggregate.
func (d *decoder) cluster(at path, m *clusterv3.Cluster) *discovery.Cluster {
	if m.GetClusterType() != nil {
		return d.aggregateCluster(at, m)
	}
	balancing := d.balancer(at, m)
	c := &discovery.Cluster{
		Name:           m.GetName(),
		Balancer:       balancing.Config,
		Hash:           balancing.hash,
		ConnectTimeout: defaultConnectTimeout,
		TLS:            d.upstreamTLS(at.field("transport_socket"), m.GetTransportSocket()),
		RetryThrottle:  d.throttleSettings(at.field("metadata"), m.GetMetadata()),
		Outlier:        d.outlierDetection(at.field("outlier_detection"), m.GetOutlierDetection()),
		HealthCheck:    d.healthCheck(at, m.GetHealthChecks()),
	}
	c.Breaker, c.EndpointBreaker = d.breakerSettings(at.field("metadata"), m.GetMetadata())
	if c.HealthCheck != nil {
		c.HealthCheck.ExcludeNew = m.GetCommonLbConfig().GetIgnoreNewHostsUntilFirstHc()
	}
	c.LoadReports = d.loadReports(at, m)
	c.TLSMatches = d.socketMatches(at, m.GetTransportSocketMatches())
	if m.GetConnectTimeout() != nil {
		c.ConnectTimeout = d.duration(at.field("connect_timeout"), m.GetConnectTimeout())
	}
	c.Limits, c.RetryBudget = d.limits(at.field("circuit_breakers"), m.GetCircuitBreakers())
	for _, t := range m.GetCircuitBreakers().GetThresholds() {
		if p := t.GetPriority(); int(p) < len(c.TrackRemaining) {
			c.TrackRemaining[p] = t.GetTrackRemaining()
		}
	}
	c.HostConnections = d.hostLimits(at.field("circuit_breakers"), m.GetCircuitBreakers().GetPerHostThresholds())
	d.endpointSource(at, m, c)
	d.httpProtocol(at, m.GetTypedExtensionProtocolOptions(), c)
	c.PreconnectRatio = d.preconnectRatio(at.field("preconnect_policy"), m.GetPreconnectPolicy())
	c.KeepAlive = d.keepAlive(at.field("upstream_connection_options").field("tcp_keepalive"),
		m.GetUpstreamConnectionOptions().GetTcpKeepalive())
	c.Families = d.families(at.field("upstream_connection_options").field("happy_eyeballs_config"),
		m.GetUpstreamConnectionOptions().GetHappyEyeballsConfig())
	return c
}

// socketMatches decodes transport_socket_matches. Of the metadata of endpoints
// only strings are kept, so that nothing else can be asked for.
func (d *decoder) socketMatches(at path, list []*clusterv3.Cluster_TransportSocketMatch) []discovery.TLSMatch {
	var matches []discovery.TLSMatch
	for i, m := range list {
		in := at.element("transport_socket_matches", i)
		match := discovery.TLSMatch{Name: m.GetName(), TLS: d.upstreamTLS(in.field("transport_socket"), m.GetTransportSocket())}
		if m.GetTransportSocket() == nil {
			d.refusef(in.field("transport_socket"), "must be set")
		}
		for _, key := range slices.Sorted(maps.Keys(m.GetMatch().GetFields())) {
			text, ok := stringValue(m.GetMatch().GetFields()[key])
			if !ok {
				d.refusef(in.field("match").entry("fields", key), "must be a string")
			}
			if match.Match == nil {
				match.Match = make(map[string]string, len(m.GetMatch().GetFields()))
			}
			match.Match[key] = text
		}
		matches = append(matches, match)
	}
	return matches
}

// endpointSource decodes where the endpoints come from.
func (d *decoder) endpointSource(at path, m *clusterv3.Cluster, c *discovery.Cluster) {
	switch m.GetType() {
	case clusterv3.Cluster_EDS:
		if m.GetLoadAssignment() != nil {
			d.refusef(at.field("load_assignment"), "must not be set for type EDS")
		}
		c.EDSName = d.edsName(at, m)
	case clusterv3.Cluster_STATIC, clusterv3.Cluster_STRICT_DNS, clusterv3.Cluster_LOGICAL_DNS:
		if m.GetEdsClusterConfig() != nil {
			d.refusef(at.field("eds_cluster_config"), "must not be set for type %s", m.GetType())
		}
		if m.GetLoadAssignment() == nil {
			d.refusef(at.field("load_assignment"), "must be set for type %s", m.GetType())
			return
		}
		if m.GetType() != clusterv3.Cluster_STATIC {
			c.DNS = d.dns(at, m)
		}
		c.Static = d.assignment(at.field("load_assignment"), m.GetLoadAssignment(), assignmentRules{names: c.DNS != nil})
	default:
		d.refusef(at.field("type"), "%s is not supported: use EDS, STATIC, STRICT_DNS or LOGICAL_DNS", m.GetType())
	}
}

// edsName decodes eds_cluster_config into the name of the assignment.
func (d *decoder) edsName(at path, m *clusterv3.Cluster) string {
	in := at.field("eds_cluster_config")
	if m.GetEdsClusterConfig() == nil {
		d.refusef(in, "must be set for type EDS")
		return ""
	}
	d.adsSource(in.field("eds_config"), m.GetEdsClusterConfig().GetEdsConfig())
	if name := m.GetEdsClusterConfig().GetServiceName(); name != "" {
		return name
	}
	if isFederated(m.GetName()) {
		// gRFC A47: the type is part of such a name, so that it cannot name
		// the assignment too.
		d.refusef(in.field("service_name"), "must be set for a cluster with an xdstp name")
	}
	return m.GetName()
}

// limits decodes circuit_breakers.
func (d *decoder) limits(at path, m *clusterv3.CircuitBreakers) (limits [2]breaker.Limits, budgets [2]*retry.Budget) {
	limits = [2]breaker.Limits{breaker.DefaultLimits, breaker.DefaultLimits}
	var seen [2]bool
	for i, t := range m.GetThresholds() {
		in := at.element("thresholds", i)
		p := d.priority(in.field("priority"), t.GetPriority())
		if seen[p] {
			d.refusef(in.field("priority"), "%s has thresholds already", t.GetPriority())
		}
		seen[p] = true
		l := &limits[p]
		if v := t.GetMaxConnections(); v != nil {
			l.MaxConnections = v.GetValue()
		}
		if v := t.GetMaxPendingRequests(); v != nil {
			l.MaxPendingRequests = v.GetValue()
		}
		if v := t.GetMaxRequests(); v != nil {
			l.MaxRequests = v.GetValue()
		}
		if v := t.GetMaxRetries(); v != nil {
			l.MaxRetries = v.GetValue()
		}
		budgets[p] = d.retryBudget(in.field("retry_budget"), t.GetRetryBudget())
	}
	return limits, budgets
}

// hostLimits decodes per_host_thresholds, of which Envoy has max_connections only. 0
// is no limit.
func (d *decoder) hostLimits(at path, thresholds []*clusterv3.CircuitBreakers_Thresholds) (limits [2]uint32) {
	for i, t := range thresholds {
		in := at.element("per_host_thresholds", i)
		p := d.priority(in.field("priority"), t.GetPriority())
		if limits[p] != 0 {
			d.refusef(in.field("priority"), "%s has thresholds already", t.GetPriority())
		}
		for _, other := range []struct {
			name string
			set  bool
		}{
			{"max_pending_requests", t.GetMaxPendingRequests() != nil},
			{"max_requests", t.GetMaxRequests() != nil},
			{"max_retries", t.GetMaxRetries() != nil},
			{"retry_budget", t.GetRetryBudget() != nil},
			{"track_remaining", t.GetTrackRemaining()},
		} {
			if other.set {
				d.refusef(in.field(other.name), "not supported for a host: max_connections is the only limit of hosts")
			}
		}
		limits[p] = t.GetMaxConnections().GetValue()
		if t.GetMaxConnections() == nil || limits[p] == 0 {
			d.refusef(in.field("max_connections"), "must be at least 1")
		}
	}
	return limits
}

func (d *decoder) retryBudget(at path, m *clusterv3.CircuitBreakers_Thresholds_RetryBudget) *retry.Budget {
	if m == nil {
		return nil
	}
	b := &retry.Budget{
		Percent:        d.percent(at.field("budget_percent"), m.GetBudgetPercent(), defaultBudgetPercent),
		MinConcurrency: defaultBudgetRetries,
	}
	if v := m.GetMinRetryConcurrency(); v != nil {
		b.MinConcurrency = v.GetValue()
	}
	return b
}
