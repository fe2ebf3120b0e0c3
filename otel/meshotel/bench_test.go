package meshotel

import (
	"context"
	"testing"

	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/inboardmesh/inboard/internal/racing"
	"github.com/inboardmesh/inboard/observe"
)

// oneHeader is a carrier that costs as little as one can, so that what is
// measured is ours.
type oneHeader struct{ traceparent [1]string }

func (h *oneHeader) Get(string) string { return "" }
func (h *oneHeader) Keys() []string    { return nil }
func (h *oneHeader) Set(key, value string) {
	if key == "traceparent" {
		h.traceparent[0] = value
	}
}

// caller makes one call with one attempt, reusing what the mesh would
// allocate for its own purposes.
type caller struct {
	hooks   *observe.Hooks
	call    observe.Call
	attempt observe.Attempt
	header  oneHeader
}

func newCaller(hooks *observe.Hooks) *caller {
	return &caller{hooks: hooks, call: *httpCall()}
}

func (c *caller) do(ctx context.Context) {
	c.call.Start = start
	ctx = c.hooks.CallStarted(ctx, &c.call)
	c.attempt = observe.Attempt{Call: &c.call, Number: 1, Cluster: c.call.Cluster, Headers: &c.header}
	attemptCtx := c.hooks.AttemptStarted(ctx, &c.attempt)
	c.attempt.Outcome, c.attempt.End = answered(200), start.Add(1)
	c.hooks.AttemptEnded(attemptCtx, &c.attempt)
	c.call.Outcome, c.call.End = answered(200), start.Add(1)
	c.hooks.CallEnded(ctx, &c.call)
}

func hooksFor(tb testing.TB, opts ...Option) *observe.Hooks {
	tb.Helper()
	telemetry, err := New(opts...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := telemetry.Close(); err != nil {
			tb.Error(err)
		}
	})
	return telemetry.Hooks()
}

func withSDK(sampler sdktrace.Sampler) []Option {
	return []Option{
		WithTracerProvider(sdktrace.NewTracerProvider(sdktrace.WithSampler(sampler))),
		WithMeterProvider(metric.NewMeterProvider(metric.WithReader(metric.NewManualReader()))),
	}
}

func withoutSDK() []Option {
	return []Option{
		WithTracerProvider(tracenoop.NewTracerProvider()), WithMeterProvider(metricnoop.NewMeterProvider()),
	}
}

// One outbound call with one attempt.
func BenchmarkCall(b *testing.B) {
	none := func(ctx context.Context, _ *observe.Call) context.Context { return ctx }
	noneAttempt := func(ctx context.Context, _ *observe.Attempt) context.Context { return ctx }
	benchmarks := []struct {
		name  string
		hooks *observe.Hooks
	}{
		{"empty hooks", &observe.Hooks{
			CallStarted: none, AttemptStarted: noneAttempt,
			CallEnded: func(context.Context, *observe.Call) {}, AttemptEnded: func(context.Context, *observe.Attempt) {},
		}},
		{"no SDK", hooksFor(b, withoutSDK()...)},
		{"metrics, not sampled", hooksFor(b, withSDK(sdktrace.NeverSample())...)},
		{"metrics, sampled", hooksFor(b, withSDK(sdktrace.AlwaysSample())...)},
	}
	for _, bm := range benchmarks {
		b.Run(bm.name, func(b *testing.B) {
			c := newCaller(bm.hooks)
			ctx := context.Background()
			b.ReportAllocs()
			for b.Loop() {
				c.do(ctx)
			}
		})
		b.Run(bm.name+", parallel", func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				c := newCaller(bm.hooks)
				for pb.Next() {
					c.do(context.Background())
				}
			})
		})
	}
}

func TestAllocationsPerCall(t *testing.T) {
	if racing.Enabled {
		t.Skip("the race detector allocates")
	}
	tests := []struct {
		name string
		opts []Option
		want float64
	}{
		// The noop tracer's context.
		{"no SDK", withoutSDK(), 1},
		// The SDK's span and its context, and the text of traceparent.
		{"metrics, not sampled", withSDK(sdktrace.NeverSample()), 3},
		// Twice a span, its context and its attributes; the attempt's state, its URL
		// and the text of traceparent.
		{"metrics, sampled", withSDK(sdktrace.AlwaysSample()), 9},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := newCaller(hooksFor(t, test.opts...))
			got := testing.AllocsPerRun(1000, func() { c.do(context.Background()) })
			if got > test.want {
				t.Errorf("%v allocations per call with one attempt, want at most %v", got, test.want)
			}
		})
	}
}
