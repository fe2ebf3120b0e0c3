package breaker

import (
	"sync"
	"sync/atomic"
)

// reporter calls a function for each change of state. Changes are added under
// whatever lock and reported without one, in the order in which they were added.
type reporter struct {
	onChange func(from, to State)

	waiting   atomic.Bool // changes may be non-empty; spares report the lock
	mu        sync.Mutex
	changes   []change // guarded by mu
	reporting bool     // guarded by mu
}

type change struct{ from, to State }

func (r *reporter) add(from, to State) {
	if r.onChange == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.changes = append(r.changes, change{from, to})
	r.waiting.Store(true)
}

// report reports what was added. If that is being done already, by another
// goroutine or by a caller of this one, it leaves it to that.
func (r *reporter) report() {
	if !r.waiting.Load() || !r.begin() {
		return
	}
	done := false
	defer func() {
		if !done { // onChange panicked or ended the goroutine
			r.abandon()
		}
	}()
	for {
		c, ok := r.next()
		if !ok {
			done = true
			return
		}
		r.onChange(c.from, c.to)
	}
}

func (r *reporter) begin() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.reporting || len(r.changes) == 0 {
		return false
	}
	r.reporting = true
	return true
}

// next takes a change. Without one it ends the reporting under the same lock, so
// that a change which is added next finds nobody reporting.
func (r *reporter) next() (change, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.changes) == 0 {
		r.reporting = false
		r.waiting.Store(false)
		return change{}, false
	}
	c := r.changes[0]
	r.changes = r.changes[1:]
	return c, true
}

// abandon leaves the other changes to the next call of report.
func (r *reporter) abandon() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reporting = false
}
