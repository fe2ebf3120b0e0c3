package istio

import (
	"regexp"
	"strings"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/inboardmesh/inboard/controlplane/istio/internal/gatewayapi"
)

// gatewayDurationFormat is GEP-2257: a part of what Go reads.
var gatewayDurationFormat = regexp.MustCompile(`^([0-9]{1,5}(h|m|s|ms)){1,4}$`)

// gatewayDuration reads a duration, 0 without one.
func gatewayDuration(in *string, a at) time.Duration {
	if in == nil {
		return 0
	}
	d, err := time.ParseDuration(*in)
	if err != nil || !gatewayDurationFormat.MatchString(*in) {
		a.errorf("%q is not a duration: write it like 1s500ms, 250ms or 1h30m", *in)
		return 0
	}
	return d
}

// path is how the filters change the path, nil for not at all.
func (f *filterSet) path() (*gatewayapi.HTTPPathModifier, at) {
	switch {
	case f.url != nil:
		return f.url.Path, f.urlAt.field("path")
	case f.redirect != nil:
		return f.redirect.Path, f.redirectAt.field("path")
	}
	return nil, at{}
}

// newPrefix is what replaces the matched prefix, without a slash at its end:
// how many slashes follow is not to depend on how the two are written.
func (f *filterSet) newPrefix() (string, bool) {
	path, _ := f.path()
	if path == nil || path.ReplacePrefixMatch == nil {
		return "", false
	}
	return strings.TrimSuffix(*path.ReplacePrefixMatch, "/"), true
}

// checkReplacement checks how a rule changes the path.
func checkReplacement(rule *gatewayRule, filters *filterSet) {
	path, a := filters.path()
	if path == nil {
		return
	}
	full, prefix := a.field("replaceFullPath"), a.field("replacePrefixMatch")
	switch path.Type {
	case "ReplaceFullPath":
		if path.ReplaceFullPath == nil {
			full.errorf("is required by type %s", path.Type)
		} else {
			checkNewPath(*path.ReplaceFullPath, full)
		}
		if path.ReplacePrefixMatch != nil {
			prefix.refuse("has no effect with type %s: remove it", path.Type)
		}
	case "ReplacePrefixMatch":
		if path.ReplacePrefixMatch == nil {
			prefix.errorf("is required by type %s", path.Type)
		} else if *path.ReplacePrefixMatch != "" {
			checkNewPath(*path.ReplacePrefixMatch, prefix)
		}
		if path.ReplaceFullPath != nil {
			full.refuse("has no effect with type %s: remove it", path.Type)
		}
		if len(rule.matches) != 1 || !isPrefix(rule.matches[0].match) {
			prefix.refuse("needs exactly one match, by a path of type PathPrefix")
		}
	default:
		a.field("type").errorf("%q is not one of ReplaceFullPath, ReplacePrefixMatch", path.Type)
	}
}

func checkNewPath(path string, a at) {
	switch {
	case !strings.HasPrefix(path, "/"):
		a.errorf("%q does not begin with a slash", path)
	case strings.ContainsAny(path, "?#") || strings.ContainsFunc(path, func(c rune) bool { return c <= ' ' || c == 0x7f }):
		a.errorf("%q is not a path: it must be without a query, a fragment, spaces and control characters", path)
	default:
		checkEscapes(path, a)
	}
}

func isPrefix(m *routev3.RouteMatch) bool {
	return m.GetPrefix() != "" || m.GetPathSeparatedPrefix() != ""
}

// splitPrefix makes two matches of a prefix that is replaced by nothing: the
// prefix alone becomes "/", and so does the prefix with the slash that follows.
func splitPrefix(m *routev3.RouteMatch, filters *filterSet) []*routev3.RouteMatch {
	prefix := m.GetPathSeparatedPrefix()
	if replaced, ok := filters.newPrefix(); !ok || replaced != "" || prefix == "" {
		return []*routev3.RouteMatch{m}
	}
	with := func(out *routev3.RouteMatch) *routev3.RouteMatch {
		out.CaseSensitive, out.Headers, out.QueryParameters = m.CaseSensitive, m.Headers, m.QueryParameters
		return out
	}
	return []*routev3.RouteMatch{
		with(&routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Path{Path: prefix}}),
		with(&routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: prefix + "/"}}),
	}
}

// prefixFor is what replaces the part of a path that a match has matched. What
// ends in a slash in the match does here.
func (f *filterSet) prefixFor(m *routev3.RouteMatch) string {
	replaced, ok := f.newPrefix()
	if !ok {
		return ""
	}
	if replaced == "" || strings.HasSuffix(m.GetPrefix(), "/") {
		return replaced + "/"
	}
	return replaced
}

// rewrite sets how the authority and the path are rewritten.
func (f *filterSet) rewrite(m *routev3.RouteMatch, action *routev3.RouteAction) {
	if f.url == nil {
		return
	}
	if host := gatewayHost(f.url.Hostname, f.urlAt.field("hostname")); host != "" {
		action.HostRewriteSpecifier = &routev3.RouteAction_HostRewriteLiteral{HostRewriteLiteral: host}
	}
	if f.url.Path == nil {
		if f.url.Hostname == nil {
			f.urlAt.errorf("needs hostname or path")
		}
		return
	}
	if full := f.url.Path.ReplaceFullPath; full != nil {
		if m.GetPath() != "" {
			action.PrefixRewrite = *full
			return
		}
		action.RegexRewrite = &matcherv3.RegexMatchAndSubstitute{
			Pattern:      &matcherv3.RegexMatcher{Regex: "^/.*"},
			Substitution: strings.ReplaceAll(*full, `\`, `\\`),
		}
		return
	}
	action.PrefixRewrite = f.prefixFor(m)
}

// gatewayRedirect translates a redirect of the requests to a port.
func gatewayRedirect(f *filterSet, m *routev3.RouteMatch, port uint32) *routev3.RedirectAction {
	in, a := f.redirect, f.redirectAt
	out := &routev3.RedirectAction{HostRedirect: gatewayHost(in.Hostname, a.field("hostname"))}
	status := or(in.StatusCode, 302)
	code, ok := redirectCodes[uint32(status)]
	if !ok || status == 0 {
		a.field("statusCode").errorf("%d is not supported: use 301, 302, 303, 307 or 308", status)
	}
	out.ResponseCode = code
	switch scheme := text(in.Scheme); {
	case in.Scheme == nil:
	case scheme == "http" || scheme == "https":
		out.SchemeRewriteSpecifier = &routev3.RedirectAction_SchemeRedirect{SchemeRedirect: scheme}
	default:
		a.field("scheme").errorf("%q is neither http nor https", scheme)
	}
	if in.Port != nil && !isPort(uint32(*in.Port)) {
		a.field("port").errorf("%d is not a port: use 1..65535", *in.Port)
	}
	out.PortRedirect = gatewayRedirectPort(in, port)
	switch path := in.Path; {
	case path == nil:
	case path.ReplaceFullPath != nil:
		out.PathRewriteSpecifier = &routev3.RedirectAction_PathRedirect{PathRedirect: *path.ReplaceFullPath}
	case path.ReplacePrefixMatch != nil:
		out.PathRewriteSpecifier = &routev3.RedirectAction_PrefixRewrite{PrefixRewrite: f.prefixFor(m)}
	}
	return out
}

// gatewayRedirectPort is the port of a redirect: the given one, else that of the
// scheme, else the one that was called. 0 is to write none, which leaves the
// request's own if the host stays, but for the usual one of a scheme that changes: then
// a port that goes without saying is written only if another one was called.
func gatewayRedirectPort(in *gatewayapi.HTTPRequestRedirectFilter, called uint32) uint32 {
	usual := uint32(80)
	if text(in.Scheme) == "https" {
		usual = 443
	}
	port := called
	switch {
	case in.Port != nil:
		port = uint32(*in.Port)
	case in.Scheme != nil:
		port = usual
	case in.Hostname == nil:
		return 0
	}
	if port == usual && (in.Hostname != nil || called == usual || called == 80 && in.Scheme != nil) {
		return 0
	}
	return port
}
