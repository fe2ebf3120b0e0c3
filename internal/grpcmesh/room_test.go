package grpcmesh_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/outcome"
)

// narrow is an endpoint with one connection for one call at a time, and who was
// served there, in order.
type narrow struct {
	*streamWorld

	mu    sync.Mutex
	names []string
}

func newNarrow(t *testing.T, edit func(*discovery.Cluster)) *narrow {
	t.Helper()
	n := &narrow{}
	n.streamWorld = newStreamWorld(t, func(c *discovery.Cluster) {
		c.HTTP2.MaxStreams, c.HostConnections[0] = 1, 1
		edit(c)
	})
	n.back.before = func(ctx context.Context, _ int64) error {
		md, _ := metadata.FromIncomingContext(ctx)
		n.mu.Lock()
		defer n.mu.Unlock()
		n.names = append(n.names, md.Get("x-name")...)
		return nil
	}
	return n
}

// call makes a call that waits by now, or has ended.
func (n *narrow) call(ctx context.Context, name string) <-chan error {
	ended := make(chan error, 1)
	go func() {
		_, err := n.client.EmptyCall(metadata.AppendToOutgoingContext(ctx, "x-name", name), &grpc_testing.Empty{})
		ended <- err
	}()
	synctest.Wait()
	return ended
}

func TestCallsGetRoomInTheOrderInWhichTheyCame(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newNarrow(t, func(*discovery.Cluster) {})
		end := n.streams(t, 1)
		var ended []<-chan error
		var want []string
		canceled, cancel := context.WithCancel(t.Context())
		for i := range 20 {
			name, ctx := fmt.Sprint("call ", i), t.Context()
			if i%7 == 0 { // the first one, too
				ctx = canceled
			} else {
				want = append(want, name)
			}
			ended = append(ended, n.call(ctx, name))
		}
		cancel()
		synctest.Wait()
		end()
		// It comes while the others are served.
		ended, want = append(ended, n.call(t.Context(), "the last")), append(want, "the last")
		for i, c := range ended {
			switch err := <-c; {
			case i%7 == 0 && i < 20:
				checkFailure(t, err, outcome.Canceled, codes.Canceled, 1)
			case err != nil:
				t.Errorf("call %d: %v", i, err)
			}
		}
		if !slices.Equal(n.names, want) {
			t.Errorf("served were %q, want %q", n.names, want)
		}
	})
}

func TestCallsThatWaitForRoomEndWithTheChannel(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.serve(endpoint, &backend{})
		c := cluster("main", endpoint)
		c.Cluster.HTTP2.MaxStreams, c.Cluster.HostConnections[0] = 1, 1
		f.configure(forward("main"), c)
		channel := f.channel()
		n := &narrow{streamWorld: &streamWorld{fixture: f, client: grpc_testing.NewTestServiceClient(channel)}}
		end := n.streams(t, 1)
		defer end()
		first, second := n.call(t.Context(), "first"), n.call(t.Context(), "second")
		if err := channel.Close(); err != nil {
			t.Fatal(err)
		}
		for _, ended := range []<-chan error{first, second} {
			if err := <-ended; status.Code(err) != codes.Canceled || !strings.Contains(err.Error(), "closing") {
				t.Errorf("got %v, want what gRPC says of a channel that is closed", err)
			}
		}
	})
}

func TestCallsThatWaitForRoomFollowTheConfiguration(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(c *discovery.ClusterResult){
		"more calls on a connection": func(c *discovery.ClusterResult) { c.Cluster.HTTP2.MaxStreams = 3 },
		"no limit any more":          func(c *discovery.ClusterResult) { c.Cluster.HTTP2.MaxStreams = 0 },
		"more connections":           func(c *discovery.ClusterResult) { c.Cluster.HostConnections[0] = 3 },
		"another endpoint": func(c *discovery.ClusterResult) {
			c.Endpoints = cluster("main", "10.0.0.2:9090").Endpoints
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				f.serve(endpoint, &backend{})
				f.serve("10.0.0.2:9090", &backend{})
				narrowed := func() discovery.ClusterResult {
					c := cluster("main", endpoint)
					c.Cluster.HTTP2.MaxStreams, c.Cluster.HostConnections[0] = 1, 1
					return c
				}
				f.configure(forward("main"), narrowed())
				n := &narrow{streamWorld: &streamWorld{fixture: f, client: f.client()}}
				defer n.streams(t, 1)()
				first, second := n.call(t.Context(), "first"), n.call(t.Context(), "second")
				changed := narrowed()
				change(&changed)
				f.configure(forward("main"), changed)
				for _, ended := range []<-chan error{first, second} {
					select {
					case err := <-ended:
						if err != nil {
							t.Error(err)
						}
					case <-time.After(time.Minute):
						t.Error("a call waits in spite of the change")
					}
				}
			})
		})
	}
}

// A call for which too little time is left when its turn comes leaves the room to the
// next one.
func TestACallThatIsTooLateLeavesItsRoom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.serve(endpoint, &backend{})
		c := cluster("main", endpoint)
		c.Cluster.HTTP2.MaxStreams, c.Cluster.HostConnections[0] = 1, 1
		route := forward("main")
		route.Forward.MinTime = 4 * time.Second
		f.configure(route, c)
		n := &narrow{streamWorld: &streamWorld{fixture: f, client: f.client()}}
		end := n.streams(t, 1)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		late, next := n.call(ctx, "late"), n.call(withTimeout(t), "next")
		time.Sleep(2 * time.Second)
		end()
		checkFailure(t, <-late, outcome.Timeout, codes.DeadlineExceeded, 1)
		if err := <-next; err != nil {
			t.Errorf("the next call: %v", err)
		}
	})
}
