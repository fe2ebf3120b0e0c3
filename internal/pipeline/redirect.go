package pipeline

import (
	"net"
	"net/url"
	"strconv"
	"strings"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/filter"
	"github.com/inboardmesh/inboard/internal/route"
)

// Redirect is the answer of a decision that redirects (Envoy RedirectAction).
// Paths are escaped, in the request and in the configuration, and are not
// touched.
func Redirect(d *route.Decision, req *route.Request, f *route.Facts) *filter.Answer {
	to := d.Route.Redirect
	path, query := d.RedirectPath(req, f), req.Query
	if to.StripQuery {
		query = ""
	}
	// A query in the path takes the place of the request's, and is not stripped.
	if strings.Contains(path, "?") {
		query = ""
	}
	if query != "" {
		path += "?" + query
	}
	scheme := req.Scheme
	if to.Scheme != "" {
		scheme = to.Scheme
	}
	location := scheme + "://" + redirectHost(to, req, scheme) + path
	return &filter.Answer{
		Status: to.Status, Location: location, Reason: "redirect to " + location + " (HTTP status " + strconv.Itoa(to.Status) + ")",
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
