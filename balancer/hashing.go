package balancer

import (
	"math"
	"math/bits"

	"github.com/cespare/xxhash/v2"
)

// hashKey is what stands for a host in a ring or a table: "hash_key" of its
// metadata "envoy.lb" (gRFC A76), or its host name if that is asked for, or its
// address.
func (e *Endpoint) hashKey(hostnames bool) string {
	if key := e.Metadata["envoy.lb"]["hash_key"]; key != "" {
		return key
	}
	if hostnames && e.Hostname != "" {
		return e.Hostname
	}
	return e.Address
}

// hashShares makes shares, which add up to 1, of weights, in place.
func hashShares(weights []float64) []float64 {
	var sum float64
	for _, w := range weights {
		sum += w
	}
	for i := range weights {
		weights[i] /= sum
	}
	return weights
}

// bounded is consistent hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam,
// arXiv 1608.01350): a host with its share of the requests in flight times
// factor/100 gets no more of them. What its hash would send there goes elsewhere,
// in an order that is the hash's own, so that it does not pile up on a neighbour
// (arXiv 1908.08762). With a factor of 100 or more somebody always has room.
//
// The cap is that of the paper: a host never has more than its slots. Envoy gives
// a host that has just filled its slots one request more.
type bounded struct {
	picker
	hosts  []*Host
	shares []float64
	factor uint32
}

func (b *bounded) pick(q query) int {
	i := b.picker.pick(q)
	total := (uint64(max(q.inFlight, 0))+1)*uint64(b.factor) + 99
	slots := float64(total / 100)
	if b.hasRoom(i, slots) {
		return i
	}
	// A walk over all hosts with a stride that has no divisor in common with
	// their number, beginning and stride by the hash.
	n := uint64(len(b.hosts))
	seed := mix(q.hash)
	start, stride := seed%n, 1+mix(seed)%n
	for gcd(stride, n) != 1 {
		stride++
	}
	least, load := i, math.Inf(1)
	for range n {
		if b.hasRoom(int(start), slots) {
			return int(start)
		}
		if l := float64(b.hosts[start].Active()) / b.shares[start]; l < load {
			least, load = int(start), l
		}
		start = (start + stride) % n
	}
	return least
}

func (b *bounded) hasRoom(i int, slots float64) bool {
	// A share is a fraction that may be rounded up: 75 shares of 1/75 are more than 1,
	// and 525 slots would be 8 for each. A trace less is never a slot less.
	const trace = 1e-12
	return b.hosts[i].Active() < int64(max(1, math.Ceil(slots*b.shares[i]*(1-trace))))
}

// mix makes a number out of a hash that has nothing in common with it.
func mix(x uint64) uint64 {
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}

// ring is Envoy's ring hash: each host has points on a circle, as many as its
// weight asks for, and a hash belongs to the next point.
type ring struct {
	points []point
	// guide holds, for equal parts of the circle, the first point in or after
	// it, so that a pick looks at two points on average.
	guide []uint32
	shift uint
}

type point struct {
	hash uint64
	host uint32
}

// Limits of rings and tables (Envoy, gRFC A42).
const (
	// DefaultMinRingSize and DefaultMaxRingSize are Envoy's minimum_ring_size and
	// maximum_ring_size, which must not exceed the latter.
	DefaultMinRingSize = 1024
	DefaultMaxRingSize = 8 << 20
	// ringCap bounds the memory of a ring: unless there are more hosts it has no
	// more points, whatever is asked for (data-plane decision D10, gRFC A42).
	ringCap = 4096
)

// newRing computes the points as Envoy does, from the hosts' shares: the host with
// the smallest gets a whole number of them, and the running sums see to it that
// no share is lost to rounding. The order of the hosts matters only where points
// are fractions.
func newRing(hosts []*Host, shares []float64, config *Config) *ring {
	smallest := 1.0
	for _, s := range shares {
		smallest = min(smallest, s)
	}
	least, most := config.ringSizes(len(hosts))
	scale := min(math.Ceil(smallest*float64(least))/smallest, float64(most))
	points := make([]point, 0, int(math.Ceil(scale)))
	hash := xxhash.Sum64
	if config.RingMurmur {
		hash = func(key []byte) uint64 { return murmur2(key, murmurSeed) }
	}
	var key []byte
	var current, target float64
	for i, h := range hosts {
		key = append(append(key[:0], h.Endpoint().hashKey(config.HashHostnames)...), '_')
		prefix := len(key)
		target += scale * shares[i]
		for n := uint64(0); current < target; n++ {
			key = appendUint(key[:prefix], n)
			points = append(points, point{hash: hash(key), host: uint32(i)})
			current++
		}
	}
	return sortedRing(points)
}

// ringSizes are the sizes between which a ring of n hosts is.
func (c *Config) ringSizes(n int) (least, most uint64) {
	least, most = c.MinRingSize, c.MaxRingSize
	if least == 0 {
		least = DefaultMinRingSize
	}
	if most == 0 {
		most = DefaultMaxRingSize
	}
	limit := uint64(max(ringCap, n))
	return min(least, limit), min(most, limit)
}

func appendUint(b []byte, n uint64) []byte {
	if n >= 10 {
		b = appendUint(b, n/10)
	}
	return append(b, byte('0'+n%10))
}

// sortedRing sorts points in linear time: hashes are spread evenly, so that each
// part of the circle has few.
func sortedRing(points []point) *ring {
	parts := bits.Len(uint(len(points)))
	r := &ring{points: make([]point, len(points)), guide: make([]uint32, 1<<parts+1), shift: uint(64 - parts)}
	for i := range points {
		r.guide[points[i].hash>>r.shift+1]++
	}
	for i := 1; i < len(r.guide); i++ {
		r.guide[i] += r.guide[i-1]
	}
	filled := make([]uint32, 1<<parts)
	for _, p := range points {
		part := p.hash >> r.shift
		first := int(r.guide[part])
		at := first + int(filled[part])
		filled[part]++
		for at > first && p.before(r.points[at-1]) {
			r.points[at] = r.points[at-1]
			at--
		}
		r.points[at] = p
	}
	return r
}

func (p point) before(other point) bool {
	return p.hash < other.hash || p.hash == other.hash && p.host < other.host
}

// find returns the place of the first point at or after a hash.
func (r *ring) find(hash uint64) int {
	i := int(r.guide[hash>>r.shift])
	for i < len(r.points) && r.points[i].hash < hash {
		i++
	}
	if i == len(r.points) {
		return 0
	}
	return i
}

func (r *ring) pick(q query) int { return int(r.points[r.find(q.hash)].host) }

// other goes on round the ring, as gRFC A42 asks.
func (r *ring) other(q query, n int) (int, bool) {
	if n >= len(r.points) {
		return 0, false
	}
	return int(r.points[(r.find(q.hash)+n)%len(r.points)].host), true
}
