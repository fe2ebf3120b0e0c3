package nativegrpc_test

import (
	"context"
	"log/slog"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/interop/grpc_testing"

	"github.com/inboardmesh/inboard/discovery/bootstrap"
	"github.com/inboardmesh/inboard/internal/adstest"
	"github.com/inboardmesh/inboard/internal/memnet"
	"github.com/inboardmesh/inboard/mesh"
	"github.com/inboardmesh/inboard/mesh/nativegrpc"
)

const farAway = "xdstp://far/envoy.config."

// clientListener is a Listener with one route.
func clientListener(t *testing.T, name, cluster string) *listenerv3.Listener {
	t.Helper()
	l := new(listenerv3.Listener)
	fromJSON(t, l, strings.NewReplacer("NAME", name, "CLUSTER", cluster).Replace(`{"name": "NAME", "apiListener": {"apiListener": {
		"@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
		"routeConfig": {"virtualHosts": [{"name": "h", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "CLUSTER"}}]}]},
		"httpFilters": [{"name": "router", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}]}}}`))
	return l
}

// Guests of a mesh with two control planes call what either of them knows, over the one
// stream to the relay.
func TestS12_GuestsCallDestinationsOfAuthorities(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		network := new(memnet.Network)
		dialer := func(ctx context.Context, address string) (net.Conn, error) {
			return network.DialContext(ctx, "tcp", address)
		}
		near := adstest.Serve(t, adstest.Config{Network: network})
		far := adstest.Serve(t, adstest.Config{Network: network, Address: "far.test"})
		near.Set(
			clientListener(t, "mixed:90", farAway+"cluster.v3.Cluster/c?b=2&a=1"),
			clientListener(t, "v6.[::1]:90", farAway+"cluster.v3.Cluster/c?a=1&b=2"),
		)
		far.Set(
			clientListener(t, farAway+"listener.v3.Listener/payment:90", farAway+"cluster.v3.Cluster/c?a=1&b=2"),
			fromJSON(t, new(clusterv3.Cluster), `{"name": "`+farAway+`cluster.v3.Cluster/c?a=1&b=2", "type": "EDS",
				"edsClusterConfig": {"edsConfig": {"ads": {}}, "serviceName": "`+farAway+`endpoint.v3.ClusterLoadAssignment/e"}}`),
			fromJSON(t, new(endpointv3.ClusterLoadAssignment), `{"clusterName": "`+farAway+`endpoint.v3.ClusterLoadAssignment/e",
				"endpoints": [{"locality": {"zone": "z"}, "loadBalancingWeight": 1,
				"lbEndpoints": [{"endpoint": {"address": {"socketAddress": {"address": "10.0.0.1", "portValue": 90}}}}]}]}`),
		)
		server := func(uri string) bootstrap.Server {
			return bootstrap.Server{
				URI: "passthrough:///" + uri, ChannelCreds: bootstrap.Credentials{Type: "insecure"},
				DialOptions: []grpc.DialOption{grpc.WithContextDialer(dialer)},
			}
		}
		m, err := mesh.New(t.Context(), mesh.WithLogger(slog.New(slog.DiscardHandler)), mesh.Network{Dial: network.DialContext},
			mesh.WithBootstrap(&bootstrap.Config{
				Node: bootstrap.Node{ID: "customer-1"}, Servers: []bootstrap.Server{server("xds.test")},
				Authorities: map[string]bootstrap.Authority{"far": {Servers: []bootstrap.Server{server("far.test")}}},
			}))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := m.Close(); err != nil {
				t.Errorf("close mesh: %v", err)
			}
		})
		guest, err := nativegrpc.New(m)
		if err != nil {
			t.Fatal(err)
		}
		ln, err := network.Listen("10.0.0.1:90")
		if err != nil {
			t.Fatal(err)
		}
		payment := grpc.NewServer()
		grpc_testing.RegisterTestServiceServer(payment, new(nativePayment))
		served := make(chan error, 1)
		go func() { served <- payment.Serve(ln) }() // ends with the test
		t.Cleanup(func() {
			payment.Stop()
			if err := <-served; err != nil {
				t.Error(err)
			}
		})
		for _, target := range []string{"xds:///mixed:90", "xds://far/payment:90", "xds:///v6.[::1]:90"} {
			conn := dial(t, guest, target, grpc.WithContextDialer(dialer))
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			if _, err := call(ctx, conn); err != nil {
				t.Errorf("%s: %v", target, err)
			}
			cancel()
		}
		if n := len(near.Server.Connects()) + len(far.Server.Connects()); n != 2 {
			t.Errorf("%d connections to the control planes, want one to each", n)
		}
	})
}
