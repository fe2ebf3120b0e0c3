package xds_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	registry "google.golang.org/grpc/xds/bootstrap"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/discovery/bootstrap"
	"github.com/inboardmesh/inboard/discovery/xds"
	"github.com/inboardmesh/inboard/observe"
)

// addressOf returns the only endpoint of a cluster of a target.
func addressOf(target *discovery.Target, cluster string) string {
	result := target.Clusters[cluster]
	if result.Endpoints == nil || len(result.Endpoints.Localities) != 1 {
		return fmt.Sprintf("no endpoint: %+v", result)
	}
	return result.Endpoints.Localities[0].Endpoints[0].Address
}

// serveOne sets resources in which the destination is served by cluster a.
func serveOne(c *controlPlane) {
	c.set(apiListener("r"), routes("r", "a"), cluster("a"), endpoints("a", 1))
}

func TestX66_TheWholeTreeIsFollowedAndPublishedOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cp := newControlPlane(t)
		serveOne(cp)
		published := watchTarget(cp.source())
		cp.accept()
		updates := published.take()
		if len(updates) != 1 || updates[0].Err != nil || updates[0].Value == nil {
			t.Fatalf("published %+v, want one target", updates)
		}
		target := updates[0].Value
		if target.Name != destination || target.Routes.Name != "r" || addressOf(target, "a") != "10.0.0.1:1" {
			t.Errorf("published %+v", target)
		}
		if nacks := cp.nacks(); nacks != "" {
			t.Errorf("rejected: %s", nacks)
		}

		node := cp.requests[0].Node
		if node.GetId() != "web-1" || node.GetCluster() != "web" || node.GetUserAgentName() != "inboard" ||
			node.GetUserAgentVersion() == "" || node.GetMetadata().AsMap()["NAMESPACE"] != "shop" {
			t.Errorf("node %v", node)
		}
		if features := node.GetClientFeatures(); !slices.Contains(features, "xds.config.resource-in-sotw") ||
			slices.Contains(features, "envoy.lb.does_not_support_overprovisioning") {
			t.Errorf("client features %q", features)
		}
	})
}

func TestX67_TrafficStaysOnTheOldClusterUntilTheNewOneHasEndpoints(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cp := newControlPlane(t)
		serveOne(cp)
		published := watchTarget(cp.source())
		cp.accept()
		published.take()
		cp.set(routes("r", "c2"))
		cp.set(cluster("c2"))
		published.none(t)
		cp.set(endpoints("a", 2))
		if got := addressOf(published.last(t).Value, "a"); got != "10.0.0.1:2" {
			t.Errorf("endpoint %q of the cluster in use, want the new one", got)
		}
		cp.set(endpoints("c2", 3))
		updates := published.take()
		if len(updates) != 1 || len(updates[0].Value.Clusters) != 1 || addressOf(updates[0].Value, "c2") != "10.0.0.1:3" {
			t.Errorf("published %+v, want one switch to c2", updates)
		}
		if got := cp.asked[clusterURL]; !slices.Equal(got, []string{"c2"}) {
			t.Errorf("clusters %q are still subscribed", got)
		}
	})
}

func TestX68_AClusterThatChangesKeepsItsEndpoints(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cp := newControlPlane(t)
		serveOne(cp)
		published := watchTarget(cp.source())
		cp.accept()
		before := published.last(t).Value
		changed := cluster("a")
		changed.LbPolicy = clusterv3.Cluster_RANDOM
		cp.set(changed)
		after := published.last(t).Value
		if after.Clusters["a"].Cluster == before.Clusters["a"].Cluster || after.Clusters["a"].Endpoints != before.Clusters["a"].Endpoints {
			t.Errorf("cluster %+v, want new settings with the old endpoints", after.Clusters["a"])
		}
		if after.Routes != before.Routes || after.Listener != before.Listener {
			t.Error("what did not change has new pointers")
		}
	})
}

func TestX12_ARepetitionIsNotPublished(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cp := newControlPlane(t)
		serveOne(cp)
		published := watchTarget(cp.source())
		cp.accept()
		published.take()
		serveOne(cp)
		published.none(t)
	})
}

func TestS06_OneBadClusterOfThree(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cp := newControlPlane(t)
		bad := cluster("c")
		bad.LbPolicy = clusterv3.Cluster_CLUSTER_PROVIDED
		cp.set(apiListener("r"), routes("r", "a", "b", "c"), cluster("a"), endpoints("a", 1), cluster("b"), endpoints("b", 2), bad)
		source := cp.source()
		published := watchTarget(source)
		cp.accept()
		update := published.last(t)
		if update.Err != nil || addressOf(update.Value, "a") != "10.0.0.1:1" || addressOf(update.Value, "b") != "10.0.0.1:2" {
			t.Fatalf("published %+v, want a and b to serve", update)
		}
		if err := update.Value.Clusters["c"].Err; err == nil || !strings.Contains(err.Error(), "CLUSTER_PROVIDED") {
			t.Errorf("cluster c: %v, want why it was rejected", err)
		}
		var states []string
		for _, r := range source.Dump() {
			if r.Type == "Cluster" {
				states = append(states, r.Name+" "+r.State)
			}
		}
		if want := []string{"a ACKED", "b ACKED", "c NACKED"}; !slices.Equal(states, want) {
			t.Errorf("states %q, want %q", states, want)
		}
		if nacks := cp.nacks(); !strings.Contains(nacks, "CLUSTER_PROVIDED") {
			t.Errorf("NACK %q", nacks)
		}
	})
}

func TestS02_StartWithTheControlPlaneDown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cp := newControlPlane(t)
		serveOne(cp)
		cp.stop()
		published := watchTarget(cp.source())
		time.Sleep(20 * time.Second)
		update := published.last(t)
		if update.Value != nil || update.Err == nil || errors.Is(update.Err, discovery.ErrNotFound) ||
			!strings.Contains(update.Err.Error(), "unavailable") {
			t.Errorf("published %+v, want the reason", update)
		}
		cp.server.Restart()
		cp.accept()
		if update := published.last(t); update.Value == nil || update.Err != nil {
			t.Errorf("published %+v, want the target", update)
		}
	})
}

func TestS03_AMissingListenerIsNotFoundAfter15sAndMayComeLater(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cp := newControlPlane(t)
		source := cp.source()
		published := watchTarget(source)
		other := &recorder[*discovery.Target]{}
		cp.accept() // answers with an empty list of Listeners
		time.Sleep(14 * time.Second)
		published.none(t)
		time.Sleep(2 * time.Second)
		if update := published.last(t); update.Value != nil || !errors.Is(update.Err, discovery.ErrNotFound) || !strings.Contains(update.Err.Error(), destination) {
			t.Errorf("published %+v, want ErrNotFound with the name", update)
		}
		source.WatchTarget(destination, other.notify) // a second watch hears it at once
		synctest.Wait()
		if update := other.last(t); !errors.Is(update.Err, discovery.ErrNotFound) {
			t.Errorf("published %+v, want ErrNotFound", update)
		}
		serveOne(cp)
		if update := published.last(t); update.Value == nil || update.Err != nil {
			t.Errorf("published %+v, want the target", update)
		}
	})
}

func TestS05_TheLastGoodVersionServesWhileTheNewOneIsRejected(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cp := newControlPlane(t)
		serveOne(cp)
		published := watchTarget(cp.source())
		cp.accept()
		good := published.last(t).Value
		bad := cluster("a")
		bad.LbPolicy = clusterv3.Cluster_CLUSTER_PROVIDED
		cp.set(bad)
		if update := published.last(t); update.Value != good || update.Err == nil || !strings.Contains(update.Err.Error(), "CLUSTER_PROVIDED") {
			t.Errorf("published %+v, want the last good target with the reason", update)
		}
		cp.set(cluster("a"))
		if update := published.last(t); update.Value != good || update.Err != nil {
			t.Errorf("published %+v, want the same target without an error", update)
		}
	})
}

func TestX26_ALostControlPlaneChangesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cp := newControlPlane(t)
		serveOne(cp)
		published := watchTarget(cp.source())
		cp.accept()
		before := published.last(t).Value
		cp.stop()
		time.Sleep(time.Hour)
		if update := published.last(t); update.Value != before || update.Err == nil || errors.Is(update.Err, discovery.ErrNotFound) {
			t.Errorf("published %+v, want the same target with an ambient error", update)
		}
		cp.server.Restart()
		cp.version = 0 // its versions begin again
		cp.accept()
		if update := published.last(t); update.Value != before || update.Err != nil {
			t.Errorf("published %+v, want the same target without an error", update)
		}
	})
}

func TestX28_AControlPlaneThatVanishesIsNoticedWithinAMinute(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cp := newControlPlane(t)
		serveOne(cp)
		broken := make(chan time.Time, 100)
		source, err := xds.NewSource(cp.config(), xds.Options{Hooks: observe.Hooks{StreamChanged: func(e observe.StreamEvent) {
			if !e.Connected {
				broken <- time.Now()
			}
		}}})
		if err != nil {
			t.Fatal(err)
		}
		published := watchTarget(source)
		cp.accept()
		before := published.last(t).Value
		cp.server.Freeze()
		frozen := time.Now()
		if noticed := (<-broken).Sub(frozen); noticed > time.Minute {
			t.Errorf("noticed after %v", noticed)
		}
		if err := source.Close(); err != nil {
			t.Error(err)
		}
		for _, update := range published.take() {
			if update.Value != before {
				t.Errorf("published %+v, want the same target all the time", update)
			}
		}
	})
}

func TestX40_X41_ARemovedCluster(t *testing.T) {
	t.Run("is kept by default", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			cp := newControlPlane(t)
			serveOne(cp)
			published := watchTarget(cp.source())
			cp.accept()
			before := published.last(t).Value
			cp.remove(clusterURL, "a")
			if update := published.last(t); update.Value != before || update.Err == nil || errors.Is(update.Err, discovery.ErrNotFound) {
				t.Errorf("published %+v, want the same target with an ambient error", update)
			}
			cp.set(cluster("a"))
			if update := published.last(t); update.Value != before || update.Err != nil {
				t.Errorf("published %+v, want the same target without an error", update)
			}
		})
	})
	t.Run("is dropped with its endpoints if the server says so, and comes back with them", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			cp := newControlPlane(t)
			serveOne(cp)
			published := watchTarget(cp.source(bootstrap.FeatureFailOnDataErrors))
			cp.accept()
			published.take()
			cp.remove(clusterURL, "a")
			if update := published.last(t); update.Value == nil || update.Value.Clusters["a"].Err == nil {
				t.Errorf("published %+v, want the cluster's error", update)
			}
			if asked := cp.asked[endpointURL]; len(asked) != 0 {
				t.Errorf("endpoints %q are still subscribed", asked)
			}
			cp.set(cluster("a"))
			if update := published.last(t); update.Err != nil || addressOf(update.Value, "a") != "10.0.0.1:1" {
				t.Errorf("published %+v, want the cluster with its endpoints", update)
			}
		})
	})
}

func TestX42_InlineRoutesReplaceNamedOnes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cp := newControlPlane(t)
		serveOne(cp)
		published := watchTarget(cp.source())
		cp.accept()
		published.take()
		cp.set(inlineListener("a", "b"), cluster("b"), endpoints("b", 2))
		updates := published.take()
		if len(updates) != 1 || len(updates[0].Value.Clusters) != 2 {
			t.Errorf("published %+v, want one switch", updates)
		}
		if asked := cp.asked[routeURL]; len(asked) != 0 {
			t.Errorf("route tables %q are still subscribed", asked)
		}
	})
}

func TestX73_AServerListenerIsPublishedWithItsRoutes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cp := newControlPlane(t)
		cp.set(serverListener("in"))
		published := &recorder[*discovery.Inbound]{}
		stop := cp.source().WatchInbound("0.0.0.0:8080", published.notify)
		cp.accept()
		published.none(t)
		cp.set(serverRoutes("in"))
		update := published.last(t)
		if update.Err != nil || update.Value == nil || update.Value.Default.Routes.Name != "in" {
			t.Fatalf("published %+v", update)
		}
		stop()
		stop()
		cp.set(serverListener("other"), serverRoutes("other"))
		published.none(t)
	})
}

func TestAServerListenerNeedsATemplate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cp := newControlPlane(t)
		config := cp.config()
		config.ServerListenerTemplate = ""
		source, err := xds.NewSource(config, xds.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer source.Close()
		published := &recorder[*discovery.Inbound]{}
		stop := source.WatchInbound("0.0.0.0:8080", published.notify)
		synctest.Wait()
		const want = `listener "0.0.0.0:8080": the bootstrap has no server_listener_resource_name_template`
		if update := published.last(t); update.Value != nil || update.Err == nil || !strings.HasPrefix(update.Err.Error(), want) {
			t.Errorf("published %+v, want %s", update, want)
		}
		stop()
	})
}

func TestX77_AnAssignmentWithoutEndpointsIsPublished(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cp := newControlPlane(t)
		cp.set(apiListener("r"), routes("r", "a"), cluster("a"), endpoints("a", 0))
		published := watchTarget(cp.source())
		cp.accept()
		update := published.last(t)
		if result := update.Value.Clusters["a"]; update.Err != nil || result.Err != nil || result.Endpoints == nil || len(result.Endpoints.Localities) != 0 {
			t.Errorf("published %+v, want a cluster without endpoints", update)
		}
		if nacks := cp.nacks(); nacks != "" {
			t.Errorf("rejected: %s", nacks)
		}
	})
}

func TestX75_TheLastOfManyUpdatesWins(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cp := newControlPlane(t)
		serveOne(cp)
		block := make(chan struct{})
		var seen []string
		source := cp.source()
		source.WatchTarget(destination, func(u discovery.Update[*discovery.Target]) {
			seen = append(seen, addressOf(u.Value, "a"))
			<-block
		})
		cp.accept()
		for port := range 100 {
			cp.set(endpoints("a", 1000+port))
		}
		close(block)
		synctest.Wait()
		if want := []string{"10.0.0.1:1", "10.0.0.1:1099"}; !slices.Equal(seen, want) {
			t.Errorf("a slow watcher saw %q, want the first and the last", seen)
		}
	})
}

func TestCloseEndsEverything(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cp := newControlPlane(t)
		serveOne(cp)
		source := cp.source()
		published := &recorder[*discovery.Target]{}
		stop := source.WatchTarget(destination, published.notify)
		cp.accept()
		published.take()
		if err := source.Close(); err != nil {
			t.Error(err)
		}
		if err := source.Close(); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if n := cp.server.Open(); n != 0 {
			t.Errorf("%d connections are open", n)
		}
		stop()
		source.WatchTarget(destination, published.notify)()
		source.WatchInbound("0.0.0.0:8080", func(discovery.Update[*discovery.Inbound]) { t.Error("told after Close") })
		published.none(t)
	})
}

func TestX103_WatchingAndLeavingKeepsNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cp := newControlPlane(t)
		serveOne(cp)
		source := cp.source()
		source.WatchTarget("other:1", func(discovery.Update[*discovery.Target]) {}) // keeps the stream
		cp.accept()
		for range 100 {
			published := &recorder[*discovery.Target]{}
			stop := source.WatchTarget(destination, published.notify)
			cp.run()
			if update := published.last(t); update.Value == nil {
				t.Fatalf("published %+v", update)
			}
			stop()
			cp.run()
			if dump := source.Dump(); len(dump) != 5 {
				t.Fatalf("%d resources are known, want those of the destination once, and the one that is watched: %+v", len(dump), dump)
			}
		}
		time.Sleep(5 * time.Minute) // for which the last one is followed
		cp.run()
		if dump := source.Dump(); len(dump) != 1 {
			t.Errorf("%d resources are known, want the one that is watched: %+v", len(dump), dump)
		}
	})
}

func TestX102_WatchesComeAndGoFromManyGoroutines(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cp := newControlPlane(t)
		serveOne(cp)
		source := cp.source()
		published := watchTarget(source)
		cp.accept()
		published.take()
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for range 50 {
					served := make(chan struct{})
					ready := make(chan struct{})
					var stop func()
					stop = source.WatchTarget(destination, func(u discovery.Update[*discovery.Target]) {
						if u.Value == nil {
							t.Errorf("told %+v", u)
						}
						<-ready // stop is set
						stop()
						close(served)
					})
					close(ready)
					<-served
					stop()
				}
			})
		}
		for port := range 20 {
			cp.set(endpoints("a", 100+port))
		}
		wg.Wait()
		if got := addressOf(published.last(t).Value, "a"); got != "10.0.0.1:119" {
			t.Errorf("endpoint %q, want the last", got)
		}
		if dump := source.Dump(); len(dump) != 4 {
			t.Errorf("%d resources are known, want the four that are watched", len(dump))
		}
	})
}

func TestNewSourceReportsABadBootstrap(t *testing.T) {
	t.Parallel()
	_, err := xds.NewSource(&bootstrap.Config{}, xds.Options{})
	const want = "bootstrap: $.xds_servers: is required: a list with at least one server"
	if err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

// counted is a type of channel credentials that counts what is not released.
type counted struct{ held *atomic.Int32 }

func (counted) Name() string { return "inboard_test_counted" }

func (c counted) Build(json.RawMessage) (credentials.Bundle, func(), error) {
	c.held.Add(1)
	return insecure.NewBundle(), func() { c.held.Add(-1) }, nil
}

func TestCredentialsAreReleased(t *testing.T) {
	var held atomic.Int32
	registry.RegisterChannelCredentials(counted{&held})
	synctest.Test(t, func(t *testing.T) {
		cp := newControlPlane(t)
		cp.stop()
		config := cp.config()
		config.Servers[0].ChannelCreds.Type = "inboard_test_counted"
		source, err := xds.NewSource(config, xds.Options{})
		if err != nil {
			t.Fatal(err)
		}
		watchTarget(source)
		time.Sleep(time.Minute) // dials again and again
		if n := held.Load(); n != 1 {
			t.Errorf("%d sets of credentials are held, want one", n)
		}
		if err := source.Close(); err != nil {
			t.Error(err)
		}
		if n := held.Load(); n != 0 {
			t.Errorf("%d sets of credentials are held after Close", n)
		}
	})
}
