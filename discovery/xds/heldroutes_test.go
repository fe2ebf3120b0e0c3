package xds

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/inboardmesh/inboard/discovery"
)

// prefixRoute is a route by a prefix to a cluster.
func prefixRoute(prefix, cluster string) *discovery.Route {
	return &discovery.Route{
		Name:    "to " + prefix,
		Match:   discovery.RouteMatch{Path: discovery.PathMatch{Kind: discovery.PathPrefix, Value: prefix}},
		Forward: &discovery.Forward{Clusters: []discovery.WeightedCluster{{Name: cluster, Weight: 1}}},
	}
}

func tableOf(routes ...*discovery.Route) *discovery.RouteTable {
	return &discovery.RouteTable{Name: "r", VirtualHosts: []*discovery.VirtualHost{{Name: "host", Domains: []string{"*"}, Routes: routes}}}
}

// servingRoutes is a world in which /one and /two go to the clusters a and b.
func servingRoutes(t *testing.T) (*world, *recorder[*discovery.Target]) {
	t.Helper()
	w := newWorld()
	w.set(apiListener("r"))
	w.set(tableOf(prefixRoute("/one", "a"), prefixRoute("/two", "b")))
	w.set(staticCluster("a"))
	w.set(edsCluster("b"))
	w.set(assignment("b"))
	published, stop := w.watchTarget()
	t.Cleanup(func() {
		stop()
		w.pump()
		if len(w.watchers) != 0 {
			t.Errorf("still watched after stop: %v", w.watchers)
		}
	})
	w.pump()
	published.one(t)
	return w, published
}

// goesTo says where the routes of a table go.
func goesTo(table *discovery.RouteTable) []string {
	var all []string
	for _, r := range table.VirtualHosts[0].Routes {
		to := "elsewhere"
		if r.Forward != nil {
			to = strings.Join(clustersOfRoute(r), "+")
		}
		all = append(all, r.Match.Path.Value+" "+to)
	}
	return all
}

func TestX67_X70_ARouteWhoseNewClusterCannotBeUsedForwardsAsBefore(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(*world){
		"it does not exist":            func(w *world) { w.fail(cds("c"), notFound(cds("c")), true) },
		"it is refused":                func(w *world) { w.fail(cds("c"), invalid(cds("c")), true) },
		"its endpoints do not exist":   func(w *world) { w.set(edsCluster("c")); w.fail(eds("c"), notFound(eds("c")), true) },
		"its endpoints are refused":    func(w *world) { w.set(edsCluster("c")); w.fail(eds("c"), invalid(eds("c")), true) },
		"it is an aggregate of itself": func(w *world) { w.set(aggregate("c", "d")); w.set(aggregate("d", "c")) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, published := servingRoutes(t)
			next := tableOf(prefixRoute("/one", "d2"), prefixRoute("/two", "c"), prefixRoute("/three", "a"))
			w.set(staticCluster("d2"))
			damage(w)
			w.set(next)
			w.pump()
			u := published.one(t)
			// The others do not wait, and nothing is published that is not used.
			if got, want := goesTo(u.Value.Routes), []string{"/one d2", "/two b", "/three a"}; !slices.Equal(got, want) {
				t.Errorf("routes %q, want %q", got, want)
			}
			if got := clustersIn(u.Value); !slices.Equal(got, []string{"a", "b", "d2"}) {
				t.Errorf("clusters %q", got)
			}
			if text := fmt.Sprint(u.Err); !strings.Contains(text, `route "to /two" of virtual host "host" forwards as before: cluster "c" cannot be used: `) {
				t.Errorf("told of %q", text)
			}
			newer := assignment("b")
			w.set(newer)
			w.pump()
			if got := published.one(t).Value; got.Clusters["b"].Endpoints != newer || got.Routes != u.Value.Routes {
				t.Errorf("published %+v, want the newest endpoints and the same table", got)
			}
			w.set(staticCluster("c")) // mended
			w.pump()
			if u := published.one(t); u.Value.Routes != next || u.Err != nil {
				t.Errorf("published %+v, want what the control plane says", u)
			}
			if got := w.watched(cds("").url); !slices.Equal(got, []string{"a", "c", "d2"}) {
				t.Errorf("clusters %q are watched", got)
			}
		})
	}
}

// What a newer table takes away, answers itself or has its filters do is in force at
// once, whatever else is wrong with it.
func TestX70_WhatANewerTableRefusesIsRefusedAlthoughAClusterIsBroken(t *testing.T) {
	t.Parallel()
	w, published := servingRoutes(t)
	w.fail(cds("c"), notFound(cds("c")), true)
	denied := &discovery.Route{
		Match:  discovery.RouteMatch{Path: discovery.PathMatch{Kind: discovery.PathPrefix, Value: "/one"}},
		Direct: &discovery.DirectResponse{Status: http.StatusForbidden},
	}
	guarded := prefixRoute("/two", "c")
	guarded.Filters = map[string]discovery.FilterOverride{"rbac": {}}
	w.set(tableOf(denied, guarded))
	w.pump()
	routes := published.one(t).Value.Routes.VirtualHosts[0].Routes
	if routes[0] != denied {
		t.Errorf("route %+v, want the answer of the newer table", routes[0])
	}
	if got := routes[1]; len(got.Filters) != 1 || got.Forward.Clusters[0].Name != "b" {
		t.Errorf("route %+v, want the filters of the newer table and the cluster of the older one", got)
	}
	w.set(tableOf(prefixRoute("/two", "c")))
	w.pump()
	if got := goesTo(published.one(t).Value.Routes); !slices.Equal(got, []string{"/two b"}) {
		t.Errorf("routes %q, want that /one is gone and /two is where it was", got)
	}
}

func TestX70_ARouteFailsWithItsNewClusterIfNothingBetterIsThere(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		next   *discovery.RouteTable
		change func(*world)
	}{
		"no route had the same conditions": {tableOf(prefixRoute("/three", "c")), func(*world) {}},
		"it was answered":                  {tableOf(prefixRoute("/direct", "c")), func(*world) {}},
		"its old cluster is gone, too":     {tableOf(prefixRoute("/two", "c")), func(w *world) { w.fail(cds("b"), notFound(cds("b")), true) }},
		"the control plane asks for it":    {tableOf(prefixRoute("/two", "c")), func(w *world) { w.publisher.strict = strictness{"": true} }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, published := servingRoutes(t)
			answered := prefixRoute("/direct", "a")
			answered.Forward, answered.Direct = nil, &discovery.DirectResponse{Status: http.StatusOK}
			w.set(tableOf(prefixRoute("/two", "b"), answered))
			w.pump()
			published.take()
			test.change(w)
			w.fail(cds("c"), notFound(cds("c")), true)
			w.set(test.next)
			w.pump()
			updates := published.take()
			got := updates[len(updates)-1].Value
			if got.Routes != test.next || got.Clusters["c"].Err == nil {
				t.Errorf("published %+v, want the newer table with a broken cluster", got)
			}
		})
	}
}

// What is held is not held for ever: not when its clusters go as well.
func TestX70_AHeldRouteEndsWithItsClusters(t *testing.T) {
	t.Parallel()
	w, published := servingRoutes(t)
	next := tableOf(prefixRoute("/one", "a"), prefixRoute("/two", "c"))
	w.fail(cds("c"), notFound(cds("c")), true)
	w.set(next)
	w.pump()
	published.one(t)
	w.fail(cds("b"), notFound(cds("b")), true)
	w.pump()
	if got := published.one(t).Value; got.Routes != next || got.Clusters["c"].Err == nil {
		t.Errorf("published %+v, want the newer table with a broken cluster", got)
	}
}
