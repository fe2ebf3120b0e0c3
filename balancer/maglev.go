package balancer

import (
	"math"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"
)

// Sizes of Maglev's table. A size must be a prime number.
const (
	// DefaultMaglevSize is Envoy's table_size.
	DefaultMaglevSize = 65_537
	// MaxMaglevSize is the largest that Envoy allows.
	MaxMaglevSize = 5_000_011
)

// maglev is a table that hosts have filled in turn, each at the places of its own
// permutation (Eisenbud and others, "Maglev", NSDI 2016, section 3.4, with Envoy's
// weights).
type maglev struct{ table []uint32 }

// candidate is a host while the table is being filled.
type candidate struct {
	host          uint32
	share, target float64
	at, skip      uint64
}

func newMaglev(hosts []*Host, shares []float64, config *Config) *maglev {
	size := config.MaglevSize
	if size == 0 {
		size = DefaultMaglevSize
	}
	// In an order that does not depend on that of the configuration.
	type keyed struct {
		key  string
		host uint32
	}
	order := make([]keyed, len(hosts))
	for i, h := range hosts {
		order[i] = keyed{key: h.Endpoint().hashKey(config.HashHostnames), host: uint32(i)}
	}
	slices.SortFunc(order, func(a, b keyed) int { return strings.Compare(a.key, b.key) })
	candidates := make([]candidate, len(hosts))
	var largest float64
	var seeded xxhash.Digest
	for i, k := range order {
		seeded.ResetWithSeed(1)
		_, _ = seeded.WriteString(k.key) // never fails
		candidates[i] = candidate{
			host: k.host, share: shares[k.host],
			at: xxhash.Sum64String(k.key) % size, skip: seeded.Sum64()%(size-1) + 1,
		}
		largest = max(largest, shares[k.host])
	}
	f := filling{table: make([]uint32, size), taken: make([]uint64, size/64+1), left: size}
	if largest*float64(len(hosts)) > maxIdleTurns {
		f.byDueRound(candidates, largest)
	} else {
		f.byRounds(candidates, largest)
	}
	return &maglev{table: f.table}
}

// filling is a table in which hosts take places in turn until none is left. A host
// with the largest share takes one in every round, one with half of it in every
// other.
type filling struct {
	table []uint32
	// taken has a bit for each place: many are looked at for one that is free.
	taken []uint64
	left  uint64
}

// maxIdleTurns is how often on average a host may be asked in vain for each place
// that one takes: beyond, as when one of 10,000 hosts has nearly all the weight, those
// that are due are looked up.
const maxIdleTurns = 16

// byRounds asks every host in every round.
func (f *filling) byRounds(candidates []candidate, largest float64) {
	for round := 1.0; ; round++ {
		for i := range candidates {
			c := &candidates[i]
			if round*c.share < c.target {
				continue
			}
			c.target += largest
			if f.take(c); f.left == 0 {
				return
			}
		}
	}
}

// byDueRound asks the hosts in the same order, and only those that are due. They are
// in a heap, by the round in which each takes its next place.
func (f *filling) byDueRound(candidates []candidate, largest float64) {
	heap := make([]due, len(candidates))
	for i := range heap {
		heap[i] = due{round: 1, candidate: i}
	}
	for {
		next := &heap[0]
		c := &candidates[next.candidate]
		c.target += largest
		if f.take(c); f.left == 0 {
			return
		}
		next.round = c.dueAfter(next.round)
		sink(heap)
	}
}

// due is the round in which a candidate takes its next place.
type due struct {
	round     float64
	candidate int
}

func (d due) before(other due) bool {
	return d.round < other.round || d.round == other.round && d.candidate < other.candidate
}

// dueAfter returns the first round after this one that is not too early.
func (c *candidate) dueAfter(round float64) float64 {
	next := max(math.Floor(c.target/c.share)-1, round+1)
	if next > MaxMaglevSize {
		return math.Inf(1) // a table is full before: every round fills a place
	}
	for next*c.share < c.target { // the quotient is rounded
		next++
	}
	return next
}

// sink restores the order of a heap whose first element has changed.
func sink(heap []due) {
	moved, at := heap[0], 0
	for {
		child := 2*at + 1
		if child >= len(heap) {
			break
		}
		if child+1 < len(heap) && heap[child+1].before(heap[child]) {
			child++
		}
		if !heap[child].before(moved) {
			break
		}
		heap[at] = heap[child]
		at = child
	}
	heap[at] = moved
}

// take gives a host the next free place of its permutation.
func (f *filling) take(c *candidate) {
	size := uint64(len(f.table))
	at := c.at
	for f.taken[at/64]>>(at%64)&1 != 0 {
		if at += c.skip; at >= size {
			at -= size
		}
	}
	f.taken[at/64] |= 1 << (at % 64)
	f.table[at] = c.host
	if c.at = at + c.skip; c.at >= size {
		c.at -= size
	}
	f.left--
}

func (m *maglev) pick(q query) int { return int(m.table[q.hash%uint64(len(m.table))]) }

// maxOther bounds the alternatives before the hosts are searched.
const maxOther = 64

// other changes the hash as Envoy does for a retry.
func (m *maglev) other(q query, n int) (int, bool) {
	if n > maxOther {
		return 0, false
	}
	return int(m.table[(q.hash^(^uint64(0)-uint64(n)+1))%uint64(len(m.table))]), true
}

// ValidMaglevSize reports whether a table may have that size: a prime number up to
// [MaxMaglevSize].
func ValidMaglevSize(n uint64) bool {
	if n < 2 || n > MaxMaglevSize {
		return false
	}
	for d := uint64(2); d*d <= n; d++ {
		if n%d == 0 {
			return false
		}
	}
	return true
}
