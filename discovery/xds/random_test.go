package xds

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/discovery/xds/internal/decode"
)

// FuzzTarget interprets its input as a sequence of events of resources. After
// each, whatever was published is complete and consistent, and at the end,
// when the control plane has everything that is asked for, what is in force is
// what the control plane says.
func FuzzTarget(f *testing.F) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 64 {
		script := make([]byte, 200)
		for i := range script {
			script[i] = byte(random.Uint32())
		}
		f.Add(script)
	}
	f.Fuzz(func(t *testing.T, script []byte) {
		w := newWorld()
		var last discovery.Update[*discovery.Target]
		stop := newTarget(destination, destination, "", w, w.publisher, func(update discovery.Update[*discovery.Target]) {
			if update.Value == last.Value && sameError(update.Err, last.Err) {
				t.Errorf("published twice: %+v", update)
			}
			last = update
			if update.Value == nil && update.Err == nil {
				t.Error("published nothing")
			}
			if update.Value != nil {
				checkComplete(t, update.Value)
			}
		}).stop
		for len(script) > 2 {
			step(w, script[0], script[1], script[2])
			if script[0]&0x80 == 0 {
				w.pump() // else several events come before anything is told
			}
			script = script[3:]
		}
		settle(w)
		checkInForce(t, w, last)
		stop()
		w.pump()
		if len(w.watchers) != 0 {
			t.Errorf("still watched after stop: %v", w.watchers)
		}
	})
}

// step changes one resource.
func step(w *world, what, which, how byte) {
	name := fmt.Sprintf("n%d", which%4)
	other := fmt.Sprintf("n%d", how%4)
	var k key
	switch what % 4 {
	case 0:
		k = lds(destination)
		if which%3 == 0 {
			w.set(inlineListener(routeTable("", name, other)))
			return
		}
	case 1:
		k = rds(name)
	case 2:
		k = cds(name)
	default:
		k = eds(name)
	}
	switch what >> 2 % 8 {
	case 0:
		w.fail(k, notFound(k), true)
	case 1:
		w.fail(k, invalid(k), w.values[k] == nil)
	case 2:
		w.fail(k, offline(k), w.values[k] == nil)
	case 3:
		w.changed(k)
	default:
		w.set(valid(k, other))
	}
}

// valid returns a resource that refers to other.
func valid(k key, other string) any {
	switch k.url {
	case decode.ListenerURL:
		return apiListener(other)
	case decode.RouteURL:
		return routeTable(k.name, "n0", other)
	case decode.ClusterURL:
		switch other {
		case "n0":
			return staticCluster(k.name)
		case "n2":
			return aggregate(k.name, "n1", "n3")
		}
		return &discovery.Cluster{Name: k.name, EDSName: other}
	}
	return assignment(k.name)
}

// settle gives the world everything that is asked for, and no aggregates: those that
// are left may be parts of themselves.
func settle(w *world) {
	for done := false; !done; {
		done = true
		w.pump()
		for k := range w.watchers {
			config, ok := w.values[k].(*discovery.Cluster)
			if w.values[k] == nil || w.errs[k] != nil || ok && len(config.Aggregate) > 0 {
				w.set(valid(k, "n1"))
				done = false
				break
			}
		}
	}
}

// checkComplete fails the test if a target lacks something.
func checkComplete(t *testing.T, target *discovery.Target) {
	t.Helper()
	if target.Name != destination || target.Listener == nil || target.Routes == nil {
		t.Fatalf("incomplete: %+v", target)
	}
	if l := target.Listener; l.Routes != nil && l.Routes.Name != target.Routes.Name || l.Routes == nil && l.RouteName != target.Routes.Name {
		t.Errorf("listener %+v with table %q", l, target.Routes.Name)
	}
	clusters := clustersOf(target.Routes)
	for _, result := range target.Clusters {
		clusters = append(clusters, result.Leaves...)
	}
	slices.Sort(clusters)
	clusters = slices.Compact(clusters)
	if len(clusters) != len(target.Clusters) {
		t.Errorf("clusters %v, the table has %q", target.Clusters, clusters)
	}
	for _, name := range clusters {
		result, ok := target.Clusters[name]
		switch {
		case !ok:
			t.Errorf("cluster %q is missing", name)
		case result.Err != nil:
			if result.Cluster != nil || result.Endpoints != nil {
				t.Errorf("cluster %q has an error and a value: %+v", name, result)
			}
		case result.Cluster == nil || result.Endpoints == nil:
			t.Errorf("cluster %q is incomplete: %+v", name, result)
		case len(result.Leaves) > 0:
			for _, leaf := range result.Leaves {
				if of := target.Clusters[leaf]; of.Err != nil || len(of.Leaves) > 0 {
					t.Errorf("cluster %q has the leaf %q: %+v", name, leaf, of)
				}
			}
		case result.Cluster.Name != name,
			result.Cluster.Static != nil && result.Cluster.Static != result.Endpoints,
			result.Cluster.Static == nil && result.Cluster.EDSName != result.Endpoints.Name:
			t.Errorf("cluster %q is inconsistent: %+v", name, result)
		}
	}
}

// checkInForce fails the test if what was published last is not what the world
// says.
func checkInForce(t *testing.T, w *world, last discovery.Update[*discovery.Target]) {
	t.Helper()
	target := last.Value
	if target == nil || last.Err != nil {
		t.Fatalf("published %+v although all is well", last)
	}
	listener := w.values[lds(destination)].(*decode.ListenerResource).Outbound
	table := listener.Routes
	if table == nil {
		table = w.values[rds(listener.RouteName)].(*discovery.RouteTable)
	}
	if target.Listener != listener || target.Routes != table {
		t.Errorf("published %+v, not the newest listener and table", target)
	}
	for name, result := range target.Clusters {
		config := w.values[cds(name)].(*discovery.Cluster)
		endpoints := config.Static
		if endpoints == nil {
			endpoints = w.values[eds(config.EDSName)].(*discovery.Assignment)
		}
		if result.Cluster != config || result.Endpoints != endpoints {
			t.Errorf("cluster %q: published %+v, not the newest", name, result)
		}
	}
}
