package upstream

import (
	"slices"
	"time"
)

// AfterChange calls f, on a goroutine of its own, when there may be another endpoint
// that is fit for calls, of the cluster or of those that it consists of: see
// [balancer.Set.AfterChange]. f may be called more than once. stop ends that; it must
// be called.
func (c *Cluster) AfterChange(f func()) (stop func()) {
	stops := []func() bool{c.set.AfterChange(f)}
	for _, leaf := range c.Leaves() {
		stops = append(stops, leaf.set.AfterChange(f))
	}
	return func() {
		for _, stop := range stops {
			stop()
		}
	}
}

// Reopening is after how long the breaker of an endpoint that refuses attempts now may
// let one pass: the first of all of them. ok is false if none refuses.
func (c *Cluster) Reopening() (after time.Duration, ok bool) {
	for e := range c.Made {
		if in := e.rate().PassesIn(); in > 0 && (!ok || in < after) {
			after, ok = in, true
		}
	}
	for _, leaf := range c.Leaves() {
		if in, refuses := leaf.Reopening(); refuses && (!ok || in < after) {
			after, ok = in, true
		}
	}
	return after, ok
}

// Left reports whether nobody holds the cluster any more, nor those that it consists of:
// its endpoints stay what they are.
func (c *Cluster) Left() bool {
	return c.left.Load() && !slices.ContainsFunc(c.Leaves(), func(leaf *Cluster) bool { return !leaf.left.Load() })
}
