package httpmesh

import (
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/inboardmesh/inboard/discovery"
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
		checkTrace(t, spans.Ended(),
			"internal", "internal client", "internal client server",
			hop+"internal", hop+"internal client", hop+"internal client server",
			hop+hop+"internal", hop+hop+"internal client", hop+hop+"internal client",
			hop+hop+"internal client server", hop+hop+"internal client server")
	})
}

// checkTrace holds spans to be one trace, in which the kinds from the root to each
// are these, with one server below an attempt at most.
func checkTrace(t *testing.T, spans []sdktrace.ReadOnlySpan, want ...string) {
	t.Helper()
	byID := make(map[trace.SpanID]sdktrace.ReadOnlySpan, len(spans))
	for _, s := range spans {
		byID[s.SpanContext().SpanID()] = s
	}
	servers := make(map[trace.SpanID]int)
	got := make([]string, 0, len(spans))
	for _, s := range spans {
		if s.SpanContext().TraceID() != spans[0].SpanContext().TraceID() {
			t.Errorf("%s %q is in another trace", s.SpanKind(), s.Name())
		}
		path := []string{s.SpanKind().String()}
		for up := byID[s.Parent().SpanID()]; up != nil; up = byID[up.Parent().SpanID()] {
			path = append(path, up.SpanKind().String())
		}
		slices.Reverse(path)
		got = append(got, strings.Join(path, " "))
		if s.SpanKind() == trace.SpanKindServer {
			if servers[s.Parent().SpanID()]++; servers[s.Parent().SpanID()] > 1 {
				t.Errorf("two servers are below the attempt %s", s.Parent().SpanID())
			}
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("the spans are\n%s, want\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
