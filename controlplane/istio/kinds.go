package istio

import (
	"slices"

	"google.golang.org/protobuf/reflect/protoreflect"
	mesh "istio.io/api/mesh/v1alpha1"
	networking "istio.io/api/networking/v1alpha3"
	security "istio.io/api/security/v1beta1"

	"github.com/inboardmesh/inboard/controlplane/istio/internal/gatewayapi"
	"github.com/inboardmesh/inboard/controlplane/istio/internal/kubeapi"
	"github.com/inboardmesh/inboard/internal/near"
)

// kind is a kind of document that is translated.
type kind struct {
	apiVersions []string
	newSpec     func() any
}

const (
	kindServiceEntry          = "ServiceEntry"
	kindWorkloadEntry         = "WorkloadEntry"
	kindDestinationRule       = "DestinationRule"
	kindVirtualService        = "VirtualService"
	kindPeerAuthentication    = "PeerAuthentication"
	kindRequestAuthentication = "RequestAuthentication"
	kindHTTPRoute             = "HTTPRoute"
	kindGRPCRoute             = "GRPCRoute"
	kindAuthorization         = "AuthorizationPolicy"
	kindService               = "Service"
	kindEndpointSlice         = "EndpointSlice"
	kindEndpoints             = "Endpoints"
	kindPod                   = "Pod"
	kindNode                  = "Node"
)

var networkingVersions = []string{
	"networking.istio.io/v1", "networking.istio.io/v1beta1", "networking.istio.io/v1alpha3",
}

var kinds = map[string]kind{
	kindServiceEntry:    {networkingVersions, func() any { return new(networking.ServiceEntry) }},
	kindWorkloadEntry:   {networkingVersions, func() any { return new(networking.WorkloadEntry) }},
	kindDestinationRule: {networkingVersions, func() any { return new(networking.DestinationRule) }},
	kindVirtualService:  {networkingVersions, func() any { return new(networking.VirtualService) }},
	kindPeerAuthentication: {
		[]string{"security.istio.io/v1", "security.istio.io/v1beta1"},
		func() any { return new(security.PeerAuthentication) },
	},
	kindRequestAuthentication: {
		[]string{"security.istio.io/v1", "security.istio.io/v1beta1"},
		func() any { return new(security.RequestAuthentication) },
	},
	kindAuthorization: {
		[]string{"security.istio.io/v1", "security.istio.io/v1beta1"},
		func() any { return new(security.AuthorizationPolicy) },
	},
	kindConfigMap: {[]string{"v1"}, func() any { return new(mesh.MeshConfig) }},
	kindHTTPRoute: {
		[]string{"gateway.networking.k8s.io/v1", "gateway.networking.k8s.io/v1beta1"},
		func() any { return new(gatewayapi.HTTPRouteSpec) },
	},
	kindGRPCRoute: {
		[]string{"gateway.networking.k8s.io/v1"},
		func() any { return new(gatewayapi.GRPCRouteSpec) },
	},
	kindService:       {[]string{"v1"}, func() any { return new(kubeapi.ServiceSpec) }},
	kindEndpointSlice: {[]string{"discovery.k8s.io/v1"}, func() any { return new(kubeapi.EndpointSlice) }},
	kindPod:           {[]string{"v1"}, func() any { return new(kubeapi.PodSpec) }},
	kindNode:          {[]string{"v1"}, func() any { return new(kubeapi.NodeSpec) }},
}

const supportedKinds = "ServiceEntry, WorkloadEntry, DestinationRule, VirtualService, PeerAuthentication, RequestAuthentication, AuthorizationPolicy, HTTPRoute, GRPCRoute, Service, EndpointSlice, Pod, Node, or the ConfigMap istio"

// refusal says why a kind is refused and what to do about it.
func refusal(kind string) string {
	if kind == kindEndpoints {
		return "is not read: export the EndpointSlices, which say more"
	}
	if meant := near.Names(kind, sortedKeys(kinds)); len(meant) > 0 {
		return "is not supported" + near.Question(meant)
	}
	return "is not supported: use one of " + supportedKinds
}

// translated lists, by message, the fields that are translated. A field that
// is not listed is refused, so that a field which a newer istio.io/api adds is
// refused until somebody translates it.
var translated = map[protoreflect.FullName][]protoreflect.Name{
	"istio.networking.v1alpha3.ServiceEntry": {
		"hosts", "ports", "location", "resolution", "endpoints", "workload_selector",
		"export_to", "subject_alt_names",
	},
	"istio.networking.v1alpha3.ServicePort":      {"number", "protocol", "name", "target_port"},
	"istio.networking.v1alpha3.WorkloadSelector": {"labels"},
	"istio.networking.v1alpha3.WorkloadEntry": {
		"address", "ports", "labels", "network", "locality", "weight", "service_account",
	},

	"istio.networking.v1alpha3.DestinationRule": {"host", "traffic_policy", "subsets", "export_to"},
	"istio.networking.v1alpha3.Subset":          {"name", "labels", "traffic_policy"},
	"istio.networking.v1alpha3.TrafficPolicy": {
		"load_balancer", "connection_pool", "outlier_detection", "tls", "port_level_settings", "retry_budget",
	},
	"istio.networking.v1alpha3.TrafficPolicy.PortTrafficPolicy": {
		"port", "load_balancer", "connection_pool", "outlier_detection", "tls",
	},
	"istio.networking.v1alpha3.OutlierDetection": {
		"split_external_local_origin_errors", "consecutive_local_origin_failures",
		"consecutive_gateway_errors", "consecutive_5xx_errors", "interval", "base_ejection_time",
		"max_ejection_percent", "min_health_percent",
	},
	"istio.networking.v1alpha3.TrafficPolicy.RetryBudget": {"percent", "min_retry_concurrency"},
	"istio.networking.v1alpha3.PortSelector":              {"number"},
	"istio.networking.v1alpha3.LoadBalancerSettings": {
		"simple", "consistent_hash", "locality_lb_setting", "warmup", "warmup_duration_secs",
	},
	"istio.networking.v1alpha3.LoadBalancerSettings.ConsistentHashLB": {
		"http_header_name", "http_cookie", "use_source_ip", "http_query_parameter_name", "ring_hash", "maglev", "minimum_ring_size",
	},
	"istio.networking.v1alpha3.LoadBalancerSettings.ConsistentHashLB.HTTPCookie":           {"name", "path", "ttl", "attributes"},
	"istio.networking.v1alpha3.LoadBalancerSettings.ConsistentHashLB.HTTPCookie.Attribute": {"name", "value"},
	"istio.networking.v1alpha3.LoadBalancerSettings.ConsistentHashLB.RingHash":             {"minimum_ring_size"},
	"istio.networking.v1alpha3.LoadBalancerSettings.ConsistentHashLB.MagLev":               {"table_size"},
	"istio.networking.v1alpha3.WarmupConfiguration":                                        {"duration", "minimum_percent", "aggression"},
	"istio.networking.v1alpha3.LocalityLoadBalancerSetting": {
		"distribute", "failover", "failover_priority", "enabled",
	},
	"istio.networking.v1alpha3.LocalityLoadBalancerSetting.Distribute": {"from", "to"},
	"istio.networking.v1alpha3.LocalityLoadBalancerSetting.Failover":   {"from", "to"},
	"istio.networking.v1alpha3.ConnectionPoolSettings":                 {"tcp", "http"},
	"istio.networking.v1alpha3.ConnectionPoolSettings.TCPSettings": {
		"max_connections", "connect_timeout", "tcp_keepalive", "max_connection_duration", "idle_timeout",
	},
	"istio.networking.v1alpha3.ConnectionPoolSettings.TCPSettings.TcpKeepalive": {"probes", "time", "interval"},
	"istio.networking.v1alpha3.ConnectionPoolSettings.HTTPSettings": {
		"http1_max_pending_requests", "http2_max_requests", "max_requests_per_connection",
		"max_retries", "idle_timeout", "h2_upgrade_policy", "use_client_protocol", "max_concurrent_streams", "http2_keep_alive",
	},
	"istio.networking.v1alpha3.ConnectionPoolSettings.HTTPSettings.ConnectionKeepalive": {"interval", "timeout"},
	"istio.networking.v1alpha3.ClientTLSSettings":                                       {"mode", "subject_alt_names", "sni", "credential_name"},

	"istio.networking.v1alpha3.VirtualService": {"hosts", "gateways", "http", "tcp", "export_to"},
	"istio.networking.v1alpha3.HTTPRoute": {
		"name", "match", "route", "redirect", "direct_response", "delegate", "rewrite", "timeout",
		"retries", "fault", "headers", "mirror", "mirrors", "mirror_percent", "mirror_percentage",
		"cors_policy",
	},
	"istio.networking.v1alpha3.TCPRoute":          {"match", "route"},
	"istio.networking.v1alpha3.RouteDestination":  {"destination", "weight"},
	"istio.networking.v1alpha3.L4MatchAttributes": {"port", "source_labels", "source_namespace", "gateways"},
	"istio.networking.v1alpha3.HTTPMatchRequest": {
		"name", "uri", "scheme", "method", "authority", "headers", "port", "gateways", "query_params",
		"ignore_uri_case", "without_headers", "source_labels", "source_namespace", "stat_prefix",
	},
	"istio.networking.v1alpha3.Delegate":                 {"name", "namespace"},
	"istio.networking.v1alpha3.StringMatch":              {"exact", "prefix", "regex"},
	"istio.networking.v1alpha3.HTTPRouteDestination":     {"destination", "weight", "headers"},
	"istio.networking.v1alpha3.Destination":              {"host", "subset", "port"},
	"istio.networking.v1alpha3.Headers":                  {"request", "response"},
	"istio.networking.v1alpha3.Headers.HeaderOperations": {"set", "add", "remove"},
	"istio.networking.v1alpha3.HTTPRedirect": {
		"uri", "authority", "port", "derive_port", "scheme", "redirect_code", "prefix_rewrite",
	},
	"istio.networking.v1alpha3.HTTPDirectResponse": {"status", "body"},
	"istio.networking.v1alpha3.HTTPBody":           {"string", "bytes"},
	"istio.networking.v1alpha3.HTTPRewrite":        {"uri", "authority", "uri_regex_rewrite"},
	"istio.networking.v1alpha3.CorsPolicy": {
		"allow_origins", "allow_origin", "allow_methods", "allow_headers", "expose_headers", "max_age",
		"allow_credentials", "unmatched_preflights",
	},
	"istio.networking.v1alpha3.RegexRewrite":     {"match", "rewrite"},
	"istio.networking.v1alpha3.HTTPMirrorPolicy": {"destination", "percentage"},
	"istio.networking.v1alpha3.HTTPRetry": {
		"attempts", "per_try_timeout", "retry_on", "retry_ignore_previous_hosts", "backoff", "retry_remote_localities",
	},
	"istio.networking.v1alpha3.HTTPFaultInjection": {"delay", "abort"},
	"istio.networking.v1alpha3.HTTPFaultInjection.Delay": {
		"percent", "fixed_delay", "percentage",
	},
	"istio.networking.v1alpha3.HTTPFaultInjection.Abort": {"http_status", "grpc_status", "percentage"},
	"istio.networking.v1alpha3.Percent":                  {"value"},

	"istio.security.v1beta1.PeerAuthentication":           {"selector", "mtls", "port_level_mtls"},
	"istio.security.v1beta1.PeerAuthentication.MutualTLS": {"mode"},
	"istio.security.v1beta1.RequestAuthentication":        {"selector", "jwt_rules"},
	"istio.security.v1beta1.JWTRule": {
		"issuer", "audiences", "jwks_uri", "jwks", "from_headers", "from_params", "output_payload_to_header", "from_cookies",
		"forward_original_token", "output_claim_to_headers", "timeout", "space_delimited_claims",
	},
	"istio.security.v1beta1.JWTHeader":     {"name", "prefix"},
	"istio.security.v1beta1.ClaimToHeader": {"header", "claim"},
	"istio.type.v1beta1.WorkloadSelector":  {"match_labels"},

	// access_log_*, default_providers, enable_prometheus_merge and default_config
	// are in the configuration that Istio installs. They are for what proxies log
	// and measure and whom they report to, and there are none.
	"istio.mesh.v1alpha1.MeshConfig": {
		"trust_domain", "trust_domain_aliases", "root_namespace", "extension_providers",
		"access_log_file", "access_log_format", "access_log_encoding", "default_providers", "enable_prometheus_merge", "default_config",
	},
	"istio.mesh.v1alpha1.ProxyConfig":                 {"discovery_address"},
	"istio.mesh.v1alpha1.MeshConfig.DefaultProviders": {"tracing", "metrics", "access_logging"},
	"istio.mesh.v1alpha1.MeshConfig.ExtensionProvider": {
		"name", "envoy_ext_authz_http", "envoy_ext_authz_grpc",
	},
	"istio.mesh.v1alpha1.MeshConfig.ExtensionProvider.EnvoyExternalAuthorizationHttpProvider": {
		"service", "port", "timeout", "path_prefix", "fail_open", "clear_route_cache", "status_on_error",
		"include_headers_in_check", "include_request_headers_in_check", "include_additional_headers_in_check",
		"include_request_body_in_check", "headers_to_upstream_on_allow", "headers_to_downstream_on_deny",
		"headers_to_downstream_on_allow",
	},
	"istio.mesh.v1alpha1.MeshConfig.ExtensionProvider.EnvoyExternalAuthorizationGrpcProvider": {
		"service", "port", "timeout", "fail_open", "clear_route_cache", "status_on_error", "include_request_body_in_check",
	},
	"istio.mesh.v1alpha1.MeshConfig.ExtensionProvider.EnvoyExternalAuthorizationRequestBody": {
		"max_request_bytes", "allow_partial_message", "pack_as_bytes",
	},

	"istio.security.v1beta1.AuthorizationPolicy":                   {"selector", "rules", "action", "provider"},
	"istio.security.v1beta1.AuthorizationPolicy.ExtensionProvider": {"name"},
	"istio.security.v1beta1.Rule":                                  {"from", "to", "when"},
	"istio.security.v1beta1.Rule.From":                             {"source"},
	"istio.security.v1beta1.Rule.To":                               {"operation"},
	"istio.security.v1beta1.Source": {
		"principals", "not_principals", "request_principals", "not_request_principals", "namespaces", "not_namespaces",
		"service_accounts", "not_service_accounts", "ip_blocks", "not_ip_blocks", "remote_ip_blocks", "not_remote_ip_blocks",
		"trust_domains", "not_trust_domains",
	},
	"istio.security.v1beta1.Operation": {
		"hosts", "not_hosts", "ports", "not_ports", "methods", "not_methods", "paths", "not_paths",
	},
	"istio.security.v1beta1.Condition": {"key", "values", "not_values"},
}

// untranslated says why some fields are refused, and what to do.
var untranslated = map[protoreflect.FullName]string{
	"istio.networking.v1alpha3.VirtualService.tls": "is not supported: remove it, or use http: it routes what callers have encrypted themselves, and a caller in the process does not",

	// A caller in the process names the host that it connects to, and no address.
	"istio.networking.v1alpha3.L4MatchAttributes.destination_subnets": "is not supported: remove it, or match the port: callers connect to a host by its name, and the address is chosen behind the route",
	"istio.networking.v1alpha3.L4MatchAttributes.source_subnet":       "is not supported: remove it, or use sourceLabels or sourceNamespace: a caller in the process has no address before it connects",

	"istio.networking.v1alpha3.ClientTLSSettings.ca_certificates":    noFiles,
	"istio.networking.v1alpha3.ClientTLSSettings.client_certificate": noFiles,
	"istio.networking.v1alpha3.ClientTLSSettings.private_key":        noFiles,

	"istio.networking.v1alpha3.OutlierDetection.consecutive_errors": "is not supported: remove it: it is deprecated: use consecutiveGatewayErrors",

	// Envoy compares the zones of the callers with those of the endpoints, for which it
	// is told the cluster that it is itself an endpoint of.
	"istio.networking.v1alpha3.LoadBalancerSettings.zone_aware_lb_setting": "is not supported: remove it, or use localityLbSetting: it depends on which service the caller is an endpoint of, and a client of this control plane need not be one",

	// Without its targets a policy would be for the whole namespace: to remove them is
	// no remedy.
	"istio.security.v1beta1.AuthorizationPolicy.targetRef":    noTargets,
	"istio.security.v1beta1.AuthorizationPolicy.targetRefs":   noTargets,
	"istio.security.v1beta1.RequestAuthentication.targetRef":  noTargets,
	"istio.security.v1beta1.RequestAuthentication.targetRefs": noTargets,
}

// noFiles: a control plane that could name files of its clients could have them read
// any.
const noFiles = "is not supported: use credentialName, the name of a certificate provider in the clients' bootstrap, which says what files there are"

// noTargets: Istio attaches such a policy to a Gateway, a GatewayClass, a Service or a
// ServiceEntry by way of its gateway or waypoint, and to no workload itself.
const noTargets = "is for gateways and waypoints, of which there is none here, and binds no workload: choose the workloads with spec.selector"

func isTranslated(fd protoreflect.FieldDescriptor) bool {
	return slices.Contains(translated[fd.ContainingMessage().FullName()], fd.Name())
}
