package grpcmesh_test

import (
	"testing"

	"github.com/inboardmesh/inboard/internal/racing"
	"github.com/inboardmesh/inboard/observe"
)

// What a unary call costs beside grpc-go with a timeout of the caller's own,
// client and server together. A change that needs more says here what for.
func TestAllocationsPerUnaryCall(t *testing.T) {
	if racing.Enabled {
		t.Skip("the race detector allocates")
	}
	const runs = 1000
	count := func(hooks *observe.Hooks, mesh bool) float64 {
		client := pair(t, hooks, mesh, mesh)
		return testing.AllocsPerRun(runs, func() { callOnce(t, client, !mesh) })
	}
	plain := count(&observe.Hooks{}, false)
	tests := []struct {
		name  string
		hooks *observe.Hooks
		want  float64
	}{
		// The client, four or five: the call, its metadata, and the end of the attempt
		// back. The server, three: the call, which has the metadata where gRPC has them.
		{"telemetry off", &observe.Hooks{}, 8},
		// And on each side what HTTP has too, and traceparent as metadata.
		{"telemetry on, not sampled", telemetry(t), 24},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := count(test.hooks, true) - plain; got > test.want {
				t.Errorf("%v more than the %v allocations of grpc-go, want at most %v", got, plain, test.want)
			}
		})
	}
}
