package controlplane

import (
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/controlplane/istio"
	"github.com/inboardmesh/inboard/internal/memnet"
)

// shops are n services with some endpoints each.
func shops(n, endpoints int) []istio.File {
	files := make([]istio.File, n)
	for i := range files {
		var addresses []string
		for j := range endpoints {
			addresses = append(addresses, fmt.Sprintf("10.%d.%d.%d", i/250, i%250, j+1))
		}
		files[i] = service(fmt.Sprintf("s%d", i), addresses...)
	}
	return files
}

// moved are the same with another endpoint for one of them.
func moved(files []istio.File, i int, address string) []istio.File {
	files = slices.Clone(files)
	files[i] = service(fmt.Sprintf("s%d", i), address)
	return files
}

const (
	manyClients  = 1000
	manyServices = 200
	// asked is how many services each client calls.
	asked = 5
)

// called are the services that a client calls.
func called(client int) (names []string) {
	for j := range asked {
		names = append(names, fmt.Sprintf("s%d", (client*asked+j)%manyServices))
	}
	return names
}

// manyStreams connects the clients, each over a connection of its own, half of them
// in each protocol, and lets each ask for what it calls.
func manyStreams(t testing.TB, network *memnet.Network) (deltas []*deltaClient, worlds []*sotwClient) {
	t.Helper()
	for i := range manyClients / 2 {
		deltas = append(deltas, newDelta(t, dial(t, network, "plaintext:1"), node("shop", "")))
		worlds = append(worlds, newSotw(t, dial(t, network, "plaintext:1"), node("shop", "")))
		for _, of := range []struct {
			typeURL string
			name    func(string) string
		}{
			{lds, func(s string) string { return host(s) + ":8080" }}, {rds, cluster}, {cds, cluster}, {eds, cluster},
		} {
			names := make([]string, asked)
			for j, s := range called(i) {
				names[j] = of.name(s)
			}
			slices.Sort(names)
			deltas[i].subscribe(of.typeURL, names...)
			deltas[i].want(of.typeURL, names, nil)
			worlds[i].subscribe(of.typeURL, names...)
			worlds[i].want(of.typeURL, names, names...)
		}
	}
	return deltas, worlds
}

// Of a thousand clients each gets what it asked for, and of a change only those
// hear that it concerns: one resource each.
func TestAThousandClientsGetWhatTheyAskFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		files := shops(manyServices, 3)
		s := mustNew(t, Config{Files: files})
		network := serveMemory(t, s)
		deltas, worlds := manyStreams(t, network)
		synctest.Wait()
		totals := s.Status().Totals
		if want := uint64(manyClients * asked * 4); totals.Resources != want || totals.Streams != manyClients {
			t.Errorf("totals %+v, want %d resources", totals, want)
		}

		mustUpdate(t, s, moved(files, 7, "10.9.9.9")...)
		concerned := 0
		for i := range deltas {
			if !slices.Contains(called(i), "s7") {
				continue
			}
			concerned += 2
			deltas[i].want(eds, []string{cluster("s7")}, nil)
			worlds[i].want(eds, []string{cluster("s7")}, names(i)...)
		}
		for i := range deltas {
			deltas[i].quiet()
			worlds[i].quiet()
		}
		if got, want := s.Status().Totals.Resources-totals.Resources, uint64(concerned); got != want || want == 0 {
			t.Errorf("%d resources sent for one that changed, to %d clients that asked for it", got, want)
		}
	})
}

func names(client int) (all []string) {
	for _, s := range called(client) {
		all = append(all, cluster(s))
	}
	return all
}

// A client that does not read holds up nobody, holds one response and no more, and
// is told to come again after a while.
func TestAClientThatDoesNotReadIsLeftBehind(t *testing.T) {
	t.Parallel()
	for _, protocol := range []string{"delta", "state-of-the-world"} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var logs logBuffer
				const services, changes = 100, 5
				files := shops(services, 40)
				s := mustNew(t, Config{Files: files, Logger: logs.logger()})
				network := serveMemory(t, s)
				good := newDelta(t, dial(t, network, "plaintext:1"), node("good", ""))
				good.subscribe(eds, cluster("s0"))
				good.want(eds, []string{cluster("s0")}, nil)

				var all []string
				for i := range services {
					all = append(all, cluster(fmt.Sprintf("s%d", i)))
				}
				client := discovery.NewAggregatedDiscoveryServiceClient(dial(t, network, "plaintext:1"))
				var recv func() error
				if protocol == "delta" {
					stream, err := client.DeltaAggregatedResources(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					recv = func() error { _, err := stream.Recv(); return err }
					if err := stream.Send(&discovery.DeltaDiscoveryRequest{Node: node("bad", ""), TypeUrl: eds, ResourceNamesSubscribe: all}); err != nil {
						t.Fatal(err)
					}
				} else {
					stream, err := client.StreamAggregatedResources(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					recv = func() error { _, err := stream.Recv(); return err }
					if err := stream.Send(&discovery.DiscoveryRequest{Node: node("bad", ""), TypeUrl: eds, ResourceNames: all}); err != nil {
						t.Fatal(err)
					}
				}
				synctest.Wait()
				start := time.Now()
				sent := s.Status().Totals.Resources
				for i := range changes {
					mustUpdate(t, s, moved(files, 0, fmt.Sprintf("10.8.8.%d", i+1))...)
					good.want(eds, []string{cluster("s0")}, nil)
				}
				if took := time.Since(start); took != 0 {
					t.Errorf("the other client waited for %v", took)
				}
				if got := s.Status().Totals.Resources - sent; got != changes {
					t.Errorf("%d resources were sent for %d changes that one client reads", got, changes)
				}
				if got := len(s.Status().Clients); got != 2 {
					t.Errorf("%d clients", got)
				}
				time.Sleep(stallTime + time.Second)
				synctest.Wait()
				got := s.Status()
				if len(got.Clients) != 1 || got.Clients[0].Namespace != "good" || got.Totals.Stalled != 1 {
					t.Errorf("status %+v, want the one that reads", got)
				}
				if logs.count("client does not answer what it is sent") != 1 {
					t.Errorf("log:\n%s", &logs)
				}
				var err error
				for err == nil {
					err = recv()
				}
				if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "a response was not answered within 2m0s") {
					t.Errorf("the stream ended with %v", err)
				}
				good.quiet()
			})
		})
	}
}

// A client that reads and does not answer gets nothing more of a type, and the
// latest state when it does: nothing queues for it.
func TestAClientThatDoesNotAcknowledgeGetsTheLatestLater(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		files := shops(2, 1)
		s := mustNew(t, Config{Files: files})
		c := newDelta(t, dial(t, serveMemory(t, s), "plaintext:1"), node("shop", ""))
		c.subscribe(eds, cluster("s0"), cluster("s1"))
		first := c.next()
		for i := range 100 {
			time.Sleep(time.Second)
			mustUpdate(t, s, moved(moved(files, 0, fmt.Sprintf("10.8.8.%d", i+1)), 1, fmt.Sprintf("10.7.7.%d", i+1))...)
		}
		c.quiet()
		c.ack(first)
		response := c.want(eds, []string{cluster("s0"), cluster("s1")}, nil)
		for _, r := range response.GetResources() {
			if !strings.Contains(string(r.GetResource().GetValue()), ".100") {
				t.Errorf("%s is not the latest", r.GetName())
			}
		}
		c.quiet()
	})
}

// What a client holds is as good after a restart of the server: versions are made of
// the content.
func TestARestartedServerSendsNothingNewToWhoIsUpToDate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		files := shops(20, 3)
		held := make(map[string]map[string]string) // by type and name
		subscriptions := map[string]string{lds: host("s3") + ":8080", rds: cluster("s3"), cds: cluster("s3"), eds: cluster("s3")}
		order := slices.Sorted(maps.Keys(subscriptions))
		before := mustNew(t, Config{Files: files})
		c := newDelta(t, dial(t, serveMemory(t, before), "plaintext:1"), node("shop", ""))
		for _, typeURL := range order {
			c.subscribe(typeURL, subscriptions[typeURL])
			held[typeURL] = versions(c.want(typeURL, []string{subscriptions[typeURL]}, nil))
		}
		if err := before.Close(); err != nil {
			t.Fatal(err)
		}
		if err := c.end(); err == nil {
			t.Error("the stream did not end")
		}

		after := mustNew(t, Config{Files: files})
		c = newDelta(t, dial(t, serveMemory(t, after), "plaintext:1"), node("shop", ""))
		for _, typeURL := range order {
			c.send(&discovery.DeltaDiscoveryRequest{
				TypeUrl: typeURL, ResourceNamesSubscribe: []string{subscriptions[typeURL]}, InitialResourceVersions: held[typeURL],
			})
		}
		c.quiet()
		if got := after.Status().Totals.Resources; got != 0 {
			t.Errorf("%d resources sent", got)
		}
		mustUpdate(t, after, moved(files, 3, "10.9.9.9")...)
		c.want(eds, []string{cluster("s3")}, nil)
		c.quiet()
	})
}

// BenchmarkThousandClients is one change of an endpoint with a thousand clients
// connected, in memory, until those that it concerns have it. bytes/client is what
// connecting them adds to the heap, both ends together.
func BenchmarkThousandClients(b *testing.B) {
	files := shops(manyServices, 3)
	s := mustNew(b, Config{Files: files})
	network := serveMemory(b, s)
	before := heap()
	start := time.Now()
	deltas, worlds := manyStreams(b, network)
	connect := time.Since(start)
	perClient := float64(heap()-before) / manyClients
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		mustUpdate(b, s, moved(files, 7, fmt.Sprintf("10.9.9.%d", i%250+1))...)
		var wg sync.WaitGroup
		for j := range deltas {
			if slices.Contains(called(j), "s7") {
				wg.Go(func() { deltas[j].want(eds, []string{cluster("s7")}, nil) })
				wg.Go(func() { worlds[j].want(eds, []string{cluster("s7")}, names(j)...) })
			}
		}
		wg.Wait()
	}
	b.ReportMetric(perClient, "bytes/client")
	b.ReportMetric(float64(connect.Milliseconds()), "ms-to-connect")
}

// heap is what is reachable now.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}
