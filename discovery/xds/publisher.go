package xds

import (
	"log/slog"
	"sync"
)

// publisher calls the notify functions of all followers on one goroutine, one
// at a time. A follower that changes again before its turn has one turn: it
// delivers the latest state. So a slow notify holds up neither the stream nor
// anything that queues.
type publisher struct {
	// logger is told of what is held back.
	logger *slog.Logger
	// strict holds no route back for a cluster that does not exist or is refused: the
	// control plane has asked for its errors to be those of calls (gRFC A88).
	strict strictness

	added  *sync.Cond // its lock guards the fields below
	queue  []deliverer
	queued map[deliverer]struct{}
	closed bool
}

// deliverer tells its latest state to whom it concerns, if that is news.
type deliverer interface{ deliver() }

func newPublisher() *publisher {
	return &publisher{logger: slog.New(slog.DiscardHandler), added: sync.NewCond(new(sync.Mutex)), queued: make(map[deliverer]struct{})}
}

// add gives d a turn. It never blocks and may be called with locks held.
func (p *publisher) add(d deliverer) {
	p.added.L.Lock()
	if _, ok := p.queued[d]; !ok && !p.closed {
		p.queued[d] = struct{}{}
		p.queue = append(p.queue, d)
	}
	p.added.L.Unlock()
	p.added.Signal()
}

// run ends after close.
func (p *publisher) run() {
	for {
		p.added.L.Lock()
		for len(p.queue) == 0 && !p.closed {
			p.added.Wait()
		}
		p.added.L.Unlock()
		d, ok := p.take()
		if !ok {
			return
		}
		d.deliver()
	}
}

// take returns whose turn it is; ok is false if there is none.
func (p *publisher) take() (d deliverer, ok bool) {
	p.added.L.Lock()
	defer p.added.L.Unlock()
	if len(p.queue) == 0 {
		return nil, false
	}
	d = p.queue[0]
	p.queue[0] = nil // what waits must not keep what is done alive
	p.queue = p.queue[1:]
	delete(p.queued, d)
	return d, true
}

// close drops all turns that have not begun.
func (p *publisher) close() {
	p.added.L.Lock()
	p.closed = true
	p.queue, p.queued = nil, make(map[deliverer]struct{})
	p.added.L.Unlock()
	p.added.Signal()
}
