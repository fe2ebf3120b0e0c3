package decode

import (
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/inboardmesh/inboard/discovery"
)

var hashPolicyFields = []messageFields{
	{message: (*routev3.RouteAction_HashPolicy)(nil), read: "header cookie query_parameter terminal"},
	{message: (*routev3.RouteAction_HashPolicy_Header)(nil), read: "header_name regex_rewrite"},
	{
		message: (*routev3.RouteAction_HashPolicy_Cookie)(nil),
		read:    "name",
		instead: map[string]string{
			"ttl":        "cookies are hashed, not made: let the application set it",
			"path":       "cookies are hashed, not made",
			"attributes": "cookies are hashed, not made",
		},
	},
	{message: (*routev3.RouteAction_HashPolicy_QueryParameter)(nil), read: "name"},
}

// hashPolicies decodes hash_policy for the draw of a weighted cluster. Without
// one, nothing could be hashed.
func (d *decoder) hashPolicies(at path, list []*routev3.RouteAction_HashPolicy) []discovery.HashPolicy {
	if len(list) == 0 {
		d.refusef(at.field("weighted_clusters").field("use_hash_policy"), "needs a hash_policy")
		return nil
	}
	policies := make([]discovery.HashPolicy, len(list))
	for i, m := range list {
		in := at.element("hash_policy", i)
		// Elsewhere the field is without effect, so it is checked here.
		d.fields(in, m.ProtoReflect(), supportedFields())
		p := discovery.HashPolicy{Terminal: m.GetTerminal()}
		switch s := m.GetPolicySpecifier().(type) {
		case *routev3.RouteAction_HashPolicy_Header_:
			p.Header = strings.ToLower(s.Header.GetHeaderName())
			p.HeaderRewrite = d.substitution(in.field("header").field("regex_rewrite"), s.Header.GetRegexRewrite())
		case *routev3.RouteAction_HashPolicy_Cookie_:
			p.Cookie = s.Cookie.GetName()
		case *routev3.RouteAction_HashPolicy_QueryParameter_:
			p.Query = s.QueryParameter.GetName()
		default:
			d.refusef(in.field("policy_specifier"), "must be header, cookie or query_parameter")
		}
		policies[i] = p
	}
	return policies
}
