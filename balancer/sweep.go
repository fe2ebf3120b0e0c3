package balancer

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// Sweep ends an interval of outlier detection: hosts whose time is over return,
// and the detectors by rate look at what was reported since the last sweep. It
// returns what changed. It costs time in proportion to the number of hosts; picks
// do not wait for it. Without a policy it does nothing.
//
// A host that returns is not judged by its interval, most of which it was not in
// service; it starts anew.
func (s *Set) Sweep() []Ejection {
	s.mu.Lock()
	defer s.mu.Unlock()
	config := s.outlier.Load()
	if config == nil {
		return nil
	}
	w := sweep{set: s, config: config, now: time.Now()}
	hosts := s.snapshot.Load().hosts
	for _, h := range hosts {
		m := h.monitor.Load()
		m.roll()
		switch {
		case !m.ejected.Load():
			w.hosts = append(w.hosts, h)
		case w.now.Sub(m.since) >= config.ejectionTime(m.times)+m.jitter:
			w.giveBack(h, m)
		}
	}
	w.judge(externalOrigin)
	if config.SplitLocalOrigin {
		w.judge(localOrigin)
	}
	for _, h := range w.hosts {
		if m := h.monitor.Load(); m.times > 0 && !m.ejected.Load() {
			m.times--
		}
	}
	if s.stale {
		s.rebuildLocked(hosts)
	}
	return w.changes
}

// roll begins a new interval.
func (m *monitor) roll() {
	for i := range m.tallies {
		now := totals{successes: m.tallies[i].successes.Load(), failures: m.tallies[i].failures.Load()}
		m.recent[i] = totals{successes: now.successes - m.swept[i].successes, failures: now.failures - m.swept[i].failures}
		m.swept[i] = now
	}
}

// sweep is one sweep. Set.mu is held.
type sweep struct {
	set    *Set
	config *OutlierConfig
	now    time.Time
	// hosts were in service during the interval.
	hosts   []*Host
	changes []Ejection
}

// giveBack returns a host to service.
func (w *sweep) giveBack(h *Host, m *monitor) {
	w.set.returnLocked(m)
	w.changes = append(w.changes, Ejection{Host: h, Returned: true, Reason: OutlierReason(m.reason.Load())})
}

// suspect is a host with enough calls to be judged.
type suspect struct {
	host *Host
	rate float64 // of successes, in percent
}

// judge runs the detectors by rate on one kind of failures.
func (w *sweep) judge(o origin) {
	rates, failures := w.config.SuccessRate, w.config.FailurePercentage
	rateReason, failureReason := LowSuccessRate, HighFailurePercentage
	rateEnforcing, failureEnforcing := rates.Enforcing, failures.Enforcing
	if o == localOrigin {
		rateReason, failureReason = LowSuccessRateLocal, HighFailurePercentageLocal
		rateEnforcing, failureEnforcing = rates.EnforcingLocal, failures.EnforcingLocal
	}
	if rateEnforcing > 0 {
		if suspects := w.suspects(o, rates.RequestVolume, rates.MinimumHosts); suspects != nil {
			limit := successRateLimit(suspects, float64(rates.StdevFactor)/1000)
			w.ejectWhere(suspects, rateReason, rateEnforcing, func(rate float64) bool { return rate < limit })
		}
	}
	if failureEnforcing > 0 {
		if suspects := w.suspects(o, failures.RequestVolume, failures.MinimumHosts); suspects != nil {
			limit := float64(failures.Threshold)
			w.ejectWhere(suspects, failureReason, failureEnforcing, func(rate float64) bool { return 100-rate >= limit })
		}
	}
}

// suspects returns the hosts with that many calls, the worst first, if there are
// that many hosts.
func (w *sweep) suspects(o origin, volume, hosts uint32) []suspect {
	var list []suspect
	for _, h := range w.hosts {
		m := h.monitor.Load()
		if recent := m.recent[o]; recent.volume() >= max(uint64(volume), 1) && !m.ejected.Load() {
			list = append(list, suspect{host: h, rate: recent.successRate()})
		}
	}
	if uint64(len(list)) < uint64(hosts) {
		return nil
	}
	slices.SortStableFunc(list, func(a, b suspect) int { return cmp.Compare(a.rate, b.rate) })
	return list
}

// successRateLimit is the rate below which a host is an outlier: the mean less
// factor standard deviations.
func successRateLimit(suspects []suspect, factor float64) float64 {
	// Equal rates must not differ from their mean by rounding.
	const rounding = 1e-9
	var sum, squares float64
	for _, s := range suspects {
		sum += s.rate
	}
	mean := sum / float64(len(suspects))
	for _, s := range suspects {
		squares += (s.rate - mean) * (s.rate - mean)
	}
	return mean - factor*math.Sqrt(squares/float64(len(suspects))) - rounding
}

// ejectWhere ejects the outliers. With the worst first, it is not them who stay
// when no more may be ejected.
func (w *sweep) ejectWhere(suspects []suspect, reason OutlierReason, enforcing uint32, outlier func(rate float64) bool) {
	for _, s := range suspects {
		if !outlier(s.rate) {
			return
		}
		m := s.host.monitor.Load()
		if w.set.ejectLocked(w.config, m, reason, enforcing, w.now) {
			w.changes = append(w.changes, Ejection{Host: s.host, Reason: reason})
		}
	}
}
