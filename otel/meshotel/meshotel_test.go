package meshotel

import (
	"context"
	"reflect"
	"strings"
	"sync"
	"testing"

	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/inboardmesh/inboard/observe"
)

func TestNewReportsEveryMistakeTogether(t *testing.T) {
	t.Parallel()
	_, err := New(WithTracerProvider(nil), WithMeterProvider(nil), WithPropagator(nil), WithMaxSeries(0))
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{
		"tracer provider is nil: leave the option out to use the global one",
		"meter provider is nil: leave the option out to use the global one",
		"propagator is nil: leave the option out for W3C Trace Context and Baggage",
		"maximum of series is 0: it must be at least 1",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %q", err, want)
		}
	}
}

// A hook that is added to observe must not be forgotten here.
func TestEveryHookIsImplemented(t *testing.T) {
	t.Parallel()
	telemetry, err := New()
	if err != nil {
		t.Fatal(err)
	}
	hooks := reflect.ValueOf(telemetry.Hooks()).Elem()
	for i := range hooks.NumField() {
		if hooks.Field(i).IsNil() {
			t.Errorf("%s is nil", hooks.Type().Field(i).Name)
		}
	}
	if err := telemetry.Close(); err != nil {
		t.Error(err)
	}
}

func TestEveryEventHasItsLabelsAndInstrument(t *testing.T) {
	t.Parallel()
	meters, err := newInstruments(metricnoop.NewMeterProvider().Meter("test"))
	if err != nil {
		t.Fatal(err)
	}
	gauges := map[event]metric.Int64Gauge{
		breakerState: meters.breakerState, streamConnected: meters.streamConnected, certificateExpiry: meters.certificateExpiry,
		lastGoodUsed: meters.lastGoodUsed,
	}
	for e := range event(len(eventLabels)) {
		if len(eventLabels[e]) == 0 && e != lastGoodUsed || len(eventLabels[e]) > len(eventKey{}.labels) {
			t.Errorf("event %d has %d labels", e, len(eventLabels[e]))
		}
		if meters.counters[e] == nil && gauges[e] == nil && e != connections && e != ejectedEndpoints && e != trippedEndpoints && e != unhealthyEndpoints && e != remainingCapacity {
			t.Errorf("event %d has no instrument", e)
		}
	}
	for d := range meters.durations {
		for p := range meters.durations[d] {
			if meters.durations[d][p] == nil || meters.active[d][p] == nil {
				t.Errorf("direction %d, protocol %d lacks an instrument", d, p)
			}
		}
	}
}

func TestHooksAreSafeForConcurrentUse(t *testing.T) {
	t.Parallel()
	f := newFixture(t, sdktrace.TraceIDRatioBased(0.5), WithMaxSeries(20))
	var wg sync.WaitGroup
	const workers, calls = 8, 200
	for w := range workers {
		wg.Go(func() {
			for i := range calls {
				call := httpCall()
				call.Cluster = strings.Repeat("c", (w*calls+i)%50)
				ctx := f.begin(context.Background(), call)
				f.attempt(ctx, call, answered(200))
				f.end(ctx, call, answered(200))
				f.hooks.Overflowed(observe.OverflowEvent{Cluster: call.Cluster, Resource: "requests"})
			}
		})
	}
	for range 5 {
		f.collect(t)
	}
	wg.Wait()
	sums := make(map[string]int64)
	for name, value := range f.collect(t) {
		name, _, _ = strings.Cut(name, "{")
		sums[name] += value
	}
	for _, name := range []string{"http.client.request.duration", "inboard.call.attempts", "inboard.overflow"} {
		if sums[name] != workers*calls {
			t.Errorf("%s adds up to %d, want %d", name, sums[name], workers*calls)
		}
	}
	if sums["http.client.active_requests"] != 0 {
		t.Errorf("%d requests are still open", sums["http.client.active_requests"])
	}
}
