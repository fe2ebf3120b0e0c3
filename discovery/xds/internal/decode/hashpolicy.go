package decode

import (
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/inboardmesh/inboard/discovery"
)

var hashPolicyFields = []messageFields{
	{
		message: (*routev3.RouteAction_HashPolicy)(nil),
		read:    "header cookie connection_properties query_parameter filter_state terminal",
	},
	{message: (*routev3.RouteAction_HashPolicy_Header)(nil), read: "header_name regex_rewrite"},
	{message: (*routev3.RouteAction_HashPolicy_Cookie)(nil), read: "name ttl path attributes"},
	{message: (*routev3.RouteAction_HashPolicy_CookieAttribute)(nil), read: "name value"},
	{message: (*routev3.RouteAction_HashPolicy_ConnectionProperties)(nil), read: "source_ip"},
	{message: (*routev3.RouteAction_HashPolicy_QueryParameter)(nil), read: "name"},
	{message: (*routev3.RouteAction_HashPolicy_FilterState)(nil), read: "key"},
}

// channelID is the key of the filter state that stands for a gRPC channel (gRFC
// A42).
const channelID = "io.grpc.channel_id"

// hashPolicies decodes hash_policy.
func (d *decoder) hashPolicies(at path, list []*routev3.RouteAction_HashPolicy) []discovery.HashPolicy {
	if len(list) == 0 {
		return nil
	}
	policies := make([]discovery.HashPolicy, 0, len(list))
	for i, m := range list {
		in := at.element("hash_policy", i)
		p := discovery.HashPolicy{Terminal: m.GetTerminal()}
		switch s := m.GetPolicySpecifier().(type) {
		case *routev3.RouteAction_HashPolicy_Header_:
			p.Header = strings.ToLower(s.Header.GetHeaderName())
			p.HeaderRewrite = d.substitution(in.field("header").field("regex_rewrite"), s.Header.GetRegexRewrite())
		case *routev3.RouteAction_HashPolicy_Cookie_:
			p.Cookie = s.Cookie.GetName()
			p.NewCookie = d.newCookie(in.field("cookie"), s.Cookie)
		case *routev3.RouteAction_HashPolicy_QueryParameter_:
			p.Query = s.QueryParameter.GetName()
		case *routev3.RouteAction_HashPolicy_ConnectionProperties_:
			if p.Source = s.ConnectionProperties.GetSourceIp(); !p.Source {
				continue // it hashes nothing
			}
		case *routev3.RouteAction_HashPolicy_FilterState_:
			if p.Channel = s.FilterState.GetKey() == channelID; !p.Channel {
				d.refusef(in.field("filter_state").field("key"), "%q is not supported, as no filter sets it: use %q, or let the application give a hash key (mesh.CallOptions)", s.FilterState.GetKey(), channelID)
			}
		}
		policies = append(policies, p)
	}
	return policies
}

// newCookie decodes what a cookie that a call does not have is made of; nil makes
// none.
func (d *decoder) newCookie(at path, m *routev3.RouteAction_HashPolicy_Cookie) *discovery.NewCookie {
	if m.GetTtl() == nil {
		return nil
	}
	c := &discovery.NewCookie{TTL: d.duration(at.field("ttl"), m.GetTtl()), Path: m.GetPath()}
	d.cookieText(at.field("name"), m.GetName())
	d.cookieText(at.field("path"), m.GetPath())
	for i, a := range m.GetAttributes() {
		in := at.element("attributes", i)
		d.cookieText(in.field("name"), a.GetName())
		d.cookieText(in.field("value"), a.GetValue())
		c.Attributes = append(c.Attributes, discovery.CookieAttribute{Name: a.GetName(), Value: a.GetValue()})
	}
	return c
}

// cookieText refuses what would end a part of a Set-Cookie header.
func (d *decoder) cookieText(at path, s string) {
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r == ';' }) {
		d.refusef(at, "%q must not contain a control character or ';'", s)
	}
}
