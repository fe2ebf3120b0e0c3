package decode

import (
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/inboardmesh/inboard/discovery"
)

var routeMatchFields = []messageFields{
	{
		message: (*routev3.RouteMatch)(nil),
		read: "prefix path safe_regex path_separated_prefix path_match_policy case_sensitive runtime_fraction " +
			"headers query_parameters cookies grpc dynamic_metadata",
		instead: map[string]string{
			"connect_matcher": "tunnels of CONNECT requests are not for the mesh to route",
			"filter_state":    "nothing here keeps state of a request: match its headers",
			"tls_context":     "whether TLS is needed is said by the listener's filter chains",
		},
	},
	{message: (*routev3.RouteMatch_GrpcRouteMatchOptions)(nil)},
	{message: (*routev3.CookieMatcher)(nil), read: "name string_match invert_match"},
	{
		message: (*routev3.HeaderMatcher)(nil),
		read: "name exact_match safe_regex_match range_match present_match prefix_match suffix_match " +
			"contains_match string_match invert_match treat_missing_header_as_empty",
	},
	{message: (*routev3.QueryParameterMatcher)(nil), read: "name string_match present_match"},
}

// routeMatch decodes a RouteMatch.
func (d *decoder) routeMatch(at path, m *routev3.RouteMatch) discovery.RouteMatch {
	match := discovery.RouteMatch{
		Path:    d.pathMatch(at, m),
		Headers: d.headerMatches(at, "headers", m.GetHeaders()),
		Query:   d.queryMatches(at, m.GetQueryParameters()),
		Cookies: d.cookieMatches(at, m.GetCookies()),
		GRPC:    m.GetGrpc() != nil,
	}
	for i, metadata := range m.GetDynamicMetadata() {
		match.Metadata = append(match.Metadata, *d.dynamicMatch(at.element("dynamic_metadata", i), metadata))
	}
	if f := m.GetRuntimeFraction(); f != nil {
		match.PerMillion = new(perMillion(f.GetDefaultValue()))
	}
	return match
}

// pathMatch decodes path_specifier and case_sensitive, which does not apply to
// regular expressions.
func (d *decoder) pathMatch(at path, m *routev3.RouteMatch) discovery.PathMatch {
	ignoreCase := m.GetCaseSensitive() != nil && !m.GetCaseSensitive().GetValue()
	p := discovery.PathMatch{IgnoreCase: ignoreCase}
	switch s := m.GetPathSpecifier().(type) {
	case *routev3.RouteMatch_Prefix:
		p.Kind, p.Value = discovery.PathPrefix, s.Prefix
	case *routev3.RouteMatch_Path:
		p.Kind, p.Value = discovery.PathExact, s.Path
	case *routev3.RouteMatch_PathSeparatedPrefix:
		p.Kind, p.Value = discovery.PathSeparatedPrefix, s.PathSeparatedPrefix
	case *routev3.RouteMatch_SafeRegex:
		if ignoreCase {
			d.refusef(at.field("case_sensitive"), `false does not apply to safe_regex: begin the expression with "(?i)"`)
		}
		p = discovery.PathMatch{
			Kind:  discovery.PathRegex,
			Value: s.SafeRegex.GetRegex(),
			Regex: d.regex(at.field("safe_regex"), s.SafeRegex),
		}
	case *routev3.RouteMatch_PathMatchPolicy:
		if ignoreCase {
			d.refusef(at.field("case_sensitive"), "false does not apply to path_match_policy")
		}
		p = d.templateMatch(at.field("path_match_policy"), s.PathMatchPolicy)
	}
	return p
}
