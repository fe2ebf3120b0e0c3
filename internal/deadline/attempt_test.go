package deadline

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func newAttempt(parent context.Context, d time.Duration) *Attempt {
	a := new(Attempt)
	a.Start(parent, time.Now().Add(d), errOurs)
	return a
}

func TestAnAttemptEndsAtItsLimitUnlessThatIsLifted(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		asked  bool // whether somebody waits for its end from the beginning
		after  time.Duration
		lift   bool
		inTime bool
		ended  bool
	}{
		{name: "before the limit", after: time.Second / 2},
		{name: "after the limit", after: 2 * time.Second, ended: true},
		{name: "lifted in time", after: time.Second / 2, lift: true, inTime: true},
		{name: "lifted too late", after: 2 * time.Second, lift: true, ended: true},
		{name: "lifted at the limit", after: time.Second, lift: true, ended: true},
	} {
		for _, asked := range []bool{false, true} {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					a := newAttempt(t.Context(), time.Second)
					defer a.Stop()
					if asked {
						_ = a.Done()
					}
					time.Sleep(c.after)
					synctest.Wait()
					if c.lift {
						if got := a.Lift(); got != c.inTime {
							t.Errorf("lifted in time: %v", got)
						}
						time.Sleep(time.Hour)
						synctest.Wait()
					}
					ended := errors.Is(a.Err(), context.Canceled) && errors.Is(context.Cause(a), errOurs)
					if ended != c.ended || (a.Err() != nil) != c.ended {
						t.Errorf("it says %v, %v", a.Err(), context.Cause(a))
					}
					if c.inTime && (!a.Limit().IsZero() || !a.Lift()) {
						t.Error("it has a limit still")
					}
				})
			})
		}
	}
}

func TestAnAttemptEndsWithItsParentAndWithStop(t *testing.T) {
	t.Parallel()
	for _, asked := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			parent, cancel := context.WithCancelCause(t.Context())
			a := newAttempt(parent, time.Second)
			b := newAttempt(t.Context(), time.Second)
			if asked {
				_, _ = a.Done(), b.Done()
			}
			cancel(errCallers)
			b.Stop()
			b.Stop()
			synctest.Wait()
			if !errors.Is(context.Cause(a), errCallers) || !errors.Is(context.Cause(b), context.Canceled) || b.Err() == nil {
				t.Errorf("they say %v, %v", context.Cause(a), context.Cause(b))
			}
			a.Stop()
			child, stop := context.WithCancel(a)
			defer stop()
			if child.Err() == nil {
				t.Error("a child of an ended one has not ended")
			}
		})
	}
	new(Attempt).Stop()
}
