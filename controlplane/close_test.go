package controlplane_test

import (
	"context"
	"fmt"
	"net"
	"testing"
	"testing/synctest"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/inboardmesh/inboard/controlplane"
	"github.com/inboardmesh/inboard/controlplane/ca"
	"github.com/inboardmesh/inboard/internal/memnet"
)

// Whoever connects and says nothing does not keep a server that ends, nor do others
// keep it for longer than Serve says.
func TestASilentConnectionDoesNotKeepAServerThatEnds(t *testing.T) {
	t.Parallel()
	for _, said := range []string{"", "PRI * HTTP/2.0\r\n\r\n", "\x16\x03\x01"} {
		for _, ends := range []string{"Close", "Serve"} {
			t.Run(fmt.Sprintf("%q, %s", said, ends), func(t *testing.T) {
				t.Parallel()
				authority, err := ca.New(ca.Config{})
				if err != nil {
					t.Fatal(err)
				}
				synctest.Test(t, func(t *testing.T) {
					server, err := controlplane.New(controlplane.Config{CA: authority})
					if err != nil {
						t.Fatal(err)
					}
					network := new(memnet.Network)
					listen := func(address string) net.Listener {
						ln, err := network.Listen(address)
						if err != nil {
							t.Fatal(err)
						}
						return ln
					}
					ctx, cancel := context.WithCancel(t.Context())
					served := make(chan error, 1)
					go func() { // ends below
						served <- server.Serve(ctx, controlplane.Listeners{Secure: listen("secure"), Plaintext: listen("plaintext"), Status: listen("status")})
					}()
					synctest.Wait()
					for _, address := range []string{"secure", "plaintext", "status"} {
						conn, err := network.DialContext(ctx, "tcp", address)
						if err != nil {
							t.Fatal(err)
						}
						defer conn.Close()
						if _, err := conn.Write([]byte(said)); err != nil {
							t.Fatal(err)
						}
					}
					synctest.Wait()
					begun := time.Now()
					if ends == "Serve" {
						cancel()
						if err := <-served; err != nil {
							t.Error(err)
						}
					}
					if err := server.Close(); err != nil {
						t.Error(err)
					}
					// net/http looks every few milliseconds whether its connections are closed.
					if took := time.Since(begun); took > 50*time.Millisecond {
						t.Errorf("it took %v", took)
					}
					cancel()
				})
			})
		}
	}
}

// TestAServerEndsInItsTime ends a server with clients that do nothing by themselves.
func TestAServerEndsInItsTime(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		call func(context.Context, *grpc.ClientConn) error
		want time.Duration
	}{
		{name: "no call", call: func(_ context.Context, cc *grpc.ClientConn) error { cc.Connect(); return nil }},
		{name: "a silent stream", call: func(ctx context.Context, cc *grpc.ClientConn) error {
			_, err := discovery.NewAggregatedDiscoveryServiceClient(cc).DeltaAggregatedResources(ctx)
			return err
		}},
		{name: "a stream that waits", call: func(ctx context.Context, cc *grpc.ClientConn) error {
			stream, err := discovery.NewAggregatedDiscoveryServiceClient(cc).StreamAggregatedResources(ctx)
			if err != nil {
				return err
			}
			return stream.Send(&discovery.DiscoveryRequest{Node: &core.Node{Id: "a"}, TypeUrl: resource.ListenerType, ResourceNames: []string{"x:80"}})
		}},
		{name: "a watch of the health", want: 2 * time.Second, call: func(ctx context.Context, cc *grpc.ClientConn) error {
			_, err := grpc_health_v1.NewHealthClient(cc).Watch(ctx, new(grpc_health_v1.HealthCheckRequest))
			return err
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				server, err := controlplane.New(controlplane.Config{})
				if err != nil {
					t.Fatal(err)
				}
				network := new(memnet.Network)
				ln, err := network.Listen("plaintext")
				if err != nil {
					t.Fatal(err)
				}
				served := make(chan error, 1)
				go func() { served <- server.Serve(t.Context(), controlplane.Listeners{Plaintext: ln}) }() // ends below
				cc, err := grpc.NewClient("passthrough:///plaintext", grpc.WithTransportCredentials(insecure.NewCredentials()),
					grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
						return network.DialContext(ctx, "tcp", address)
					}))
				if err != nil {
					t.Fatal(err)
				}
				defer cc.Close()
				if err := tt.call(t.Context(), cc); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				begun := time.Now()
				if err := server.Close(); err != nil {
					t.Error(err)
				}
				if took := time.Since(begun); took != tt.want {
					t.Errorf("it took %v, want %v", took, tt.want)
				}
				if err := <-served; err != nil {
					t.Error(err)
				}
			})
		})
	}
}
