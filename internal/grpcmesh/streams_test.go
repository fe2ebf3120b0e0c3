package grpcmesh_test

import (
	"context"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop/grpc_testing"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/memnet"
	"github.com/inboardmesh/inboard/outcome"
)

// streamWorld is one endpoint and a client whose connections are counted.
type streamWorld struct {
	*fixture
	client grpc_testing.TestServiceClient
	conns  []*memnet.Mutable
	back   *backend
}

func newStreamWorld(t *testing.T, edit func(*discovery.Cluster)) *streamWorld {
	t.Helper()
	w := &streamWorld{fixture: newFixture(t), back: &backend{}}
	w.dial = func(ctx context.Context, kind, address string) (net.Conn, error) {
		c, err := w.network.DialContext(ctx, kind, address)
		if err != nil {
			return nil, err
		}
		w.conns = append(w.conns, memnet.NewMutable(c))
		return w.conns[len(w.conns)-1], nil
	}
	w.serve(endpoint, w.back)
	c := cluster("main", endpoint)
	edit(c.Cluster)
	w.configure(forward("main"), c)
	w.client = w.fixture.client()
	return w
}

// streams opens streams, one after the other, each of which is answered once.
func (w *streamWorld) streams(t *testing.T, n int) (end func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	for range n {
		stream, err := w.client.FullDuplexCall(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Send(&grpc_testing.StreamingOutputCallRequest{ResponseParameters: []*grpc_testing.ResponseParameters{{Size: 1}}}); err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
	}
	return cancel
}

func TestAClusterLimitsTheCallsOnAConnection(t *testing.T) {
	t.Parallel()
	for limit, want := range map[uint32]int{0: 1, 1: 7, 3: 3, 100: 1} {
		synctest.Test(t, func(t *testing.T) {
			w := newStreamWorld(t, func(c *discovery.Cluster) { c.HTTP2.MaxStreams = limit })
			end := w.streams(t, 7)
			if len(w.conns) != want {
				t.Errorf("with a limit of %d, 7 streams are on %d connections, want %d", limit, len(w.conns), want)
			}
			config, _ := w.outbound.Target(target).Watch()
			if got := config.Clusters["main"].Gate(discovery.PriorityDefault).Usage().Connections; got != uint32(want) {
				t.Errorf("%d connections are counted, want %d", got, want)
			}
			end()
			synctest.Wait()
			end = w.streams(t, 7) // over the connections that there are
			defer end()
			if len(w.conns) != want {
				t.Errorf("with a limit of %d, 7 more are on %d connections, want %d", limit, len(w.conns), want)
			}
		})
	}
}

// Without another connection calls wait, as pending ones, for another to end.
func TestCallsWaitForRoomOnAConnection(t *testing.T) {
	t.Parallel()
	for name, edit := range map[string]func(*discovery.Cluster){
		"by the limit of the cluster": func(c *discovery.Cluster) { c.Limits[0].MaxConnections = 2 },
		"by the limit of a host":      func(c *discovery.Cluster) { c.HostConnections[0] = 2 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newStreamWorld(t, func(c *discovery.Cluster) {
					c.HTTP2.MaxStreams = 2
					edit(c)
				})
				end := w.streams(t, 4)
				const waiting = 10
				ended := make(chan error, waiting)
				for range waiting {
					go func() {
						_, err := w.client.EmptyCall(t.Context(), &grpc_testing.Empty{})
						ended <- err
					}()
				}
				synctest.Wait()
				config, _ := w.outbound.Target(target).Watch()
				if got := config.Clusters["main"].Gate(discovery.PriorityDefault).Usage().Pending; got != waiting {
					t.Errorf("%d calls wait, want %d", got, waiting)
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				_, err := w.client.EmptyCall(ctx, &grpc_testing.Empty{})
				checkFailure(t, err, outcome.Timeout, codes.DeadlineExceeded, 1)
				end()
				for range waiting {
					if err := <-ended; err != nil {
						t.Error(err)
					}
				}
				if len(w.conns) != 2 {
					t.Errorf("%d connections were made, want 2", len(w.conns))
				}
			})
		})
	}
}

func TestConnectionsThatAreNotNeededAreLetGo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newStreamWorld(t, func(c *discovery.Cluster) { c.HTTP2.MaxStreams, c.IdleTimeout = 1, time.Minute })
		w.streams(t, 3)()
		time.Sleep(2 * time.Minute)
		config, _ := w.outbound.Target(target).Watch()
		if got := config.Clusters["main"].Gate(discovery.PriorityDefault).Usage().Connections; got != 0 {
			t.Errorf("%d connections are open, want none", got)
		}
		w.streams(t, 1)()
	})
}

// A peer that vanishes is noticed by the pings of its cluster, with and without
// calls; servers of the mesh do not mind being asked.
func TestASilentPeerOfAChannelIsNoticed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newStreamWorld(t, func(c *discovery.Cluster) {
			c.HTTP2.Pings = discovery.Pings{Interval: 10 * time.Second, Timeout: 2 * time.Second}
		})
		end := w.streams(t, 1)
		time.Sleep(10 * time.Minute)
		if len(w.conns) != 1 {
			t.Fatalf("%d connections were made: the peer was there all the time", len(w.conns))
		}
		ended := make(chan error, 1)
		go func() {
			stream, err := w.client.FullDuplexCall(t.Context())
			if err == nil {
				_, err = stream.Recv()
			}
			ended <- err
		}()
		synctest.Wait()
		begin := time.Now()
		w.conns[0].Silence()
		err := <-ended
		if took := time.Since(begin); took > 12*time.Second {
			t.Errorf("noticed after %v, want at most 12 s", took)
		}
		if err == nil || !strings.Contains(err.Error(), "not answered a PING for 2s") {
			t.Errorf("the error is %v", err)
		}
		end()
		w.streams(t, 1)()
		if len(w.conns) != 2 {
			t.Errorf("%d connections were made, want 2", len(w.conns))
		}
	})
}
