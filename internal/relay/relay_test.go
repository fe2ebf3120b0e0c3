package relay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/discovery/bootstrap"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

// source tells destinations what a test wants.
type source struct {
	mu      sync.Mutex
	watches map[string][]*func(discovery.Update[*discovery.Target]) // guarded by mu
	inbound map[string]int                                          // guarded by mu; watches
	last    map[string]discovery.Update[*discovery.Target]          // guarded by mu
}

var _ discovery.Source = (*source)(nil)

func newSource() *source {
	return &source{
		watches: make(map[string][]*func(discovery.Update[*discovery.Target])), inbound: make(map[string]int),
		last: make(map[string]discovery.Update[*discovery.Target]),
	}
}

func (s *source) WatchTarget(name string, notify func(discovery.Update[*discovery.Target])) (stop func()) {
	s.mu.Lock()
	s.watches[name] = append(s.watches[name], &notify)
	last, known := s.last[name]
	s.mu.Unlock()
	if known {
		notify(last)
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.watches[name] = slices.DeleteFunc(s.watches[name], func(other *func(discovery.Update[*discovery.Target])) bool { return other == &notify })
	}
}

func (s *source) WatchInbound(address string, _ func(discovery.Update[*discovery.Inbound])) (stop func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inbound[address]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.inbound[address]--
	}
}

func (s *source) Close() error { return nil }

func (s *source) tell(name string, u discovery.Update[*discovery.Target]) {
	s.mu.Lock()
	s.last[name] = u
	notify := slices.Clone(s.watches[name])
	s.mu.Unlock()
	for _, f := range notify {
		(*f)(u)
	}
}

func (s *source) watching(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.watches[name])
}

// destination is a target with one route, to one cluster.
func destination(name, cluster string, addresses ...string) discovery.Update[*discovery.Target] {
	locality := discovery.LocalityEndpoints{Weight: 1}
	for _, a := range addresses {
		locality.Endpoints = append(locality.Endpoints, balancer.Endpoint{Address: a})
	}
	return discovery.Update[*discovery.Target]{Value: &discovery.Target{
		Name: name, Listener: &discovery.APIListener{},
		Routes: &discovery.RouteTable{VirtualHosts: []*discovery.VirtualHost{{Domains: []string{"*"}, Routes: []*discovery.Route{{
			Match: discovery.RouteMatch{Path: discovery.PathMatch{Value: "/"}}, Forward: &discovery.Forward{Clusters: []discovery.WeightedCluster{{Name: cluster, Weight: 1}}},
		}}}}},
		Clusters: map[string]discovery.ClusterResult{cluster: {
			Cluster: &discovery.Cluster{Name: cluster, EDSName: cluster}, Endpoints: &discovery.Assignment{Name: cluster, Localities: []discovery.LocalityEndpoints{locality}},
		}},
	}}
}

// raw is a guest whose messages a test writes.
type raw struct {
	t      *testing.T
	stream discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesClient
}

// world is a relay in a bubble.
type world struct {
	relay    *Relay
	source   *source
	log      *bytes.Buffer
	rejected []observe.ResourceEvent
}

func inBubble(t *testing.T, test func(t *testing.T, w *world, dial func() *raw)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{source: newSource(), log: new(bytes.Buffer)}
		hooks := &observe.Hooks{GuestRejected: func(e observe.ResourceEvent) { w.rejected = append(w.rejected, e) }}
		var err error
		w.relay, err = New(Options{
			Config: &bootstrap.Config{ClientListenerTemplate: "to/%s"}, Source: w.source, Hooks: hooks,
			Logger:   slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
			Identity: func(string) (meshtls.Source, error) { return nil, errors.New("there is none") },
		})
		if err != nil {
			t.Fatal(err)
		}
		var conns []*grpc.ClientConn
		test(t, w, func() *raw {
			conn, err := grpc.NewClient("passthrough:///relay", grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
				return w.relay.DialContext(ctx, "mem", address)
			}), grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				t.Fatal(err)
			}
			conns = append(conns, conn)
			stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).StreamAggregatedResources(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return &raw{t: t, stream: stream}
		})
		for _, conn := range conns {
			_ = conn.Close()
		}
		if err := w.relay.Close(); err != nil {
			t.Error(err)
		}
	})
}

func (r *raw) send(url, nonce string, problem error, names ...string) {
	r.t.Helper()
	request := &discoveryv3.DiscoveryRequest{TypeUrl: url, ResponseNonce: nonce, ResourceNames: names}
	if problem != nil {
		request.ErrorDetail = &statuspb.Status{Code: int32(codes.InvalidArgument), Message: problem.Error()}
	}
	if err := r.stream.Send(request); err != nil {
		r.t.Fatal(err)
	}
	synctest.Wait()
}

// recv returns the next response.
func (r *raw) recv(url string, resources int) *discoveryv3.DiscoveryResponse {
	r.t.Helper()
	response, err := r.stream.Recv()
	if err != nil {
		r.t.Fatal(err)
	}
	if response.GetTypeUrl() != url || len(response.GetResources()) != resources {
		r.t.Fatalf("got %d resources of %s, want %d of %s", len(response.GetResources()), response.GetTypeUrl(), resources, url)
	}
	return response
}

// silent fails if there is a response that was not asked for.
func (r *raw) silent() {
	r.t.Helper()
	got := make(chan string, 1)
	go func() { // ends with the stream
		response, err := r.stream.Recv()
		if err == nil {
			got <- response.GetTypeUrl()
		}
	}()
	synctest.Wait()
	select {
	case url := <-got:
		r.t.Fatalf("got a response of %s, want none", url)
	default:
	}
}

// TestAGuestIsServedWhatItAsksFor: in its own versions, from one watch a name.
func TestAGuestIsServedWhatItAsksFor(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, w *world, dial func() *raw) {
		w.source.tell("a", destination("a", "c", "10.0.0.1:80"))
		for range 2 { // each guest has versions of its own
			g := dial()
			g.send(listenerURL, "", nil, "to/a")
			if first := g.recv(listenerURL, 1); first.GetVersionInfo() != "1" || first.GetNonce() == "" {
				t.Errorf("first response: version %q, nonce %q", first.GetVersionInfo(), first.GetNonce())
			}
			g.send(clusterURL, "", nil, "c", "unknown")
			g.recv(clusterURL, 1)
			g.send(endpointURL, "", nil, "c")
			g.recv(endpointURL, 1)
		}
		if n := w.source.watching("a"); n != 2 {
			t.Errorf("%d watches, want 2", n)
		}
	})
}

// TestWhatChangedIsSentOnce: nothing that is the same is sent again, and what is
// referred to goes before what refers to it.
func TestWhatChangedIsSentOnce(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, w *world, dial func() *raw) {
		w.source.tell("a", destination("a", "c", "10.0.0.1:80"))
		g := dial()
		g.send(listenerURL, "", nil, "to/a")
		g.send(listenerURL, g.recv(listenerURL, 1).GetNonce(), nil, "to/a")
		g.send(clusterURL, "", nil, "c")
		g.send(clusterURL, g.recv(clusterURL, 1).GetNonce(), nil, "c")
		g.send(endpointURL, "", nil, "c")
		g.send(endpointURL, g.recv(endpointURL, 1).GetNonce(), nil, "c")

		w.source.tell("a", destination("a", "c", "10.0.0.1:80")) // other pointers, the same content
		w.source.tell("a", destination("a", "c", "10.0.0.2:80"))
		synctest.Wait()
		last := g.recv(endpointURL, 1)
		// Until it is answered, changes are not queued: the last one counts.
		w.source.tell("a", destination("a", "c", "10.0.0.3:80"))
		synctest.Wait()
		w.source.tell("a", destination("a", "c", "10.0.0.4:80"))
		synctest.Wait()
		if sent := w.relay.Guests()[0].Types[2].Version; sent != last.GetVersionInfo() {
			t.Errorf("version %s was sent before %s was answered", sent, last.GetVersionInfo())
		}
		g.send(endpointURL, last.GetNonce(), nil, "c")
		if last = g.recv(endpointURL, 1); !bytes.Contains(last.GetResources()[0].GetValue(), []byte("10.0.0.4")) {
			t.Error("the last state does not win")
		}
		g.send(endpointURL, last.GetNonce(), nil, "c")

		// A route to another cluster: the old one stays until it is given up.
		w.source.tell("a", destination("a", "d", "10.0.0.9:80"))
		synctest.Wait()
		listener := g.recv(listenerURL, 1)
		g.send(listenerURL, listener.GetNonce(), nil, "to/a")
		g.send(clusterURL, "1", nil, "c", "d")
		g.recv(clusterURL, 2)
		g.silent()
	})
}

// TestARequestThatCrossesAResponseIsDropped, because its answer says it again.
func TestARequestThatCrossesAResponseIsDropped(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, w *world, dial func() *raw) {
		w.source.tell("a", destination("a", "c", "10.0.0.1:80"))
		w.source.tell("b", destination("b", "c", "10.0.0.1:80"))
		g := dial()
		g.send(listenerURL, "", nil, "to/a")
		first := g.recv(listenerURL, 1)
		g.send(listenerURL, "none", nil, "to/b")
		if n := w.source.watching("b"); n != 0 {
			t.Error("a stale request is taken")
		}
		g.send(listenerURL, first.GetNonce(), nil, "to/a", "to/b")
		second := g.recv(listenerURL, 2) // all of them, or the first would be gone
		g.send(listenerURL, second.GetNonce(), nil, "to/b")
		if w.source.watching("a") != 0 || w.source.watching("b") != 1 {
			t.Error("what is not asked for any more is still watched")
		}
		g.send("type.googleapis.com/other", "", nil, "x")
		g.send(listenerURL, second.GetNonce(), nil)
		g.silent()
		if w.source.watching("b") != 0 {
			t.Error("what is not asked for any more is still watched")
		}
	})
}

// TestARejectionOfAGuestIsShown, and touches nobody else.
func TestARejectionOfAGuestIsShown(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, w *world, dial func() *raw) {
		w.source.tell("a", destination("a", "c", "10.0.0.1:80"))
		g := dial()
		g.send(clusterURL, "", nil, "c")
		g.send(listenerURL, "", nil, "to/a")
		// The cluster is known when the listener is followed.
		cluster := g.recv(clusterURL, 1)
		g.recv(listenerURL, 1)
		g.send(clusterURL, cluster.GetNonce(), errors.New("not to my taste"), "c")
		if len(w.rejected) != 1 || w.rejected[0].Type != "Cluster" || w.rejected[0].Server != "guest 1" || !strings.Contains(w.rejected[0].Err.Error(), "taste") {
			t.Errorf("hooks: %v", w.rejected)
		}
		if !strings.Contains(w.log.String(), "not to my taste") {
			t.Errorf("log: %s", w.log)
		}
		states := w.relay.Guests()
		if len(states) != 1 || states[0].Types[1].Rejected != "not to my taste" || states[0].Types[1].Rejections != 1 || states[0].Types[1].Accepted != "" {
			t.Errorf("state: %+v", states)
		}
		g.silent() // the same is not sent again
	})
}

// TestWhatIsRefusedIsWithdrawnFirst: a guest that rejects something keeps what it
// had, which would go on to be served.
func TestWhatIsRefusedIsWithdrawnFirst(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, w *world, dial func() *raw) {
		w.source.tell("a", destination("a", "c", "10.0.0.1:80"))
		g := dial()
		g.send(listenerURL, "", nil, "to/a")
		g.send(listenerURL, g.recv(listenerURL, 1).GetNonce(), nil, "to/a")
		w.source.tell("a", discovery.Update[*discovery.Target]{Err: fmt.Errorf("it is broken (%w)", discovery.ErrUnusable)})
		synctest.Wait()
		gone := g.recv(listenerURL, 0)
		g.send(listenerURL, gone.GetNonce(), nil, "to/a")
		refused := g.recv(listenerURL, 1)
		if !bytes.Contains(refused.GetResources()[0].GetValue(), []byte("refused by the mesh: it is broken")) {
			t.Errorf("refused: %v", refused.GetResources()[0])
		}
		g.send(listenerURL, refused.GetNonce(), errors.New("no such type"), "to/a")
		if len(w.rejected) != 0 {
			t.Errorf("a rejection that is meant is reported: %v", w.rejected)
		}
		if s := w.relay.Guests(); !s[0].Listeners[0].Refused || len(s[0].Listeners[0].Notes) != 1 {
			t.Errorf("state: %+v", s)
		}
		w.source.tell("a", destination("a", "c", "10.0.0.1:80"))
		synctest.Wait()
		g.recv(listenerURL, 1)
	})
}

// TestARefusedClusterIsAnother: grpc-go goes on to call the endpoints that it has of
// one which comes into error.
func TestARefusedClusterIsAnother(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, w *world, dial func() *raw) {
		w.source.tell("a", destination("a", "c", "10.0.0.1:80"))
		g := dial()
		g.send(listenerURL, "", nil, "to/a")
		first := g.recv(listenerURL, 1)
		g.send(listenerURL, first.GetNonce(), nil, "to/a")
		broken := destination("a", "c", "10.0.0.1:80")
		broken.Value.Clusters["c"] = discovery.ClusterResult{Err: errors.New("it is broken")}
		w.source.tell("a", broken)
		synctest.Wait()
		second := g.recv(listenerURL, 1)
		const other = "c|refused"
		if bytes.Contains(first.GetResources()[0].GetValue(), []byte(other)) || !bytes.Contains(second.GetResources()[0].GetValue(), []byte(other)) {
			t.Error("routes do not lead to another cluster")
		}
		g.send(clusterURL, "", nil, other)
		if refused := g.recv(clusterURL, 1); !bytes.Contains(refused.GetResources()[0].GetValue(), []byte("refused by the mesh: it is broken")) {
			t.Errorf("the cluster is %v", refused.GetResources()[0])
		}
	})
}

// TestTheControlPlaneBeingAwayChangesNothing of what guests have.
func TestTheControlPlaneBeingAwayChangesNothing(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, w *world, dial func() *raw) {
		g := dial()
		g.send(listenerURL, "", nil, "to/a")
		away := status.Error(codes.Unavailable, "away")
		w.source.tell("a", discovery.Update[*discovery.Target]{Err: away})
		synctest.Wait()
		u := destination("a", "c", "10.0.0.1:80")
		w.source.tell("a", u)
		synctest.Wait()
		g.send(listenerURL, g.recv(listenerURL, 1).GetNonce(), nil, "to/a")
		u.Err = away
		w.source.tell("a", u)
		w.source.tell("a", discovery.Update[*discovery.Target]{Err: away})
		g.silent()
	})
}

// TestServersAskByTheirAddress, which has to be one.
func TestServersAskByTheirAddress(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, w *world, dial func() *raw) {
		g := dial()
		prefix := "xds.istio.io/grpc/lds/inbound/"
		g.send(listenerURL, "", nil, prefix+"[::]:80", prefix+"127.0.0.1:81", prefix+"nowhere")
		g.recv(listenerURL, 1) // the last is refused
		if w.source.inbound["0.0.0.0:80"] != 1 || w.source.inbound["127.0.0.1:81"] != 1 {
			t.Errorf("watches: %v", w.source.inbound)
		}
	})
}
