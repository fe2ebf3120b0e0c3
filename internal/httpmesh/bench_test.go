package httpmesh

import (
	"io"
	"net/http"
	"testing"
	"time"

	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/trace"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/breaker"
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/cputime"
	"github.com/inboardmesh/inboard/internal/pipeline"
	"github.com/inboardmesh/inboard/internal/upstream"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/otel/meshotel"
	"github.com/inboardmesh/inboard/retry"
)

// fixed is a source with one target.
type fixed struct{ target *discovery.Target }

func (f fixed) WatchTarget(_ string, notify func(discovery.Update[*discovery.Target])) func() {
	notify(discovery.Update[*discovery.Target]{Value: f.target})
	return func() {}
}

func (fixed) WatchInbound(string, func(discovery.Update[*discovery.Inbound])) func() {
	return func() {}
}

func (fixed) Close() error { return nil }

// benchTarget has what a production target has: a weighted route with a
// timeout and retries, limits, a breaker and several endpoints.
func benchTarget() *discovery.Target {
	var endpoints []balancer.Endpoint
	for _, address := range []string{"10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80", "10.0.0.4:80"} {
		endpoints = append(endpoints, balancer.Endpoint{Address: address, Weight: 1, Health: balancer.Healthy})
	}
	cluster := func(name string) discovery.ClusterResult {
		return discovery.ClusterResult{
			Cluster: &discovery.Cluster{
				Name: name, EDSName: name,
				Balancer: balancer.Config{Policy: balancer.LeastRequest},
				Limits:   [2]breaker.Limits{breaker.DefaultLimits, breaker.DefaultLimits},
				Breaker: &breaker.Settings{
					FailureRatio: 0.5, MinRequests: 20, Window: 10 * time.Second, OpenTime: 5 * time.Second, HalfOpenProbes: 3,
				},
			},
			Endpoints: &discovery.Assignment{Name: name, Localities: []balancer.LocalityEndpoints{{Weight: 1, Endpoints: endpoints}}},
		}
	}
	return &discovery.Target{
		Name:     "payment.shop:80",
		Listener: &discovery.APIListener{Name: "payment.shop:80"},
		Routes: &discovery.RouteTable{Name: "payment", VirtualHosts: []*discovery.VirtualHost{{
			Name: "payment", Domains: []string{"payment.shop", "payment.shop:80"},
			Routes: []*discovery.Route{
				{
					Name: "testers",
					Match: discovery.RouteMatch{Headers: []discovery.HeaderMatch{{
						Name: "x-user", String: discovery.StringMatch{Value: "ada"},
					}}},
					Forward: &discovery.Forward{Clusters: []discovery.WeightedCluster{{Name: "v2", Weight: 1}}},
				},
				{
					Name: "canary",
					Forward: &discovery.Forward{
						Clusters: []discovery.WeightedCluster{{Name: "v1", Weight: 90}, {Name: "v2", Weight: 10}},
						Timeout:  2 * time.Second,
						Retry:    &retry.Policy{MaxRetries: 2, On: retry.OnConnectFailure | retry.On5xx, AvoidPreviousHosts: true},
					},
				},
			},
		}}},
		Clusters: map[string]discovery.ClusterResult{"v1": cluster("v1"), "v2": cluster("v2")},
	}
}

// leaving is a request that may always be sent.
type leaving struct{}

func (*leaving) Depart() *upstream.Failure { return nil }

func (*leaving) Anew() bool { return false }

// noop answers without a network.
func noop(_ *upstream.Endpoint, req *http.Request, _ discovery.RoutingPriority, departure upstream.Departure) (*http.Response, *upstream.Failure) {
	if failure := departure.Depart(); failure != nil {
		return nil, failure
	}
	return &http.Response{
		Status: "200 OK", StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Body: http.NoBody, Request: req,
	}, nil
}

// newBenchTransport is the whole client pipeline over noop.
func newBenchTransport(tb testing.TB, hooks *observe.Hooks) *Transport {
	tb.Helper()
	manager := upstream.NewManager(upstream.Options{Hooks: hooks})
	outbound := pipeline.NewOutbound(fixed{benchTarget()}, manager, hooks)
	tb.Cleanup(func() {
		outbound.Close()
		manager.Close()
	})
	transport := NewTransport(outbound, nil)
	transport.send = noop
	return transport
}

// telemetry reports metrics to an SDK, and spans of which none is sampled.
func telemetry(tb testing.TB) *observe.Hooks {
	tb.Helper()
	t, err := meshotel.New(
		meshotel.WithMeterProvider(metric.NewMeterProvider(metric.WithReader(metric.NewManualReader()))),
		meshotel.WithTracerProvider(trace.NewTracerProvider(trace.WithSampler(trace.NeverSample()))),
	)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = t.Close() })
	return t.Hooks()
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

func get(tb testing.TB, rt http.RoundTripper, req *http.Request) {
	resp, err := rt.RoundTrip(req)
	if err != nil {
		tb.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
}

func newBenchRequest(tb testing.TB) *http.Request {
	tb.Helper()
	req, err := http.NewRequestWithContext(tb.Context(), http.MethodGet, "http://payment.shop/charge?order=7", http.NoBody)
	if err != nil {
		tb.Fatal(err)
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "bench")
	return req
}

// BenchmarkPipeline is what a call costs beside its network: the pipeline over
// a no-op upstream, and the no-op alone.
func BenchmarkPipeline(b *testing.B) {
	cases := map[string]func(b *testing.B) http.RoundTripper{
		"without the mesh": func(*testing.B) http.RoundTripper {
			return roundTripper(func(req *http.Request) (*http.Response, error) {
				resp, _ := noop(nil, req, 0, new(leaving))
				return resp, nil
			})
		},
		"telemetry off": func(b *testing.B) http.RoundTripper { return newBenchTransport(b, &observe.Hooks{}) },
		"telemetry on, not sampled": func(b *testing.B) http.RoundTripper {
			return newBenchTransport(b, telemetry(b))
		},
	}
	for name, transport := range cases {
		b.Run(name, func(b *testing.B) {
			rt, req := transport(b), newBenchRequest(b)
			cputime.Loop(b, func() { get(b, rt, req) })
		})
	}
}
