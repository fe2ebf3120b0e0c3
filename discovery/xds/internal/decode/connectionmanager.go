package decode

import (
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"

	"github.com/inboardmesh/inboard/discovery"
)

var connectionManagerFields = []messageFields{
	{
		message: (*hcmv3.HttpConnectionManager)(nil),
		read: "rds route_config http_filters common_http_protocol_options " +
			"use_remote_address xff_num_trusted_hops skip_xff_append original_ip_detection_extensions " +
			"internal_address_config generate_request_id preserve_external_request_id " +
			"forward_client_cert_details set_current_client_cert_details max_request_headers_kb " +
			"normalize_path merge_slashes path_with_escaped_slashes_action stream_idle_timeout request_timeout request_headers_timeout",
		// What false says is what the mesh does: it adds no other headers.
		zero: "add_user_agent",
		// Metrics, spans and access logs.
		harmless: "stat_prefix tracing access_log access_log_options access_log_flush_interval " +
			"flush_access_log_on_new_request record_route_resolution_stats",
		instead: map[string]string{
			"strip_any_host_port":      hostInstead,
			"strip_matching_host_port": hostInstead,
			"strip_trailing_host_dot":  hostInstead,
		},
	},
	{message: (*hcmv3.Rds)(nil), read: "config_source route_config_name"},
	{
		message: (*corev3.HttpProtocolOptions)(nil),
		read:    "idle_timeout max_connection_duration max_stream_duration max_requests_per_connection max_headers_count",
		instead: map[string]string{
			"max_connection_duration_jitter":  "use max_connection_duration alone",
			"max_response_headers_kb":         "use mesh.Network.Transport, which has a limit of response headers",
			"headers_with_underscores_action": "headers are passed on by the names that they have",
		},
	},
}

const hostInstead = "policies about hosts hold with and without a port and a dot anyway; for routes use ignore_port_in_host_matching"

// connectionManager is what is read from an HttpConnectionManager.
type connectionManager struct {
	// routes is set for an inline route_config, routeName otherwise.
	routes            *discovery.RouteTable
	routeName         string
	filters           []discovery.HTTPFilter
	maxStreamDuration time.Duration
	streamIdleTimeout time.Duration
	requestTimeout    time.Duration
	hideOriginals     bool
	strictPaths       bool
}

// connectionManager decodes an HttpConnectionManager of either side.
func (d *decoder) connectionManager(at path, m *hcmv3.HttpConnectionManager) connectionManager {
	filters, router := d.httpFilters(at, m.GetHttpFilters())
	manager := connectionManager{filters: filters, hideOriginals: router.GetSuppressEnvoyHeaders()}
	switch s := m.GetRouteSpecifier().(type) {
	case *hcmv3.HttpConnectionManager_Rds:
		in := at.field("rds")
		d.adsSource(in.field("config_source"), s.Rds.GetConfigSource())
		manager.routeName = s.Rds.GetRouteConfigName()
		if manager.routeName == "" {
			d.refusef(in.field("route_config_name"), "must not be empty")
		}
	case *hcmv3.HttpConnectionManager_RouteConfig:
		manager.routes = d.routeTable(at.field("route_config"), s.RouteConfig)
	}
	manager.strictPaths = d.strictPaths(at, m)
	manager.streamIdleTimeout = d.duration(at.field("stream_idle_timeout"), m.GetStreamIdleTimeout())
	manager.requestTimeout = d.duration(at.field("request_timeout"), m.GetRequestTimeout())
	if m.GetRequestHeadersTimeout().AsDuration() != 0 {
		d.refusef(at.field("request_headers_timeout"), "not supported: the application's server reads the headers before the mesh sees the request: set ReadHeaderTimeout of its http.Server")
	}
	options := m.GetCommonHttpProtocolOptions()
	in := at.field("common_http_protocol_options")
	manager.maxStreamDuration = d.duration(in.field("max_stream_duration"), options.GetMaxStreamDuration())
	if options.GetIdleTimeout().AsDuration() != 0 {
		d.refusef(in.field("idle_timeout"), "not supported in a listener")
	}
	if options.GetMaxConnectionDuration().AsDuration() != 0 {
		d.refusef(in.field("max_connection_duration"), "not supported in a listener")
	}
	if options.GetMaxRequestsPerConnection().GetValue() != 0 {
		d.refusef(in.field("max_requests_per_connection"), "not supported in a listener")
	}
	return manager
}

// strictPaths reports whether paths that are not normal are to be refused. What
// Envoy would make normal and forward is refused too: the application, which is
// in this process, has the request as it was sent.
func (d *decoder) strictPaths(at path, m *hcmv3.HttpConnectionManager) bool {
	strict := m.GetNormalizePath().GetValue() || m.GetMergeSlashes()
	switch action := m.GetPathWithEscapedSlashesAction(); action {
	case hcmv3.HttpConnectionManager_IMPLEMENTATION_SPECIFIC_DEFAULT, hcmv3.HttpConnectionManager_KEEP_UNCHANGED:
	case hcmv3.HttpConnectionManager_REJECT_REQUEST:
		strict = true
	default:
		d.refusef(at.field("path_with_escaped_slashes_action"), "%s is not supported: use REJECT_REQUEST or KEEP_UNCHANGED", action)
	}
	return strict
}
