package breaker

import "github.com/inboardmesh/inboard/outcome"

// Permit is the right to make one attempt past an [ErrorRate]. It must not be
// copied once it is in use. Done of the zero value does nothing.
type Permit struct {
	owner   *ErrorRate
	machine *machine
	mark    mark        // of the closed state, if probe is nil
	probe   func(error) // ends a probe
}

// Done says how the attempt ended. outcome.Ignored counts neither as a success
// nor as a failure, but frees a probe's place. Only the first call counts. It
// is not safe for concurrent use.
func (p *Permit) Done(verdict outcome.Verdict) {
	owner := p.owner
	if owner == nil {
		return
	}
	p.owner = nil
	var result error
	switch verdict {
	case outcome.Failure:
		result = errFailed
	case outcome.Ignored:
		result = errIgnored
	}
	switch {
	case p.probe != nil:
		p.probe(result)
	case verdict != outcome.Ignored:
		p.machine.count(p.mark, result)
	}
	owner.changes.report()
}
