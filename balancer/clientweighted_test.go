package balancer

import (
	"fmt"
	"math"
	"testing"
	"testing/synctest"
	"time"
)

func TestBL8_WeightOfAReport(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		config ClientWeightedConfig
		report LoadReport
		want   float64
	}{
		{"the CPU", ClientWeightedConfig{}, LoadReport{QPS: 100, CPU: 0.5}, 200},
		{"the application before the CPU", ClientWeightedConfig{}, LoadReport{QPS: 100, CPU: 0.5, Application: 0.25}, 400},
		{"errors are punished", ClientWeightedConfig{ErrorPenalty: 1}, LoadReport{QPS: 100, EPS: 50, CPU: 0.5}, 100},
		{"the penalty is a factor", ClientWeightedConfig{ErrorPenalty: 3}, LoadReport{QPS: 100, EPS: 50, CPU: 0.5}, 50},
		{"no requests", ClientWeightedConfig{}, LoadReport{CPU: 0.5}, 0},
		{"no utilization", ClientWeightedConfig{ErrorPenalty: 1}, LoadReport{QPS: 100, EPS: 50}, 0},
		{
			"the largest of the named metrics", ClientWeightedConfig{Metrics: []string{"named_metrics.a", "utilization.b", "mem_utilization"}},
			LoadReport{QPS: 100, CPU: 0.9, Memory: 0.1, Named: map[string]float64{"a": 0.2}, Utilization: map[string]float64{"b": 0.4}}, 250,
		},
		{"a metric that is missing", ClientWeightedConfig{Metrics: []string{"named_metrics.a"}}, LoadReport{QPS: 100, CPU: 0.5}, 200},
		{"not a number", ClientWeightedConfig{}, LoadReport{QPS: math.NaN(), CPU: 0.5}, 0},
		{"infinite", ClientWeightedConfig{}, LoadReport{QPS: math.Inf(1), CPU: 0.5}, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := tt.config.weight(&tt.report); math.Abs(got-tt.want) > 1e-9 {
				t.Errorf("weight %v, want %v", got, tt.want)
			}
		})
	}
}

// reportLoads makes hosts report their utilizations at 100 requests per second.
func reportLoads(s *Set, utilization ...float64) {
	i := 0
	for h := range s.Hosts() {
		if utilization[i] > 0 {
			h.ReportLoad(time.Now(), &LoadReport{QPS: 100, CPU: utilization[i]})
		}
		i++
	}
	s.Reweigh()
}

func TestBL8_WeightsFollowTheReports(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const n = 7_000
		config := Config{Policy: ClientWeighted, ClientWeighted: ClientWeightedConfig{ErrorPenalty: 1}}
		s := seededSet(t, config, LocalityEndpoints{Endpoints: endpoints(3, equalWeights)})
		shares := func(when string, want ...float64) {
			t.Helper()
			got := counts(t, s, n, byAddress)
			for i, share := range want {
				// The order is fixed, so that a round is exact but for the
				// rounding of weights and the rounds' ends.
				if math.Abs(float64(got[address(i)])-share*n) > n/200 {
					t.Errorf("%s: host %d got %d of %d, want %.0f", when, i, got[address(i)], n, share*n)
				}
			}
		}
		shares("without reports", 1./3, 1./3, 1./3)
		reportLoads(s, 0.2, 0.4, 0.8)
		shares("in the blackout", 1./3, 1./3, 1./3)
		time.Sleep(10 * time.Second)
		reportLoads(s, 0.2, 0, 0)
		shares("after the blackout", 4./7, 2./7, 1./7)
		time.Sleep(3*time.Minute - 10*time.Second)
		s.Reweigh()
		shares("with one weight", 1./3, 1./3, 1./3)
		reportLoads(s, 0, 0.4, 0.8)
		shares("in the second blackout", 1./3, 1./3, 1./3)
		time.Sleep(10 * time.Second)
		s.Reweigh()
		shares("a host without a weight has the mean of the others", 1./3, 4./9, 2./9)
	})
}

// Hosts say what they like of themselves. It ends neither the process nor the shares of
// those that have said nothing.
func TestBL8_ReportsMayBeExtreme(t *testing.T) {
	t.Parallel()
	for name, liar := range map[string]LoadReport{
		"many requests":            {CPU: 1, QPS: 1e308},
		"hardly any use":           {CPU: 1e-306, QPS: 100},
		"the largest of all":       {CPU: 1, QPS: math.MaxFloat64},
		"the smallest of all":      {CPU: math.MaxFloat64, QPS: math.SmallestNonzeroFloat64},
		"no number":                {CPU: math.NaN(), QPS: math.NaN()},
		"errors without an end":    {CPU: 1, QPS: 1, EPS: math.MaxFloat64},
		"less than nothing of all": {CPU: -1, QPS: -1, EPS: -1},
	} {
		for _, silent := range []int{0, 1, 2, 5} {
			t.Run(fmt.Sprintf("%s, %d silent", name, silent), func(t *testing.T) {
				t.Parallel()
				config := Config{Policy: ClientWeighted, ClientWeighted: ClientWeightedConfig{Blackout: -1, ErrorPenalty: 1}}
				s := NewSet(config, nil)
				s.Update(config, []LocalityEndpoints{{Weight: 1, Endpoints: endpointsFrom(0, 4+silent)}})
				honest, picked := LoadReport{CPU: 0.5, QPS: 100}, make(map[*Host]int)
				i := 0
				for h := range s.Hosts() {
					switch {
					case i < 2:
						h.ReportLoad(time.Now(), &liar)
					case i < 4:
						h.ReportLoad(time.Now(), &honest)
					}
					i++
				}
				s.Reweigh()
				for range 10_000 {
					h, err := s.Pick(PickInfo{})
					if err != nil {
						t.Fatal(err)
					}
					picked[h]++
				}
				i = 0
				for h := range s.Hosts() {
					// The mean of what is known is what those have that say nothing.
					if i >= 4 && (picked[h] == 0 || picked[h] > 10_000/2) {
						t.Errorf("one of %d silent hosts has %d of 10,000", silent, picked[h])
					}
					i++
				}
			})
		}
	}
}

func TestBL8_OtherPoliciesIgnoreReports(t *testing.T) {
	t.Parallel()
	s := seededSet(t, Config{}, weighted(1, 3))
	reportLoads(s, 0.9, 0.1)
	got := counts(t, s, 400, byAddress)
	if got[address(0)] != 100 {
		t.Errorf("the first host got %d of 400, want 100", got[address(0)])
	}
}
