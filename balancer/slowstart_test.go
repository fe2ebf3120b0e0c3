package balancer

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

func TestBL9_FactorGrows(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		config SlowStart
		after  time.Duration
		want   float64
	}{
		{"the beginning", SlowStart{Window: 10 * time.Second, MinWeightPercent: 10}, 0, 0.1},
		{"the first second counts as one", SlowStart{Window: 5 * time.Second, MinWeightPercent: 10}, 100 * time.Millisecond, 0.2},
		{"half of the window", SlowStart{Window: 10 * time.Second, MinWeightPercent: 10}, 5 * time.Second, 0.5},
		{"the end", SlowStart{Window: 10 * time.Second, MinWeightPercent: 10}, 10 * time.Second, 1},
		{"an aggression of 2", SlowStart{Window: 16 * time.Second, Aggression: 2}, 4 * time.Second, 0.5},
		{"an aggression of a half", SlowStart{Window: 10 * time.Second, Aggression: 0.5}, 5 * time.Second, 0.25},
		{"a minimum of its own", SlowStart{Window: 10 * time.Second, MinWeightPercent: 60}, 5 * time.Second, 0.6},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := tt.config.factor(tt.after); got < tt.want-1e-9 || got > tt.want+1e-9 {
				t.Errorf("factor %v, want %v", got, tt.want)
			}
		})
	}
}

// A host joins nine others. At each time its share is that of its weight times the
// factor, among 9 and that.
func TestBL9_TheShareOfANewHostGrows(t *testing.T) {
	t.Parallel()
	const n = 20_000
	for _, policy := range []Policy{RoundRobin, LeastRequest} {
		t.Run(fmt.Sprintf("policy %d", policy), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				config := Config{Policy: policy, SlowStart: SlowStart{Window: 10 * time.Second, MinWeightPercent: 10}}
				all := endpoints(10, equalWeights)
				s := seededSet(t, config, LocalityEndpoints{Endpoints: all[:9]})
				time.Sleep(time.Minute)
				s.Update(config, []LocalityEndpoints{{Endpoints: all}})
				for _, after := range []time.Duration{0, 2 * time.Second, 5 * time.Second, 8 * time.Second, 10 * time.Second} {
					f := config.SlowStart.factor(after)
					got := counts(t, s, n, byAddress)
					t.Logf("after %v: %d of %d", after, got[all[9].Address], n)
					checkShare(t, fmt.Sprintf("the new host after %v", after), got[all[9].Address], n, f/(9+f))
					time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(nextStep(after))))
				}
			})
		})
	}
}

// nextStep is the way from one time of the test above to the next.
func nextStep(after time.Duration) time.Duration {
	switch after {
	case 0, 8 * time.Second:
		return 2 * time.Second
	}
	return 3 * time.Second
}

func TestBL9_HostsThatAreAllNewShareEqually(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		config := Config{SlowStart: SlowStart{Window: 10 * time.Second, MinWeightPercent: 10}}
		s := seededSet(t, config, LocalityEndpoints{Endpoints: endpoints(4, equalWeights)})
		for host, n := range counts(t, s, 4_000, byAddress) {
			if n < 999 || n > 1_001 {
				t.Errorf("%s got %d of 4000", host, n)
			}
		}
	})
}

// A host that joins unhealthy is new when it is healthy for the first time, and not
// when its configured health comes back later. An active health check that succeeds
// again makes it new each time.
func TestBL9_TheFirstHealthAndChecksStart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const n = 20_000
		config := Config{SlowStart: SlowStart{Window: 10 * time.Second, MinWeightPercent: 10}}
		tell := func(s *Set, health Health) {
			both := endpoints(2, equalWeights)
			both[1].Health = health
			s.Update(config, []LocalityEndpoints{{Endpoints: both}})
		}
		sick := endpoints(2, equalWeights)
		sick[1].Health = Unhealthy
		s := seededSet(t, config, LocalityEndpoints{Endpoints: sick})
		share := func(what string, factor float64) {
			t.Helper()
			checkShare(t, what, counts(t, s, n, byAddress)[address(1)], n, factor/(1+factor))
		}
		time.Sleep(time.Minute)
		tell(s, Healthy)
		time.Sleep(5 * time.Second)
		tell(s, Healthy) // which changes nothing
		share("5 s after the first health", 0.5)
		for _, health := range []Health{Unhealthy, Draining, Degraded} {
			time.Sleep(time.Minute)
			tell(s, health)
			time.Sleep(time.Minute)
			tell(s, Unknown)
			share(fmt.Sprint("back from health ", health), 1)
		}
		var checked *Host
		for h := range s.Hosts() {
			if h.Endpoint().Address == address(1) {
				checked = h
			}
		}
		for range 2 {
			s.SetCheck(checked, Failing)
			time.Sleep(time.Minute)
			s.SetCheck(checked, Passing)
			time.Sleep(5 * time.Second)
			share("5 s after its checks succeeded", 0.5)
		}
	})
}

// A host that has never been healthy has its usual share in a panic.
func TestBL9_APanicStartsNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const n = 20_000
		config := Config{SlowStart: SlowStart{Window: 10 * time.Second, MinWeightPercent: 10}, PanicThreshold: 80}
		sick := endpoints(2, equalWeights)
		sick[1].Health = Unhealthy
		s := seededSet(t, config, LocalityEndpoints{Endpoints: sick})
		time.Sleep(5 * time.Second) // the other one is half warm
		checkShare(t, "the host that is not healthy", counts(t, s, n, byAddress)[address(1)], n, 1/1.5)
	})
}
