package decode

import (
	"maps"
	"net/netip"
	"slices"
	"strconv"

	xdscorev3 "github.com/cncf/xds/go/xds/core/v3"
	xdsmatcherv3 "github.com/cncf/xds/go/xds/type/matcher/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	networkinputv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/matching/common_inputs/network/v3"
	sslinputv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/matching/common_inputs/ssl/v3"
	ipmatcherv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/matching/input_matchers/ip/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/inboardmesh/inboard/discovery"
)

// maxTreeDepth is how many trees may be within each other.
const maxTreeDepth = 16

var rbacTreeFields = []messageFields{
	{message: (*xdsmatcherv3.Matcher)(nil), read: "matcher_list matcher_tree on_no_match"},
	{message: (*xdsmatcherv3.Matcher_OnMatch)(nil), read: "matcher action"},
	{message: (*xdsmatcherv3.Matcher_MatcherList)(nil), read: "matchers"},
	{message: (*xdsmatcherv3.Matcher_MatcherList_FieldMatcher)(nil), read: "predicate on_match"},
	{message: (*xdsmatcherv3.Matcher_MatcherList_Predicate)(nil), read: "single_predicate or_matcher and_matcher not_matcher"},
	{message: (*xdsmatcherv3.Matcher_MatcherList_Predicate_PredicateList)(nil), read: "predicate"},
	{message: (*xdsmatcherv3.Matcher_MatcherList_Predicate_SinglePredicate)(nil), read: "input value_match custom_match"},
	{
		message: (*xdsmatcherv3.Matcher_MatcherTree)(nil),
		read:    "input exact_match_map prefix_match_map",
		instead: map[string]string{"custom_match": "use a matcher_list with envoy.extensions.matching.input_matchers.ip.v3.Ip"},
	},
	{message: (*xdsmatcherv3.Matcher_MatcherTree_MatchMap)(nil), read: "map"},
	{message: (*xdsmatcherv3.StringMatcher)(nil), read: "exact prefix suffix safe_regex contains ignore_case"},
	// The only engine that there is.
	{message: (*xdsmatcherv3.RegexMatcher)(nil), read: "regex", harmless: "google_re2"},
	{message: (*xdscorev3.TypedExtensionConfig)(nil), read: "name typed_config"},
	{message: (*rbacv3.Action)(nil), read: "name action"},
	{message: (*matcherv3.HttpRequestHeaderMatchInput)(nil), read: "header_name"},
	{message: (*networkinputv3.SourceIPInput)(nil)},
	{message: (*networkinputv3.DirectSourceIPInput)(nil)},
	{message: (*networkinputv3.DestinationIPInput)(nil)},
	{message: (*networkinputv3.DestinationPortInput)(nil)},
	{message: (*networkinputv3.ServerNameInput)(nil)},
	{message: (*sslinputv3.UriSanInput)(nil)},
	{message: (*ipmatcherv3.Ip)(nil), read: "cidr_ranges", harmless: "stat_prefix"},
}

// rulesOrTree decodes one of the two forms that rules have.
func (d *decoder) rulesOrTree(at path, rulesField string, rules *rbacv3.RBAC, treeField string, m *xdsmatcherv3.Matcher, http bool) *discovery.RBACRules {
	if m == nil {
		return d.rbacRules(at.field(rulesField), rules, http)
	}
	if rules != nil {
		d.refusef(at.field(treeField), "must not be set beside %s", rulesField)
	}
	t := treeDecoder{decoder: d, http: http}
	return &discovery.RBACRules{Tree: t.tree(at.field(treeField), m, 1)}
}

// treeDecoder decodes a tree of matchers about requests or, without http, connections.
type treeDecoder struct {
	*decoder

	http bool
}

func (d *treeDecoder) tree(at path, m *xdsmatcherv3.Matcher, depth int) *discovery.RBACTree {
	t := &discovery.RBACTree{}
	if depth > maxTreeDepth {
		d.refusef(at, "is more than %d matchers deep", maxTreeDepth)
		return t
	}
	switch kind := m.GetMatcherType().(type) {
	case *xdsmatcherv3.Matcher_MatcherList_:
		in := at.field("matcher_list")
		for i, f := range kind.MatcherList.GetMatchers() {
			in := in.element("matchers", i)
			t.Branches = append(t.Branches, discovery.RBACBranch{
				Rule: d.predicate(in.field("predicate"), f.GetPredicate(), depth), Then: d.verdict(in.field("on_match"), f.GetOnMatch(), depth),
			})
		}
	case *xdsmatcherv3.Matcher_MatcherTree_:
		t.Branches = d.branches(at.field("matcher_tree"), kind.MatcherTree, depth)
	default:
		if m.GetOnNoMatch() == nil {
			d.refusef(at.field("matcher_list"), "must be set without matcher_tree and on_no_match")
		}
	}
	if m.GetOnNoMatch() != nil {
		otherwise := d.verdict(at.field("on_no_match"), m.GetOnNoMatch(), depth)
		t.Otherwise = &otherwise
	}
	return t
}

// branches decodes a map into branches: of prefixes the longest one counts.
func (d *treeDecoder) branches(at path, m *xdsmatcherv3.Matcher_MatcherTree, depth int) []discovery.RBACBranch {
	field, cases, prefixes := "exact_match_map", m.GetExactMatchMap().GetMap(), false
	if m.GetPrefixMatchMap() != nil {
		field, cases, prefixes = "prefix_match_map", m.GetPrefixMatchMap().GetMap(), true
	}
	keys := slices.Sorted(maps.Keys(cases))
	if prefixes {
		slices.SortStableFunc(keys, func(a, b string) int { return len(b) - len(a) })
	}
	var all []discovery.RBACBranch
	for _, key := range keys {
		in := at.field(field).entry("map", key)
		pattern := &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: key}}
		if prefixes {
			pattern = &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: key}}
			if cases[key].GetMatcher() != nil {
				d.refusef(in.field("matcher"), "not supported below a prefix: whether a shorter one is tried is not the same everywhere")
			}
		}
		all = append(all, discovery.RBACBranch{
			Rule: d.compare(at.field("input"), m.GetInput().GetTypedConfig(), in, pattern), Then: d.verdict(in, cases[key], depth),
		})
	}
	return all
}

func (d *treeDecoder) verdict(at path, m *xdsmatcherv3.Matcher_OnMatch, depth int) discovery.RBACVerdict {
	if nested := m.GetMatcher(); nested != nil {
		return discovery.RBACVerdict{Tree: d.tree(at.field("matcher"), nested, depth+1), Action: discovery.RBACDeny}
	}
	v := discovery.RBACVerdict{Action: discovery.RBACDeny}
	if m.GetAction() == nil {
		d.refusef(at, "must have a matcher or an action")
		return v
	}
	action, in := &rbacv3.Action{}, at.field("action").field("typed_config")
	if !d.unpack(in, m.GetAction().GetTypedConfig(), action) {
		return v
	}
	v.Policy = action.GetName()
	switch action.GetAction() {
	case rbacv3.RBAC_ALLOW:
		v.Action = discovery.RBACAllow
	case rbacv3.RBAC_DENY:
	case rbacv3.RBAC_LOG:
		v.Action = discovery.RBACLog
	default:
		d.refusef(in.field("action"), "%d is not supported", action.GetAction())
	}
	return v
}

func (d *treeDecoder) predicate(at path, m *xdsmatcherv3.Matcher_MatcherList_Predicate, depth int) discovery.RBACRule {
	if depth > maxTreeDepth {
		d.refusef(at, "is more than %d predicates deep", maxTreeDepth)
		return never()
	}
	set := func(kind discovery.RBACKind, field string, list *xdsmatcherv3.Matcher_MatcherList_Predicate_PredicateList) discovery.RBACRule {
		rule := discovery.RBACRule{Kind: kind}
		for i, p := range list.GetPredicate() {
			rule.Rules = append(rule.Rules, d.predicate(at.field(field).element("predicate", i), p, depth+1))
		}
		return rule
	}
	switch kind := m.GetMatchType().(type) {
	case *xdsmatcherv3.Matcher_MatcherList_Predicate_OrMatcher:
		return set(discovery.RBACOr, "or_matcher", kind.OrMatcher)
	case *xdsmatcherv3.Matcher_MatcherList_Predicate_AndMatcher:
		return set(discovery.RBACAnd, "and_matcher", kind.AndMatcher)
	case *xdsmatcherv3.Matcher_MatcherList_Predicate_NotMatcher:
		return not(d.predicate(at.field("not_matcher"), kind.NotMatcher, depth+1))
	case *xdsmatcherv3.Matcher_MatcherList_Predicate_SinglePredicate_:
		in := at.field("single_predicate")
		input := kind.SinglePredicate.GetInput().GetTypedConfig()
		if custom := kind.SinglePredicate.GetCustomMatch(); custom != nil {
			return d.addresses(in.field("input"), input, in.field("custom_match").field("typed_config"), custom.GetTypedConfig())
		}
		// The two messages are the same on the wire.
		pattern := &matcherv3.StringMatcher{}
		b, err := proto.Marshal(kind.SinglePredicate.GetValueMatch())
		if err == nil {
			err = proto.Unmarshal(b, pattern)
		}
		if err != nil {
			d.refusef(in.field("value_match"), "%w", err)
		}
		return d.compare(in.field("input"), input, in.field("value_match"), pattern)
	}
	d.refusef(at, "must be one of the kinds of Predicate")
	return never()
}

// never is a rule that matches nothing.
func never() discovery.RBACRule { return discovery.RBACRule{Kind: discovery.RBACOr} }

// compare decodes an input whose text is compared.
func (d *treeDecoder) compare(at path, input *anypb.Any, in path, pattern *matcherv3.StringMatcher) discovery.RBACRule {
	at = at.field("typed_config")
	switch {
	case is(input, (*matcherv3.HttpRequestHeaderMatchInput)(nil)):
		m := &matcherv3.HttpRequestHeaderMatchInput{}
		if !d.unpack(at, input, m) {
			return never()
		}
		// Its name is held to the same rules; what is wrong with the pattern is told of
		// where it is.
		d.stringMatch(in, pattern)
		return d.rbacHeader(at, &routev3.HeaderMatcher{
			Name: m.GetHeaderName(), HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: pattern},
		}, d.http)
	case is(input, (*networkinputv3.ServerNameInput)(nil)):
		return text(discovery.RBACServerName, d.stringMatch(in, pattern))
	case is(input, (*sslinputv3.UriSanInput)(nil)):
		return text(discovery.RBACURI, d.stringMatch(in, pattern))
	case is(input, (*networkinputv3.DestinationPortInput)(nil)):
		port, err := strconv.ParseUint(pattern.GetExact(), 10, 16)
		if err != nil {
			d.refusef(in, "must be exactly a port")
		}
		return discovery.RBACRule{Kind: discovery.RBACPort, Start: uint32(port), End: uint32(port) + 1}
	}
	if kind, ok := addressInput(input); ok {
		address, err := netip.ParseAddr(pattern.GetExact())
		if err != nil || address.Zone() != "" {
			d.refusef(in, "must be exactly an address: for ranges use envoy.extensions.matching.input_matchers.ip.v3.Ip")
			return never()
		}
		address = address.Unmap()
		return discovery.RBACRule{Kind: kind, Prefix: netip.PrefixFrom(address, address.BitLen())}
	}
	d.refusef(at, "%q is not supported", typeName(input))
	return never()
}

// addresses decodes an address that is held against ranges.
func (d *treeDecoder) addresses(at path, input *anypb.Any, in path, custom *anypb.Any) discovery.RBACRule {
	kind, ok := addressInput(input)
	if !ok {
		d.refusef(at.field("typed_config"), "%q is not an address", typeName(input))
		return never()
	}
	m := &ipmatcherv3.Ip{}
	if !d.unpack(in, custom, m) {
		return never()
	}
	ranges := discovery.RBACRule{Kind: discovery.RBACOr}
	for i, r := range m.GetCidrRanges() {
		ranges.Rules = append(ranges.Rules, d.address(in.element("cidr_ranges", i), kind, r))
	}
	return ranges
}

// addressInput finds the address that an input is.
func addressInput(input *anypb.Any) (kind discovery.RBACKind, ok bool) {
	switch {
	case is(input, (*networkinputv3.SourceIPInput)(nil)):
		return discovery.RBACRemoteIP, true
	case is(input, (*networkinputv3.DirectSourceIPInput)(nil)):
		return discovery.RBACDirectIP, true
	case is(input, (*networkinputv3.DestinationIPInput)(nil)):
		return discovery.RBACDestination, true
	}
	return 0, false
}
