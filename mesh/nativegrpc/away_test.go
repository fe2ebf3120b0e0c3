package nativegrpc_test

import (
	"context"
	"log/slog"
	"net"
	"testing"
	"testing/synctest"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/inboardmesh/inboard/discovery/bootstrap"
	"github.com/inboardmesh/inboard/internal/adstest"
	"github.com/inboardmesh/inboard/internal/memnet"
	"github.com/inboardmesh/inboard/mesh"
	"github.com/inboardmesh/inboard/mesh/nativegrpc"
)

// away is a guest whose control plane can be stopped, with one payment. Everything
// is in memory.
type away struct {
	plane *adstest.Plane
	mesh  *mesh.Mesh
	dial  func(options ...grpc.DialOption) *grpc.ClientConn
}

func newAway(t *testing.T) *away {
	t.Helper()
	network := new(memnet.Network)
	dialer := func(ctx context.Context, address string) (net.Conn, error) {
		return network.DialContext(ctx, "tcp", address)
	}
	a := &away{plane: adstest.Serve(t, adstest.Config{Network: network})}
	a.plane.Set(
		fromJSON(t, new(listenerv3.Listener), `{"name": "payment:90", "apiListener": {"apiListener": {
			"@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
			"routeConfig": {"virtualHosts": [{"name": "h", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "payment"}}]}]},
			"httpFilters": [{"name": "router", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}]}}}`),
		fromJSON(t, new(clusterv3.Cluster), `{"name": "payment", "type": "EDS", "edsClusterConfig": {"edsConfig": {"ads": {}}}}`),
		fromJSON(t, new(endpointv3.ClusterLoadAssignment), `{"clusterName": "payment", "endpoints": [{"locality": {"zone": "z"}, "loadBalancingWeight": 1,
			"lbEndpoints": [{"endpoint": {"address": {"socketAddress": {"address": "10.0.0.1", "portValue": 90}}}}]}]}`),
	)
	ln, err := network.Listen("10.0.0.1:90")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	grpc_testing.RegisterTestServiceServer(server, new(nativePayment))
	served := make(chan error, 1)
	go func() { served <- server.Serve(ln) }() // ends with the test
	t.Cleanup(func() {
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	a.mesh, err = mesh.New(t.Context(), mesh.WithLogger(slog.New(slog.DiscardHandler)), mesh.Network{Dial: network.DialContext},
		mesh.WithBootstrap(&bootstrap.Config{
			Node: bootstrap.Node{ID: "customer-1"},
			Servers: []bootstrap.Server{{
				URI: "passthrough:///xds.test", ChannelCreds: bootstrap.Credentials{Type: "insecure"},
				DialOptions: []grpc.DialOption{grpc.WithContextDialer(dialer)},
			}},
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.mesh.Close(); err != nil {
			t.Errorf("close mesh: %v", err)
		}
	})
	guest, err := nativegrpc.New(a.mesh)
	if err != nil {
		t.Fatal(err)
	}
	a.dial = func(options ...grpc.DialOption) *grpc.ClientConn {
		return dial(t, guest, "xds:///payment:90", append(options, grpc.WithContextDialer(dialer))...)
	}
	return a
}

func fromJSON(t *testing.T, m proto.Message, text string) proto.Message {
	t.Helper()
	if err := protojson.Unmarshal([]byte(text), m); err != nil {
		t.Fatal(err)
	}
	return m
}

// calls makes a call that must work, and checks whether the destination is still
// followed after a pause.
func (a *away) calls(t *testing.T, conn *grpc.ClientConn, pause time.Duration, followed bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := call(ctx, conn); err != nil {
		t.Fatal(err)
	}
	time.Sleep(pause)
	synctest.Wait()
	if got := len(a.mesh.Resources()) > 0; got != followed {
		t.Errorf("the destination is followed: %t, want %t", got, followed)
	}
}

func TestX26_AChannelThatIsDialledAgainWhileTheControlPlaneIsAwayWorks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAway(t)
		conn := a.dial()
		a.calls(t, conn, time.Second, true)
		a.plane.Server.Stop()
		time.Sleep(time.Minute)
		for range 3 {
			if err := conn.Close(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Hour)
			conn = a.dial()
			a.calls(t, conn, time.Minute, true)
		}
	})
}

func TestX26_AChannelThatIdlesWhileTheControlPlaneIsAwayWorks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAway(t)
		conn := a.dial(grpc.WithIdleTimeout(30 * time.Minute))
		a.calls(t, conn, time.Minute, true)
		a.plane.Server.Stop()
		a.calls(t, conn, time.Hour, false)
		a.calls(t, conn, time.Hour, false)
		a.calls(t, conn, time.Minute, true)
	})
}

func TestAChannelThatWasNotUsedForLongWorksWhileTheControlPlaneIsAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAway(t)
		conn := a.dial()
		a.calls(t, conn, 2*time.Hour, true)
		a.plane.Server.Stop()
		time.Sleep(time.Minute)
		a.calls(t, conn, time.Minute, true)
	})
}
