package grpcmesh_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/outcome"
	"github.com/inboardmesh/inboard/outcome/meshfail"
	"github.com/inboardmesh/inboard/retry"
)

// checkFailure compares an error of the mesh with what it must be.
func checkFailure(t *testing.T, err error, kind outcome.Kind, code codes.Code, attempts int) {
	t.Helper()
	failure, ok := errors.AsType[*meshfail.Error](err)
	if !ok {
		t.Errorf("error %v (%T) is not the mesh's", err, err)
		return
	}
	if failure.Kind != kind || failure.Attempts != attempts || failure.Target != target {
		t.Errorf("error %v: kind %v after %d attempts, want %v after %d", err, failure.Kind, failure.Attempts, kind, attempts)
	}
	if got := status.Code(err); got != code {
		t.Errorf("error %v: status %v, want %v", err, got, code)
	}
}

// TestS25_BT10_TimesAreKeptToTheMillisecond is for servers that hang.
func TestS25_BT10_TimesAreKeptToTheMillisecond(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	tests := []struct {
		name          string
		route, perTry time.Duration
		retries       uint32
		caller        time.Duration
		want          time.Duration
		kind          outcome.Kind
		attempts      int
	}{
		{name: "route timeout", route: 350 * ms, want: 350 * ms, kind: outcome.Timeout, attempts: 1},
		{name: "caller's deadline", caller: 200 * ms, want: 200 * ms, kind: outcome.Timeout, attempts: 1},
		{name: "the caller's is the shorter", route: 350 * ms, caller: 200 * ms, want: 200 * ms, kind: outcome.Timeout, attempts: 1},
		{name: "the route's is the shorter", route: 200 * ms, caller: 350 * ms, want: 200 * ms, kind: outcome.Timeout, attempts: 1},
		{name: "per-try timeout", perTry: 100 * ms, want: 100 * ms, kind: outcome.PerTryTimeout, attempts: 1},
		{name: "per-try timeout with retries", perTry: 100 * ms, retries: 2, want: 302 * ms, kind: outcome.PerTryTimeout, attempts: 3},
		{name: "the route's timeout bounds all attempts", route: 350 * ms, perTry: 100 * ms, retries: 4, want: 350 * ms, kind: outcome.Timeout, attempts: 4},
		{name: "the caller's deadline bounds all attempts", caller: 250 * ms, perTry: 100 * ms, retries: 4, want: 250 * ms, kind: outcome.Timeout, attempts: 3},
		{name: "a per-try timeout that is not shorter has no effect", route: 200 * ms, perTry: 200 * ms, retries: 3, want: 200 * ms, kind: outcome.Timeout, attempts: 1},
	}
	for _, tt := range tests {
		for _, kind := range callKinds {
			t.Run(tt.name+", "+kind.name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					f := newFixture(t)
					var running atomic.Int64
					b := &backend{before: func(ctx context.Context, n int64) error {
						running.Add(1)
						defer running.Add(-1)
						return hang(ctx, n)
					}}
					f.serve(endpoint, b)
					route := retrying(tt.retries, retry.OnReset)
					route.Forward.Timeout = tt.route
					route.Forward.Retry.PerTryTimeout = tt.perTry
					route.Forward.Retry.Backoff = retry.Backoff{Base: ms, Max: ms}
					f.configure(route, cluster("main", endpoint))
					client := f.client()
					f.warm(client, b)
					ctx := t.Context()
					if tt.caller > 0 {
						var cancel context.CancelFunc
						ctx, cancel = context.WithTimeout(ctx, tt.caller)
						defer cancel()
					}
					start := time.Now()
					err := kind.call(ctx, client)
					// The back-off is 1 ms, with gRPC's jitter of 20 %.
					if got := time.Since(start); got.Round(ms) != tt.want {
						t.Errorf("ended after %v, want %v", got, tt.want)
					}
					checkFailure(t, err, tt.kind, codes.DeadlineExceeded, tt.attempts)
					if !errors.Is(err, context.DeadlineExceeded) {
						t.Errorf("%v is no context.DeadlineExceeded", err)
					}
					synctest.Wait() // BT10: nothing goes on at the server
					if n := running.Load(); n != 0 {
						t.Errorf("%d calls still run at the server", n)
					}
					calls := f.seen.ended(observe.Outbound)
					if last := calls[len(calls)-1]; last.Outcome.Kind != tt.kind {
						t.Errorf("observed %v, want %v", last.Outcome.Kind, tt.kind)
					}
				})
			})
		}
	}
}

// warm makes a call that connects, so that connecting takes no part in what the
// test measures.
func (f *fixture) warm(client grpc_testing.TestServiceClient, b *backend) {
	f.tb.Helper()
	before := b.before
	b.before = nil
	if _, err := client.EmptyCall(withTimeout(f.tb), &grpc_testing.Empty{}); err != nil {
		f.tb.Fatal(err)
	}
	b.before = before
}

// TestBT7_AServerIsNeverGivenMoreTimeThanItsCallerHas looks at the deadline that
// arrives.
func TestBT7_AServerIsNeverGivenMoreTimeThanItsCallerHas(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name           string
		caller         time.Duration
		edit           func(*discovery.Forward)
		unary, streams time.Duration // what is left at the server; 0 is no deadline
	}{
		{"no limit", 0, func(*discovery.Forward) {}, 0, 0},
		{"the caller's deadline", 5 * time.Second, func(*discovery.Forward) {}, 5 * time.Second, 5 * time.Second},
		{"the route's timeout", 0, func(r *discovery.Forward) { r.Timeout = 3 * time.Second }, 3 * time.Second, 3 * time.Second},
		{"BT9, the caller's before the route's", time.Second, func(r *discovery.Forward) { r.Timeout = 3 * time.Second }, time.Second, time.Second},
		{
			// A stream's attempt ends with the per-try timeout only until it
			// answers, so it cannot be told to the server.
			"the per-try timeout", 10 * time.Second,
			func(r *discovery.Forward) { r.Retry = &retry.Policy{PerTryTimeout: time.Second} }, time.Second, 10 * time.Second,
		},
		{
			"BT4, max_stream_duration", 20 * time.Second,
			func(r *discovery.Forward) { r.MaxStreamDuration = new(10 * time.Second) }, 10 * time.Second, 10 * time.Second,
		},
		{
			"BT4, grpc_timeout_header_max of 0 is no limit", 20 * time.Second,
			func(r *discovery.Forward) {
				r.MaxStreamDuration, r.GRPCTimeoutHeaderMax = new(10*time.Second), new(time.Duration)
			}, 20 * time.Second, 20 * time.Second,
		},
	}
	for _, tt := range tests {
		for _, kind := range callKinds {
			t.Run(tt.name+", "+kind.name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					f := newFixture(t)
					left := time.Duration(-1)
					f.serve(endpoint, &backend{before: func(ctx context.Context, _ int64) error {
						left = 0
						if deadline, ok := ctx.Deadline(); ok {
							left = time.Until(deadline)
						}
						return nil
					}})
					route := forward("main")
					tt.edit(route.Forward)
					f.configure(route, cluster("main", endpoint))
					ctx := t.Context()
					if tt.caller > 0 {
						var cancel context.CancelFunc
						ctx, cancel = context.WithTimeout(ctx, tt.caller)
						defer cancel()
					}
					if err := kind.call(ctx, f.client()); err != nil {
						t.Fatal(err)
					}
					want := tt.streams
					if kind.name == "unary" {
						want = tt.unary
					}
					if left != want {
						t.Errorf("%v are left at the server, want %v", left, want)
					}
				})
			})
		}
	}
}

func TestThePerTryTimeoutOfAStreamEndsWithItsFirstMessage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.serve(endpoint, &backend{output: func(_ *grpc_testing.StreamingOutputCallRequest, stream grpc.ServerStreamingServer[grpc_testing.StreamingOutputCallResponse]) error {
			for range 3 {
				time.Sleep(90 * time.Millisecond)
				if err := stream.Send(output(nil)); err != nil {
					return err
				}
			}
			return nil
		}})
		route := forward("main")
		route.Forward.Retry = &retry.Policy{PerTryTimeout: 100 * time.Millisecond}
		f.configure(route, cluster("main", endpoint))
		stream, err := f.client().StreamingOutputCall(t.Context(), &grpc_testing.StreamingOutputCallRequest{})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			if _, err := stream.Recv(); err != nil {
				t.Fatalf("message %d: %v", i, err)
			}
		}
	})
}

// TestATimeoutInTheMiddleOfAStreamIsATimeoutToEverybody: to the application, to
// observers and so to the error-rate breaker, whoever notices it first.
func TestATimeoutInTheMiddleOfAStreamIsATimeoutToEverybody(t *testing.T) {
	t.Parallel()
	for _, caller := range []bool{true, false} {
		for _, receiving := range []bool{true, false} {
			name := "the route's"
			if caller {
				name = "the caller's"
			}
			if receiving {
				name += ", while receiving"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					f := newFixture(t)
					f.serve(endpoint, &backend{output: func(_ *grpc_testing.StreamingOutputCallRequest, stream grpc.ServerStreamingServer[grpc_testing.StreamingOutputCallResponse]) error {
						if err := stream.Send(output(nil)); err != nil {
							return err
						}
						return hang(stream.Context(), 1)
					}})
					route, ctx := forward("main"), t.Context()
					if caller {
						bounded, cancel := context.WithTimeout(ctx, time.Second)
						defer cancel()
						ctx = bounded
					} else {
						route.Forward.Timeout = time.Second
					}
					f.configure(route, cluster("main", endpoint))
					stream, err := f.client().StreamingOutputCall(ctx, &grpc_testing.StreamingOutputCallRequest{})
					if err != nil {
						t.Fatal(err)
					}
					if _, err := stream.Recv(); err != nil {
						t.Fatal(err)
					}
					if !receiving {
						time.Sleep(2 * time.Second)
					}
					_, err = stream.Recv()
					checkFailure(t, err, outcome.Timeout, codes.DeadlineExceeded, 1)
					synctest.Wait()
					if calls := f.seen.ended(observe.Outbound); len(calls) != 1 || calls[0].Outcome.Kind != outcome.Timeout {
						t.Errorf("observed %+v", calls)
					}
				})
			})
		}
	}
}

// TestACancellationReachesTheServer, frees what the call held, and is nobody's
// failure.
func TestACancellationReachesTheServer(t *testing.T) {
	t.Parallel()
	for _, kind := range callKinds {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				var canceled time.Time
				b := &backend{before: func(ctx context.Context, n int64) error {
					err := hang(ctx, n)
					canceled = time.Now()
					return err
				}}
				f.serve(endpoint, b)
				f.configure(retrying(3, ^retry.Conditions(0)), cluster("main", endpoint))
				ctx, cancel := context.WithCancel(t.Context())
				time.AfterFunc(time.Second, cancel)
				start := time.Now()
				err := kind.call(ctx, f.client())
				checkFailure(t, err, outcome.Canceled, codes.Canceled, 1)
				if !errors.Is(err, context.Canceled) {
					t.Errorf("%v is no context.Canceled", err)
				}
				synctest.Wait()
				if got := canceled.Sub(start); got != time.Second || b.calls.Load() != 1 {
					t.Errorf("the server learned of it after %v, in %d calls", got, b.calls.Load())
				}
				if calls := f.seen.ended(observe.Outbound); len(calls) != 1 || calls[0].Outcome.Verdict() != outcome.Ignored {
					t.Errorf("observed %+v", calls)
				}
			})
		})
	}
}

// TestAStreamThatIsGivenUpEndsWithItsContext: nobody reads it to its end.
func TestAStreamThatIsGivenUpEndsWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.serve(endpoint, &backend{})
		f.forwardTo(endpoint)
		ctx, cancel := context.WithCancel(t.Context())
		stream, err := f.client().FullDuplexCall(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Send(outputRequest("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
		cancel()
		synctest.Wait()
		if calls := f.seen.ended(observe.Outbound); len(calls) != 1 || calls[0].Outcome.Kind != outcome.Canceled {
			t.Errorf("observed %+v", calls)
		}
		if _, err := stream.Recv(); status.Code(err) != codes.Canceled {
			t.Errorf("recv afterwards: %v", err)
		}
	})
}

// TestTheBackOffEndsWithTheCallersTime: no attempt starts after it (row BR22).
func TestTheBackOffEndsWithTheCallersTime(t *testing.T) {
	t.Parallel()
	for _, kind := range callKinds {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				b := &backend{before: failFirst(100, codes.Unavailable)}
				f.serve(endpoint, b)
				route := retrying(3, retry.OnGRPCUnavailable)
				route.Forward.Retry.Backoff = retry.Backoff{Base: time.Hour, Max: time.Hour}
				route.Forward.Timeout = time.Second
				f.configure(route, cluster("main", endpoint))
				start := time.Now()
				err := kind.call(t.Context(), f.client())
				if got := time.Since(start); got != time.Second || b.calls.Load() != 1 {
					t.Errorf("ended after %v and %d calls", got, b.calls.Load())
				}
				checkFailure(t, err, outcome.Timeout, codes.DeadlineExceeded, 1)
			})
		})
	}
}
