package httpmesh

import (
	"net/http"
	"sync/atomic"
	"testing"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/calltest"
	"github.com/inboardmesh/inboard/otel/meshotel"
	"github.com/inboardmesh/inboard/retry"
)

// Three hops, of which the last has to be tried twice, over either protocol: one
// trace, a span for each attempt, and each hop below the attempt that reached it.
func TestS39_OneTraceOverThreeHopsOfHTTP(t *testing.T) {
	t.Parallel()
	onBothProtocols(t, func(t *testing.T, protocol func(*discovery.Target)) {
		spans := tracetest.NewSpanRecorder()
		telemetry, err := meshotel.New(meshotel.WithTracerProvider(sdktrace.NewTracerProvider(
			sdktrace.WithSampler(sdktrace.AlwaysSample()), sdktrace.WithSpanProcessor(spans))))
		if err != nil {
			t.Fatal(err)
		}
		defer telemetry.Close()
		paths := []string{"/a", "/b", "/c"}
		addresses := []string{"10.0.0.11:80", "10.0.0.12:80", "10.0.0.13:80"}
		edits := []func(*discovery.Target){protocol}
		for i, path := range paths {
			edits = append(edits, hopOf(path, addresses[i]))
		}
		w := newWorld(t, newTarget(append(edits, func(target *discovery.Target) {
			for _, r := range target.Routes.VirtualHosts[0].Routes {
				r.Forward.Retry = &retry.Policy{MaxRetries: 1, On: retry.On5xx}
			}
		})...), nil)
		*w.hooks = *telemetry.Hooks()
		var served atomic.Int64
		for i := range paths {
			w.serveInbound(addresses[i], plaintext(), "", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				if i+1 < len(paths) {
					_ = readAll(t, w.do(newRequest(r.Context(), t, http.MethodGet, "http://payment.shop"+paths[i+1], nil)))
				} else if served.Add(1) == 1 {
					rw.WriteHeader(http.StatusServiceUnavailable)
				}
			}))
		}
		_ = readAll(t, w.do(newRequest(t.Context(), t, http.MethodGet, "http://payment.shop/a", nil)))
		w.idle()
		hop := "internal client server "
		calltest.Trace(t, spans.Ended(),
			"internal", "internal client", "internal client server",
			hop+"internal", hop+"internal client", hop+"internal client server",
			hop+hop+"internal", hop+hop+"internal client", hop+hop+"internal client",
			hop+hop+"internal client server", hop+hop+"internal client server")
	})
}
