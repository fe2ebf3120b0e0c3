package meshotel

import (
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/outcome"
)

// The options of the three kinds of spans, made once.
var (
	// A call's span is internal: what goes over the wire, and what the peer's
	// server span hangs below, are its attempts.
	internalSpan = []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindInternal)}
	clientSpan   = []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindClient)}
	serverSpan   = []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindServer)}
)

// spanName is the method, by the semantic conventions: a path is not bounded.
func spanName(call *observe.Call) string {
	switch call.Protocol { //exhaustive:enforce
	case observe.HTTP:
		if m := httpMethod(call.Method); m != other {
			return m
		}
		return "HTTP"
	case observe.GRPC:
		return rpcMethod(call.Method)
	case observe.TCP:
	}
	return "tcp"
}

// room is where the attributes of a span are put together.
type room struct{ attrs [24]attribute.KeyValue }

// copies is what the spans of OpenTelemetry's SDK have and others do not: of those it
// is known that they copy the attributes that they are given.
type copies interface{ DroppedAttributes() int }

// room returns room for the attributes of a span, which is to be given back.
func (t *Telemetry) room(span trace.Span) *room {
	if _, ok := span.(copies); ok {
		if r, ok := t.rooms.Get().(*room); ok {
			return r
		}
	}
	return new(room)
}

// giveBack ends the use of room, unless the span may still hold it.
func (t *Telemetry) giveBack(span trace.Span, r *room) {
	if _, ok := span.(copies); ok {
		clear(r.attrs[:]) // which would keep the call's strings alive
		t.rooms.Put(r)
	}
}

// finishCall tells the span all about a call that has ended, at once: each
// SetAttributes costs an allocation.
func (t *Telemetry) finishCall(span trace.Span, call *observe.Call) {
	r := t.room(span)
	defer t.giveBack(span, r)
	attrs := appendRequest(r.attrs[:0], call)
	if call.Direction == observe.Inbound {
		attrs = appendCaller(attrs, call)
	}
	attrs = appendDecision(attrs, call, call.Cluster)
	if call.Direction == observe.Outbound {
		attrs = append(attrs, AttemptsKey.Int(call.Attempts))
	}
	finish(span, attrs, call.Direction, &call.Outcome)
}

// finishAttempt tells the span all about an attempt that has ended.
func (t *Telemetry) finishAttempt(span trace.Span, attempt *observe.Attempt) {
	call := attempt.Call
	r := t.room(span)
	defer t.giveBack(span, r)
	attrs := appendRequest(r.attrs[:0], call)
	if call.Protocol == observe.HTTP {
		attrs = append(attrs, semconv.URLFull(call.Scheme+"://"+call.Host+call.Path))
		if attempt.Number > 1 {
			attrs = append(attrs, semconv.HTTPRequestResendCount(attempt.Number-1))
		}
	}
	attrs = appendDecision(attrs, call, attempt.Cluster)
	attrs = append(attrs, AttemptKey.Int(attempt.Number))
	if attempt.Hedge {
		attrs = append(attrs, HedgeKey.Bool(true))
	}
	if attempt.Endpoint != "" {
		attrs = appendPeer(attrs, attempt.Endpoint)
	}
	attrs = appendNonEmpty(attrs, LocalityKey, attempt.Locality)
	finish(span, attrs, call.Direction, &attempt.Outcome)
}

// appendRequest appends what calls and attempts have in common.
func appendRequest(attrs []attribute.KeyValue, call *observe.Call) []attribute.KeyValue {
	switch call.Protocol { //exhaustive:enforce
	case observe.HTTP:
		method := httpMethod(call.Method)
		attrs = append(attrs, semconv.HTTPRequestMethodKey.String(method))
		if method == other {
			attrs = append(attrs, semconv.HTTPRequestMethodOriginal(call.Method))
		}
		attrs = appendNonEmpty(attrs, semconv.URLSchemeKey, call.Scheme)
	case observe.GRPC:
		attrs = append(attrs, semconv.RPCSystemNameGRPC, semconv.RPCMethod(rpcMethod(call.Method)))
	case observe.TCP:
		attrs = append(attrs, semconv.NetworkTransportTCP)
	}
	if call.Host != "" {
		attrs = appendServer(attrs, call.Host)
	}
	return attrs
}

// appendCaller appends who made an inbound call.
func appendCaller(attrs []attribute.KeyValue, call *observe.Call) []attribute.KeyValue {
	if call.Protocol == observe.HTTP {
		attrs = append(attrs, semconv.URLPath(call.Path))
	}
	if call.PeerAddress != "" {
		host, _ := splitHostPort(call.PeerAddress)
		attrs = appendPeer(append(attrs, semconv.ClientAddress(host)), call.PeerAddress)
	}
	return appendNonEmpty(attrs, PeerIDKey, call.PeerID)
}

// appendPeer appends the other end of a connection.
func appendPeer(attrs []attribute.KeyValue, address string) []attribute.KeyValue {
	host, port := splitHostPort(address)
	attrs = append(attrs, semconv.NetworkPeerAddress(host))
	if port > 0 {
		attrs = append(attrs, semconv.NetworkPeerPort(port))
	}
	return attrs
}

// appendDecision appends what routing decided.
func appendDecision(attrs []attribute.KeyValue, call *observe.Call, cluster string) []attribute.KeyValue {
	attrs = appendNonEmpty(attrs, TargetKey, call.Target)
	attrs = appendNonEmpty(attrs, RouteKey, call.Route)
	return appendNonEmpty(attrs, ClusterKey, cluster)
}

// finish sets the attributes and the status of a span that ends.
func finish(span trace.Span, attrs []attribute.KeyValue, d observe.Direction, o *outcome.Outcome) {
	r := newResult(d, o)
	span.SetAttributes(r.appendTo(attrs)...)
	// A caller that went away is nobody's failure.
	if r.errorType() == "" || o.Kind == outcome.Canceled {
		return
	}
	description := ""
	if o.Err != nil {
		description = o.Err.Error()
	}
	span.SetStatus(codes.Error, description)
}
