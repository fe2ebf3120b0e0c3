package meshotel

import (
	"context"

	"go.opentelemetry.io/otel/trace"

	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/outcome"
)

// callState is what a call carries from its start to its end.
type callState struct {
	span trace.Span
	// recording is whether the span keeps what it is told. If it does not,
	// attempts get no spans of their own.
	recording bool
	// active counts an inbound call while it is open.
	active *counted
}

// callStarted must run before anything of the call reads the context, so that
// all spans of the call hang below its own.
func (t *Telemetry) callStarted(ctx context.Context, call *observe.Call) context.Context {
	state, ok := t.calls.Get().(*callState)
	if !ok {
		state = new(callState)
	}
	kind := internalSpan
	if call.Direction == observe.Inbound {
		kind = serverSpan
		if call.Headers != nil {
			ctx = t.propagator.Extract(ctx, call.Headers)
		}
		state.active = t.active.get(inboundKey(call))
		state.active.n.Add(1)
	}
	ctx, state.span = t.tracer.Start(ctx, spanName(call), kind...) //nolint:spancheck // callEnded ends it
	state.recording = state.span.IsRecording()
	call.State = state
	return ctx
}

// callEnded does nothing without the state of callStarted, so a second call of
// it is harmless.
func (t *Telemetry) callEnded(ctx context.Context, call *observe.Call) {
	state, ok := call.State.(*callState)
	if !ok {
		return
	}
	call.State = nil
	if state.active != nil {
		state.active.n.Add(-1)
	}
	if state.recording && trace.SpanFromContext(ctx) != state.span {
		// So that the histogram's exemplars point to this span, whatever
		// context the mesh ends the call with.
		ctx = trace.ContextWithSpan(ctx, state.span)
	}
	series := t.durations.get(t.durationKey(call))
	series.histogram.Record(ctx, max(0, call.End.Sub(call.Start)).Seconds(), series.options...)
	if state.recording {
		t.finishCall(state.span, call)
	}
	state.span.End()
	*state = callState{}
	t.calls.Put(state)
}

func (t *Telemetry) durationKey(call *observe.Call) durationKey {
	k := durationKey{
		result:   newResult(call.Direction, &call.Outcome),
		protocol: call.Protocol,
		target:   call.Target,
		route:    call.Route,
		cluster:  call.Cluster,
	}
	switch call.Protocol { //exhaustive:enforce
	case observe.HTTP:
		k.method = httpMethod(call.Method)
		if call.Direction == observe.Inbound {
			k.scheme = scheme(call.Scheme)
		}
	case observe.GRPC:
		k.method = rpcMethod(call.Method)
		if call.Direction == observe.Inbound && !t.serves(k.method, &call.Outcome) {
			k.method = other
		}
	case observe.TCP:
	}
	return k
}

// serves reports whether method is one of this process's own. Anybody can call
// methods that do not exist, so a name counts only after a call to it has ended
// in a way in which a call that never reached a handler does not end.
func (t *Telemetry) serves(method string, o *outcome.Outcome) bool {
	if t.served.has(method) {
		return true
	}
	switch {
	case o.Kind == outcome.Canceled:
	case o.Kind != outcome.Response:
		return false
	case o.GRPC:
		switch o.Code {
		case grpcUnimplemented, grpcPermissionDenied, grpcUnauthenticated, grpcResourceExhausted:
			return false
		}
	}
	t.served.add(method)
	return t.served.has(method)
}

func inboundKey(call *observe.Call) activeKey {
	k := activeKey{direction: observe.Inbound, protocol: call.Protocol}
	if call.Protocol == observe.HTTP {
		k.method, k.scheme = httpMethod(call.Method), scheme(call.Scheme)
	}
	return k
}
