package xds_test

import (
	"testing"
	"testing/synctest"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/discovery/xds"
	"github.com/inboardmesh/inboard/internal/adstest"
	"github.com/inboardmesh/inboard/internal/memnet"
)

// The clusters are the same, byte for byte, at both servers; and the second one, which
// another authority goes on to use, takes the stream of load reports and says nothing.
func TestX104_LoadIsReportedToTheServerThatIsBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		network := new(memnet.Network)
		near := adstest.Serve(t, adstest.Config{Network: network, RefuseDelta: true})
		second := adstest.Serve(t, adstest.Config{Network: network, RefuseDelta: true, Address: "second.test"})
		reported := cluster("a")
		reported.LrsServer = &corev3.ConfigSource{ConfigSourceSpecifier: &corev3.ConfigSource_Self{Self: &corev3.SelfConfigSource{}}}
		for _, plane := range []*adstest.Plane{near, second} {
			plane.Set(apiListener("r"), routes("r", "a"), reported, endpoints("a", 1))
		}
		second.Set(farTree(7)...)
		config := federation(&controlPlane{t: t, network: network}, second.Server, nil)
		config.Authorities = federation(&controlPlane{t: t, network: network}, nil, second.Server).Authorities
		config.Authorities["far"].Servers[0] = config.Servers[1]
		source, err := xds.NewSource(config, xds.Options{Loads: func(func(string) bool) []discovery.ClusterLoad { return nil }})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = source.Close() })
		published := watchTarget(source)
		source.WatchTarget("//far/payment:8080", new(recorder[*discovery.Target]).notify)
		near.Server.AcceptLoad()
		near.Server.Stop()
		time.Sleep(3 * time.Second)
		source.WatchTarget("other:8080", new(recorder[*discovery.Target]).notify) // falls back
		second.Server.AcceptLoad().Recv()
		near.Server.Restart()
		back := time.Now()
		near.Server.AcceptLoad().Recv()
		if took := time.Since(back); took > 10*time.Second {
			t.Errorf("load was reported again after %v", took)
		}
		if got := published.last(t); got.Value == nil || got.Err != nil {
			t.Errorf("published %+v", got)
		}
	})
}
