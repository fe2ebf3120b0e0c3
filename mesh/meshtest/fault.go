package meshtest

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Fault is what goes wrong with a request at an instance. The zero Fault changes
// nothing.
type Fault struct {
	// Delay passes before anything else; a caller that gives up ends it.
	Delay time.Duration
	// Status, if not 0, is the answer to an HTTP request, in place of the
	// handler's.
	Status int
	// Code, if not OK, is the answer to a gRPC call, in place of the service's.
	Code codes.Code
}

// Inject makes the next n requests of the instance meet the fault, in place of
// what was injected before. A negative n is every request until the next
// Inject; 0 ends the fault. A killed instance keeps its faults.
func (i *Instance) Inject(n int, f Fault) {
	i.faults.mu.Lock()
	defer i.faults.mu.Unlock()
	i.faults.left, i.faults.fault = n, f
}

// FailNext makes the next n requests fail: HTTP with 503, gRPC with UNAVAILABLE.
// It is [Instance.Inject].
func (i *Instance) FailNext(n int) {
	i.Inject(n, Fault{Status: http.StatusServiceUnavailable, Code: codes.Unavailable})
}

// Delay makes every request wait before it is served; 0 ends it. It is
// [Instance.Inject] and replaces other faults.
func (i *Instance) Delay(d time.Duration) { i.Inject(-1, Fault{Delay: d}) }

// Requests is how many requests have arrived, those that met a fault included.
// Requests that the instance's mesh refused are not.
func (i *Instance) Requests() int { return int(i.faults.requests.Load()) }

// faults is what an instance does with its requests.
type faults struct {
	requests atomic.Int64

	mu    sync.Mutex
	left  int   // guarded by mu; negative is without end
	fault Fault // guarded by mu
}

// next counts a request and returns what it meets.
func (f *faults) next() Fault {
	f.requests.Add(1)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.left == 0 {
		return Fault{}
	}
	if f.left > 0 {
		f.left--
	}
	return f.fault
}

// wait lets the delay pass, unless the caller gives up.
func (f *Fault) wait(ctx context.Context) error {
	if f.Delay <= 0 {
		return nil
	}
	timer := time.NewTimer(f.Delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// handler puts the faults before a handler.
func (f *faults) handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fault := f.next()
		if fault.wait(r.Context()) != nil {
			return // nobody waits for an answer
		}
		if fault.Status != 0 {
			http.Error(w, "injected by meshtest", fault.Status)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// begin puts the faults before a gRPC call.
func (f *faults) begin(ctx context.Context) error {
	fault := f.next()
	if err := fault.wait(ctx); err != nil {
		return status.FromContextError(err).Err()
	}
	if fault.Code != codes.OK {
		return status.Error(fault.Code, "injected by meshtest")
	}
	return nil
}

func (f *faults) unary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if err := f.begin(ctx); err != nil {
		return nil, err
	}
	return handler(ctx, req)
}

func (f *faults) stream(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if err := f.begin(stream.Context()); err != nil {
		return err
	}
	return handler(srv, stream)
}
