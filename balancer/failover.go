package balancer

import (
	"slices"
	"sync/atomic"
	"time"
)

// Failover chooses priorities as gRPC does (gRFC A56), instead of Envoy: everything
// goes to the first priority that has a healthy host and can be connected to,
// however few healthy ones it has; degraded hosts and a panic are unknown. A
// priority is left when none of its hosts can be connected to, or when connecting to
// them takes longer than ConnectWithin in all, and is taken again as soon as there
// is a connection to it: [Host.Opened]. Whoever owns the hosts goes on connecting to
// those that [Host.Standby] says.
type Failover struct {
	// ConnectWithin is how long calls wait for the first connection to a priority;
	// 0 means the 10 s of gRPC.
	ConnectWithin time.Duration
}

// Within is ConnectWithin with its default.
func (f *Failover) Within() time.Duration { return orDefault(f.ConnectWithin, defaultConnectWithin) }

const defaultConnectWithin = 10 * time.Second

// standing is what a priority has come to. It lives from update to update, as long
// as the priority has the same hosts or fewer.
type standing struct {
	epoch time.Time
	// failed is true from when it could not be connected to until it was.
	failed atomic.Bool
	// dials is how often the owner is connecting to it, began since when it is
	// without a connection, since epoch; 0 if it is not.
	dials, began atomic.Int64
}

// Connecting tells that the owner begins to connect to the host; it must call ended
// when that has come to an end, after [Host.Opened] if there is a connection.
func (h *Host) Connecting() (ended func()) {
	s := h.config.Load().standing
	if s == nil {
		return func() {}
	}
	if s.dials.Add(1) == 1 {
		s.began.Store(int64(max(time.Since(s.epoch), 1)))
	}
	return func() {
		if s.dials.Add(-1) == 0 {
			s.began.Store(0)
		}
	}
}

// Opened tells that there is one more connection to the host. It is followed by
// exactly one [Host.Closed].
func (h *Host) Opened() {
	h.open.Add(1)
	if s := h.config.Load().standing; s != nil {
		s.began.Store(0)
		s.failed.Store(false)
	}
}

// Closed takes back a [Host.Opened].
func (h *Host) Closed() { h.open.Add(-1) }

// Connected reports whether there is a connection to the host.
func (h *Host) Connected() bool { return h.open.Load() > 0 }

// Standby reports whether the host is of a priority that was left for want of a
// connection, with [Config.Failover]: traffic comes back with the first.
func (h *Host) Standby() bool {
	s := h.config.Load().standing
	return s != nil && s.failed.Load()
}

// standingsLocked gives the hosts of an update their standings. A priority that has
// new hosts is tried again.
func (s *Set) standingsLocked(config *Config, hosts []*Host, configs []hostConfig) {
	if config.Failover == nil {
		s.standings = nil
		return
	}
	before := s.standings
	s.standings = make(map[uint32]*standing)
	for i, h := range hosts {
		priority := configs[i].priority
		now := s.standings[priority]
		if now == nil {
			if now = before[priority]; now == nil {
				now = &standing{epoch: s.epoch}
			}
			s.standings[priority] = now
		}
		if was := h.config.Load(); was.standing != now {
			now.failed.Store(false)
			now.began.Store(0)
		}
		configs[i].standing = now
	}
}

// failover makes the snapshot of priorities that are chosen as gRPC does.
func (b *builder) failover(s *snapshot, levels []*level) {
	for _, l := range levels {
		if l.sum.healthy == 0 {
			continue
		}
		c := b.choice(l, healthyHosts, 100)
		c.standing, c.within = b.standings[l.priority], b.config.Failover.Within()
		s.levels = append(s.levels, c)
		if len(s.levels) > 1 {
			s.reserve = append(s.reserve, &group{hosts: selectHosts(l.spans, healthyHosts, l.sum.healthy)})
		}
	}
	s.choices = s.levels[:min(1, len(s.levels))]
}

// serving is the first level that can be connected to; the first of all if none can.
func (s *snapshot) serving() *choice {
	for i := range s.levels {
		if !s.levels[i].out() {
			return &s.levels[i]
		}
	}
	return &s.levels[0]
}

// out reports whether a priority is left, now that the time to connect may be over.
func (c *choice) out() bool {
	switch began := c.standing.began.Load(); {
	case c.standing.failed.Load():
		return true
	case began == 0 || time.Since(c.standing.epoch)-time.Duration(began) < c.within:
		return false
	case slices.ContainsFunc(c.groups, connected):
		c.standing.began.CompareAndSwap(began, 0)
		return false
	}
	c.standing.failed.Store(true)
	return true
}

func connected(g *group) bool {
	return slices.ContainsFunc(g.hosts, func(h *Host) bool { return h.open.Load() > 0 })
}

// leave takes note that no host of a group can be reached: that fails its priority
// if it is so of all of its groups.
func (s *snapshot) leave(g *group, search *search) {
	for i := range s.levels {
		c := &s.levels[i]
		if slices.Contains(c.groups, g) && !slices.ContainsFunc(c.groups, func(g *group) bool { return !search.vain(g) }) {
			c.standing.failed.Store(true)
		}
	}
}
