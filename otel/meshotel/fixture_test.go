package meshotel

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/outcome"
)

// headers carries a trace context as the mesh's adapters do.
type headers http.Header

func (h headers) Get(key string) string { return http.Header(h).Get(key) }
func (h headers) Set(key, value string) { http.Header(h).Set(key, value) }
func (h headers) Keys() []string {
	var keys []string
	for key := range h {
		keys = append(keys, key)
	}
	return keys
}

// fixture is a Telemetry with an SDK behind it that can be looked at.
type fixture struct {
	telemetry *Telemetry
	hooks     *observe.Hooks
	spans     *tracetest.SpanRecorder
	reader    *metric.ManualReader
}

func newFixture(tb testing.TB, sampler sdktrace.Sampler, opts ...Option) *fixture {
	tb.Helper()
	f := &fixture{spans: tracetest.NewSpanRecorder(), reader: metric.NewManualReader()}
	tracers := sdktrace.NewTracerProvider(sdktrace.WithSampler(sampler), sdktrace.WithSpanProcessor(f.spans))
	meters := metric.NewMeterProvider(metric.WithReader(f.reader), metric.WithCardinalityLimit(1_000_000))
	telemetry, err := New(append([]Option{WithTracerProvider(tracers), WithMeterProvider(meters)}, opts...)...)
	if err != nil {
		tb.Fatal(err)
	}
	f.telemetry, f.hooks = telemetry, telemetry.Hooks()
	tb.Cleanup(func() {
		if err := telemetry.Close(); err != nil {
			tb.Errorf("close: %v", err)
		}
	})
	return f
}

// span returns the ended span at i, in the order in which they ended.
func (f *fixture) span(tb testing.TB, i int) sdktrace.ReadOnlySpan {
	tb.Helper()
	ended := f.spans.Ended()
	if i >= len(ended) {
		tb.Fatalf("%d spans have ended, want more than %d", len(ended), i)
	}
	return ended[i]
}

// collect returns every series as "name{attributes}" with its value: the count
// of a histogram, the value of anything else.
func (f *fixture) collect(tb testing.TB) map[string]int64 {
	tb.Helper()
	var all metricdata.ResourceMetrics
	if err := f.reader.Collect(context.Background(), &all); err != nil {
		tb.Fatalf("collect: %v", err)
	}
	got := make(map[string]int64)
	for _, scoped := range all.ScopeMetrics {
		for _, m := range scoped.Metrics {
			switch data := m.Data.(type) {
			case metricdata.Sum[int64]:
				for _, p := range data.DataPoints {
					got[m.Name+labels(p.Attributes)] = p.Value
				}
			case metricdata.Gauge[int64]:
				for _, p := range data.DataPoints {
					got[m.Name+labels(p.Attributes)] = p.Value
				}
			case metricdata.Histogram[float64]:
				for _, p := range data.DataPoints {
					got[m.Name+labels(p.Attributes)] = int64(p.Count)
				}
			default:
				tb.Fatalf("%s is of an unexpected kind %T", m.Name, data)
			}
		}
	}
	return got
}

func labels(set attribute.Set) string {
	parts := make([]string, 0, set.Len())
	for _, kv := range set.ToSlice() {
		parts = append(parts, string(kv.Key)+"="+kv.Value.String())
	}
	slices.Sort(parts)
	return "{" + strings.Join(parts, ",") + "}"
}

// attributes of a span, by key.
func attributes(s sdktrace.ReadOnlySpan) map[string]string {
	got := make(map[string]string)
	for _, kv := range s.Attributes() {
		got[string(kv.Key)] = kv.Value.String()
	}
	return got
}

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func httpCall() *observe.Call {
	return &observe.Call{
		Direction: observe.Outbound, Protocol: observe.HTTP, Method: "POST", Scheme: "http",
		Host: "payment.shop.svc.cluster.local:8080", Path: "/charge/4711",
		Target: "payment.shop.svc.cluster.local:8080", Route: "canary", Cluster: "payment-v2",
	}
}

func answered(code int) outcome.Outcome {
	return outcome.Outcome{Kind: outcome.Response, Status: code, Sent: true}
}

// begin starts a call at a fixed time.
func (f *fixture) begin(ctx context.Context, call *observe.Call) context.Context {
	call.Start = start
	return f.hooks.CallStarted(ctx, call)
}

// end ends a call 40 ms after it began.
func (f *fixture) end(ctx context.Context, call *observe.Call, o outcome.Outcome) {
	call.Outcome, call.End = o, start.Add(40*time.Millisecond)
	f.hooks.CallEnded(ctx, call)
}

// attempt makes one attempt and returns the headers that it sent.
func (f *fixture) attempt(ctx context.Context, call *observe.Call, o outcome.Outcome) headers {
	call.Attempts++
	sent := headers{}
	a := &observe.Attempt{Call: call, Number: call.Attempts, Cluster: call.Cluster, Headers: sent, Start: start}
	ctx = f.hooks.AttemptStarted(ctx, a)
	a.Outcome, a.Endpoint, a.Locality, a.End = o, "10.0.0.7:8080", "eu/a", start.Add(20*time.Millisecond)
	f.hooks.AttemptEnded(ctx, a)
	return sent
}

// sum returns the sum of all values of a histogram.
func (f *fixture) sum(tb testing.TB, name string) float64 {
	tb.Helper()
	var all metricdata.ResourceMetrics
	if err := f.reader.Collect(context.Background(), &all); err != nil {
		tb.Fatalf("collect: %v", err)
	}
	total := 0.0
	for _, scoped := range all.ScopeMetrics {
		for _, m := range scoped.Metrics {
			if data, ok := m.Data.(metricdata.Histogram[float64]); ok && m.Name == name {
				for _, p := range data.DataPoints {
					total += p.Sum
				}
			}
		}
	}
	return total
}
