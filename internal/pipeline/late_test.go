package pipeline

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/upstream"
	"github.com/inboardmesh/inboard/observe"
)

// lateSource has an update under way when it has been told to stop, as a source may.
type lateSource struct {
	discovery.Source

	late *discovery.Target
}

func (s *lateSource) WatchTarget(_ string, notify func(discovery.Update[*discovery.Target])) (stop func()) {
	return func() {
		go func() { // ends with the bubble
			time.Sleep(time.Millisecond)
			notify(update{Value: s.late})
		}()
	}
}

// An update that comes when a target is let go of changes nothing: nobody would ever
// release what it holds.
func TestAnUpdateUnderWayHoldsNothingOfATargetThatIsLetGoOf(t *testing.T) {
	t.Parallel()
	for _, ends := range []string{"forgotten", "closed"} {
		t.Run(ends, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				upstreams := upstream.NewManager(upstream.Options{Hooks: &observe.Hooks{}})
				defer upstreams.Close()
				o := NewOutbound(&lateSource{late: newTarget()}, upstreams, &observe.Hooks{})
				target := o.Target(targetName)
				if ends == "closed" {
					o.Close()
				} else {
					defer o.Close()
					time.Sleep(time.Hour)
				}
				time.Sleep(time.Second)
				synctest.Wait()
				if target.Configured() {
					t.Error("the target has a configuration")
				}
				if upstreams.Find("v1") != nil {
					t.Error("the cluster is still held")
				}
			})
		})
	}
}
