package httpmesh

import (
	"net/http"
	"net/url"
	"strings"
)

// plain returns a request that says the same as req and says it where routing looks:
// with the names of its headers as they are sent, and its path in the path of its URL.
// An application may write both in other ways, and be it by mistake; a route, a policy
// or the deadline of the call must not miss them for that. It is req itself if there is
// nothing to change. What [check] refuses does not come here.
func plain(req *http.Request) *http.Request {
	odd := hasOddNames(req.Header)
	if req.URL.Opaque == "" && !odd {
		return req
	}
	same := req.WithContext(req.Context()) // a copy that shares everything
	if odd {
		same.Header = copyHeader(req.Header)
	}
	if req.URL.Opaque != "" {
		same.URL = withPath(req.URL)
	}
	return same
}

func hasOddNames(h http.Header) bool {
	for name := range h {
		if http.CanonicalHeaderKey(name) != name {
			return true
		}
	}
	return false
}

// isPlainOpaque reports whether an opaque URL is the path of a request, with or without
// a query: what net/http sends as it is. Other ones name another host or none.
func isPlainOpaque(opaque string) bool {
	return opaque == "*" || strings.HasPrefix(opaque, "/") && !strings.HasPrefix(opaque, "//")
}

// withPath is an opaque URL as one with a path, which is sent in the same way.
func withPath(from *url.URL) *url.URL {
	path, query, hasQuery := strings.Cut(from.Opaque, "?")
	to := rewritten(from, path)
	to.Opaque = ""
	switch {
	case !hasQuery:
	case from.RawQuery != "": // net/http appends it, question mark and all
		to.RawQuery = query + "?" + from.RawQuery
	default:
		to.RawQuery, to.ForceQuery = query, query == ""
	}
	return to
}

// plainHost is a host as the configuration writes it: without the dot of the root, and
// without zeros before its port. [appendTargetName] finds the configuration in the same
// way, and its virtual hosts must not miss what it found.
func plainHost(host string) string {
	if !strings.HasSuffix(host, ".") && !strings.Contains(host, ".:") && !strings.Contains(host, ":0") {
		return host
	}
	name, port := host, ""
	if colon := strings.LastIndexByte(host, ':'); colon > strings.LastIndexByte(host, ']') {
		name, port = host[:colon], strings.TrimLeft(host[colon+1:], "0")
	}
	name = strings.TrimSuffix(name, ".")
	if port == "" {
		return name
	}
	return name + ":" + port
}
