package httpmesh

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/breaker"
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/inbound"
	"github.com/inboardmesh/inboard/outcome"
	"github.com/inboardmesh/inboard/outcome/meshfail"
)

// plaintext is what a control plane sends for DISABLE, with one route for all
// requests.
func plaintext(edit ...func(*discovery.FilterChain)) *discovery.Inbound {
	chain := discovery.FilterChain{
		Name: "inbound",
		Routes: &discovery.RouteTable{Name: "inbound", VirtualHosts: []*discovery.VirtualHost{{
			Name: "inbound", Domains: []string{"*"}, Routes: []*discovery.Route{{Name: "default", Local: true}},
		}}},
	}
	for _, e := range edit {
		e(&chain)
	}
	return &discovery.Inbound{Name: "inbound", Chains: []discovery.FilterChain{chain}}
}

// serveInbound serves at address as the mesh does.
func (w *world) serveInbound(address string, in *discovery.Inbound, deadlineHeader string, next http.Handler) {
	w.t.Helper()
	listeners := inbound.New(inbound.Options{Source: served{in}, Hooks: w.hooks})
	inner, err := w.network.Listen(address)
	if err != nil {
		w.t.Fatal(err)
	}
	ln, err := listeners.Listen(w.t.Context(), inner)
	if err != nil {
		w.t.Fatal(err)
	}
	s := &http.Server{
		Protocols: new(http.Protocols), ReadHeaderTimeout: time.Minute,
		Handler: &Handler{Listeners: listeners, Hooks: w.hooks, DeadlineHeader: deadlineHeader, Next: next},
	}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	done := make(chan struct{})
	go func() { // ends with the server
		defer close(done)
		_ = s.Serve(ln)
	}()
	w.t.Cleanup(func() {
		_ = s.Close()
		<-done
		if err := listeners.Close(); err != nil {
			w.t.Error(err)
		}
		time.Sleep(time.Second) // net/http's server lingers on a connection that it closed
	})
}

// hopOf is a route to a server of a chain, by the path.
func hopOf(path, address string) func(*discovery.Target) {
	return func(target *discovery.Target) {
		v1 := target.Clusters["v1"].Cluster
		target.Clusters[path] = discovery.ClusterResult{
			Cluster: &discovery.Cluster{
				Name: path, Protocol: v1.Protocol, Limits: [2]breaker.Limits{breaker.DefaultLimits, breaker.DefaultLimits},
			},
			Endpoints: &discovery.Assignment{Localities: []balancer.LocalityEndpoints{{
				Weight: 1, Endpoints: []balancer.Endpoint{{Address: address, Health: balancer.Healthy}},
			}}},
		}
		host := target.Routes.VirtualHosts[0]
		last := len(host.Routes) - 1
		host.Routes = append(host.Routes[:last:last], &discovery.Route{
			Name: path, Match: discovery.RouteMatch{Path: discovery.PathMatch{Value: path}},
			Forward: &discovery.Forward{
				Clusters: []discovery.WeightedCluster{{Name: path, Weight: 1}}, Timeout: host.Routes[last].Forward.Timeout,
			},
		}, host.Routes[last])
	}
}

// hop is what a server of a chain has seen of its caller's time.
type hop struct {
	left, canceled time.Duration
	told           []string // in the default header
}

// chainOfThree is three servers, each of which calls the next; the last one hangs.
func chainOfThree(t *testing.T, protocol func(*discovery.Target), timeout time.Duration, deadlineHeader string, call func(w *world, first *http.Request) error) (hops [3]hop, err error) {
	t.Helper()
	paths := []string{"/a", "/b", "/c"}
	addresses := []string{"10.0.0.11:80", "10.0.0.12:80", "10.0.0.13:80"}
	w := newWorld(t, newTarget(protocol, limited(timeout),
		hopOf(paths[0], addresses[0]), hopOf(paths[1], addresses[1]), hopOf(paths[2], addresses[2])), nil)
	if deadlineHeader != "" {
		w.transport.DeadlineHeader = deadlineHeader
	}
	var mu sync.Mutex
	begin := time.Now()
	for i := range hops {
		w.serveInbound(addresses[i], plaintext(), deadlineHeader, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			ctx := r.Context()
			deadline, ok := ctx.Deadline()
			if !ok {
				t.Errorf("hop %d has no deadline", i+1)
			}
			mu.Lock()
			hops[i].left, hops[i].told = deadline.Sub(begin), r.Header[DefaultDeadlineHeader]
			mu.Unlock()
			if i+1 < len(hops) {
				if resp, err := w.transport.RoundTrip(newRequest(ctx, t, http.MethodGet, "http://payment.shop"+paths[i+1], nil)); err == nil {
					_ = resp.Body.Close()
				}
			}
			<-ctx.Done()
			mu.Lock()
			hops[i].canceled = time.Since(begin)
			mu.Unlock()
			rw.WriteHeader(http.StatusGatewayTimeout)
		}))
	}
	err = call(w, newRequest(t.Context(), t, http.MethodGet, "http://payment.shop/a", nil))
	synctest.Wait()
	time.Sleep(50 * time.Millisecond)
	mu.Lock()
	defer mu.Unlock()
	return hops, err
}

// The caller's deadline is that of every hop, to 10 ms, and no hop has more time
// than its caller; a cancellation is everywhere at once.
func TestG18_BT7_DeadlinesAndCancellationsOverThreeHopsOfHTTP(t *testing.T) {
	t.Parallel()
	const second = time.Second
	tests := map[string]struct {
		route  time.Duration
		header string
		bound  func(context.Context) (context.Context, context.CancelFunc)
		limit  time.Duration
		kind   outcome.Kind
	}{
		"the application's deadline": {30 * second, "", func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, second)
		}, second, outcome.Timeout},
		"the first route's timeout": {second, "", context.WithCancel, second, outcome.Timeout},
		"in a header of another name": {30 * second, "X-Deadline-Ms", func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, second)
		}, second, outcome.Timeout},
		"a cancellation": {30 * second, "", func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(ctx)
			time.AfterFunc(second, cancel)
			return ctx, cancel
		}, 30 * second, outcome.Canceled},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			onBothProtocols(t, func(t *testing.T, protocol func(*discovery.Target)) {
				begin := time.Now()
				hops, err := chainOfThree(t, protocol, tt.route, tt.header, func(w *world, first *http.Request) error {
					ctx, cancel := tt.bound(first.Context())
					defer cancel()
					resp, err := w.transport.RoundTrip(first.WithContext(ctx))
					if err == nil {
						_ = resp.Body.Close()
					}
					if took := time.Since(begin); took < second || took > second+10*time.Millisecond {
						t.Errorf("the call took %v", took)
					}
					return err
				})
				if e, ok := errors.AsType[*meshfail.Error](err); !ok || e.Kind != tt.kind {
					t.Errorf("got %v, want one of kind %v", err, tt.kind)
				}
				caller := tt.limit
				for i, h := range hops {
					if h.left > caller || h.left < tt.limit-10*time.Millisecond {
						t.Errorf("hop %d has %v, its caller %v, want %v", i+1, h.left, caller, tt.limit)
					}
					caller = h.left
					if h.canceled < second-10*time.Millisecond || h.canceled > second+10*time.Millisecond {
						t.Errorf("hop %d learned of the end after %v", i+1, h.canceled)
					}
					if (len(h.told) == 0) != (tt.header != "") {
						t.Errorf("hop %d was told %q in %s", i+1, h.told, DefaultDeadlineHeader)
					}
				}
			})
		})
	}
}
