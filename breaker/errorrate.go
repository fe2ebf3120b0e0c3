package breaker

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"
)

// ErrOpen is returned, possibly wrapped, for an attempt that the error-rate
// breaker refuses. Nothing was sent.
var ErrOpen = errors.New("error-rate breaker is open")

// errProbing is ErrOpen for an attempt that comes while the probes are under way.
var errProbing = fmt.Errorf("%w: half-open, and its probes are under way", ErrOpen)

// State is the state of an [ErrorRate] breaker.
type State uint8

const (
	// Closed lets every attempt pass and counts failures.
	Closed State = iota
	// HalfOpen lets a few attempts pass as probes.
	HalfOpen
	// Open refuses every attempt.
	Open
)

// String returns "closed", "half-open" or "open".
func (s State) String() string {
	switch s {
	case HalfOpen:
		return "half-open"
	case Open:
		return "open"
	}
	return "closed"
}

// ErrorRate refuses attempts while too many of the recent ones failed. It is
// closed at first.
//
// An attempt counts when it ends, however long it took. The breaker opens when a
// failure is counted, at least MinRequests attempts ended with a success or a
// failure within Window, and the share of failures among them has reached
// FailureRatio. The window rolls in ten steps, so that it is between nine tenths
// and the whole of Window long. The breaker then refuses everything for OpenTime.
// After that it is half-open: it lets HalfOpenProbes attempts pass at once and
// refuses the others; that many successes close it, one failure opens it again. A
// probe that takes longer than OpenTime gives its place to another one.
// Half-open begins when somebody asks after OpenTime: there is no timer.
//
// Results of attempts that began before the latest change of state are not
// counted: they tell nothing about the cluster now.
//
// A nil ErrorRate is closed and admits everything. All methods are safe for
// concurrent use; a closed breaker admits, and counts successes, without a lock.
type ErrorRate struct {
	name    string
	current atomic.Pointer[machine]
	changes reporter
}

// NewErrorRate returns a closed breaker. The settings must be valid, see
// [Settings.Validate]. The name is gobreaker's, for debugging.
//
// onChange, if not nil, is called for each change of state, in order and one at
// a time, on the goroutine that caused it or on one that is reporting already.
// No lock is held: it may call any method. It must not block.
func NewErrorRate(name string, settings Settings, onChange func(from, to State)) *ErrorRate {
	b := &ErrorRate{name: name, changes: reporter{onChange: onChange}}
	b.current.Store(b.newMachine(settings))
	return b
}

// SetSettings changes the settings, which must be valid. Equal ones change
// nothing; others start anew with a closed breaker, for which attempts under way
// do not count. A nil ErrorRate ignores it.
func (b *ErrorRate) SetSettings(settings Settings) {
	if b == nil {
		return
	}
	for {
		old := b.current.Load()
		if old.settings == settings {
			return
		}
		if b.current.CompareAndSwap(old, b.newMachine(settings)) {
			old.retire()
			b.changes.report()
			return
		}
	}
}

// State returns the state now: an open breaker whose OpenTime is over is
// half-open.
func (b *ErrorRate) State() State {
	if b == nil {
		return Closed
	}
	m := b.current.Load()
	if state := m.current.Load().state; state != Open {
		return state
	}
	state := stateOf(m.breaker.State())
	b.changes.report()
	return state
}

// Passes reports whether [ErrorRate.Allow] would admit an attempt now: a breaker that
// is half-open, and whose probes are all under way, admits none.
func (b *ErrorRate) Passes() bool {
	switch b.State() {
	case Open:
		return false
	case HalfOpen:
		m := b.current.Load()
		counts := m.breaker.Counts()
		return counts.Requests-counts.TotalExclusions < m.settings.HalfOpenProbes || m.probes.overdue(m.settings.OpenTime)
	case Closed:
	}
	return true
}

// PassesIn is after how long [ErrorRate.Passes] is worth another question: 0 if it says
// yes now. It may be earlier, when a probe ends.
func (b *ErrorRate) PassesIn() time.Duration {
	if b.Passes() {
		return 0
	}
	m := b.current.Load()
	since, ok := m.probes.oldest()
	if p := m.current.Load(); p.state == Open || !ok {
		since = p.began
	}
	// One that has been open for exactly as long is open still.
	return max(time.Until(since.Add(m.settings.OpenTime)), 0) + 1
}

// LastState returns the state that the last attempt left: an open breaker whose
// OpenTime is over is still open. Unlike State it changes nothing.
func (b *ErrorRate) LastState() State {
	if b == nil {
		return Closed
	}
	return b.current.Load().current.Load().state
}

// Allow admits an attempt or returns an error that matches [ErrOpen]. The caller
// must call [Permit.Done] of what it gets, in a defer: a probe that never ends
// keeps a place for as long as OpenTime.
func (b *ErrorRate) Allow() (Permit, error) {
	if b == nil {
		return Permit{}, nil
	}
	m := b.current.Load()
	if p := m.current.Load(); p.state == Closed {
		return Permit{machine: m, period: p}, nil
	}
	done, err := m.breaker.Allow()
	if errors.Is(err, gobreaker.ErrTooManyRequests) && m.probes.endOverdue(m.settings.OpenTime) {
		done, err = m.breaker.Allow()
	}
	b.changes.report()
	switch {
	case err == nil:
		return Permit{machine: m, probe: m.probes.add(done)}, nil
	case errors.Is(err, gobreaker.ErrOpenState):
		return Permit{}, ErrOpen
	}
	return Permit{}, errProbing
}
