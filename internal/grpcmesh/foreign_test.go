package grpcmesh_test

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/inboardmesh/inboard/internal/grpcmesh"
	"github.com/inboardmesh/inboard/internal/pipeline"
	"github.com/inboardmesh/inboard/observe"
)

// TestACallWhoseHookPanicsLeavesNoCopy: the copies of a stream that was never opened do
// not wait for what follows on it.
func TestACallWhoseHookPanicsLeavesNoCopy(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, func(o *grpcmesh.Options) {
			next := o.Hooks.AttemptStarted
			o.Hooks.AttemptStarted = func(ctx context.Context, a *observe.Attempt) context.Context {
				_ = next(ctx, a)
				panic("foreign")
			}
		})
		f.serve(mainAddress, new(backend))
		f.serve(shadowAddress, new(shadow))
		f.mirrorTo()
		client := f.client()
		func() {
			defer func() { _ = recover() }()
			_, _ = client.FullDuplexCall(withTimeout(t))
			t.Error("the hook did not panic")
		}()
		synctest.Wait() // the copy ends on a goroutine of its own
		f.checkNothingCounted()
		events := f.seen.mirrored()
		if len(events) != 1 || events[0].Dropped != pipeline.DropIncomplete {
			t.Errorf("copies: %+v", events)
		}
	})
}
