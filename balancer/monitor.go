package balancer

import (
	"sync/atomic"
	"time"

	"github.com/inboardmesh/inboard/outcome"
)

// origin is where a failure comes from.
type origin uint8

const (
	externalOrigin origin = iota
	localOrigin
	origins
)

// tally counts what was reported. It only grows: a sweep looks at the difference,
// so that nothing is lost between reading and resetting.
type tally struct{ successes, failures atomic.Uint64 }

// totals is a tally at one time, or the difference of two.
type totals struct{ successes, failures uint64 }

func (t totals) volume() uint64 { return t.successes + t.failures }

// successRate is in percent. The volume must not be 0.
func (t totals) successRate() float64 { return 100 * float64(t.successes) / float64(t.volume()) }

// monitor is what outlier detection knows about one host. There is one only while
// the set has a policy.
type monitor struct {
	// The calls' part: counted without a lock.
	tallies     [origins]tally
	consecutive [3]atomic.Uint32 // by the OutlierReason of the three detectors
	ejected     atomic.Bool      // changed under Set.mu
	reason      atomic.Uint32    // of the latest ejection; changed under Set.mu

	// The rest is guarded by Set.mu.

	// since is when the latest ejection began, jitter what is added to its time.
	since  time.Time
	jitter time.Duration
	// times is how often the host was ejected, less the sweeps in service.
	times uint32
	// gone is true once the host has left the set.
	gone bool
	// swept is the tallies at the latest sweep, recent what was added to them in
	// the interval before it.
	swept, recent [origins]totals
}

// Report tells outlier detection how an attempt on the host ended. It costs an
// atomic addition, or two, and neither locks nor allocates, until a host is to be
// ejected. If this report ejected the host, ok is true and e says why.
//
// An outcome that the verdict ignores is not counted, and neither is a timeout
// before anything was sent: the time went into waiting for a connection. One that
// cannot be made is reported as such, once, by who tried to make it.
func (h *Host) Report(o *outcome.Outcome) (e Ejection, ok bool) {
	config, m := h.set.outlier.Load(), h.monitor.Load()
	if config == nil || m == nil {
		return Ejection{}, false
	}
	switch o.Verdict() {
	case outcome.Success:
		m.succeeded(config)
		return Ejection{}, false
	case outcome.Failure:
		if (o.Kind == outcome.Timeout || o.Kind == outcome.PerTryTimeout) && !o.Sent {
			return Ejection{}, false
		}
		over := m.failed(config, o)
		if m.ejected.Load() {
			return Ejection{}, false // a panic, or a call from before: nothing to lock for
		}
		for reason := OutlierReason(0); over != 0; reason, over = reason+1, over>>1 {
			if over&1 == 0 {
				continue
			}
			if e, ok := h.set.eject(h, m, reason); ok {
				return e, true
			}
		}
	case outcome.Ignored:
	}
	return Ejection{}, false
}

func (m *monitor) succeeded(config *OutlierConfig) {
	m.tallies[externalOrigin].successes.Add(1)
	m.endRow(Consecutive5xxFailures)
	m.endRow(ConsecutiveGatewayFailures)
	if config.SplitLocalOrigin {
		m.answered()
	}
}

// answered counts a response, which is a success of local origin whatever it says.
func (m *monitor) answered() {
	m.tallies[localOrigin].successes.Add(1)
	m.endRow(ConsecutiveLocalFailures)
}

// endRow ends a row of failures. It writes only if there is one: most calls
// succeed, and a write takes the cache line from others.
func (m *monitor) endRow(reason OutlierReason) {
	if row := &m.consecutive[reason]; row.Load() != 0 {
		row.Store(0)
	}
}

// failed counts a failure. The result has the bit of each detector of failures in a
// row that has had enough.
func (m *monitor) failed(config *OutlierConfig, o *outcome.Outcome) (over uint8) {
	if config.SplitLocalOrigin {
		if o.Kind != outcome.Response {
			m.tallies[localOrigin].failures.Add(1)
			return m.another(ConsecutiveLocalFailures, config.ConsecutiveLocal)
		}
		m.answered()
	}
	m.tallies[externalOrigin].failures.Add(1)
	if o.Gateway() {
		over = m.another(ConsecutiveGatewayFailures, config.ConsecutiveGateway)
	} else {
		m.endRow(ConsecutiveGatewayFailures)
	}
	return over | m.another(Consecutive5xxFailures, config.Consecutive5xx)
}

// another adds to a row of failures. The result has the detector's bit if that is
// enough.
func (m *monitor) another(reason OutlierReason, c ConsecutiveFailures) uint8 {
	if m.consecutive[reason].Add(1) >= c.Threshold && c.enforced() {
		return 1 << reason
	}
	return 0
}

// Ejected reports whether outlier detection leaves the host out, and why. For a host
// that has left its set, it is whether that was so when it left.
func (h *Host) Ejected() (OutlierReason, bool) {
	m := h.monitor.Load()
	if m == nil || !m.ejected.Load() {
		return 0, false
	}
	return OutlierReason(m.reason.Load()), true
}

// inService is what a snapshot asks.
func (h *Host) inService() bool {
	m := h.monitor.Load()
	return m == nil || !m.ejected.Load()
}
