package meshotel_test

import (
	"context"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/otel/meshotel"
	"github.com/inboardmesh/inboard/outcome"
)

// A mesh is given the hooks and then does what this example does by hand: it
// reports a call and its attempt.
func ExampleNew() {
	spans := tracetest.NewSpanRecorder()
	provider := trace.NewTracerProvider(trace.WithSpanProcessor(spans))

	telemetry, err := meshotel.New(meshotel.WithTracerProvider(provider))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() {
		if err := telemetry.Close(); err != nil {
			fmt.Println(err)
		}
	}()
	hooks := telemetry.Hooks()

	call := &observe.Call{Protocol: observe.GRPC, Method: "/shop.Payment/Charge", Start: time.Now()}
	ctx := hooks.CallStarted(context.Background(), call)
	attempt := &observe.Attempt{Call: call, Number: 1, Start: time.Now()}
	attemptCtx := hooks.AttemptStarted(ctx, attempt)
	attempt.Outcome, attempt.End = outcome.Outcome{GRPC: true}, time.Now()
	hooks.AttemptEnded(attemptCtx, attempt)
	call.Outcome, call.End = attempt.Outcome, time.Now()
	hooks.CallEnded(ctx, call)

	for _, span := range spans.Ended() {
		fmt.Println(span.SpanKind(), span.Name())
	}
	// Output:
	// client shop.Payment/Charge
	// internal shop.Payment/Charge
}
