package balancer

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/inboardmesh/inboard/outcome"
)

var (
	ok200       = outcome.Outcome{Kind: outcome.Response, Status: 200, Sent: true}
	internal500 = outcome.Outcome{Kind: outcome.Response, Status: 500, Sent: true}
	gateway503  = outcome.Outcome{Kind: outcome.Response, Status: 503, Sent: true}
	refused     = outcome.Outcome{Kind: outcome.ConnectFailure}
)

// consecutiveOnly ejects after so many failures in a row, and for no other reason.
func consecutiveOnly(threshold uint32) OutlierConfig {
	c := DefaultOutlierConfig()
	c.Consecutive5xx.Threshold = threshold
	c.SuccessRate.Enforcing, c.SuccessRate.EnforcingLocal = 0, 0
	return c
}

// ratesOnly ejects by success rate.
func ratesOnly() OutlierConfig {
	c := DefaultOutlierConfig()
	c.Consecutive5xx.Enforcing, c.ConsecutiveLocal.Enforcing = 0, 0
	c.MaxEjectionPercent = 100
	return c
}

// watched returns a set of n hosts with a policy, and its hosts.
func watched(t *testing.T, n int, config OutlierConfig) (*Set, []*Host) {
	t.Helper()
	s := seededSet(t, Config{}, LocalityEndpoints{Endpoints: endpoints(n, equalWeights)})
	s.SetOutlier(&config)
	var hosts []*Host
	for h := range s.Hosts() {
		hosts = append(hosts, h)
	}
	return s, hosts
}

// report tells n outcomes and returns the reasons of the ejections.
func report(h *Host, o outcome.Outcome, n int) []string {
	var reasons []string
	for range n {
		if e, ok := h.Report(&o); ok {
			reasons = append(reasons, e.Reason.String())
		}
	}
	return reasons
}

func isEjected(h *Host) bool {
	_, ejected := h.Ejected()
	return ejected
}

// sweepAfter waits and sweeps. It returns what changed, as text.
func sweepAfter(s *Set, d time.Duration) []string {
	time.Sleep(d)
	var changes []string
	for _, e := range s.Sweep() {
		what := "ejected"
		if e.Returned {
			what = "returned"
		}
		changes = append(changes, fmt.Sprintf("%s %s: %s", e.Host.Endpoint().Address, what, e.Reason))
	}
	return changes
}

func expect(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func TestBO2_ConsecutiveFailures(t *testing.T) {
	t.Parallel()
	split := func(c *OutlierConfig) { c.SplitLocalOrigin = true }
	gateway := func(c *OutlierConfig) {
		c.ConsecutiveGateway = ConsecutiveFailures{Threshold: 3, Enforcing: 100}
	}
	const (
		fives    = "consecutive-5xx"
		gateways = "consecutive-gateway-failure"
		locals   = "consecutive-local-origin-failure"
	)
	response := func(status int) outcome.Outcome {
		return outcome.Outcome{Kind: outcome.Response, Status: status, Sent: true}
	}
	code := func(c uint32) outcome.Outcome {
		return outcome.Outcome{Kind: outcome.Response, GRPC: true, Code: c, Sent: true}
	}
	broken := func(k outcome.Kind) outcome.Outcome { return outcome.Outcome{Kind: k, Sent: true} }
	type step struct {
		o outcome.Outcome
		n int
	}
	tests := []struct {
		name  string
		edit  func(*OutlierConfig)
		steps []step
		want  []string
	}{
		{"four failures are not enough", nil, []step{{internal500, 4}}, nil},
		{"the fifth ejects", nil, []step{{internal500, 5}}, []string{fives}},
		{"a success begins a new row", nil, []step{{internal500, 4}, {ok200, 1}, {internal500, 4}}, nil},
		{"a client's error is a success", nil, []step{{internal500, 4}, {response(404), 1}, {internal500, 4}}, nil},
		{"an ignored outcome is neither", nil, []step{{internal500, 4}, {broken(outcome.Canceled), 9}, {internal500, 1}}, []string{fives}},
		{"every 5xx counts", nil, []step{{response(500), 1}, {response(501), 1}, {response(502), 1}, {response(505), 1}, {response(599), 1}}, []string{fives}},
		{"the gRPC codes of Envoy's 5xx count", nil, []step{{code(2), 1}, {code(4), 1}, {code(12), 1}, {code(13), 1}, {code(14), 1}}, []string{fives}},
		{"DATA_LOSS counts", nil, []step{{code(15), 5}}, []string{fives}},
		{"the other gRPC codes do not", nil, []step{
			{code(0), 5}, {code(1), 5}, {code(3), 5}, {code(5), 5}, {code(6), 5}, {code(7), 5}, {code(8), 5}, {code(9), 5}, {code(10), 5}, {code(11), 5}, {code(16), 5},
		}, nil},
		{"HTTP and gRPC share a row", nil, []step{{internal500, 3}, {code(14), 2}}, []string{fives}},
		{"without the split local failures count too", nil, []step{{refused, 2}, {internal500, 2}, {broken(outcome.Reset), 1}}, []string{fives}},

		{"gateway failures are not enforced by default", func(c *OutlierConfig) { c.Consecutive5xx.Enforcing = 0 }, []step{{gateway503, 50}}, nil},
		{"gateway failures have their own row", gateway, []step{{gateway503, 3}}, []string{gateways}},
		{"502 and 504 are gateway failures", gateway, []step{{response(502), 2}, {response(504), 1}}, []string{gateways}},
		{"another 5xx ends their row", gateway, []step{{gateway503, 2}, {internal500, 1}, {gateway503, 1}}, nil},
		{"UNAVAILABLE and DEADLINE_EXCEEDED are gateway failures", gateway, []step{{code(14), 2}, {code(4), 1}}, []string{gateways}},
		{"INTERNAL is not", gateway, []step{{code(14), 2}, {code(13), 1}, {code(14), 1}}, nil},
		{"without the split local failures are gateway failures", gateway, []step{{refused, 2}, {broken(outcome.PerTryTimeout), 1}}, []string{gateways}},
		{"both rows at once eject once", func(c *OutlierConfig) {
			c.ConsecutiveGateway = ConsecutiveFailures{Threshold: 5, Enforcing: 100}
			c.Consecutive5xx.Enforcing = 1
		}, []step{{gateway503, 5}}, []string{gateways}},

		{"with the split local failures have their own row", split, []step{{refused, 5}}, []string{locals}},
		{"every kind of them", split, []step{
			{broken(outcome.Reset), 1}, {broken(outcome.PerTryTimeout), 1}, {broken(outcome.Timeout), 1}, {broken(outcome.RefusedStream), 1}, {broken(outcome.ResetBeforeRequest), 1},
		}, []string{locals}},
		{"a failing response ends the row of local failures", split, []step{{refused, 4}, {internal500, 1}, {refused, 4}}, nil},
		{"a local failure leaves the row of responses", split, []step{{internal500, 4}, {refused, 4}, {internal500, 1}}, []string{fives}},
		{"local failures are not enforced without the split", func(c *OutlierConfig) { c.Consecutive5xx.Enforcing = 0 }, []step{{refused, 50}}, nil},
		{"0 failures means never", func(c *OutlierConfig) { c.Consecutive5xx.Threshold = 0 }, []step{{internal500, 50}}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			config := consecutiveOnly(5)
			if tt.edit != nil {
				tt.edit(&config)
			}
			_, hosts := watched(t, 5, config)
			var got []string
			for _, s := range tt.steps {
				got = append(got, report(hosts[0], s.o, s.n)...)
			}
			expect(t, "ejections", got, tt.want...)
			if isEjected(hosts[0]) != (tt.want != nil) {
				t.Errorf("ejected: %t", isEjected(hosts[0]))
			}
		})
	}
}

func TestNobodysFaultIsNotCounted(t *testing.T) {
	t.Parallel()
	for _, o := range []outcome.Outcome{
		{Kind: outcome.Canceled, Sent: true}, {Kind: outcome.Overflow}, {Kind: outcome.NoEndpoint}, {Kind: outcome.Local, Status: 503},
		{Kind: outcome.BodyFailure, Sent: true}, {Kind: outcome.NoRoute}, {Kind: outcome.UnknownHost}, {Kind: outcome.NoConfig}, {Kind: outcome.Closed},
		// The time went into waiting for a connection.
		{Kind: outcome.Timeout}, {Kind: outcome.PerTryTimeout},
	} {
		for _, split := range []bool{false, true} {
			config := consecutiveOnly(1)
			config.SplitLocalOrigin, config.ConsecutiveLocal.Threshold = split, 1
			_, hosts := watched(t, 5, config)
			if got := report(hosts[0], o, 10); got != nil {
				t.Errorf("%v, sent: %t: ejected: %q", o.Kind, o.Sent, got)
			}
			m := hosts[0].monitor.Load()
			for i := range m.tallies {
				if n := m.tallies[i].successes.Load() + m.tallies[i].failures.Load(); n != 0 {
					t.Errorf("%v, sent: %t: counted %d times", o.Kind, o.Sent, n)
				}
			}
		}
	}
}

// rates reports to each host so many failures of a volume.
func rates(hosts []*Host, volume int, failure outcome.Outcome, failures ...int) {
	for i, n := range failures {
		report(hosts[i], failure, n)
		report(hosts[i], ok200, volume-n)
	}
}

func TestBO3_SuccessRate(t *testing.T) {
	t.Parallel()
	split := func(c *OutlierConfig) { c.SplitLocalOrigin = true }
	tests := []struct {
		name    string
		edit    func(*OutlierConfig)
		volume  int
		failure outcome.Outcome
		// failures are those of each host.
		failures []int
		want     []int
		reason   string
	}{
		// Rates of 50, 100, 100, 100, 100: mean 90, deviation 20, limit 52.
		{"a host below the limit", nil, 100, internal500, []int{50, 0, 0, 0, 0}, []int{0}, "success-rate"},
		// Factor 2: the limit is 50, and only less than that is an outlier.
		{"a host at the limit", func(c *OutlierConfig) { c.SuccessRate.StdevFactor = 2000 }, 100, internal500, []int{50, 0, 0, 0, 0}, nil, ""},
		{"equal hosts, however bad", nil, 300, internal500, []int{299, 299, 299, 299, 299, 299, 299}, nil, ""},
		{"equal hosts and no tolerance", func(c *OutlierConfig) { c.SuccessRate.StdevFactor = 0 }, 300, internal500, []int{101, 101, 101, 101, 101, 101, 101}, nil, ""},
		{"four hosts", nil, 100, internal500, []int{100, 0, 0, 0}, nil, ""},
		{"four hosts, if that is enough", func(c *OutlierConfig) { c.SuccessRate.MinimumHosts = 4; c.SuccessRate.StdevFactor = 1000 }, 100, internal500, []int{100, 0, 0, 0}, []int{0}, "success-rate"},
		{"99 calls", nil, 99, internal500, []int{99, 0, 0, 0, 0}, nil, ""},
		{"99 calls, if that is enough", func(c *OutlierConfig) { c.SuccessRate.RequestVolume = 99 }, 99, internal500, []int{99, 0, 0, 0, 0}, []int{0}, "success-rate"},
		{"local failures count without the split", nil, 100, refused, []int{0, 0, 80, 0, 0}, []int{2}, "success-rate"},
		{"local failures apart", split, 100, refused, []int{0, 0, 80, 0, 0}, []int{2}, "success-rate-local-origin"},
		{"responses that failed are no local failures", func(c *OutlierConfig) { c.SplitLocalOrigin = true; c.SuccessRate.Enforcing = 0 }, 100, internal500, []int{0, 0, 80, 0, 0}, nil, ""},
		{"not enforced", func(c *OutlierConfig) { c.SuccessRate.Enforcing = 0; c.FailurePercentage.Enforcing = 1 }, 100, internal500, []int{50, 0, 0, 0, 0}, nil, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				config := ratesOnly()
				if tt.edit != nil {
					tt.edit(&config)
				}
				s, hosts := watched(t, len(tt.failures), config)
				rates(hosts, tt.volume, tt.failure, tt.failures...)
				var want []string
				for _, i := range tt.want {
					want = append(want, address(i)+" ejected: "+tt.reason)
				}
				expect(t, "sweep", sweepAfter(s, config.Interval), want...)
				expect(t, "an interval without calls", sweepAfter(s, config.Interval))
			})
		})
	}
}

func TestBO4_FailurePercentage(t *testing.T) {
	t.Parallel()
	enforced := func(edit func(*OutlierConfig)) func(*OutlierConfig) {
		return func(c *OutlierConfig) {
			c.SuccessRate.Enforcing, c.SuccessRate.EnforcingLocal = 0, 0
			c.FailurePercentage.Enforcing, c.FailurePercentage.EnforcingLocal = 100, 100
			if edit != nil {
				edit(c)
			}
		}
	}
	tests := []struct {
		name     string
		edit     func(*OutlierConfig)
		volume   int
		failure  outcome.Outcome
		failures []int
		want     []string
	}{
		{"85 % is enough (decision D4)", enforced(nil), 100, internal500, []int{85, 84, 0, 0, 0}, []string{address(0) + " ejected: failure-percentage"}},
		{"the worst first", enforced(nil), 100, internal500, []int{85, 90, 0, 0, 100}, []string{
			address(4) + " ejected: failure-percentage", address(1) + " ejected: failure-percentage", address(0) + " ejected: failure-percentage",
		}},
		{"four hosts", enforced(nil), 100, internal500, []int{100, 0, 0, 0}, nil},
		{"49 calls", enforced(nil), 49, internal500, []int{49, 0, 0, 0, 0}, nil},
		{"50 calls", enforced(nil), 50, internal500, []int{50, 0, 0, 0, 0}, []string{address(0) + " ejected: failure-percentage"}},
		{"local failures apart", enforced(func(c *OutlierConfig) { c.SplitLocalOrigin = true }), 50, refused, []int{50, 0, 0, 0, 0},
			[]string{address(0) + " ejected: failure-percentage-local-origin"}},
		{"not enforced by default", func(c *OutlierConfig) { c.SuccessRate.Enforcing = 0; c.Consecutive5xx.Enforcing = 1 }, 50, internal500, []int{4, 0, 0, 0, 0}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				config := ratesOnly()
				tt.edit(&config)
				s, hosts := watched(t, len(tt.failures), config)
				rates(hosts, tt.volume, tt.failure, tt.failures...)
				expect(t, "sweep", sweepAfter(s, config.Interval), tt.want...)
			})
		})
	}
}
