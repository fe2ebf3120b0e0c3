package istio

import (
	"cmp"
	"regexp"
	"slices"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	networking "istio.io/api/networking/v1alpha3"

	"github.com/inboardmesh/inboard/controlplane/istio/internal/gatewayapi"
)

// gatewayMatch is one match of a rule of the Gateway API.
type gatewayMatch struct {
	at    at
	match *routev3.RouteMatch
	rank  rank
}

// rank is how specific a match is, by the Gateway API: the larger goes first,
// the first number that differs decides.
//
//   - HTTPRoute: the kind of the path, the length of the path, whether there is a
//     method, the number of headers, the number of query parameters.
//   - GRPCRoute: the kind of the method's match, the length of the service, the
//     length of the method, the number of headers.
//
// Where an expression stands is an implementation's own choice: here after what
// is written out, before what matches everything.
type rank [5]int

// The kinds of a path.
const (
	rankAny = iota
	rankRegex
	rankPrefix
	rankExact
)

func (r rank) compare(o rank) int { return -slices.Compare(r[:], o[:]) }

// rankedRoute is a route with what decides where it stands among others.
type rankedRoute struct {
	sourcedRoute

	rank rank
	obj  *object
}

func (r rankedRoute) compare(o rankedRoute) int {
	return cmp.Or(r.rank.compare(o.rank), older(r.obj, o.obj))
}

// anyMatch is the match of a rule that has none.
func anyMatch(a at) []gatewayMatch {
	return []gatewayMatch{{at: a, match: routeMatch(nil)}}
}

func httpMatches(rule *gatewayapi.HTTPRouteRule, a at) []gatewayMatch {
	if len(rule.Matches) == 0 {
		return anyMatch(a)
	}
	matches := make([]gatewayMatch, len(rule.Matches))
	for i := range rule.Matches {
		in, ma := &rule.Matches[i], a.field("matches").index(i)
		m := gatewayMatch{at: ma, match: routeMatch(nil)}
		if in.Path != nil {
			m.rank[0], m.rank[1] = httpPath(in.Path, m.match, ma.field("path"))
		}
		var headers []namedMatch
		for j, h := range in.Headers {
			headers = append(headers, namedMatch{h.Type, h.Name, h.Value, ma.field("headers").index(j)})
		}
		m.match.Headers = gatewayHeaders(headers)
		if in.Method != nil {
			m.rank[2] = 1
			if !slices.Contains(httpMethods, *in.Method) {
				ma.field("method").errorf("%q is not one of %s", *in.Method, strings.Join(httpMethods, ", "))
			}
			m.match.Headers = append(m.match.Headers, headerMatch(":method", exactly(*in.Method)))
		}
		var params []namedMatch
		for j, q := range in.QueryParams {
			params = append(params, namedMatch{q.Type, q.Name, q.Value, ma.field("queryParams").index(j)})
		}
		m.match.QueryParameters = gatewayParams(params)
		m.rank[3], m.rank[4] = len(in.Headers), len(in.QueryParams)
		matches[i] = m
	}
	return matches
}

var httpMethods = []string{"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"}

// pathCharacters is what the Gateway API allows in a path that is written out.
var pathCharacters = regexp.MustCompile(`^(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|%[0-9a-fA-F]{2})+$`)

// httpPath sets the path of a match and returns its rank.
func httpPath(in *gatewayapi.HTTPPathMatch, out *routev3.RouteMatch, a at) (kind, length int) {
	value := or(in.Value, "/")
	va := a.field("value")
	switch kind := or(in.Type, "PathPrefix"); kind {
	case "Exact":
		checkPath(value, va)
		out.PathSpecifier = &routev3.RouteMatch_Path{Path: value}
		return rankExact, len(value)
	case "PathPrefix":
		checkPath(value, va)
		// A prefix is one of whole elements: "/a" and "/a/" are the same.
		if value = strings.TrimSuffix(value, "/"); value == "" {
			return rankAny, 0
		}
		out.PathSpecifier = &routev3.RouteMatch_PathSeparatedPrefix{PathSeparatedPrefix: value}
		return rankPrefix, len(value)
	case "RegularExpression":
		checkRegex(value, va)
		out.PathSpecifier = &routev3.RouteMatch_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: value}}
		return rankRegex, len(value)
	default:
		a.field("type").errorf("%q is not one of Exact, PathPrefix, RegularExpression", kind)
		return 0, 0
	}
}

// checkPath applies the rules of the Gateway API to a path that is written out.
func checkPath(value string, a at) {
	for _, part := range []string{"//", "/./", "/../", "%2f", "%2F"} {
		if strings.Contains(value, part) {
			a.errorf("%q: %q is not possible in a path", value, part)
			return
		}
	}
	switch {
	case !strings.HasPrefix(value, "/"):
		a.errorf("%q does not begin with a slash", value)
	case strings.HasSuffix(value, "/..") || strings.HasSuffix(value, "/."):
		a.errorf("%q must not end with a dot as its last element", value)
	case len(value) > 1024 || !pathCharacters.MatchString(value):
		a.errorf("%q is not a path: use at most 1024 of the characters that a URL allows, and escape others", value)
	}
}

// namedMatch is a match of a header or of a query parameter.
type namedMatch struct {
	kind        *string
	name, value string
	at          at
}

// stringMatch is the match in Istio's form.
func (m namedMatch) stringMatch() *networking.StringMatch {
	if m.value == "" {
		m.at.field("value").errorf("must not be empty")
	}
	switch kind := or(m.kind, "Exact"); kind {
	case "Exact":
		return exactly(m.value)
	case "RegularExpression":
		if m.value != "" {
			checkRegex(m.value, m.at.field("value"))
		}
		return regularly(m.value)
	default:
		m.at.field("type").errorf("%q is not one of Exact, RegularExpression", kind)
		return exactly(m.value)
	}
}

func exactly(value string) *networking.StringMatch {
	return &networking.StringMatch{MatchType: &networking.StringMatch_Exact{Exact: value}}
}

func regularly(value string) *networking.StringMatch {
	return &networking.StringMatch{MatchType: &networking.StringMatch_Regex{Regex: value}}
}

func gatewayHeaders(in []namedMatch) []*routev3.HeaderMatcher {
	var out []*routev3.HeaderMatcher
	seen := make(map[string]bool)
	for _, m := range in {
		name := strings.ToLower(m.name)
		switch {
		case !isHeaderName(name):
			m.at.field("name").errorf("%q is not the name of a header", m.name)
		case seen[name]:
			m.at.field("name").errorf("%q is there twice", m.name)
		}
		seen[name] = true
		out = append(out, &routev3.HeaderMatcher{
			Name:                 name,
			HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: stringMatch(m.stringMatch())},
		})
	}
	return out
}

func gatewayParams(in []namedMatch) []*routev3.QueryParameterMatcher {
	var out []*routev3.QueryParameterMatcher
	seen := make(map[string]bool)
	for _, m := range in {
		switch {
		case m.name == "":
			m.at.field("name").errorf("is required")
		case seen[m.name]:
			m.at.field("name").errorf("%q is there twice", m.name)
		}
		seen[m.name] = true
		out = append(out, &routev3.QueryParameterMatcher{
			Name:                         m.name,
			QueryParameterMatchSpecifier: &routev3.QueryParameterMatcher_StringMatch{StringMatch: stringMatch(m.stringMatch())},
		})
	}
	return out
}

func grpcMatches(rule *gatewayapi.GRPCRouteRule, a at) []gatewayMatch {
	if len(rule.Matches) == 0 {
		return anyMatch(a)
	}
	matches := make([]gatewayMatch, len(rule.Matches))
	for i := range rule.Matches {
		in, ma := &rule.Matches[i], a.field("matches").index(i)
		m := gatewayMatch{at: ma, match: routeMatch(nil)}
		if in.Method != nil {
			grpcMethod(in.Method, &m, ma.field("method"))
		}
		var headers []namedMatch
		for j, h := range in.Headers {
			headers = append(headers, namedMatch{h.Type, h.Name, h.Value, ma.field("headers").index(j)})
		}
		m.match.Headers = gatewayHeaders(headers)
		m.rank[3] = len(in.Headers)
		matches[i] = m
	}
	return matches
}

// The names of gRPC, as the Gateway API allows them.
var (
	grpcServiceName = regexp.MustCompile(`^(?i)\.?[a-z_][a-z_0-9]*(\.[a-z_][a-z_0-9]*)*$`)
	grpcMethodName  = regexp.MustCompile(`^[A-Za-z_][A-Za-z_0-9]*$`)
)

// grpcMethod sets the path and the rank of a match: a gRPC call is a request to
// /service/method.
func grpcMethod(in *gatewayapi.GRPCMethodMatch, m *gatewayMatch, a at) {
	service, method := text(in.Service), text(in.Method)
	if service == "" && method == "" {
		a.errorf("needs service or method")
		return
	}
	m.rank[1], m.rank[2] = len(service), len(method)
	regex := func(pattern string) {
		m.match.PathSpecifier = &routev3.RouteMatch_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: pattern}}
	}
	const anything = "[^/]+"
	switch kind := or(in.Type, "Exact"); kind {
	case "Exact":
		m.rank[0] = rankExact
		if service != "" && !grpcServiceName.MatchString(service) {
			a.field("service").errorf("%q is not the name of a gRPC service", service)
		}
		if method != "" && !grpcMethodName.MatchString(method) {
			a.field("method").errorf("%q is not the name of a method", method)
		}
		switch {
		case method == "":
			m.match.PathSpecifier = &routev3.RouteMatch_Prefix{Prefix: "/" + service + "/"}
		case service == "":
			regex("/" + anything + "/" + regexp.QuoteMeta(method))
		default:
			m.match.PathSpecifier = &routev3.RouteMatch_Path{Path: "/" + service + "/" + method}
		}
	case "RegularExpression":
		m.rank[0] = rankRegex
		parts := []string{anything, anything}
		for i, part := range []struct{ name, value string }{{"service", service}, {"method", method}} {
			if part.value != "" {
				checkRegex(part.value, a.field(part.name))
				parts[i] = "(?:" + part.value + ")"
			}
		}
		regex("/" + parts[0] + "/" + parts[1])
	default:
		a.field("type").errorf("%q is not one of Exact, RegularExpression", kind)
	}
}
