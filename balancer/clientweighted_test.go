package balancer

import (
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

func TestBL8_OtherPoliciesIgnoreReports(t *testing.T) {
	t.Parallel()
	s := seededSet(t, Config{}, weighted(1, 3))
	reportLoads(s, 0.9, 0.1)
	got := counts(t, s, 400, byAddress)
	if got[address(0)] != 100 {
		t.Errorf("the first host got %d of 400, want 100", got[address(0)])
	}
}
