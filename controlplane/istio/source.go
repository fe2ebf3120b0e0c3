package istio

import (
	"maps"
	"slices"
	"strings"
	"sync"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
)

// source is a condition on the node that asks for routes, and not on a request:
// it is decided here, by the routes that a node gets.
type source struct {
	labels    map[string]string
	namespace string
}

func (s source) none() bool { return s.namespace == "" && len(s.labels) == 0 }

func (s source) accepts(n Node) bool {
	return (s.namespace == "" || s.namespace == n.Namespace) && subsetOf(s.labels, n.Labels)
}

func (s source) equal(o source) bool {
	return s.namespace == o.namespace && maps.Equal(s.labels, o.labels)
}

// sourcedRoute is a route for the nodes that its source accepts.
type sourcedRoute struct {
	route *routev3.Route
	from  source
	// at is where its match is written, and target where it goes to. They have no
	// object for the route of a service to itself.
	at, target at
}

// routeTable is the RouteConfiguration of a port as the nodes of a namespace
// see it. Nodes get different ones only if a source tells them apart.
type routeTable struct {
	name, host string
	domains    []string
	// aliases are the names of further listeners that have these routes.
	aliases []string
	// choices are the routes of all that could have a say, in their order. The
	// first that has a route for a node has the say, and the last has one for
	// every node.
	choices [][]sourcedRoute

	// sources are the different conditions in choices.
	sources []source
	// common is for every node, if there are no sources.
	common *routev3.RouteConfiguration

	mu    sync.Mutex
	known map[string]*routev3.RouteConfiguration // guarded by mu; by the sources that accept a node
}

// maxClasses bounds how many answers of one table are kept: what labels a node
// has is its own choice. Others are made each time, and are equal.
const maxClasses = 256

func newRouteTable(name, host string, domains []string, choices [][]sourcedRoute) *routeTable {
	t := &routeTable{name: name, host: host, domains: domains, choices: choices}
	for _, routes := range choices {
		for _, r := range routes {
			if !r.from.none() && !slices.ContainsFunc(t.sources, r.from.equal) {
				t.sources = append(t.sources, r.from)
			}
		}
	}
	if len(t.sources) == 0 {
		t.common = t.build(Node{})
		return t
	}
	t.known = make(map[string]*routev3.RouteConfiguration)
	return t
}

// forNode returns the table of a node: the same message for the same question,
// for as long as there are not too many different ones.
func (t *routeTable) forNode(n Node) *routev3.RouteConfiguration {
	if t.common != nil {
		return t.common
	}
	key := make([]byte, len(t.sources))
	for i, s := range t.sources {
		key[i] = '0'
		if s.accepts(n) {
			key[i] = '1'
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if table, ok := t.known[string(key)]; ok {
		return table
	}
	table := t.build(n)
	if len(t.known) < maxClasses {
		t.known[string(key)] = table
	}
	return table
}

func (t *routeTable) build(n Node) *routev3.RouteConfiguration {
	var routes []*routev3.Route
	for _, choice := range t.choices {
		if routes = routesFor(choice, n); len(routes) > 0 {
			break
		}
	}
	return t.with(routes)
}

// whole is the table with every route that any node can get, to be checked.
func (t *routeTable) whole() *routev3.RouteConfiguration {
	if t.common != nil {
		return t.common
	}
	var routes []*routev3.Route
	for _, choice := range t.choices {
		for _, r := range choice {
			routes = append(routes, r.route)
		}
	}
	return t.with(routes)
}

func (t *routeTable) with(routes []*routev3.Route) *routev3.RouteConfiguration {
	return &routev3.RouteConfiguration{
		Name:         t.name,
		VirtualHosts: []*routev3.VirtualHost{{Name: t.host, Domains: t.domains, Routes: routes}},
	}
}

// routesFor are the routes of a node, up to the first that matches every
// request.
func routesFor(all []sourcedRoute, n Node) []*routev3.Route {
	var routes []*routev3.Route
	for _, r := range all {
		if !r.from.accepts(n) {
			continue
		}
		routes = append(routes, r.route)
		if matchesAll(r.route.Match) {
			break
		}
	}
	return routes
}

// domains are the names under which the nodes of a namespace know a host: a
// service of Kubernetes also by those that its resolver completes.
func domains(host, namespace string, port uint32) []string {
	hosts := []string{host}
	if !isAddress(host) {
		hosts = append(hosts, host+".")
	}
	if name, home, ok := serviceName(host); ok {
		qualified := name + "." + home
		if home == namespace {
			hosts = append(hosts, name, qualified+".svc", qualified)
		} else {
			hosts = append(hosts, qualified, qualified+".svc")
		}
	}
	list := make([]string, 0, 2*len(hosts))
	for _, h := range hosts {
		list = append(list, h, hostPort(h, port))
	}
	return list
}

// isNear reports whether the nodes of a namespace know a host by its first
// label alone.
func isNear(host, namespace string) bool {
	_, home, ok := serviceName(host)
	return ok && home == namespace
}

// covers reports whether a wildcard, "*" or "*.suffix", is for a host.
func covers(wildcard, host string) bool {
	suffix, ok := strings.CutPrefix(wildcard, "*")
	return ok && strings.HasSuffix(host, suffix)
}
