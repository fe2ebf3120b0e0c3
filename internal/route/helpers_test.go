package route

import (
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/inboardmesh/inboard/discovery"
)

// headers is a HeaderMap by lower-case names.
type headers map[string][]string

func (h headers) Values(name string) []string { return h[name] }
func (h headers) Set(name, value string)      { h[name] = []string{value} }
func (h headers) Add(name, value string)      { h[name] = append(h[name], value) }
func (h headers) Del(name string)             { delete(h, name) }

// lines returns the headers sorted, one "name: value" a line.
func (h headers) lines() string {
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(h)) {
		for _, value := range h[name] {
			lines = append(lines, name+": "+value)
		}
	}
	return strings.Join(lines, "\n")
}

func get(host, path string) *Request {
	return &Request{Method: http.MethodGet, Scheme: "http", Host: host, Path: path}
}

// to returns a route with this name to a cluster of the same name.
func to(name string, match discovery.RouteMatch) *discovery.Route {
	return &discovery.Route{Name: name, Match: match, Forward: &discovery.Forward{
		Clusters: []discovery.WeightedCluster{{Name: name, Weight: 1}},
	}}
}

func host(name string, routes []*discovery.Route, domains ...string) *discovery.VirtualHost {
	return &discovery.VirtualHost{Name: name, Domains: domains, Routes: routes}
}

// matching compiles a table of one virtual host for everything.
func matching(routes ...*discovery.Route) *Table {
	return Compile(&discovery.RouteTable{VirtualHosts: []*discovery.VirtualHost{host("all", routes, "*")}})
}

// chosen is the name of the route that a request takes, "" without one.
func chosen(t *Table, req *Request) string {
	d, ok := t.Match(req)
	if !ok {
		return ""
	}
	return d.Route.Name
}

func regex(tb testing.TB, source string) *discovery.Regex {
	tb.Helper()
	program, err := regexp.Compile(`\A(?:` + source + `)\z`)
	if err != nil {
		tb.Fatal(err)
	}
	return &discovery.Regex{Source: source, Program: program}
}
