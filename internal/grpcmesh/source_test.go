package grpcmesh_test

import (
	"fmt"
	"sync"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/watch"
)

// source is a [discovery.Source] whose contents the test sets.
type source struct {
	mu      sync.Mutex
	target  map[string]*watch.Value[discovery.Update[*discovery.Target]]
	inbound map[string]*watch.Value[discovery.Update[*discovery.Inbound]]
	closed  chan struct{}
	wg      sync.WaitGroup
}

var _ discovery.Source = (*source)(nil)

func newSource() *source {
	return &source{
		target:  make(map[string]*watch.Value[discovery.Update[*discovery.Target]]),
		inbound: make(map[string]*watch.Value[discovery.Update[*discovery.Inbound]]),
		closed:  make(chan struct{}),
	}
}

// entry returns the value of a name, making an empty one.
func entry[T any](s *source, values map[string]*watch.Value[T], name string) *watch.Value[T] {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := values[name]
	if v == nil {
		v = new(watch.Value[T])
		values[name] = v
	}
	return v
}

func (s *source) setTarget(name string, t *discovery.Target) {
	entry(s, s.target, name).Store(discovery.Update[*discovery.Target]{Value: t})
}

// forget makes a target one that the control plane does not know.
func (s *source) forget(name string) {
	entry(s, s.target, name).Store(discovery.Update[*discovery.Target]{
		Err: fmt.Errorf("listener %q: %w", name, discovery.ErrNotFound),
	})
}

func (s *source) setInbound(address string, in *discovery.Inbound) {
	entry(s, s.inbound, address).Store(discovery.Update[*discovery.Inbound]{Value: in})
}

// withdraw takes the configuration of a listener away.
func (s *source) withdraw(address string) {
	entry(s, s.inbound, address).Store(discovery.Update[*discovery.Inbound]{Err: discovery.ErrNotFound})
}

func (s *source) targets() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	names := make([]string, 0, len(s.target))
	for name := range s.target {
		names = append(names, name)
	}
	return names
}

func (s *source) WatchTarget(name string, notify func(discovery.Update[*discovery.Target])) (stop func()) {
	return follow(s, entry(s, s.target, name), notify, func(u discovery.Update[*discovery.Target]) bool {
		return u.Value != nil || u.Err != nil
	})
}

func (s *source) WatchInbound(address string, notify func(discovery.Update[*discovery.Inbound])) (stop func()) {
	return follow(s, entry(s, s.inbound, address), notify, func(u discovery.Update[*discovery.Inbound]) bool {
		return u.Value != nil || u.Err != nil
	})
}

// follow tells notify of every state that is set.
func follow[T any](s *source, v *watch.Value[T], notify func(T), set func(T) bool) (stop func()) {
	stopped := make(chan struct{})
	ended := make(chan struct{})
	s.wg.Go(func() { // until stop or Close
		defer close(ended)
		for {
			now, changed := v.Watch()
			if set(now) {
				notify(now)
			}
			select {
			case <-changed:
			case <-stopped:
				return
			case <-s.closed:
				return
			}
		}
	})
	return sync.OnceFunc(func() {
		close(stopped)
		<-ended
	})
}

func (s *source) Close() error {
	close(s.closed)
	s.wg.Wait()
	return nil
}
