package mesh_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/inboardmesh/inboard/discovery/bootstrap"
	"github.com/inboardmesh/inboard/internal/adstest"
	"github.com/inboardmesh/inboard/internal/cputime"
	"github.com/inboardmesh/inboard/internal/memnet"
	"github.com/inboardmesh/inboard/mesh"
)

// BenchmarkEndpoints is a cluster of so many endpoints, of which one is called:
// "B/endpoint" is what each of the idle ones holds in memory. Then one of them
// changes, and ns/op is the time from the control plane's setting it to the first
// call that goes there; cpu-ns/op is the processor time of both, control-cpu-ns/op
// that of a control plane which has nobody to tell: it packs the resource.
func BenchmarkEndpoints(b *testing.B) {
	for _, n := range []int{1_000, 10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			w := newCrowd(b, n)
			before := liveHeap()
			if err := w.call(); err != nil {
				b.Fatal(err)
			}
			held := float64(liveHeap()-before) / float64(n)

			start, ok := cputime.Used()
			changes := 0
			for b.Loop() {
				changes++
				w.change(b, changes)
			}
			end, _ := cputime.Used()
			b.ReportMetric(held, "B/endpoint")
			if ok {
				b.ReportMetric(float64(end-start)/float64(changes), "cpu-ns/op")
				b.ReportMetric(float64(w.alone(changes))/float64(changes), "control-cpu-ns/op")
			}
		})
	}
}

// liveHeap is how much is reachable.
func liveHeap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // what pools held has gone
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// crowd is a cluster whose first priority is one endpoint, so that it gets the
// calls, and whose second priority is all others.
type crowd struct {
	plane      *adstest.Plane
	client     *http.Client
	assignment *endpointv3.ClusterLoadAssignment

	mu     sync.Mutex
	dialed string // guarded by mu; the last address
}

func newCrowd(b *testing.B, n int) *crowd {
	b.Helper()
	network := new(memnet.Network)
	w := &crowd{plane: adstest.Serve(b, adstest.Config{Network: network}), assignment: crowdAssignment(n)}
	ln, err := network.Listen("payment:80")
	if err != nil {
		b.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(answer)}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(ln) })
	g := &ground{network: network}
	config := &bootstrap.Config{Servers: []bootstrap.Server{g.server("xds.test")}, Node: bootstrap.Node{ID: "customer-1"}}
	m, err := mesh.New(b.Context(),
		mesh.WithBootstrap(config), mesh.WithOutboundPolicy(mesh.RegistryOnly), mesh.WithLogger(slog.New(slog.DiscardHandler)),
		mesh.Network{Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			w.mu.Lock()
			w.dialed = address
			w.mu.Unlock()
			return g.network.DialContext(ctx, network, "payment:80")
		}})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := m.Close(); err != nil {
			b.Error(err)
		}
		_ = server.Close()
		serving.Wait()
	})
	w.client = m.HTTPClient()
	w.plane.Set(groundListener(groundHTTP), groundRoutes(groundHTTP, groundHTTP), groundCluster(groundHTTP), w.assignment)
	return w
}

func crowdAssignment(n int) *endpointv3.ClusterLoadAssignment {
	first := &endpointv3.LocalityLbEndpoints{
		Locality: &corev3.Locality{Zone: "z"}, LoadBalancingWeight: wrapperspb.UInt32(1),
		LbEndpoints: []*endpointv3.LbEndpoint{crowdEndpoint("10.255.0.0")},
	}
	rest := &endpointv3.LocalityLbEndpoints{Locality: &corev3.Locality{Zone: "z"}, LoadBalancingWeight: wrapperspb.UInt32(1), Priority: 1}
	for i := range n - 1 {
		rest.LbEndpoints = append(rest.LbEndpoints, crowdEndpoint(fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255)))
	}
	return &endpointv3.ClusterLoadAssignment{ClusterName: groundHTTP, Endpoints: []*endpointv3.LocalityLbEndpoints{first, rest}}
}

func crowdEndpoint(ip string) *endpointv3.LbEndpoint {
	return &endpointv3.LbEndpoint{
		LoadBalancingWeight: wrapperspb.UInt32(1),
		HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{
			Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
				Address: ip, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: 80},
			}}},
		}},
	}
}

func (w *crowd) call() error {
	resp, err := w.client.Get("http://" + groundHost + "/")
	if err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.Body.Close()
}

// change replaces the endpoint that gets the calls, and calls until they go to the
// new one.
func (w *crowd) change(b *testing.B, number int) {
	ip := fmt.Sprintf("10.255.%d.%d", number>>8&255, number&255)
	w.assignment.Endpoints[0].LbEndpoints[0] = crowdEndpoint(ip)
	w.plane.Set(w.assignment)
	for {
		if err := w.call(); err != nil {
			b.Fatal(err)
		}
		w.mu.Lock()
		dialed := w.dialed
		w.mu.Unlock()
		if dialed == ip+":80" {
			return
		}
		time.Sleep(time.Millisecond) // a benchmark, whose subject is the real time
	}
}

// alone is the processor time of a control plane that makes so many changes and
// has nobody to tell.
func (w *crowd) alone(changes int) time.Duration {
	start, _ := cputime.Used()
	for range changes {
		packed := adstest.Any(w.assignment)
		_, _ = proto.Marshal(packed) // as part of the response
	}
	end, _ := cputime.Used()
	return end - start
}
