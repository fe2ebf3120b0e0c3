package grpcmesh_test

import (
	"context"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop/grpc_testing"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/outcome"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

// TestBN10_AnEndpointThatLeavesKeepsItsCalls: a stream goes on where it is, new calls
// go elsewhere, and nothing fails.
func TestBN10_AnEndpointThatLeavesKeepsItsCalls(t *testing.T) {
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

// TestBN10_NoCallFailsWhileEndpointsAreReplaced: new ones are added before old ones
// are removed and stopped.
func TestBN10_NoCallFailsWhileEndpointsAreReplaced(t *testing.T) {
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

// TestBN10_AServerThatStopsGracefullyLosesNoCall, although the control plane does not
// know: its GOAWAY excludes what it did not process.
func TestBN10_AServerThatStopsGracefullyLosesNoCall(t *testing.T) {
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

// TestBN5_AChangeOfTLSMakesNewConnections: from plaintext to mutual TLS and back,
// without a failed call.
func TestBN5_AChangeOfTLSMakesNewConnections(t *testing.T) {
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

// TestBN5_AChangeOfRootsMakesNewConnections: a peer that was verified by roots which
// are no longer trusted is asked again.
func TestBN5_AChangeOfRootsMakesNewConnections(t *testing.T) {
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

func TestBC6_BN6_ConnectionsAreReplacedAsTheClusterSays(t *testing.T) {
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
