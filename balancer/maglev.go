package balancer

import (
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
		order[i] = keyed{key: h.hashKey(config.HashHostnames), host: uint32(i)}
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
	return &maglev{table: fill(candidates, largest, size)}
}

// fill lets the hosts take places in turn until none is left. A host with the
// largest share takes one in every round, one with half of it in every other.
func fill(candidates []candidate, largest float64, size uint64) []uint32 {
	table := make([]uint32, size)
	// taken has a bit for each place: many are looked at for one that is free.
	taken := make([]uint64, size/64+1)
	left := size
	for round := 1.0; ; round++ {
		for i := range candidates {
			c := &candidates[i]
			if round*c.share < c.target {
				continue
			}
			c.target += largest
			at := c.at
			for taken[at/64]>>(at%64)&1 != 0 {
				if at += c.skip; at >= size {
					at -= size
				}
			}
			taken[at/64] |= 1 << (at % 64)
			table[at] = c.host
			if c.at = at + c.skip; c.at >= size {
				c.at -= size
			}
			if left--; left == 0 {
				return table
			}
		}
	}
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
