package filter

import (
	"context"
	"math"
	"time"
)

// A body that has not moved for a while may catch up on so much of its limit, and
// passes in pieces of so much of it, as in Envoy.
const (
	paceCredit = time.Second
	pacePiece  = 50 * time.Millisecond
)

// Pace limits how fast a body passes. It is used by one goroutine at a time.
type Pace struct {
	rate int64     // bytes per second, positive
	due  time.Time // when what has passed so far should have
}

func newPace(bytesPerSecond uint64) *Pace {
	// No body comes near the most, and a piece of it is still a number.
	return &Pace{rate: int64(min(max(bytesPerSecond, 1), uint64(math.MaxInt64/time.Second)))}
}

// Piece is how many bytes may pass at once, at least one.
func (p *Pace) Piece() int {
	return int(min(max(p.rate*int64(pacePiece/time.Millisecond)/1000, 1), math.MaxInt32))
}

// Wait waits until n more bytes may have passed, or returns why ctx or stop ended the
// wait: stop may be nil, and stands for [context.Canceled].
func (p *Pace) Wait(ctx context.Context, n int, stop <-chan struct{}) error {
	if p == nil || n <= 0 {
		return nil
	}
	now := time.Now()
	switch {
	case p.due.IsZero():
		p.due = now
	case now.Sub(p.due) > paceCredit:
		p.due = now.Add(-paceCredit)
	}
	p.due = p.due.Add(p.time(n))
	left := p.due.Sub(now)
	if left <= 0 {
		return nil
	}
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-stop:
		return context.Canceled
	}
}

// time is how long n bytes take.
func (p *Pace) time(n int) time.Duration {
	whole, rest := int64(n)/p.rate, int64(n)%p.rate
	if whole >= math.MaxInt64/int64(time.Second) {
		return math.MaxInt64
	}
	return time.Duration(whole)*time.Second + time.Duration(rest*int64(time.Second)/p.rate)
}
