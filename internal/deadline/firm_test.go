package deadline

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

var errTheirs = errors.New("theirs")

func TestAFirmAttemptIsAContextWithADeadline(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		// parent is what it is made of, call whether there is a Context between them,
		// real whether somebody waits for that.
		parent, call time.Duration
		real         bool
		after        time.Duration
		err, cause   error
		deadline     time.Duration
	}{
		{name: "before its limit", after: time.Second / 2, deadline: time.Second},
		{name: "after its limit", after: time.Second, err: context.DeadlineExceeded, cause: errOurs, deadline: time.Second},
		{name: "in a call with more time", call: time.Minute, after: time.Second, err: context.DeadlineExceeded, cause: errOurs, deadline: time.Second},
		{
			name: "in a call with more time that somebody waits for", call: time.Minute, real: true,
			after: time.Second, err: context.DeadlineExceeded, cause: errOurs, deadline: time.Second,
		},
		{
			name: "in a call with less time", call: time.Second / 2, after: time.Second / 2,
			err: context.DeadlineExceeded, cause: errTheirs, deadline: time.Second / 2,
		},
		{
			name: "of a caller with less time", parent: time.Second / 2, call: time.Minute, after: time.Second / 2,
			err: context.DeadlineExceeded, cause: context.DeadlineExceeded, deadline: time.Second / 2,
		},
	} {
		for _, asked := range []bool{false, true} {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					start, parent := time.Now(), t.Context()
					if c.parent > 0 {
						bounded, cancel := context.WithTimeout(parent, c.parent)
						defer cancel()
						parent = bounded
					}
					if c.call > 0 {
						call := new(Context)
						call.Start(parent, start.Add(c.call), errTheirs)
						defer call.Stop()
						if c.real {
							_ = call.Done()
						}
						parent = call
					}
					a := newAttempt(parent, time.Second)
					defer a.Stop()
					a.Firm()
					if asked {
						_ = a.Done()
					}
					if at, ok := a.Deadline(); !ok || at.Sub(start) != c.deadline {
						t.Errorf("its deadline: %v, %v", at.Sub(start), ok)
					}
					time.Sleep(c.after)
					synctest.Wait()
					if !errors.Is(a.Err(), c.err) || !errors.Is(context.Cause(a), c.cause) {
						t.Errorf("it says %v, %v", a.Err(), context.Cause(a))
					}
				})
			})
		}
	}
}

func TestAFirmAttemptLeavesItsCallUnreal(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		caller, giveUp := context.WithCancelCause(t.Context())
		call := new(Context)
		call.Start(caller, time.Now().Add(time.Minute), errTheirs)
		defer call.Stop()
		a := newAttempt(call, time.Second)
		defer a.Stop()
		a.Firm()
		done := a.Done()
		if call.real.Load() {
			t.Error("the call's context has become real")
		}
		giveUp(errTheirs)
		<-done
		if !errors.Is(a.Err(), context.Canceled) || !errors.Is(context.Cause(a), errTheirs) {
			t.Errorf("when the caller gives up: %v, %v", a.Err(), context.Cause(a))
		}
	})
}

func TestAFirmAttemptOfACallThatWasStoppedHasEnded(t *testing.T) {
	t.Parallel()
	call := new(Context)
	call.Start(t.Context(), time.Now().Add(time.Minute), errTheirs)
	call.Stop()
	a := newAttempt(call, time.Second)
	defer a.Stop()
	a.Firm()
	<-a.Done()
	if !errors.Is(a.Err(), context.Canceled) {
		t.Errorf("it says %v", a.Err())
	}
}

func TestTheLimitOfAFirmAttemptIsLiftedOnlyUnasked(t *testing.T) {
	t.Parallel()
	for _, asked := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			a := newAttempt(t.Context(), time.Second)
			defer a.Stop()
			a.Firm()
			if asked {
				_ = a.Done()
			}
			if !a.Lift() {
				t.Error("not in time")
			}
			time.Sleep(time.Second)
			synctest.Wait()
			if ended := a.Err() != nil; ended != asked || a.Lift() == asked {
				t.Errorf("asked: %v, ended: %v", asked, ended)
			}
		})
	}
}

func TestFirmComesTooLateForThoseThatWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAttempt(t.Context(), time.Second)
		defer a.Stop()
		done := a.Done()
		a.Firm()
		if _, ok := a.Deadline(); ok {
			t.Error("it reports a deadline that those who wait do not know")
		}
		<-done
		if !errors.Is(context.Cause(a), errOurs) {
			t.Errorf("the limit ended it with %v", context.Cause(a))
		}
	})
}
