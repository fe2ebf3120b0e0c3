package meshotel

import (
	"strconv"
	"sync"
	"testing"
)

// testKey puts all keys into one slot.
type testKey struct {
	n        int
	overflow bool
}

func (testKey) overflowed() testKey { return testKey{overflow: true} }
func (testKey) slot() int           { return -3 }

func newTestTable(limit int64) *table[testKey, testKey] {
	b := new(budget)
	b.left.Store(limit)
	return newTable(b, func(k testKey) *testKey { return &k })
}

func TestTableKeepsKeysOfOneSlotApart(t *testing.T) {
	t.Parallel()
	table := newTestTable(10)
	for range 3 {
		for n := range 10 {
			if got := table.get(testKey{n: n}); got.n != n || got.overflow {
				t.Fatalf("key %d got the series %+v", n, *got)
			}
		}
	}
	if got := len(table.all()); got != 10 {
		t.Errorf("%d series, want 10", got)
	}
}

func TestTableFoldsWhatIsPastTheBudget(t *testing.T) {
	t.Parallel()
	table := newTestTable(2)
	for n := range 5 {
		if got := table.get(testKey{n: n}); got.overflow != (n >= 2) {
			t.Errorf("key %d got the series %+v", n, *got)
		}
	}
	if got := table.get(testKey{n: 1}); got.n != 1 {
		t.Errorf("a series from before the limit is lost: got %+v", *got)
	}
	if got := len(table.all()); got != 3 {
		t.Errorf("%d series, want 2 and the overflow", got)
	}
}

func TestTablesShareTheirBudget(t *testing.T) {
	t.Parallel()
	first := newTestTable(1)
	second := newTable(first.budget, func(k testKey) *testKey { return &k })
	first.get(testKey{n: 1})
	if got := second.get(testKey{n: 1}); !got.overflow {
		t.Errorf("got %+v, want the overflow", *got)
	}
}

func TestTableMakesOneSeriesPerKey(t *testing.T) {
	t.Parallel()
	table := newTestTable(50)
	var wg sync.WaitGroup
	var mu sync.Mutex
	seen := make(map[testKey]*testKey)
	for range 8 {
		wg.Go(func() {
			for n := range 100 {
				got := table.get(testKey{n: n})
				mu.Lock()
				if known := seen[*got]; known != nil && known != got {
					t.Errorf("two series of %+v", *got)
				}
				seen[*got] = got
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(seen) != 51 {
		t.Errorf("%d series, want 50 and the overflow", len(seen))
	}
}

func TestNamesStopAtTheirLimit(t *testing.T) {
	t.Parallel()
	n := newNames(3)
	for i := range 10 {
		n.add(strconv.Itoa(i))
		n.add("0")
	}
	for i := range 10 {
		if got := n.has(strconv.Itoa(i)); got != (i < 3) {
			t.Errorf("has %d: %v", i, got)
		}
	}
}
