package meshotel

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/baggage"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/outcome"
)

const (
	traceID  = "4bf92f3577b34da6a3ce929d0e0e4736"
	parentID = "00f067aa0ba902b7"
)

// hop serves a call with the given headers, calls on and returns the headers
// of the attempt.
func hop(f *fixture, incoming headers) headers {
	in := &observe.Call{Direction: observe.Inbound, Protocol: observe.HTTP, Method: "GET", Headers: incoming}
	inCtx := f.begin(context.Background(), in)
	out := httpCall()
	outCtx := f.begin(inCtx, out)
	sent := f.attempt(outCtx, out, answered(200))
	f.end(outCtx, out, answered(200))
	f.end(inCtx, in, answered(200))
	return sent
}

func TestPropagation(t *testing.T) {
	t.Parallel()
	parent := sdktrace.ParentBased(sdktrace.AlwaysSample())
	tests := []struct {
		name    string
		sampler sdktrace.Sampler
		flags   string
		spans   int
	}{
		{"a sampled trace goes on", parent, "01", 3},
		{"an unsampled trace stays unsampled", parent, "00", 0},
		{"a trace that is dropped here stays one trace", sdktrace.NeverSample(), "01", 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, test.sampler)
			in := headers{}
			in.Set("traceparent", "00-"+traceID+"-"+parentID+"-"+test.flags)
			in.Set("tracestate", "vendor=1")
			in.Set("baggage", "tenant=blue")
			sent := hop(f, in)

			parts := strings.Split(sent.Get("traceparent"), "-")
			if len(parts) != 4 || parts[1] != traceID || parts[2] == parentID {
				t.Errorf("traceparent is %q, want the same trace and another span", sent.Get("traceparent"))
			}
			if got := sent.Get("tracestate"); got != "vendor=1" {
				t.Errorf("tracestate is %q", got)
			}
			if got := sent.Get("baggage"); got != "tenant=blue" {
				t.Errorf("baggage is %q", got)
			}
			if got := len(f.spans.Ended()); got != test.spans {
				t.Errorf("%d spans have ended, want %d", got, test.spans)
			}
		})
	}
}

// A process without an SDK must not cut a trace in two.
func TestPropagationWithoutAnSDKPassesTheContextOn(t *testing.T) {
	t.Parallel()
	telemetry, err := New(WithTracerProvider(tracenoop.NewTracerProvider()), WithMeterProvider(metricnoop.NewMeterProvider()))
	if err != nil {
		t.Fatal(err)
	}
	in := headers{}
	in.Set("traceparent", "00-"+traceID+"-"+parentID+"-01")
	sent := hop(&fixture{telemetry: telemetry, hooks: telemetry.Hooks()}, in)
	if got, want := sent.Get("traceparent"), in.Get("traceparent"); got != want {
		t.Errorf("traceparent is %q, want %q", got, want)
	}
	if sent = hop(&fixture{telemetry: telemetry, hooks: telemetry.Hooks()}, headers{}); len(sent) > 0 {
		t.Errorf("sent %v without a trace", sent)
	}
}

func TestWithPropagatorReplacesTheDefault(t *testing.T) {
	t.Parallel()
	f := newFixture(t, sdktrace.AlwaysSample(), WithPropagator(propagation.Baggage{}))
	in := headers{}
	in.Set("traceparent", "00-"+traceID+"-"+parentID+"-01")
	in.Set("baggage", "tenant=blue")
	sent := hop(f, in)
	if got := sent.Get("traceparent"); got != "" {
		t.Errorf("traceparent is %q, want none", got)
	}
	if got := sent.Get("baggage"); got != "tenant=blue" {
		t.Errorf("baggage is %q", got)
	}
}

func TestAnAttemptReplacesTheContextOfTheOneBefore(t *testing.T) {
	t.Parallel()
	f := newFixture(t, sdktrace.AlwaysSample())
	call := httpCall()
	ctx := f.begin(context.Background(), call)
	shared := headers{}
	for number := 1; number <= 2; number++ {
		a := &observe.Attempt{Call: call, Number: number, Headers: shared}
		actx := f.hooks.AttemptStarted(ctx, a)
		want := trace.SpanContextFromContext(actx).SpanID().String()
		if got := shared.Get("traceparent"); !strings.Contains(got, want) || len(shared["Traceparent"]) != 1 {
			t.Errorf("attempt %d sends %q, want span %s once", number, shared["Traceparent"], want)
		}
		f.hooks.AttemptEnded(actx, a)
	}
	f.end(ctx, call, answered(200))
}

// hostileContexts are headers that are malformed or too large.
func hostileContexts() map[string][2]string {
	var members strings.Builder
	for i := range 10_000 {
		fmt.Fprintf(&members, "k%d=v,", i)
	}
	return map[string][2]string{
		"1 MB of baggage in one member": {"baggage", "k=" + strings.Repeat("a", 1<<20)},
		"10,000 members of baggage":     {"baggage", members.String()},
		"1 MB of tracestate":            {"tracestate", "v=" + strings.Repeat("a", 1<<20)},
		"10,000 members of tracestate":  {"tracestate", members.String()},
		"a traceparent of zeros":        {"traceparent", "00-" + strings.Repeat("0", 32) + "-" + strings.Repeat("0", 16) + "-01"},
		"a traceparent that is none":    {"traceparent", "\x00\xff-junk"},
		"1 MB of traceparent":           {"traceparent", strings.Repeat("00-", 1<<20/3)},
	}
}

// Malformed and oversized contexts are dropped; the call is served.
func TestV57_HostileContextsAreDropped(t *testing.T) {
	t.Parallel()
	for name, header := range hostileContexts() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, sdktrace.AlwaysSample())
			in := headers{}
			in.Set("traceparent", "00-"+traceID+"-"+parentID+"-01")
			in.Set(header[0], header[1])
			sent := hop(f, in)
			for key := range sent {
				if size := len(sent.Get(key)); size > 8192 {
					t.Errorf("passes %d bytes of %s on", size, key)
				}
			}
			if len(f.spans.Ended()) != 3 {
				t.Errorf("%d spans have ended, want 3", len(f.spans.Ended()))
			}
		})
	}
}

// What is dropped is not taken apart first: it costs no more than what W3C allows.
func TestV57_HostileContextsCostLittle(t *testing.T) { //nolint:paralleltest // it counts what the whole process allocates
	f := newFixture(t, sdktrace.NeverSample())
	cost := func(name, value string) float64 {
		in := headers{}
		in.Set("traceparent", "00-"+traceID+"-"+parentID+"-01")
		in.Set(name, value)
		return testing.AllocsPerRun(5, func() { hop(f, in) })
	}
	var most strings.Builder
	for i := range 100 {
		fmt.Fprintf(&most, "k%d=v,", i)
	}
	allowed := cost("baggage", strings.TrimSuffix(most.String(), ","))
	for name, header := range hostileContexts() {
		if got := cost(header[0], header[1]); got > allowed {
			t.Errorf("%s: %.0f allocations, and %.0f for 100 members of baggage", name, got, allowed)
		}
	}
}

func TestBaggageReachesTheHandler(t *testing.T) {
	t.Parallel()
	f := newFixture(t, sdktrace.NeverSample())
	in := headers{}
	in.Set("baggage", "tenant=blue")
	call := &observe.Call{Direction: observe.Inbound, Protocol: observe.GRPC, Method: "/s/m", Headers: in}
	ctx := f.begin(context.Background(), call)
	if got := baggage.FromContext(ctx).Member("tenant").Value(); got != "blue" {
		t.Errorf("tenant is %q, want blue", got)
	}
	f.end(ctx, call, outcome.Outcome{GRPC: true})
}
