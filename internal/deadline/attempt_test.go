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

func TestAnAttemptInACallEndsWithWhatEndsFirst(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		// caller and call are what they wait; 0 is without an end.
		caller, call time.Duration
		giveUp       bool
		lift         bool
		after        time.Duration
		err, cause   error
		unreal       bool // nobody needs the call's context
	}{
		{name: "the attempt", caller: 2 * time.Second, call: time.Minute, after: time.Second, err: context.Canceled, cause: errOurs, unreal: true},
		{
			name: "the caller's time, once the limit is lifted", caller: 2 * time.Second, call: time.Minute, lift: true, after: 2 * time.Second,
			err: context.DeadlineExceeded, cause: context.DeadlineExceeded, unreal: true,
		},
		{name: "the caller", caller: 2 * time.Second, call: time.Minute, giveUp: true, err: context.Canceled, cause: errCallers, unreal: true},
		{name: "the call", caller: time.Minute, call: 2 * time.Second, lift: true, after: 2 * time.Second, err: context.DeadlineExceeded, cause: errTheirs},
		{name: "the call of a caller without a deadline", call: 2 * time.Second, lift: true, after: 2 * time.Second, err: context.DeadlineExceeded, cause: errTheirs},
		{name: "the call, at the time of its caller", caller: 2 * time.Second, call: 2 * time.Second, lift: true, after: 2 * time.Second, err: context.DeadlineExceeded},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				caller, giveUp := context.WithCancelCause(t.Context())
				defer giveUp(nil)
				parent := caller
				if c.caller > 0 {
					var cancel context.CancelFunc
					parent, cancel = context.WithTimeout(caller, c.caller)
					defer cancel()
				}
				call := new(Context)
				call.Start(parent, time.Now().Add(c.call), errTheirs)
				defer call.Stop()
				a := newAttempt(call, time.Second)
				defer a.Stop()
				_ = a.Done()
				if call.real.Load() == c.unreal {
					t.Errorf("the call's context is real: %v", !c.unreal)
				}
				if c.lift && !a.Lift() {
					t.Error("not in time")
				}
				if a.Err() != nil {
					t.Errorf("it has ended: %v", a.Err())
				}
				if c.giveUp {
					giveUp(errCallers)
				}
				time.Sleep(c.after)
				synctest.Wait()
				if !errors.Is(a.Err(), c.err) || c.cause != nil && !errors.Is(context.Cause(a), c.cause) {
					t.Errorf("it says %v, %v", a.Err(), context.Cause(a))
				}
			})
		})
	}
}

// What was stopped before somebody waited for the attempt still ends it.
func TestAnAttemptOfACallThatWasStoppedHasEnded(t *testing.T) {
	t.Parallel()
	caller, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	call := new(Context)
	call.Start(caller, time.Now().Add(2*time.Hour), errTheirs)
	call.Stop()
	a := newAttempt(call, time.Minute)
	defer a.Stop()
	<-a.Done()
	if !errors.Is(a.Err(), context.Canceled) {
		t.Errorf("it says %v", a.Err())
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
