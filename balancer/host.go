package balancer

import "sync/atomic"

// Host is one endpoint at run time. It lives as long as its address is in the
// cluster, through every update, and keeps its counters meanwhile. A Set makes
// it; all methods are safe for concurrent use.
type Host struct {
	// The fields up to seen fit into one cache line, which picks read and calls
	// write.
	active      atomic.Int64
	unreachable atomic.Bool
	position    uint32 // in the order of the latest update; belongs to Set.Update
	config      atomic.Pointer[hostConfig]
	monitor     atomic.Pointer[monitor] // nil without outlier detection
	set         *Set
	attached    atomic.Pointer[attachment]
	seen        uint32        // number of the latest update with it; belongs to Set.Update
	check       atomic.Uint32 // a Check; changed under Set.mu

	// The rest is for the policies that look at it.

	began   atomic.Int64 // when it was new, since the set's epoch
	open    atomic.Int64 // connections
	latency latency
	load    reported
}

type attachment struct{ value any }

type hostConfig struct {
	endpoint *Endpoint
	locality *Locality
	priority uint32
	was      uint32    // the host's position in the update before, from 1; 0 if it is new
	standing *standing // nil without Config.Failover
}

// Endpoint returns the current configuration, which must not be changed. After
// the host has left its cluster it is the last one.
func (h *Host) Endpoint() *Endpoint { return h.config.Load().endpoint }

// Locality returns where the endpoint runs.
func (h *Host) Locality() Locality { return *h.config.Load().locality }

// Priority returns the priority of the endpoint's locality.
func (h *Host) Priority() uint32 { return h.config.Load().priority }

// Attached returns what the attach function of [NewSet] returned for this host, or
// what [Host.Attach] has attached since; nil if that is nothing yet.
func (h *Host) Attached() any {
	if a := h.attached.Load(); a != nil {
		return a.value
	}
	return nil
}

// Attach attaches a value to a host that has none, and returns what is attached then:
// of several callers at once one wins. It is for what only hosts that get calls need.
func (h *Host) Attach(value any) any {
	h.attached.CompareAndSwap(nil, &attachment{value})
	return h.Attached()
}

// Active returns how many requests are in flight.
func (h *Host) Active() int64 { return h.active.Load() }

// Begin counts a request in flight. It is followed by exactly one [Host.End].
func (h *Host) Begin() { h.active.Add(1) }

// End takes back a [Host.Begin]. Without one it panics: a wrong count would keep
// traffic away, or attract it, for ever.
func (h *Host) End() {
	if h.active.Add(-1) < 0 {
		panic("balancer: Host.End without Begin") //nolint:forbidigo // misuse by the caller, which no input can cause
	}
}

// Reachable reports what SetReachable said last. A new host is reachable.
func (h *Host) Reachable() bool { return !h.unreachable.Load() }

// SetReachable tells that connecting failed and its back-off runs (false), or
// that it is worth trying again (true). Picks prefer reachable hosts and use
// others only if there is nothing else.
func (h *Host) SetReachable(reachable bool) {
	// The counter must move after the flag, see search.in.
	if h.unreachable.Swap(!reachable) == reachable && reachable {
		h.set.revivals.Add(1)
	}
}

// usable reports whether a pick may take the host without looking further.
func (h *Host) usable(info *PickInfo) bool {
	return h.Reachable() && !info.refuses(h) && !info.avoids(h)
}
