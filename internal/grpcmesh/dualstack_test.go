package grpcmesh_test

import (
	"context"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// TestBL12_AnEndpointWithTwoAddressesIsReachedOverEither: its address of IPv6 is
// silent, as where IPv6 is not routed.
func TestBL12_AnEndpointWithTwoAddressesIsReachedOverEither(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		b := f.serveBoth(endpoint)
		f.dial = func(ctx context.Context, kind, address string) (net.Conn, error) {
			if address != endpoint {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return f.network.DialContext(ctx, kind, address)
		}
		c := cluster("main", "[fd00::1]:9090")
		c.Endpoints.Localities[0].Endpoints[0].Additional = []string{endpoint}
		f.configure(forward("main"), c)
		calls := f.clients()
		for protocol, call := range map[string]func(context.Context) error{"HTTP": calls.callHTTP, "gRPC": calls.callGRPC} {
			begin := time.Now()
			if err := call(t.Context()); err != nil {
				t.Errorf("%s: %v", protocol, err)
			}
			if took := time.Since(begin); took != 250*time.Millisecond {
				t.Errorf("%s: the call took %v, want 250 ms", protocol, took)
			}
		}
		if b.plain.Load() != 1 || b.calls.Load() != 1 {
			t.Errorf("the endpoint got %d and %d calls", b.plain.Load(), b.calls.Load())
		}
	})
}
