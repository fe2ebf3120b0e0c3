package istio

import (
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	networking "istio.io/api/networking/v1alpha3"
)

// maxDirectBody is Envoy's default limit on the body of a direct response.
const maxDirectBody = 4096

var redirectCodes = map[uint32]routev3.RedirectAction_RedirectResponseCode{
	0:                            routev3.RedirectAction_MOVED_PERMANENTLY,
	http.StatusMovedPermanently:  routev3.RedirectAction_MOVED_PERMANENTLY,
	http.StatusFound:             routev3.RedirectAction_FOUND,
	http.StatusSeeOther:          routev3.RedirectAction_SEE_OTHER,
	http.StatusTemporaryRedirect: routev3.RedirectAction_TEMPORARY_REDIRECT,
	http.StatusPermanentRedirect: routev3.RedirectAction_PERMANENT_REDIRECT,
}

// redirect translates a redirect of the requests to a port.
func redirect(in *networking.HTTPRedirect, matches []*networking.HTTPMatchRequest, port uint32, a at) *routev3.RedirectAction {
	out := &routev3.RedirectAction{HostRedirect: in.Authority}
	switch {
	case in.Uri != "" && in.PrefixRewrite != "":
		a.field("prefixRewrite").refuse("cannot be set together with %q", "uri")
	case in.PrefixRewrite != "":
		out.PathRewriteSpecifier = &routev3.RedirectAction_PrefixRewrite{PrefixRewrite: in.PrefixRewrite}
		for _, m := range matches {
			if _, ok := m.GetUri().GetMatchType().(*networking.StringMatch_Prefix); m.GetUri() != nil && !ok {
				a.field("prefixRewrite").refuse("needs matches by uri.prefix")
			}
		}
	case in.Uri != "":
		out.PathRewriteSpecifier = &routev3.RedirectAction_PathRedirect{PathRedirect: in.Uri}
	case in.Authority == "" && in.RedirectPort == nil && in.Scheme == "":
		a.errorf("needs uri, prefixRewrite, authority, scheme or port")
	}
	for name, path := range map[string]string{"uri": in.Uri, "prefixRewrite": in.PrefixRewrite} {
		switch {
		case strings.Contains(path, "%PREFIX()%"):
			a.field(name).errorf("%q: there are no commands in it: prefixRewrite keeps what follows the prefix of a match", path)
			continue
		case path != "" && path[0] != '/': // it would become a part of the host
			a.field(name).errorf("%q does not begin with a slash: write %q", path, "/"+path)
		}
		checkEscapes(path, a.field(name))
	}
	if host := in.Authority; host != "" && !isRedirectHost(host) {
		a.field("authority").errorf("%q is not a host: write a name or an address, with a port or without", host)
	}
	switch in.Scheme {
	case "":
	case "http", "https":
		out.SchemeRewriteSpecifier = &routev3.RedirectAction_SchemeRedirect{SchemeRedirect: in.Scheme}
	default:
		a.field("scheme").errorf("%q is neither http nor https", in.Scheme)
	}
	code, ok := redirectCodes[in.RedirectCode]
	if !ok {
		a.field("redirectCode").errorf("%d is not supported: use 301, 302, 303, 307 or 308", in.RedirectCode)
	}
	out.ResponseCode = code
	out.PortRedirect = redirectPort(in, port, a)
	return out
}

// checkRewrite refuses what replaces a path and no server could read.
func checkRewrite(path string, a at) {
	if strings.Contains(path, "#") {
		a.errorf("%q has a fragment, which is never sent: remove it, or write %%23", path)
	}
	checkEscapes(path, a)
}

func checkEscapes(path string, a at) {
	if _, err := url.PathUnescape(path); err != nil {
		a.errorf("%q: a percent sign begins an escape of two hexadecimal digits: write %%25 for the sign itself", path)
	}
}

// isRedirectHost reports whether a text is a name or an address, with a port or without.
func isRedirectHost(host string) bool {
	if _, err := netip.ParseAddrPort(host); err == nil {
		return true
	}
	if _, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")); err == nil {
		return !strings.Contains(host, ":") || host[0] == '['
	}
	name, port, hasPort := strings.Cut(host, ":")
	if n, err := strconv.ParseUint(port, 10, 16); hasPort && (err != nil || n == 0) {
		return false
	}
	return isDNSSubdomain(strings.ToLower(name))
}

// redirectPort is the port of a redirect, 0 if the scheme implies it.
func redirectPort(in *networking.HTTPRedirect, port uint32, a at) uint32 {
	switch p := in.RedirectPort.(type) {
	case *networking.HTTPRedirect_Port:
		if !isPort(p.Port) {
			a.field("port").errorf("%d is not a port: use 1..65535", p.Port)
		}
		port = p.Port
	case *networking.HTTPRedirect_DerivePort:
		if p.DerivePort != networking.HTTPRedirect_FROM_REQUEST_PORT {
			return 0
		}
	default:
		return 0
	}
	if port == 443 && in.Scheme == "https" || port == 80 && in.Scheme != "https" {
		return 0
	}
	return port
}

func directResponse(in *networking.HTTPDirectResponse, a at) *routev3.DirectResponseAction {
	out := &routev3.DirectResponseAction{Status: in.Status}
	if in.Status < 200 || in.Status > 599 {
		a.field("status").errorf("%d is not in 200..599", in.Status)
	}
	size := 0
	switch body := in.GetBody().GetSpecifier().(type) {
	case *networking.HTTPBody_String_:
		size = len(body.String_)
		out.Body = &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: body.String_}}
	case *networking.HTTPBody_Bytes:
		size = len(body.Bytes)
		out.Body = &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: body.Bytes}}
	}
	if size > maxDirectBody {
		a.field("body").errorf("has %d bytes: Envoy allows %d", size, maxDirectBody)
	}
	return out
}
