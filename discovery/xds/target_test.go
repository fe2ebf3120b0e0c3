package xds

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/discovery/xds/internal/decode"
)

func lds(name string) key { return key{decode.ListenerURL, name} }
func rds(name string) key { return key{decode.RouteURL, name} }
func cds(name string) key { return key{decode.ClusterURL, name} }
func eds(name string) key { return key{decode.EndpointURL, name} }

// serving returns a world in which the destination is served by cluster a, and
// what was published first.
func serving(t *testing.T) (*world, *recorder[*discovery.Target], *discovery.Target) {
	t.Helper()
	w := newWorld()
	w.set(apiListener("r"))
	w.set(routeTable("r", "a"))
	w.set(edsCluster("a"))
	w.set(assignment("a"))
	published, stop := w.watchTarget()
	t.Cleanup(func() {
		stop()
		w.pump()
		if len(w.watchers) != 0 {
			t.Errorf("still watched after stop: %v", w.watchers)
		}
	})
	w.pump()
	update := published.one(t)
	if update.Err != nil || update.Value == nil {
		t.Fatalf("published %+v", update)
	}
	return w, published, update.Value
}

func TestX66_NothingIsPublishedBeforeAllIsThere(t *testing.T) {
	t.Parallel()
	w := newWorld()
	published, stop := w.watchTarget()
	defer stop()
	w.pump()
	for _, step := range []any{
		apiListener("r"), routeTable("r", "a", "b"), edsCluster("a"), assignment("a"), staticCluster("b"),
	} {
		published.none(t)
		w.set(step)
		w.pump()
	}
	update := published.one(t)
	target := update.Value
	if update.Err != nil || target == nil || !slices.Equal(clustersIn(target), []string{"a", "b"}) {
		t.Fatalf("published %+v", update)
	}
	if target.Name != destination || target.Routes.Name != "r" ||
		target.Clusters["a"].Endpoints != w.values[eds("a")] || target.Clusters["b"].Endpoints.Name != "b" {
		t.Errorf("published %+v", target)
	}
}

func TestX67_RoutesToAClusterThatIsNotReadyAreHeldBack(t *testing.T) {
	t.Parallel()
	w, published, first := serving(t)
	w.set(routeTable("r", "c2"))
	w.pump()
	published.none(t)
	w.set(edsCluster("c2"))
	w.pump()
	published.none(t)

	w.set(assignment("a")) // the clusters in use are kept up to date
	w.pump()
	update := published.one(t)
	if update.Value.Routes != first.Routes || update.Value.Clusters["a"].Endpoints != w.values[eds("a")] {
		t.Errorf("published %+v, want the old table with the new endpoints", update.Value)
	}

	w.set(assignment("c2"))
	w.pump()
	update = published.one(t)
	if update.Value.Routes != w.values[rds("r")] || !slices.Equal(clustersIn(update.Value), []string{"c2"}) {
		t.Errorf("published %+v, want the new table", update.Value)
	}
	if got := w.watched(decode.ClusterURL); !slices.Equal(got, []string{"c2"}) {
		t.Errorf("clusters %q are watched, want only c2", got)
	}
	if got := w.watched(decode.EndpointURL); !slices.Equal(got, []string{"c2"}) {
		t.Errorf("endpoints %q are watched, want only c2", got)
	}
}

func TestX67_LosingTheControlPlaneDoesNotEndTheWait(t *testing.T) {
	t.Parallel()
	w, published, first := serving(t)
	w.set(routeTable("r", "a", "c2"))
	w.pump()
	w.fail(cds("c2"), offline(cds("c2")), true)
	w.pump()
	if update := published.one(t); update.Value != first || update.Err == nil {
		t.Errorf("published %+v, want the first target with an error", update)
	}
	w.set(staticCluster("c2"))
	w.pump()
	if update := published.one(t); !slices.Equal(clustersIn(update.Value), []string{"a", "c2"}) || update.Err != nil {
		t.Errorf("published %+v, want both clusters", update)
	}
}

func TestX67_ANewerTableReplacesOneThatIsNotReady(t *testing.T) {
	t.Parallel()
	w, published, first := serving(t)
	w.set(routeTable("r", "never"))
	w.pump()
	w.set(routeTable("r", "a"))
	w.pump()
	update := published.one(t)
	if update.Value.Routes == first.Routes || !slices.Equal(clustersIn(update.Value), []string{"a"}) {
		t.Errorf("published %+v, want the newest table", update.Value)
	}
	if got := w.watched(decode.ClusterURL); !slices.Equal(got, []string{"a"}) {
		t.Errorf("clusters %q are watched, want only a", got)
	}
}

func TestX68_AChangedClusterKeepsItsEndpoints(t *testing.T) {
	t.Parallel()
	w, published, first := serving(t)
	changed := edsCluster("a")
	changed.MaxRequestsPerConnection = 7
	w.set(changed)
	w.pump()
	target := published.one(t).Value
	if got := target.Clusters["a"]; got.Cluster != changed || got.Endpoints != first.Clusters["a"].Endpoints {
		t.Errorf("cluster %+v, want the new settings with the old endpoints", got)
	}
	if target.Listener != first.Listener || target.Routes != first.Routes {
		t.Error("the listener and the table did not change, but have new pointers")
	}
}

func TestX70_ABrokenClusterHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	for _, broken := range []struct {
		name   string
		damage func(w *world)
	}{
		{"a cluster that does not exist", func(w *world) { w.fail(cds("c"), notFound(cds("c")), true) }},
		{"a cluster that is invalid", func(w *world) { w.fail(cds("c"), invalid(cds("c")), true) }},
		{"endpoints that do not exist", func(w *world) {
			w.set(edsCluster("c"))
			w.fail(eds("c"), notFound(eds("c")), true)
		}},
	} {
		t.Run(broken.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld()
			w.set(inlineListener(routeTable("", "a", "b", "c")))
			w.set(staticCluster("a"))
			w.set(staticCluster("b"))
			broken.damage(w)
			published, stop := w.watchTarget()
			defer stop()
			w.pump()
			update := published.one(t)
			if update.Err != nil || !slices.Equal(clustersIn(update.Value), []string{"a", "b", "c!"}) {
				t.Fatalf("published %+v, want a and b to serve and c to be broken", update)
			}
			if errors.Is(update.Value.Clusters["c"].Err, discovery.ErrNotFound) {
				t.Error("the cluster's error says that the destination is unknown")
			}
			w.set(staticCluster("c"))
			w.pump()
			if update := published.one(t); !slices.Equal(clustersIn(update.Value), []string{"a", "b", "c"}) {
				t.Errorf("published %+v, want c to be well again", update)
			}
		})
	}
}

func TestX40_ARemovedClusterLeavesItsEndpointsAndX41_ComesBackWithThem(t *testing.T) {
	t.Parallel()
	w, published, _ := serving(t)
	w.fail(cds("a"), notFound(cds("a")), true)
	w.pump()
	if update := published.one(t); !slices.Equal(clustersIn(update.Value), []string{"a!"}) {
		t.Errorf("published %+v, want the cluster's error", update)
	}
	if got := w.watched(decode.EndpointURL); len(got) != 0 {
		t.Errorf("endpoints %q are still watched", got)
	}
	w.set(edsCluster("a"))
	w.pump()
	if update := published.one(t); !slices.Equal(clustersIn(update.Value), []string{"a"}) {
		t.Errorf("published %+v, want the cluster with its endpoints", update)
	}
}

func TestX42_InlineRoutesReplaceNamedOnesWithoutAGap(t *testing.T) {
	t.Parallel()
	w, published, _ := serving(t)
	w.set(inlineListener(routeTable("", "b")))
	w.pump()
	published.none(t)
	if got := w.watched(decode.RouteURL); len(got) != 0 {
		t.Errorf("route tables %q are still watched", got)
	}
	w.set(staticCluster("b"))
	w.pump()
	if update := published.one(t); !slices.Equal(clustersIn(update.Value), []string{"b"}) || update.Value.Routes.Name != "" {
		t.Errorf("published %+v, want the inline table", update)
	}
	w.set(apiListener("r2"))
	w.pump()
	published.none(t)
	w.set(routeTable("r2", "a"))
	w.pump()
	if update := published.one(t); update.Value.Routes.Name != "r2" {
		t.Errorf("published %+v, want table r2", update)
	}
}

func TestX12_WhatDidNotChangeIsNotPublished(t *testing.T) {
	t.Parallel()
	w, published, _ := serving(t)
	for k := range w.watchers {
		w.changed(k)
	}
	w.pump()
	published.none(t)
}

func TestX77_AnAssignmentWithoutEndpointsIsPublished(t *testing.T) {
	t.Parallel()
	w, published, _ := serving(t)
	empty := assignment("a")
	w.set(empty)
	w.pump()
	if got := published.one(t).Value.Clusters["a"]; got.Err != nil || got.Endpoints != empty {
		t.Errorf("cluster %+v, want it without endpoints and without an error", got)
	}
}

func TestX26_LostControlPlaneIsAnAmbientError(t *testing.T) {
	t.Parallel()
	w, published, first := serving(t)
	for k := range w.watchers {
		w.fail(k, offline(k), false)
	}
	w.pump()
	update := published.one(t)
	if update.Value != first || update.Err == nil || strings.Count(update.Err.Error(), "server away") != 1 {
		t.Errorf("published %+v, want the same target and one error", update)
	}
	for k, value := range w.values {
		delete(w.errs, k)
		w.set(value)
	}
	w.pump()
	if update := published.take(); len(update) == 0 || update[len(update)-1].Value != first || update[len(update)-1].Err != nil {
		t.Errorf("published %+v, want the same target without an error", update)
	}
}

func TestS05_ARejectedVersionIsAnAmbientError(t *testing.T) {
	t.Parallel()
	for _, k := range []key{lds(destination), rds("r"), cds("a"), eds("a")} {
		t.Run(k.url, func(t *testing.T) {
			t.Parallel()
			w, published, first := serving(t)
			w.fail(k, invalid(k), false)
			w.pump()
			if update := published.one(t); update.Value != first || update.Err == nil || update.Err.Error() != invalid(k).Error() {
				t.Errorf("published %+v, want the same target and the error", update)
			}
			w.set(w.values[k])
			w.pump()
			if update := published.one(t); update.Value != first || update.Err != nil {
				t.Errorf("published %+v, want the same target without an error", update)
			}
		})
	}
}

func TestS03_AnUnknownDestinationIsNotFoundAndComesBack(t *testing.T) {
	t.Parallel()
	w := newWorld()
	published, stop := w.watchTarget()
	defer stop()
	w.fail(lds(destination), notFound(lds(destination)), true)
	w.pump()
	if update := published.one(t); update.Value != nil || !errors.Is(update.Err, discovery.ErrNotFound) {
		t.Errorf("published %+v, want ErrNotFound", update)
	}
	w.set(inlineListener(routeTable("", "a")))
	w.set(staticCluster("a"))
	w.pump()
	if update := published.one(t); update.Value == nil || update.Err != nil {
		t.Errorf("published %+v, want the target", update)
	}
}

func TestOnlyAMissingListenerMeansThatTheDestinationIsUnknown(t *testing.T) {
	t.Parallel()
	w := newWorld()
	w.set(apiListener("r"))
	w.fail(rds("r"), notFound(rds("r")), true)
	published, stop := w.watchTarget()
	defer stop()
	w.pump()
	update := published.one(t)
	if update.Value != nil || update.Err == nil || errors.Is(update.Err, discovery.ErrNotFound) ||
		update.Err.Error() != notFound(rds("r")).Error() {
		t.Errorf("published %+v, want the table's error without ErrNotFound", update)
	}
}

func TestS02_TheReasonIsToldWhileTheControlPlaneIsAway(t *testing.T) {
	t.Parallel()
	for _, missing := range []key{lds(destination), rds("r"), cds("a"), eds("a")} {
		t.Run(missing.url, func(t *testing.T) {
			t.Parallel()
			w := newWorld()
			all := []any{apiListener("r"), routeTable("r", "a"), edsCluster("a"), assignment("a")}
			for _, resource := range all {
				if keyOf(resource) == missing {
					break
				}
				w.set(resource)
			}
			w.fail(missing, offline(missing), true)
			published, stop := w.watchTarget()
			defer stop()
			w.pump()
			if update := published.one(t); update.Value != nil || !strings.Contains(fmt.Sprint(update.Err), "server away") {
				t.Errorf("published %+v, want the reason", update)
			}
			for _, resource := range all {
				w.set(resource)
			}
			w.pump()
			if update := published.one(t); update.Value == nil || update.Err != nil {
				t.Errorf("published %+v, want the target", update)
			}
		})
	}
}

func TestX33_WhatTheServerWithdrawsIsDropped(t *testing.T) {
	t.Parallel()
	for _, k := range []key{lds(destination), rds("r")} {
		t.Run(k.url, func(t *testing.T) {
			t.Parallel()
			w, published, _ := serving(t)
			value := w.values[k]
			w.fail(k, notFound(k), true)
			w.pump()
			if update := published.one(t); update.Value != nil || errors.Is(update.Err, discovery.ErrNotFound) != (k == lds(destination)) {
				t.Errorf("published %+v, want no target and the error", update)
			}
			if got := w.watched(decode.ClusterURL); len(got) != 0 {
				t.Errorf("clusters %q are still watched", got)
			}
			w.set(value)
			w.pump()
			if update := published.one(t); update.Value == nil || update.Err != nil {
				t.Errorf("published %+v, want the target again", update)
			}
		})
	}
}

func TestATableThatIsOnlyPlannedCanBeWithdrawn(t *testing.T) {
	t.Parallel()
	w, published, first := serving(t)
	w.set(apiListener("r2"))
	w.set(routeTable("r2", "c2"))
	w.pump()
	published.none(t)
	w.fail(rds("r2"), notFound(rds("r2")), true)
	w.pump()
	if update := published.one(t); update.Value != first || update.Err == nil {
		t.Errorf("published %+v, want the first target with an error", update)
	}
}

func TestAServersListenerIsRefusedForADestination(t *testing.T) {
	t.Parallel()
	w, published, first := serving(t)
	w.values[lds(destination)] = &decode.ListenerResource{Inbound: &discovery.Inbound{Name: destination, Address: "0.0.0.0:1"}}
	w.changed(lds(destination))
	w.pump()
	const want = `the Listener is for connections to address "0.0.0.0:1": expected one with an api_listener`
	if update := published.one(t); update.Value != first || update.Err == nil || update.Err.Error() != want {
		t.Errorf("published %+v, want the last good target and %s", update, want)
	}
}

func TestAClusterOfWeightZeroIsNotFollowed(t *testing.T) {
	t.Parallel()
	w := newWorld()
	table := routeTable("", "a")
	table.VirtualHosts[0].Routes = append(table.VirtualHosts[0].Routes,
		&discovery.Route{Direct: &discovery.DirectResponse{Status: 404}},
		&discovery.Route{Forward: &discovery.Forward{Clusters: []discovery.WeightedCluster{{Name: "off"}, {Name: "a", Weight: 1}}}})
	w.set(inlineListener(table))
	w.set(staticCluster("a"))
	published, stop := w.watchTarget()
	defer stop()
	w.pump()
	if got := clustersIn(published.one(t).Value); !slices.Equal(got, []string{"a"}) {
		t.Errorf("clusters %q, want a", got)
	}
}

func TestStopInsideNotifyAndAfterwardsNothingIsTold(t *testing.T) {
	t.Parallel()
	w := newWorld()
	w.set(inlineListener(routeTable("", "a")))
	w.set(staticCluster("a"))
	calls := 0
	var stop func()
	stop = newTarget(destination, destination, "", w, w.publisher, func(discovery.Update[*discovery.Target]) {
		calls++
		stop()
	}).stop
	w.pump()
	w.set(staticCluster("a"))
	w.pump()
	stop()
	if calls != 1 || len(w.watchers) != 0 {
		t.Errorf("%d calls, still watched %v", calls, w.watchers)
	}
}

func TestATargetListsABoundedNumberOfErrors(t *testing.T) {
	t.Parallel()
	w := newWorld()
	var names []string
	for i := range 20 {
		names = append(names, fmt.Sprintf("c%02d", i))
		w.set(staticCluster(names[i]))
	}
	w.set(inlineListener(routeTable("", names...)))
	published, stop := w.watchTarget()
	defer stop()
	for _, name := range names {
		w.fail(cds(name), invalid(cds(name)), false)
	}
	w.pump()
	update := published.one(t)
	lines := strings.Split(fmt.Sprint(update.Err), "\n")
	if len(lines) != maxTroubles+1 || lines[maxTroubles] != "and 12 more errors" {
		t.Errorf("error %q", lines)
	}
}

func TestAPlanIsGivenUpWhenTheOldTableReturns(t *testing.T) {
	t.Parallel()
	w, published, first := serving(t)
	w.set(routeTable("r", "never"))
	w.pump()
	w.set(first.Routes)
	w.pump()
	published.none(t)
	if got := w.watched(decode.ClusterURL); !slices.Equal(got, []string{"a"}) {
		t.Errorf("clusters %q are watched, want only a", got)
	}
}

func TestAClusterThatWaitsForNewEndpointsHoldsNoTableUp(t *testing.T) {
	t.Parallel()
	w, published, first := serving(t)
	w.set(&discovery.Cluster{Name: "a", EDSName: "a2"})
	w.set(routeTable("r", "a", "b"))
	w.set(staticCluster("b"))
	w.pump()
	update := published.one(t)
	if got := update.Value.Clusters["a"]; !sameResult(got, first.Clusters["a"]) || len(update.Value.Clusters) != 2 {
		t.Errorf("published %+v, want the new table with cluster a as it was", update.Value)
	}
}

func TestAClusterThatWasRepairedIsWaitedFor(t *testing.T) {
	t.Parallel()
	w := newWorld()
	w.set(inlineListener(routeTable("", "a", "c")))
	w.fail(cds("c"), invalid(cds("c")), true)
	published, stop := w.watchTarget()
	defer stop()
	w.pump()
	w.set(edsCluster("c"))
	w.set(staticCluster("a"))
	w.pump()
	published.none(t)
	w.set(assignment("c"))
	w.pump()
	if update := published.one(t); !slices.Equal(clustersIn(update.Value), []string{"a", "c"}) {
		t.Errorf("published %+v, want both clusters well", update)
	}
}

func TestAfterStopNothingIsToldOrWatched(t *testing.T) {
	t.Parallel()
	w := newWorld()
	w.set(inlineListener(routeTable("", "a")))
	w.set(staticCluster("a"))
	w.set(serverResource("r"))
	targets, stopTarget := w.watchTarget()
	inbounds, stopInbound := w.watchInbound()
	lateTarget, lateInbound := w.watchers[lds(destination)][0].Watcher, w.watchers[lds(listenName)][0].Watcher
	w.pump()
	targets.one(t)

	// These events have come, their delivery has not begun.
	lateTarget.ResourceError(notFound(lds(destination)))
	lateInbound.ResourceError(notFound(lds(listenName)))
	stopTarget()
	stopInbound()
	// These were on their way.
	lateTarget.Changed(apiListener("r"))
	lateInbound.Changed(serverResource("r2"))
	w.pump()
	targets.none(t)
	inbounds.none(t)
	if len(w.watchers) != 0 {
		t.Errorf("watched after stop: %v", w.watchers)
	}
}

// turns counts deliveries.
type turns int

func (d *turns) deliver() { *d++ }

func TestAFollowerHasOneTurnHoweverOftenItChanges(t *testing.T) {
	t.Parallel()
	p := newPublisher()
	var a, b turns
	for range 3 {
		p.add(&a)
		p.add(&b)
	}
	for d, ok := p.take(); ok; d, ok = p.take() {
		d.deliver()
	}
	p.add(&a)
	if d, ok := p.take(); !ok || d != deliverer(&a) || a != 1 || b != 1 {
		t.Errorf("%d and %d turns, then %v", a, b, d)
	}
	p.close()
	p.add(&a)
	if _, ok := p.take(); ok {
		t.Error("a turn after close")
	}
}
