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
	// Delay passes before anything else; a caller that gives up ends it. The
	// deadline that an HTTP caller announced does not: the instance hangs.
	Delay time.Duration
	// Status, if not 0, is the answer to an HTTP request, in place of the
	// handler's: 200 to 999.
	Status int
	// Code, if not OK, is the answer to a gRPC call, in place of the service's.
	Code codes.Code
}

// Inject makes the next n requests of the instance meet the fault, in place of
// what was injected before. A negative n is every request until the next
// Inject; 0 ends the fault. A killed instance keeps its faults. A status that HTTP
// cannot send as an answer fails the test.
func (i *Instance) Inject(n int, f Fault) {
	i.world.tb.Helper()
	if f.Status != 0 && (f.Status < 200 || f.Status > 999) {
		i.world.tb.Fatalf("meshtest: %s: inject the status %d: HTTP answers have 200 to 999", i.name, f.Status)
	}
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

	ended   bool           // guarded by mu; nothing begins any more
	running sync.WaitGroup // requests; Add is guarded by mu
}

// enter counts a request in, unless the test has ended.
func (f *faults) enter() (leave func(), ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended {
		return nil, false
	}
	f.running.Add(1)
	return f.running.Done, true
}

// end waits for the requests that run.
func (f *faults) end() {
	f.mu.Lock()
	f.ended = true
	f.mu.Unlock()
	f.running.Wait()
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

type arrivalKey struct{}

// arrival must be above the mesh's handler, so that it sees the context that
// ends when the caller has gone and not the one that the mesh gives a deadline.
func (f *faults) arrival(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		leave, ok := f.enter()
		if !ok {
			return // the connection is being closed
		}
		defer leave()
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), arrivalKey{}, r.Context())))
	})
}

// handler puts the faults before a handler. It must be below the mesh's, so that
// what the mesh refuses meets none.
func (f *faults) handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fault := f.next()
		// An answer in the moment in which the announced time is up would race
		// with the caller's timer.
		arrived := r.Context().Value(arrivalKey{}).(context.Context)
		if fault.wait(arrived) != nil { //nolint:contextcheck // it is the request's own, without the deadline
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

var errEnded = status.Error(codes.Unavailable, "the test has ended")

func (f *faults) unary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	leave, ok := f.enter()
	if !ok {
		return nil, errEnded
	}
	defer leave()
	if err := f.begin(ctx); err != nil {
		return nil, err
	}
	return handler(ctx, req)
}

func (f *faults) stream(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	leave, ok := f.enter()
	if !ok {
		return errEnded
	}
	defer leave()
	if err := f.begin(stream.Context()); err != nil {
		return err
	}
	return handler(srv, stream)
}
