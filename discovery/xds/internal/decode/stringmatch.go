package decode

import (
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/inboardmesh/inboard/discovery"
)

// stringMatch decodes a StringMatcher. ignore_case has no effect on a regular
// expression, says its documentation.
func (d *decoder) stringMatch(at path, m *matcherv3.StringMatcher) discovery.StringMatch {
	s := discovery.StringMatch{IgnoreCase: m.GetIgnoreCase()}
	switch p := m.GetMatchPattern().(type) {
	case *matcherv3.StringMatcher_Exact:
		s.Kind, s.Value = discovery.MatchExact, p.Exact
	case *matcherv3.StringMatcher_Prefix:
		s.Kind, s.Value = discovery.MatchPrefix, p.Prefix
	case *matcherv3.StringMatcher_Suffix:
		s.Kind, s.Value = discovery.MatchSuffix, p.Suffix
	case *matcherv3.StringMatcher_Contains:
		s.Kind, s.Value = discovery.MatchContains, p.Contains
	case *matcherv3.StringMatcher_SafeRegex:
		s = d.regexMatch(at.field("safe_regex"), p.SafeRegex)
	default:
		// A pattern of a kind that this version does not know is no pattern.
		d.refusef(at.field("match_pattern"), "must be exact, prefix, suffix, contains or safe_regex")
	}
	return s
}

// regexMatch is the StringMatch of a regular expression.
func (d *decoder) regexMatch(at path, m *matcherv3.RegexMatcher) discovery.StringMatch {
	r := d.regex(at, m)
	return discovery.StringMatch{Kind: discovery.MatchRegex, Value: m.GetRegex(), Regex: r}
}
