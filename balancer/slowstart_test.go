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

func TestBL9_AHostThatHasBecomeHealthyStartsAnew(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const n = 20_000
		config := Config{SlowStart: SlowStart{Window: 10 * time.Second, MinWeightPercent: 10}}
		sick := endpoints(2, equalWeights)
		sick[1].Health = Unhealthy
		s := seededSet(t, config, LocalityEndpoints{Endpoints: sick})
		time.Sleep(time.Minute)
		s.Update(config, []LocalityEndpoints{{Endpoints: endpoints(2, equalWeights)}})
		time.Sleep(5 * time.Second)
		s.Update(config, []LocalityEndpoints{{Endpoints: endpoints(2, equalWeights)}}) // which changes nothing
		got := counts(t, s, n, byAddress)
		checkShare(t, "the host that returned", got[address(1)], n, 0.5/1.5)
	})
}
