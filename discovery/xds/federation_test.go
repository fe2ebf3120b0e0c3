package xds_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/discovery/bootstrap"
	"github.com/inboardmesh/inboard/discovery/xds"
	"github.com/inboardmesh/inboard/internal/adstest"
)

// federation is a bootstrap with a second server for names without an authority
// and another control plane for those of the authority "far".
func federation(cp *controlPlane, second, far *adstest.Server) *bootstrap.Config {
	config := cp.config()
	server := func(s *adstest.Server, address string) bootstrap.Server {
		return bootstrap.Server{
			URI: "passthrough:///" + address, ChannelCreds: config.Servers[0].ChannelCreds, API: bootstrap.APISotW,
			DialOptions: config.Servers[0].DialOptions,
		}
	}
	if second != nil {
		config.Servers = append(config.Servers, server(second, "second.test"), config.Servers[0])
	}
	if far != nil {
		config.Authorities = map[string]bootstrap.Authority{"far": {Servers: []bootstrap.Server{server(far, "far.test")}}}
	}
	return config
}

func TestX96_ASourceFallsBackToTheSecondServerOfTheBootstrap(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cp := newControlPlane(t)
		second := adstest.Start(t, adstest.Config{Network: cp.network, Address: "second.test"})
		cp.server.Stop()
		source, err := xds.NewSource(federation(cp, second, nil), xds.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = source.Close() })
		published := watchTarget(source)
		cp.server = second
		serveOne(cp)
		cp.accept()
		updates := published.take()
		if len(updates) != 1 || updates[0].Err != nil || addressOf(updates[0].Value, "a") != "10.0.0.1:1" {
			t.Fatalf("published %+v, want one target", updates)
		}
	})
}

func TestS12_WithOneAuthorityAwayTheNamesOfTheOtherWork(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const farListener = "xdstp://far/envoy.config.listener.v3.Listener/payment:8080"
		cp := newControlPlane(t)
		far := adstest.Start(t, adstest.Config{Network: cp.network, Address: "far.test"})
		source, err := xds.NewSource(federation(cp, nil, far), xds.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = source.Close() })

		here := watchTarget(source)
		serveOne(cp)
		cp.accept()
		if updates := here.take(); len(updates) != 1 || updates[0].Value == nil {
			t.Fatalf("published %+v", updates)
		}
		far.Stop()
		away := new(recorder[*discovery.Target])
		source.WatchTarget("//far/payment:8080", away.notify)
		time.Sleep(time.Minute)
		updates := away.take()
		if len(updates) == 0 || updates[0].Value != nil || !strings.Contains(updates[0].Err.Error(), farListener) {
			t.Fatalf("published %+v, want that the authority is away", updates)
		}
		cp.set(endpoints("a", 2))
		if updates := here.take(); len(updates) != 1 || updates[0].Err != nil || addressOf(updates[0].Value, "a") != "10.0.0.1:2" {
			t.Fatalf("published %+v, want the change and no error", updates)
		}
		unknown := new(recorder[*discovery.Target])
		source.WatchTarget("//nobody/payment:8080", unknown.notify)
		synctest.Wait()
		if updates := unknown.take(); len(updates) != 1 || !strings.Contains(updates[0].Err.Error(), `no authority "nobody"`) {
			t.Errorf("published %+v", updates)
		}
	})
}
