package balancer

import (
	"iter"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Set is the endpoints of one cluster and picks among them.
//
// Pick, Hosts and Len are safe for concurrent use with each other and with
// Update: they read one immutable snapshot. Update belongs to one goroutine at a
// time.
type Set struct {
	snapshot atomic.Pointer[snapshot]
	// revivals counts how often a host became reachable, from 1.
	revivals atomic.Uint64
	random   func() uint64
	// pinning is true since a pick was pinned for the first time.
	pinning atomic.Bool
	// outlier is the policy of outlier detection, nil without one. It changes
	// under mu.
	outlier atomic.Pointer[OutlierConfig]
	// weighted is the configuration of ClientWeighted, decay that of PeakEWMA in
	// nanoseconds: nil and 0 with other policies. They change under mu.
	weighted atomic.Pointer[ClientWeightedConfig]
	decay    atomic.Int64
	// epoch is what times are counted from, salt what is the set's own.
	epoch time.Time
	salt  uint64
	// changes are told of each new snapshot.
	changes changes

	// These belong to Update.
	attach  func(*Host) any
	updates uint32
	index   map[string]*Host

	// mu is held to make a snapshot, and to change what one is made from. It is
	// not on the way of a pick.
	mu      sync.Mutex
	config  Config   // guarded by mu
	spans   []span   // guarded by mu
	cursors cursors  // guarded by mu
	parting *parting // guarded by mu; nil without Config.Subsets
	// standings are those of priorities with Config.Failover, nil without it.
	standings map[uint32]*standing // guarded by mu
	ejected   int                  // guarded by mu; hosts that are ejected
	stale     bool                 // guarded by mu; the snapshot is of other ejections
}

// NewSet returns a set without endpoints that balances as cfg says until Update
// says otherwise. attach, if not nil, is called once for each new host, before it
// can be picked; what it returns is [Host.Attached], and nil leaves it to
// [Host.Attach].
func NewSet(cfg Config, attach func(*Host) any) *Set {
	return newSet(cfg, attach, rand.Uint64)
}

// newSet takes the source of all random choices. It must be safe for concurrent
// use if the set is used concurrently.
func newSet(cfg Config, attach func(*Host) any, random func() uint64) *Set {
	s := &Set{random: random, attach: attach, index: make(map[string]*Host), epoch: time.Now(), salt: rand.Uint64()}
	s.revivals.Store(1)
	s.Update(cfg, nil)
	return s
}

// Update applies a new configuration. Hosts are matched by address and keep their
// counters and ejections; those that came and those that left are returned. Of
// several endpoints with one address the first counts.
//
// It keeps references into localities, which must not be changed any more. It
// costs time in proportion to the number of endpoints, and one map operation for
// each that is not where it was before.
func (s *Set) Update(cfg Config, localities []LocalityEndpoints) (added, removed []*Host) {
	total := 0
	for i := range localities {
		total += len(localities[i].Endpoints)
	}
	var old []*Host
	if previous := s.snapshot.Load(); previous != nil {
		old = previous.hosts
	}
	s.updates++
	hosts := make([]*Host, 0, total)
	configs := make([]hostConfig, total) // one allocation for all
	spans := make([]span, 0, len(localities))
	next := 0 // where in old the next host is expected
	for i := range localities {
		l := &localities[i]
		start := len(hosts)
		for j := range l.Endpoints {
			e := &l.Endpoints[j]
			h := s.match(old, next, e.Address)
			if h != nil && h.seen == s.updates {
				continue
			}
			config := &configs[len(hosts)]
			*config = hostConfig{endpoint: e, locality: &l.Locality, priority: l.Priority}
			if h == nil {
				h = s.add(config)
				added = append(added, h)
			} else {
				next = int(h.position) + 1
				config.was = uint32(next)
			}
			h.seen = s.updates
			h.position = uint32(len(hosts))
			hosts = append(hosts, h)
		}
		spans = append(spans, span{locality: l, hosts: hosts[start:len(hosts):len(hosts)]})
	}
	for _, h := range old {
		if h.seen != s.updates {
			delete(s.index, h.Endpoint().Address)
			removed = append(removed, h)
		}
	}
	s.replace(cfg, hosts, configs, spans, added, removed)
	return added, removed
}

// replace makes the snapshot of a new configuration. Only here do the hosts get
// theirs, because an ejection may be making a snapshot meanwhile.
func (s *Set) replace(cfg Config, hosts []*Host, configs []hostConfig, spans []span, added, removed []*Host) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := time.Since(s.epoch)
	s.standingsLocked(&cfg, hosts, configs)
	for i, h := range hosts {
		old := h.config.Swap(&configs[i]).endpoint
		if old != configs[i].endpoint && !old.fit() {
			h.beginLocked(at)
		}
	}
	for _, h := range added {
		h.began.Store(notYet)
		h.beginLocked(at)
	}
	s.configureLocked(&cfg)
	if s.outlier.Load() != nil {
		for _, h := range added {
			h.monitor.Store(new(monitor))
		}
		for _, h := range removed {
			m := h.monitor.Load()
			if m.gone = true; m.ejected.Load() {
				s.ejected--
			}
		}
	}
	s.parting = s.parting.after(&s.config, &cfg, configs, spans)
	s.config, s.spans = cfg, spans
	s.rebuildLocked(hosts)
}

// rebuildLocked makes a new snapshot.
func (s *Set) rebuildLocked(hosts []*Host) {
	b := builder{
		config: s.config, random: s.random, salt: s.salt, old: s.cursors,
		epoch: s.epoch, at: time.Since(s.epoch), standings: s.standings,
		unused: s.config.Subsets != nil && !s.config.Subsets.usesAll(),
	}
	next := b.build(hosts, s.spans)
	next.addresses, next.pinnable = s.addressesLocked(hosts), s.config.Pinnable
	s.cursors = b.cursors
	if s.parting != nil {
		next.subsets = s.parting.subsets(&b, next)
	}
	s.snapshot.Store(next)
	s.stale = false
	s.Changed()
}

// configureLocked takes over what hosts look at when they are told of a call.
func (s *Set) configureLocked(cfg *Config) {
	s.weighted.Store(nil)
	if cfg.Policy == ClientWeighted {
		s.weighted.Store(&cfg.ClientWeighted)
	}
	decay := time.Duration(0)
	if cfg.Policy == PeakEWMA {
		decay = orDefault(cfg.DecayTime, defaultDecay)
	}
	s.decay.Store(int64(decay))
}

// match returns the host of an address, nil if it is new.
func (s *Set) match(old []*Host, next int, address string) *Host {
	if next < len(old) && old[next].Endpoint().Address == address {
		return old[next]
	}
	return s.index[address]
}

func (s *Set) add(config *hostConfig) *Host {
	h := &Host{set: s}
	h.config.Store(config)
	if s.attach != nil {
		if value := s.attach(h); value != nil {
			h.attached.Store(&attachment{value})
		}
	}
	s.index[config.endpoint.Address] = h
	return h
}

// Hosts returns the hosts of the latest update in the order of the configuration.
func (s *Set) Hosts() iter.Seq[*Host] { return slices.Values(s.snapshot.Load().hosts) }

// Len returns the number of hosts, whatever their health.
func (s *Set) Len() int { return len(s.snapshot.Load().hosts) }
