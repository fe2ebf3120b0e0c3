package xds

import (
	"slices"
	"testing"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/discovery/bootstrap"
)

func TestBP8_TheCallersOwnClusterComesWithATarget(t *testing.T) {
	t.Parallel()
	w := newWorld()
	w.set(apiListener("r"))
	w.set(routeTable("r", "a"))
	w.set(staticCluster("a"))
	published := &recorder[*discovery.Target]{}
	stop := newTarget(destination, destination, "own", w, w.publisher, published.notify).stop
	defer stop()
	w.pump()
	if got := clustersIn(published.one(t).Value); !slices.Equal(got, []string{"a"}) {
		t.Fatalf("clusters %q: nobody waits for the caller's own", got)
	}
	w.set(staticCluster("own"))
	w.pump()
	if got := clustersIn(published.one(t).Value); !slices.Equal(got, []string{"a", "own"}) {
		t.Errorf("clusters %q, want the caller's own beside a", got)
	}
	w.fail(cds("own"), notFound(cds("own")), true)
	w.pump()
	update := published.one(t)
	if got := clustersIn(update.Value); !slices.Equal(got, []string{"a"}) || update.Err == nil {
		t.Errorf("clusters %q, error %v: want it without the caller's own, and why", got, update.Err)
	}
}

func TestBP6_OverprovisioningIsNotDenied(t *testing.T) {
	t.Parallel()
	node, err := newNode(&bootstrap.Node{ID: "n"}, "v")
	if err != nil {
		t.Fatal(err)
	}
	if features := node.GetClientFeatures(); slices.Contains(features, "envoy.lb.does_not_support_overprovisioning") {
		t.Errorf("client features %q: the balancer does overprovision", features)
	}
}
