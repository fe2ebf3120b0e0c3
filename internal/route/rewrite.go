package route

import (
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/inboardmesh/inboard/discovery"
)

// The headers that tell an upstream what was rewritten (Envoy router docs).
const (
	originalPath  = "x-envoy-original-path"
	originalHost  = "x-envoy-original-host"
	forwardedHost = "x-forwarded-host"
)

// Outgoing is a forwarded request after the rewrites of its route.
type Outgoing struct {
	// Host is the authority, "" if it stays.
	Host string
	// Path is the escaped path, "" if it stays.
	Path string
	// Query is the query, with which the request's ends, if the rewrite brings one;
	// "" if the request's stays.
	Query string
	// EndpointHost asks for the host name of the endpoint that is called, if it
	// has one, in the place of Host.
	EndpointHost bool
}

// Target is the path, with the query that the rewrite brings.
func (o *Outgoing) Target() string {
	if o.Query == "" {
		return o.Path
	}
	return o.Path + "?" + o.Query
}

// Forward prepares a forwarded request, once for all its attempts: first the
// header operations of all levels, then the host, then the path (Envoy's order).
// h holds the headers to change, which req sees. The upstream is told what
// was rewritten, unless hide is set.
func (d *Decision) Forward(h HeaderMap, req *Request, f *Facts, hide bool) Outgoing {
	d.MutateRequest(h, req, f)
	forward := d.Route.Forward
	if forward == nil {
		return Outgoing{}
	}
	out := Outgoing{Host: d.rewriteHost(req), EndpointHost: d.fromEndpoint()}
	if out.Host == req.Host {
		out.Host = ""
	}
	if out.Host != "" || out.EndpointHost {
		d.tellHost(h, req.Host, hide)
	}
	if path, query := d.rewritePath(req, f); path != req.Path || query != "" {
		out.Path, out.Query = path, query
		if !hide {
			h.Set(originalPath, req.PathAndQuery())
		}
	}
	return out
}

func (d *Decision) fromEndpoint() bool {
	from := d.Route.Forward.HostFrom
	return from != nil && from.Endpoint && (d.Cluster == nil || d.Cluster.HostRewrite == "")
}

// tellHost keeps the authority that the request had in headers.
func (d *Decision) tellHost(h HeaderMap, host string, hide bool) {
	if !hide {
		h.Set(originalHost, host)
	}
	if !d.Route.Forward.AppendForwardedHost || host == "" {
		return
	}
	values := h.Values(forwardedHost)
	if n := len(values); n > 0 && lastOf(values[n-1]) == host {
		return
	}
	h.Add(forwardedHost, host)
}

// lastOf is the last element of a list in a header value.
func lastOf(list string) string {
	return strings.TrimSpace(list[strings.LastIndexByte(list, ',')+1:])
}

// rewriteHost returns the authority to send, "" to keep the request's: the
// cluster's before the route's.
func (d *Decision) rewriteHost(req *Request) string {
	forward := d.Route.Forward
	host := forward.HostRewrite
	switch from := forward.HostFrom; {
	case d.Cluster != nil && d.Cluster.HostRewrite != "":
		host = d.Cluster.HostRewrite
	case from == nil:
	case from.Header != "":
		host = req.firstValue(from.Header)
	case from.Path != nil:
		host = from.Path.Replace(req.Path)
	}
	if host == "" || !httpguts.ValidHostHeader(host) || strings.ContainsAny(host, "/?#@\\") {
		return "" // it is of the request's making
	}
	return host
}

// rewritePath returns the path to send, and the query if it is not the request's.
func (d *Decision) rewritePath(req *Request, f *Facts) (path, query string) {
	forward, path := d.Route.Forward, req.Path
	switch {
	case forward.PrefixRewrite != "":
		path, query, ok := strings.Cut(replaceMatched(&d.Route.Match.Path, path, forward.PrefixRewrite), "?")
		if ok && req.Query != "" {
			query += "?" + req.Query // it is one text to Envoy, which looks for no query in it
		}
		return absolute(path), escaped(query)
	case forward.PathSubstitution != nil:
		return absolute(forward.PathSubstitution.Replace(path)), ""
	case forward.PathFormat != nil:
		if computed := d.expand(forward.PathFormat, req, f, nil); computed != "" {
			return absolute(computed), ""
		}
	}
	return path, ""
}

// replaceMatched replaces the prefix that was matched, or all of a path that was
// matched otherwise, and nothing else.
func replaceMatched(m *discovery.PathMatch, path, by string) string {
	switch m.Kind {
	case discovery.PathPrefix, discovery.PathSeparatedPrefix:
		return by + path[min(len(m.Value), len(path)):]
	case discovery.PathExact, discovery.PathRegex, discovery.PathTemplate:
	}
	return by
}

// absolute makes what a rewrite gave the path of a request: it begins with a
// slash, and what would end it or is not of a path is escaped. A path with anything
// else in it would be read as one that is not escaped at all: what the client has
// escaped, a slash perhaps, would become part of the path.
func absolute(path string) string {
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	return escape(path, isUnpathable)
}

// escaped is a text in which what cannot be sent in a query is escaped.
func escaped(text string) string {
	return escape(text, func(text string, i int) bool { return isUnsendable(text[i]) })
}

func escape(text string, escapes func(text string, i int) bool) string {
	clean := true
	for i := range len(text) {
		clean = clean && !escapes(text, i)
	}
	if clean {
		return text
	}
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(text) {
		if c := text[i]; escapes(text, i) {
			b.Write([]byte{'%', hex[c>>4], hex[c&15]})
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

func isUnsendable(c byte) bool { return c <= ' ' || c >= 0x7f || c == '#' }

// isUnpathable reports whether a byte is not of a path (RFC 3986, section 3.3), or a
// per cent sign that escapes nothing. Brackets are let through, as by net/url.
func isUnpathable(path string, i int) bool {
	switch c := path[i]; c {
	case '?', '"', '<', '>', '\\', '^', '`', '{', '|', '}':
		return true
	case '%':
		return len(path) < i+3 || !isHex(path[i+1]) || !isHex(path[i+2])
	default:
		return isUnsendable(c)
	}
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

// RedirectPath returns the path, with a query of its own if it has one, that a
// redirect of this decision leads to.
func (d *Decision) RedirectPath(req *Request, f *Facts) string {
	to, path := d.Route.Redirect, req.Path
	switch {
	case to.Path != "":
		return to.Path
	case to.PrefixRewrite != "":
		return replaceMatched(&d.Route.Match.Path, path, to.PrefixRewrite)
	case to.PathSubstitution != nil:
		return absolute(to.PathSubstitution.Replace(path))
	case to.PathFormat != nil:
		if computed := d.expand(to.PathFormat, req, f, nil); computed != "" {
			return absolute(computed)
		}
	}
	return path
}
