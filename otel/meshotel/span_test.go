package meshotel

import (
	"context"
	"errors"
	"maps"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/outcome"
)

// Three hops, of which the second has to try twice: one trace, a span for each
// attempt, and each hop below the attempt that reached it.
func TestS39_OneTraceOverThreeHopsWithARetry(t *testing.T) {
	t.Parallel()
	f := newFixture(t, sdktrace.AlwaysSample())

	// Hop 1: the edge serves a request and calls the middle, once.
	edge := &observe.Call{Direction: observe.Inbound, Protocol: observe.HTTP, Method: "GET", Headers: headers{}}
	edgeCtx := f.begin(context.Background(), edge)
	toMiddle := httpCall()
	toMiddleCtx := f.begin(edgeCtx, toMiddle)
	sent := f.attempt(toMiddleCtx, toMiddle, answered(200))

	// Hop 2: the middle calls the backend; the first attempt fails.
	middle := &observe.Call{Direction: observe.Inbound, Protocol: observe.HTTP, Method: "POST", Headers: sent}
	middleCtx := f.begin(context.Background(), middle)
	toBackend := httpCall()
	toBackendCtx := f.begin(middleCtx, toBackend)
	failed := f.attempt(toBackendCtx, toBackend, answered(503))
	again := f.attempt(toBackendCtx, toBackend, answered(200))
	if failed.Get("traceparent") == again.Get("traceparent") {
		t.Error("both attempts carry the same span: the retry cannot be told apart")
	}

	// Hop 3: the backend serves the second attempt.
	backend := &observe.Call{Direction: observe.Inbound, Protocol: observe.HTTP, Method: "POST", Headers: again}
	backendCtx := f.begin(context.Background(), backend)
	f.end(backendCtx, backend, answered(200))
	f.end(toBackendCtx, toBackend, answered(200))
	f.end(middleCtx, middle, answered(200))
	f.end(toMiddleCtx, toMiddle, answered(200))
	f.end(edgeCtx, edge, answered(200))

	// In the order of their ends.
	names := []string{
		"attempt to middle", "failed attempt", "second attempt", "backend",
		"call to backend", "middle", "call to middle", "edge",
	}
	spans := make(map[string]sdktrace.ReadOnlySpan)
	for i, name := range names {
		spans[name] = f.span(t, i)
	}
	if got := len(f.spans.Ended()); got != len(names) {
		t.Fatalf("%d spans have ended, want %d", got, len(names))
	}
	tests := []struct {
		child, parent string
		kind          trace.SpanKind
	}{
		{"call to middle", "edge", trace.SpanKindInternal},
		{"attempt to middle", "call to middle", trace.SpanKindClient},
		{"middle", "attempt to middle", trace.SpanKindServer},
		{"call to backend", "middle", trace.SpanKindInternal},
		{"failed attempt", "call to backend", trace.SpanKindClient},
		{"second attempt", "call to backend", trace.SpanKindClient},
		{"backend", "second attempt", trace.SpanKindServer},
	}
	root := spans["edge"].SpanContext()
	if spans["edge"].Parent().IsValid() {
		t.Error("the edge has a parent")
	}
	for _, test := range tests {
		child, parent := spans[test.child], spans[test.parent]
		if got, want := child.Parent().SpanID(), parent.SpanContext().SpanID(); got != want {
			t.Errorf("parent of %s is %s, want %s (%s)", test.child, got, want, test.parent)
		}
		if child.SpanContext().TraceID() != root.TraceID() {
			t.Errorf("%s is in another trace", test.child)
		}
		if child.SpanKind() != test.kind {
			t.Errorf("%s is of kind %s, want %s", test.child, child.SpanKind(), test.kind)
		}
	}
	if got := attributes(spans["second attempt"])["http.request.resend_count"]; got != "1" {
		t.Errorf("resend count of the second attempt is %q, want 1", got)
	}
	if got, ok := attributes(spans["failed attempt"])["http.request.resend_count"]; ok {
		t.Errorf("the first attempt has a resend count of %q", got)
	}
}

func TestSpansOfAnOutboundHTTPCall(t *testing.T) {
	t.Parallel()
	f := newFixture(t, sdktrace.AlwaysSample())
	call := httpCall()
	ctx := f.begin(context.Background(), call)
	f.attempt(ctx, call, answered(503))
	f.end(ctx, call, answered(503))

	attempt, whole := f.span(t, 0), f.span(t, 1)
	if attempt.Name() != "POST" || whole.Name() != "POST" {
		t.Errorf("spans are named %q and %q, want POST", attempt.Name(), whole.Name())
	}
	common := map[string]string{
		"http.request.method":       "POST",
		"http.response.status_code": "503",
		"error.type":                "503",
		"url.scheme":                "http",
		"server.address":            "payment.shop.svc.cluster.local",
		"server.port":               "8080",
		"inboard.target":            "payment.shop.svc.cluster.local:8080",
		"inboard.route":             "canary",
		"inboard.cluster":           "payment-v2",
	}
	want := maps.Clone(common)
	want["inboard.attempts"] = "1"
	if diff := cmp.Diff(want, attributes(whole)); diff != "" {
		t.Errorf("attributes of the call (-want +got):\n%s", diff)
	}
	want = maps.Clone(common)
	want["inboard.attempt"] = "1"
	want["inboard.locality"] = "eu/a"
	want["network.peer.address"] = "10.0.0.7"
	want["network.peer.port"] = "8080"
	want["url.full"] = "http://payment.shop.svc.cluster.local:8080/charge/4711"
	if diff := cmp.Diff(want, attributes(attempt)); diff != "" {
		t.Errorf("attributes of the attempt (-want +got):\n%s", diff)
	}
}

func TestSpanOfAnInboundHTTPCall(t *testing.T) {
	t.Parallel()
	f := newFixture(t, sdktrace.AlwaysSample())
	call := &observe.Call{
		Direction: observe.Inbound, Protocol: observe.HTTP, Method: "BREW", Scheme: "https", Host: "payment:8080",
		Path: "/charge/4711", PeerAddress: "10.0.0.9:51234", PeerID: "spiffe://cluster.local/ns/shop/sa/customer",
	}
	ctx := f.begin(context.Background(), call)
	f.end(ctx, call, answered(404))

	span := f.span(t, 0)
	if span.Name() != "HTTP" {
		t.Errorf("span is named %q, want HTTP: the method is the caller's own invention", span.Name())
	}
	if span.Status().Code != codes.Unset {
		t.Errorf("status is %v: 404 is not the server's fault", span.Status())
	}
	want := map[string]string{
		"http.request.method":          "_OTHER",
		"http.request.method_original": "BREW",
		"http.response.status_code":    "404",
		"url.scheme":                   "https",
		"url.path":                     "/charge/4711",
		"server.address":               "payment",
		"server.port":                  "8080",
		"client.address":               "10.0.0.9",
		"network.peer.address":         "10.0.0.9",
		"network.peer.port":            "51234",
		"inboard.peer.id":              "spiffe://cluster.local/ns/shop/sa/customer",
	}
	if diff := cmp.Diff(want, attributes(span)); diff != "" {
		t.Errorf("attributes (-want +got):\n%s", diff)
	}
}

func TestSpansOfAGRPCCall(t *testing.T) {
	t.Parallel()
	f := newFixture(t, sdktrace.AlwaysSample())
	call := httpCall()
	call.Protocol, call.Method = observe.GRPC, "/shop.Payment/Charge"
	ctx := f.begin(context.Background(), call)
	f.attempt(ctx, call, outcome.Outcome{GRPC: true, Code: 14})
	f.attempt(ctx, call, outcome.Outcome{GRPC: true})
	f.end(ctx, call, outcome.Outcome{GRPC: true})

	first, second, whole := f.span(t, 0), f.span(t, 1), f.span(t, 2)
	if whole.Name() != "shop.Payment/Charge" {
		t.Errorf("span is named %q", whole.Name())
	}
	got := attributes(first)
	for key, want := range map[string]string{
		"rpc.system.name": "grpc", "rpc.method": "shop.Payment/Charge",
		"rpc.response.status_code": "UNAVAILABLE", "error.type": "UNAVAILABLE", "inboard.attempt": "1",
	} {
		if got[key] != want {
			t.Errorf("%s of the first attempt is %q, want %q", key, got[key], want)
		}
	}
	if got := attributes(second); got["inboard.attempt"] != "2" || got["rpc.response.status_code"] != "OK" {
		t.Errorf("attributes of the second attempt are %v", got)
	}
	if first.Status().Code != codes.Error || whole.Status().Code != codes.Unset {
		t.Errorf("status of the first attempt is %v, of the call %v", first.Status(), whole.Status())
	}
}

func TestStatusOfASpan(t *testing.T) {
	t.Parallel()
	refused := errors.New("connection refused")
	tests := []struct {
		name      string
		direction observe.Direction
		outcome   outcome.Outcome
		want      sdktrace.Status
		errorType string
	}{
		{"success is unset", observe.Outbound, answered(204), sdktrace.Status{}, ""},
		{"an outcome without a status is unset", observe.Outbound, outcome.Outcome{}, sdktrace.Status{}, ""},
		{"4xx is an error of a client", observe.Outbound, answered(404), sdktrace.Status{Code: codes.Error}, "404"},
		{"4xx is no error of a server", observe.Inbound, answered(404), sdktrace.Status{}, ""},
		{"5xx is an error of a server", observe.Inbound, answered(500), sdktrace.Status{Code: codes.Error}, "500"},
		{
			"NOT_FOUND is an error of a client", observe.Outbound, outcome.Outcome{GRPC: true, Code: 5},
			sdktrace.Status{Code: codes.Error}, "NOT_FOUND",
		},
		{"NOT_FOUND is no error of a server", observe.Inbound, outcome.Outcome{GRPC: true, Code: 5}, sdktrace.Status{}, ""},
		{
			"INTERNAL is an error of a server", observe.Inbound, outcome.Outcome{GRPC: true, Code: 13},
			sdktrace.Status{Code: codes.Error}, "INTERNAL",
		},
		{
			"a code that does not exist is UNKNOWN", observe.Outbound, outcome.Outcome{GRPC: true, Code: 4711},
			sdktrace.Status{Code: codes.Error}, "UNKNOWN",
		},
		{
			"an injected fault is an error by its status", observe.Outbound, outcome.Outcome{Kind: outcome.Local, Status: 503},
			sdktrace.Status{Code: codes.Error}, "503",
		},
		{
			"a local failure has the error's text", observe.Outbound,
			outcome.Outcome{Kind: outcome.ConnectFailure, Err: refused},
			sdktrace.Status{Code: codes.Error, Description: "connection refused"}, "connect-failure",
		},
		{
			"a caller that went away is nobody's failure", observe.Outbound,
			outcome.Outcome{Kind: outcome.Canceled, Err: context.Canceled}, sdktrace.Status{}, "canceled",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, sdktrace.AlwaysSample())
			call := httpCall()
			call.Direction = test.direction
			ctx := f.begin(context.Background(), call)
			f.end(ctx, call, test.outcome)
			span := f.span(t, 0)
			if span.Status() != test.want {
				t.Errorf("status is %+v, want %+v", span.Status(), test.want)
			}
			if got := attributes(span)["error.type"]; got != test.errorType {
				t.Errorf("error.type is %q, want %q", got, test.errorType)
			}
		})
	}
}

func TestCallsAndAttemptsEndOnce(t *testing.T) {
	t.Parallel()
	f := newFixture(t, sdktrace.AlwaysSample())
	call := httpCall()
	ctx := f.begin(context.Background(), call)
	a := &observe.Attempt{Call: call, Number: 1, Cluster: "c", Headers: headers{}}
	actx := f.hooks.AttemptStarted(ctx, a)
	f.hooks.AttemptEnded(actx, a)
	f.hooks.AttemptEnded(actx, a)
	f.end(ctx, call, answered(200))
	f.end(ctx, call, answered(200))

	if got := len(f.spans.Ended()); got != 2 {
		t.Errorf("%d spans have ended, want 2", got)
	}
	for name, value := range f.collect(t) {
		switch {
		case value < 0:
			t.Errorf("%s is %d", name, value)
		case value > 1:
			t.Errorf("%s is %d, want at most 1", name, value)
		}
	}
}

func TestAnAttemptMayOutliveItsCall(t *testing.T) {
	t.Parallel()
	f := newFixture(t, sdktrace.AlwaysSample())
	call := httpCall()
	ctx := f.begin(context.Background(), call)
	a := &observe.Attempt{Call: call, Number: 1, Cluster: "c", Headers: headers{}}
	actx := f.hooks.AttemptStarted(ctx, a)
	f.end(ctx, call, outcome.Outcome{Kind: outcome.Canceled})
	late := &observe.Attempt{Call: call, Number: 2, Cluster: "c", Headers: headers{}}
	lateCtx := f.hooks.AttemptStarted(ctx, late)
	f.hooks.AttemptEnded(actx, a)
	f.hooks.AttemptEnded(lateCtx, late)
	if got := len(f.spans.Ended()); got != 2 {
		t.Errorf("%d spans have ended, want the call's and its first attempt's", got)
	}
}
