package grpcmesh_test

import (
	"context"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/keepalive"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/tlstest"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/outcome"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

// limitedConns is a cluster with few connections, whose servers take ten seconds for a
// call.
type limitedConns struct {
	*fixture

	cluster discovery.ClusterResult
	back    *backend
	servers []*server
}

func newLimitedConns(t *testing.T, limit uint32, edit func(*discovery.Cluster), options ...grpc.ServerOption) *limitedConns {
	t.Helper()
	w := &limitedConns{fixture: newFixture(t), cluster: cluster("main", endpoint)}
	w.back = &backend{before: func(context.Context, int64) error { time.Sleep(10 * time.Second); return nil }}
	w.servers = []*server{w.serve(endpoint, w.back, options...)}
	w.cluster.Cluster.Limits[0].MaxConnections = limit
	edit(w.cluster.Cluster)
	w.configure(forward("main"), w.cluster)
	return w
}

// expect fails the test if other numbers of connections are open, and of calls pend.
func (w *limitedConns) expect(t *testing.T, connections, pending uint32) {
	t.Helper()
	synctest.Wait()
	open := int64(0)
	for _, s := range w.servers {
		open += s.connections()
	}
	if used := w.gate().Usage(); used.Connections != connections || used.Pending != pending || open != int64(connections) {
		t.Errorf("%v connections are open and count as %d, %d calls pend; want %d and %d", open, used.Connections, used.Pending, connections, pending)
	}
}

// begin begins a call, and tells when it has ended, since the beginning of the test.
func (w *limitedConns) begin(t *testing.T, client grpc_testing.TestServiceClient) (ended <-chan time.Time) {
	t.Helper()
	at := make(chan time.Time, 1)
	go func() {
		if _, err := client.EmptyCall(context.Background(), &grpc_testing.Empty{}); err != nil {
			t.Error(err)
		}
		at <- time.Now()
	}()
	synctest.Wait()
	return at
}

func onlyOneCall(c *discovery.Cluster) { c.MaxRequestsPerConnection = 1 }

// Whatever lets a connection go, it counts until its last call has ended, and at the limit
// no other is made: calls wait, as over HTTP, and in Envoy.
func TestBC1_BC6_ConnectionsThatWereLetGoCount(t *testing.T) {
	t.Parallel()
	goAway := grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: time.Second, MaxConnectionAgeGrace: time.Hour})
	for name, w := range map[string]struct {
		edit    func(*discovery.Cluster)
		options []grpc.ServerOption
		alone   bool // each call has a connection
	}{
		"as many calls as one may carry":     {edit: onlyOneCall, alone: true},
		"its age":                            {edit: func(c *discovery.Cluster) { c.MaxConnectionDuration = time.Second }},
		"GOAWAY":                             {edit: func(*discovery.Cluster) {}, options: []grpc.ServerOption{goAway}},
		"its age, and one call at a time":    {edit: func(c *discovery.Cluster) { c.MaxConnectionDuration, c.HTTP2.MaxStreams = time.Second, 1 }, alone: true},
		"its calls, and one call at a time":  {edit: func(c *discovery.Cluster) { c.MaxRequestsPerConnection, c.HTTP2.MaxStreams = 1, 1 }, alone: true},
		"GOAWAY, and a limit of an endpoint": {edit: func(c *discovery.Cluster) { c.HostConnections[0] = c.Limits[0].MaxConnections }, options: []grpc.ServerOption{goAway}},
	} {
		for _, limit := range []uint32{1, 3} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					f := newLimitedConns(t, limit, w.edit, w.options...)
					client := f.client()
					const calls = 9
					start := time.Now()
					var ended []<-chan time.Time
					for i := range uint32(calls) {
						ended = append(ended, f.begin(t, client))
						if used := f.gate().Usage(); used.Connections > limit || int64(used.Connections) != f.servers[0].connections() {
							t.Errorf("after %d calls %d connections are open and %d count; the limit is %d", i+1, f.servers[0].connections(), used.Connections, limit)
						} else if i >= limit && used.Pending == 0 {
							t.Errorf("after %d calls none pends", i+1)
						}
						time.Sleep(1111 * time.Millisecond)
					}
					for i, c := range ended {
						switch took := (<-c).Sub(start); {
						case w.alone && took < time.Duration(i/int(limit)+1)*10*time.Second:
							t.Errorf("call %d has ended after %v: there were more at a time than connections", i, took)
						case took > time.Duration(i+1)*10*time.Second:
							t.Errorf("call %d has ended after %v only", i, took)
						}
					}
				})
			})
		}
	}
}

// Those that wait are served in the order in which they came, each over the next
// connection.
func TestBC6_CallsWaitInLineForTheNextConnection(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newLimitedConns(t, 2, onlyOneCall)
		client := w.client()
		start := time.Now()
		var ended []<-chan time.Time
		for range 7 {
			ended = append(ended, w.begin(t, client))
		}
		w.expect(t, 2, 5)
		time.Sleep(5 * time.Second)
		ended = append(ended, w.begin(t, client)) // behind the others
		w.expect(t, 2, 6)
		for i, c := range ended {
			if took, want := (<-c).Sub(start), time.Duration(i/2+1)*10*time.Second; took != want {
				t.Errorf("call %d has ended after %v, want %v", i, took, want)
			}
		}
		w.expect(t, 0, 0)
		if got := w.seen.overflow; len(got) == 0 || slices.ContainsFunc(got, func(e observe.OverflowEvent) bool { return e.Resource != "connections" }) {
			t.Errorf("overflows: %+v, want some of connections", got)
		}
	})
}

// The bound on what waits, and the deadlines of calls, hold while the only connection goes,
// also if the caller would wait for ready.
func TestBC1_WaitingForTheLastCallOfAConnectionIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newLimitedConns(t, 1, func(c *discovery.Cluster) { c.MaxRequestsPerConnection, c.Limits[0].MaxPendingRequests = 1, 2 })
		w.back.before = nil
		client := w.client()
		stream := func() grpc_testing.TestService_FullDuplexCallClient {
			s, err := client.FullDuplexCall(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		lasts := stream() // for hours
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		began := time.Now()
		late, next := make(chan error, 1), make(chan error, 1)
		go func() { _, err := client.EmptyCall(ctx, &grpc_testing.Empty{}); late <- err }()
		synctest.Wait()
		go func() { _, err := client.EmptyCall(t.Context(), &grpc_testing.Empty{}); next <- err }()
		w.expect(t, 1, 2)
		for _, ready := range []bool{false, true} {
			_, err := client.EmptyCall(t.Context(), &grpc_testing.Empty{}, grpc.WaitForReady(ready))
			checkFailure(t, err, outcome.Overflow, codes.Unavailable, 1)
		}
		checkFailure(t, <-late, outcome.Timeout, codes.DeadlineExceeded, 1)
		if took := time.Since(began); took != time.Minute {
			t.Errorf("the call waited for %v, want its minute", took)
		}
		w.expect(t, 1, 1)
		time.Sleep(3 * time.Hour)
		w.expect(t, 1, 1)
		if err := lasts.CloseSend(); err != nil {
			t.Error(err)
		}
		if _, err := lasts.Recv(); err == nil {
			t.Error("the stream did not end")
		}
		if err := <-next; err != nil {
			t.Error(err)
		}
		w.expect(t, 0, 0)
		_ = stream() // and the next is served; it ends with the test
	})
}

// Each channel has its first connection in spite of the limit, as each thread of Envoy's,
// and waits for its own to go. They all count.
func TestBC1_EachChannelHasOneConnectionAtTheLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newLimitedConns(t, 1, onlyOneCall)
		first, second := w.client(), w.client()
		start := time.Now()
		var ended []<-chan time.Time
		for range 3 {
			ended = append(ended, w.begin(t, first), w.begin(t, second))
			w.expect(t, 2, uint32(len(ended)-2))
		}
		for i, c := range ended {
			if took, want := (<-c).Sub(start), time.Duration(i/2+1)*10*time.Second; took != want {
				t.Errorf("call %d has ended after %v, want %v", i, took, want)
			}
		}
		w.expect(t, 0, 0)
	})
}

// A connection to an endpoint that has left counts while it has calls. The next endpoint
// gets its first in spite of the limit, and no second.
func TestBC1_AConnectionToAnEndpointThatLeftCounts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newLimitedConns(t, 1, func(c *discovery.Cluster) { c.HTTP2.MaxStreams = 1 })
		w.servers = append(w.servers, w.serve("10.0.0.2:9090", w.back))
		client := w.client()
		start := time.Now()
		ended := []<-chan time.Time{w.begin(t, client)}
		w.expect(t, 1, 0)
		moved := w.cluster
		moved.Endpoints = cluster("main", "10.0.0.2:9090").Endpoints
		w.configure(forward("main"), moved)
		w.expect(t, 1, 0)
		time.Sleep(time.Second)
		ended = append(ended, w.begin(t, client), w.begin(t, client))
		w.expect(t, 2, 1)
		for i, want := range []time.Duration{10 * time.Second, 11 * time.Second, 21 * time.Second} {
			if took := (<-ended[i]).Sub(start); took != want {
				t.Errorf("call %d has ended after %v, want %v", i, took, want)
			}
		}
		w.expect(t, 1, 0)
	})
}

// What expires is let go behind its calls, too.
func TestBC6_V25_AConnectionWhoseCertificatesExpireCounts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		ca := f.identify(paymentID)
		own := f.identities["default"].(*meshtls.Static)
		issue := func(life time.Duration) {
			now := time.Now()
			cert := ca.Issue(t, tlstest.Leaf{URIs: []string{paymentID}, NotBefore: now, NotAfter: now.Add(life)})
			identity, err := meshtls.NewIdentity(cert, roots(ca))
			if err != nil {
				t.Fatal(err)
			}
			own.Set(identity)
		}
		issue(20 * time.Second)
		w := &limitedConns{fixture: f, back: &backend{before: func(context.Context, int64) error { time.Sleep(30 * time.Second); return nil }}}
		w.servers = []*server{f.serveAs(strict(endpoint), w.back)}
		c := mutual(cluster("main", endpoint))
		c.Cluster.Limits[0].MaxConnections = 1
		f.configure(forward("main"), c)
		client := f.client()
		start := time.Now()
		ended := []<-chan time.Time{w.begin(t, client)}
		issue(time.Hour)
		time.Sleep(19 * time.Second)
		ended = append(ended, w.begin(t, client))
		w.expect(t, 1, 1)
		for i, want := range []time.Duration{30 * time.Second, time.Minute} {
			if took := (<-ended[i]).Sub(start); took != want {
				t.Errorf("call %d has ended after %v, want %v", i, took, want)
			}
		}
		w.expect(t, 1, 0)
	})
}

// A cluster's limit is one for HTTP and gRPC: a connection of HTTP that is idle leaves one
// less for gRPC, and those of gRPC that go leave none for another protocol.
func TestBC1_HTTPAndGRPCShareTheLimitOfConnections(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.serveBoth(endpoint).before = func(context.Context, int64) error { time.Sleep(10 * time.Second); return nil }
		c := cluster("main", endpoint)
		c.Cluster.Limits[0].MaxConnections, c.Cluster.MaxRequestsPerConnection, c.Cluster.HTTP2.MaxStreams = 3, 2, 1
		f.configure(forward("main"), c)
		clients := f.clients()
		expect := func(connections, pending uint32) {
			t.Helper()
			synctest.Wait()
			if used := f.gate().Usage(); used.Connections != connections || used.Pending != pending {
				t.Errorf("in use are %+v, want %d connections, and %d calls that pend", used, connections, pending)
			}
		}
		if err := clients.callHTTP(t.Context()); err != nil {
			t.Error(err)
		}
		expect(1, 0)
		start := time.Now()
		var calls sync.WaitGroup
		for _, seconds := range []int{10, 10, 20, 20, 30} {
			want := time.Duration(seconds) * time.Second
			calls.Go(func() {
				if err := clients.callGRPC(context.Background()); err != nil {
					t.Error(err)
				}
				if took := time.Since(start); took != want {
					t.Errorf("a call has ended after %v, want %v", took, want)
				}
			})
			synctest.Wait()
		}
		expect(3, 3)
		time.Sleep(15 * time.Second) // their second calls are their last ones
		expect(3, 1)
		if err := clients.callHTTP(t.Context()); err != nil { // the last of its connection
			t.Error(err)
		}
		expect(2, 1) // gRPC hears of its own connections
		calls.Wait()
		expect(1, 0)
	})
}

// A connection of the application's dialer whose handshake fails does not count any more.
func TestBC5_AFailedHandshakeOfAForeignDialerLeavesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.identify(paymentID)
		f.serve(endpoint, &backend{}) // in plaintext
		f.configure(forward("main"), mutual(cluster("main", endpoint)))
		client := f.client(grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return f.network.DialContext(ctx, "tcp", address)
		}))
		if _, err := client.EmptyCall(withTimeout(t), &grpc_testing.Empty{}); err == nil {
			t.Error("the call succeeded without TLS")
		}
		synctest.Wait()
		if used := f.gate().Usage(); used.Connections != 0 {
			t.Errorf("in use are %+v, want no connections", used)
		}
	})
}
