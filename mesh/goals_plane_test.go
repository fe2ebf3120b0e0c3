package mesh_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/inboardmesh/inboard/discovery/bootstrap"
	"github.com/inboardmesh/inboard/discovery/xds"
	"github.com/inboardmesh/inboard/internal/cputime"
	"github.com/inboardmesh/inboard/mesh"
)

// The goals that have to do with the control plane, in fake time. The long forms
// are those of docs/reliability.md.
var (
	planeOutage  = flag.Duration("plane.outage", time.Minute, "how long the control plane is away in TestG3")
	planeCuts    = flag.Duration("plane.cuts", time.Minute, "how long TestG4 cuts streams")
	planePoison  = flag.Int("plane.poison", 2000, "bad responses in TestG11")
	planeUpdates = flag.Duration("plane.updates", time.Minute, "how long TestG13 updates")
	planeHuge    = flag.Int("plane.huge", 2000, "clusters in TestG12 and TestX43")
	planeReal    = flag.Duration("plane.real", 0, "how long each part of TestG12_G13_LatencyInRealTime takes; 0 skips it")
)

func TestG3_AControlPlaneThatDiesAndForgetsFailsNoCall(t *testing.T) {
	t.Parallel()
	onGround(t, func(g *ground) {
		g.payment(1)
		g.payment(2)
		g.plane.Set(tree(1)...)
		g.plane.Set(tree(1)...) // at versions that the next life of the server does not reach
		g.works()
		calls := g.traffic(20)
		g.plane.Server.Stop()
		g.plane.Set(tree(2)...)
		time.Sleep(*planeOutage)
		if last := calls.lastCall(1); time.Since(last) > time.Second {
			g.t.Errorf("no call for %v while the control plane is away", time.Since(last))
		}
		g.plane.Restarted()
		g.plane.Server.Restart()
		back := time.Now()
		// The back-off is as long as the outage at most, and 120 s.
		time.Sleep(min(*planeOutage, 120*time.Second)*12/10 + 5*time.Second)
		if first := calls.firstCall(2); first.IsZero() {
			g.t.Error("the new configuration is not in force")
		} else {
			g.t.Logf("back after %v", first.Sub(back))
		}
		calls.report(int(planeOutage.Seconds()) * 20)
	})
}

func TestG4_AControlPlaneThatIsCutAllTheTimeFailsNoCall(t *testing.T) {
	t.Parallel()
	onGround(t, func(g *ground) {
		g.payment(1)
		g.plane.Set(tree(1)...)
		g.works()
		calls := g.traffic(20)
		for start := time.Now(); time.Since(start) < *planeCuts; {
			time.Sleep(2 * time.Second)
			g.plane.Server.Stop() // with all connections
			g.plane.Touch(endpointURL)
			g.plane.Server.Restart()
		}
		if n := perSecond(g.plane.Server.Connects()); n > 1 {
			g.t.Errorf("%d connections within a second", n)
		}
		calls.report(int(planeCuts.Seconds()) * 19)
	})
}

// mangle returns bytes that are not a valid resource of the type.
func mangle(r *rand.Rand, typeURL string, body []byte) []byte {
	for range 1 + r.IntN(4) {
		if len(body) == 0 {
			break
		}
		at := r.IntN(len(body))
		switch r.IntN(6) {
		case 0:
			body[at] ^= 1 << r.IntN(8)
		case 1:
			body[at] = byte(r.Uint32())
		case 2:
			body = body[:at]
		case 3:
			body = append(body[:at:at], append(make([]byte, r.IntN(20)), body[at:]...)...)
		case 4:
			body = append(body, body[at:]...)
		case 5:
			body = append(body[:at:at], body[min(at+r.IntN(20), len(body)):]...)
		}
	}
	if xds.Check(typeURL, body) == nil {
		body = append(body, 0x07) // no tag of a field begins so
	}
	return body
}

func TestG11_AMinuteOfPoisonFailsNoCall(t *testing.T) {
	t.Parallel()
	onGround(t, func(g *ground) {
		g.payment(1)
		g.payment(2)
		g.plane.Set(tree(1)...)
		g.works()
		calls := g.traffic(20)
		random := rand.New(rand.NewPCG(1, 2))
		urls := []string{listenerURL, routeURL, clusterURL, endpointURL}
		before := heap()
		g.plane.Mutate(func(typeURL string, body []byte) []byte { return mangle(random, typeURL, body) })
		for range *planePoison {
			g.plane.Touch(urls[random.IntN(len(urls))])
			time.Sleep(10 * time.Millisecond)
			g.plane.Requests() // or they pile up
		}
		time.Sleep(2 * time.Second)
		answers := g.plane.Answers()
		// A few are acknowledged: what is bad has the name of something else.
		if answers.Sent < *planePoison || answers.Answered != answers.Sent || answers.Rejected < *planePoison*9/10 || answers.Slowest > time.Second {
			g.t.Errorf("answers %+v of %d bad responses", answers, *planePoison)
		}
		if grown := heap() - before; grown > 20<<20 {
			g.t.Errorf("the heap has grown by %d bytes", grown)
		}
		// What is good again is in force at once.
		g.plane.Mutate(nil)
		for _, url := range urls {
			g.plane.Touch(url)
		}
		g.plane.Set(tree(2)...)
		time.Sleep(2 * time.Second)
		if last := calls.lastCall(1); time.Since(last) < time.Second {
			g.t.Error("the configuration after the poison is not in force")
		}
		calls.report(*planePoison / 100 * 20)
	})
}

// heap is what is in use after a collection.
func heap() int64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}

func TestG13_TheLastOfAHundredUpdatesASecondWins(t *testing.T) {
	t.Parallel()
	onGround(t, func(g *ground) {
		const payments = 5
		for number := range payments {
			g.payment(number)
		}
		g.plane.Set(tree(0)...)
		g.works()
		calls := g.traffic(20)
		time.Sleep(5 * time.Second)
		baseline := calls.p99()
		updates := int(planeUpdates.Seconds() * 100)
		for n := range updates {
			g.plane.Set(groundEndpoints(n % payments)...)
			time.Sleep(10 * time.Millisecond)
		}
		// Time is fake: what a call takes is what it waits for.
		if p99 := calls.p99(); p99 > 2*baseline {
			g.t.Errorf("p99 is %v under updates, %v without", p99, baseline)
		}
		last := (updates - 1) % payments
		settled := time.Now().Add(time.Second)
		time.Sleep(5 * time.Second)
		for number := range payments {
			if at := calls.lastCall(number); number != last && at.After(settled) {
				g.t.Errorf("payment %d was called %v after the last update", number, at.Sub(settled))
			}
		}
		calls.report(int(planeUpdates.Seconds() * 19))
	})
}

// Many control planes push everything when anything has changed.
func TestG13_X32_WhatIsPushedAgainDoesNotDelayTheLastUpdate(t *testing.T) {
	t.Parallel()
	onGround(t, func(g *ground) {
		for number := range 2 {
			g.payment(number)
		}
		g.plane.Set(tree(0)...)
		g.works()
		calls := g.traffic(20)
		for n := range int(planeUpdates.Seconds()) * 20 {
			g.plane.Touch(listenerURL)
			g.plane.Touch(routeURL)
			g.plane.Touch(clusterURL)
			g.plane.Set(assignment("80", groundHTTP, 1+n%2, 0))
			time.Sleep(50 * time.Millisecond)
			g.plane.Requests() // or they pile up
		}
		g.plane.Set(groundEndpoints(1)...)
		settled := time.Now().Add(time.Second)
		time.Sleep(5 * time.Second)
		if at := calls.lastCall(0); at.After(settled) {
			g.t.Errorf("the endpoint before was called %v after the last update", time.Second+at.Sub(settled))
		}
		if slowest := g.plane.Answers().Slowest; slowest > time.Second {
			g.t.Errorf("an answer took %v", slowest)
		}
		calls.report(int(planeUpdates.Seconds() * 19))
	})
}

// hugeRoutes has a route for each of many clusters: "/c-17".
func hugeRoutes(names []string) *routev3.RouteConfiguration {
	routes := make([]string, 0, len(names)+1)
	for _, name := range names {
		routes = append(routes, fmt.Sprintf(`{"match": {"path": "/%s"}, "route": {"cluster": %q}}`, name, name))
	}
	routes = append(routes, fmt.Sprintf(`{"match": {"prefix": "/"}, "route": {"cluster": %q}}`, groundHTTP))
	return parsed(&routev3.RouteConfiguration{}, `{"name": %q, "virtualHosts": [{"name": "h", "domains": ["*"], "routes": [%s]}]}`,
		groundHTTP, strings.Join(routes, ","))
}

// generation is clusters with endpoints that nobody has seen before.
func generation(number, clusters int, endpoints func(name string) *endpointv3.ClusterLoadAssignment) (names []string, all []proto.Message) {
	for i := range clusters {
		name := fmt.Sprintf("c-%d-%d", number, i)
		names = append(names, name)
		all = append(all, groundCluster(name), endpoints(name))
	}
	return names, append(all, hugeRoutes(names))
}

func (g *ground) get(path string) error {
	req, err := http.NewRequestWithContext(g.t.Context(), http.MethodGet, "http://"+groundHost+":"+groundHTTP+path, nil)
	if err != nil {
		return err
	}
	resp, err := g.client.Do(req)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d", resp.StatusCode)
	}
	resp.Body.Close()
	return err
}

func TestX43_V49_DeletingManyClustersWithIdleConnectionsStallsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGround(t, delta)
		g.payment(1)
		g.plane.Set(tree(1)...)
		g.works()
		idle := runtime.NumGoroutine()
		names, resources := generation(0, *planeHuge, func(name string) *endpointv3.ClusterLoadAssignment {
			return assignment(name, groundHTTP, 1, 1)
		})
		g.plane.Set(resources...)
		synctest.Wait()
		for _, name := range names {
			if err := g.get("/" + name); err != nil {
				t.Fatal(err)
			}
		}
		open := runtime.NumGoroutine()
		calls := g.traffic(100)
		before := allocated()
		g.plane.Set(groundRoutes(groundHTTP, groundHTTP))
		g.plane.Remove(clusterURL, names...)
		g.plane.Remove(endpointURL, names...)
		synctest.Wait()
		// Fake time stands still while a processor works. What a cluster costs does not:
		// anything done for each of them once more for each of them shows here.
		each := (allocated() - before) / uint64(len(names))
		closed := runtime.NumGoroutine()
		if each > 8<<10 {
			t.Errorf("%d bytes allocated for each of %d clusters", each, len(names))
		}
		if closed > idle+50 {
			t.Errorf("connections are not closed at once: %d goroutines, before the clusters came %d", closed, idle)
		}
		time.Sleep(time.Minute)
		if p99 := calls.p99(); p99 > 10*time.Millisecond {
			t.Errorf("calls took %v meanwhile (p99)", p99)
		}
		calls.report(5900)
		t.Logf("%d clusters deleted, %d bytes allocated for each; goroutines %d, with connections %d, after %d",
			len(names), each, idle, open, closed)
		if n := len(g.mesh.Resources()); n != 8 {
			t.Errorf("%d resources are known", n)
		}
		if after := runtime.NumGoroutine(); after > idle+50 {
			t.Errorf("%d goroutines, before the clusters came %d", after, idle)
		}
	})
}

// allocated is how many bytes the process has allocated so far.
func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

// used is the processor time of the process.
func used() time.Duration {
	d, _ := cputime.Used()
	return d
}

// ten are the hosts of each endpoint of a huge configuration.
var ten = []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}

// huge are the endpoints of a cluster: 25 MiB for 10,000 of them.
func huge(name string) *endpointv3.ClusterLoadAssignment {
	a := assignment(name, groundHTTP, 1, ten...)
	for _, e := range a.GetEndpoints()[0].GetLbEndpoints() {
		e.GetEndpoint().Hostname = strings.Repeat("h", 200)
	}
	return a
}

func delta(c *bootstrap.Config) { c.Servers[0].API = bootstrap.APIDelta }

func TestG12_V50_AHugeConfigurationComesAndGoes(t *testing.T) {
	t.Run("without a disk", func(t *testing.T) { hugeComesAndGoes(t, "") })
	t.Run("kept on disk", func(t *testing.T) { hugeComesAndGoes(t, t.TempDir()) })
}

func hugeComesAndGoes(t *testing.T, dir string) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroundWith(t, []mesh.Option{mesh.LastKnownGood{Dir: dir}}, delta)
		g.payment(1)
		g.plane.Set(tree(1)...)
		g.works()
		calls := g.traffic(20)
		time.Sleep(5 * time.Second)
		baseline := calls.p99()
		before := heap()
		for round := range 3 {
			names, resources := generation(round, *planeHuge, huge)
			wire := 0
			for _, m := range resources {
				wire += proto.Size(m)
			}
			planeAndTest := heap() - before
			g.plane.Set(resources...)
			resources = nil //nolint:ineffassign,wastedassign // what the test holds does not count
			start := used()
			time.Sleep(time.Second)
			synctest.Wait()
			if got := g.resource(clusterURL, names[len(names)-1]); got.State != "ACKED" {
				t.Fatalf("the last cluster is %+v", got)
			}
			if err := g.get("/" + names[len(names)-1]); err != nil {
				t.Log(err) // only one of the ten endpoints is there
			}
			grown := heap() - before - planeAndTest
			t.Logf("round %d: %d clusters, %d bytes on the wire, heap %+d, in %v", round, len(names), wire, grown, used()-start)
			limit := int64(8 * wire)
			if dir != "" {
				limit += 2 << 20 // what the disk's writer holds at this moment
			}
			if grown > limit {
				t.Errorf("the heap grew by %d bytes for %d on the wire", grown, wire)
			}
			if round == 0 && dir != "" {
				time.Sleep(10 * time.Second)
				hugeFromDisk(t, g, dir)
			}
			g.plane.Set(groundRoutes(groundHTTP, groundHTTP))
			g.plane.Remove(clusterURL, names...)
			g.plane.Remove(endpointURL, names...)
			time.Sleep(30 * time.Second)
			if n := len(g.mesh.Resources()); n != 8 {
				t.Errorf("%d resources are known", n)
			}
		}
		if dir != "" {
			calls.end()
			time.Sleep(12 * time.Minute) // what was left is kept for the next start for a while
		}
		if p99 := calls.p99(); p99 > 2*baseline {
			t.Errorf("p99 is %v under updates, %v without", p99, baseline)
		}
		// What is left is the test's own control plane, with the last request of each
		// type, in which all names of a generation were taken back.
		if grown := heap() - before; grown > 16<<20 {
			t.Errorf("the heap grew by %d bytes over three generations", grown)
		}
		calls.report(1800)
	})
}

// hugeFromDisk starts a second process with the same identity and directory, which
// does not reach the control plane.
func hugeFromDisk(t *testing.T, g *ground, dir string) {
	t.Helper()
	if s := g.mesh.ConfigSource(); s.Written.IsZero() || s.NotWritten != nil {
		t.Fatalf("nothing was written: %+v", s)
	}
	away := g.server("xds.test")
	away.API = bootstrap.APIDelta
	away.DialOptions = []grpc.DialOption{grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
		return nil, errors.New("the control plane is away")
	})}
	start := used()
	m, err := mesh.New(t.Context(), mesh.WithLogger(slog.New(slog.DiscardHandler)), mesh.LastKnownGood{Dir: dir},
		mesh.WithBootstrap(&bootstrap.Config{Servers: []bootstrap.Server{away}, Node: bootstrap.Node{ID: "customer-1"}}),
		mesh.Network{Dial: g.network.DialContext}, mesh.WithOutboundPolicy(mesh.RegistryOnly))
	if err != nil {
		t.Fatal(err)
	}
	second := &ground{t: t, network: g.network, mesh: m, client: m.HTTPClient()}
	if payment, err := second.callHTTP(t.Context()); payment != "1" || err != nil {
		t.Errorf("answered by %q, %v", payment, err)
	}
	// What belongs to the other port is not asked for here.
	s := m.ConfigSource()
	t.Logf("from disk: %d resources, used after %v", s.LastKnownGood, used()-start)
	if want := 2**planeHuge + 4; s.LastKnownGood != want || s.Live != 0 || s.Others != 1 || s.Refused != nil {
		t.Errorf("configuration from %+v, want %d resources from disk", s, want)
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
}

// routedTo is the cluster that a path goes to.
func (g *ground) routedTo(path string) string {
	req, err := http.NewRequestWithContext(g.t.Context(), http.MethodGet, "http://"+groundHost+":"+groundHTTP+path, nil)
	if err != nil {
		g.t.Fatal(err)
	}
	explanation, err := g.mesh.Explain(req)
	if err != nil || explanation.Cluster == nil {
		return ""
	}
	return explanation.Cluster.Name
}

// TestG12_G13_LatencyInRealTime is the part of these goals that fake time cannot
// show: what a call costs while updates are applied on the same processors.
func TestG12_G13_LatencyInRealTime(t *testing.T) {
	if *planeReal == 0 {
		t.Skip("-plane.real says how long each part takes")
	}
	g := newGroundWith(t, []mesh.Option{mesh.LastKnownGood{Dir: t.TempDir()}}, delta)
	g.payment(1)
	g.payment(2)
	g.plane.Set(tree(1)...)
	g.works()
	calls := g.traffic(200)
	part := func(what string, change func(n int)) time.Duration {
		calls.again()
		updates := time.NewTicker(10 * time.Millisecond)
		defer updates.Stop()
		for n := range int(*planeReal / (10 * time.Millisecond)) {
			<-updates.C
			change(n)
		}
		p99 := calls.p99()
		t.Logf("%s: p99 %v", what, p99)
		return p99
	}
	baseline := part("without updates", func(int) {})
	updated := part("100 updates a second, of weights", func(n int) {
		for _, port := range []string{groundHTTP, groundGRPC} {
			g.plane.Set(assignment(port, port, 1+n%2, 1, 2))
		}
	})
	// Each of these costs the next calls a connection: it is told, and not held to.
	part("100 updates a second, of endpoints", func(n int) { g.plane.Set(groundEndpoints(1 + n%2)...) })
	names, resources := generation(0, *planeHuge, huge)
	start := time.Now()
	var applied time.Duration
	hugely := part(fmt.Sprintf("%d clusters come", *planeHuge), func(n int) {
		if n == 0 {
			start = time.Now()
			g.plane.Set(resources...)
		}
		if applied == 0 && n%10 == 0 && g.routedTo("/"+names[0]) == names[0] {
			applied = time.Since(start)
		}
	})
	t.Logf("%d clusters were in force after %v", *planeHuge, applied)
	// With two processors one of them decodes: what that costs depends on what else
	// runs, and is told.
	t.Logf("p99 is %.1f times that without updates while they come", float64(hugely)/float64(baseline))
	if updated > 2*baseline {
		t.Errorf("p99 is %v under updates, %v without", updated, baseline)
	}
	if applied == 0 || applied > 5*time.Second {
		t.Errorf("the huge configuration was in force after %v (0 is never)", applied)
	}
	calls.report(0)
}
