package ads

import (
	"runtime"
	"sync"
)

// serializer runs functions one after the other, in the order in which they
// were added, on the goroutine that calls run.
type serializer struct {
	added *sync.Cond // its lock guards the fields below

	queue  []func()
	closed bool
	done   chan struct{} // closed when run has returned
}

func newSerializer() *serializer {
	return &serializer{added: sync.NewCond(new(sync.Mutex)), done: make(chan struct{})}
}

// add queues f. It never blocks and may be called with locks held; f runs
// without any.
func (s *serializer) add(f func()) {
	s.added.L.Lock()
	if !s.closed {
		s.queue = append(s.queue, f)
	}
	s.added.L.Unlock()
	s.added.Signal()
}

// run ends after close.
func (s *serializer) run() {
	defer close(s.done)
	for {
		s.added.L.Lock()
		for len(s.queue) == 0 && !s.closed {
			s.added.Wait()
		}
		if s.closed {
			s.added.L.Unlock()
			return
		}
		batch := s.queue
		s.queue = nil
		s.added.L.Unlock()
		for i, f := range batch {
			if s.isClosed() {
				return
			}
			f()
			if i%yieldAfter == yieldAfter-1 {
				runtime.Gosched()
			}
		}
	}
}

func (s *serializer) isClosed() bool {
	s.added.L.Lock()
	defer s.added.L.Unlock()
	return s.closed
}

// flush returns when everything that was added before has run, or when the
// serializer has stopped. It must not be called by one of the functions.
func (s *serializer) flush() {
	flushed := make(chan struct{})
	s.add(func() { close(flushed) })
	select {
	case <-flushed:
	case <-s.done:
	}
}

// close drops what has not begun to run.
func (s *serializer) close() {
	s.added.L.Lock()
	s.closed = true
	s.queue = nil
	s.added.L.Unlock()
	s.added.Signal()
}
