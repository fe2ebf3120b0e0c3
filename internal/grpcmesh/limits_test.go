package grpcmesh_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/breaker"
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/outcome"
	"github.com/inboardmesh/inboard/outcome/meshfail"
	"github.com/inboardmesh/inboard/retry"
)

// limitedTo is a cluster with so many requests at a time.
func limitedTo(n uint32, addresses ...string) discovery.ClusterResult {
	c := cluster("main", addresses...)
	c.Cluster.Limits[0].MaxRequests = n
	return c
}

// gate is the limits of the target's cluster.
func (f *fixture) gate() *breaker.Gate {
	f.tb.Helper()
	config, err := f.outbound.Target(target).Config(withTimeout(f.tb))
	if err != nil {
		f.tb.Fatal(err)
	}
	return config.Clusters["main"].Gate(0)
}

// flood makes n calls at a time that hang until ctx ends. It counts those that were
// refused at once.
func flood(ctx context.Context, wg *sync.WaitGroup, n int, call func(context.Context) error) (refused *atomic.Int64) {
	refused = new(atomic.Int64)
	for range n {
		wg.Go(func() {
			err := call(ctx)
			if e, ok := errors.AsType[*meshfail.Error](err); ok && e.Kind == outcome.Overflow && ctx.Err() == nil {
				refused.Add(1)
			}
		})
	}
	return refused
}

func TestS26_BC2_OneLimitForAllChannelsAndProtocols(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		b := f.serveBoth("10.0.0.1:9090")
		b.before = hang
		route := forward("main")
		route.Forward.Retry = &retry.Policy{MaxRetries: 3, On: retry.OnGRPCUnavailable}
		f.configure(route, limitedTo(50, "10.0.0.1:9090"))
		first, second := f.clients(), f.client()
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		refused := flood(ctx, &wg, 100, first.callGRPC)
		other := flood(ctx, &wg, 100, func(ctx context.Context) error {
			_, err := second.EmptyCall(ctx, &grpc_testing.Empty{})
			return err
		})
		synctest.Wait()
		if got := b.calls.Load(); got != 50 {
			t.Errorf("%d calls arrived, want 50", got)
		}
		if got := refused.Load() + other.Load(); got != 150 {
			t.Errorf("%d calls were refused at once, want 150", got)
		}
		// HTTP counts in the same place, and a refusal is a status that is not retried.
		err := first.callHTTP(ctx)
		if e, ok := errors.AsType[*meshfail.Error](err); !ok || e.Kind != outcome.Overflow {
			t.Errorf("HTTP beside them: %v", err)
		}
		err = first.callGRPC(ctx)
		if e, ok := errors.AsType[*meshfail.Error](err); !ok || e.Attempts != 1 || status.Code(err) != codes.Unavailable {
			t.Errorf("gRPC beside them: %v", err)
		}
		f.configure(route, limitedTo(80, "10.0.0.1:9090"))
		synctest.Wait()
		more := flood(ctx, &wg, 100, first.callGRPC)
		synctest.Wait()
		if got := b.calls.Load(); got != 80 || more.Load() != 70 {
			t.Errorf("after the limit was raised to 80, %d calls are there and %d of 100 were refused", got, more.Load())
		}
		cancel()
		wg.Wait()
		synctest.Wait()
		if got := f.gate().Usage(); got.Requests != 0 {
			t.Errorf("%d requests still count", got.Requests)
		}
	})
}

func TestBC4_HangingCallsSettleAtTheLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.serveBoth("10.0.0.1:9090").before = hang
		f.configure(forward("main"), limitedTo(500, "10.0.0.1:9090"))
		client := f.client()
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		// load makes 100 calls a second that hang for 20 s.
		load := func(seconds int) {
			for range seconds * 100 {
				wg.Go(func() {
					ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
					defer cancel()
					_, _ = client.EmptyCall(ctx, &grpc_testing.Empty{}) // each fails, sooner or later
				})
				time.Sleep(10 * time.Millisecond)
			}
		}
		for _, limit := range []uint32{500, 1000, 800} {
			f.configure(forward("main"), limitedTo(limit, "10.0.0.1:9090"))
			load(15)
			if got := f.gate().Usage().Requests; got > limit || got < limit*99/100 {
				t.Errorf("%d calls in flight, want %d", got, limit)
			}
		}
		cancel()
		wg.Wait()
	})
}

func TestTrackedCapacityIsWhatIsLeft(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.serveBoth("10.0.0.1:9090").before = hang
		f.configure(forward("main"), limitedTo(5, "10.0.0.1:9090"))
		calls := f.clients()
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		flood(ctx, &wg, 3, calls.callGRPC)
		synctest.Wait()
		if got := f.gate().Remaining(); got.Requests != 2 || got.Retries != 3 || got.Pending != 1024 {
			t.Errorf("remaining: %+v", got)
		}
		c := limitedTo(2, "10.0.0.1:9090") // below what is in flight
		f.configure(forward("main"), c)
		synctest.Wait()
		if got := f.gate().Remaining(); got.Requests != 0 {
			t.Errorf("remaining below the limit: %+v", got)
		}
		cancel()
		wg.Wait()
	})
}

func TestHTTPAndGRPCShareTheBreakerOfAnEndpoint(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		a, b := f.serveBoth("10.0.0.1:9090"), f.serveBoth("10.0.0.2:9090")
		c := cluster("main", "10.0.0.1:9090", "10.0.0.2:9090")
		c.Cluster.EndpointBreaker = &breaker.Settings{
			FailureRatio: 0.5, MinRequests: 6, Window: 10 * time.Second, OpenTime: 5 * time.Second, HalfOpenProbes: 1,
		}
		f.configure(forward("main"), c)
		calls := f.clients()
		ctx := withTimeout(t)
		a.failing.Store(true)
		// Three failures over each protocol: neither alone would be enough.
		for range 6 {
			_ = calls.callHTTP(ctx) // half of them fail
		}
		for range 6 {
			_ = calls.callGRPC(ctx) // as above
		}
		if a.plain.Load() != 3 || a.calls.Load() != 3 {
			t.Fatalf("%d and %d calls at the endpoint that fails", a.plain.Load(), a.calls.Load())
		}
		for range 10 {
			if err := errors.Join(calls.callHTTP(ctx), calls.callGRPC(ctx)); err != nil {
				t.Errorf("beside the open breaker: %v", err)
			}
		}
		if a.plain.Load()+a.calls.Load() != 6 {
			t.Error("calls went past the open breaker")
		}
		// With all open, calls are refused.
		b.failing.Store(true)
		for range 60 {
			_ = calls.callGRPC(ctx) // until it opens
		}
		if err := calls.callGRPC(ctx); !errors.Is(err, breaker.ErrOpen) {
			t.Errorf("with all breakers open: %v", err)
		}
		a.failing.Store(false)
		b.failing.Store(false)
		time.Sleep(6 * time.Second)
		for range 10 {
			if err := errors.Join(calls.callHTTP(ctx), calls.callGRPC(ctx)); err != nil {
				t.Errorf("after the recovery: %v", err)
			}
		}
	})
}

func TestG10_OverloadCostsNoGoodput(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		// A server that does ten calls at a time, each in 100 ms: 100 a second.
		const workers, work = 10, 100 * time.Millisecond
		f := newFixture(t)
		b := f.serveBoth("10.0.0.1:9090")
		places := make(chan struct{}, workers)
		b.before = func(context.Context, int64) error {
			places <- struct{}{}
			time.Sleep(work)
			<-places
			return nil
		}
		f.configure(forward("main"), limitedTo(workers, "10.0.0.1:9090"))
		client := f.client()
		var good, slow atomic.Int64
		var wg sync.WaitGroup
		const seconds, offered = 10, 300
		for range seconds * offered {
			wg.Go(func() {
				start := time.Now()
				// What is answered later than after twice the work has waited for a place.
				if _, err := client.EmptyCall(context.Background(), &grpc_testing.Empty{}); err == nil {
					if time.Since(start) <= 2*work {
						good.Add(1)
					}
				} else if time.Since(start) > 10*time.Millisecond {
					slow.Add(1)
				}
			})
			time.Sleep(time.Second / offered)
		}
		wg.Wait()
		if got := good.Load(); got < seconds*100*8/10 {
			t.Errorf("%d calls in %d s were answered, want 80 %% of 1000 or more", got, seconds)
		}
		if got := slow.Load(); got != 0 {
			t.Errorf("%d refusals took longer than 10 ms", got)
		}
	})
}
