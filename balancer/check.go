package balancer

import "time"

// Check is what active health checks say of a host, beside what the control plane
// says.
type Check uint8

const (
	// NotChecked hosts count as passing.
	NotChecked Check = iota
	// Passing hosts are used.
	Passing
	// PassingDegraded hosts are used when the others do not suffice.
	PassingDegraded
	// Failing hosts are not used, unless their priority is in panic.
	Failing
	// Excluded hosts are Failing, and count as if they were not there when it is
	// calculated how much of a priority is available.
	Excluded
)

// InitCheck sets what is known of a host before it can be picked: it may be called
// by the attach function of [NewSet] only.
func (h *Host) InitCheck(c Check) { h.check.Store(uint32(c)) }

// Check returns what active health checks say of the host.
func (h *Host) Check() Check { return Check(h.check.Load()) }

// SetCheck takes over what active health checks say of a host of the set. Picks
// follow at once. It costs time in proportion to the number of hosts if that
// changes something; many changes at once cost that only once. Safe for concurrent
// use.
func (s *Set) SetCheck(h *Host, c Check) {
	if !s.markCheck(h, c) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stale {
		s.rebuildLocked(s.snapshot.Load().hosts)
	}
}

func (s *Set) markCheck(h *Host, c Check) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := Check(h.check.Swap(uint32(c)))
	if old == c || old.class() == c.class() && c != Excluded && old != Excluded {
		return false
	}
	if old.class() == allHosts {
		h.began.Store(int64(time.Since(s.epoch))) // back in service: slow start begins anew
	}
	h.beginLocked(time.Since(s.epoch))
	s.stale = true
	return true
}

// class is the class of hosts that are otherwise healthy.
func (c Check) class() class {
	switch c {
	case PassingDegraded:
		return degradedHosts
	case Failing, Excluded:
		return allHosts
	}
	return healthyHosts
}

// Recovered tells that an active health check of the host was a success. If outlier
// detection has ejected the host, and its policy lets a check decide, it is in
// service again: ok is true then.
func (s *Set) Recovered(h *Host) (e Ejection, ok bool) {
	if m := h.monitor.Load(); m == nil || !m.ejected.Load() {
		return Ejection{}, false // without the lock, as for most checks
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	config, m := s.outlier.Load(), h.monitor.Load()
	if config == nil || !config.UnejectOnCheck || m == nil || m.gone || !m.ejected.Load() {
		return Ejection{}, false
	}
	s.returnLocked(m)
	s.rebuildLocked(s.snapshot.Load().hosts)
	return Ejection{Host: h, Returned: true, Reason: OutlierReason(m.reason.Load())}, true
}

// returnLocked returns a host to service. Rows of failures begin anew, so that a few
// of them do not eject it again at once.
func (s *Set) returnLocked(m *monitor) {
	for i := range m.consecutive {
		m.consecutive[i].Store(0)
	}
	m.ejected.Store(false)
	s.ejected--
	s.stale = true
}
