package meshotel

import (
	"maps"
	"sync"
	"sync/atomic"
)

// budget is how many series may still be made, shared by all tables of one
// [Telemetry].
type budget struct{ left atomic.Int64 }

func (b *budget) spent() bool { return b.left.Load() <= 0 }

// take reports whether there was one left.
func (b *budget) take() bool { return b.left.Add(-1) >= 0 }

// seriesKey is what a series stands for. All that are past the budget fold
// into their overflow key, of which there are a handful.
type seriesKey[K any] interface {
	comparable
	overflowed() K
	// slot spreads keys that are used at the same time; any number will do.
	slot() int
}

// recentSlots is a power of two.
const recentSlots = 32

// table maps keys to series. A hit takes no lock: the map is copied on write,
// and the budget bounds both its size and how often that happens.
type table[K seriesKey[K], V any] struct {
	budget *budget
	build  func(K) *V

	mu      sync.Mutex // serializes writers
	current atomic.Pointer[map[K]*entry[K, V]]
	// recent holds what was asked for last in each slot: to compare a key
	// costs a fraction of hashing its strings.
	recent [recentSlots]atomic.Pointer[entry[K, V]]
}

type entry[K comparable, V any] struct {
	key   K
	value *V
}

func newTable[K seriesKey[K], V any](b *budget, build func(K) *V) *table[K, V] {
	t := &table[K, V]{budget: b, build: build}
	t.current.Store(&map[K]*entry[K, V]{})
	return t
}

// get returns the series of k, or the one of its overflow key.
func (t *table[K, V]) get(k K) *V {
	recent := &t.recent[uint(k.slot())%recentSlots]
	if e := recent.Load(); e != nil && e.key == k {
		return e.value
	}
	e := (*t.current.Load())[k]
	if e == nil {
		e = t.overflowOr(k)
	}
	recent.Store(e)
	return e.value
}

// overflowOr inserts k, unless the budget is spent.
func (t *table[K, V]) overflowOr(k K) *entry[K, V] {
	if !t.budget.spent() {
		return t.insert(k)
	}
	k = k.overflowed()
	if e := (*t.current.Load())[k]; e != nil {
		return e
	}
	return t.insert(k)
}

func (t *table[K, V]) insert(k K) *entry[K, V] {
	t.mu.Lock()
	defer t.mu.Unlock()
	old := *t.current.Load()
	if e := old[k]; e != nil {
		return e
	}
	if over := k.overflowed(); k != over && !t.budget.take() {
		if e := old[over]; e != nil {
			return e
		}
		k = over
	}
	next := make(map[K]*entry[K, V], len(old)+1)
	maps.Copy(next, old)
	e := &entry[K, V]{key: k, value: t.build(k)}
	next[k] = e
	t.current.Store(&next)
	return e
}

// all returns the series as they are now. The map must not be changed.
func (t *table[K, V]) all() map[K]*entry[K, V] { return *t.current.Load() }

// names is a set of strings that grows up to a limit. Reading takes no lock.
type names struct {
	limit   int
	mu      sync.Mutex // serializes writers
	current atomic.Pointer[map[string]struct{}]
}

func newNames(limit int) *names {
	n := &names{limit: limit}
	n.current.Store(&map[string]struct{}{})
	return n
}

func (n *names) has(name string) bool {
	_, ok := (*n.current.Load())[name]
	return ok
}

// add adds name if there is room for it.
func (n *names) add(name string) {
	if n.has(name) || len(*n.current.Load()) >= n.limit {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	old := *n.current.Load()
	if len(old) >= n.limit {
		return
	}
	next := make(map[string]struct{}, len(old)+1)
	maps.Copy(next, old)
	next[name] = struct{}{}
	n.current.Store(&next)
}
