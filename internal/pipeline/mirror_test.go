package pipeline

import (
	"context"
	"maps"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/outcome"
	"github.com/inboardmesh/inboard/retry"
)

// TestBU8_ACallThatIsNotMadeIsNotCopied: what never reached an upstream is not copied,
// and what did is copied once.
func TestBU8_ACallThatIsNotMadeIsNotCopied(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name             string
		options          CallOptions
		ended            bool
		copied, attempts int
		kind             outcome.Kind
	}{
		{"it is made", CallOptions{}, false, 1, 1, outcome.Response},
		{"it is made again", CallOptions{RetryOn: retry.On5xx}, false, 1, 3, outcome.Response},
		{"its time has passed", CallOptions{Timeout: -1}, false, 0, 0, outcome.Timeout},
		{"too little of its time is left", CallOptions{Timeout: time.Second, MinTime: time.Minute}, false, 0, 0, outcome.Timeout},
		{"its context has ended", CallOptions{}, true, 0, 1, outcome.Canceled},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				b.configure(newTarget(retrying(retry.Policy{MaxRetries: 2}), func(target *discovery.Target) {
					top(target).Forward.Mirrors = []discovery.Mirror{{Cluster: "v1", PerMillion: everyCall}}
				}))
				ctx, cancel := context.WithCancel(WithOptions(t.Context(), tt.options))
				defer cancel()
				d := &adapter{attempt: always(response(503))}
				if tt.ended {
					cancel()
					d.attempt = hang
				}
				if o, _ := b.run(ctx, d); o.Kind != tt.kind {
					t.Errorf("it ended as %v (%v), want %v", o.Kind, o.Err, tt.kind)
				}
				if d.copied != tt.copied || d.attempts != tt.attempts {
					t.Errorf("copied %d times in %d attempts, want %d in %d", d.copied, d.attempts, tt.copied, tt.attempts)
				}
			})
		})
	}
}

// TestBU8_ASlowMirrorKeepsNoCopyFromAnother: each cluster has a bound of its own, below
// that of all together, and observers are told whose copy was dropped.
func TestBU8_ASlowMirrorKeepsNoCopyFromAnother(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.configure(newTarget())
		dropped := map[string]int{}
		b.outbound.hooks.Mirrored = func(e observe.MirrorEvent) { dropped[e.Cluster+" "+e.Dropped]++ }
		release := make(chan struct{})
		started := 0
		send := func(cluster string, copies int) {
			for range copies {
				m := &Mirror{out: b.outbound, cluster: b.cluster("v1"), event: observe.MirrorEvent{Cluster: cluster}}
				m.Go(func(context.Context) { <-release })
			}
			synctest.Wait()
			started = b.outbound.mirrors.active
		}
		send("slow", 300)
		send("a", 200)
		if want := (map[string]int{"slow in-flight": 44}); !maps.Equal(dropped, want) || started != 456 {
			t.Errorf("%d copies are under way, dropped are %v, want 456 and %v", started, dropped, want)
		}
		send("b", 256)
		send("c", 256)
		send("d", 57)
		if want := (map[string]int{"slow in-flight": 44, "d in-flight": 1}); !maps.Equal(dropped, want) || started != 1024 {
			t.Errorf("%d copies are under way, dropped are %v, want 1024 and %v", started, dropped, want)
		}
		close(release)
		synctest.Wait()
		send("slow", 256)
		if started != 0 || len(b.outbound.mirrors.of) != 0 || len(dropped) != 2 {
			t.Errorf("%d copies are under way to %v, dropped are %v", started, b.outbound.mirrors.of, dropped)
		}
	})
}
