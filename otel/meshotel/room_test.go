package meshotel

import (
	"context"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/inboardmesh/inboard/observe"
)

// keepingProvider makes spans that keep what they are given, without a copy.
type keepingProvider struct {
	tracenoop.TracerProvider
	spans []*keepingSpan
}

func (p *keepingProvider) Tracer(string, ...trace.TracerOption) trace.Tracer {
	return &keepingTracer{provider: p}
}

type keepingTracer struct {
	tracenoop.Tracer
	provider *keepingProvider
}

func (t *keepingTracer) Start(ctx context.Context, _ string, _ ...trace.SpanStartOption) (context.Context, trace.Span) {
	s := &keepingSpan{}
	t.provider.spans = append(t.provider.spans, s)
	return trace.ContextWithSpan(ctx, s), s
}

type keepingSpan struct {
	tracenoop.Span
	attrs []attribute.KeyValue
}

func (*keepingSpan) IsRecording() bool { return true }

func (s *keepingSpan) SetAttributes(attrs ...attribute.KeyValue) { s.attrs = attrs }

// TestASpanMayKeepItsAttributes: only of the SDK's spans it is known that they copy.
func TestASpanMayKeepItsAttributes(t *testing.T) {
	t.Parallel()
	provider := &keepingProvider{}
	hooks := hooksFor(t, append(withoutSDK(), WithTracerProvider(provider))...)
	hosts := []string{"one.test:80", "two.test:80", "three.test:80"}
	for _, host := range hosts {
		call := &observe.Call{Method: "GET", Host: host, Scheme: "http", Path: "/"}
		ctx := hooks.CallStarted(t.Context(), call)
		attempt := &observe.Attempt{Call: call, Number: 1}
		ctx = hooks.AttemptStarted(ctx, attempt)
		hooks.AttemptEnded(ctx, attempt)
		hooks.CallEnded(ctx, call)
	}
	for i, span := range provider.spans {
		set := attribute.NewSet(span.attrs...)
		name, _ := set.Value("server.address")
		if want := hosts[i/2]; name.AsString()+":80" != want {
			t.Errorf("span %d has the address %q, want that of %s", i, name.AsString(), want)
		}
	}
	if len(provider.spans) != 2*len(hosts) {
		t.Errorf("%d spans", len(provider.spans))
	}
}
