package meshotel

import (
	"context"

	"go.opentelemetry.io/otel/trace"

	"github.com/inboardmesh/inboard/observe"
)

// attemptState is what an attempt with a span carries from its start to its
// end. One without a span carries only its counter.
type attemptState struct {
	span   trace.Span
	active *counted
}

// attemptStarted must run after everything else that sets headers, so that no
// retry carries the trace context of the attempt before.
func (t *Telemetry) attemptStarted(ctx context.Context, attempt *observe.Attempt) context.Context {
	call := attempt.Call
	active := t.active.get(activeKey{
		direction: observe.Outbound, protocol: call.Protocol, target: call.Target, cluster: attempt.Cluster,
	})
	active.n.Add(1)

	if state, ok := call.State.(*callState); ok && state.recording {
		var span trace.Span
		ctx, span = t.tracer.Start(ctx, spanName(call), clientSpan...)
		attempt.State = &attemptState{span: span, active: active}
	} else {
		// Nobody would see the attempt's span: the call's own context is
		// propagated, which costs nothing and keeps the trace's decision.
		attempt.State = active
	}
	if attempt.Headers != nil {
		t.propagator.Inject(ctx, attempt.Headers)
	}
	return ctx
}

// attemptEnded does nothing without the state of attemptStarted, so a second
// call of it is harmless.
func (t *Telemetry) attemptEnded(_ context.Context, attempt *observe.Attempt) {
	switch state := attempt.State.(type) {
	case *counted:
		state.n.Add(-1)
	case *attemptState:
		state.active.n.Add(-1)
		if state.span.IsRecording() {
			t.finishAttempt(state.span, attempt)
		}
		state.span.End()
	default:
		return
	}
	attempt.State = nil
	t.attempts.get(attemptKey{
		protocol: attempt.Call.Protocol,
		kind:     attempt.Outcome.Kind,
		verdict:  attempt.Outcome.Verdict(),
		resend:   attempt.Number > 1,
		hedge:    attempt.Hedge,
		cluster:  attempt.Cluster,
	}).n.Add(1)
}
