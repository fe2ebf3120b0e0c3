package relay

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/route"
)

// million is a whole in millionths.
const million = 1_000_000

func regex(source string) *matcherv3.RegexMatcher { return &matcherv3.RegexMatcher{Regex: source} }

// stringMatch writes a StringMatch.
func stringMatch(m *discovery.StringMatch) *matcherv3.StringMatcher {
	out := &matcherv3.StringMatcher{IgnoreCase: m.IgnoreCase}
	switch m.Kind {
	case discovery.MatchExact:
		out.MatchPattern = &matcherv3.StringMatcher_Exact{Exact: m.Value}
	case discovery.MatchPrefix:
		out.MatchPattern = &matcherv3.StringMatcher_Prefix{Prefix: m.Value}
	case discovery.MatchSuffix:
		out.MatchPattern = &matcherv3.StringMatcher_Suffix{Suffix: m.Value}
	case discovery.MatchContains:
		out.MatchPattern = &matcherv3.StringMatcher_Contains{Contains: m.Value}
	case discovery.MatchRegex:
		out.IgnoreCase = false // the expression says it
		out.MatchPattern = &matcherv3.StringMatcher_SafeRegex{SafeRegex: regex(m.Regex.Source)}
	}
	return out
}

// headerMatch writes a HeaderMatch, all but TreatMissingAsEmpty.
func headerMatch(m *discovery.HeaderMatch) *routev3.HeaderMatcher {
	out := &routev3.HeaderMatcher{Name: m.Name, InvertMatch: m.Invert}
	switch m.Kind {
	case discovery.HeaderString:
		out.HeaderMatchSpecifier = &routev3.HeaderMatcher_StringMatch{StringMatch: stringMatch(&m.String)}
	case discovery.HeaderRange:
		out.HeaderMatchSpecifier = &routev3.HeaderMatcher_RangeMatch{RangeMatch: &typev3.Int64Range{Start: m.Start, End: m.End}}
	case discovery.HeaderPresent:
		out.HeaderMatchSpecifier = &routev3.HeaderMatcher_PresentMatch{PresentMatch: m.Present}
	}
	return out
}

// pathMatch writes a PathMatch.
func pathMatch(m *discovery.PathMatch, out *routev3.RouteMatch) {
	if m.IgnoreCase {
		out.CaseSensitive = wrapperspb.Bool(false)
	}
	switch m.Kind {
	case discovery.PathPrefix:
		out.PathSpecifier = &routev3.RouteMatch_Prefix{Prefix: m.Value}
	case discovery.PathExact:
		out.PathSpecifier = &routev3.RouteMatch_Path{Path: m.Value}
	case discovery.PathRegex, discovery.PathTemplate:
		out.PathSpecifier = &routev3.RouteMatch_SafeRegex{SafeRegex: regex(m.Regex.Source)}
	case discovery.PathSeparatedPrefix:
		// grpc-go rejects path_separated_prefix. An expression has its own way to
		// say that case does not matter.
		source := regexp.QuoteMeta(m.Value) + "(?:/.*)?"
		if m.IgnoreCase {
			source, out.CaseSensitive = "(?i)"+source, nil
		}
		out.PathSpecifier = &routev3.RouteMatch_SafeRegex{SafeRegex: regex(source)}
	}
}

// matching is a match as a guest can make it.
type matching struct {
	match *routev3.RouteMatch
	// never tells that no gRPC call matches.
	never bool
	// beyond are the conditions that grpc-go cannot look at: without them the
	// match is too wide.
	beyond []string
}

// routeMatch writes a match for calls with an authority, "" for one that is not
// known before the call.
func routeMatch(m *discovery.RouteMatch, authority string) matching {
	out := matching{match: &routev3.RouteMatch{}}
	pathMatch(&m.Path, out.match)
	if len(m.Query) > 0 {
		out.never = true // a gRPC call has no query; grpc-go would skip the route as well
	}
	for i := range m.Metadata {
		if !m.Metadata[i].Matches(nil) { // there is none when a call is routed first
			out.never = true
		}
	}
	if m.PerMillion != nil {
		out.match.RuntimeFraction = fraction(*m.PerMillion)
	}
	for i := range m.Headers {
		out.header(&m.Headers[i], authority)
	}
	for i := range m.Cookies {
		out.cookie(&m.Cookies[i])
	}
	return out
}

// fraction is a runtime_fraction.
func fraction(perMillion uint32) *corev3.RuntimeFractionalPercent {
	return &corev3.RuntimeFractionalPercent{DefaultValue: percent(perMillion, 1)}
}

// percent is a share in millionths, in units of so many of them.
func percent(perMillion, unit uint32) *typev3.FractionalPercent {
	p := &typev3.FractionalPercent{Numerator: perMillion, Denominator: typev3.FractionalPercent_MILLION}
	switch unit {
	case million / 100:
		p.Numerator, p.Denominator = perMillion/unit, typev3.FractionalPercent_HUNDRED
	case million / 10_000:
		p.Numerator, p.Denominator = perMillion/unit, typev3.FractionalPercent_TEN_THOUSAND
	}
	return p
}

// header adds a condition about a header. grpc-go compares what an application
// calls metadata, of which the pseudo-headers are no part.
func (out *matching) header(m *discovery.HeaderMatch, authority string) {
	var value string
	switch m.Name {
	case ":method":
		value = "POST"
	case ":scheme":
		value = "http"
	case ":authority", "host":
		if value = authority; value == "" {
			named := *m
			named.Name = ":authority" // what a server calls both
			out.match.Headers = append(out.match.Headers, headerMatch(&named))
			return
		}
	default:
		if strings.HasPrefix(m.Name, ":") || strings.HasSuffix(m.Name, "-bin") || m.TreatMissingAsEmpty && route.MatchHeaderValue(m, "", false) {
			out.beyond = append(out.beyond, fmt.Sprintf("header %q", m.Name))
			return
		}
		out.match.Headers = append(out.match.Headers, headerMatch(m))
		return
	}
	if !route.MatchHeaderValue(m, value, true) {
		out.never = true
	}
}

// cookie adds a condition about a cookie, which is a part of a header.
func (out *matching) cookie(m *discovery.CookieMatch) {
	if m.Invert || m.String.Kind != discovery.MatchExact || m.String.IgnoreCase {
		out.beyond = append(out.beyond, fmt.Sprintf("cookie %q", m.Name))
		return
	}
	pair := regexp.QuoteMeta(m.Name) + "=" + regexp.QuoteMeta(m.String.Value)
	out.match.Headers = append(out.match.Headers, &routev3.HeaderMatcher{
		Name: "cookie",
		HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: &matcherv3.StringMatcher{
			MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: regex("(?:.*; ?)?" + pair + "(?:;.*)?")},
		}},
	})
}

// domains are those of a virtual host. grpc-go compares them with the name that
// the channel was made for, port and all.
func domains(of []string, port string, ignorePort bool) []string {
	all := slices.Clone(of)
	if !ignorePort || port == "" {
		return all
	}
	for _, domain := range of {
		with := domain + ":" + port
		if domain != "*" && !strings.HasSuffix(domain, "*") && !slices.Contains(all, with) {
			all = append(all, with)
		}
	}
	return all
}
