package decode

import (
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/inboardmesh/inboard/discovery"
)

// headerMatches decodes the list called field in the message at.
func (d *decoder) headerMatches(at path, field string, list []*routev3.HeaderMatcher) []discovery.HeaderMatch {
	if len(list) == 0 {
		return nil
	}
	matches := make([]discovery.HeaderMatch, len(list))
	for i, m := range list {
		matches[i] = d.headerMatch(at.element(field, i), m)
	}
	return matches
}

// headerMatch decodes a HeaderMatcher, with the fields that string_match
// replaced.
//
//nolint:staticcheck // the deprecated fields are still in use
func (d *decoder) headerMatch(at path, m *routev3.HeaderMatcher) discovery.HeaderMatch {
	h := discovery.HeaderMatch{
		Name:                strings.ToLower(m.GetName()),
		Invert:              m.GetInvertMatch(),
		TreatMissingAsEmpty: m.GetTreatMissingHeaderAsEmpty(),
	}
	switch s := m.GetHeaderMatchSpecifier().(type) {
	case *routev3.HeaderMatcher_StringMatch:
		h.String = d.stringMatch(at.field("string_match"), s.StringMatch)
	case *routev3.HeaderMatcher_ExactMatch:
		h.String = discovery.StringMatch{Kind: discovery.MatchExact, Value: s.ExactMatch}
	case *routev3.HeaderMatcher_PrefixMatch:
		h.String = discovery.StringMatch{Kind: discovery.MatchPrefix, Value: s.PrefixMatch}
	case *routev3.HeaderMatcher_SuffixMatch:
		h.String = discovery.StringMatch{Kind: discovery.MatchSuffix, Value: s.SuffixMatch}
	case *routev3.HeaderMatcher_ContainsMatch:
		h.String = discovery.StringMatch{Kind: discovery.MatchContains, Value: s.ContainsMatch}
	case *routev3.HeaderMatcher_SafeRegexMatch:
		h.String = d.regexMatch(at.field("safe_regex_match"), s.SafeRegexMatch)
	case *routev3.HeaderMatcher_RangeMatch:
		h.Kind = discovery.HeaderRange
		h.Start, h.End = s.RangeMatch.GetStart(), s.RangeMatch.GetEnd()
	case *routev3.HeaderMatcher_PresentMatch:
		h.Kind, h.Present = discovery.HeaderPresent, s.PresentMatch
	default:
		// Envoy takes a matcher with a name alone for a presence match. One of
		// a kind that this version does not know looks the same.
		if len(m.ProtoReflect().GetUnknown()) > 0 {
			d.refusef(at.field("header_match_specifier"), "is of an unknown kind")
		}
		h.Kind, h.Present = discovery.HeaderPresent, true
	}
	return h
}

// queryMatches decodes RouteMatch.query_parameters.
func (d *decoder) queryMatches(at path, list []*routev3.QueryParameterMatcher) []discovery.QueryMatch {
	if len(list) == 0 {
		return nil
	}
	matches := make([]discovery.QueryMatch, len(list))
	for i, m := range list {
		matches[i] = d.queryMatch(at.element("query_parameters", i), m)
	}
	return matches
}

func (d *decoder) queryMatch(at path, m *routev3.QueryParameterMatcher) discovery.QueryMatch {
	q := discovery.QueryMatch{Name: m.GetName()}
	switch s := m.GetQueryParameterMatchSpecifier().(type) {
	case *routev3.QueryParameterMatcher_StringMatch:
		q.String = d.stringMatch(at.field("string_match"), s.StringMatch)
	case *routev3.QueryParameterMatcher_PresentMatch:
		q.AnyValue = true
		if !s.PresentMatch {
			// Envoy documents "must be absent" and matches "must be present".
			d.refusef(at.field("present_match"), "false is not supported")
		}
	default:
		q.AnyValue = true
		if len(m.ProtoReflect().GetUnknown()) > 0 {
			d.refusef(at.field("query_parameter_match_specifier"), "is of an unknown kind")
		}
	}
	return q
}

// cookieMatches decodes RouteMatch.cookies.
func (d *decoder) cookieMatches(at path, list []*routev3.CookieMatcher) []discovery.CookieMatch {
	if len(list) == 0 {
		return nil
	}
	matches := make([]discovery.CookieMatch, len(list))
	for i, m := range list {
		in := at.element("cookies", i)
		matches[i] = discovery.CookieMatch{
			Name:   m.GetName(),
			String: d.stringMatch(in.field("string_match"), m.GetStringMatch()),
			Invert: m.GetInvertMatch(),
		}
	}
	return matches
}
