package xds

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/discovery"
)

const (
	farName  = "xdstp://far/envoy.config.cluster.v3.Cluster/c"
	farOther = "xdstp://far/envoy.config.cluster.v3.Cluster/d"
	farEnds  = "xdstp://far/envoy.config.endpoint.v3.ClusterLoadAssignment/e"
)

// routesTo is a table with a route of its own to each cluster.
func routesTo(clusters ...string) *discovery.RouteTable {
	var routes []*discovery.Route
	for _, name := range clusters {
		routes = append(routes, prefixRoute("/"+name, name))
	}
	return tableOf(routes...)
}

func TestX70_AnAuthorityThatIsAwayKeepsNoProcessFromBeginning(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		published, stop := w.watchTarget()
		defer stop()
		w.set(inlineListener(routesTo("a", farName, "b")))
		w.set(staticCluster("a"))
		w.set(&discovery.Cluster{Name: "b", EDSName: farEnds})
		w.pump()
		published.none(t) // it may be on its way
		w.fail(cds(farName), offline(cds(farName)), true)
		w.fail(eds(farEnds), offline(eds(farEnds)), true)
		w.pump()
		got := published.one(t).Value
		if got == nil || got.Clusters["a"].Err != nil || !isOffline(got.Clusters[farName].Err) || !isOffline(got.Clusters["b"].Err) {
			t.Fatalf("published %+v", got)
		}
		// What this control plane says next is not held up by what fails already.
		w.set(staticCluster("c"))
		w.set(inlineListener(routesTo("c", farName, "b")))
		w.pump()
		if got := published.one(t).Value; got == nil || got.Clusters["c"].Err != nil || !isOffline(got.Clusters[farName].Err) {
			t.Fatalf("published %+v", got)
		}
		w.set(staticCluster(farName))
		w.set(assignment(farEnds))
		w.pump()
		updates := published.take()
		last := updates[len(updates)-1]
		if last.Err != nil || last.Value.Clusters[farName].Err != nil || last.Value.Clusters["b"].Err != nil {
			t.Errorf("published %+v", last)
		}
	})
}

func TestX67_X70_AnAuthorityThatIsAwayDelaysAnotherOnesRoutesForAWhileOnly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		published, stop := w.watchTarget()
		defer stop()
		w.set(inlineListener(routesTo("a")))
		w.set(staticCluster("a"))
		w.pump()
		published.one(t)
		w.set(staticCluster("b"))
		for i, far := range []string{farName, farOther} {
			w.fail(cds(far), offline(cds(far)), true)
			w.set(inlineListener(routesTo("b", far)))
			w.pump()
			for _, u := range published.take() {
				if u.Value.Clusters["b"].Cluster != nil && i == 0 {
					t.Errorf("published %+v: nothing was waited for", u.Value.Clusters)
				}
			}
			time.Sleep(outsiderPatience - time.Millisecond)
			synctest.Wait()
			w.pump()
			published.take()
			time.Sleep(time.Millisecond)
			synctest.Wait()
			w.pump()
			target := published.latest
			if target == nil || target.Clusters["b"].Err != nil || !isOffline(target.Clusters[far].Err) {
				t.Fatalf("published %+v", target)
			}
		}
		// It is back, and away again with something new.
		w.set(staticCluster(farName))
		w.set(staticCluster(farOther))
		w.pump()
		if got := published.latest; got.Clusters[farOther].Err != nil {
			t.Fatalf("published %+v", got)
		}
		next := farOther + "/next"
		w.fail(cds(next), offline(cds(next)), true)
		w.set(inlineListener(routesTo("a", next)))
		w.pump()
		if got := published.latest; got.Clusters[next].Err != nil {
			t.Errorf("published %+v: nothing was waited for", got)
		}
		w.set(staticCluster(next))
		w.pump()
		if got := published.latest; got.Clusters[next].Cluster == nil {
			t.Errorf("published %+v", got)
		}
		stop()
		time.Sleep(time.Hour) // no timer of it is left
	})
}

// The one that is away may be the one that was about to say more.
func TestX67_TheControlPlaneOfTheRoutesIsWaitedFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		published, stop := w.watchTarget()
		defer stop()
		w.set(inlineListener(routesTo("a")))
		w.set(staticCluster("a"))
		w.pump()
		published.one(t)
		w.fail(cds("b"), offline(cds("b")), true)
		w.set(inlineListener(routesTo("b")))
		w.pump()
		time.Sleep(time.Hour)
		w.pump()
		for _, u := range published.take() {
			if u.Value == nil || u.Value.Clusters["a"].Cluster == nil {
				t.Errorf("published %+v, want what is in force", u)
			}
		}
	})
}

func TestX71_AnAggregateDoesWithoutTheClustersOfAnAuthorityThatIsAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		published, stop := w.watchTarget()
		defer stop()
		w.set(inlineListener(routesTo("all")))
		w.set(aggregate("all", farName, "a"))
		w.set(staticCluster("a"))
		w.fail(cds(farName), offline(cds(farName)), true)
		w.pump()
		got := published.one(t).Value
		if got == nil || !slices.Equal(got.Clusters["all"].Leaves, []string{"a"}) {
			t.Fatalf("published %+v", got)
		}
		w.set(staticCluster(farName))
		w.pump()
		updates := published.take()
		if got := updates[len(updates)-1].Value; !slices.Equal(got.Clusters["all"].Leaves, []string{farName, "a"}) {
			t.Errorf("published %+v", got)
		}
		w.fail(cds(farName), offline(cds(farName)), false) // it stays in force
		w.pump()
		for _, u := range published.take() {
			if !slices.Equal(u.Value.Clusters["all"].Leaves, []string{farName, "a"}) {
				t.Errorf("published %+v", u)
			}
		}
	})
}

// A newer policy of this address is not put off for a day because it calls a cluster of
// an authority that is away: what needs that cluster fails by its own rules.
func TestX73_AnAuthorityThatIsAwayDelaysAListenersPolicyForAWhileOnly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		published, stop := w.watchInbound()
		defer stop()
		w.set(serverResource(""))
		w.pump()
		published.one(t)
		tighter := guarded(farName)
		w.fail(cds(farName), offline(cds(farName)), true)
		w.set(tighter)
		w.pump()
		published.take()
		time.Sleep(outsiderPatience)
		synctest.Wait()
		w.pump()
		got := published.one(t).Value
		if len(got.Default.Filters) != 1 || !isOffline(got.Clusters[farName].Err) {
			t.Errorf("published %+v", got)
		}
	})
}
