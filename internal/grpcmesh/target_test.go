package grpcmesh_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/internal/grpcmesh"
	"github.com/inboardmesh/inboard/outcome"
	"github.com/inboardmesh/inboard/outcome/meshfail"
)

func TestAHostThatTheMeshDoesNotKnow(t *testing.T) {
	t.Parallel()
	for _, kind := range callKinds {
		t.Run("is refused, "+kind.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				f.source.forget(target)
				err := kind.call(withTimeout(t), f.client())
				checkFailure(t, err, outcome.UnknownHost, codes.Unavailable, 0)
				if want := "refused by the outbound policy (registry only): "; !strings.Contains(err.Error(), want) {
					t.Errorf("no %q in %v", want, err)
				}
			})
		})
		t.Run("is called directly, "+kind.name, func(t *testing.T) {
			t.Parallel()
			// Name resolution needs the real network.
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			outside := grpc.NewServer(grpc.Creds(insecure.NewCredentials()))
			grpc_testing.RegisterTestServiceServer(outside, &backend{})
			go func() { _ = outside.Serve(ln) }() // until Stop
			t.Cleanup(outside.Stop)
			f := newFixture(t, func(o *grpcmesh.Options) { o.AllowUnknown = true })
			name := ln.Addr().String()
			f.source.forget(name)
			client := grpc_testing.NewTestServiceClient(f.channelTo("mesh:///" + name))
			for range 2 {
				if err := kind.call(withTimeout(t), client); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func TestATargetThatIsNotTheMeshsIsAnErrorThatSaysSo(t *testing.T) {
	t.Parallel()
	tests := []struct{ uri, want string }{
		{"mesh:///payment.shop", `target "mesh:///payment.shop": it needs a port: mesh:///HOST:PORT`},
		{"xds:///payment.shop", `target "xds:///payment.shop": it needs a port: xds:///HOST:PORT`},
		{"passthrough:///payment.shop:9090", `target "passthrough:///payment.shop:9090": it is not the mesh's: use mesh:///HOST:PORT`},
		{"payment.shop:9090", `target "payment.shop:9090": it is not the mesh's: use mesh:///HOST:PORT`},
		{"mesh://authority/payment.shop", `target "mesh://authority/payment.shop": it needs a port: mesh:///HOST:PORT`},
		{"mesh://payment.shop:9090", `target "mesh://payment.shop:9090": it is not the mesh's: use mesh:///HOST:PORT`},
	}
	for _, tt := range tests {
		for _, kind := range callKinds {
			t.Run(tt.uri+", "+kind.name, func(t *testing.T) {
				t.Parallel()
				f := newFixture(t)
				err := kind.call(withTimeout(t), grpc_testing.NewTestServiceClient(f.channelTo(tt.uri)))
				if failure, ok := errors.AsType[*meshfail.Error](err); !ok || failure.Target != tt.uri {
					t.Errorf("%v (%T) is not the mesh's", err, err)
				}
				if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("%v, want %s", err, tt.want)
				}
			})
		}
	}
}

// TestOptionsThatDefeatTheMeshsAreRefused: the channel would not route, or not
// encrypt, as configured. It must not work by chance.
func TestOptionsThatDefeatTheMeshsAreRefused(t *testing.T) {
	t.Parallel()
	r := manual.NewBuilderWithScheme("mesh")
	r.InitialState(resolver.State{Addresses: []resolver.Address{{Addr: endpoint}}})
	tests := []struct {
		name          string
		before, after grpc.DialOption
		want          string
	}{
		{"another resolver", grpc.WithResolvers(r), grpc.EmptyDialOption{}, "the channel's resolver is not the mesh's"},
		{"other credentials", grpc.EmptyDialOption{}, grpc.WithTransportCredentials(insecure.NewCredentials()), "the channel's credentials are not the mesh's"},
		{
			"another policy", grpc.EmptyDialOption{},
			grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"round_robin":{}}]}`), "Unavailable",
		},
	}
	for _, tt := range tests {
		for _, wait := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, wait for ready %v", tt.name, wait), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					f := newFixture(t)
					s := f.serve(endpoint, &backend{})
					f.forwardTo(endpoint)
					options := append([]grpc.DialOption{tt.before}, f.adapter.DialOptions()...)
					conn, err := grpc.NewClient("mesh:///"+target, append(options, tt.after)...)
					if err != nil {
						t.Fatal(err)
					}
					defer conn.Close()
					ctx, cancel := context.WithTimeout(t.Context(), time.Second)
					defer cancel()
					_, err = grpc_testing.NewTestServiceClient(conn).EmptyCall(ctx, &grpc_testing.Empty{}, grpc.WaitForReady(wait))
					if err == nil || !strings.Contains(err.Error(), tt.want) && !wait {
						t.Errorf("%v", err)
					}
					if s.connections() != 0 {
						t.Error("there is a connection")
					}
				})
			})
		}
	}
}

func TestCallsRoundTheInterceptorsAreRefused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.serve(endpoint, &backend{})
		f.forwardTo(endpoint)
		// An interceptor of the application loses the context.
		strip := func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			return invoke(withTimeout(t), method, req, reply, cc, opts...)
		}
		client := f.client(grpc.WithChainUnaryInterceptor(strip))
		_, err := client.EmptyCall(withTimeout(t), &grpc_testing.Empty{})
		if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "pass all of Mesh.DialOptions") {
			t.Errorf("%v", err)
		}
	})
}

// TestAForgottenTargetIsFollowedAgain: a channel outlives the sweep of targets
// that the control plane did not know.
func TestAForgottenTargetIsFollowedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.source.forget(target)
		client := f.client()
		if err := callUnary(withTimeout(t), client); err == nil {
			t.Fatal("a call to an unknown host succeeded")
		}
		time.Sleep(time.Hour)
		old := f.serve("10.0.0.1:1", &backend{})
		f.serve("10.0.0.2:1", &backend{})
		f.forwardTo("10.0.0.1:1")
		if err := callUnary(withTimeout(t), client); err != nil {
			t.Fatal(err)
		}
		// The channel must learn that the first endpoint left: else its
		// connection stays, and the server below waits for it.
		f.forwardTo("10.0.0.2:1")
		synctest.Wait()
		if n := old.connections(); n != 0 {
			t.Errorf("%d connections to an endpoint that left", n)
		}
	})
}

func TestXDSTargetsAreTheMeshs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.serve(endpoint, &backend{})
		f.forwardTo(endpoint)
		if err := callUnary(withTimeout(t), grpc_testing.NewTestServiceClient(f.channelTo("xds:///"+target))); err != nil {
			t.Error(err)
		}
	})
}
