// Package route compiles a route table and matches requests against it, with
// Envoy's rules of precedence, the same for HTTP and gRPC.
package route

import (
	"math/rand/v2"

	"github.com/inboardmesh/inboard/discovery"
)

// Table is a compiled route table. It is immutable and safe for concurrent
// use.
type Table struct {
	source  *discovery.RouteTable
	domains domains
	// random draws from [0, n), every number with the same probability.
	random func(n uint64) uint64
}

type virtualHost struct {
	source *discovery.VirtualHost
	routes []compiledRoute
	paths  pathIndex
}

type compiledRoute struct {
	source *discovery.Route
	// totalWeight is the sum of the clusters' weights.
	totalWeight uint64
	// onlyPath is whether the path is the only condition.
	onlyPath bool
}

// Decision is what a table says about a request.
type Decision struct {
	Table       *discovery.RouteTable
	VirtualHost *discovery.VirtualHost
	Route       *discovery.Route
	// Cluster is the chosen cluster of a forwarding route, nil otherwise.
	Cluster *discovery.WeightedCluster
}

// Compile prepares a table for matching.
func Compile(source *discovery.RouteTable) *Table {
	t := &Table{source: source, random: rand.Uint64N}
	t.domains.ignorePort = source.IgnorePortInHostMatching
	for _, vh := range source.VirtualHosts {
		compiled := &virtualHost{source: vh, routes: make([]compiledRoute, 0, len(vh.Routes))}
		for _, r := range vh.Routes {
			cr := compiledRoute{source: r, onlyPath: onlyPath(&r.Match)}
			if r.Forward != nil {
				for i := range r.Forward.Clusters {
					cr.totalWeight += uint64(r.Forward.Clusters[i].Weight)
				}
			}
			compiled.routes = append(compiled.routes, cr)
		}
		compiled.paths = newPathIndex(compiled.routes)
		for _, domain := range vh.Domains {
			t.domains.add(domain, compiled)
		}
	}
	t.domains.sort()
	return t
}

// Match returns the first route of the request's virtual host that matches,
// and the cluster that was drawn for it. ok is false if there is none.
func (t *Table) Match(req *Request) (d Decision, ok bool) {
	vh := t.domains.find(req.Host)
	if vh == nil {
		return Decision{}, false
	}
	i := t.first(vh, req)
	if i < 0 {
		return Decision{}, false
	}
	r := &vh.routes[i]
	return Decision{Table: t.source, VirtualHost: vh.source, Route: r.source, Cluster: t.choose(r, req)}, true
}
