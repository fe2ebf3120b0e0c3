package grpcmesh_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/keepalive"

	"github.com/inboardmesh/inboard/discovery"
)

// A call does not wait for a connection whose back-off runs while another one, which a
// limit kept from connecting, can be tried now.
func TestBC1_NobodyWaitsForABackOffWhileAnotherConnectionMayBeTried(t *testing.T) {
	t.Parallel()
	for _, order := range [][]int{{0, 1}, {1, 0}} {
		synctest.Test(t, func(t *testing.T) {
			w := newLimitedConns(t, 2, func(c *discovery.Cluster) { c.HTTP2.MaxStreams = 1 })
			client := w.client()
			var conns []net.Conn
			down := false
			w.dial = func(ctx context.Context, kind, address string) (net.Conn, error) {
				if down {
					return nil, errors.New("nobody is there")
				}
				conn, err := w.network.DialContext(ctx, kind, address)
				conns = append(conns, conn)
				return conn, err
			}
			first, second := w.begin(t, client), w.begin(t, client)
			w.expect(t, 2, 0)
			<-first
			<-second
			fewer := *w.cluster.Cluster
			fewer.Limits[0].MaxConnections = 1
			w.cluster.Cluster = &fewer
			w.configure(forward("main"), w.cluster)
			synctest.Wait()
			down = true
			for _, i := range order {
				_ = conns[i].Close() // only the last may be made again at once
				synctest.Wait()
			}
			start := time.Now()
			_, err := client.EmptyCall(withTimeout(t), &grpc_testing.Empty{})
			if took := time.Since(start); err == nil || took > time.Millisecond {
				t.Errorf("after %v: %v; want that it fails at once", took, err)
			}
		})
	}
}

// The calls on a connection that its peer has sent away take no room on the next one, and
// go on when that is let go.
func TestBC1_CallsOnAConnectionSentAwayTakeNoRoomOnTheNext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		goAway := grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: 3 * time.Second, MaxConnectionAgeGrace: time.Hour})
		w := newLimitedConns(t, 2, func(c *discovery.Cluster) { c.HTTP2.MaxStreams, c.IdleTimeout = 1, time.Second }, goAway)
		w.back.before = nil
		client := w.client()
		lasts, err := client.FullDuplexCall(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(3500 * time.Millisecond) // it was sent away, and there is another one
		w.expect(t, 2, 0)
		if _, err := client.EmptyCall(withTimeout(t), &grpc_testing.Empty{}); err != nil {
			t.Error(err)
		}
		time.Sleep(2 * time.Second) // that is idle
		w.expect(t, 1, 0)
		if err := lasts.CloseSend(); err != nil {
			t.Error(err)
		}
		if _, err := lasts.Recv(); !errors.Is(err, io.EOF) {
			t.Errorf("the stream has ended with %v", err)
		}
		w.expect(t, 0, 0)
	})
}

// Calls in line for an endpoint that a name no longer stands for go to the next one, also
// if no connection is being made that would tell of it.
func TestBC1_CallsInLineForAnEndpointThatANameLeftGoElsewhere(t *testing.T) {
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
		f.serve("10.0.0.1:1", &backend{name: "first"})
		f.serve("10.0.0.2:1", &backend{name: "second"})
		named := cluster("payment", net.JoinHostPort("payment.example", "1"))
		named.Cluster.DNS = &discovery.DNS{Refresh: 5 * time.Second}
		named.Cluster.Limits[0].MaxConnections, named.Cluster.MaxRequestsPerConnection = 1, 1
		f.configure(forward("payment"), named)
		client := f.client()
		if _, err := client.FullDuplexCall(t.Context()); err != nil { // to the end of the test
			t.Fatal(err)
		}
		start := time.Now()
		time.AfterFunc(time.Second, func() { moved.Store(true) })
		reply, err := client.UnaryCall(withTimeout(t), &grpc_testing.SimpleRequest{})
		if took := time.Since(start); err != nil || reply.GetUsername() != "second" || took > 6*time.Second {
			t.Errorf("after %v: %v, %v; want the second server, as soon as the name stands for it", took, reply, err)
		}
	})
}

// secureOnly are credentials of calls that must not be sent in plaintext.
type secureOnly struct{}

func (secureOnly) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "secret"}, nil
}

func (secureOnly) RequireTransportSecurity() bool { return true }

// A connection of the application's dialer over which gRPC refuses to send the credentials
// of the application's does not count any more.
func TestBC5_AConnectionOfAForeignDialerThatIsNotSecureEnoughLeavesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.serve(endpoint, &backend{})
		f.forwardTo(endpoint)
		client := f.client(grpc.WithPerRPCCredentials(secureOnly{}), grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return f.network.DialContext(ctx, "tcp", address)
		}))
		if _, err := client.EmptyCall(withTimeout(t), &grpc_testing.Empty{}); err == nil {
			t.Error("the credentials were sent in plaintext")
		}
		synctest.Wait()
		if used := f.gate().Usage(); used.Connections != 0 {
			t.Errorf("in use are %+v, want no connections", used)
		}
	})
}
