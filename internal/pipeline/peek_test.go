package pipeline

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/inboardmesh/inboard/discovery"
)

// Who asks a thousand questions about a target asks the control plane once.
func TestWhatIsKeptIsAskedForOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		ctx, release := Keeping(t.Context())
		peek := func(ctx context.Context, name string, u *update) (*Config, error) {
			t.Helper()
			var config *Config
			var err error
			finished := make(chan struct{})
			go func() {
				defer close(finished)
				var done func()
				if config, done, err = b.outbound.Peek(ctx, name); err == nil {
					done()
				}
			}()
			if u != nil {
				synctest.Wait() // until it is asked for
				b.publish(name, *u)
			}
			<-finished
			return config, err
		}
		first, err := peek(ctx, targetName, &update{Value: newTarget()})
		if err != nil {
			t.Fatal(err)
		}
		if !b.source.watching(targetName) {
			t.Error("the target is not followed while it is kept")
		}
		if again, err := peek(ctx, targetName, nil); err != nil || again != first {
			t.Errorf("another configuration: %v", err)
		}
		for _, u := range []*update{{Err: discovery.ErrNotFound}, nil} {
			if _, err := peek(ctx, "gone:80", u); !errors.Is(err, discovery.ErrNotFound) {
				t.Errorf("a target that is not there: %v", err)
			}
		}
		if b.source.watching("gone:80") {
			t.Error("a target that is not there is followed")
		}
		release()
		if b.source.watching(targetName) {
			t.Error("the target is followed after the release")
		}
		if after, err := peek(ctx, targetName, &update{Value: newTarget()}); err != nil || after == first {
			t.Errorf("after the release: %v", err)
		}
		if b.source.watching(targetName) {
			t.Error("nothing is kept after the release, and the target is followed")
		}
	})
}
