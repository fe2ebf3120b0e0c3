package xds

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/discovery/xds/internal/decode"
)

// manyNames are names of clusters, in order.
func manyNames(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("c-%05d", i)
	}
	return names
}

// manyRoutes has a route by path to each of the clusters.
func manyRoutes(paths, clusters []string) *discovery.RouteTable {
	routes := make([]*discovery.Route, len(paths))
	for i, path := range paths {
		routes[i] = prefixRoute("/"+path, clusters[i])
	}
	return tableOf(routes...)
}

// manyClusters is a world in which a destination has a cluster of each of the names.
func manyClusters(names []string) *world {
	w := newWorld()
	w.set(apiListener("r"))
	w.set(manyRoutes(names, names))
	for _, name := range names {
		w.set(edsCluster(name))
		w.set(assignment(name))
	}
	return w
}

func allocatedBytes() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

// TestOfManyClustersThatWaitNoneLooksForTheFirstAmongAll: while a control plane cannot
// be reached each cluster whose endpoints are missing is a reason why nothing is in
// force, and the first of them is told, whichever comes.
func TestOfManyClustersThatWaitNoneLooksForTheFirstAmongAll(t *testing.T) { //nolint:paralleltest // it reads what the whole process allocates
	names := manyNames(2000)
	w := newWorld()
	w.set(apiListener("r"))
	w.set(manyRoutes(names, names))
	published, stop := w.watchTarget()
	defer stop()
	w.pump()
	published.none(t)
	before := allocatedBytes()
	for _, name := range names {
		w.fail(cds(name), offline(cds(name)), true)
		w.pump()
	}
	each := (allocatedBytes() - before) / uint64(len(names))
	if each > 8<<10 {
		t.Errorf("%d bytes allocated for each of %d clusters", each, len(names))
	}
	if update := published.one(t); update.Value != nil || update.Err == nil {
		t.Errorf("published %+v, want one reason", update)
	}
}

// TestManyRoutesThatAreHeldCostALookForAllThatChange: what is held is worked out anew
// when it is published, not for each cluster that can be used again.
func TestManyRoutesThatAreHeldCostALookForAllThatChange(t *testing.T) { //nolint:paralleltest // it reads what the whole process allocates
	paths := manyNames(1000)
	w := manyClusters(paths)
	published, stop := w.watchTarget()
	defer stop()
	w.pump()
	published.one(t)
	newer := make([]string, len(paths))
	for i, path := range paths {
		newer[i] = "new-" + path
		w.fail(cds(newer[i]), notFound(cds(newer[i])), true)
	}
	w.set(manyRoutes(paths, newer))
	w.pump()
	held := published.take()
	if got := goesTo(held[len(held)-1].Value.Routes)[7]; got != "/c-00007 c-00007" {
		t.Errorf("a route whose new cluster does not exist: %q", got)
	}
	for _, name := range newer {
		w.set(staticCluster(name))
	}
	before := allocatedBytes()
	w.pump()
	if each := (allocatedBytes() - before) / uint64(len(paths)); each > 16<<10 {
		t.Errorf("%d bytes allocated for each of %d clusters", each, len(paths))
	}
	last := published.one(t)
	if got := goesTo(last.Value.Routes)[7]; got != "/c-00007 new-c-00007" || last.Err != nil {
		t.Errorf("after all of them came: %q, %v", got, last.Err)
	}
	if n := len(w.watched(decode.ClusterURL)); n != len(paths) {
		t.Errorf("%d clusters are watched, want %d", n, len(paths))
	}
}

// BenchmarkOneOfManyClusters is what it costs to publish that the endpoints of one
// cluster have changed. The baseline is a destination of one cluster.
func BenchmarkOneOfManyClusters(b *testing.B) {
	for _, n := range []int{1, 1_000, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			names := manyNames(n)
			w := manyClusters(names)
			published, stop := w.watchTarget()
			defer stop()
			w.pump()
			published.take()
			b.ReportAllocs()
			for b.Loop() {
				w.set(assignment(names[n/2]))
				w.pump()
				if len(published.take()) != 1 {
					b.Fatal("it was not published")
				}
			}
		})
	}
}

// BenchmarkManyClustersThatWait is what each of many clusters costs whose endpoints
// are missing while the control plane is away.
func BenchmarkManyClustersThatWait(b *testing.B) {
	for _, n := range []int{100, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			names := manyNames(n)
			w := newWorld()
			w.set(apiListener("r"))
			w.set(manyRoutes(names, names))
			_, stop := w.watchTarget()
			defer stop()
			w.pump()
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				w.fail(cds(names[i%n]), offline(cds(names[i%n])), true)
				w.pump()
				i++
			}
		})
	}
}
