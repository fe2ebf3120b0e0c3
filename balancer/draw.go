package balancer

import "math/bits"

// newDraw returns a random choice among n by weight; nil weights are equal.
func newDraw(n int, weights []uint64, random func() uint64) chooser {
	if weights == nil {
		return &uniform{n: uint32(n), random: random}
	}
	return &alias{slots: aliasSlots(weights), random: random}
}

// uniform is a random choice without weights.
type uniform struct {
	n      uint32
	random func() uint64
}

func (u *uniform) next() int { return below(high(u.random()), u.n) }

// alias is a random choice by weight in constant time (Walker's alias method, in
// Vose's form).
type alias struct {
	slots  []aliasSlot
	random func() uint64
}

// aliasSlot is an equal part of all weight, divided between its own index, which
// has threshold/2^32 of it, and another one.
type aliasSlot struct{ threshold, other uint32 }

func (a *alias) next() int { return aliasIndex(a.slots, a.random()) }

// aliasIndex draws a slot with one half of the random number and one of its two
// indexes with the other half.
func aliasIndex(slots []aliasSlot, r uint64) int {
	i := below(high(r), uint32(len(slots)))
	low := uint32(r)
	if slot := slots[i]; low >= slot.threshold {
		return int(slot.other)
	}
	return i
}

// aliasSlots builds the table with integers, so that nothing drifts.
func aliasSlots(weights []uint64) []aliasSlot {
	n := uint64(len(weights))
	var sum uint64
	for _, w := range weights {
		sum += w
	}
	// left is what of each weight has no slot yet; a slot holds sum.
	left := make([]uint64, n)
	// order holds indexes with less than a slot from the front, others from the
	// back.
	order := make([]uint32, n)
	small, large := 0, len(order)
	for i, w := range weights {
		left[i] = w * n
		if left[i] < sum {
			order[small] = uint32(i)
			small++
		} else {
			large--
			order[large] = uint32(i)
		}
	}
	slots := make([]aliasSlot, n)
	for i := range slots {
		slots[i].other = uint32(i)
	}
	for small > 0 && large < len(order) {
		small--
		less, more := order[small], order[large]
		threshold, _ := bits.Div64(left[less]>>32, left[less]<<32, sum)
		slots[less] = aliasSlot{threshold: uint32(threshold), other: more}
		left[more] -= sum - left[less]
		if left[more] < sum {
			large++
			order[small] = more
			small++
		}
	}
	return slots
}
