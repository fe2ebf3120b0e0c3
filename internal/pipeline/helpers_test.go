package pipeline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/breaker"
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/route"
	"github.com/inboardmesh/inboard/internal/upstream"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/outcome"
	"github.com/inboardmesh/inboard/outcome/meshfail"
	"github.com/inboardmesh/inboard/retry"
)

const targetName = "payment.shop:80"

// source publishes what the test says, on goroutines of its own.
type source struct {
	mu       sync.Mutex
	watchers map[string]*watcher // guarded by mu
}

type watcher struct {
	updates chan discovery.Update[*discovery.Target]
	ended   chan struct{}
}

func (s *source) WatchTarget(name string, notify func(discovery.Update[*discovery.Target])) func() {
	w := &watcher{updates: make(chan discovery.Update[*discovery.Target], 1), ended: make(chan struct{})}
	go func() { // ends with stop
		defer close(w.ended)
		for u := range w.updates {
			notify(u)
		}
	}()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.watchers == nil {
		s.watchers = map[string]*watcher{}
	}
	s.watchers[name] = w
	return sync.OnceFunc(func() {
		s.mu.Lock()
		if s.watchers[name] == w {
			delete(s.watchers, name)
		}
		s.mu.Unlock()
		close(w.updates)
		<-w.ended
	})
}

func (s *source) WatchInbound(string, func(discovery.Update[*discovery.Inbound])) func() {
	return func() {}
}

func (s *source) Close() error { return nil }

func (s *source) watching(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.watchers[name] != nil
}

// bench is an Outbound over a source and clusters whose endpoints exist in name
// only: the adapter of the test makes the attempts.
type bench struct {
	t         *testing.T
	source    *source
	upstreams *upstream.Manager
	outbound  *Outbound

	mu     sync.Mutex
	events []string           // guarded by mu
	calls  []observe.Call     // guarded by mu; as they ended
	tries  []observe.Attempt  // guarded by mu; as they ended
	onHook func(event string) // runs in every hook, if set
}

// newBench is for a test in a bubble. Closing the mesh with the test, it checks
// that whatever began has ended.
func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{t: t, source: &source{}}
	hooks := &observe.Hooks{
		CallStarted: func(ctx context.Context, _ *observe.Call) context.Context {
			b.note("call")
			return context.WithValue(ctx, hookKey{}, "call")
		},
		CallEnded: func(ctx context.Context, c *observe.Call) {
			if ctx.Value(hookKey{}) != "call" {
				t.Error("CallEnded got another context than CallStarted returned")
			}
			b.note("call ended: " + c.Outcome.Kind.String())
			b.locked(func() { b.calls = append(b.calls, *c) })
		},
		AttemptStarted: func(ctx context.Context, a *observe.Attempt) context.Context {
			b.note(fmt.Sprintf("attempt %d", a.Number))
			return context.WithValue(ctx, hookKey{}, a.Number)
		},
		AttemptEnded: func(ctx context.Context, a *observe.Attempt) {
			if b.onHook == nil && ctx.Value(hookKey{}) != a.Number {
				t.Error("AttemptEnded got another context than AttemptStarted returned")
			}
			b.note(fmt.Sprintf("attempt %d ended: %v", a.Number, a.Outcome.Kind))
			b.locked(func() { b.tries = append(b.tries, *a) })
		},
		Overflowed:      func(e observe.OverflowEvent) { b.note("overflow of " + e.Cluster + ": " + e.Resource) },
		BreakerChanged:  func(observe.BreakerEvent) { b.hooked("breaker") },
		EndpointEjected: func(observe.EjectionEvent) { b.hooked("ejection") },
	}
	b.upstreams = upstream.NewManager(upstream.Options{Hooks: hooks})
	b.outbound = NewOutbound(b.source, b.upstreams, hooks)
	t.Cleanup(func() {
		b.outbound.Close()
		b.upstreams.Close()
		synctest.Wait()
	})
	return b
}

type hookKey struct{}

func (b *bench) note(event string) {
	b.locked(func() { b.events = append(b.events, event) })
	b.hooked(event)
}

func (b *bench) hooked(event string) {
	if b.onHook != nil {
		b.onHook(event)
	}
}

func (b *bench) locked(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f()
}

// expect compares what hooks were told since the last time.
func (b *bench) expect(want ...string) {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if fmt.Sprintf("%q", b.events) != fmt.Sprintf("%q", want) {
		b.t.Errorf("hooks were told\n%q, want\n%q", b.events, want)
	}
	b.events = nil
}

// publish applies a configuration and waits until it is in force.
func (b *bench) publish(name string, u discovery.Update[*discovery.Target]) {
	b.t.Helper()
	b.send(name, u)
	synctest.Wait()
}

// send is publish without waiting.
func (b *bench) send(name string, u discovery.Update[*discovery.Target]) {
	b.t.Helper()
	b.source.mu.Lock()
	w := b.source.watchers[name]
	b.source.mu.Unlock()
	if w == nil {
		b.t.Errorf("nobody watches %q", name)
		return
	}
	w.updates <- u
}

// configure makes the target known with this configuration.
func (b *bench) configure(target *discovery.Target) {
	b.t.Helper()
	b.outbound.Target(target.Name)
	b.publish(target.Name, discovery.Update[*discovery.Target]{Value: target})
}

// idle expects that nothing is counted in a cluster.
func (b *bench) idle(cluster string) {
	b.t.Helper()
	c := b.cluster(cluster)
	if got := c.Gate(discovery.PriorityDefault).Usage(); got != (breaker.Usage{}) {
		b.t.Errorf("cluster %s: in use: %+v", cluster, got)
	}
	for e := range c.Endpoints {
		if got := e.Host().Active(); got != 0 {
			b.t.Errorf("endpoint %s: %d active", e.Address(), got)
		}
	}
}

func (b *bench) cluster(name string) *upstream.Cluster {
	b.t.Helper()
	config, err := b.outbound.Target(targetName).Config(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	return config.Clusters[name]
}

// newTarget forwards everything to the cluster "v1" with two endpoints.
func newTarget(edit ...func(*discovery.Target)) *discovery.Target {
	t := &discovery.Target{
		Name:     targetName,
		Listener: &discovery.APIListener{Name: targetName},
		Routes: &discovery.RouteTable{VirtualHosts: []*discovery.VirtualHost{{
			Name: "payment", Domains: []string{"*"},
			Routes: []*discovery.Route{{Name: "top", Forward: &discovery.Forward{
				Clusters: []discovery.WeightedCluster{{Name: "v1", Weight: 1}},
			}}},
		}}},
		Clusters: map[string]discovery.ClusterResult{"v1": newCluster("v1", "10.0.0.1:80", "10.0.0.2:80")},
	}
	for _, e := range edit {
		e(t)
	}
	return t
}

func newCluster(name string, addresses ...string) discovery.ClusterResult {
	locality := balancer.LocalityEndpoints{Weight: 1, Locality: balancer.Locality{Region: "r", Zone: "z"}}
	for _, address := range addresses {
		locality.Endpoints = append(locality.Endpoints, balancer.Endpoint{Address: address, Health: balancer.Healthy})
	}
	return discovery.ClusterResult{
		Cluster:   &discovery.Cluster{Name: name, Limits: [2]breaker.Limits{breaker.DefaultLimits, breaker.DefaultLimits}},
		Endpoints: &discovery.Assignment{Name: name, Localities: []balancer.LocalityEndpoints{locality}},
	}
}

func top(t *discovery.Target) *discovery.Route { return t.Routes.VirtualHosts[0].Routes[0] }

func v1(t *discovery.Target) *discovery.Cluster { return t.Clusters["v1"].Cluster }

// retrying sets the route's policy.
func retrying(p retry.Policy) func(*discovery.Target) {
	return func(t *discovery.Target) { top(t).Forward.Retry = &p }
}

func routeTimeout(d time.Duration) func(*discovery.Target) {
	return func(t *discovery.Target) { top(t).Forward.Timeout = d }
}

// adapter makes attempts as the test says.
type adapter struct {
	// attempt makes the n-th attempt, from 1. If it is nil, every attempt is
	// answered with 200.
	attempt func(ctx context.Context, a *Attempt, n int) outcome.Outcome
	// abandon is called when an attempt is given up, if not nil.
	abandon func()
	// hedgeable is true for a request that may be sent side by side; attempts
	// are then made on several goroutines.
	hedgeable bool
	// unreplayable is true for a request that cannot be sent again.
	unreplayable bool

	mu        sync.Mutex // for attempts side by side
	routed    int
	copied    int
	attempts  int
	abandoned int
	began     []time.Time
	endpoints []string
}

type noCarrier struct{}

func (noCarrier) Get(string) string  { return "" }
func (noCarrier) Set(string, string) {}
func (noCarrier) Keys() []string     { return nil }

func (d *adapter) Routed(*route.Decision)           { d.routed++ }
func (d *adapter) Copy()                            { d.copied++ }
func (d *adapter) Carrier(*Attempt) observe.Carrier { return noCarrier{} }
func (d *adapter) Replayable() bool                 { return !d.unreplayable }
func (d *adapter) Unkept() error                    { return nil }

func (d *adapter) Hedgeable() bool { return d.hedgeable }

func (d *adapter) Abandon(*Attempt) {
	d.mu.Lock()
	d.abandoned++
	d.mu.Unlock()
	if d.abandon != nil {
		d.abandon()
	}
}

func (d *adapter) Attempt(ctx context.Context, a *Attempt) outcome.Outcome {
	d.mu.Lock()
	d.attempts++
	n := d.attempts
	d.began = append(d.began, time.Now())
	d.mu.Unlock()
	endpoint, err := a.Pick()
	if err != nil {
		return outcome.Outcome{Kind: outcome.NoEndpoint, Err: err}
	}
	d.mu.Lock()
	d.endpoints = append(d.endpoints, endpoint.Address())
	d.mu.Unlock()
	if d.attempt == nil {
		return response(200)
	}
	return d.attempt(ctx, a, n)
}

func response(status int) outcome.Outcome {
	return outcome.Outcome{Kind: outcome.Response, Status: status, Sent: true}
}

func failure(kind outcome.Kind) outcome.Outcome {
	sent := kind != outcome.ConnectFailure && kind != outcome.ResetBeforeRequest
	return outcome.Outcome{Kind: kind, Sent: sent, Err: errors.New("scripted " + kind.String())}
}

// always answers every attempt with o.
func always(o outcome.Outcome) func(context.Context, *Attempt, int) outcome.Outcome {
	return func(context.Context, *Attempt, int) outcome.Outcome { return o }
}

// hang lasts as long as its context.
func hang(ctx context.Context, _ *Attempt, _ int) outcome.Outcome {
	<-ctx.Done()
	return outcome.Outcome{Kind: outcome.Reset, Sent: true, Err: context.Cause(ctx)}
}

// run makes one call to the target. A call that was answered is finished.
func (b *bench) run(ctx context.Context, d *adapter) (outcome.Outcome, *Call) {
	c := b.prepare(d)
	o := c.Run(ctx, &route.Request{Method: "GET", Scheme: "http", Host: "payment.shop", Path: "/charge"})
	if o.Kind == outcome.Response {
		c.Finish(o)
	}
	return o, c
}

func (b *bench) prepare(d *adapter) *Call {
	c := &Call{}
	c.Observed.Method, c.Observed.Host = "GET", "payment.shop"
	b.outbound.Prepare(c, b.outbound.Target(targetName), d)
	return c
}

func expectError(t *testing.T, o outcome.Outcome, kind outcome.Kind, text string) *meshfail.Error {
	t.Helper()
	if o.Kind != kind {
		t.Errorf("got %v: %v, want %v", o.Kind, o.Err, kind)
	}
	e, ok := errors.AsType[*meshfail.Error](o.Err)
	if !ok {
		t.Fatalf("got error %v, want a *meshfail.Error", o.Err)
	}
	if e.Kind != kind || e.Error() != text {
		t.Errorf("got  %v: %s\nwant %v: %s", e.Kind, e, kind, text)
	}
	return e
}

func expectErrorKind(t *testing.T, o outcome.Outcome, kind outcome.Kind) *meshfail.Error {
	t.Helper()
	e, ok := errors.AsType[*meshfail.Error](o.Err)
	if !ok || o.Kind != kind || e.Kind != kind {
		t.Fatalf("got %v: %v, want %v", o.Kind, o.Err, kind)
	}
	return e
}

// expectEnds is expect for the events that tell of an end.
func (b *bench) expectEnds(want ...string) {
	b.t.Helper()
	b.locked(func() {
		b.events = slices.DeleteFunc(b.events, func(event string) bool { return !strings.Contains(event, "ended") })
	})
	b.expect(want...)
}

func newRouteRequest() *route.Request {
	return &route.Request{Method: "GET", Scheme: "http", Host: "payment.shop", Path: "/charge"}
}
