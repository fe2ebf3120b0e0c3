package decode

import (
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"golang.org/x/net/http/httpguts"

	"github.com/inboardmesh/inboard/discovery"
)

// rewrites decodes how a RouteAction rewrites path and host.
func (d *decoder) rewrites(at path, m *routev3.RouteAction, match *discovery.PathMatch, f *discovery.Forward) {
	d.oneRewrite(at, m)
	f.PrefixRewrite = m.GetPrefixRewrite()
	f.PathSubstitution = d.substitution(at.field("regex_rewrite"), m.GetRegexRewrite())
	if m.GetPathRewritePolicy() != nil {
		f.PathSubstitution = d.templateRewrite(at.field("path_rewrite_policy"), m.GetPathRewritePolicy(), match)
	}
	if m.GetPathRewrite() != "" {
		f.PathFormat = d.pathFormat(at.field("path_rewrite"), m.GetPathRewrite())
	}
	f.AppendForwardedHost = m.GetAppendXForwardedHost()
	switch s := m.GetHostRewriteSpecifier().(type) {
	case *routev3.RouteAction_HostRewriteLiteral:
		f.HostRewrite = d.hostRewrite(at.field("host_rewrite_literal"), s.HostRewriteLiteral)
	case *routev3.RouteAction_AutoHostRewrite:
		if s.AutoHostRewrite.GetValue() {
			f.HostFrom = &discovery.HostSource{Endpoint: true}
		}
	case *routev3.RouteAction_HostRewriteHeader:
		if s.HostRewriteHeader != "" {
			f.HostFrom = &discovery.HostSource{Header: strings.ToLower(s.HostRewriteHeader)}
		}
	case *routev3.RouteAction_HostRewritePathRegex:
		f.HostFrom = &discovery.HostSource{Path: d.substitution(at.field("host_rewrite_path_regex"), s.HostRewritePathRegex)}
	}
}

// oneRewrite refuses a path that is to be rewritten in several ways.
func (d *decoder) oneRewrite(at path, m *routev3.RouteAction) {
	former := ""
	for _, rewrite := range []struct {
		field string
		set   bool
	}{
		{"prefix_rewrite", m.GetPrefixRewrite() != ""},
		{"regex_rewrite", m.GetRegexRewrite() != nil},
		{"path_rewrite_policy", m.GetPathRewritePolicy() != nil},
		{"path_rewrite", m.GetPathRewrite() != ""},
	} {
		switch {
		case rewrite.set && former != "":
			d.refusef(at.field(rewrite.field), "must not be set beside %s", former)
		case rewrite.set:
			former = rewrite.field
		}
	}
}

// pathFormat decodes a path with commands.
func (d *decoder) pathFormat(at path, text string) *discovery.Format {
	f, err := discovery.ParseFormat(text, discovery.OfRequest)
	if err != nil {
		d.refusef(at, "%w", err)
		return nil
	}
	return f
}

// hostRewrite checks a fixed authority; "" is none.
func (d *decoder) hostRewrite(at path, host string) string {
	if !httpguts.ValidHostHeader(host) {
		d.refusef(at, "%q is not a valid host", host)
	}
	return host
}
