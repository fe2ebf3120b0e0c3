package decode

import (
	"math"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/discovery"
)

var routeFields = []messageFields{
	{
		message: (*routev3.Route)(nil),
		read: "name match route redirect direct_response non_forwarding_action typed_per_filter_config " +
			"request_headers_to_add request_headers_to_remove response_headers_to_add response_headers_to_remove metadata",
		// stat_prefix names metrics; decorator names Envoy's spans and tracing
		// samples them.
		harmless: "stat_prefix decorator tracing",
		instead: map[string]string{
			"filter_action":                  "it is for filters that route by themselves, of which there is none",
			"per_request_buffer_limit_bytes": "how much of a body is kept for retries is not configurable",
			"request_body_buffer_limit":      "how much of a body is kept for retries is not configurable",
			"route_specifiers":               "no route specifier is known: write the routes out",
		},
	},
	{
		message: (*routev3.RouteAction)(nil),
		read: "cluster cluster_header weighted_clusters cluster_specifier_plugin " +
			"prefix_rewrite regex_rewrite path_rewrite_policy path_rewrite " +
			"host_rewrite_literal auto_host_rewrite host_rewrite_header host_rewrite_path_regex append_x_forwarded_host " +
			"timeout retry_policy priority max_stream_duration idle_timeout internal_redirect_policy hedge_policy hash_policy metadata_match " +
			"request_mirror_policies cors max_grpc_timeout grpc_timeout_offset internal_redirect_action max_internal_redirects",
		// A call to a cluster that is not there fails with an error of the mesh,
		// which has no HTTP status. Early data, which TLS here never sends, is
		// within every policy about it.
		harmless: "cluster_not_found_response_code early_data_policy",
		instead: map[string]string{
			"inline_cluster_specifier_plugin": "no cluster specifier plugin is known: use cluster, cluster_header or weighted_clusters",
			"host_rewrite":                    "use host_rewrite_literal, host_rewrite_header or host_rewrite_path_regex",
			"flush_timeout":                   "use idle_timeout, which also covers a caller that does not read",
			"retry_policy_typed_config":       "use retry_policy",
			"rate_limits":                     "there is no rate limit service here",
			"include_vh_rate_limits":          "there is no rate limit service here",
			"upgrade_configs":                 "an upgrade is the application's, and no filter decides about it",
		},
	},
	{
		message: (*routev3.RouteAction_MaxStreamDuration)(nil),
		read:    "max_stream_duration grpc_timeout_header_max grpc_timeout_header_offset",
	},
	{
		message: (*routev3.WeightedCluster)(nil),
		read:    "clusters total_weight header_name use_hash_policy",
		// There is no runtime that could override the weights.
		harmless: "runtime_key_prefix",
	},
	{
		message: (*routev3.WeightedCluster_ClusterWeight)(nil),
		read: "name cluster_header weight host_rewrite_literal request_headers_to_add request_headers_to_remove " +
			"response_headers_to_add response_headers_to_remove typed_per_filter_config metadata_match",
	},
	{
		message: (*routev3.RedirectAction)(nil),
		read: "https_redirect scheme_redirect host_redirect port_redirect path_redirect prefix_rewrite " +
			"regex_rewrite path_rewrite response_code strip_query",
	},
	{
		message: (*routev3.DirectResponseAction)(nil),
		read:    "status body",
		instead: map[string]string{"body_format": "a body is sent as it is in body"},
	},
	{message: (*corev3.DataSource)(nil), read: "inline_bytes inline_string"},
	{message: (*routev3.NonForwardingAction)(nil)},
}

// defaultRouteTimeout is Envoy's RouteAction.timeout.
const defaultRouteTimeout = 15 * time.Second

// route decodes a Route of a virtual host, whose policies are decoded already.
func (t *tableDecoder) route(at path, m *routev3.Route, host *discovery.VirtualHost) *discovery.Route {
	r := &discovery.Route{
		Name:    m.GetName(),
		Match:   t.routeMatch(at.field("match"), m.GetMatch()),
		Headers: t.headerMutations(at, m),
		Filters: t.filterOverrides(at, m.GetTypedPerFilterConfig()),
	}
	switch action := m.GetAction().(type) {
	case *routev3.Route_Route:
		r.Forward = t.forward(at.field("route"), action.Route, &r.Match.Path, host)
		r.Filters = t.legacyCORS(at.field("route").field("cors"), action.Route.GetCors(), r.Filters) //nolint:staticcheck // the deprecated field is still in use
		t.routeMetadata(at.field("metadata"), m.GetMetadata(), r.Forward)
	case *routev3.Route_Redirect:
		r.Redirect = t.redirect(at.field("redirect"), action.Redirect)
	case *routev3.Route_DirectResponse:
		r.Direct = t.directResponse(at.field("direct_response"), action.DirectResponse)
	case *routev3.Route_NonForwardingAction:
		r.Local = true
	}
	return r
}

// forward decodes a RouteAction of a route that matches path.
func (t *tableDecoder) forward(at path, m *routev3.RouteAction, match *discovery.PathMatch, host *discovery.VirtualHost) *discovery.Forward {
	subset := t.metadataMatch(at, m.GetMetadataMatch())
	f := &discovery.Forward{
		Clusters:         t.clusters(at, m, subset),
		Subset:           balancer.NewMatch(subset),
		Timeout:          defaultRouteTimeout,
		Retry:            host.Retry,
		RetryHeaders:     host.RetryHeaders,
		Hedge:            host.Hedge,
		Priority:         t.priority(at.field("priority"), m.GetPriority()),
		Hash:             t.hashPolicies(at, m.GetHashPolicy()),
		InternalRedirect: t.internalRedirect(at.field("internal_redirect_policy"), m.GetInternalRedirectPolicy()),
	}
	f.Mirrors = t.hostMirrors
	if policies := m.GetRequestMirrorPolicies(); len(policies) > 0 {
		f.Mirrors = t.mirrors(at, policies)
	}
	t.rewrites(at, m, match, f)
	switch s := m.GetWeightedClusters().GetRandomValueSpecifier().(type) {
	case *routev3.WeightedCluster_HeaderName:
		f.WeightHeader = strings.ToLower(s.HeaderName)
	case *routev3.WeightedCluster_UseHashPolicy:
		if s.UseHashPolicy.GetValue() {
			if f.WeightHash = f.Hash; f.Hash == nil {
				t.refusef(at.field("weighted_clusters").field("use_hash_policy"), "needs a hash_policy")
			}
		}
	}
	if m.GetTimeout() != nil {
		f.Timeout = t.duration(at.field("timeout"), m.GetTimeout())
	}
	if m.GetRetryPolicy() != nil {
		f.Retry, f.RetryHeaders = t.retryPolicy(at.field("retry_policy"), m.GetRetryPolicy())
	}
	if m.GetHedgePolicy() != nil {
		f.Hedge = t.hedgePolicy(at.field("hedge_policy"), m.GetHedgePolicy())
	}
	if f.InternalRedirect == nil {
		f.InternalRedirect = t.internalRedirect(at, legacyRedirect(m))
	}
	f.IdleTimeout = t.optionalDuration(at.field("idle_timeout"), m.GetIdleTimeout())
	if limits := m.GetMaxStreamDuration(); limits != nil {
		in := at.field("max_stream_duration")
		f.MaxStreamDuration = t.optionalDuration(in.field("max_stream_duration"), limits.GetMaxStreamDuration())
		f.GRPCTimeoutHeaderMax = t.optionalDuration(in.field("grpc_timeout_header_max"), limits.GetGrpcTimeoutHeaderMax())
		f.GRPCTimeoutHeaderOffset = t.duration(in.field("grpc_timeout_header_offset"), limits.GetGrpcTimeoutHeaderOffset())
	}
	t.legacyTimeouts(at, m, f)
	return f
}

// clusters decodes cluster_specifier.
func (t *tableDecoder) clusters(at path, m *routev3.RouteAction, subset map[string]string) []discovery.WeightedCluster {
	switch s := m.GetClusterSpecifier().(type) {
	case *routev3.RouteAction_Cluster:
		return []discovery.WeightedCluster{{Name: s.Cluster, Weight: 1}}
	case *routev3.RouteAction_ClusterHeader:
		return []discovery.WeightedCluster{{Header: strings.ToLower(s.ClusterHeader), Weight: 1}}
	case *routev3.RouteAction_WeightedClusters:
		return t.weightedClusters(at.field("weighted_clusters"), s.WeightedClusters, subset)
	case *routev3.RouteAction_ClusterSpecifierPlugin:
		if _, optional := t.plugins[s.ClusterSpecifierPlugin]; optional {
			t.refusef(at.field("cluster_specifier_plugin"), "%q is of a kind that is not supported", s.ClusterSpecifierPlugin)
		} else {
			t.refusef(at.field("cluster_specifier_plugin"), "%q is not in cluster_specifier_plugins", s.ClusterSpecifierPlugin)
		}
	}
	return nil
}

// weightedClusters decodes a WeightedCluster. Clusters of weight 0 are never
// chosen and so left out.
func (t *tableDecoder) weightedClusters(at path, m *routev3.WeightedCluster, subset map[string]string) []discovery.WeightedCluster {
	var clusters []discovery.WeightedCluster
	var sum uint64
	for i, c := range m.GetClusters() {
		in := at.element("clusters", i)
		switch {
		case c.GetName() == "" && c.GetClusterHeader() == "":
			t.refusef(in.field("name"), "must not be empty unless cluster_header is set")
		case c.GetName() != "" && c.GetClusterHeader() != "":
			t.refusef(in.field("cluster_header"), "must not be set beside name")
		}
		cluster := discovery.WeightedCluster{
			Name:        c.GetName(),
			Header:      strings.ToLower(c.GetClusterHeader()),
			Weight:      c.GetWeight().GetValue(),
			Subset:      merged(subset, t.metadataMatch(in, c.GetMetadataMatch())),
			HostRewrite: t.hostRewrite(in.field("host_rewrite_literal"), c.GetHostRewriteLiteral()),
			Headers:     t.headerMutations(in, c),
			Filters:     t.filterOverrides(in, c.GetTypedPerFilterConfig()),
		}
		if cluster.Weight > 0 {
			sum += uint64(cluster.Weight)
			clusters = append(clusters, cluster)
		}
	}
	if sum == 0 || sum > math.MaxUint32 {
		t.refusef(at, "the weights add up to %d: must be between 1 and %d", sum, uint32(math.MaxUint32))
	} else if total := m.GetTotalWeight().GetValue(); total > 0 && uint64(total) != sum { //nolint:staticcheck // the deprecated field is still in use
		t.refusef(at.field("total_weight"), "is %d, but the weights add up to %d", total, sum)
	}
	return clusters
}

// priority decodes a RoutingPriority.
func (d *decoder) priority(at path, p corev3.RoutingPriority) discovery.RoutingPriority {
	switch p {
	case corev3.RoutingPriority_DEFAULT:
	case corev3.RoutingPriority_HIGH:
		return discovery.PriorityHigh
	default:
		d.refusef(at, "%d is not a routing priority", p)
	}
	return discovery.PriorityDefault
}

// redirect decodes a RedirectAction.
func (d *decoder) redirect(at path, m *routev3.RedirectAction) *discovery.Redirect {
	r := &discovery.Redirect{
		Scheme:        m.GetSchemeRedirect(),
		Host:          m.GetHostRedirect(),
		Port:          m.GetPortRedirect(),
		Path:          m.GetPathRedirect(),
		PrefixRewrite: m.GetPrefixRewrite(),
		StripQuery:    m.GetStripQuery(),
	}
	switch s := m.GetPathRewriteSpecifier().(type) {
	case *routev3.RedirectAction_RegexRewrite:
		r.PathSubstitution = d.substitution(at.field("regex_rewrite"), s.RegexRewrite)
	case *routev3.RedirectAction_PathRewrite:
		r.PathFormat = d.pathFormat(at.field("path_rewrite"), s.PathRewrite)
	}
	if m.GetHttpsRedirect() {
		r.Scheme = "https"
	}
	switch m.GetResponseCode() {
	case routev3.RedirectAction_MOVED_PERMANENTLY:
		r.Status = 301
	case routev3.RedirectAction_FOUND:
		r.Status = 302
	case routev3.RedirectAction_SEE_OTHER:
		r.Status = 303
	case routev3.RedirectAction_TEMPORARY_REDIRECT:
		r.Status = 307
	case routev3.RedirectAction_PERMANENT_REDIRECT:
		r.Status = 308
	}
	return r
}

// directResponse decodes a DirectResponseAction.
func (t *tableDecoder) directResponse(at path, m *routev3.DirectResponseAction) *discovery.DirectResponse {
	r := &discovery.DirectResponse{Status: int(m.GetStatus())}
	switch body := m.GetBody().GetSpecifier().(type) {
	case *corev3.DataSource_InlineBytes:
		r.Body = body.InlineBytes
	case *corev3.DataSource_InlineString:
		r.Body = []byte(body.InlineString)
	}
	if len(r.Body) > t.maxBody {
		t.refusef(at.field("body"), "has %d bytes: at most %d are allowed (max_direct_response_body_size_bytes)", len(r.Body), t.maxBody)
	}
	return r
}
