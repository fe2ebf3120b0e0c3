package balancer

import (
	"cmp"
	"math/bits"
	"slices"
	"sync/atomic"
)

// cursor counts turns. It has a cache line of its own: every pick writes it.
type cursor struct {
	n atomic.Uint64
	_ [56]byte
}

// cursorKey is what a cursor turns over.
type cursorKey struct {
	priority uint32
	locality Locality
	class    class
	// order is true for the cursor that chooses among localities.
	order bool
}

// cursors are those of a snapshot, in the order in which it asked for them.
type cursors struct {
	keys []cursorKey
	list []*cursor
	next int // where the next key is expected: snapshots are made alike
}

// find returns the cursor of a key, nil if there is none.
func (c *cursors) find(key cursorKey) *cursor {
	for range c.keys {
		at := c.next % len(c.keys)
		c.next = at + 1
		if c.keys[at] == key {
			return c.list[at]
		}
	}
	return nil
}

func (c *cursors) add(key cursorKey, added *cursor) {
	c.keys, c.list = append(c.keys, key), append(c.list, added)
}

// turns is round robin with equal weights: over any number of turns no index is
// more than one ahead of another.
type turns struct {
	cursor *cursor
	n      uint64
}

func (t *turns) next() int { return int(t.cursor.n.Add(1) % t.n) }

// maxSchedule bounds the schedules that are written down.
const maxSchedule = 1024

// newTurns returns round robin by weight, which are positive. Envoy orders the
// hosts by their deadlines in a heap (earliest deadline first), which takes a
// lock and O(log n) for each pick. Both forms here take one atomic addition:
//
//   - equal weights: [turns];
//   - weights with a small sum, once their common divisor is taken out: the order
//     that earliest deadline first gives is written down, and each round of it is
//     exact ([schedule]);
//   - else: a [spread], which is as even and at most a few turns off.
func newTurns(weights []uint64, c *cursor) chooser {
	divisor := weights[0]
	for _, w := range weights {
		divisor = gcd(divisor, w)
	}
	var sum uint64
	for _, w := range weights {
		sum += w / divisor
	}
	n := uint64(len(weights))
	switch {
	case sum == n:
		return &turns{cursor: c, n: n}
	case sum <= maxSchedule:
		return newSchedule(weights, divisor, c)
	}
	return newSpread(weights, c)
}

func gcd(a, b uint64) uint64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// schedule is weighted round robin from a table: over a whole round each index
// has exactly its weight in turns.
type schedule struct {
	cursor *cursor
	order  []uint16
}

func (s *schedule) next() int { return int(s.order[s.cursor.n.Add(1)%uint64(len(s.order))]) }

// newSchedule sorts the turns of all indexes by their deadlines. The j-th turn of
// index i is due at (j+phase)/weight, where phases differ, or all would have
// their first turns together.
func newSchedule(weights []uint64, divisor uint64, c *cursor) *schedule {
	type turn struct {
		index  uint16
		weight uint64
		due    uint64 // times weight and 2^16
	}
	var all []turn
	for i, w := range weights {
		w /= divisor
		phase := uint64(i+1) * golden >> 48
		for j := range w {
			all = append(all, turn{index: uint16(i), weight: w, due: j<<16 + phase})
		}
	}
	slices.SortFunc(all, func(a, b turn) int {
		return cmp.Or(cmp.Compare(a.due*b.weight, b.due*a.weight), cmp.Compare(a.index, b.index))
	})
	s := &schedule{cursor: c, order: make([]uint16, len(all))}
	for i, t := range all {
		s.order[i] = t.index
	}
	return s
}

// golden is the golden ratio's fraction times 2^64. Its multiples modulo 1 fill
// the unit interval more evenly than those of any other number.
const golden = 0x9E3779B97F4A7C15

// spread is weighted round robin for any weights. The indexes divide the unit
// interval among them by weight, and turn k goes to the owner of the fraction of
// k times the golden ratio. By the three-gap theorem the distances between the
// turns of one index have at most three values, so turns are spread smoothly, and
// after k turns each index has its share of k but for a few.
type spread struct {
	cursor *cursor
	// ends is where the part of each index ends, times 2^64; the last one's end
	// is 1 and not used.
	ends []uint64
	// guide holds, for equal parts of the interval, the index that owns the
	// beginning, so that a search is over two indexes on average.
	guide []uint32
	shift uint
}

func newSpread(weights []uint64, c *cursor) *spread {
	n := len(weights)
	var sum, upTo uint64
	for _, w := range weights {
		sum += w
	}
	s := &spread{cursor: c, ends: make([]uint64, n)}
	for i, w := range weights[:n-1] {
		upTo += w
		s.ends[i], _ = bits.Div64(upTo, 0, sum)
	}
	parts := bits.Len(uint(n - 1))
	s.shift = uint(64 - parts)
	s.guide = make([]uint32, 1<<parts+1)
	owner := 0
	for i := range s.guide[:1<<parts] {
		for owner < n-1 && s.ends[owner] <= uint64(i)<<s.shift {
			owner++
		}
		s.guide[i] = uint32(owner)
	}
	s.guide[1<<parts] = uint32(n - 1)
	return s
}

func (s *spread) next() int {
	x := s.cursor.n.Add(1) * golden
	part := x >> s.shift
	first, last := s.guide[part], s.guide[part+1]
	for first < last {
		middle := (first + last) / 2
		if s.ends[middle] > x {
			last = middle
		} else {
			first = middle + 1
		}
	}
	return int(first)
}
