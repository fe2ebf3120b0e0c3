package main

import (
	"context"
	"strings"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/trace"

	"github.com/inboardmesh/inboard/mesh"
	"github.com/inboardmesh/inboard/observe"
)

// discard is an exporter whose cost is not that of the network: spans are batched
// and then dropped.
type discard struct{}

func (discard) ExportSpans(context.Context, []trace.ReadOnlySpan) error { return nil }
func (discard) Shutdown(context.Context) error                          { return nil }

func tracerProvider(share float64) *trace.TracerProvider {
	return trace.NewTracerProvider(trace.WithBatcher(discard{}), trace.WithSampler(trace.ParentBased(trace.TraceIDRatioBased(share))))
}

func meterProvider() *metric.MeterProvider {
	return metric.NewMeterProvider(metric.WithReader(metric.NewManualReader()))
}

// globalTelemetry is what OpenTelemetry's instrumentation takes.
func globalTelemetry() {
	otel.SetTracerProvider(tracerProvider(0.01))
	otel.SetMeterProvider(meterProvider())
	otel.SetTextMapPropagator(propagation.TraceContext{})
}

// meshOptions are the telemetry of a mesh kind.
func meshOptions(k kind) []mesh.Option {
	switch s := string(k); {
	case strings.HasSuffix(s, metricsOn):
		return []mesh.Option{mesh.WithMeterProvider(meterProvider()), mesh.WithTracerProvider(tracerProvider(0))}
	case strings.HasSuffix(s, traces1):
		return []mesh.Option{mesh.WithMeterProvider(meterProvider()), mesh.WithTracerProvider(tracerProvider(0.01))}
	case strings.HasSuffix(s, traces100):
		return []mesh.Option{mesh.WithMeterProvider(meterProvider()), mesh.WithTracerProvider(tracerProvider(1))}
	}
	return []mesh.Option{mesh.WithHooks(&observe.Hooks{})}
}
