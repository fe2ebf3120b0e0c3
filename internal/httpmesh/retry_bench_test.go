package httpmesh

import (
	"net/http"
	"testing"
	"time"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/pipeline"
	"github.com/inboardmesh/inboard/internal/upstream"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/retry"
)

// BenchmarkRetry is a call without a policy, with one that is not needed, with one
// that is, hedged, and with options of its own, beside each other. The network
// answers at once and no wait is longer than a nanosecond.
func BenchmarkRetry(b *testing.B) {
	failing := func() sender {
		n := 0
		return func(e *upstream.Endpoint, req *http.Request, p discovery.RoutingPriority, d upstream.Departure) (*http.Response, *upstream.Failure) {
			resp, failure := noop(e, req, p, d)
			if n++; n%2 == 1 {
				resp.StatusCode = http.StatusServiceUnavailable
			}
			return resp, failure
		}
	}
	never := retry.Policy{MaxRetries: 2, On: retry.OnReset}
	again := retry.Policy{MaxRetries: 2, On: retry.On5xx, RateLimited: nil, Backoff: retry.Backoff{Base: time.Nanosecond, Max: time.Nanosecond}}
	for _, bc := range []struct {
		name    string
		policy  *retry.Policy
		hedge   *retry.Hedge
		options *pipeline.CallOptions
		send    sender
	}{
		{name: "without a policy", send: noop},
		{name: "with a policy", policy: &never, send: noop},
		{name: "with options of the call", policy: &never, options: &pipeline.CallOptions{RetryOn: retry.On5xx}, send: noop},
		{name: "hedged, and answered in time", policy: &never, hedge: &retry.Hedge{Delay: time.Minute}, send: noop},
		{name: "one retry", policy: &again, send: failing()},
	} {
		b.Run(bc.name, func(b *testing.B) {
			target := benchTarget()
			for _, r := range target.Routes.VirtualHosts[0].Routes {
				r.Forward.Retry, r.Forward.Hedge = bc.policy, bc.hedge
			}
			for name := range target.Clusters {
				target.Clusters[name].Cluster.Breaker = nil // half of what fails would open it
			}
			hooks := &observe.Hooks{}
			manager := upstream.NewManager(upstream.Options{Hooks: hooks})
			outbound := pipeline.NewOutbound(fixed{target}, manager, hooks)
			defer manager.Close()
			defer outbound.Close()
			transport := NewTransport(outbound, nil)
			transport.send = bc.send
			req := newBenchRequest(b)
			if bc.options != nil {
				req = req.WithContext(pipeline.WithOptions(req.Context(), *bc.options))
			}
			b.ReportAllocs()
			for b.Loop() {
				resp, err := transport.RoundTrip(req)
				if err != nil || resp.StatusCode != http.StatusOK {
					b.Fatal(resp, err)
				}
			}
		})
	}
}
