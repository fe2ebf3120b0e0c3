package breaker

import (
	"errors"
	"sync"
	"sync/atomic"

	"github.com/sony/gobreaker/v2"
)

// machine is one gobreaker with the settings that it was made from. gobreaker
// files a result under the time when the attempt began, and drops it if that has
// left the window: failures that take longer than the window, which are those of
// a cluster that hangs, would never count. So a closed machine is asked when an
// attempt ends, not when it begins, and only probes hold a place meanwhile.
type machine struct {
	settings Settings
	breaker  *gobreaker.TwoStepCircuitBreaker[struct{}]
	changes  *reporter
	// stamp is the current mark. gobreaker's lock is held when it changes.
	stamp atomic.Uint64

	mu      sync.Mutex // taken inside gobreaker's lock, never around it
	retired bool       // guarded by mu: changes are nobody's business any more
}

// mark is a state and how many changes led to it.
type mark uint64

func (m mark) state() State { return State(m & 3) }

func (m mark) next(s State) mark { return (m>>2+1)<<2 | mark(s) }

// windowSteps is how many steps the window rolls in.
const windowSteps = 10

var (
	errFailed  = errors.New("attempt failed")
	errIgnored = errors.New("attempt ignored")
)

func (b *ErrorRate) newMachine(settings Settings) *machine {
	m := &machine{settings: settings, changes: &b.changes}
	m.breaker = gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		Name:        b.name,
		MaxRequests: settings.HalfOpenProbes,
		Interval:    settings.Window,
		// Rounded up, since gobreaker rounds Interval up to a multiple of it.
		BucketPeriod:  (settings.Window-1)/windowSteps + 1,
		Timeout:       settings.OpenTime,
		ReadyToTrip:   settings.tripped,
		OnStateChange: m.changed,
		IsExcluded:    func(err error) bool { return errors.Is(err, errIgnored) },
	})
	return m
}

// tripped decides whether the counts open the breaker. It divides, because the
// quotient of two counts is the float64 that was written as the ratio, which a
// product need not be.
func (s Settings) tripped(c gobreaker.Counts) bool {
	ended := c.TotalSuccesses + c.TotalFailures
	return ended >= s.MinRequests && float64(c.TotalFailures)/float64(ended) >= s.FailureRatio
}

func (m *machine) mark() mark { return mark(m.stamp.Load()) }

// changed is called by gobreaker, under its lock.
func (m *machine) changed(_ string, _, to gobreaker.State) {
	m.mu.Lock()
	defer m.mu.Unlock()
	from := m.mark()
	m.stamp.Store(uint64(from.next(stateOf(to))))
	if !m.retired {
		m.changes.add(from.state(), stateOf(to))
	}
}

// retire makes the machine silent. Its successor is closed.
func (m *machine) retire() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.retired = true
	if state := m.mark().state(); state != Closed {
		m.changes.add(state, Closed)
	}
}

// count adds the result of an attempt that was admitted at a closed mark.
func (m *machine) count(admitted mark, result error) {
	if m.mark() != admitted {
		return
	}
	done, err := m.breaker.Allow()
	if err != nil {
		return
	}
	if m.mark() != admitted {
		// It opened between the two lines above: done holds a probe's place.
		result = errIgnored
	}
	done(result)
}

func stateOf(s gobreaker.State) State {
	switch s {
	case gobreaker.StateHalfOpen:
		return HalfOpen
	case gobreaker.StateOpen:
		return Open
	}
	return Closed
}
