package controlplane

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"

	"github.com/inboardmesh/inboard/internal/watch"
)

// removalDelay is for how long clusters and endpoints outlive the
// configuration that they were in. A client replaces its routes in
// milliseconds.
const removalDelay = time.Second

// pushOrder is the order in which a change goes to a client, so that what is
// named is there before what names it (xDS protocol, "eventual consistency
// considerations").
var pushOrder = []string{resource.ClusterType, resource.EndpointType, resource.ListenerType, resource.RouteType}

// pending is one request that waits for something to say.
type pending struct {
	client  *client
	typeURL string
	// answer sends the answer that the snapshot gives, if it gives one. It
	// never blocks.
	answer func(*snapshot) (sent bool, err error)

	mu   sync.Mutex
	done bool // guarded by mu
}

// try answers if it can, at most once.
func (p *pending) try(from *snapshot) (done bool, err error) {
	// The lock is held while the answer goes into go-control-plane's buffered
	// channel, because nothing may be sent after cancel: the channel is closed
	// then.
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.done {
		p.done, err = p.answer(from)
	}
	return p.done, err
}

func (p *pending) cancel() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done = true
}

// watches holds the snapshot and who waits for the next one.
type watches struct {
	current watch.Value[*snapshot]

	mu      sync.Mutex
	waiting map[*pending]struct{} // guarded by mu
	since   []time.Time           // guarded by mu; when each of the retired was
}

func newWatches(config resources) *watches {
	w := &watches{waiting: make(map[*pending]struct{})}
	w.current.Store(&snapshot{current: &generation{config: config}})
	return w
}

// add answers the request now, or as soon as there is something to say. Both
// orders of a concurrent push are right: what is there before the request
// waits is seen by try, and what comes after finds it waiting.
func (w *watches) add(p *pending) (cancel func(), err error) {
	w.mu.Lock()
	w.waiting[p] = struct{}{}
	w.mu.Unlock()
	cancel = func() {
		p.cancel()
		w.remove(p)
	}
	done, err := p.try(w.current.Load())
	if done || err != nil {
		cancel()
	}
	return cancel, err
}

func (w *watches) remove(p *pending) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.waiting, p)
}

// replace serves a new configuration from now on. push tells the clients.
func (w *watches) replace(config resources) {
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	old := w.current.Load()
	retired := append([]*generation{old.current}, old.retired...)
	w.since = append([]time.Time{now}, w.since...)
	retired, w.since = young(retired, w.since, now)
	w.current.Store(&snapshot{current: &generation{config: config}, retired: retired})
}

// young drops what was retired removalDelay ago. The latest come first.
func young(retired []*generation, since []time.Time, now time.Time) ([]*generation, []time.Time) {
	n := 0
	for n < len(since) && now.Sub(since[n]) < removalDelay {
		n++
	}
	return retired[:n:n], since[:n:n]
}

// run ends what was retired, when its time has come. It returns when ctx ends.
func (w *watches) run(ctx context.Context, report func([]error)) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		_, changed := w.current.Watch()
		if oldest, ok := w.oldest(); ok {
			timer.Reset(removalDelay - time.Since(oldest))
		} else {
			timer.Stop()
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-timer.C:
			w.expire()
			report(w.push())
		}
	}
}

func (w *watches) oldest() (time.Time, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.since) == 0 {
		return time.Time{}, false
	}
	return w.since[len(w.since)-1], true
}

func (w *watches) expire() {
	w.mu.Lock()
	defer w.mu.Unlock()
	old := w.current.Load()
	next := &snapshot{current: old.current}
	next.retired, w.since = young(old.retired, w.since, time.Now())
	w.current.Store(next)
}

// push answers whoever waits and is concerned, client by client and type by
// type. It returns the error of each resource that could not be encoded; the
// clients that want those keep what they have.
func (w *watches) push() []error {
	w.mu.Lock()
	all := make([]*pending, 0, len(w.waiting))
	for p := range w.waiting {
		all = append(all, p)
	}
	w.mu.Unlock()
	slices.SortFunc(all, func(a, b *pending) int {
		return cmp.Or(
			cmp.Compare(a.client.number, b.client.number),
			cmp.Compare(slices.Index(pushOrder, a.typeURL), slices.Index(pushOrder, b.typeURL)),
		)
	})
	var errs []error
	for _, p := range all {
		done, err := p.try(w.current.Load())
		if done {
			w.remove(p)
		}
		if err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}
