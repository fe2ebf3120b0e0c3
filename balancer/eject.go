package balancer

import "time"

// SetOutlier sets the policy of outlier detection, which must not be changed any
// more. Ejections, and what was counted, are kept from one policy to the next;
// without a policy, or with one that cannot eject anybody, all hosts return and
// everything is forgotten (gRFC A50). The hosts that returned are returned.
//
// Safe for concurrent use, like Sweep and [Host.Report].
func (s *Set) SetOutlier(config *OutlierConfig) []Ejection {
	if !config.Ejects() {
		config = nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.outlier.Swap(config)
	if (old == nil) == (config == nil) {
		return nil
	}
	var returned []Ejection
	hosts := s.snapshot.Load().hosts
	for _, h := range hosts {
		if config != nil {
			h.monitor.Store(new(monitor))
			continue
		}
		if m := h.monitor.Swap(nil); m.ejected.Load() {
			returned = append(returned, Ejection{Host: h, Returned: true, Reason: OutlierReason(m.reason.Load())})
		}
	}
	s.ejected = 0
	if returned != nil {
		s.rebuildLocked(hosts)
	}
	return returned
}

// eject ejects a host that failed too often in a row, if that is allowed.
func (s *Set) eject(h *Host, m *monitor, reason OutlierReason) (Ejection, bool) {
	if !s.mark(h, m, reason) {
		return Ejection{}, false
	}
	// Of many hosts that are ejected at once, the first to get the lock makes the
	// new snapshot for all.
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stale {
		s.rebuildLocked(s.snapshot.Load().hosts)
	}
	return Ejection{Host: h, Reason: reason}, true
}

// mark decides about a host that failed too often in a row, and ends the row.
func (s *Set) mark(h *Host, m *monitor, reason OutlierReason) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	config := s.outlier.Load()
	if config == nil || m.gone || h.monitor.Load() != m || m.ejected.Load() {
		return false
	}
	limit := config.consecutive(reason)
	if m.consecutive[reason].Load() < limit.Threshold {
		return false // somebody else has decided about this row
	}
	m.consecutive[reason].Store(0)
	return s.ejectLocked(config, m, reason, limit.Enforcing, time.Now())
}

// consecutive is the configuration of one of the detectors of failures in a row.
func (c *OutlierConfig) consecutive(reason OutlierReason) ConsecutiveFailures {
	switch reason {
	case ConsecutiveGatewayFailures:
		return c.ConsecutiveGateway
	case ConsecutiveLocalFailures:
		return c.ConsecutiveLocal
	}
	return c.Consecutive5xx
}

// ejectLocked ejects a host in enforcing percent of the cases, if not too many are
// ejected already. The snapshot is stale then.
func (s *Set) ejectLocked(config *OutlierConfig, m *monitor, reason OutlierReason, enforcing uint32, now time.Time) bool {
	if m.ejected.Load() || !s.mayEjectLocked(config) || uint32(below(high(s.random()), 100)) >= enforcing {
		return false
	}
	m.since, m.jitter = now, 0
	m.reason.Store(uint32(reason))
	if config.EjectionJitter > 0 {
		m.jitter = time.Duration(s.random() % (uint64(config.EjectionJitter) + 1))
	}
	// Counting beyond the longest time would only delay the way back.
	if longest := max(config.MaxEjectionTime, config.BaseEjectionTime); config.ejectionTime(m.times) < longest {
		m.times++
	}
	m.ejected.Store(true)
	s.ejected++
	s.stale = true
	return true
}

// mayEjectLocked reports whether one more host may be ejected. The percentage
// rounds down; one may always be if another is left, for else nobody could in a
// small cluster.
func (s *Set) mayEjectLocked(config *OutlierConfig) bool {
	hosts := s.snapshot.Load().hosts
	if 100*(s.ejected+1) <= len(hosts)*int(config.MaxEjectionPercent) {
		return true
	}
	return s.ejected == 0 && (config.AlwaysEjectOneHost || config.MaxEjectionPercent > 0 && severalServe(hosts))
}

// severalServe reports whether at least two hosts are fit to be picked.
func severalServe(hosts []*Host) bool {
	serving := 0
	for _, h := range hosts {
		if h.in(healthyHosts) || h.in(degradedHosts) {
			if serving++; serving > 1 {
				return true
			}
		}
	}
	return false
}
