package xds_test

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"google.golang.org/protobuf/proto"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/discovery/xds"
	"github.com/inboardmesh/inboard/internal/adstest"
	"github.com/inboardmesh/inboard/internal/memnet"
)

const (
	farPrefix  = "xdstp://far/envoy.config."
	farCluster = farPrefix + "cluster.v3.Cluster/c?a=1&b=2"
)

// farTree is the destination of the authority "far", all of it there.
func farTree(port int) []proto.Message {
	listener := apiListener(farPrefix + "route.v3.RouteConfiguration/r")
	listener.Name = farPrefix + "listener.v3.Listener/payment:8080"
	of := cluster(farCluster)
	of.EdsClusterConfig.ServiceName = farPrefix + "endpoint.v3.ClusterLoadAssignment/e"
	return []proto.Message{
		listener, routes(farPrefix+"route.v3.RouteConfiguration/r", farPrefix+"cluster.v3.Cluster/c?b=2&a=1"),
		of, endpoints(of.EdsClusterConfig.ServiceName, port),
	}
}

const farWritten = farPrefix + "cluster.v3.Cluster/c?b=2&a=1"

// twoPlanes are two control planes, near and far, and what processes keep of them.
type twoPlanes struct {
	t         *testing.T
	network   *memnet.Network
	near, far *adstest.Plane
	features  []string // of far
	dir       string
}

func newTwoPlanes(t *testing.T) *twoPlanes {
	t.Helper()
	network := new(memnet.Network)
	p := &twoPlanes{
		t: t, network: network, dir: filepath.Join(t.TempDir(), "kept"),
		near: adstest.Serve(t, adstest.Config{Network: network, RefuseDelta: true}),
		far:  adstest.Serve(t, adstest.Config{Network: network, RefuseDelta: true, Address: "far.test"}),
	}
	p.near.Set(one()...)
	p.far.Set(farTree(7)...)
	return p
}

// life is a process: what it is told of the destination near, and of the one far.
type life struct {
	*xds.Source
	near, far *recorder[*discovery.Target]
}

func (p *twoPlanes) begin() *life {
	p.t.Helper()
	l := p.start()
	l.near = watchTarget(l.Source)
	l.follow()
	return l
}

// follow is a watch of the destination far.
func (l *life) follow() { l.WatchTarget("//far/payment:8080", l.far.notify) }

// start is begin without a watch.
func (p *twoPlanes) start() *life {
	p.t.Helper()
	cp := &controlPlane{t: p.t, network: p.network}
	config := federation(cp, nil, p.far.Server)
	config.Authorities["far"].Servers[0].Features = p.features
	source, err := xds.NewSource(config, xds.Options{LastKnownGood: xds.LastKnownGood{Dir: p.dir}})
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = source.Close() })
	return &life{Source: source, far: new(recorder[*discovery.Target])}
}

// live begins a process and lets it hear of both.
func (p *twoPlanes) live() *life {
	p.t.Helper()
	l := p.begin()
	time.Sleep(3 * time.Second)
	if got := l.near.last(p.t); got.Err != nil || addressOf(got.Value, "a") != "10.0.0.1:1" {
		p.t.Fatalf("published %+v", got)
	}
	if got := l.far.last(p.t); got.Err != nil || addressOf(got.Value, farWritten) != "10.0.0.1:7" {
		p.t.Fatalf("published %+v", got)
	}
	return l
}

func (p *twoPlanes) stop() {
	p.near.Server.Stop()
	p.far.Server.Stop()
}

func (l *life) end(t *testing.T) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

func TestX92_AResourceOnDiskIsOneHoweverItsNameIsWritten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newTwoPlanes(t)
		p.near.Set(routes("r", "a", farCluster)) // the far table writes it in another way
		l := p.live()
		if got := l.ConfigSource(); got.Live != 8 {
			t.Errorf("source %+v, want each resource once", got)
		}
		l.end(t)
		p.stop()
		l = p.begin()
		time.Sleep(time.Second)
		if got := l.ConfigSource(); got.LastKnownGood != 8 {
			t.Errorf("source %+v, want each resource once", got)
		}
		for _, r := range l.Dump() {
			if !r.LastKnownGood || r.Version == "" {
				t.Errorf("resource %+v, want its version and that it is from disk", r)
			}
		}
		if got := l.near.last(t).Value; got == nil || addressOf(got, farCluster) != "10.0.0.1:7" {
			t.Errorf("published %+v", got)
		}
	})
}

func TestS08_AnAuthorityThatIsSilentIsWaitedForOnceWhateverTheOthersSay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newTwoPlanes(t)
		p.live().end(t)
		p.far.Silence(true)
		begun := time.Now()
		l := p.begin()
		for range 4 {
			time.Sleep(250 * time.Millisecond)
			p.near.Touch(endpointURL) // the other one talks all the time
		}
		time.Sleep(10 * time.Millisecond)
		if got := l.far.last(t); got.Value == nil || addressOf(got.Value, farWritten) != "10.0.0.1:7" {
			t.Errorf("published %+v after %v, want what is on disk", got, time.Since(begun))
		}
	})
}

func TestS08_AnAuthorityThatAnswersIsWaitedForAlthoughAnotherOneIsSilent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newTwoPlanes(t)
		p.live().end(t)
		p.near.Silence(true)
		p.far.Set(endpoints(farPrefix+"endpoint.v3.ClusterLoadAssignment/e", 8))
		l := p.start()
		l.near = watchTarget(l.Source)
		time.Sleep(2 * time.Second)
		if got := l.near.last(t).Value; got == nil || addressOf(got, "a") != "10.0.0.1:1" {
			t.Errorf("published %+v, want what is on disk", got)
		}
		l.follow()
		synctest.Wait()
		updates := l.far.take()
		if len(updates) == 0 {
			t.Error("nothing was published")
		}
		for _, u := range updates {
			if u.Err != nil || addressOf(u.Value, farWritten) != "10.0.0.1:8" {
				t.Errorf("published %+v, want what the control plane has", u)
			}
		}
	})
}

func TestX63_WhatOneAuthorityAsksForIsNotDoneToTheResourcesOfAnother(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newTwoPlanes(t)
		p.features = []string{"fail_on_data_errors"}
		p.live().end(t)
		bad := cluster("a")
		bad.LbPolicy = clusterv3.Cluster_CLUSTER_PROVIDED
		p.near.Set(bad)
		l := p.begin()
		time.Sleep(3 * time.Second)
		if got := l.near.last(t).Value; got == nil || got.Clusters["a"].Err != nil {
			t.Errorf("published %+v, want the version on disk", got)
		}
		l.end(t)

		// And the other way round: what is far is dropped, as its server asks.
		worse := proto.CloneOf(farTree(7)[2].(*clusterv3.Cluster))
		worse.LbPolicy = clusterv3.Cluster_CLUSTER_PROVIDED
		p.far.Set(worse)
		l = p.begin()
		time.Sleep(3 * time.Second)
		if got := l.far.last(t).Value; got != nil && got.Clusters[farWritten].Err == nil {
			t.Errorf("published %+v, want an error", got)
		}
	})
}

func TestX63_ARouteIsHeldWhateverTheOtherAuthorityAsksFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newTwoPlanes(t)
		p.features = []string{"fail_on_data_errors"}
		l := p.live()
		swapped := routes("r", "a")
		swapped.VirtualHosts[0].Routes[0].GetRoute().ClusterSpecifier = nil
		proto.Merge(swapped.GetVirtualHosts()[0].GetRoutes()[0], routes("r", "nowhere").GetVirtualHosts()[0].GetRoutes()[0])
		swapped.VirtualHosts[0].Routes[0].Match = routes("r", "a").GetVirtualHosts()[0].GetRoutes()[0].GetMatch()
		p.near.Set(swapped)
		time.Sleep(time.Minute)
		got := l.near.last(t)
		if got.Value == nil || addressOf(got.Value, "a") != "10.0.0.1:1" || got.Err == nil || !strings.Contains(got.Err.Error(), "forwards as before") {
			t.Errorf("published %+v, want that the route is held", got)
		}
	})
}

func TestWhatAnAuthorityIsAwayTooLongForIsNotUsedAtAStart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newTwoPlanes(t)
		l := p.live()
		p.far.Server.Stop()
		time.Sleep(23 * time.Hour)
		l.end(t)
		l = p.begin() // still young enough
		time.Sleep(5 * time.Second)
		if got := l.far.last(t); got.Value == nil {
			t.Errorf("published %+v, want what is on disk", got)
		}
		time.Sleep(7 * time.Hour)
		l.end(t)
		p.stop()
		l = p.begin()
		time.Sleep(5 * time.Second)
		if got := l.near.last(t).Value; got == nil || addressOf(got, "a") != "10.0.0.1:1" {
			t.Errorf("published %+v, want what is on disk", got)
		}
		if updates := l.far.take(); slices.ContainsFunc(updates, func(u discovery.Update[*discovery.Target]) bool { return u.Value != nil }) {
			t.Errorf("published %+v: its control plane was last heard of 30 hours ago", updates)
		}
	})
}
