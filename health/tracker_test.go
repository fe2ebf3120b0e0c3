package health

import (
	"testing"
	"time"
)

func TestThresholdsDecide(t *testing.T) {
	t.Parallel()
	config := &Config{UnhealthyThreshold: 3, HealthyThreshold: 2}
	type step struct {
		result Result
		state  State
		change Change
	}
	ok, fails := Change{Success: true}, Change{}
	pending := func(c Change) Change { c.Pending = true; return c }
	changed := func(c Change) Change { c.Changed = true; return c }
	for name, c := range map[string]struct {
		start State
		steps []step
	}{
		"the first success is enough":                                 {Unhealthy, []step{{Success, Healthy, changed(ok)}, {Success, Healthy, ok}}},
		"an endpoint of a new cluster is well at the first success":   {Unknown, []step{{Success, Healthy, changed(ok)}}},
		"an endpoint that does not answer the first time is not well": {Unknown, []step{{Unreachable, Unhealthy, changed(fails)}}},
		"what an endpoint says of itself counts at once": {Unknown, []step{
			{Success, Healthy, changed(ok)}, {Failure, Unhealthy, changed(fails)}, {Failure, Unhealthy, fails},
		}},
		"no answer counts after some in a row": {Unknown, []step{
			{Success, Healthy, changed(ok)},
			{Unreachable, Healthy, pending(fails)}, {Retriable, Healthy, pending(fails)},
			{Unreachable, Unhealthy, changed(fails)}, {Unreachable, Unhealthy, fails},
		}},
		"a success ends the row of failures": {Unknown, []step{
			{Success, Healthy, changed(ok)}, {Unreachable, Healthy, pending(fails)}, {Unreachable, Healthy, pending(fails)},
			{Success, Healthy, ok}, {Unreachable, Healthy, pending(fails)}, {Unreachable, Healthy, pending(fails)},
		}},
		"the way back takes some successes in a row": {Unknown, []step{
			{Failure, Unhealthy, changed(fails)}, {Success, Unhealthy, pending(ok)}, {Retriable, Unhealthy, fails},
			{Success, Unhealthy, pending(ok)}, {Success, Healthy, changed(ok)},
		}},
		"degraded is known at once": {Unknown, []step{
			{Degraded, Reduced, changed(ok)}, {Degraded, Reduced, ok}, {Success, Healthy, changed(ok)}, {Degraded, Reduced, changed(ok)},
			{Unreachable, Reduced, pending(fails)},
		}},
		"an unhealthy endpoint becomes a degraded one": {Unknown, []step{
			{Failure, Unhealthy, changed(fails)}, {Degraded, Unhealthy, pending(ok)}, {Degraded, Reduced, changed(ok)},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var tracker Tracker
			tracker.Start(c.start)
			for i, s := range c.steps {
				if got := tracker.Done(config, s.result); got != s.change || tracker.State() != s.state {
					t.Fatalf("step %d, %v: %+v and state %v, want %+v and %v", i+1, s.result, got, tracker.State(), s.change, s.state)
				}
			}
		})
	}
}

func TestAnEndpointMayExcludeItself(t *testing.T) {
	t.Parallel()
	config := &Config{HealthyThreshold: 2}
	var tracker Tracker
	tracker.Done(config, Success)
	if !tracker.Exclude() || tracker.State() != Unhealthy || !tracker.Excluded() || tracker.Exclude() {
		t.Fatalf("not excluded once: %+v", tracker)
	}
	tracker.Done(config, Success)
	if tracker.State() != Unhealthy || !tracker.Excluded() {
		t.Errorf("back after one success of two: %+v", tracker)
	}
	tracker.Done(config, Success)
	if tracker.State() != Healthy || tracker.Excluded() {
		t.Errorf("not back after two successes: %+v", tracker)
	}
}

func TestIntervals(t *testing.T) {
	t.Parallel()
	full := Config{
		Interval: 1 * time.Second, NoTrafficInterval: 2 * time.Second, NoTrafficHealthyInterval: 3 * time.Second,
		UnhealthyInterval: 4 * time.Second, UnhealthyEdgeInterval: 5 * time.Second, HealthyEdgeInterval: 6 * time.Second,
	}
	few := Config{Interval: 1 * time.Second, NoTrafficInterval: 2 * time.Second}
	for name, c := range map[string]struct {
		change  Change
		traffic bool
		// want is with all intervals, defaults with few.
		want, defaults float64 // seconds
	}{
		"well":                          {Change{Success: true}, true, 1, 1},
		"well, of late":                 {Change{Success: true, Changed: true}, true, 1, 1},
		"almost well":                   {Change{Success: true, Pending: true}, true, 6, 1},
		"not well":                      {Change{}, true, 4, 1},
		"almost not well":               {Change{Pending: true}, true, 5, 1},
		"well, without traffic":         {Change{Success: true}, false, 3, 2},
		"almost well, without traffic":  {Change{Success: true, Pending: true}, false, 2, 2},
		"not well, without traffic":     {Change{}, false, 2, 2},
		"barely well, without traffic":  {Change{Pending: true}, false, 2, 2},
		"became unwell without traffic": {Change{Changed: true}, false, 2, 2},
	} {
		zero := func() uint64 { return 0 }
		if got := full.Next(c.change, c.traffic, zero); got.Seconds() != c.want {
			t.Errorf("%s: %v, want %v s", name, got, c.want)
		}
		if got := few.Next(c.change, c.traffic, zero); got.Seconds() != c.defaults {
			t.Errorf("%s: %v by default, want %v s", name, got, c.defaults)
		}
	}
}

func TestJitterIsAddedToIntervals(t *testing.T) {
	t.Parallel()
	most := func() uint64 { return 1<<63 - 1 - (1<<63-1)%uint64(3*time.Second) - 1 }
	c := Config{Interval: 10 * time.Second, IntervalJitter: 3 * time.Second}
	if got := c.Next(Change{Success: true}, true, most); got <= 12*time.Second || got >= 13*time.Second {
		t.Errorf("with the most jitter of 3 s after %v", got)
	}
	c = Config{Interval: 10 * time.Second, IntervalJitterPercent: 30}
	if got := c.Next(Change{Success: true}, true, most); got <= 12*time.Second || got >= 13*time.Second {
		t.Errorf("with the most jitter of 30 %% after %v", got)
	}
	c = Config{InitialJitter: 3 * time.Second}
	if got := c.First(most); got <= 2*time.Second || got >= 3*time.Second {
		t.Errorf("with the most initial jitter of 3 s after %v", got)
	}
	if got := new(Config).First(most); got != 0 {
		t.Errorf("without initial jitter after %v", got)
	}
}

func TestStatusesMeanWhatIsConfigured(t *testing.T) {
	t.Parallel()
	plain := &HTTP{}
	ranges := &HTTP{Expected: []Statuses{{Start: 200, End: 300}, {Start: 404, End: 405}}, Retriable: []Statuses{{Start: 404, End: 504}}}
	for status, want := range map[int][2]Result{
		200: {Success, Success}, 204: {Failure, Success}, 300: {Failure, Failure}, 404: {Failure, Success},
		405: {Failure, Retriable}, 503: {Failure, Retriable}, 504: {Failure, Failure},
	} {
		if got := plain.Status(status); got != want[0] {
			t.Errorf("%d by default: %v, want %v", status, got, want[0])
		}
		if got := ranges.Status(status); got != want[1] {
			t.Errorf("%d with ranges: %v, want %v", status, got, want[1])
		}
	}
}

func TestEveryResultHasItsName(t *testing.T) {
	t.Parallel()
	seen := make(map[string]bool)
	for r := Success; r <= Unreachable; r++ {
		if seen[r.String()] || r.String() == "unknown" {
			t.Errorf("result %d is called %q", r, r)
		}
		seen[r.String()] = true
	}
	if got := Result(99).String(); got != "unknown" {
		t.Errorf("result 99 is called %q", got)
	}
}
