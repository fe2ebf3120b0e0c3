package balancer

import (
	"math"
	"sync/atomic"
	"time"
)

// SlowStart lets the traffic of a new host grow over a time, for [RoundRobin],
// [LeastRequest] and [ClientWeighted]: Envoy's SlowStartConfig. A host is new when
// it is healthy for the first time in the cluster, by its configuration and its active
// health checks, and when these succeed again after they have failed. As in Envoy,
// neither a configured health that comes back nor the end of an ejection makes a host
// new. t after that it weighs
//
//	max(MinWeightPercent/100, (max(t, 1 s)/Window)^(1/Aggression))
//
// of its weight, in relation to the others: if all hosts are new at once, all have
// their usual shares.
type SlowStart struct {
	// Window is how long it takes; 0 is no slow start.
	Window time.Duration
	// Aggression is 1 for a linear growth, more for a faster beginning; 0 is
	// taken as Envoy's default of 1.
	Aggression float64
	// MinWeightPercent is where it starts. Envoy's default of 10 is filled in by
	// the decoder.
	MinWeightPercent float64
}

// notYet is when a host is new that has never been healthy.
const notYet = -1

// beginLocked makes a host new that is healthy for the first time. The caller holds
// Set.mu.
func (h *Host) beginLocked(at time.Duration) {
	if h.began.Load() == notYet && h.Endpoint().fit() && h.Check().class() == healthyHosts {
		h.began.Store(int64(at))
	}
}

// factor returns what a host weighs after the time t in service.
func (s *SlowStart) factor(t time.Duration) float64 {
	if t >= s.Window {
		return 1
	}
	f := float64(max(t, time.Second)) / float64(s.Window)
	if s.Aggression > 0 && s.Aggression != 1 {
		f = math.Pow(f, 1/s.Aggression)
	}
	return min(1, max(s.MinWeightPercent/100, f))
}

// SlowStarts reports whether new hosts get less: whether there is a slow start, and the
// policy is one of those that it is for.
func (c *Config) SlowStarts() bool {
	return c.SlowStart.Window > 0 && (c.Policy == RoundRobin || c.Policy == LeastRequest || c.Policy == ClientWeighted)
}

// Warmth returns the share of its weight that slow start leaves the host now, in
// relation to the others of its cluster: 1 when it is over, or if it is none for the policy
// of the configuration.
func (h *Host) Warmth(c *Config) float64 {
	began := time.Duration(h.began.Load())
	if !c.SlowStarts() || began == notYet {
		return 1
	}
	return c.SlowStart.factor(time.Since(h.set.epoch) - began)
}

// warming is the policy below it with less for new hosts. What that chose is
// accepted as often as the host's factor says, in relation to the largest one;
// otherwise it chooses again. So each host has its usual share times its factor,
// at every moment and without a timer.
type warming struct {
	inner  chooser
	config SlowStart
	// began is when each host was new, since the set's epoch: when that changes
	// there is another snapshot.
	began []time.Duration
	// oldest is when the host that is longest in service began, which has the
	// largest factor; until is when the last one is no longer new.
	oldest, until time.Duration
	over          atomic.Bool
	random        func() uint64
}

// maxRejections bounds the choices of one pick.
const maxRejections = 32

// warm puts a policy under slow start, if any of the hosts is new.
func (b *builder) warm(inner chooser, hosts []*Host) picker {
	config := b.config.SlowStart
	if config.Window <= 0 {
		return nil
	}
	w := &warming{inner: inner, config: config, began: make([]time.Duration, len(hosts)), oldest: math.MaxInt64, random: b.random}
	for i, h := range hosts {
		began := time.Duration(h.began.Load())
		if began == notYet { // it is among these in a panic
			began = b.at - config.Window
		}
		w.began[i] = began
		w.oldest = min(w.oldest, began)
		w.until = max(w.until, began+config.Window)
	}
	if w.until <= b.at {
		return nil
	}
	return w
}

func (w *warming) pick(q query) int {
	if w.over.Load() {
		return w.inner.next()
	}
	if q.at >= w.until {
		w.over.Store(true)
		return w.inner.next()
	}
	largest := w.config.factor(q.at - w.oldest)
	best, most := 0, -1.0
	for range maxRejections {
		i := w.inner.next()
		f := w.config.factor(q.at - w.began[i])
		if f >= largest || float64(w.random()>>11)/(1<<53)*largest < f { // most are not new
			return i
		}
		if f > most {
			best, most = i, f
		}
	}
	return best
}

// other leaves it to the policy.
func (w *warming) other(q query, n int) (int, bool) {
	if n > redraws {
		return 0, false
	}
	return w.pick(q), true
}
