package calltest

import (
	"slices"
	"strings"
	"testing"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// Trace holds spans to be one trace, in which the kinds from the root to each are
// these, with one server below an attempt at most.
func Trace(t testing.TB, spans []sdktrace.ReadOnlySpan, want ...string) {
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
