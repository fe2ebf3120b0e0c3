package breaker

import (
	"slices"
	"sync"
	"time"

	"github.com/inboardmesh/inboard/outcome"
)

// Permit is the right to make one attempt past an [ErrorRate]. It must not be
// copied once it is in use. Done of the zero value does nothing.
type Permit struct {
	machine *machine
	period  *period // the closed one in which it was given, if probe is nil
	probe   *probe
}

// Done says how the attempt ended. outcome.Ignored counts neither as a success
// nor as a failure, but frees a probe's place. Only the first call counts. It
// is not safe for concurrent use.
func (p *Permit) Done(verdict outcome.Verdict) {
	m := p.machine
	if m == nil {
		return
	}
	p.machine = nil
	switch {
	case p.probe != nil:
		m.probes.end(p.probe, resultOf(verdict))
	case verdict != outcome.Ignored:
		m.count(p.period, verdict == outcome.Failure)
	}
	m.changes.report()
}

// Answered says that an attempt, which goes on, has had a good answer: the headers of
// a response whose body may take its time. A probe has shown with it what it is for.
// Done must still be called. It is not safe for concurrent use.
func (p *Permit) Answered() {
	if p.machine != nil && p.probe != nil {
		p.machine.probes.end(p.probe, nil)
		p.machine.changes.report()
	}
}

// resultOf is a verdict as gobreaker is told.
func resultOf(verdict outcome.Verdict) error {
	switch verdict {
	case outcome.Failure:
		return errFailed
	case outcome.Ignored:
		return errIgnored
	}
	return nil
}

// probe is an attempt that holds a place of a half-open breaker.
type probe struct {
	begun time.Time
	done  func(error)
}

// probes are those that hold a place, the oldest first.
type probes struct {
	mu   sync.Mutex // never held while gobreaker is called
	list []*probe   // guarded by mu
}

func (s *probes) add(done func(error)) *probe {
	p := &probe{begun: time.Now(), done: done}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = append(s.list, p)
	return p
}

// end gives the place of a probe back, once.
func (s *probes) end(p *probe, result error) {
	s.mu.Lock()
	i := slices.Index(s.list, p)
	if i >= 0 {
		s.list = slices.Delete(s.list, i, i+1)
	}
	s.mu.Unlock()
	if i >= 0 {
		p.done(result)
	}
}

// oldest is when the oldest probe began; ok is false if there is none.
func (s *probes) oldest() (begun time.Time, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.list) == 0 {
		return time.Time{}, false
	}
	return s.list[0].begun, true
}

// overdue reports whether there is a probe that [probes.endOverdue] would end.
func (s *probes) overdue(longest time.Duration) bool {
	begun, ok := s.oldest()
	return ok && time.Since(begun) >= longest
}

// endOverdue gives the places of probes back that have had one for so long, and
// reports whether there were any. They count neither as successes nor as failures: a
// slow attempt tells nothing yet.
func (s *probes) endOverdue(longest time.Duration) bool {
	now := time.Now()
	s.mu.Lock()
	n := 0
	for n < len(s.list) && now.Sub(s.list[n].begun) >= longest {
		n++
	}
	overdue := slices.Clone(s.list[:n])
	s.list = slices.Delete(s.list, 0, n)
	s.mu.Unlock()
	for _, p := range overdue {
		p.done(errIgnored)
	}
	return n > 0
}
