package balancer

import (
	"context"
	"sync"
)

// changes wakes those who wait until picks find other hosts. Nobody who does not wait
// pays for it.
type changes struct {
	mu   sync.Mutex
	next context.Context //nolint:containedctx // guarded by mu; ends with the next change; nil while nobody waits
	end  context.CancelFunc
}

// AfterChange calls f once, on a goroutine of its own, when picks may find hosts that
// they did not find before: one has come, has passed its checks, or is not ejected any
// more. stop keeps it from being called, and reports whether it did. It is for calls
// that wait for a host. Safe for concurrent use.
//
// A change between a pick and AfterChange is missed: who was told that there is no
// host must pick again afterwards.
func (s *Set) AfterChange(f func()) (stop func() bool) {
	c := &s.changes
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.next == nil {
		c.next, c.end = context.WithCancel(context.Background())
	}
	return context.AfterFunc(c.next, f)
}

// Changed tells those who wait with AfterChange of a change that the set does not see:
// a host refuses no more, see [PickInfo.Refuses]. Safe for concurrent use.
func (s *Set) Changed() {
	c := &s.changes
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.next != nil {
		c.end()
		c.next, c.end = nil, nil
	}
}
