package grpcmesh_test

import (
	"context"
	"crypto/x509"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/stats"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/breaker"
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/grpcmesh"
	"github.com/inboardmesh/inboard/internal/inbound"
	"github.com/inboardmesh/inboard/internal/memnet"
	"github.com/inboardmesh/inboard/internal/pipeline"
	"github.com/inboardmesh/inboard/internal/tlstest"
	"github.com/inboardmesh/inboard/internal/upstream"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

// target is the destination of most tests.
const target = "payment.shop:9090"

// fixture is a mesh in memory, client and servers in one: its configuration is
// what the test says. It works in a synctest bubble.
type fixture struct {
	tb         testing.TB
	network    *memnet.Network
	source     *source
	seen       *recorder
	identities map[string]meshtls.Source
	outbound   *pipeline.Outbound
	listeners  *inbound.Listeners
	adapter    *grpcmesh.Adapter
	// above are options of servers that come before the mesh's.
	above []grpc.ServerOption
	// dial replaces the network's DialContext if it is not nil.
	dial func(ctx context.Context, network, address string) (net.Conn, error)
	// lookup is the resolver; nil is none.
	lookup upstream.Lookup
}

// newFixture starts a mesh. It is closed, and checked for what is left, when
// the test ends.
func newFixture(tb testing.TB, edit ...func(*grpcmesh.Options)) *fixture {
	tb.Helper()
	f := &fixture{
		tb: tb, network: new(memnet.Network), source: newSource(), seen: new(recorder),
		identities: make(map[string]meshtls.Source),
	}
	hooks := f.seen.hooks()
	identity := func(instance string) (meshtls.Source, error) {
		if source := f.identities[instance]; source != nil {
			return source, nil
		}
		return nil, errors.New("no such instance: " + instance)
	}
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		if f.dial != nil {
			return f.dial(ctx, network, address)
		}
		return f.network.DialContext(ctx, network, address)
	}
	lookup := func(ctx context.Context, network, host string) ([]netip.Addr, error) {
		if f.lookup == nil {
			return nil, errors.New("no resolver")
		}
		return f.lookup(ctx, network, host)
	}
	upstreams := upstream.NewManager(upstream.Options{
		Identity: identity, Dial: dial, Lookup: lookup, Hooks: hooks, LocalCluster: "own", Locality: balancer.Locality{Zone: "a"},
	})
	f.outbound = pipeline.NewOutbound(f.source, upstreams, hooks)
	f.listeners = inbound.New(inbound.Options{Source: f.source, Identity: identity, Hooks: hooks})
	options := grpcmesh.Options{Outbound: f.outbound, Listeners: f.listeners, Hooks: hooks, Dial: dial}
	for _, e := range edit {
		e(&options)
	}
	f.adapter = grpcmesh.New(options)
	tb.Cleanup(func() {
		settle()
		if err := f.adapter.Close(); err != nil { // connections of its own count, too
			tb.Errorf("close: %v", err)
		}
		f.checkNothingCounted()
		f.checkNoConnections()
		if err := f.listeners.Close(); err != nil {
			tb.Errorf("close: %v", err)
		}
		f.outbound.Close()
		upstreams.Close()
		if err := f.source.Close(); err != nil {
			tb.Errorf("close: %v", err)
		}
		f.seen.checkBalanced(tb)
	})
	return f
}

// settle waits until what goes on in a bubble has come to rest: a call that was
// canceled ends after its caller has returned, and counts until then. Tests of
// allocations and benchmarks are in none.
func settle() {
	defer func() { _ = recover() }()
	synctest.Wait()
}

// checkNothingCounted fails the test if a limit or a balancer still counts a
// call (row BC5).
func (f *fixture) checkNothingCounted() {
	f.tb.Helper()
	for _, name := range f.source.targets() {
		config, _ := f.outbound.Target(name).Watch()
		if config == nil {
			continue
		}
		for _, cluster := range config.Clusters {
			used := cluster.Gate(discovery.PriorityDefault).Usage()
			if used.Connections = 0; used != (breaker.Usage{}) { // those of the channel are open
				f.tb.Errorf("cluster %q: %+v is still in use", cluster.Name(), used)
			}
			for endpoint := range cluster.Endpoints {
				if n := endpoint.Host().Active(); n != 0 {
					f.tb.Errorf("endpoint %s: %d calls still count", endpoint.Address(), n)
				}
			}
		}
	}
}

// checkNoConnections fails the test if a limit counts a connection after all channels
// are closed.
func (f *fixture) checkNoConnections() {
	f.tb.Helper()
	for _, name := range f.source.targets() {
		config, _ := f.outbound.Target(name).Watch()
		if config == nil {
			continue
		}
		for _, cluster := range config.Clusters {
			if n := cluster.Gate(discovery.PriorityDefault).Usage().Connections; n != 0 {
				f.tb.Errorf("cluster %q: %d connections still count", cluster.Name(), n)
			}
		}
	}
}

// channel makes a channel to a target of the mesh. It is closed with the test.
func (f *fixture) channel(options ...grpc.DialOption) *grpc.ClientConn {
	f.tb.Helper()
	return f.channelTo("mesh:///"+target, options...)
}

func (f *fixture) channelTo(uri string, options ...grpc.DialOption) *grpc.ClientConn {
	f.tb.Helper()
	conn, err := grpc.NewClient(uri, append(f.adapter.DialOptions(), options...)...)
	if err != nil {
		f.tb.Fatal(err)
	}
	f.tb.Cleanup(func() { _ = conn.Close() }) // a test may have closed it
	return conn
}

func (f *fixture) client(options ...grpc.DialOption) grpc_testing.TestServiceClient {
	f.tb.Helper()
	return grpc_testing.NewTestServiceClient(f.channel(options...))
}

// forwardTo configures the target: every call goes to the given endpoints.
func (f *fixture) forwardTo(addresses ...string) {
	f.configure(forward("main"), cluster("main", addresses...))
}

// configure sets the configuration of the target.
func (f *fixture) configure(route *discovery.Route, clusters ...discovery.ClusterResult) {
	f.source.setTarget(target, &discovery.Target{
		Name:     target,
		Listener: &discovery.APIListener{Name: target},
		Routes: &discovery.RouteTable{Name: target, VirtualHosts: []*discovery.VirtualHost{{
			Name: target, Domains: []string{"*"}, Routes: []*discovery.Route{route},
		}}},
		Clusters: clustersByName(clusters),
	})
}

func clustersByName(clusters []discovery.ClusterResult) map[string]discovery.ClusterResult {
	byName := make(map[string]discovery.ClusterResult, len(clusters))
	for _, c := range clusters {
		byName[c.Cluster.Name] = c
	}
	return byName
}

// forward is a route for every call to a cluster.
func forward(cluster string) *discovery.Route {
	return &discovery.Route{
		Name:    "route",
		Forward: &discovery.Forward{Clusters: []discovery.WeightedCluster{{Name: cluster, Weight: 1}}},
	}
}

// cluster is a cluster in plaintext.
func cluster(name string, addresses ...string) discovery.ClusterResult {
	endpoints := make([]balancer.Endpoint, 0, len(addresses))
	for _, address := range addresses {
		endpoints = append(endpoints, balancer.Endpoint{Address: address})
	}
	return discovery.ClusterResult{
		Cluster: &discovery.Cluster{
			Name: name, Protocol: discovery.HTTP2,
			Limits: [2]breaker.Limits{breaker.DefaultLimits, breaker.DefaultLimits},
		},
		Endpoints: &discovery.Assignment{
			Name: name, Localities: []discovery.LocalityEndpoints{{Weight: 1, Endpoints: endpoints}},
		},
	}
}

// mutual makes a cluster one with mutual TLS.
func mutual(c discovery.ClusterResult, sans ...string) discovery.ClusterResult {
	c.Cluster.TLS = &discovery.UpstreamTLS{IdentityInstance: "default", RootInstance: "default"}
	for _, san := range sans {
		c.Cluster.TLS.SANs = append(c.Cluster.TLS.SANs, discovery.StringMatch{Value: san})
	}
	return c
}

// plaintext is the configuration of a listener without TLS.
func plaintext(address string, routes ...*discovery.Route) *discovery.Inbound {
	return &discovery.Inbound{
		Name: address, Address: address,
		Chains: []discovery.FilterChain{{Name: "plaintext", Routes: inboundRoutes(routes)}},
	}
}

// strict is the configuration of a listener with mutual TLS.
func strict(address string, routes ...*discovery.Route) *discovery.Inbound {
	in := plaintext(address, routes...)
	in.Chains[0].Name = "mtls"
	in.Chains[0].TLS = &discovery.DownstreamTLS{
		IdentityInstance: "default", RootInstance: "default", RequireClientCertificate: true,
	}
	return in
}

func inboundRoutes(routes []*discovery.Route) *discovery.RouteTable {
	if len(routes) == 0 {
		routes = []*discovery.Route{{Name: "in", Local: true}}
	}
	return &discovery.RouteTable{Name: "inbound", VirtualHosts: []*discovery.VirtualHost{
		{Name: "inbound", Domains: []string{"*"}, Routes: routes},
	}}
}

// server is a gRPC server of the mesh.
type server struct {
	grpc *grpc.Server
	done chan struct{}
	open atomic.Int64 // connections
}

// connections returns how many connections are open.
func (s *server) connections() int64 { return s.open.Load() }

// TagRPC, HandleRPC, TagConn and HandleConn make it a [stats.Handler].
func (s *server) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

func (s *server) HandleRPC(context.Context, stats.RPCStats) {}

func (s *server) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

func (s *server) HandleConn(_ context.Context, event stats.ConnStats) {
	switch event.(type) {
	case *stats.ConnBegin:
		s.open.Add(1)
	case *stats.ConnEnd:
		s.open.Add(-1)
	}
}

// serve starts a server in plaintext. It is stopped with the test.
func (f *fixture) serve(address string, b grpc_testing.TestServiceServer, options ...grpc.ServerOption) *server {
	f.tb.Helper()
	return f.serveAs(plaintext(address), b, options...)
}

func (f *fixture) serveAs(in *discovery.Inbound, b grpc_testing.TestServiceServer, options ...grpc.ServerOption) *server {
	f.tb.Helper()
	f.source.setInbound(in.Address, in)
	inner, err := f.network.Listen(in.Address)
	if err != nil {
		f.tb.Fatal(err)
	}
	ln, err := f.listeners.Listen(context.Background(), inner)
	if err != nil {
		f.tb.Fatal(err)
	}
	s := &server{done: make(chan struct{})}
	options = slices.Concat(f.above, f.adapter.ServerOptions(), options, []grpc.ServerOption{grpc.StatsHandler(s)})
	s.grpc = grpc.NewServer(options...)
	grpc_testing.RegisterTestServiceServer(s.grpc, b)
	go func() {
		defer close(s.done)
		if err := s.grpc.Serve(ln); err != nil && !errors.Is(err, net.ErrClosed) && !errors.Is(err, grpc.ErrServerStopped) {
			f.tb.Errorf("serve %s: %v", in.Address, err)
		}
	}()
	f.tb.Cleanup(s.stop)
	return s
}

// stop breaks the server's connections and waits for it to end.
func (s *server) stop() {
	s.grpc.Stop()
	<-s.done
}

// withTimeout is the context of one call that must not hang the test.
func withTimeout(tb testing.TB) context.Context {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	tb.Cleanup(cancel)
	return ctx
}

// together runs n functions at the same time and waits for them.
func together(n int, f func(i int)) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { f(i) })
	}
	wg.Wait()
}

func newCA(tb testing.TB) *tlstest.CA {
	tb.Helper()
	return tlstest.NewCA(tb)
}

// peerOf is the verified identity of the caller of a call that is served.
func peerOf(ctx context.Context) (string, bool) {
	id, ok := inbound.Peer(ctx)
	return id.String(), ok
}

func roots(ca *tlstest.CA) []*x509.Certificate { return []*x509.Certificate{ca.Certificate} }
