package xds

import (
	"fmt"
	"reflect"
	"slices"

	"github.com/inboardmesh/inboard/discovery"
)

// heldRoute is a route of a plan that forwards as the one before it did, because a
// cluster that it names cannot be used.
type heldRoute struct {
	route  *discovery.Route
	before *discovery.Forward
	// why names the route and the cluster.
	why error
}

// holdLocked works out which routes of a plan forward as in a table that was in force
// until now. A cluster that the newer table names and that does not exist, or is
// refused, is no reason for calls to fail that were answered (gRFC A74 has them fail);
// and neither must the rest of the table wait for it: what it takes away, refuses,
// limits or sends elsewhere is in force. So it is a route that is held, the one with
// the same conditions in the virtual host of the same name, and of it only how it
// forwards: its filters are those of the newer one.
func (t *target) holdLocked(p *plan, before *discovery.RouteTable) {
	var held []heldRoute
	if before != nil && !t.usableLocked(p.clusters) {
		hosts := make(map[string]*discovery.VirtualHost, len(before.VirtualHosts))
		for _, old := range slices.Backward(before.VirtualHosts) { // the first of a name is the last to be noted
			hosts[old.Name] = old
		}
		for _, host := range p.table.VirtualHosts {
			if old := hosts[host.Name]; old != nil {
				held = t.holdRoutesLocked(held, host, old)
			}
		}
	}
	if p.enforced != nil && slices.EqualFunc(p.held, held, func(a, b heldRoute) bool { return a.route == b.route && a.before == b.before }) {
		p.held = held // the reason may be another one
		return
	}
	p.held = held
	p.enforced = p.table
	if len(held) > 0 {
		p.enforced = withHeld(p.table, held)
	}
	p.used = clustersOf(p.enforced)
}

// holdRoutesLocked adds those of one virtual host.
func (t *target) holdRoutesLocked(held []heldRoute, host, before *discovery.VirtualHost) []heldRoute {
	var byPath map[string][]*discovery.Route // of thousands not each must be compared with all
	for _, route := range host.Routes {
		if route.Forward == nil {
			continue
		}
		names := clustersOfRoute(route)
		if t.usableLocked(names) || slices.ContainsFunc(names, func(name string) bool { return t.publisher.strict.of(name) && !t.clusters[name].works() }) {
			continue
		}
		if byPath == nil {
			byPath = make(map[string][]*discovery.Route, len(before.Routes))
			for _, old := range before.Routes {
				byPath[old.Match.Path.Value] = append(byPath[old.Match.Path.Value], old)
			}
		}
		olds := byPath[route.Match.Path.Value]
		i := slices.IndexFunc(olds, func(old *discovery.Route) bool { return sameMatch(&old.Match, &route.Match) })
		if i < 0 || olds[i].Forward == nil || !t.usableLocked(clustersOfRoute(olds[i])) {
			continue // there is nothing better
		}
		broken := slices.IndexFunc(names, func(name string) bool { return !t.clusters[name].works() })
		held = append(held, heldRoute{
			route: route, before: olds[i].Forward,
			why: fmt.Errorf("route %q of virtual host %q forwards as before: cluster %q cannot be used: %w",
				route.Name, host.Name, names[broken], referenced(t.clusters[names[broken]].result.Err)),
		})
	}
	return held
}

// usableLocked reports whether calls can be sent to all of the clusters.
func (t *target) usableLocked(names []string) bool {
	return !slices.ContainsFunc(names, func(name string) bool { return t.clusters[name] == nil || !t.clusters[name].works() })
}

// clustersOfRoute are the clusters that calls by a route can go to; not those of
// copies, which fail nobody.
func clustersOfRoute(route *discovery.Route) []string {
	var names []string
	for i := range route.Forward.Clusters {
		if c := &route.Forward.Clusters[i]; c.Weight > 0 && c.Header == "" {
			names = append(names, c.Name)
		}
	}
	return names
}

// sameMatch reports whether two routes have the same conditions. Of most the path tells
// at once.
func sameMatch(a, b *discovery.RouteMatch) bool {
	return a.Path.Kind == b.Path.Kind && a.Path.Value == b.Path.Value && reflect.DeepEqual(a, b)
}

// withHeld returns a table in which the held routes forward as before.
func withHeld(table *discovery.RouteTable, held []heldRoute) *discovery.RouteTable {
	forwards := make(map[*discovery.Route]*discovery.Forward, len(held))
	for _, h := range held {
		forwards[h.route] = h.before
	}
	enforced := *table
	enforced.VirtualHosts = slices.Clone(table.VirtualHosts)
	for i, host := range enforced.VirtualHosts {
		if !slices.ContainsFunc(host.Routes, func(r *discovery.Route) bool { return forwards[r] != nil }) {
			continue
		}
		changed := *host
		changed.Routes = slices.Clone(host.Routes)
		for j, route := range changed.Routes {
			if before := forwards[route]; before != nil {
				as := *route
				as.Forward = before
				changed.Routes[j] = &as
			}
		}
		enforced.VirtualHosts[i] = &changed
	}
	return &enforced
}
