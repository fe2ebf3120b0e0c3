// Package route compiles a route table and matches requests against it, with
// Envoy's rules of precedence, the same for HTTP and gRPC.
package route

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/inboardmesh/inboard/discovery"
)

// Table is a compiled route table. It is immutable and safe for concurrent
// use.
type Table struct {
	source     *discovery.RouteTable
	ignorePort bool
	exact      map[string]*virtualHost
	// suffixes are the domains "*.x", prefixes the domains "x.*", both the
	// longest first.
	suffixes, prefixes []wildcard
	any                *virtualHost
	// random draws from [0, n).
	random func(n uint64) uint64
}

type wildcard struct {
	// text is the domain without its star, in lower case.
	text string
	host *virtualHost
}

type virtualHost struct {
	source *discovery.VirtualHost
	routes []compiledRoute
}

type compiledRoute struct {
	source *discovery.Route
	// totalWeight is the sum of the clusters' weights.
	totalWeight uint64
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
	t := &Table{
		source: source, ignorePort: source.IgnorePortInHostMatching,
		exact: make(map[string]*virtualHost), random: rand.Uint64N,
	}
	for _, vh := range source.VirtualHosts {
		compiled := &virtualHost{source: vh, routes: make([]compiledRoute, 0, len(vh.Routes))}
		for _, r := range vh.Routes {
			cr := compiledRoute{source: r}
			if r.Forward != nil {
				for i := range r.Forward.Clusters {
					cr.totalWeight += uint64(r.Forward.Clusters[i].Weight)
				}
			}
			compiled.routes = append(compiled.routes, cr)
		}
		for _, domain := range vh.Domains {
			domain = strings.ToLower(domain)
			switch {
			case domain == "*":
				t.any = compiled
			case strings.HasPrefix(domain, "*"):
				t.suffixes = append(t.suffixes, wildcard{domain[1:], compiled})
			case strings.HasSuffix(domain, "*"):
				t.prefixes = append(t.prefixes, wildcard{domain[:len(domain)-1], compiled})
			default:
				t.exact[domain] = compiled
			}
		}
	}
	longestFirst := func(a, b wildcard) int { return cmp.Compare(len(b.text), len(a.text)) }
	slices.SortStableFunc(t.suffixes, longestFirst)
	slices.SortStableFunc(t.prefixes, longestFirst)
	return t
}

// Match returns the first route of the request's virtual host that matches,
// and the cluster that was drawn for it. ok is false if there is none.
func (t *Table) Match(req *Request) (d Decision, ok bool) {
	vh := t.virtualHost(req.Host)
	if vh == nil {
		return Decision{}, false
	}
	for i := range vh.routes {
		r := &vh.routes[i]
		if matchRoute(&r.source.Match, req) {
			return Decision{Table: t.source, VirtualHost: vh.source, Route: r.source, Cluster: t.draw(r)}, true
		}
	}
	return Decision{}, false
}

// draw picks one of the route's clusters by weight.
func (t *Table) draw(r *compiledRoute) *discovery.WeightedCluster {
	forward := r.source.Forward
	if forward == nil {
		return nil
	}
	if len(forward.Clusters) == 1 {
		return &forward.Clusters[0]
	}
	n := t.random(r.totalWeight)
	for i := range forward.Clusters {
		weight := uint64(forward.Clusters[i].Weight)
		if n < weight {
			return &forward.Clusters[i]
		}
		n -= weight
	}
	return &forward.Clusters[len(forward.Clusters)-1]
}

// virtualHost finds the virtual host of an authority: exact, then the longest
// suffix wildcard, then the longest prefix wildcard, then "*", without regard
// to case (Envoy route_components.proto, gRFC A27).
func (t *Table) virtualHost(authority string) *virtualHost {
	authority = lower(authority)
	if t.ignorePort {
		authority = stripPort(authority)
	}
	if vh := t.exact[authority]; vh != nil {
		return vh
	}
	for _, w := range t.suffixes {
		// A wildcard stands for at least one character.
		if len(authority) > len(w.text) && strings.HasSuffix(authority, w.text) {
			return w.host
		}
	}
	for _, w := range t.prefixes {
		if len(authority) > len(w.text) && strings.HasPrefix(authority, w.text) {
			return w.host
		}
	}
	return t.any
}

// lower is strings.ToLower without its cost for what is lower case already.
func lower(s string) string {
	for i := range len(s) {
		if c := s[i]; 'A' <= c && c <= 'Z' || c >= 0x80 {
			return strings.ToLower(s)
		}
	}
	return s
}

func stripPort(authority string) string {
	colon := strings.LastIndexByte(authority, ':')
	if colon < 0 || strings.IndexByte(authority[colon:], ']') >= 0 {
		return authority
	}
	for _, c := range []byte(authority[colon+1:]) {
		if c < '0' || c > '9' {
			return authority
		}
	}
	return authority[:colon]
}
