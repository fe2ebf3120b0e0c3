package grpcmesh_test

import (
	"context"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/interop/grpc_testing"
)

// beyondWorkers is more than a server keeps goroutines.
const beyondWorkers = 140

// TestACallNeedsNoFreeGoroutineOfTheServer: those that are kept are no limit.
func TestACallNeedsNoFreeGoroutineOfTheServer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		var running atomic.Int64
		all := make(chan struct{})
		f.serve(endpoint, &backend{before: func(ctx context.Context, _ int64) error {
			if running.Add(1) == beyondWorkers {
				close(all)
			}
			select {
			case <-all:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}})
		f.forwardTo(endpoint)
		client := f.client()
		together(beyondWorkers, func(int) {
			if _, err := client.EmptyCall(withTimeout(t), &grpc_testing.Empty{}); err != nil {
				t.Error(err)
			}
		})
	})
}

// TestAHandlerMayEndItsGoroutine: the goroutine is the server's, which goes on.
func TestAHandlerMayEndItsGoroutine(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.serve(endpoint, &backend{before: func(_ context.Context, i int64) error {
			if i <= beyondWorkers {
				runtime.Goexit()
			}
			return nil
		}})
		f.forwardTo(endpoint)
		client := f.client()
		for i := range beyondWorkers {
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			if _, err := client.EmptyCall(ctx, &grpc_testing.Empty{}); err == nil {
				t.Errorf("call %d was answered", i)
			}
			cancel()
		}
		if _, err := client.EmptyCall(withTimeout(t), &grpc_testing.Empty{}); err != nil {
			t.Error(err)
		}
	})
}
