package grpcmesh_test

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/discovery"
)

// onBothSides runs a test with a fault of the client's and with one of the server's.
func onBothSides(t *testing.T, fault *discovery.Fault, test func(t *testing.T, b *backend, client grpc_testing.TestServiceClient)) {
	t.Helper()
	filters := []discovery.HTTPFilter{{Name: "fault", Config: fault}}
	for side, start := range map[string]func(f *fixture, b *backend){
		"the client's": func(f *fixture, b *backend) {
			f.serve(endpoint, b)
			f.filtered(filters)
		},
		"the server's": func(f *fixture, b *backend) {
			in := plaintext(endpoint)
			in.Chains[0].Filters = filters
			f.serveAs(in, b)
			f.forwardTo(endpoint)
		},
	} {
		t.Run(side, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f, b := newFixture(t), &backend{}
				start(f, b)
				test(t, b, f.client())
				f.checkNothingCounted()
			})
		})
	}
}

// The rows of internal/filter/fault, where gRPC sees them: calls of every kind.
func TestBF4_HeadersControlFaultsOverGRPC(t *testing.T) {
	t.Parallel()
	const million, percent = 1_000_000, 10_000
	controlled := &discovery.Fault{
		Delay: &discovery.FaultDelay{FromHeader: true, PerMillion: million, Unit: percent},
		Abort: &discovery.FaultAbort{FromHeader: true, PerMillion: million, Unit: percent},
	}
	never := &discovery.Fault{Abort: &discovery.FaultAbort{FromHeader: true, Unit: percent}}
	tests := []struct {
		name   string
		fault  *discovery.Fault
		header []string
		code   codes.Code
		took   time.Duration
	}{
		{"nothing is asked for", controlled, nil, codes.OK, 0},
		{"an abort by status", controlled, []string{"x-envoy-fault-abort-request", "404"}, codes.Unimplemented, 0},
		{"an abort by code", controlled, []string{"x-envoy-fault-abort-grpc-request", "8"}, codes.ResourceExhausted, 0},
		{"a status goes before a code", controlled, []string{"x-envoy-fault-abort-request", "401", "x-envoy-fault-abort-grpc-request", "8"}, codes.Unauthenticated, 0},
		{"a delay", controlled, []string{"x-envoy-fault-delay-request", "1500"}, codes.OK, 1500 * time.Millisecond},
		{"a delay, then an abort", controlled, []string{"x-envoy-fault-delay-request", "1500", "x-envoy-fault-abort-grpc-request", "5"}, codes.NotFound, 1500 * time.Millisecond},
		{"an abort of none", controlled, []string{"x-envoy-fault-abort-grpc-request", "8", "x-envoy-fault-abort-request-percentage", "0"}, codes.OK, 0},
		{"a delay of none", controlled, []string{"x-envoy-fault-delay-request", "1500", "x-envoy-fault-delay-request-percentage", "0"}, codes.OK, 0},
		{"more than is configured", never, []string{"x-envoy-fault-abort-grpc-request", "8", "x-envoy-fault-abort-request-percentage", "100"}, codes.OK, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			onBothSides(t, tt.fault, func(t *testing.T, b *backend, client grpc_testing.TestServiceClient) {
				for _, kind := range callKinds {
					b.calls.Store(0)
					begin := time.Now()
					err := kind.call(metadata.AppendToOutgoingContext(withTimeout(t), tt.header...), client)
					took, arrived := time.Since(begin), b.calls.Load() != 0
					if code := status.Code(err); code != tt.code || took != tt.took || arrived != (tt.code == codes.OK) {
						t.Errorf("%s: %v after %v, arrived %t, want %v after %v", kind.name, err, took, arrived, tt.code, tt.took)
					}
				}
			})
		})
	}
}

func TestBF3_MaxActiveFaultsOverGRPC(t *testing.T) {
	t.Parallel()
	const million = 1_000_000
	fault := &discovery.Fault{Delay: &discovery.FaultDelay{Fixed: time.Second, PerMillion: million}, MaxActive: 3}
	onBothSides(t, fault, func(t *testing.T, _ *backend, client grpc_testing.TestServiceClient) {
		for range 2 { // the places are free again after the first round
			var mu sync.Mutex
			times := map[time.Duration]int{}
			together(10, func(int) {
				begin := time.Now()
				if err := callUnary(withTimeout(t), client); err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				times[time.Since(begin)]++
			})
			if times[0] != 7 || times[time.Second] != 3 {
				t.Errorf("the calls took %v, want 3 of them a second", times)
			}
		}
	})
}
