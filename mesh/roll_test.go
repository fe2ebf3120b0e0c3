package mesh_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/interop/grpc_testing"

	"github.com/inboardmesh/inboard/internal/worldtest"
	"github.com/inboardmesh/inboard/mesh"
)

// fleet is payments that are called while they are replaced.
type fleet struct {
	t        *testing.T
	world    *worldtest.World
	history  *history
	payments []*worldtest.Payment
	load     *goalLoad
	started  int
	draining sync.WaitGroup
	// ended is told of payments that have ended; nil tells nobody.
	ended func(*worldtest.Payment)
}

// newFleet starts payments and a load on them.
func newFleet(t *testing.T, payments, streams int) (f *fleet, enough func()) {
	t.Helper()
	f = &fleet{t: t, world: worldtest.New(t, ""), history: newHistory()}
	for range payments {
		f.payments = append(f.payments, f.start())
	}
	f.apply()
	f.load = newGoalLoad(t, f.world.Join("shop", "customer", nil, mesh.WithHooks(f.history.hooks())), f.history)
	done := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() { f.load.run(done, streams) })
	return f, sync.OnceFunc(func() {
		f.draining.Wait()
		close(done)
		running.Wait()
	})
}

func (f *fleet) start() *worldtest.Payment {
	f.started++
	return f.world.Payment(fmt.Sprintf("v1-r%d", f.started), map[string]string{"app": "payment"})
}

func (f *fleet) apply() { f.world.Apply(services(f.payments...) + withoutRetries) }

func (f *fleet) note(p *worldtest.Payment, format string, args ...any) {
	f.history.note(p.HTTP, format, args...)
	f.history.note(p.GRPC, format, args...)
}

// replace starts a payment and takes the oldest out of the configuration; it begins
// to drain at the same time as its callers are told.
func (f *fleet) replace() {
	fresh := f.start()
	f.payments = append(f.payments, fresh)
	f.apply()
	until(f.t, "the new payment is called", func() bool { return fresh.Calls.Load() > 0 })
	old := f.payments[0]
	f.payments = slices.Delete(f.payments, 0, 1)
	f.apply()
	f.retire(old)
}

// end forgets a payment.
func (f *fleet) end(old *worldtest.Payment) {
	old.End()
	if f.ended != nil {
		f.ended(old)
	}
}

// retire lets a payment drain, in the background.
func (f *fleet) retire(old *worldtest.Payment) {
	f.note(old, "left the configuration, begins to drain")
	f.draining.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		report, err := old.Drain(ctx, mesh.DrainPolicy{Listen: 500 * time.Millisecond, Quiet: 200 * time.Millisecond, Time: time.Second})
		f.note(old, "has drained: %+v, %v", report, err)
		if err != nil {
			f.t.Errorf("drain %s: %v", old.Instance, err)
		}
		f.end(old)
	})
}

// Every endpoint is replaced under load, over all protocols; nothing is tried again.
func TestG1_EveryEndpointIsReplacedAndNoCallFails(t *testing.T) {
	t.Parallel()
	const endpoints = 10
	f, enough := newFleet(t, endpoints, 50)
	defer enough()
	for replaced := 0; replaced < endpoints || f.load.calls.Load() < *goalCalls; replaced++ {
		f.replace()
	}
	enough()
	f.load.report(fmt.Sprintf("%d endpoints of %d replaced", f.started-endpoints, endpoints))
}

// A process drains under load, after its endpoints were removed. What runs is finished,
// however long it takes within the grace.
func TestG19_ADrainUnderLoadFailsNoCall(t *testing.T) {
	t.Parallel()
	f, enough := newFleet(t, 3, 50)
	defer enough()
	until(t, "the long streams run", func() bool { return f.load.streams.Load() == 50 })
	for replaced := 0; replaced == 0 || f.load.calls.Load() < *goalCalls; replaced++ {
		f.replace()
		f.draining.Wait()
	}
	enough()
	f.load.report(fmt.Sprintf("%d processes drained one after the other", f.started-3))
}

// Streams that do not end are cut off at the end of the grace, and not before.
func TestG19_TheGraceIsObserved(t *testing.T) {
	t.Parallel()
	const streams, grace = 50, 2 * time.Second
	w := worldtest.New(t, "")
	p := w.Payment("v1-a", map[string]string{"app": "payment"})
	w.Apply(services(p) + withoutRetries)
	customer := w.Join("shop", "customer", nil)
	load := newGoalLoad(t, customer, newHistory())
	calls := make([]grpc_testing.TestService_FullDuplexCallClient, 0, streams)
	for range streams {
		call, err := load.stub.FullDuplexCall(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := call.Send(&grpc_testing.StreamingOutputCallRequest{}); err != nil {
			t.Fatal(err)
		}
		if _, err := call.Recv(); err != nil {
			t.Fatal(err)
		}
		calls = append(calls, call)
	}
	w.Apply(services() + withoutRetries)
	ctx, cancel := context.WithTimeout(t.Context(), grace)
	defer cancel()
	report, err := p.Drain(ctx, mesh.DrainPolicy{})
	if !errors.Is(err, context.DeadlineExceeded) || report.Cut != streams || report.ConnectionsCut == 0 {
		t.Errorf("%+v, %v", report, err)
	}
	// The upper bound is for machines that do nothing else: TestBD5 shows it in a time
	// of its own.
	if report.Duration < grace || *goalCalls > 10_000 && report.Duration > grace+500*time.Millisecond {
		t.Errorf("the grace of %v took %v", grace, report.Duration)
	}
	for _, call := range calls {
		if _, err := call.Recv(); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("a stream that was cut off ended with %v", err)
		}
	}
}
