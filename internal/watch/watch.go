// Package watch holds one value that many goroutines read and wait for.
package watch

import "sync"

// Value holds the latest T. Readers get it together with a channel that is
// closed at the next change, so every waiter wakes and none can miss the
// newest value. Intermediate values may be skipped: the latest wins. The zero
// Value holds the zero T. Safe for concurrent use.
type Value[T any] struct {
	mu      sync.RWMutex
	value   T             // guarded by mu
	changed chan struct{} // guarded by mu; nil until somebody waits
}

// Load returns the current value.
func (v *Value[T]) Load() T {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.value
}

// Store replaces the value and wakes everybody who waits.
func (v *Value[T]) Store(value T) {
	v.mu.Lock()
	changed := v.changed
	v.value, v.changed = value, nil
	v.mu.Unlock()
	if changed != nil {
		close(changed)
	}
}

// Watch returns the current value and a channel that is closed when it is
// replaced.
func (v *Value[T]) Watch() (T, <-chan struct{}) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.changed == nil {
		v.changed = make(chan struct{})
	}
	return v.value, v.changed
}
