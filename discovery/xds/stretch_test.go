package xds

import (
	"runtime"
	"testing"
	"time"

	"github.com/inboardmesh/inboard/internal/cputime"
)

// BenchmarkLongestStretch is a destination that gets 10,000 new clusters, on one
// processor: stretch-ns is the longest that somebody else who is ready to run waits for
// it, in processor time. A goroutine that never yields is stopped after 10 ms; the
// baseline is that.
func BenchmarkLongestStretch(b *testing.B) {
	if _, ok := cputime.Used(); !ok {
		b.Skip("the processor time of a process cannot be read here")
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	names := manyNames(10_000)
	var longest time.Duration
	for b.Loop() {
		w := newWorld()
		w.set(apiListener("r"))
		w.set(manyRoutes(names, names))
		_, stop := w.watchTarget()
		done, watching := make(chan struct{}), make(chan time.Duration)
		go func() {
			var most time.Duration
			for {
				select {
				case <-done:
					watching <- most
					return
				default:
				}
				before, _ := cputime.Used()
				runtime.Gosched()
				after, _ := cputime.Used()
				most = max(most, after-before)
			}
		}()
		w.pump()
		close(done)
		longest = max(longest, <-watching)
		stop()
	}
	b.ReportMetric(float64(longest), "stretch-ns")
}
