package balancer

import "time"

// query is what a [picker] is asked with. It is small and passed by value, so that
// a pick allocates nothing.
type query struct {
	hash   uint64
	hashed bool
	// now is the time of the pick if the caller gave one; at is the time of the pick
	// since the set's epoch, if the set's policy needs one.
	now time.Time
	at  time.Duration
	// inFlight is the requests in flight on all hosts of the cluster.
	inFlight int64
}

// picker returns the index of the host that is next by a policy which looks at the
// request, at the clock or at the hosts' loads. It is safe for concurrent use.
type picker interface {
	pick(q query) int
	// other returns the n-th alternative, for when those before it cannot be
	// used, from 1. ok is false if the policy has none beyond those: then the
	// hosts are searched.
	other(q query, n int) (index int, ok bool)
}

// hashes reports whether the policy sends what has one hash to one host.
func (p Policy) hashes() bool { return p == RingHash || p == Maglev }

// Determines reports whether the policy sends what has one hash to one host, of those
// that there are.
func (p Policy) Determines() bool { return p.hashes() }

// Hashes reports whether the policy looks at [PickInfo.Hash].
func (p Policy) Hashes() bool { return p.hashes() || p == CustomPolicy }

// timed reports whether picks need the time.
func (c *Config) timed() bool { return c.Policy == PeakEWMA || c.SlowStart.Window > 0 }
