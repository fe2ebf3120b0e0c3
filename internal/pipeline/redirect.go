package pipeline

import (
	"net"
	"net/url"
	"strconv"
	"strings"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/route"
)

// redirect computes where a redirect points to (Envoy RedirectAction). Paths are
// escaped, in the request and in the configuration, and are not touched.
func redirect(r *discovery.Route, req *route.Request) *Answer {
	to := r.Redirect
	path, query := req.Path, req.Query
	switch {
	case to.Path != "":
		path = to.Path
	case to.PrefixRewrite != "":
		path = to.PrefixRewrite + req.Path[min(len(r.Match.Path.Value), len(req.Path)):]
	}
	if to.StripQuery {
		query = ""
	}
	// A query in the path takes the place of the request's, and is not stripped.
	if strings.Contains(to.Path, "?") {
		query = ""
	}
	if query != "" {
		path += "?" + query
	}
	scheme := req.Scheme
	if to.Scheme != "" {
		scheme = to.Scheme
	}
	return &Answer{
		Status: to.Status, Location: scheme + "://" + redirectHost(to, req, scheme) + path, Reason: "redirect",
	}
}

// redirectHost keeps the request's host and port where the redirect does not say
// otherwise, but not the default port of a scheme that changes.
func redirectHost(to *discovery.Redirect, req *route.Request, scheme string) string {
	host := req.Host
	if to.Host != "" {
		host = to.Host
	}
	u := url.URL{Host: host}
	switch port := u.Port(); {
	case to.Port != 0:
		return net.JoinHostPort(u.Hostname(), strconv.FormatUint(uint64(to.Port), 10))
	case to.Host == "" && scheme != req.Scheme && port != "" && port == defaultPort(req.Scheme):
		return strings.TrimSuffix(host, ":"+port)
	}
	return host
}

func defaultPort(scheme string) string {
	if scheme == "https" {
		return "443"
	}
	return "80"
}
