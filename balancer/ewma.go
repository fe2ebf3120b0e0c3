package balancer

import (
	"math"
	"sync/atomic"
	"time"
)

// defaultDecay is Finagle's decay time.
const defaultDecay = 10 * time.Second

// peakEWMA takes, of two random hosts, the one that is likely to answer sooner: it
// has the smaller product of its latency and the requests that are waiting for it,
// the new one included (Finagle's Peak EWMA). The latency is a moving average that
// jumps up to a slow answer at once and comes down with time.
type peakEWMA struct {
	hosts  []*Host
	draw   chooser // nil if weights are equal
	epoch  time.Time
	decay  float64 // in seconds
	random func() uint64
}

func (p *peakEWMA) pick(q query) int {
	n := uint32(len(p.hosts))
	if n == 1 {
		return 0
	}
	var a, b int
	if p.draw != nil {
		a, b = p.draw.next(), p.draw.next()
	} else {
		r := p.random()
		a, b = below(high(r), n), below(uint32(r), n-1)
		if b >= a {
			b++
		}
	}
	x, y := p.hosts[a], p.hosts[b]
	if x.Reachable() != y.Reachable() {
		if x.Reachable() {
			return a
		}
		return b
	}
	if y.latency.cost(q.at, p.decay, y.Active()) < x.latency.cost(q.at, p.decay, x.Active()) {
		return b
	}
	return a
}

// other draws again.
func (p *peakEWMA) other(q query, n int) (int, bool) {
	if n > redraws {
		return 0, false
	}
	return p.pick(q), true
}

// latency is the moving average of a host's response times.
type latency struct {
	mean atomic.Uint64 // seconds, as a float64's bits
	at   atomic.Int64  // of the latest sample, since the set's epoch
}

// unmeasured is what a host without a sample costs while requests are waiting for
// it: so much that one of them has to come back before it gets more.
const unmeasured = 1e6

// cost is what a host's next request would wait for.
func (l *latency) cost(at time.Duration, decay float64, active int64) float64 {
	mean := math.Float64frombits(l.mean.Load())
	if mean == 0 {
		if active > 0 {
			return unmeasured + float64(active)
		}
		return 0
	}
	if idle := (at - time.Duration(l.at.Load())).Seconds(); idle > 0 {
		mean *= fade(idle / decay)
	}
	return mean * float64(active+1)
}

// fade is about exp(-x), at less cost: 1/(1 + x/8)^8 in the beginning, where it
// matters.
func fade(x float64) float64 {
	if x >= 4 {
		return math.Exp(-x)
	}
	y := 1 / (1 + x/8)
	y *= y
	y *= y
	return y * y
}

// sample adds a response time. Of samples at the same time one may be lost.
func (l *latency) sample(at, took time.Duration, decay float64) {
	seconds := max(took.Seconds(), 1e-6)
	mean := math.Float64frombits(l.mean.Load())
	if seconds < mean {
		w := math.Exp(-max(0, (at-time.Duration(l.at.Load())).Seconds()) / decay)
		seconds = mean*w + seconds*(1-w)
	}
	l.mean.Store(math.Float64bits(seconds))
	l.at.Store(int64(at))
}

// peak adds a time that an answer would have taken at least: one that is shorter than
// the average is by now says nothing.
func (l *latency) peak(at, took time.Duration, decay float64) {
	mean := math.Float64frombits(l.mean.Load())
	if idle := (at - time.Duration(l.at.Load())).Seconds(); idle > 0 {
		mean *= fade(idle / decay)
	}
	if seconds := took.Seconds(); seconds > mean {
		l.mean.Store(math.Float64bits(seconds))
		l.at.Store(int64(at))
	}
}

// Took tells a [PeakEWMA] policy how long the host took for an answer that ended
// at now. Other policies do not look at it.
func (h *Host) Took(now time.Time, took time.Duration) {
	if decay := h.set.decay.Load(); decay > 0 {
		h.latency.sample(now.Sub(h.set.epoch), took, time.Duration(decay).Seconds())
	}
}

// Waited tells the same policy that an answer would have taken longer than that: the
// wait for one was given up at now. How short a wait was says nothing of the host.
func (h *Host) Waited(now time.Time, longer time.Duration) {
	if decay := h.set.decay.Load(); decay > 0 {
		h.latency.peak(now.Sub(h.set.epoch), longer, time.Duration(decay).Seconds())
	}
}

// failurePenalty is what an attempt that fails counts as: longer than most answers take,
// so that a host which fails at once is not taken for a fast one, and short enough to be
// forgotten in some decay times.
const failurePenalty = time.Second

// Failed tells the same policy that an attempt, which the host got, ended at now with a
// failure of the host: it counts as an answer that took a second, or longer if it took
// longer.
func (h *Host) Failed(now time.Time, took time.Duration) { h.Waited(now, max(took, failurePenalty)) }
