package httpmesh

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/breaker"
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/memnet"
	"github.com/inboardmesh/inboard/internal/pipeline"
	"github.com/inboardmesh/inboard/internal/upstream"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/outcome"
	"github.com/inboardmesh/inboard/outcome/meshfail"
	"github.com/inboardmesh/inboard/retry"
)

const (
	paymentURL     = "http://payment.shop/charge"
	paymentAddress = "10.0.0.1:80"
)

// world is a client's mesh and a payment on a network in memory.
type world struct {
	t         *testing.T
	network   memnet.Network
	upstreams *upstream.Manager
	outbound  *pipeline.Outbound
	transport *Transport
	hooks     *observe.Hooks
	handlers  sync.WaitGroup
	served    atomic.Int64
	// dialed is told of each connection to an endpoint and may replace it; nil
	// does not. It is set before the first call.
	dialed func(net.Conn) net.Conn
	// asked are the addresses that connections were wanted to.
	asked sync.Map

	mu       sync.Mutex
	calls    []observe.Call    // guarded by mu; as they ended
	attempts []observe.Attempt // guarded by mu; as they ended
}

// newWorld is for a test in a bubble. payment serves at paymentAddress, over
// HTTP/1.1 and HTTP/2; nil leaves the address free.
func newWorld(t *testing.T, target *discovery.Target, payment http.HandlerFunc) *world {
	t.Helper()
	w := &world{t: t}
	hooks := &observe.Hooks{
		CallEnded: func(_ context.Context, c *observe.Call) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.calls = append(w.calls, *c)
		},
		AttemptEnded: func(_ context.Context, a *observe.Attempt) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.attempts = append(w.attempts, *a)
		},
	}
	w.hooks = hooks
	w.upstreams = upstream.NewManager(upstream.Options{Dial: w.dial, Hooks: hooks})
	w.outbound = pipeline.NewOutbound(fixed{target}, w.upstreams, hooks)
	w.transport = NewTransport(w.outbound, nil)
	t.Cleanup(func() {
		w.outbound.Close()
		w.upstreams.Close()
		synctest.Wait()
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, c := range w.calls {
			if c.End.IsZero() {
				t.Errorf("call %+v has no end", c)
			}
		}
	})
	if payment != nil {
		w.serve(paymentAddress, payment)
	}
	return w
}

func (w *world) dial(ctx context.Context, network, address string) (net.Conn, error) {
	w.asked.Store(address, true)
	conn, err := w.network.DialContext(ctx, network, address)
	if err == nil && w.dialed != nil {
		conn = w.dialed(conn)
	}
	return conn, err
}

func (w *world) serve(address string, handler http.HandlerFunc) *http.Server {
	w.t.Helper()
	ln, err := w.network.Listen(address)
	if err != nil {
		w.t.Fatal(err)
	}
	s := &http.Server{
		Protocols:   new(http.Protocols),
		ReadTimeout: 0, ReadHeaderTimeout: time.Minute,
		Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			w.handlers.Add(1)
			defer w.handlers.Done()
			w.served.Add(1)
			handler(rw, r)
		}),
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
		w.handlers.Wait()
		time.Sleep(time.Second) // net/http's server lingers on a connection that it closed
	})
	return s
}

// newTarget forwards everything to the payment.
func newTarget(edit ...func(*discovery.Target)) *discovery.Target {
	t := &discovery.Target{
		Name:     "payment.shop:80",
		Listener: &discovery.APIListener{},
		Routes: &discovery.RouteTable{VirtualHosts: []*discovery.VirtualHost{{
			Domains: []string{"*"},
			Routes: []*discovery.Route{{Name: "top", Forward: &discovery.Forward{
				Clusters: []discovery.WeightedCluster{{Name: "v1", Weight: 1}},
			}}},
		}}},
		Clusters: map[string]discovery.ClusterResult{"v1": {
			Cluster: &discovery.Cluster{Name: "v1", Limits: [2]breaker.Limits{breaker.DefaultLimits, breaker.DefaultLimits}},
			Endpoints: &discovery.Assignment{Localities: []balancer.LocalityEndpoints{{
				Weight: 1, Endpoints: []balancer.Endpoint{{Address: paymentAddress, Health: balancer.Healthy}},
			}}},
		}},
	}
	for _, e := range edit {
		e(t)
	}
	return t
}

func top(t *discovery.Target) *discovery.Route { return t.Routes.VirtualHosts[0].Routes[0] }

func over(p discovery.HTTPProtocol) func(*discovery.Target) {
	return func(t *discovery.Target) { t.Clusters["v1"].Cluster.Protocol = p }
}

func retrying(p retry.Policy) func(*discovery.Target) {
	return func(t *discovery.Target) { top(t).Forward.Retry = &p }
}

func limited(d time.Duration) func(*discovery.Target) {
	return func(t *discovery.Target) { top(t).Forward.Timeout = d }
}

// onBothProtocols runs a test over HTTP/1.1 and HTTP/2, each in a bubble.
func onBothProtocols(t *testing.T, test func(t *testing.T, protocol func(*discovery.Target))) {
	t.Helper()
	for name, p := range map[string]discovery.HTTPProtocol{"HTTP/1.1": discovery.HTTP1, "HTTP/2": discovery.HTTP2} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { test(t, over(p)) })
		})
	}
}

// idle expects that nothing is counted any more.
func (w *world) idle() {
	w.t.Helper()
	synctest.Wait()
	config, err := w.outbound.Target("payment.shop:80").Config(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	c := config.Clusters["v1"]
	if u := c.Gate(0).Usage(); u.Requests != 0 || u.Pending != 0 || u.Retries != 0 {
		w.t.Errorf("in use: %+v", u)
	}
	for e := range c.Endpoints {
		if n := e.Host().Active(); n != 0 {
			w.t.Errorf("%d active at %s", n, e.Address())
		}
	}
}

// lastCall is the call that ended last.
func (w *world) lastCall() observe.Call {
	w.t.Helper()
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.calls) == 0 {
		w.t.Fatal("no call has ended")
	}
	return w.calls[len(w.calls)-1]
}

func newRequest(ctx context.Context, t *testing.T, method, url string, body io.Reader) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

func (w *world) do(req *http.Request) *http.Response {
	w.t.Helper()
	resp, err := w.transport.RoundTrip(req)
	if err != nil {
		w.t.Fatal(err)
	}
	return resp
}

func readAll(t *testing.T, resp *http.Response) string {
	t.Helper()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Errorf("read the body: %v", err)
	}
	_ = resp.Body.Close()
	return string(body)
}

// failed expects an error of the mesh.
func failed(t *testing.T, resp *http.Response, err error, kind outcome.Kind) *meshfail.Error {
	t.Helper()
	e, ok := errors.AsType[*meshfail.Error](err)
	if !ok || e.Kind != kind {
		t.Fatalf("got %v, want a *meshfail.Error of kind %v", err, kind)
	}
	if resp != nil {
		t.Error("a response came with an error")
	}
	return e
}

// tracked is a body that tells what became of it.
type tracked struct {
	io.Reader
	closed atomic.Int64
}

func (b *tracked) Close() error {
	b.closed.Add(1)
	return nil
}

func sum(p []byte) string {
	hash := sha256.Sum256(p)
	return hex.EncodeToString(hash[:])
}
