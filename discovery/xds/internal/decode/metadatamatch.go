package decode

import (
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"github.com/inboardmesh/inboard/discovery"
)

var metadataMatchFields = []messageFields{
	{message: (*matcherv3.MetadataMatcher)(nil), read: "filter path value invert"},
	{message: (*matcherv3.MetadataMatcher_PathSegment)(nil), read: "key"},
	{
		message: (*matcherv3.ValueMatcher)(nil),
		read:    "null_match double_match string_match bool_match present_match list_match or_match",
	},
	{message: (*matcherv3.ValueMatcher_NullMatch)(nil)},
	{message: (*matcherv3.DoubleMatcher)(nil), read: "range exact"},
	{message: (*typev3.DoubleRange)(nil), read: "start end"},
	{message: (*matcherv3.ListMatcher)(nil), read: "one_of"},
	{message: (*matcherv3.OrMatcher)(nil), read: "value_matchers"},
}

// dynamicMatch decodes a MetadataMatcher.
func (d *decoder) dynamicMatch(at path, m *matcherv3.MetadataMatcher) *discovery.MetadataMatch {
	match := &discovery.MetadataMatch{
		Filter: m.GetFilter(), Invert: m.GetInvert(),
		Value: d.valueMatch(at.field("value"), m.GetValue()),
	}
	for i, segment := range m.GetPath() {
		if segment.GetKey() == "" {
			d.refusef(at.element("path", i).field("key"), "must not be empty")
		}
		match.Path = append(match.Path, segment.GetKey())
	}
	return match
}

func (d *decoder) valueMatch(at path, m *matcherv3.ValueMatcher) discovery.ValueMatch {
	switch p := m.GetMatchPattern().(type) {
	case *matcherv3.ValueMatcher_NullMatch_:
		return discovery.ValueMatch{Kind: discovery.ValueNull}
	case *matcherv3.ValueMatcher_DoubleMatch:
		return d.doubleMatch(at.field("double_match"), p.DoubleMatch)
	case *matcherv3.ValueMatcher_StringMatch:
		return discovery.ValueMatch{Kind: discovery.ValueString, String: d.stringMatch(at.field("string_match"), p.StringMatch)}
	case *matcherv3.ValueMatcher_BoolMatch:
		return discovery.ValueMatch{Kind: discovery.ValueBool, Bool: p.BoolMatch}
	case *matcherv3.ValueMatcher_PresentMatch:
		if !p.PresentMatch {
			// Envoy documents nothing for it, and matches nothing.
			d.refusef(at.field("present_match"), "false is not supported: invert the matcher")
		}
		return discovery.ValueMatch{Kind: discovery.ValuePresent}
	case *matcherv3.ValueMatcher_ListMatch:
		one := d.valueMatch(at.field("list_match").field("one_of"), p.ListMatch.GetOneOf())
		return discovery.ValueMatch{Kind: discovery.ValueList, Any: []discovery.ValueMatch{one}}
	case *matcherv3.ValueMatcher_OrMatch:
		or := discovery.ValueMatch{Kind: discovery.ValueOr}
		for i, alternative := range p.OrMatch.GetValueMatchers() {
			or.Any = append(or.Any, d.valueMatch(at.field("or_match").element("value_matchers", i), alternative))
		}
		return or
	}
	d.refusef(at.field("match_pattern"), "must be one of the kinds of ValueMatcher")
	return discovery.ValueMatch{}
}

func (d *decoder) doubleMatch(at path, m *matcherv3.DoubleMatcher) discovery.ValueMatch {
	match := discovery.ValueMatch{Kind: discovery.ValueDouble}
	switch p := m.GetMatchPattern().(type) {
	case *matcherv3.DoubleMatcher_Range:
		match.Start, match.End = p.Range.GetStart(), p.Range.GetEnd()
		if match.Start >= match.End {
			d.refusef(at.field("range"), "must not be empty")
		}
	case *matcherv3.DoubleMatcher_Exact:
		match.Start, match.End = p.Exact, p.Exact
	default:
		d.refusef(at.field("match_pattern"), "must be range or exact")
	}
	return match
}
