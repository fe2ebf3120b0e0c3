package breaker

import (
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A window counts what a list of all results counts.
func TestWindowCountsAsAList(t *testing.T) {
	t.Parallel()
	const seed = 5
	for _, length := range []time.Duration{1, 10, 999, time.Second, 10 * time.Second} {
		t.Run(length.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				type result struct {
					step   int64
					failed bool
				}
				random := rand.New(rand.NewPCG(seed, uint64(length)))
				w := newWindow(length)
				var all []result
				for i := range 2000 {
					switch random.IntN(20) {
					case 0:
						time.Sleep(time.Duration(random.Int64N(int64(3 * length))))
					default:
						time.Sleep(time.Duration(random.Int64N(int64(length/8 + 1))))
					}
					failed := random.IntN(3) == 0
					w.add(failed)
					now := int64(time.Since(w.start) / w.step)
					all = append(all, result{now, failed})
					var successes, failures uint64
					for _, r := range all {
						switch {
						case r.step <= now-windowSteps:
						case r.failed:
							failures++
						default:
							successes++
						}
					}
					if s, f := w.counts(); s != successes || f != failures {
						t.Fatalf("seed %d, result %d: %d successes, %d failures, want %d and %d", seed, i, s, f, successes, failures)
					}
				}
			})
		})
	}
}

// Nothing is lost when many count at once, also in the first moment of a step.
func TestWindowLosesNothing(t *testing.T) {
	t.Parallel()
	w := newWindow(time.Hour)
	const goroutines, each = 8, 1000
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			for range each {
				w.add(g%2 == 0)
			}
		})
	}
	wg.Wait()
	if s, f := w.counts(); s != goroutines/2*each || f != s {
		t.Errorf("%d successes, %d failures, want %d of each", s, f, goroutines/2*each)
	}
}

// Who read the clock long ago counts nothing.
func TestWindowForgetsStepsThatItRolledPast(t *testing.T) {
	t.Parallel()
	w := newWindow(time.Hour)
	if w.at(windowSteps) == nil {
		t.Error("a new step was not made")
	}
	if w.at(0) != nil {
		t.Error("step 0 took the place of a later one")
	}
}
