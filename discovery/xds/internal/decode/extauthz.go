package decode

import (
	"maps"
	"slices"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"golang.org/x/net/http/httpguts"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/inboardmesh/inboard/discovery"
)

var extAuthzFields = []messageFields{
	{
		message: (*authzv3.ExtAuthz)(nil),
		read: "grpc_service http_service transport_api_version failure_mode_allow failure_mode_allow_header_add " +
			"with_request_body clear_route_cache status_on_error metadata_context_namespaces filter_enabled " +
			"filter_enabled_metadata deny_at_disable include_peer_certificate allowed_headers disallowed_headers " +
			"include_tls_session encode_raw_headers enable_dynamic_metadata_ingestion max_denied_response_body_bytes",
		// Changes are validated always, and an answer's headers are bounded. The
		// rest is for metrics, spans and access logs.
		harmless: "validate_mutations enforce_response_header_limits stat_prefix charge_cluster_response_stats " +
			"filter_metadata emit_filter_state_stats emit_client_span",
	},
	{message: (*authzv3.BufferSettings)(nil), read: "max_request_bytes allow_partial_message pack_as_bytes"},
	{
		message: (*authzv3.HttpService)(nil),
		read:    "server_uri path_prefix path_override authorization_request authorization_response",
	},
	{message: (*authzv3.AuthorizationRequest)(nil), read: "allowed_headers headers_to_add"},
	{
		message: (*authzv3.AuthorizationResponse)(nil),
		read: "allowed_upstream_headers allowed_upstream_headers_to_append allowed_client_headers " +
			"allowed_client_headers_on_success dynamic_metadata_from_headers",
	},
	{message: (*authzv3.ExtAuthzPerRoute)(nil), read: "disabled check_settings"},
	{
		message: (*authzv3.CheckSettings)(nil),
		read:    "context_extensions disable_request_body_buffering with_request_body",
		// It is for spans.
		harmless: "emit_client_span",
	},
	{
		message: (*corev3.GrpcService)(nil),
		read:    "envoy_grpc timeout initial_metadata",
		instead: map[string]string{"google_grpc": "name a cluster in envoy_grpc"},
	},
	{
		message: (*corev3.GrpcService_EnvoyGrpc)(nil),
		read:    "cluster_name authority",
		// An answer is bounded by 1 MiB; no such headers are sent.
		harmless: "max_receive_message_length skip_envoy_headers",
	},
	{message: (*matcherv3.ListStringMatcher)(nil), read: "patterns"},
	{message: (*corev3.RuntimeFeatureFlag)(nil), read: "default_value", harmless: "runtime_key"}, // there is no runtime
	{message: (*typev3.HttpStatus)(nil), read: "code"},
}

const (
	defaultAuthzTimeout = 200 * time.Millisecond
	defaultAuthzStatus  = 403
	// maxAuthzBody bounds what one request can make a server keep.
	maxAuthzBody = 64 << 20
)

// extAuthzConfig decodes the configuration of the external authorization filter,
// in a listener or in a route. ok is false if it is another filter's.
func (d *decoder) extAuthzConfig(at path, a *anypb.Any) (config discovery.FilterConfig, ok bool) {
	switch {
	case is(a, (*authzv3.ExtAuthz)(nil)):
		m := &authzv3.ExtAuthz{}
		if d.unpack(at, a, m) {
			config = d.extAuthz(at, m)
		}
	case is(a, (*authzv3.ExtAuthzPerRoute)(nil)):
		m := &authzv3.ExtAuthzPerRoute{}
		if d.unpack(at, a, m) {
			if r := d.extAuthzPerRoute(at, m); r != nil {
				config = r
			}
		}
	default:
		return nil, false
	}
	return config, true
}

func (d *decoder) extAuthz(at path, m *authzv3.ExtAuthz) *discovery.ExtAuthz {
	f := &discovery.ExtAuthz{
		FailureModeAllow: m.GetFailureModeAllow(), FailureModeHeader: m.GetFailureModeAllowHeaderAdd(),
		StatusOnError: defaultAuthzStatus, Body: d.authzBody(at.field("with_request_body"), m.GetWithRequestBody()),
		ClearRoute: m.GetClearRouteCache(), MetadataNamespaces: m.GetMetadataContextNamespaces(),
		AllowedHeaders:    d.stringMatches(at.field("allowed_headers"), m.GetAllowedHeaders()),
		DisallowedHeaders: d.stringMatches(at.field("disallowed_headers"), m.GetDisallowedHeaders()),
		RawHeaders:        m.GetEncodeRawHeaders(), PeerCertificate: m.GetIncludePeerCertificate(),
		TLSSession:    m.GetIncludeTlsSession(),
		DenyAtDisable: m.GetDenyAtDisable().GetDefaultValue().GetValue(),
		MaxDeniedBody: m.GetMaxDeniedResponseBodyBytes(),
	}
	if v := m.GetEnableDynamicMetadataIngestion(); v != nil {
		f.IgnoreMetadata = !v.GetValue()
	}
	if v := m.GetTransportApiVersion(); v != corev3.ApiVersion_AUTO && v != corev3.ApiVersion_V3 {
		d.refusef(at.field("transport_api_version"), "%s is not supported: use V3", v)
	}
	if s := m.GetStatusOnError(); s != nil {
		f.StatusOnError = int(s.GetCode())
		if f.StatusOnError < 400 || f.StatusOnError > 599 {
			d.refusef(at.field("status_on_error").field("code"), "%d is no status of a failure: use 400 to 599", f.StatusOnError)
		}
	}
	if e := m.GetFilterEnabled(); e != nil {
		f.PerMillion = new(perMillion(e.GetDefaultValue()))
	}
	if e := m.GetFilterEnabledMetadata(); e != nil {
		f.EnabledMetadata = d.dynamicMatch(at.field("filter_enabled_metadata"), e)
	}
	switch s := m.GetServices().(type) {
	case *authzv3.ExtAuthz_GrpcService:
		f.GRPC = d.authzGRPC(at.field("grpc_service"), s.GrpcService)
	case *authzv3.ExtAuthz_HttpService:
		f.HTTP = d.authzHTTP(at.field("http_service"), s.HttpService)
	default:
		d.refusef(at, "must have grpc_service or http_service")
		f.GRPC = &discovery.AuthzGRPC{}
	}
	return f
}

func (d *decoder) authzBody(at path, m *authzv3.BufferSettings) *discovery.AuthzBody {
	if m == nil {
		return nil
	}
	if m.GetMaxRequestBytes() > maxAuthzBody {
		d.refusef(at.field("max_request_bytes"), "%d is too much: must not be more than %d", m.GetMaxRequestBytes(), maxAuthzBody)
	}
	return &discovery.AuthzBody{
		MaxBytes: int(m.GetMaxRequestBytes()), AllowPartial: m.GetAllowPartialMessage(), AsBytes: m.GetPackAsBytes(),
	}
}

func (d *decoder) authzTimeout(at path, timeout time.Duration) time.Duration {
	if timeout == 0 {
		d.refusef(at, "must not be 0: no answer would be in time")
	}
	return timeout
}

func (d *decoder) authzGRPC(at path, m *corev3.GrpcService) *discovery.AuthzGRPC {
	g := &discovery.AuthzGRPC{
		Cluster: m.GetEnvoyGrpc().GetClusterName(), Authority: m.GetEnvoyGrpc().GetAuthority(), Timeout: defaultAuthzTimeout,
		Metadata: d.authzHeaders(at, "initial_metadata", m.GetInitialMetadata()),
	}
	if m.GetEnvoyGrpc() == nil {
		d.refusef(at, "must have envoy_grpc")
	}
	if strings.ContainsAny(g.Authority, " /\\@?#") {
		d.refusef(at.field("envoy_grpc").field("authority"), "%q is no authority", g.Authority)
	}
	if m.GetTimeout() != nil {
		g.Timeout = d.authzTimeout(at.field("timeout"), d.duration(at.field("timeout"), m.GetTimeout()))
	}
	return g
}

func (d *decoder) authzHTTP(at path, m *authzv3.HttpService) *discovery.AuthzHTTP {
	in := at.field("server_uri")
	scheme, _, _ := d.serviceURI(in.field("uri"), m.GetServerUri().GetUri())
	request, response := m.GetAuthorizationRequest(), m.GetAuthorizationResponse()
	inRequest, inResponse := at.field("authorization_request"), at.field("authorization_response")
	h := &discovery.AuthzHTTP{
		Cluster: m.GetServerUri().GetCluster(), Secure: scheme == "https",
		Timeout:    d.authzTimeout(in.field("timeout"), d.duration(in.field("timeout"), m.GetServerUri().GetTimeout())),
		PathPrefix: m.GetPathPrefix(), PathOverride: m.GetPathOverride(),
		//nolint:staticcheck // the deprecated field is still in use
		AllowedHeaders:          d.stringMatches(inRequest.field("allowed_headers"), request.GetAllowedHeaders()),
		HeadersToAdd:            d.authzHeaders(inRequest, "headers_to_add", request.GetHeadersToAdd()),
		UpstreamHeaders:         d.stringMatches(inResponse.field("allowed_upstream_headers"), response.GetAllowedUpstreamHeaders()),
		UpstreamHeadersToAppend: d.stringMatches(inResponse.field("allowed_upstream_headers_to_append"), response.GetAllowedUpstreamHeadersToAppend()),
		ClientHeaders:           d.stringMatches(inResponse.field("allowed_client_headers"), response.GetAllowedClientHeaders()),
		ClientHeadersOnSuccess:  d.stringMatches(inResponse.field("allowed_client_headers_on_success"), response.GetAllowedClientHeadersOnSuccess()),
		MetadataHeaders:         d.stringMatches(inResponse.field("dynamic_metadata_from_headers"), response.GetDynamicMetadataFromHeaders()),
	}
	if h.PathPrefix != "" && h.PathOverride != "" {
		d.refusef(at.field("path_override"), "must not be set beside path_prefix")
	}
	for field, value := range map[string]string{"path_prefix": h.PathPrefix, "path_override": h.PathOverride} {
		if value != "" && !strings.HasPrefix(value, "/") {
			d.refusef(at.field(field), "%q must begin with /", value)
		}
	}
	return h
}

// authzHeaders decodes headers of the questions to a service.
func (d *decoder) authzHeaders(at path, field string, headers []*corev3.HeaderValue) []discovery.HeaderValue {
	var values []discovery.HeaderValue
	for i, h := range headers {
		in := at.element(field, i)
		value := h.GetValue()
		if len(h.GetRawValue()) > 0 {
			value = string(h.GetRawValue())
		}
		if !httpguts.ValidHeaderFieldValue(value) || strings.Contains(value, "%") {
			d.refusef(in.field("value"), "is not a plain header value")
		}
		values = append(values, discovery.HeaderValue{Name: d.mutableHeader(in.field("key"), h.GetKey()), Value: value})
	}
	return values
}

// stringMatches decodes a list of which one must match; nil stays nil.
func (d *decoder) stringMatches(at path, m *matcherv3.ListStringMatcher) []discovery.StringMatch {
	if m == nil {
		return nil
	}
	matches := make([]discovery.StringMatch, len(m.GetPatterns()))
	for i, p := range m.GetPatterns() {
		matches[i] = d.stringMatch(at.element("patterns", i), p)
	}
	return slices.Clip(matches)
}

// extAuthzPerRoute decodes the configuration of the filter in a route. One that
// only switches it on or off is none, see extAuthzSwitch.
func (d *decoder) extAuthzPerRoute(at path, m *authzv3.ExtAuthzPerRoute) *discovery.ExtAuthzPerRoute {
	settings := m.GetCheckSettings()
	if settings == nil {
		d.refusef(at, "must have disabled or check_settings")
		return nil
	}
	in := at.field("check_settings")
	r := &discovery.ExtAuthzPerRoute{
		ContextExtensions: settings.GetContextExtensions(), NoBody: settings.GetDisableRequestBodyBuffering(),
		Body: d.authzBody(in.field("with_request_body"), settings.GetWithRequestBody()),
	}
	if r.NoBody && r.Body != nil {
		d.refusef(in.field("with_request_body"), "must not be set beside disable_request_body_buffering")
	}
	return r
}

// extAuthzSwitch reports whether a route's configuration only switches the filter
// on or off.
func (d *decoder) extAuthzSwitch(a *anypb.Any) (override discovery.FilterOverride, ok bool) {
	m := &authzv3.ExtAuthzPerRoute{}
	if !is(a, m) || a.UnmarshalTo(m) != nil {
		return override, false
	}
	if s, ok := m.GetOverride().(*authzv3.ExtAuthzPerRoute_Disabled); ok {
		return discovery.FilterOverride{Disabled: s.Disabled}, true
	}
	return override, false
}

// inheritChecks adds the context extensions of a virtual host to those of its
// routes, which come first.
func inheritChecks(of, in map[string]discovery.FilterOverride) {
	for name, o := range in {
		own, ok := o.Config.(*discovery.ExtAuthzPerRoute)
		outer, outerOK := of[name].Config.(*discovery.ExtAuthzPerRoute)
		if !ok || !outerOK {
			continue
		}
		merged := *own
		merged.ContextExtensions = make(map[string]string)
		maps.Copy(merged.ContextExtensions, outer.ContextExtensions)
		maps.Copy(merged.ContextExtensions, own.ContextExtensions)
		if !own.NoBody && own.Body == nil {
			merged.NoBody, merged.Body = outer.NoBody, outer.Body
		}
		o.Config = &merged
		in[name] = o
	}
}
