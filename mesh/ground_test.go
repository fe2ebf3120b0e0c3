package mesh_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/inboardmesh/inboard/discovery/bootstrap"
	"github.com/inboardmesh/inboard/internal/adstest"
	"github.com/inboardmesh/inboard/internal/memnet"
	"github.com/inboardmesh/inboard/mesh"
)

const (
	groundHost = "payment.shop"
	// groundHTTP and groundGRPC are the ports of the payments, and the names of
	// what there is about them in the configuration.
	groundHTTP = "80"
	groundGRPC = "90"

	configTypes = "type.googleapis.com/envoy.config."
	listenerURL = configTypes + "listener.v3.Listener"
	routeURL    = configTypes + "route.v3.RouteConfiguration"
	clusterURL  = configTypes + "cluster.v3.Cluster"
	endpointURL = configTypes + "endpoint.v3.ClusterLoadAssignment"
)

// ground is a mesh that calls payments over HTTP and gRPC, under a control plane
// that does what the test says. Everything is in memory, in one bubble.
type ground struct {
	t       *testing.T
	network *memnet.Network
	plane   *adstest.Plane
	mesh    *mesh.Mesh
	client  *http.Client
	stub    grpc_testing.TestServiceClient
}

// onGround runs a test with each variant of the protocol.
func onGround(t *testing.T, test func(*ground), changes ...func(*bootstrap.Config)) {
	t.Helper()
	for _, api := range []bootstrap.APIType{bootstrap.APIDelta, bootstrap.APISotW} {
		t.Run(api.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				test(newGround(t, append([]func(*bootstrap.Config){func(c *bootstrap.Config) { c.Servers[0].API = api }}, changes...)...))
			})
		})
	}
}

func newGround(t *testing.T, changes ...func(*bootstrap.Config)) *ground {
	t.Helper()
	return newGroundWith(t, nil, changes...)
}

// newGroundWith is newGround for a mesh with options.
func newGroundWith(t *testing.T, options []mesh.Option, changes ...func(*bootstrap.Config)) *ground {
	t.Helper()
	g := &ground{t: t, network: newGroundNetwork()}
	g.plane = adstest.Serve(t, adstest.Config{Network: g.network})
	config := &bootstrap.Config{Servers: []bootstrap.Server{g.server("xds.test")}, Node: bootstrap.Node{ID: "customer-1"}}
	for _, change := range changes {
		change(config)
	}
	g.join(config, options...)
	return g
}

// server is a server of the control plane in the network in memory.
func (g *ground) server(address string) bootstrap.Server {
	return bootstrap.Server{
		URI: "passthrough:///" + address, ChannelCreds: bootstrap.Credentials{Type: "insecure"},
		DialOptions: []grpc.DialOption{grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return g.network.DialContext(ctx, "tcp", address)
		})},
	}
}

func (g *ground) join(config *bootstrap.Config, more ...mesh.Option) {
	g.t.Helper()
	var err error
	g.mesh, err = mesh.New(g.t.Context(), append([]mesh.Option{
		mesh.WithBootstrap(config), mesh.Network{Dial: g.network.DialContext},
		mesh.WithOutboundPolicy(mesh.RegistryOnly), // names cannot be looked up in a bubble
		mesh.WithLogger(slog.New(slog.DiscardHandler)),
	}, more...)...)
	if err != nil {
		g.t.Fatal(err)
	}
	g.client = g.mesh.HTTPClient()
	conn, err := grpc.NewClient("mesh:///"+groundHost+":"+groundGRPC, g.mesh.DialOptions()...)
	if err != nil {
		g.t.Fatal(err)
	}
	g.stub = grpc_testing.NewTestServiceClient(conn)
	g.t.Cleanup(func() {
		_ = conn.Close()
		if err := g.mesh.Close(); err != nil {
			g.t.Errorf("close mesh: %v", err)
		}
	})
}

// payment serves 10.0.0.number over HTTP and gRPC. Each answer has the number.
func (g *ground) payment(number int) {
	g.t.Helper()
	id := fmt.Sprint(number)
	web, err := g.network.Listen(hostOf(number) + ":" + groundHTTP)
	if err != nil {
		g.t.Fatal(err)
	}
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Endpoint-Load-Metrics", "TEXT cpu_utilization=0.5, named_metrics.queue=3, named_metrics.other=1")
		_, _ = io.WriteString(w, id)
	})
	httpServer := &http.Server{Handler: handler}
	rpc, err := g.network.Listen(hostOf(number) + ":" + groundGRPC)
	if err != nil {
		g.t.Fatal(err)
	}
	grpcServer := grpc.NewServer()
	grpc_testing.RegisterTestServiceServer(grpcServer, numbered{id: id})
	var serving sync.WaitGroup
	serving.Go(func() { _ = httpServer.Serve(web) })
	serving.Go(func() { _ = grpcServer.Serve(rpc) })
	g.t.Cleanup(func() {
		_ = httpServer.Close()
		grpcServer.Stop()
		serving.Wait()
	})
}

func hostOf(number int) string { return fmt.Sprintf("10.0.0.%d", number) }

type numbered struct {
	grpc_testing.UnimplementedTestServiceServer
	id string
}

func (n numbered) UnaryCall(ctx context.Context, _ *grpc_testing.SimpleRequest) (*grpc_testing.SimpleResponse, error) {
	_ = grpc.SetTrailer(ctx, metadata.Pairs("endpoint-load-metrics", "TEXT cpu_utilization=0.5, named_metrics.queue=3, named_metrics.other=1"))
	return &grpc_testing.SimpleResponse{ServerId: n.id}, nil
}

// callHTTP and callGRPC return the number of the payment that answered.
func (g *ground) callHTTP(ctx context.Context) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+groundHost+":"+groundHTTP+"/", nil)
	if err != nil {
		return "", err
	}
	resp, err := g.client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d: %s", resp.StatusCode, body)
	}
	return string(body), err
}

func (g *ground) callGRPC(ctx context.Context) (string, error) {
	resp, err := g.stub.UnaryCall(ctx, &grpc_testing.SimpleRequest{}, grpc.WaitForReady(true))
	return resp.GetServerId(), err
}

// callGRPCNow is callGRPC for a call that does not wait for an endpoint.
func (g *ground) callGRPCNow() (string, error) {
	resp, err := g.stub.UnaryCall(g.t.Context(), &grpc_testing.SimpleRequest{})
	return resp.GetServerId(), err
}

// each calls once over each protocol, with a timeout.
func (g *ground) each(timeout time.Duration, check func(protocol, payment string, took time.Duration, err error)) {
	var calls sync.WaitGroup
	var mu sync.Mutex
	for protocol, call := range map[string]func(context.Context) (string, error){"HTTP": g.callHTTP, "gRPC": g.callGRPC} {
		calls.Go(func() {
			ctx, cancel := context.WithTimeout(g.t.Context(), timeout)
			defer cancel()
			start := time.Now()
			payment, err := call(ctx)
			mu.Lock()
			defer mu.Unlock()
			check(protocol, payment, time.Since(start), err)
		})
	}
	calls.Wait()
}

// works checks that calls over both protocols succeed at once.
func (g *ground) works() {
	g.t.Helper()
	g.each(time.Minute, func(protocol, _ string, took time.Duration, err error) {
		if err != nil || took > 500*time.Millisecond {
			g.t.Errorf("%s: %v after %v", protocol, err, took)
		}
	})
}

// traffic is calls at a rate, every other one over gRPC.
type traffic struct {
	g    *ground
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu     sync.Mutex
	total  int                  // guarded by mu
	failed map[string]int       // guarded by mu; by text
	last   map[string]time.Time // guarded by mu; last call of a payment
	first  map[string]time.Time // guarded by mu
	took   []time.Duration      // guarded by mu; of the calls since the last p99
}

func (g *ground) traffic(rate int) *traffic {
	ctx, cancel := context.WithCancel(g.t.Context())
	f := &traffic{g: g, stop: cancel, failed: make(map[string]int), last: make(map[string]time.Time), first: make(map[string]time.Time)}
	f.wg.Go(func() {
		tick := time.NewTicker(time.Second / time.Duration(rate))
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			f.wg.Go(func() { f.one(n) })
		}
	})
	g.t.Cleanup(f.end)
	return f
}

func (f *traffic) one(n int) {
	ctx, cancel := context.WithTimeout(f.g.t.Context(), 10*time.Second)
	defer cancel()
	call, protocol := f.g.callHTTP, "HTTP"
	if n%2 == 1 {
		call, protocol = f.g.callGRPC, "gRPC"
	}
	start := time.Now()
	payment, err := call(ctx)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.total++
	switch {
	case err != nil && f.g.t.Context().Err() == nil:
		f.failed[protocol+": "+err.Error()]++
	case err == nil:
		f.took = append(f.took, time.Since(start))
		f.last[payment] = start
		if f.first[payment].IsZero() {
			f.first[payment] = start
		}
	}
}

func (f *traffic) end() {
	f.stop()
	f.wg.Wait()
}

// report ends the traffic and checks that nothing failed.
func (f *traffic) report(atLeast int) {
	f.g.t.Helper()
	f.end()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, text := range slices.Sorted(maps.Keys(f.failed)) {
		f.g.t.Errorf("%d calls failed: %s", f.failed[text], text)
	}
	if f.total < atLeast {
		f.g.t.Errorf("%d calls, want at least %d", f.total, atLeast)
	}
}

// again forgets how long calls took.
func (f *traffic) again() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.took = nil
}

// p99 is that of the calls that have ended well since the last question.
func (f *traffic) p99() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	took := f.took
	f.took = nil
	if len(took) == 0 {
		f.g.t.Error("no call has ended")
		return 0
	}
	slices.Sort(took)
	return took[(len(took)*99-1)/100]
}

func (f *traffic) lastCall(number int) time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.last[fmt.Sprint(number)]
}

func (f *traffic) firstCall(number int) time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.first[fmt.Sprint(number)]
}

// parsed returns a resource in protobuf's JSON.
func parsed[M proto.Message](m M, text string, args ...any) M {
	if err := protojson.Unmarshal(fmt.Appendf(nil, text, args...), m); err != nil {
		panic(fmt.Sprintf("%v in %s", err, fmt.Sprintf(text, args...)))
	}
	return m
}

// tree is the whole configuration of the payments: listener, routes, cluster and
// endpoints for each protocol.
func tree(numbers ...int) []proto.Message {
	var all []proto.Message
	for _, port := range []string{groundHTTP, groundGRPC} {
		all = append(all, groundListener(port), groundRoutes(port, port), groundCluster(port))
	}
	return append(all, groundEndpoints(numbers...)...)
}

func groundListener(port string) *listenerv3.Listener {
	return parsed(&listenerv3.Listener{}, `{"name": %q, "apiListener": {"apiListener": {
		"@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
		"rds": {"routeConfigName": %q, "configSource": {"ads": {}}},
		"httpFilters": [{"name": "router", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}]}}}`,
		groundHost+":"+port, port)
}

// groundRoutes spreads calls evenly over clusters.
func groundRoutes(name string, clusters ...string) *routev3.RouteConfiguration {
	weighted := make([]string, 0, len(clusters))
	for _, c := range clusters {
		weighted = append(weighted, fmt.Sprintf(`{"name": %q, "weight": 1}`, c))
	}
	return parsed(&routev3.RouteConfiguration{}, `{"name": %q, "virtualHosts": [{"name": "h", "domains": ["*"], "routes": [
		{"match": {"prefix": "/"}, "route": {"weightedClusters": {"clusters": [%s]}, "timeout": "0s"}}]}]}`, name, strings.Join(weighted, ","))
}

func groundCluster(name string) *clusterv3.Cluster {
	return parsed(&clusterv3.Cluster{}, `{"name": %q, "type": "EDS", "edsClusterConfig": {"edsConfig": {"ads": {}}}, "connectTimeout": "1s"}`, name)
}

func groundEndpoints(numbers ...int) []proto.Message {
	var all []proto.Message
	for _, port := range []string{groundHTTP, groundGRPC} {
		all = append(all, assignment(port, port, 1, numbers...))
	}
	return all
}

func assignment(name, port string, weight int, numbers ...int) *endpointv3.ClusterLoadAssignment {
	hosts := make([]string, 0, len(numbers))
	for _, n := range numbers {
		hosts = append(hosts, fmt.Sprintf(`{"loadBalancingWeight": %d, "endpoint": {"address": {"socketAddress": {"address": %q, "portValue": %s}}}}`,
			weight, hostOf(n), port))
	}
	return parsed(&endpointv3.ClusterLoadAssignment{}, `{"clusterName": %q, "endpoints": [{"locality": {"zone": "z"}, "loadBalancingWeight": 1,
		"lbEndpoints": [%s]}]}`, name, strings.Join(hosts, ","))
}

// codeOf is the gRPC code of an error of either protocol.
func codeOf(err error) codes.Code {
	if failed, ok := errors.AsType[*mesh.Error](err); ok {
		return failed.GRPCStatus().Code()
	}
	return status.Code(err)
}

// resource returns what the mesh knows of a resource.
func (g *ground) resource(typeURL, name string) mesh.ResourceState {
	g.t.Helper()
	states := g.mesh.Resources()
	i := slices.IndexFunc(states, func(s mesh.ResourceState) bool { return s.TypeURL == typeURL && s.Name == name })
	if i < 0 {
		g.t.Fatalf("%s %q is not known", typeURL, name)
	}
	return states[i]
}

// perSecond is how many of the times fall into the busiest second.
func perSecond(times []time.Time) int {
	most := 0
	slices.SortFunc(times, time.Time.Compare)
	for i, from := range times {
		n, _ := slices.BinarySearchFunc(times, from.Add(time.Second), time.Time.Compare)
		most = cmp.Or(max(most, n-i), most)
	}
	return most
}

func newGroundNetwork() *memnet.Network { return new(memnet.Network) }
