package grpcmesh_test

import (
	"context"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/interop/grpc_testing"

	"github.com/inboardmesh/inboard/discovery"
)

// TestAnAddressThatANameNoLongerStandsForIsLeft: the channel is not told of it by the
// control plane, whose configuration is the same.
func TestAnAddressThatANameNoLongerStandsForIsLeft(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		var moved atomic.Bool
		f.lookup = func(context.Context, string, string) ([]netip.Addr, error) {
			if moved.Load() {
				return []netip.Addr{netip.MustParseAddr("10.0.0.2")}, nil
			}
			return []netip.Addr{netip.MustParseAddr("10.0.0.1")}, nil
		}
		first := f.serve("10.0.0.1:1", &backend{name: "first"})
		f.serve("10.0.0.2:1", &backend{name: "second"})
		named := cluster("payment", net.JoinHostPort("payment.example", "1"))
		named.Cluster.DNS = &discovery.DNS{Refresh: 5 * time.Second}
		f.configure(forward("payment"), named)
		client := f.client()
		call := func(want string) {
			t.Helper()
			reply, err := client.UnaryCall(withTimeout(t), &grpc_testing.SimpleRequest{})
			if err != nil || reply.GetUsername() != want {
				t.Fatalf("%v, %v; want %q", reply, err, want)
			}
		}
		call("first")
		moved.Store(true)
		time.Sleep(6 * time.Second)
		synctest.Wait()
		if open := first.connections(); open != 0 {
			t.Errorf("%d connections to the address that was left", open)
		}
		call("second")
	})
}
