package balancer

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"
)

// Custom is a policy that the application brings.
type Custom struct {
	// Name is that of its type in the configuration.
	Name string
	// Config is what the configuration says, as JSON has it; nil if nothing.
	Config map[string]any
	// New makes the picker of one group of hosts, such as the healthy ones of a
	// priority: whenever these change it is called again. It must not keep the
	// set waiting, and must not change hosts, of which there is at least one.
	// If it panics, or returns nil, picks from these hosts fail.
	New func(hosts []*Host, config map[string]any) Picker
	// Failed, if not nil, is told why the policy cannot be used: New or Pick has
	// panicked, there is no picker, or it has picked no host. The pick that fails tells
	// it, once for each picker.
	Failed func(error)
}

// Picker chooses among the hosts that it was made for.
type Picker interface {
	// Pick returns the index of a host. It is called for each attempt, from many
	// goroutines at a time, and must neither block nor keep info, of which Hash,
	// Hashed, Now and InFlight are set. If the host cannot be used because it was
	// tried before or cannot be reached, it is asked again, a few times. The attempt
	// fails if there is no host of the index, or Pick panics.
	Pick(info PickInfo) int
}

// custom asks an application's policy.
type custom struct {
	policy *Custom
	hosts  int
	picker Picker // nil if there is none
	// failure is why the policy cannot be used, or what has gone wrong last; nil
	// while nothing has. told is whether somebody was told of it.
	failure atomic.Pointer[error]
	told    atomic.Bool
}

func newCustom(policy *Custom, hosts []*Host) (c *custom) {
	c = &custom{policy: policy, hosts: len(hosts)}
	defer func() {
		if v := recover(); v != nil {
			c.failed(fmt.Errorf("panic in New: %v", v))
		}
	}()
	if c.picker = policy.New(hosts, policy.Config); c.picker == nil {
		c.failed(errors.New("no picker from New"))
	}
	return c
}

func (c *custom) failed(err error) {
	err = fmt.Errorf("load-balancing policy %q: %w", c.policy.Name, err)
	c.failure.Store(&err)
}

// err is why there is no host.
func (c *custom) err() error {
	err := *c.failure.Load()
	if c.policy.Failed != nil && c.told.CompareAndSwap(false, true) {
		c.policy.Failed(err)
	}
	return err
}

// pick returns noHost if the policy has failed. Its mistakes end no process: it is gRPC
// that asks on goroutines of its own.
func (c *custom) pick(q query) (i int) {
	if c.picker == nil {
		return noHost
	}
	defer func() {
		if v := recover(); v != nil {
			c.failed(fmt.Errorf("panic in Pick: %v", v))
			i = noHost
		}
	}()
	i = c.picker.Pick(PickInfo{Hash: q.hash, Hashed: q.hashed, Now: q.now, InFlight: q.inFlight})
	if i < 0 || i >= c.hosts {
		c.failed(fmt.Errorf("picked host %d of %d", i, c.hosts))
		return noHost
	}
	return i
}

func (c *custom) other(q query, n int) (int, bool) {
	if n > redraws {
		return 0, false
	}
	i := c.pick(q)
	return i, i != noHost
}

// noHost is the index of no host.
const noHost = -1

// first stays with one host as long as it can be reached (gRFC A62).
type first struct {
	hosts []*Host
	// order is the hosts as they are tried; current is the one in use.
	order   []uint32
	current atomic.Uint32
	// cursor remembers the current host from one snapshot to the next, by the
	// hash of its address.
	cursor *cursor
}

func newFirst(hosts []*Host, shuffle bool, salt uint64, c *cursor) *first {
	f := &first{hosts: hosts, order: make([]uint32, len(hosts)), cursor: c}
	for i := range f.order {
		f.order[i] = uint32(i)
	}
	if shuffle {
		// By a hash, so that the order does not change with every update.
		keys := make([]uint64, len(hosts))
		for i, h := range hosts {
			keys[i] = mix(addressHash(h) ^ salt)
		}
		slices.SortFunc(f.order, func(a, b uint32) int { return cmp.Compare(keys[a], keys[b]) })
	}
	was := c.n.Load()
	if i := slices.IndexFunc(f.order, func(i uint32) bool { return addressHash(hosts[i]) == was }); i >= 0 {
		f.current.Store(uint32(i))
	}
	return f
}

func addressHash(h *Host) uint64 { return xxhash.Sum64String(h.Endpoint().Address) }

// pick moves on if the current host cannot be reached and another one can.
func (f *first) pick(query) int {
	n := uint32(len(f.order))
	current := f.current.Load()
	for i := range n {
		next := (current + i) % n
		if !f.hosts[f.order[next]].Reachable() {
			continue
		}
		if next != current && f.current.CompareAndSwap(current, next) {
			f.cursor.n.Store(addressHash(f.hosts[f.order[next]]))
		}
		return int(f.order[next])
	}
	return int(f.order[current])
}

func (f *first) other(_ query, n int) (int, bool) {
	if n >= len(f.order) {
		return 0, false
	}
	return int(f.order[(int(f.current.Load())+n)%len(f.order)]), true
}
