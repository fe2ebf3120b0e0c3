package breaker

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"
)

// machine is one gobreaker with the settings that it was made from. gobreaker
// owns the states, the probes and the time between them. It does not count the
// window, for two reasons. It files a result under the time when the attempt
// began, and drops it if that has left the window: failures that take longer than
// the window, which are those of a cluster that hangs, would never count. And it
// takes its lock twice for each result, while only a failure can change the
// state. So a closed machine counts results when attempts end, and hands only the
// failures to gobreaker, which asks back whether they are too many.
type machine struct {
	settings Settings
	breaker  *gobreaker.TwoStepCircuitBreaker[struct{}]
	changes  *reporter
	probes   probes
	// current is the period under way. gobreaker's lock is held when it changes.
	current atomic.Pointer[period]

	mu      sync.Mutex // taken inside gobreaker's lock, never around it
	retired bool       // guarded by mu: changes are nobody's business any more
}

// period is the time between two changes of state. Each is a new one, so that a
// result finds out that it belongs to an earlier one.
type period struct {
	state State
	began time.Time
	// recent is what ended lately; nil unless state is Closed.
	recent *window
}

var (
	errFailed  = errors.New("attempt failed")
	errIgnored = errors.New("attempt ignored")
)

func (b *ErrorRate) newMachine(settings Settings) *machine {
	m := &machine{settings: settings, changes: &b.changes}
	m.current.Store(m.newPeriod(Closed))
	m.breaker = gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		Name:          b.name,
		MaxRequests:   settings.HalfOpenProbes,
		Timeout:       settings.OpenTime,
		ReadyToTrip:   m.tripped,
		OnStateChange: m.changed,
		IsExcluded:    func(err error) bool { return errors.Is(err, errIgnored) },
	})
	return m
}

func (m *machine) newPeriod(state State) *period {
	if state != Closed {
		return &period{state: state, began: time.Now()}
	}
	return &period{state: state, began: time.Now(), recent: newWindow(m.settings.Window)}
}

// tripped decides whether a failure, which has been counted, opens the breaker.
// gobreaker calls it, with counts that are not of the window. It divides, because
// the quotient of two counts is the float64 that was written as the ratio, which
// a product need not be.
func (m *machine) tripped(gobreaker.Counts) bool {
	successes, failures := m.current.Load().recent.counts()
	ended := successes + failures
	return ended >= uint64(m.settings.MinRequests) && float64(failures)/float64(ended) >= m.settings.FailureRatio
}

// changed is called by gobreaker, under its lock.
func (m *machine) changed(_ string, _, to gobreaker.State) {
	m.mu.Lock()
	defer m.mu.Unlock()
	from := m.current.Load().state
	m.current.Store(m.newPeriod(stateOf(to)))
	if !m.retired {
		m.changes.add(from, stateOf(to))
	}
}

// retire makes the machine silent. Its successor is closed.
func (m *machine) retire() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.retired = true
	if state := m.current.Load().state; state != Closed {
		m.changes.add(state, Closed)
	}
}

// count adds the result of an attempt that was admitted in a closed period.
func (m *machine) count(admitted *period, failed bool) {
	if m.current.Load() != admitted {
		return
	}
	admitted.recent.add(failed)
	if !failed {
		return
	}
	done, err := m.breaker.Allow()
	if err != nil {
		return
	}
	result := errFailed
	if m.current.Load() != admitted {
		// It opened since it was looked at: done holds a probe's place.
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
