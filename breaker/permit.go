package breaker

import (
	"sync/atomic"

	"github.com/inboardmesh/inboard/outcome"
)

// Permit is the right to make one attempt past an [ErrorRate]. Copies are the
// same permit. Done of the zero value does nothing.
type Permit struct{ admission *admission }

type admission struct {
	owner   *ErrorRate
	machine *machine
	mark    mark        // of the closed state, if probe is nil
	probe   func(error) // ends a probe
	ended   atomic.Bool
}

// Done says how the attempt ended. outcome.Ignored counts neither as a success
// nor as a failure, but frees a probe's place. Only the first call counts.
func (p Permit) Done(verdict outcome.Verdict) {
	a := p.admission
	if a == nil || !a.ended.CompareAndSwap(false, true) {
		return
	}
	var result error
	switch verdict {
	case outcome.Failure:
		result = errFailed
	case outcome.Ignored:
		result = errIgnored
	}
	switch {
	case a.probe != nil:
		a.probe(result)
	case verdict != outcome.Ignored:
		a.machine.count(a.mark, result)
	}
	a.owner.changes.report()
}
