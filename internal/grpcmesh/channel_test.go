package grpcmesh_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
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

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/grpcmesh"
	"github.com/inboardmesh/inboard/internal/meshfail"
	"github.com/inboardmesh/inboard/outcome"
	"github.com/inboardmesh/inboard/retry"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

func TestNoCallFailsWhileOneEndpointIsUp(t *testing.T) {
	t.Parallel()
	for _, kind := range callKinds {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				up := &backend{}
				f.serve("10.0.0.3:1", up)
				f.forwardTo("10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1") // nobody listens at the first two
				client := f.client()
				for range 100 {
					if err := kind.call(withTimeout(t), client); err != nil {
						t.Fatal(err)
					}
					time.Sleep(50 * time.Millisecond) // back-offs pass, and connects fail again
				}
			})
		})
	}
}

// TestAnEndpointThatGoesDownIsReplaced: its server stops without a word to the
// control plane, and no call was under way.
func TestAnEndpointThatGoesDownIsReplaced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		down := f.serve("10.0.0.1:1", &backend{})
		f.serve("10.0.0.2:1", &backend{})
		f.forwardTo("10.0.0.1:1", "10.0.0.2:1")
		client := f.client()
		for i := range 40 {
			if i == 20 {
				down.stop()
				synctest.Wait()
			}
			if err := callUnary(withTimeout(t), client); err != nil {
				t.Fatalf("call %d: %v", i, err)
			}
		}
	})
}

// TestAnEndpointThatComesBackIsUsedAtOnce: the only one of a cluster, after a
// time in which connects failed again and again.
func TestAnEndpointThatComesBackIsUsedAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		first := f.serve(endpoint, &backend{})
		f.forwardTo(endpoint)
		client := f.client()
		if err := callUnary(withTimeout(t), client); err != nil {
			t.Fatal(err)
		}
		first.stop()
		synctest.Wait()
		for range 20 {
			err := callUnary(withTimeout(t), client)
			checkFailure(t, err, outcome.ConnectFailure, codes.Unavailable, 1)
			if failure, _ := errors.AsType[*meshfail.Error](err); failure == nil || !failure.SafeToRetry() || failure.Endpoint != endpoint {
				t.Errorf("%v: %+v", err, failure)
			}
			time.Sleep(3 * time.Second)
		}
		f.serve(endpoint, &backend{})
		if err := callUnary(withTimeout(t), client); err != nil {
			t.Errorf("after the restart: %v", err)
		}
	})
}

// TestG7_ASilentEndpointCostsOneConnectTimeout: packets to it are lost. The call
// that has to find out waits for the cluster's connect timeout; the others go
// elsewhere, also while it is tried again.
func TestG7_ASilentEndpointCostsOneConnectTimeout(t *testing.T) {
	t.Parallel()
	for _, timeout := range []time.Duration{200 * time.Millisecond, 3 * time.Second} {
		t.Run(timeout.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				f.dial = func(ctx context.Context, network, address string) (net.Conn, error) {
					if address == "10.0.0.1:1" {
						<-ctx.Done()
						return nil, ctx.Err()
					}
					return f.network.DialContext(ctx, network, address)
				}
				f.serve("10.0.0.2:1", &backend{})
				c := cluster("main", "10.0.0.1:1", "10.0.0.2:1")
				c.Cluster.ConnectTimeout = timeout
				f.configure(forward("main"), c)
				client := f.client()
				var slow int
				for range 2000 {
					start := time.Now()
					if err := callUnary(withTimeout(t), client); err != nil {
						t.Fatal(err)
					}
					switch took := time.Since(start); {
					case took > timeout:
						t.Fatalf("a call took %v", took)
					case took > 0:
						slow++
					}
					time.Sleep(100 * time.Millisecond)
				}
				if slow != 1 {
					t.Errorf("%d calls waited", slow)
				}
			})
		})
	}
}

func TestAConnectTimeoutIsTheClusters(t *testing.T) {
	t.Parallel()
	for _, timeout := range []time.Duration{200 * time.Millisecond, 10 * time.Second} { // 10 s is Istio's default
		t.Run(timeout.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				f.dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
					<-ctx.Done()
					return nil, ctx.Err()
				}
				c := cluster("main", endpoint)
				c.Cluster.ConnectTimeout = timeout
				f.configure(forward("main"), c)
				start := time.Now()
				err := callUnary(t.Context(), f.client())
				if got := time.Since(start); got != timeout {
					t.Errorf("%v after %v", err, got)
				}
				checkFailure(t, err, outcome.ConnectFailure, codes.Unavailable, 1)
			})
		})
	}
}

func TestWaitForReadyWaitsForAnEndpoint(t *testing.T) {
	t.Parallel()
	prepare := []struct {
		name   string
		before func(f *fixture)
		then   func(f *fixture)
	}{
		{"that comes up", func(f *fixture) { f.forwardTo(endpoint) }, func(f *fixture) { f.serve(endpoint, &backend{}) }},
		{
			"that is added", func(f *fixture) { f.forwardTo() },
			func(f *fixture) { f.serve(endpoint, &backend{}); f.forwardTo(endpoint) },
		},
		{"of a target that is configured later", func(*fixture) {}, func(f *fixture) { f.serve(endpoint, &backend{}); f.forwardTo(endpoint) }},
	}
	for _, p := range prepare {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				p.before(f)
				client := f.client(grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
				done := make(chan error, 1)
				go func() { done <- callUnary(withTimeout(t), client) }()
				time.Sleep(3 * time.Second)
				select {
				case err := <-done:
					t.Fatalf("did not wait: %v", err)
				default:
				}
				p.then(f)
				start := time.Now()
				if err := <-done; err != nil {
					t.Fatal(err)
				}
				if got := time.Since(start); got > 12*time.Second {
					t.Errorf("waited for %v more", got)
				}
			})
		})
	}
}

func TestAClusterWithoutEndpointsIsUnavailableAtOnce(t *testing.T) {
	t.Parallel()
	for _, kind := range callKinds {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				f.configure(retrying(3, ^retry.Conditions(0)), cluster("main"))
				client := f.client()
				start := time.Now()
				err := kind.call(withTimeout(t), client)
				if got := time.Since(start); got != 0 {
					t.Errorf("failed after %v", got)
				}
				checkFailure(t, err, outcome.NoEndpoint, codes.Unavailable, 1)
				if !strings.Contains(err.Error(), `cluster "main": no endpoint in the cluster`) {
					t.Errorf("text %q", err)
				}
			})
		})
	}
}

// TestAnEndpointThatLeavesKeepsItsCalls: a stream goes on where it is, new calls
// go elsewhere, and nothing fails.
func TestAnEndpointThatLeavesKeepsItsCalls(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		old, next := &backend{name: "old"}, &backend{name: "next"}
		oldServer := f.serve("10.0.0.1:1", old)
		f.serve("10.0.0.2:1", next)
		f.forwardTo("10.0.0.1:1")
		client := f.client()
		stream, err := client.FullDuplexCall(withTimeout(t))
		if err != nil {
			t.Fatal(err)
		}
		talk := func() {
			t.Helper()
			if err := stream.Send(outputRequest("x")); err != nil {
				t.Fatal(err)
			}
			if _, err := stream.Recv(); err != nil {
				t.Fatal(err)
			}
		}
		talk()
		f.forwardTo("10.0.0.1:1", "10.0.0.2:1")
		synctest.Wait()
		f.forwardTo("10.0.0.2:1")
		synctest.Wait()
		before := old.calls.Load()
		for range 20 {
			reply, err := client.UnaryCall(withTimeout(t), &grpc_testing.SimpleRequest{})
			if err != nil || reply.GetUsername() != "next" {
				t.Fatalf("%v, %v", reply, err)
			}
		}
		talk()
		if got := old.calls.Load(); got != before {
			t.Errorf("%d calls at the endpoint that left", got-before)
		}
		// Its connection closes with the last call, so the server can end in peace.
		stopped := make(chan struct{})
		go func() { // ends when the stream below has
			oldServer.grpc.GracefulStop()
			close(stopped)
		}()
		talk()
		if err := stream.CloseSend(); err != nil {
			t.Fatal(err)
		}
		<-stopped
	})
}

// TestNoCallFailsWhileEndpointsAreReplaced: new ones are added before old ones
// are removed and stopped.
func TestNoCallFailsWhileEndpointsAreReplaced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		addresses := []string{"10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1", "10.0.0.4:1", "10.0.0.5:1"}
		servers := []*server{f.serve(addresses[0], &backend{})}
		f.forwardTo(addresses[0])
		client := f.client()
		stop := make(chan struct{})
		var calls atomic.Int64
		ended := make(chan struct{})
		go func() { // until stop
			defer close(ended)
			together(8, func(i int) {
				for {
					select {
					case <-stop:
						return
					case <-time.After(time.Millisecond):
					}
					if err := callKinds[i%len(callKinds)].call(withTimeout(t), client); err != nil {
						t.Errorf("%s: %v", callKinds[i%len(callKinds)].name, err)
						return
					}
					calls.Add(1)
				}
			})
		}()
		for i, address := range addresses[1:] {
			servers = append(servers, f.serve(address, &backend{}))
			f.forwardTo(addresses[i], address)
			time.Sleep(20 * time.Millisecond)
			f.forwardTo(address)
			time.Sleep(20 * time.Millisecond)
			servers[i].grpc.GracefulStop()
		}
		close(stop)
		<-ended
		if calls.Load() < 500 {
			t.Errorf("only %d calls", calls.Load())
		}
	})
}

// TestAServerThatStopsGracefullyLosesNoCall, although the control plane does not
// know: its GOAWAY excludes what it did not process.
func TestAServerThatStopsGracefullyLosesNoCall(t *testing.T) {
	t.Parallel()
	for _, transport := range []bool{false, true} {
		name := "in plaintext"
		if transport {
			name = "with mutual TLS"
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				addresses := []string{"10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"}
				c, listen := cluster("main", addresses...), plaintext
				if transport {
					f.identify(paymentID)
					c = mutual(c, paymentID)
					listen = func(address string, routes ...*discovery.Route) *discovery.Inbound { return strict(address, routes...) }
				}
				var servers []*server
				slow := &backend{before: func(context.Context, int64) error {
					time.Sleep(3 * time.Millisecond)
					return nil
				}}
				for _, address := range addresses {
					servers = append(servers, f.serveAs(listen(address), slow))
				}
				f.configure(forward("main"), c)
				client := f.client()
				var calls atomic.Int64
				stop, ended := make(chan struct{}), make(chan struct{})
				go func() { // until stop
					defer close(ended)
					together(16, func(i int) {
						for {
							select {
							case <-stop:
								return
							case <-time.After(time.Duration(i) * 100 * time.Microsecond):
							}
							if err := callKinds[i%len(callKinds)].call(withTimeout(t), client); err != nil {
								t.Errorf("%s: %v", callKinds[i%len(callKinds)].name, err)
								return
							}
							calls.Add(1)
						}
					})
				}()
				for _, s := range servers[:2] {
					time.Sleep(20 * time.Millisecond)
					s.grpc.GracefulStop()
				}
				time.Sleep(20 * time.Millisecond)
				close(stop)
				<-ended
				if calls.Load() < 100 {
					t.Errorf("only %d calls", calls.Load())
				}
			})
		})
	}
}

// TestAChangeOfTLSMakesNewConnections: from plaintext to mutual TLS and back,
// without a failed call.
func TestAChangeOfTLSMakesNewConnections(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.identify(paymentID)
		peers := make(chan string, 1)
		b := &backend{before: func(ctx context.Context, _ int64) error {
			id := "nobody"
			if peer, ok := peerOf(ctx); ok {
				id = peer
			}
			peers <- id
			return nil
		}}
		both := strict(endpoint) // PERMISSIVE
		both.Chains[0].Match.TransportProtocol = "tls"
		both.Chains = append(both.Chains, plaintext(endpoint).Chains[0])
		both.Chains[1].Match.TransportProtocol = "raw_buffer"
		f.serveAs(both, b)
		client := f.client()
		for i, step := range []struct {
			cluster discovery.ClusterResult
			peer    string
		}{
			{cluster("main", endpoint), "nobody"},
			{mutual(cluster("main", endpoint), paymentID), paymentID},
			{cluster("main", endpoint), "nobody"},
		} {
			f.configure(forward("main"), step.cluster)
			synctest.Wait()
			for range 3 {
				if err := callUnary(withTimeout(t), client); err != nil {
					t.Fatalf("step %d: %v", i, err)
				}
				if got := <-peers; got != step.peer {
					t.Errorf("step %d: the server saw %s, want %s", i, got, step.peer)
				}
			}
		}
	})
}

// TestAChangeOfRootsMakesNewConnections: a peer that was verified by roots which
// are no longer trusted is asked again.
func TestAChangeOfRootsMakesNewConnections(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		ca := f.identify(paymentID)
		f.serveAs(strict(endpoint), &backend{})
		f.configure(forward("main"), mutual(cluster("main", endpoint), paymentID))
		client := f.client()
		if err := callUnary(withTimeout(t), client); err != nil {
			t.Fatal(err)
		}
		// The same certificate and other roots: the server's is not trusted now.
		other := newCA(t)
		identity, err := meshtls.NewIdentity(ca.Workload(t, paymentID), roots(other))
		if err != nil {
			t.Fatal(err)
		}
		f.identities["default"].(*meshtls.Static).Set(identity)
		synctest.Wait()
		err = callUnary(withTimeout(t), client)
		checkFailure(t, err, outcome.ConnectFailure, codes.Unavailable, 1)
	})
}

func TestBC6_ConnectionsAreReplacedAsTheClusterSays(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		edit func(*discovery.Cluster)
		want int32 // connections for 10 calls, one a second
	}{
		{"no limit", func(*discovery.Cluster) {}, 1},
		{"max_requests_per_connection", func(c *discovery.Cluster) { c.MaxRequestsPerConnection = 3 }, 4},
		{"idle_timeout", func(c *discovery.Cluster) { c.IdleTimeout = 900 * time.Millisecond }, 10},
		{"an idle_timeout longer than the pauses", func(c *discovery.Cluster) { c.IdleTimeout = 1100 * time.Millisecond }, 1},
		{"max_connection_duration", func(c *discovery.Cluster) { c.MaxConnectionDuration = 2500 * time.Millisecond }, 4},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				var dials atomic.Int32
				f.dial = func(ctx context.Context, network, address string) (net.Conn, error) {
					dials.Add(1)
					return f.network.DialContext(ctx, network, address)
				}
				f.serve(endpoint, &backend{})
				c := cluster("main", endpoint)
				tt.edit(c.Cluster)
				f.configure(forward("main"), c)
				client := f.client()
				for range 10 {
					if err := callUnary(withTimeout(t), client); err != nil {
						t.Fatal(err)
					}
					time.Sleep(time.Second)
				}
				if got := dials.Load(); got != tt.want {
					t.Errorf("%d connections, want %d", got, tt.want)
				}
			})
		})
	}
}

// TestAConnectionWithACallIsNotIdle, however long that says nothing.
func TestAConnectionWithACallIsNotIdle(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		s := f.serve(endpoint, &backend{})
		c := cluster("main", endpoint)
		c.Cluster.IdleTimeout = time.Second
		f.configure(forward("main"), c)
		stream, err := f.client().FullDuplexCall(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if err := stream.Send(outputRequest("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
		if err := stream.CloseSend(); err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		time.Sleep(999 * time.Millisecond)
		if s.connections() != 1 {
			t.Error("the connection was closed too early")
		}
		time.Sleep(2 * time.Millisecond)
		if s.connections() != 0 {
			t.Error("the idle connection is still open")
		}
	})
}

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
		{"mesh:///payment.shop", `target "mesh:///payment.shop" needs a port: mesh:///HOST:PORT`},
		{"xds:///payment.shop", `target "xds:///payment.shop" needs a port: xds:///HOST:PORT`},
		{"passthrough:///payment.shop:9090", `target "passthrough:///payment.shop:9090" is not the mesh's: use mesh:///HOST:PORT`},
		{"payment.shop:9090", `target "payment.shop:9090" is not the mesh's: use mesh:///HOST:PORT`},
		{"mesh://authority/payment.shop:9090", `target "mesh://authority/payment.shop:9090" is not the mesh's: use mesh:///HOST:PORT`},
	}
	for _, tt := range tests {
		for _, kind := range callKinds {
			t.Run(tt.uri+", "+kind.name, func(t *testing.T) {
				t.Parallel()
				f := newFixture(t)
				err := kind.call(withTimeout(t), grpc_testing.NewTestServiceClient(f.channelTo(tt.uri)))
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
