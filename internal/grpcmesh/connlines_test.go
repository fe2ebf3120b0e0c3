package grpcmesh_test

import (
	"context"
	"errors"
	"io"
	"net"
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
