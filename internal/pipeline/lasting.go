package pipeline

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/inboardmesh/inboard/internal/upstream"
)

// lastingAfter is how often the calls are looked through whose response is open. One
// that has been for as long, or for up to twice as long, is watched from then on.
const lastingAfter = 100 * time.Millisecond

// lasting are the calls whose response is open: it is the caller's to read, or to
// close. The call of one who does neither ends with its context or its time, as with
// net/http, or when the mesh is closed. Nearly all responses are read within
// milliseconds, and to watch a context costs more than all else at the end of a call:
// so only those are watched that have lasted.
type lasting struct {
	life   context.Context //nolint:containedctx // it ends all of them
	shards [16]lastingShard
	// armed is whether the calls are going to be looked through, rounds how often
	// they were.
	armed  atomic.Bool
	rounds atomic.Uint32
}

type lastingShard struct {
	mu    sync.Mutex
	calls []lastingCall // guarded by mu
	_     [32]byte      // no two shards in one line of a processor's cache
}

type lastingCall struct {
	call    *Call
	round   uint32
	watched bool
}

// place is where a call is among those that may last. number and unwatch are guarded by
// the mu of its shard.
type place struct {
	unwatch func() bool // ends the watch over its context; nil without one
	number  int32       // one more than its index, 0 if it is not there
	shard   uint8
	taken   bool // it was there once
}

// Expirer is an [Adapter] whose calls may last, see [Call.Lasts].
type Expirer interface {
	// Expire ends the call, whose response is open, unless it has ended: the mesh was
	// closed, or the call's context has ended. It runs on a goroutine of its own.
	Expire(cause error)
}

// Lasts is called by the adapter, which is an [Expirer], when the response has begun
// and is the caller's from now on. watched is whether somebody else ends the call with
// its context, or nobody has to.
func (c *Call) Lasts(watched bool) {
	l := &c.out.lasting
	c.place.taken = true
	c.place.shard = uint8(rand.Uint32N(uint32(len(l.shards))))
	s := &l.shards[c.place.shard]
	s.mu.Lock()
	s.calls = append(s.calls, lastingCall{c, l.rounds.Load(), watched})
	c.place.number = int32(len(s.calls))
	s.mu.Unlock()
	switch {
	case l.life.Err() != nil: // close may have been here before
		c.expire(upstream.ErrClosed)
	case !watched:
		l.arm()
	}
}

func (c *Call) expire(cause error) {
	if x, ok := c.adapter.(Expirer); ok {
		x.Expire(cause)
	}
}

// arm has the calls looked through in a while.
func (l *lasting) arm() {
	if l.armed.Load() || !l.armed.CompareAndSwap(false, true) {
		return
	}
	time.AfterFunc(lastingAfter, func() {
		l.armed.Store(false)
		l.look()
	})
}

// look has those watched that have lasted for a round.
func (l *lasting) look() {
	round, again := l.rounds.Add(1), false
	var lasted []*Call
	for i := range l.shards {
		s := &l.shards[i]
		s.mu.Lock()
		for j := range s.calls {
			switch c := &s.calls[j]; {
			case c.watched:
			case round-c.round > 1:
				c.watched = true
				lasted = append(lasted, c.call)
			default:
				again = true
			}
		}
		s.mu.Unlock()
	}
	if again {
		l.arm()
	}
	for _, c := range lasted {
		c.watch(l)
	}
}

// watch has the call end with its context.
func (c *Call) watch(l *lasting) {
	stop := context.AfterFunc(c.ctx, func() {
		if c.out.enter() { // or close ends it
			defer c.out.leave()
			c.expire(context.Cause(c.ctx))
		}
	})
	s := &l.shards[c.place.shard]
	s.mu.Lock()
	ended := c.place.number == 0
	if !ended {
		c.place.unwatch = stop
	}
	s.mu.Unlock()
	if ended {
		stop()
	}
}

// remove takes out a call that has ended.
func (l *lasting) remove(c *Call) {
	if !c.place.taken {
		return
	}
	s := &l.shards[c.place.shard]
	s.mu.Lock()
	s.removeLocked(c)
	stop := c.place.unwatch
	s.mu.Unlock()
	if stop != nil {
		stop()
	}
}

func (s *lastingShard) removeLocked(c *Call) {
	if c.place.number == 0 {
		return
	}
	last := len(s.calls) - 1
	moved := s.calls[last]
	s.calls[c.place.number-1], moved.call.place.number = moved, c.place.number
	c.place.number = 0
	s.calls[last] = lastingCall{}
	s.calls = s.calls[:last]
	const worthKeeping = 64
	if last == 0 && cap(s.calls) > worthKeeping {
		s.calls = nil
	}
}

// close ends all of them and waits until they have. life has ended.
func (l *lasting) close() {
	var ending sync.WaitGroup
	for i := range l.shards {
		s := &l.shards[i]
		s.mu.Lock()
		calls := make([]*Call, len(s.calls))
		for j := range s.calls {
			calls[j] = s.calls[j].call
		}
		s.mu.Unlock()
		for _, c := range calls {
			ending.Go(func() { c.expire(upstream.ErrClosed) })
		}
	}
	ending.Wait()
}
