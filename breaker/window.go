package breaker

import (
	"sync/atomic"
	"time"
)

// windowSteps is how many steps the window rolls in.
const windowSteps = 10

// window counts what ended lately: in the step under way and in those before
// it, windowSteps in all. Counting takes no lock.
type window struct {
	start time.Time
	step  time.Duration
	// steps[n%windowSteps] is step n, or a step before it that had its place.
	steps [windowSteps]atomic.Pointer[step]
}

type step struct {
	number              int64
	successes, failures atomic.Uint64
}

func newWindow(length time.Duration) *window {
	// Rounded up, so that the steps are never shorter than the window.
	return &window{start: time.Now(), step: (length-1)/windowSteps + 1}
}

// now is the number of the step under way.
func (w *window) now() int64 { return int64(time.Since(w.start) / w.step) }

// add counts an attempt that ended now.
func (w *window) add(failed bool) {
	s := w.at(w.now())
	if s == nil {
		return
	}
	if failed {
		s.failures.Add(1)
	} else {
		s.successes.Add(1)
	}
}

// at returns the step with this number, nil if the window has rolled past it.
func (w *window) at(number int64) *step {
	place := &w.steps[number%windowSteps]
	for {
		s := place.Load()
		switch {
		case s != nil && s.number == number:
			return s
		case s != nil && s.number > number:
			return nil
		}
		next := &step{number: number}
		if place.CompareAndSwap(s, next) {
			return next
		}
	}
}

// counts adds up the window as it is now.
func (w *window) counts() (successes, failures uint64) {
	now := w.now()
	for i := range w.steps {
		if s := w.steps[i].Load(); s != nil && s.number > now-windowSteps {
			successes += s.successes.Load()
			failures += s.failures.Load()
		}
	}
	return successes, failures
}
