package breaker

import "github.com/inboardmesh/inboard/outcome"

// Permit is the right to make one attempt past an [ErrorRate]. It must not be
// copied once it is in use. Done of the zero value does nothing.
type Permit struct {
	machine *machine
	period  *period     // the closed one in which it was given, if probe is nil
	probe   func(error) // ends a probe
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
		p.probe(resultOf(verdict))
	case verdict != outcome.Ignored:
		m.count(p.period, verdict == outcome.Failure)
	}
	m.changes.report()
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
