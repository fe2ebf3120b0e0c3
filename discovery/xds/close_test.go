package xds_test

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	loadstatsv3 "github.com/envoyproxy/go-control-plane/envoy/service/load_stats/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/discovery/xds"
	"github.com/inboardmesh/inboard/internal/adstest"
	"github.com/inboardmesh/inboard/observe"
)

// sourceScript goes to every state that a source can be in, which keeps what it has on
// disk and reports loads.
var sourceScript = []struct {
	name string
	step func(*sourceRun)
}{
	{"nothing is watched", func(*sourceRun) {}},
	{"the control plane is not there, and there is something on disk", func(r *sourceRun) { r.follow(destination) }},
	{"it is used", func(*sourceRun) { time.Sleep(3 * time.Second) }},
	{"the control plane is there", func(r *sourceRun) {
		r.server.Restart()
		time.Sleep(3 * time.Second)
		r.accept()
	}},
	{"it wants loads", func(r *sourceRun) { r.set(reporting("a")) }},
	{"it answers on the stream of loads", func(r *sourceRun) {
		stream := r.server.AcceptLoad()
		stream.Recv()
		stream.Send(&loadstatsv3.LoadStatsResponse{SendAllClusters: true, LoadReportingInterval: durationpb.New(10 * time.Second)})
	}},
	{"it does not want them any more, and does not take the last report", func(r *sourceRun) {
		time.Sleep(15 * time.Second)
		r.set(cluster("a"))
	}},
	{"a change is about to be written", func(r *sourceRun) { r.set(endpoints("a", 2)) }},
	{"it freezes", func(r *sourceRun) {
		r.server.Freeze()
		for i := range 3000 {
			r.follow(fmt.Sprintf("%s%d:80", strings.Repeat("n", 100), i))
		}
	}},
	{"it is gone", func(r *sourceRun) { r.stop() }},
}

func reporting(name string) *clusterv3.Cluster {
	c := cluster(name)
	c.LrsServer = &corev3.ConfigSource{ConfigSourceSpecifier: &corev3.ConfigSource_Self{Self: &corev3.SelfConfigSource{}}}
	return c
}

type sourceRun struct {
	*controlPlane

	source *xds.Source
	closed atomic.Bool
	late   atomic.Int64
}

func (r *sourceRun) note() {
	if r.closed.Load() {
		r.late.Add(1)
	}
}

func (r *sourceRun) follow(name string) {
	r.source.WatchTarget(name, func(discovery.Update[*discovery.Target]) { r.note() })
}

// TestCloseOfASourceTakesNoTimeWhateverItDoes ends a source at every point of a script.
func TestCloseOfASourceTakesNoTimeWhateverItDoes(t *testing.T) {
	t.Parallel()
	for i := range sourceScript {
		for _, rest := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, at rest %v", sourceScript[i].name, rest), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					cp := newControlPlane(t)
					r := &sourceRun{controlPlane: cp}
					dir := keepOne(t, cp)
					r.source = r.open(dir)
					for j := range sourceScript[:i+1] {
						sourceScript[j].step(r)
					}
					if rest {
						synctest.Wait()
					}
					begun := time.Now()
					if err := r.source.Close(); err != nil {
						t.Error(err)
					}
					r.closed.Store(true)
					if took := time.Since(begun); took > 0 {
						t.Errorf("Close took %v", took)
					}
					r.follow("later:80")
					time.Sleep(48 * time.Hour)
					if n := r.late.Load(); n > 0 {
						t.Errorf("%d calls came after Close", n)
					}
				})
			})
		}
	}
}

func (r *sourceRun) open(dir string) *xds.Source {
	resource, stream := func(observe.ResourceEvent) { r.note() }, func(observe.StreamEvent) { r.note() }
	source, err := xds.NewSource(r.config(), xds.Options{
		LastKnownGood: xds.LastKnownGood{Dir: dir},
		Hooks: observe.Hooks{
			ResourceAccepted: resource, ResourceRejected: resource, StreamChanged: stream,
			LastGood: func(observe.LastGoodEvent) { r.note() },
		},
		Loads: func(func(string) bool) []discovery.ClusterLoad {
			r.note()
			return []discovery.ClusterLoad{{Cluster: "a"}}
		},
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return source
}

// A control plane that does not read what it is sent keeps nobody.
func TestCloseDoesNotWaitForAControlPlaneThatDoesNotRead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cp := newControlPlane(t)
		cp.server.Stop()
		cp.server = adstest.Start(t, adstest.Config{Network: cp.network, RefuseDelta: true, Window: 1 << 20})
		source, err := xds.NewSource(cp.config(), xds.Options{})
		if err != nil {
			t.Fatal(err)
		}
		watch := func(i int) {
			source.WatchTarget(fmt.Sprintf("%s%d:80", strings.Repeat("n", 100), i), func(discovery.Update[*discovery.Target]) {})
		}
		watch(0)
		cp.server.Accept()
		cp.server.Freeze()
		for i := range 3000 {
			watch(i)
		}
		synctest.Wait()
		begun := time.Now()
		if err := source.Close(); err != nil {
			t.Error(err)
		}
		if took := time.Since(begun); took > 0 {
			t.Errorf("Close took %v", took)
		}
	})
}
