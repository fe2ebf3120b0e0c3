package balancer

import (
	"errors"
	"strings"
	"sync"
)

// ErrPinned is returned by Pick if the host of [PickInfo.Pinned] cannot be used,
// and [PickInfo.Strict] rules out others.
var ErrPinned = errors.New("the endpoint of the session cannot be used")

// HealthSet is a set of [Health] states. The zero value is the default where it is
// used.
type HealthSet uint8

// emptyHealthSet tells the set without states from the zero value.
const emptyHealthSet HealthSet = 1 << 7

// NewHealthSet returns the set of these states. Without any it is the empty one.
func NewHealthSet(states ...Health) HealthSet {
	s := emptyHealthSet
	for _, h := range states {
		s |= 1 << h
	}
	return s
}

// has reports whether a host of the state may be pinned.
func (s HealthSet) has(h Health) bool {
	if s == 0 {
		return h == Unknown || h == Healthy // gRFC A55
	}
	return s&(1<<h) != 0
}

// addresses finds hosts by their addresses, the additional ones too. It is made when
// it is needed for the first time, for most sets have no sessions.
type addresses struct {
	hosts  []*Host
	once   sync.Once
	byName map[string]*Host
}

// find returns the host of the first address in a list that is one's, nil without.
func (a *addresses) find(list string) *Host {
	a.once.Do(func() {
		a.byName = make(map[string]*Host, len(a.hosts))
		for _, h := range a.hosts {
			a.byName[h.Endpoint().Address] = h
			for _, address := range h.Endpoint().Additional {
				if _, ok := a.byName[address]; !ok {
					a.byName[address] = h
				}
			}
		}
	})
	for address := range strings.SplitSeq(list, ",") {
		if h := a.byName[address]; h != nil {
			return h
		}
	}
	return nil
}

// addressesLocked returns the index of the hosts. Once a call has asked for a
// pinned host, it is made here, and not by the next call.
func (s *Set) addressesLocked(hosts []*Host) *addresses {
	if previous := s.snapshot.Load(); previous != nil && len(hosts) > 0 && len(hosts) == len(previous.hosts) && &hosts[0] == &previous.hosts[0] {
		return previous.addresses
	}
	a := &addresses{hosts: hosts}
	if s.pinning.Load() {
		a.find("")
	}
	return a
}

// pinned returns the host that a pick is pinned to, nil if it cannot be used. It is
// one of the set, whatever the address: nothing else can be reached by it. It is also
// of the subset that the call asks for, other than in Envoy: who may be called is for
// the route to say, and not for the caller, who brings the address.
func (s *Set) pinned(snapshot *snapshot, info *PickInfo) *Host {
	if !s.pinning.Load() {
		s.pinning.Store(true)
	}
	h := snapshot.addresses.find(info.Pinned)
	if h == nil || !snapshot.pinnable.has(h.status()) || snapshot.subsets != nil && !snapshot.subsets.holds(h, info.Match) {
		return nil
	}
	// Strictly, an attempt that follows another one has no choice either.
	if info.Strict && h.Reachable() || h.usable(info) {
		return h
	}
	return nil
}

// Holds reports whether the set has a host with the address, or with one of several
// between commas, whatever its health.
func (s *Set) Holds(address string) bool {
	if !s.pinning.Load() {
		s.pinning.Store(true)
	}
	return s.snapshot.Load().addresses.find(address) != nil
}

// Pins reports whether a pick would find the host that it is pinned to.
func (s *Set) Pins(info PickInfo) bool {
	return info.Pinned != "" && s.pinned(s.snapshot.Load(), &info) != nil
}

// status is what is known of the host's health from all sides.
func (h *Host) status() Health {
	checked := h.Check().class()
	switch health := h.Endpoint().Health; {
	case !h.inService() || checked == allHosts:
		return Unhealthy
	case checked == degradedHosts && h.Endpoint().fit():
		return Degraded
	default:
		return health
	}
}
