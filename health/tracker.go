package health

// Result is how a check ended.
type Result uint8

const (
	// Success means that the endpoint is well.
	Success Result = iota
	// Degraded is a success of an endpoint that wants less traffic.
	Degraded
	// Failure means that the endpoint says that it is not well.
	Failure
	// Retriable is a failure that counts towards the threshold.
	Retriable
	// Unreachable means that there was no answer: it could not be connected to,
	// the connection broke, or time ran out. It counts towards the threshold.
	Unreachable
)

var resultNames = [...]string{"success", "degraded", "failure", "retriable", "unreachable"}

// String returns the name used in logs and metric labels.
func (r Result) String() string {
	if int(r) < len(resultNames) {
		return resultNames[r]
	}
	return "unknown"
}

// State is what is known of an endpoint.
type State uint8

const (
	// Unknown means that no check has ended.
	Unknown State = iota
	// Healthy endpoints are used.
	Healthy
	// Reduced endpoints are well, and used if the healthy ones do not suffice.
	Reduced
	// Unhealthy endpoints are not used.
	Unhealthy
)

// Change is what a check changed.
type Change struct {
	// Success is whether the check was a success.
	Success bool
	// Changed is whether the state is another one now.
	Changed bool
	// Pending is whether it would be after more such results.
	Pending bool
}

// Tracker follows one endpoint, as Envoy does: the first result decides at once,
// later ones when there were as many in a row as the thresholds say. A failure that
// the endpoint itself tells of always decides. The zero value has heard nothing. It
// is not safe for concurrent use.
type Tracker struct {
	state State
	// heard is whether a check has ended.
	heard bool
	// row counts results in a row that are not those of the state.
	row uint32
	// excluded is set by Exclude.
	excluded bool
}

// State is what is known of the endpoint now.
func (t *Tracker) State() State { return t.state }

// Excluded reports whether the endpoint asked to be left out of every calculation.
func (t *Tracker) Excluded() bool { return t.excluded }

// Heard reports whether a check has ended.
func (t *Tracker) Heard() bool { return t.heard }

// Start sets the state of an endpoint that has not been checked: Unhealthy keeps it
// from being used until it has passed a check.
func (t *Tracker) Start(s State) { t.state = s }

// Exclude makes the endpoint unhealthy at once: it said so itself, in the answer to
// a call or to a check (x-envoy-immediate-health-check-fail). It reports whether
// that changed anything.
func (t *Tracker) Exclude() bool {
	if t.excluded && t.state == Unhealthy {
		return false
	}
	t.state, t.row, t.excluded = Unhealthy, 0, true
	return true
}

// Done tells how a check ended.
func (t *Tracker) Done(c *Config, r Result) Change {
	first := !t.heard
	t.heard = true
	if r == Success || r == Degraded {
		return t.succeeded(c, r, first)
	}
	change := Change{}
	if t.state == Unhealthy {
		t.row = 0
		return change
	}
	t.row++
	if r != Failure && !first && t.row < max(c.UnhealthyThreshold, 1) {
		change.Pending = true
		return change
	}
	t.state, t.row = Unhealthy, 0
	change.Changed = true
	return change
}

func (t *Tracker) succeeded(c *Config, r Result, first bool) Change {
	change := Change{Success: true}
	next := Healthy
	if r == Degraded {
		next = Reduced
	}
	if t.state == Unhealthy && !first {
		t.row++
		if t.row < max(c.HealthyThreshold, 1) {
			change.Pending = true
			return change
		}
	}
	change.Changed = t.state != next
	t.state, t.row, t.excluded = next, 0, false
	return change
}
