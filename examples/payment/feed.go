package main

import (
	"maps"
	"slices"
	"sync"

	"github.com/inboardmesh/inboard/examples/paymentpb"
)

// feed tells subscribers of charges. Safe for concurrent use.
type feed struct {
	// ended is closed by end: nothing follows.
	ended chan struct{}

	mu          sync.Mutex
	subscribers map[chan *paymentpb.ChargeReply]struct{} // guarded by mu
}

func newFeed() *feed {
	return &feed{ended: make(chan struct{}), subscribers: make(map[chan *paymentpb.ChargeReply]struct{})}
}

// subscribe returns a channel of the charges to come. The caller must call
// leave.
func (f *feed) subscribe() (charges <-chan *paymentpb.ChargeReply, leave func()) {
	ch := make(chan *paymentpb.ChargeReply, 16)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.subscribers[ch] = struct{}{}
	return ch, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.subscribers, ch)
	}
}

// publish tells everybody who keeps up: a charge does not wait for a watcher.
func (f *feed) publish(charge *paymentpb.ChargeReply) {
	f.mu.Lock()
	subscribers := slices.Collect(maps.Keys(f.subscribers))
	f.mu.Unlock()
	for _, ch := range subscribers {
		select {
		case ch <- charge:
		default:
		}
	}
}

// end may be called once.
func (f *feed) end() { close(f.ended) }
