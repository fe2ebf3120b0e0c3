package balancer

import (
	"errors"
	"slices"
	"sync/atomic"
	"time"
)

var (
	// ErrNoEndpoint is returned by Pick if the cluster has no endpoint at all.
	ErrNoEndpoint = errors.New("no endpoint in the cluster")
	// ErrNoHealthyEndpoint is returned by Pick if the cluster has endpoints, but
	// none may be used: all are unhealthy and there is no panic mode, or no
	// locality has a weight.
	ErrNoHealthyEndpoint = errors.New("no healthy endpoint in the cluster")
	// ErrPanic is returned by Pick if too few endpoints are healthy and
	// [Config.FailOnPanic] says that then nothing is to be sent to the others.
	ErrPanic = errors.New("too few healthy endpoints in the cluster")
)

// PickInfo is what a pick depends on besides the set. The zero value is right
// for a first attempt.
type PickInfo struct {
	// Avoid is the hosts tried before. They are not picked again while another
	// reachable host gets traffic. It should be short; Pick does not keep it.
	Avoid []*Host
	// Omit, if not nil, names further hosts to avoid. It must be quick and not
	// block.
	Omit func(*Host) bool
	// Refuses, if not nil, names hosts that would refuse what is sent to them. They
	// are passed over like unreachable ones: whatever else there is goes before them.
	// It must be quick and not block.
	Refuses func(*Host) bool
	// AvoidPriorities is the priorities that are avoided as the hosts of Avoid
	// are: others step in although they would get no traffic.
	AvoidPriorities []uint32
	// Beyond says that hosts of Avoid could not be connected to: priorities that get
	// no traffic step in before one of them is picked again, reachable or not. The
	// back-off of a host that refuses is over long before a slow retry comes.
	Beyond bool
	// Hash selects the host of a policy that hashes, if Hashed is true.
	Hash   uint64
	Hashed bool
	// Prefer is a locality whose hosts are picked as long as one of them is
	// reachable, may get traffic and is not to be avoided; nil prefers none. What is
	// empty in it stands for any: a region alone prefers all of its zones.
	Prefer *Locality
	// Pinned is an address of the host that is picked as long as it can be used,
	// outside of subsets and priorities too, or several between commas, of which the
	// first that a host has counts (gRFC A61); "" pins to none. With Strict no other
	// is picked: see [ErrPinned].
	Pinned string
	Strict bool
	// Match is the subset to pick from, with [Config.Subsets].
	Match *Match
	// Now is the time; the zero value lets Pick look at the clock if it must.
	Now time.Time
	// Part narrows the pick to a part of the traffic; the zero value is all of it.
	Part Part
	// PriorityBase is added to the priorities of hosts before they are compared
	// with AvoidPriorities: how many there are before those of the set.
	PriorityBase uint32
	// InFlight is the requests in flight on all hosts, for
	// [Config.HashBalanceFactor].
	InFlight int64
}

// avoids reports whether the host is one to avoid.
func (i *PickInfo) avoids(h *Host) bool {
	return slices.Contains(i.Avoid, h) || i.Omit != nil && i.Omit(h) ||
		len(i.AvoidPriorities) > 0 && slices.Contains(i.AvoidPriorities, i.PriorityBase+h.Priority())
}

func (i *PickInfo) refuses(h *Host) bool { return i.Refuses != nil && i.Refuses(h) }

// Pick returns the host for the next attempt, or [ErrNoEndpoint], or
// [ErrNoHealthyEndpoint]. It takes no lock and allocates nothing.
//
// Hosts that are not reachable are passed over, as are those of info.Avoid. If
// all that get traffic are unreachable, the priorities and the degraded hosts
// that get none step in; if these are unreachable too, one is picked anyway.
func (s *Set) Pick(info PickInfo) (*Host, error) {
	snapshot := s.snapshot.Load()
	if info.Pinned != "" {
		if h := s.pinned(snapshot, &info); h != nil {
			return h, nil
		}
		if info.Strict {
			return nil, ErrPinned
		}
	}
	if snapshot.subsets != nil {
		snapshot, _ = snapshot.subsets.find(info.Match)
	}
	if snapshot.err != nil {
		return nil, snapshot.err
	}
	q := s.query(snapshot, &info)
	g := s.draw(snapshot, q, info.Part)
	var h *Host
	if g != nil {
		h = g.pick(q)
	}
	if info.Prefer != nil && (h == nil || !info.prefers(h)) {
		if preferred := s.pickIn(snapshot, q, &info); preferred != nil {
			return preferred, nil
		}
	}
	switch {
	case g == nil:
		return nil, ErrPanic
	case h == nil:
		return nil, g.err()
	case h.usable(&info):
		return h, nil
	}
	return s.pickOther(snapshot, g, h, q, &info), nil
}

// prefers reports whether the host is usable and of the preferred locality.
func (i *PickInfo) prefers(h *Host) bool { return i.Prefer.covers(h.Locality()) && h.usable(i) }

// pickIn returns a usable host of the preferred locality, nil without one. The
// policy is asked again, so that it decides as long as it comes by there, but only
// if there is such a host: the turns that it takes would be missing elsewhere.
func (s *Set) pickIn(snapshot *snapshot, q query, info *PickInfo) *Host {
	there := s.preferred(snapshot, info)
	if there == nil {
		return nil
	}
	for range redraws - 1 { // it has drawn once
		if g := s.draw(snapshot, q, info.Part); g != nil {
			if h := g.pick(q); h != nil && info.prefers(h) {
				return h
			}
		}
	}
	return there
}

// preferred returns any usable host of the preferred locality, nil without one.
func (s *Set) preferred(snapshot *snapshot, info *PickInfo) *Host {
	for i := range snapshot.choices {
		for _, g := range snapshot.choices[i].groups {
			start := below(high(s.random()), uint32(len(g.hosts)))
			for j := range g.hosts {
				if h := g.hosts[(start+j)%len(g.hosts)]; info.prefers(h) {
					return h
				}
			}
		}
	}
	return nil
}

// query is what the policy is asked with. A call without a hash gets a random one,
// as in Envoy, for all that is asked about it.
func (s *Set) query(snapshot *snapshot, info *PickInfo) query {
	q := query{hash: info.Hash, hashed: info.Hashed, now: info.Now, inFlight: info.InFlight}
	if snapshot.hashing && !q.hashed {
		q.hash = s.random()
	}
	switch {
	case !snapshot.timed:
	case q.now.IsZero():
		q.at = time.Since(s.epoch)
	default:
		q.at = q.now.Sub(s.epoch)
	}
	return q
}

// draw returns the group for the next request. Policies that hash choose the
// priority by the hash, too.
func (s *Set) draw(snapshot *snapshot, q query, part Part) *group {
	if snapshot.levels != nil {
		return snapshot.serving().pick()
	}
	if part.At > 0 {
		if c := snapshot.at(part); c != nil {
			return c.pick()
		}
	}
	if len(snapshot.choices) == 1 {
		return snapshot.choices[0].pick()
	}
	percent := uint32(q.hash % 100)
	if !snapshot.hashing {
		percent = uint32(below(high(s.random()), 100))
	}
	i := 0
	for percent >= snapshot.choices[i].below { // the last one's is 100
		i++
	}
	return snapshot.choices[i].pick()
}

// redraws is how often the policy is asked again before the hosts are searched.
// With half of them unreachable it fails once in 256 times.
const redraws = 8

// pickOther finds a host instead of first, which is unreachable or to be avoided.
func (s *Set) pickOther(snapshot *snapshot, g *group, first *Host, q query, info *PickInfo) *Host {
	search := search{revivals: s.revivals.Load(), random: s.random}
	if !search.vain(g) {
		// Not in vain, for it would take turns from a round robin that should
		// pass over all hosts while none is reachable.
		if h := g.alternative(q, info); h != nil {
			return h
		}
	}
	if h := search.in(g, info); h != nil {
		return h
	}
	if snapshot.levels != nil && search.vain(g) {
		snapshot.leave(g, &search)
	}
	for i := range snapshot.choices {
		for _, other := range snapshot.choices[i].groups {
			if h := search.in(other, info); h != nil {
				return h
			}
		}
	}
	if search.avoided != nil && len(info.AvoidPriorities) == 0 && !info.Beyond {
		return search.avoided
	}
	for _, other := range snapshot.reserve {
		if h := search.in(other, info); h != nil {
			return h
		}
	}
	switch {
	case search.avoided != nil:
		return search.avoided
	case search.refusing != nil:
		return search.refusing
	}
	return g.unreachable(first, info)
}

// group is hosts that are picked from by the policy.
type group struct {
	hosts []*Host
	// chooser is nil for a group that is only searched, and if there is a picker.
	chooser chooser
	picker  picker
	// exhausted is the number of revivals at which no host was reachable.
	exhausted atomic.Uint64
}

// chooser returns the index of the host that is next by a policy. It is safe for
// concurrent use.
type chooser interface{ next() int }

// pick returns nil if the policy has failed.
func (g *group) pick(q query) *Host {
	if g.picker != nil {
		if i := g.picker.pick(q); i != noHost {
			return g.hosts[i]
		}
		return nil
	}
	return g.hosts[g.chooser.next()]
}

// err is why pick returned no host, which only a policy of the application does.
func (g *group) err() error { return g.picker.(*custom).err() } //nolint:forcetypeassert // no other picks none

// alternative asks the policy for a usable host instead of one that is not, nil
// if it finds none.
func (g *group) alternative(q query, info *PickInfo) *Host {
	for n := 1; ; n++ {
		var i int
		if g.picker == nil {
			if n > redraws {
				return nil
			}
			i = g.chooser.next()
		} else {
			var ok bool
			if i, ok = g.picker.other(q, n); !ok {
				return nil
			}
		}
		if h := g.hosts[i]; h.usable(info) {
			return h
		}
	}
}

// unreachable returns a host to try although none is reachable: first, unless it
// is to be avoided and another one is not.
func (g *group) unreachable(first *Host, info *PickInfo) *Host {
	if !info.avoids(first) {
		return first
	}
	for _, h := range g.hosts {
		if !info.avoids(h) {
			return h
		}
	}
	return first
}

// search looks for a usable host, one group after the other.
type search struct {
	revivals uint64
	random   func() uint64
	// avoided is the first reachable host that was found but is to be avoided.
	avoided *Host
	// refusing is the first reachable host that would refuse.
	refusing *Host
}

// vain reports whether it is known that no host of the group is reachable.
func (s *search) vain(g *group) bool { return g.exhausted.Load() == s.revivals }

// in returns a usable host of the group, nil without one. It looks at all hosts
// if it must, but if none is reachable it remembers that until any host of the
// set has become reachable again.
func (s *search) in(g *group, info *PickInfo) *Host {
	// Revivals were counted before the flags are read here, and are counted after
	// a flag is set: a host that becomes reachable during the search makes the
	// note that none is outdated at once.
	if s.vain(g) {
		return nil
	}
	found := false
	start := below(high(s.random()), uint32(len(g.hosts)))
	for i := range g.hosts {
		i += start
		if i >= len(g.hosts) {
			i -= len(g.hosts)
		}
		h := g.hosts[i]
		if !h.Reachable() {
			continue
		}
		found = true
		switch refuses, avoids := info.refuses(h), info.avoids(h); {
		case refuses && (s.refusing == nil || !avoids && info.avoids(s.refusing)):
			s.refusing = h
		case refuses:
		case !avoids:
			return h
		case s.avoided == nil:
			s.avoided = h
		}
	}
	if !found {
		g.exhausted.Store(s.revivals)
	}
	return nil
}

// high returns the upper half of a random number.
func high(r uint64) uint32 { return uint32(r >> 32) }

// below maps a random number to [0, n) by multiplication. The error is below
// n/2^32.
func below(r, n uint32) int { return int(uint64(r) * uint64(n) >> 32) }
