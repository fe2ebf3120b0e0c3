package fault

import (
	"context"
	"errors"
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/filter"
)

const everyCall = 1_000_000 // per million

func TestS28_BF1_DelayAndAbortAreDrawnIndependently(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const draws = 10_000
		var faults Faults
		injector := faults.Filter(&discovery.Fault{
			Delay: &discovery.FaultDelay{Fixed: time.Second, PerMillion: 50_000},
			Abort: &discovery.FaultAbort{HTTPStatus: 503, PerMillion: 200_000},
		})
		counts := map[string]int{}
		for range draws {
			begin := time.Now()
			answer, err := injector.Request(t.Context(), &filter.Exchange{})
			if err != nil {
				t.Fatal(err)
			}
			delayed := time.Since(begin) == time.Second
			if time.Since(begin) != 0 && !delayed {
				t.Fatalf("it took %v", time.Since(begin))
			}
			switch {
			case delayed && answer != nil:
				counts["both"]++
			case delayed:
				counts["delay"]++
			case answer != nil:
				counts["abort"]++
			}
		}
		for name, p := range map[string]float64{"both": 0.2 * 0.05, "delay": 0.05 * 0.8, "abort": 0.2 * 0.95} {
			// Five standard deviations: one failure in 1.7 million runs.
			tolerance := 5 * math.Sqrt(p*(1-p)/draws)
			if got := float64(counts[name]) / draws; math.Abs(got-p) > tolerance {
				t.Errorf("%s: %v of the calls, want %v ± %v", name, got, p, tolerance)
			}
		}
	})
}

func TestBF3_MaxActiveFaults(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const calls = 10
		var faults Faults
		capped := &discovery.Fault{Delay: &discovery.FaultDelay{Fixed: time.Second, PerMillion: everyCall}, MaxActive: 3}
		other := &discovery.Fault{Delay: &discovery.FaultDelay{Fixed: time.Second, PerMillion: everyCall}, MaxActive: 3}
		for range 2 { // the places are free again after the first round
			var mu sync.Mutex
			delayed := map[*discovery.Fault]int{}
			var wg sync.WaitGroup
			begin := time.Now()
			for _, fault := range []*discovery.Fault{capped, other} {
				for range calls {
					wg.Go(func() {
						if _, err := faults.Filter(fault).Request(t.Context(), &filter.Exchange{}); err != nil {
							t.Error(err)
						}
						if time.Since(begin) > 0 {
							mu.Lock()
							defer mu.Unlock()
							delayed[fault]++
						}
					})
				}
			}
			wg.Wait()
			if delayed[capped] != 3 || delayed[other] != 3 {
				t.Errorf("%d and %d calls were delayed, want 3 each", delayed[capped], delayed[other])
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := faults.Filter(capped).Request(ctx, &filter.Exchange{}); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		if len(faults.active) != 0 {
			t.Errorf("%d faults are counted as active", len(faults.active))
		}
	})
}
