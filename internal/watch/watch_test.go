package watch

import (
	"sync"
	"testing"
	"testing/synctest"
)

func TestZeroValueHoldsTheZeroValue(t *testing.T) {
	t.Parallel()
	var v Value[int]
	if got := v.Load(); got != 0 {
		t.Errorf("Load() = %d, want 0", got)
	}
}

func TestStoreWakesEveryWaiter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var v Value[string]
		const waiters = 10
		got := make(chan string, waiters)
		for range waiters {
			go func() {
				value, changed := v.Watch()
				for value != "last" {
					<-changed
					value, changed = v.Watch()
				}
				got <- value
			}()
		}
		synctest.Wait()
		v.Store("first")
		synctest.Wait()
		v.Store("last")
		synctest.Wait()
		if len(got) != waiters {
			t.Errorf("%d of %d waiters saw the last value", len(got), waiters)
		}
	})
}

func TestWatchersOfOneValueShareAChannel(t *testing.T) {
	t.Parallel()
	var v Value[int]
	_, a := v.Watch()
	_, b := v.Watch()
	if a != b {
		t.Error("two watches of the same value have different channels")
	}
	v.Store(0) // an equal value is a change, too: values need not be comparable
	select {
	case <-a:
	default:
		t.Error("the channel is open after a Store")
	}
	if _, c := v.Watch(); c == a {
		t.Error("the channel of a replaced value was given out again")
	}
}

// A watcher that reads the value with its channel never misses the newest.
func TestNoWaiterMissesTheNewestValue(t *testing.T) {
	t.Parallel()
	var v Value[int]
	const last = 1000
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			seen := 0
			for seen != last {
				value, changed := v.Watch()
				if value < seen {
					t.Errorf("saw %d after %d", value, seen)
					return
				}
				if seen = value; seen != last {
					<-changed
				}
			}
		})
	}
	for i := 1; i <= last; i++ {
		v.Store(i)
	}
	wg.Wait()
}
