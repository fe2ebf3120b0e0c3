package httpmesh

import (
	"net/http"
	"testing"
	"unsafe"

	"github.com/inboardmesh/inboard/internal/racing"
	"github.com/inboardmesh/inboard/observe"
)

// Each number is the sum of what its comment names. A change that needs another
// allocation says here what for.
func TestAllocationsPerCallOfTheClient(t *testing.T) {
	if racing.Enabled {
		t.Skip("the race detector allocates")
	}
	// The response of the upstream that does nothing.
	const response = 1
	tests := []struct {
		name      string
		transport *Transport
		want      float64
	}{
		// The exchange; the headers, which are a map and its first group; the
		// text of the timeout.
		{"telemetry off", newBenchTransport(t, &observe.Hooks{}), response + 4},
		// And OpenTelemetry's span, its context, and the text of traceparent.
		{"telemetry on, not sampled", newBenchTransport(t, telemetry(t)), response + 7},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			req := newBenchRequest(t)
			got := testing.AllocsPerRun(1000, func() { get(t, test.transport, req) })
			if got > test.want {
				t.Errorf("%v allocations per call, want at most %v", got, test.want)
			}
		})
	}
}

// With a real connection the rest is net/http's, which makes less of a
// connection that the mesh owns than of a pool: the mesh may cost no more than
// net/http does with a timeout of its own.
func TestAllocationsPerCallWithAConnection(t *testing.T) {
	if racing.Enabled {
		t.Skip("the race detector allocates")
	}
	address := echoServer(t)
	count := func(rt http.RoundTripper) float64 {
		req := newBenchRequest(t)
		return testing.AllocsPerRun(1000, func() { get(t, rt, req) })
	}
	plain := count(timed{newPlainTransport(t, address)})
	if off := count(newWireTransport(t, address, &observe.Hooks{})); off > plain {
		t.Errorf("telemetry off: %v allocations per call, net/http with a timeout has %v", off, plain)
	}
	if on := count(newWireTransport(t, address, telemetry(t))); on > plain {
		t.Errorf("telemetry on, not sampled: %v allocations per call, net/http with a timeout has %v", on, plain)
	}
}

func TestAllocationsPerCallOfTheServer(t *testing.T) {
	if racing.Enabled {
		t.Skip("the race detector allocates")
	}
	tests := []struct {
		name  string
		hooks *observe.Hooks
		want  float64
	}{
		// What is being served: request, context, peer and recorder.
		{"telemetry off", &observe.Hooks{}, 1},
		// And OpenTelemetry's remote span context, span, and their contexts.
		{"telemetry on, not sampled", telemetry(t), 5},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			handler, req := newBenchHandler(t, test.hooks, application{})
			w := &sink{header: make(http.Header)}
			got := testing.AllocsPerRun(1000, func() { handler.ServeHTTP(w, req) })
			if got > test.want {
				t.Errorf("%v allocations per call, want at most %v", got, test.want)
			}
		})
	}
}

// TestACallFitsIntoItsSizeClass: the one object of a call is the largest part of what a
// call allocates. The runtime gives it 2,048 bytes, of which 8 are its own; with one
// more it would be 2,304, each time.
func TestACallFitsIntoItsSizeClass(t *testing.T) {
	t.Parallel()
	const most = 2048 - 8
	if size := unsafe.Sizeof(exchange{}); size > most {
		t.Errorf("a call is an object of %d bytes, want at most %d", size, most)
	}
	const served = 896 - 8 // or it would be 1,024
	if size := unsafe.Sizeof(serving{}); size > served {
		t.Errorf("a request that is served is an object of %d bytes, want at most %d", size, served)
	}
}
