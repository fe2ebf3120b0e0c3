package breaker

import (
	"fmt"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
)

// resource is one thing that a gate limits.
type resource struct {
	name    string
	try     func(*Gate) bool
	release func(*Gate)
	limits  func(uint32) Limits
	used    func(Usage) uint32
}

var resources = []resource{
	{
		"Connection", (*Gate).TryConnection, (*Gate).ReleaseConnection,
		func(n uint32) Limits { return Limits{MaxConnections: n} }, func(u Usage) uint32 { return u.Connections },
	},
	{
		"Pending", (*Gate).TryPending, (*Gate).ReleasePending,
		func(n uint32) Limits { return Limits{MaxPendingRequests: n} }, func(u Usage) uint32 { return u.Pending },
	},
	{
		"Request", (*Gate).TryRequest, (*Gate).ReleaseRequest,
		func(n uint32) Limits { return Limits{MaxRequests: n} }, func(u Usage) uint32 { return u.Requests },
	},
	{
		"Retry", (*Gate).TryRetry, (*Gate).ReleaseRetry,
		func(n uint32) Limits { return Limits{MaxRetries: n} }, func(u Usage) uint32 { return u.Retries },
	},
}

// take tries n times and returns how often it succeeded.
func take(r resource, g *Gate, n int) int {
	got := 0
	for range n {
		if r.try(g) {
			got++
		}
	}
	return got
}

func TestBC1_DefaultLimits(t *testing.T) {
	t.Parallel()
	want := map[string]int{"Connection": 1024, "Pending": 1024, "Request": 1024, "Retry": 3}
	for _, r := range resources {
		g := NewGate(DefaultLimits)
		if got := take(r, g, 2000); got != want[r.name] {
			t.Errorf("%s: %d of 2000 were admitted, want %d", r.name, got, want[r.name])
		}
		if got := r.used(g.Usage()); got != uint32(want[r.name]) {
			t.Errorf("%s: usage %d, want %d", r.name, got, want[r.name])
		}
	}
}

func TestBC1_EachResourceHasItsOwnLimit(t *testing.T) {
	t.Parallel()
	for _, r := range resources {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			g := NewGate(r.limits(2))
			for _, other := range resources {
				want := 0 // a limit of 0 refuses everything
				if other.name == r.name {
					want = 2
				}
				if got := take(other, g, 5); got != want {
					t.Errorf("%s: %d admitted, want %d", other.name, got, want)
				}
			}
			r.release(g)
			if got := take(r, g, 5); got != 1 {
				t.Errorf("after a release %d admitted, want 1", got)
			}
		})
	}
}

func TestBC1_HugeLimitsDoNotLimit(t *testing.T) {
	t.Parallel()
	for _, r := range resources {
		g := NewGate(r.limits(math.MaxUint32))
		if got := take(r, g, 100_000); got != 100_000 {
			t.Errorf("%s: %d of 100000 admitted", r.name, got)
		}
	}
}

func TestZeroGateRefusesEverything(t *testing.T) {
	t.Parallel()
	var g Gate
	for _, r := range resources {
		if r.try(&g) {
			t.Errorf("%s: admitted", r.name)
		}
	}
	g.SetLimits(DefaultLimits)
	for _, r := range resources {
		if !r.try(&g) {
			t.Errorf("%s: refused after limits were set", r.name)
		}
	}
}

func TestBC3_LoweringActsOnNewOnes(t *testing.T) {
	t.Parallel()
	for _, r := range resources {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			g := NewGate(r.limits(10))
			take(r, g, 10)
			g.SetLimits(r.limits(4))
			if got := r.used(g.Usage()); got != 10 {
				t.Errorf("lowering changed the count to %d, want 10", got)
			}
			for left := 10; left > 4; left-- {
				if r.try(g) {
					t.Fatalf("admitted with %d in flight and a limit of 4", left)
				}
				r.release(g)
			}
			if r.try(g) {
				t.Error("admitted with 4 in flight and a limit of 4")
			}
			r.release(g)
			if !r.try(g) {
				t.Error("refused with 3 in flight and a limit of 4")
			}
			g.SetLimits(r.limits(6))
			if got := take(r, g, 10); got != 2 {
				t.Errorf("raising to 6 admitted %d more, want 2 at once", got)
			}
		})
	}
}

// However an attempt ends, its permit comes back exactly once.
func TestBC5_PermitsComeBackExactlyOnce(t *testing.T) {
	t.Parallel()
	for _, r := range resources {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			g := NewGate(r.limits(1))
			attempt := func(end func()) {
				if !r.try(g) {
					t.Error("the permit before did not come back")
					return
				}
				defer r.release(g)
				end()
			}
			ends := map[string]func(){
				"return": func() {},
				"panic":  func() { panic("handler") },
				"Goexit": runtime.Goexit,
			}
			for name, end := range ends {
				var wg sync.WaitGroup
				wg.Go(func() {
					defer func() {
						if r := recover(); r != nil && name != "panic" {
							t.Error(r)
						}
					}()
					attempt(end)
				})
				wg.Wait()
				if got := r.used(g.Usage()); got != 0 {
					t.Errorf("%d in flight after %s, want 0", got, name)
				}
			}
		})
	}
}

func TestReleaseWithoutTryPanics(t *testing.T) {
	t.Parallel()
	for _, r := range resources {
		func() {
			defer func() {
				want := fmt.Sprintf("breaker: Release%s without Try%s", r.name, r.name)
				if got := recover(); got != want {
					t.Errorf("panic %v, want %q", got, want)
				}
			}()
			r.release(NewGate(DefaultLimits))
		}()
	}
}

func TestBR10_RetryBudget(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name              string
		percent           float64
		minimum           uint32
		requests, pending int
		want              int
	}{
		{"the minimum is always allowed", 20, 3, 0, 0, 3},
		{"the minimum is more than the share", 20, 3, 10, 4, 3},
		{"the share is rounded down", 20, 3, 19, 0, 3},
		{"the share is more than the minimum", 20, 3, 20, 0, 4},
		{"pending requests count", 20, 3, 60, 40, 20},
		{"a fraction of a percent", 0.5, 0, 400, 0, 2},
		{"nothing", 0, 0, 100, 0, 0},
		{"everything", 100, 0, 100, 0, 100},
		{"more than everything", 200, 0, 50, 50, 200},
		{"without a bound", math.Inf(1), 0, 1, 0, 300},
		{"negative", -5, 2, 100, 0, 2},
		{"not a number", math.NaN(), 2, 100, 0, 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			g := NewGate(DefaultLimits)
			g.SetRetryBudget(tt.percent, tt.minimum, true)
			for range tt.requests {
				g.TryRequest()
			}
			for range tt.pending {
				g.TryPending()
			}
			if got := take(resources[3], g, 300); got != tt.want {
				t.Errorf("%d retries admitted, want %d", got, tt.want)
			}
		})
	}
}

func TestBR10_BudgetOverridesMaxRetries(t *testing.T) {
	t.Parallel()
	retries := resources[3]
	g := NewGate(Limits{MaxRetries: 5, MaxRequests: 100})
	g.SetRetryBudget(20, 8, true)
	if got := take(retries, g, 20); got != 8 {
		t.Errorf("with a budget %d retries admitted, want 8", got)
	}
	g.SetLimits(Limits{MaxRetries: 1})
	if !g.current().budget.enabled {
		t.Error("new limits ended the budget")
	}
	g.SetRetryBudget(20, 8, false)
	for range 8 {
		g.ReleaseRetry()
	}
	if got := take(retries, g, 20); got != 1 {
		t.Errorf("without a budget %d retries admitted, want 1", got)
	}
}

// All requests fail: what goes upstream is bounded by the budget.
func TestBR10_AFailingClusterGetsAFifthMore(t *testing.T) {
	t.Parallel()
	g := NewGate(Limits{MaxRequests: math.MaxUint32})
	g.SetRetryBudget(20, 3, true)
	const inFlight = 500
	for range inFlight {
		g.TryRequest()
	}
	retries := 0
	for range inFlight { // each of them wants a retry
		if g.TryRetry() {
			retries++
		}
	}
	if retries != inFlight/5 {
		t.Errorf("%d retries in flight beside %d requests, want a fifth", retries, inFlight)
	}
}

func TestRacingGoroutinesNeverExceedTheLimit(t *testing.T) {
	t.Parallel()
	for _, r := range resources {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			const limit = 7
			g := NewGate(r.limits(limit))
			var inFlight, most, admitted atomic.Int64
			var wg sync.WaitGroup
			for range 16 {
				wg.Go(func() {
					for range 2_000 {
						if r.used(g.Usage()) > limit {
							t.Error("usage is over the limit")
						}
						if !r.try(g) {
							continue
						}
						n := inFlight.Add(1)
						for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
						}
						admitted.Add(1)
						runtime.Gosched()
						inFlight.Add(-1)
						r.release(g)
					}
				})
			}
			wg.Wait()
			if most.Load() > limit {
				t.Errorf("%d in flight at once, want at most %d", most.Load(), limit)
			}
			if r.used(g.Usage()) != 0 || admitted.Load() == 0 {
				t.Errorf("usage %+v after %d permits, want 0", g.Usage(), admitted.Load())
			}
		})
	}
}

func TestLimitsChangeWhileInUse(t *testing.T) {
	t.Parallel()
	g := NewGate(DefaultLimits)
	var done atomic.Bool
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for !done.Load() {
				for _, r := range resources {
					if r.try(g) {
						r.release(g)
					}
				}
			}
		})
	}
	var setters sync.WaitGroup
	setters.Go(func() {
		for i := range uint32(500) {
			g.SetLimits(Limits{MaxRequests: i, MaxRetries: i})
		}
	})
	setters.Go(func() {
		for i := range uint32(500) {
			g.SetRetryBudget(20, i, true)
		}
	})
	setters.Wait()
	done.Store(true)
	wg.Wait()
	if g.Usage() != (Usage{}) {
		t.Errorf("usage %+v at the end, want none", g.Usage())
	}
	want := gateConfig{limits: Limits{MaxRequests: 499, MaxRetries: 499}, budget: retryBudget{enabled: true, percent: 20, minConcurrency: 499}}
	if got := g.current(); got != want {
		t.Errorf("configuration %+v, want %+v: one setter undid the other", got, want)
	}
}

func TestGateAllocatesNothing(t *testing.T) {
	g := NewGate(DefaultLimits)
	g.SetRetryBudget(20, 3, true)
	if n := testing.AllocsPerRun(100, func() {
		for _, r := range resources {
			if r.try(g) {
				r.release(g)
			}
		}
		_ = g.Usage()
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

func BenchmarkGateRequest(b *testing.B) {
	g := NewGate(DefaultLimits)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if g.TryRequest() {
				g.ReleaseRequest()
			}
		}
	})
}
