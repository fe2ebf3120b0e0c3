package balancer

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestBO5_EjectionsGrowAndDecay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		config := consecutiveOnly(1)
		config.Interval, config.BaseEjectionTime, config.MaxEjectionTime = time.Second, 3*time.Second, 10*time.Second
		s, hosts := watched(t, 5, config)
		h := hosts[0]
		// How long the next ejection lasts, in sweeps.
		lasts := func() time.Duration {
			t.Helper()
			if report(h, internal500, 1) == nil {
				t.Fatal("not ejected")
			}
			start := time.Now()
			for isEjected(h) {
				sweepAfter(s, config.Interval)
			}
			return time.Since(start)
		}
		// 10 s at most, though 4 times 3 s is more.
		for i, want := range []time.Duration{3 * time.Second, 6 * time.Second, 9 * time.Second, 10 * time.Second, 10 * time.Second} {
			if got := lasts(); got != want {
				t.Errorf("ejection %d lasted %v, want %v", i+1, got, want)
			}
		}
		// Each sweep in service takes one back; that of the return is none.
		sweepAfter(s, config.Interval)
		sweepAfter(s, config.Interval)
		if got := lasts(); got != 9*time.Second {
			t.Errorf("after two sweeps in service the ejection lasted %v, want 9s", got)
		}
		for range 100 {
			sweepAfter(s, config.Interval)
		}
		if got := lasts(); got != 3*time.Second {
			t.Errorf("after many sweeps in service the ejection lasted %v, want 3s", got)
		}
	})
}

func TestEjectionTimesAreComputedWithoutOverflow(t *testing.T) {
	t.Parallel()
	config := OutlierConfig{BaseEjectionTime: 1 << 40, MaxEjectionTime: 1<<63 - 1}
	if got := config.ejectionTime(1<<32 - 1); got != 1<<63-1 {
		t.Errorf("ejectionTime: %v", got)
	}
	config.MaxEjectionTime = 0
	if got := config.ejectionTime(7); got != 1<<40 {
		t.Errorf("with a maximum below the base: %v, want the base", got)
	}
}

func TestJitterLengthensAnEjection(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		config := consecutiveOnly(1)
		config.Interval, config.BaseEjectionTime, config.EjectionJitter = time.Millisecond, time.Second, 100*time.Millisecond
		config.MaxEjectionPercent = 100
		s, hosts := watched(t, 50, config)
		start := time.Now()
		for _, h := range hosts {
			report(h, internal500, 1)
		}
		last := make(map[time.Duration]int)
		for len(last) == 0 || slices.ContainsFunc(hosts, isEjected) {
			if n := len(sweepAfter(s, config.Interval)); n > 0 {
				last[time.Since(start)] = n
			}
		}
		for after := range last {
			if after < time.Second || after > 1101*time.Millisecond {
				t.Errorf("a host returned after %v, want 1s to 1.1s", after)
			}
		}
		if len(last) < 20 {
			t.Errorf("50 hosts returned at %d times only", len(last))
		}
	})
}

func TestBO6_MaxEjectionPercent(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		hosts   int
		percent uint32
		always  bool
		want    int
	}{
		{"10 % of 100", 100, 10, false, 10},
		{"rounded down", 19, 10, false, 1},
		{"34 % of 3", 3, 34, false, 1},
		{"66 % of 3 are one", 3, 66, false, 1},
		{"67 % of 3 are two", 3, 67, false, 2},
		{"all", 4, 100, false, 4},
		{"all of one", 1, 100, false, 1},
		{"at least one of several (decision D5)", 5, 10, false, 1},
		{"at least one of two", 2, 1, false, 1},
		{"not the only one", 1, 10, false, 0},
		{"the only one, if always", 1, 10, true, 1},
		{"none", 5, 0, false, 0},
		{"one in spite of 0 %, if always", 5, 0, true, 1},
		{"always is only for the first", 5, 10, true, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			config := consecutiveOnly(5)
			config.MaxEjectionPercent, config.AlwaysEjectOneHost = tt.percent, tt.always
			_, hosts := watched(t, tt.hosts, config)
			got := 0
			for _, h := range hosts {
				got += len(report(h, internal500, 20))
			}
			if got != tt.want {
				t.Errorf("ejected %d of %d, want %d", got, tt.hosts, tt.want)
			}
		})
	}
}

func TestAReturnMakesRoomForAnotherEjection(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, hosts := watched(t, 5, consecutiveOnly(5))
		report(hosts[0], internal500, 5)
		if got := report(hosts[1], internal500, 7); got != nil {
			t.Fatalf("a second host was ejected: %q", got)
		}
		sweepAfter(s, 30*time.Second)
		expect(t, "a row of 5 since the return", report(hosts[1], internal500, 3), "consecutive-5xx")
	})
}

func TestBO7_EnforcementIsADraw(t *testing.T) {
	t.Parallel()
	const rounds, percent = 80, 30
	config := consecutiveOnly(1)
	config.Consecutive5xx.Enforcing, config.MaxEjectionPercent = percent, 100
	s, hosts := watched(t, 50, config)
	got := 0
	for range rounds {
		for _, h := range hosts {
			got += len(report(h, internal500, 1))
		}
		s.SetOutlier(nil)
		s.SetOutlier(&config)
	}
	checkShare(t, "ejected", got, rounds*len(hosts), percent/100.0)
}

func TestBO8_EjectedHostsAreNotPickedUntilASweep(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		config := consecutiveOnly(5)
		s, hosts := watched(t, 5, config)
		hosts[2].Begin() // a call that goes on
		report(hosts[2], internal500, 5)
		if got := counts(t, s, 100, byAddress); got[address(2)] != 0 || len(got) != 4 || got[address(0)] != 25 {
			t.Errorf("picks after the ejection: %v", got)
		}
		if got := hosts[2].Active(); got != 1 {
			t.Errorf("%d calls in flight, want 1", got)
		}
		hosts[2].End()
		expect(t, "more failures of an ejected host", report(hosts[2], internal500, 10))
		expect(t, "at 20 s", sweepAfter(s, 20*time.Second))
		time.Sleep(11 * time.Second)
		if got := counts(t, s, 100, byAddress); got[address(2)] != 0 {
			t.Errorf("picks when the time is over, before the sweep: %v", got)
		}
		expect(t, "at 31 s", sweepAfter(s, 0), address(2)+" returned: consecutive-5xx")
		if got := counts(t, s, 100, byAddress); got[address(2)] != 20 {
			t.Errorf("picks after the return: %v", got)
		}
		expect(t, "a new row begins with the return", report(hosts[2], internal500, 4))
		expect(t, "and ends as ever", report(hosts[2], internal500, 1), "consecutive-5xx")
	})
}

func TestAHostThatReturnsIsNotJudgedByItsInterval(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		config := DefaultOutlierConfig()
		config.BaseEjectionTime = time.Second
		s, hosts := watched(t, 5, config)
		rates(hosts, 100, internal500, 100, 0, 0, 0, 0) // ejected by the fifth, which was long ago at the sweep
		expect(t, "sweep", sweepAfter(s, config.Interval), address(0)+" returned: consecutive-5xx")
	})
}

func TestBO9_ChangesOfThePolicy(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		config := consecutiveOnly(5)
		s, hosts := watched(t, 5, config)
		report(hosts[0], internal500, 5)
		report(hosts[1], internal500, 4)

		// Another policy: what is known stays, and its times are the new ones.
		shorter := config
		shorter.BaseEjectionTime, shorter.MaxEjectionPercent = 5*time.Second, 100
		if got := s.SetOutlier(&shorter); got != nil || !isEjected(hosts[0]) {
			t.Errorf("a changed policy returned %v", got)
		}
		expect(t, "a row goes on", report(hosts[1], internal500, 1), "consecutive-5xx")
		expect(t, "sweep", sweepAfter(s, 5*time.Second),
			address(0)+" returned: consecutive-5xx", address(1)+" returned: consecutive-5xx")

		// A lower threshold counts for rows that have begun.
		report(hosts[2], internal500, 4)
		lower := shorter
		lower.Consecutive5xx.Threshold = 2
		s.SetOutlier(&lower)
		expect(t, "a lower threshold", report(hosts[2], internal500, 1), "consecutive-5xx")

		// None, or one that ejects nobody: all return, and nothing is remembered.
		harmless := lower
		harmless.Consecutive5xx.Enforcing = 0
		for _, off := range []*OutlierConfig{nil, &harmless} {
			s.SetOutlier(&lower)
			if !isEjected(hosts[2]) {
				report(hosts[2], internal500, 2)
			}
			got := s.SetOutlier(off)
			if len(got) != 1 || got[0] != (Ejection{Host: hosts[2], Returned: true, Reason: Consecutive5xxFailures}) || isEjected(hosts[2]) {
				t.Errorf("without a policy: %v", got)
			}
			if got := counts(t, s, 100, byAddress); got[address(2)] != 20 {
				t.Errorf("picks without a policy: %v", got)
			}
			expect(t, "reports without a policy", report(hosts[2], internal500, 10))
			expect(t, "sweep without a policy", sweepAfter(s, time.Hour))
			s.SetOutlier(&lower)
			expect(t, "a new policy begins anew", report(hosts[2], internal500, 1))
			s.SetOutlier(nil)
		}
	})
}

func TestBO6_TheLastHostThatServesStays(t *testing.T) {
	t.Parallel()
	config := consecutiveOnly(1)
	config.MaxEjectionPercent = 10 // of three: none but for the exception
	// Two of the three serve, then one.
	localities := []LocalityEndpoints{partly("a", 0, 1, 3, 2, Healthy)}
	s := seededSet(t, Config{}, localities...)
	s.SetOutlier(&config)
	s.Update(Config{}, []LocalityEndpoints{partly("a", 0, 1, 3, 1, Healthy)})
	for h := range s.Hosts() {
		report(h, internal500, 3)
		if isEjected(h) {
			t.Errorf("%s is ejected while no two hosts serve", h.Endpoint().Address)
		}
	}
	s.Update(Config{}, localities)
	for h := range s.Hosts() {
		report(h, internal500, 1)
		if !isEjected(h) {
			t.Errorf("%s is not ejected while another serves", h.Endpoint().Address)
		}
		return
	}
}

func TestReportsOfAnEjectedHostDoNotLock(t *testing.T) {
	t.Parallel()
	s, hosts := watched(t, 5, consecutiveOnly(1))
	report(hosts[0], internal500, 1)
	s.mu.Lock()
	defer s.mu.Unlock()
	if got := report(hosts[0], internal500, 3); !isEjected(hosts[0]) || got != nil {
		t.Errorf("ejected %t, events %v", isEjected(hosts[0]), got)
	}
}

func TestBO11_EjectedHostsAreUnhealthy(t *testing.T) {
	t.Parallel()
	// Two priorities of ten; hosts of the first are ejected one by one.
	config := Config{PanicThreshold: 50}
	localities := []LocalityEndpoints{partly("a", 0, 1, 10, 10, Healthy), partly("b", 1, 1, 10, 10, Healthy)}
	outlier := consecutiveOnly(1)
	outlier.MaxEjectionPercent = 100
	s := seededSet(t, config, localities...)
	s.SetOutlier(&outlier)
	ejected := 0
	eject := func(zone string, n int) {
		for h := range s.Hosts() {
			if n > 0 && h.Locality().Zone == zone && !isEjected(h) {
				report(h, internal500, 1)
				ejected++
				n--
			}
		}
	}
	const n = 10_000
	for _, tt := range []struct {
		eject int
		share float64 // of the first priority
	}{{0, 1}, {2, 1}, {1, 0.98}, {2, 0.70}, {3, 0.28}, {2, 0}} {
		eject("a", tt.eject)
		got := counts(t, s, n, byZone)
		if tt.share == 0 || tt.share == 1 {
			if got["a"] != int(tt.share*n) {
				t.Errorf("%d ejected: %v", ejected, got)
			}
			continue
		}
		checkShare(t, "share of the first priority", got["a"], n, tt.share)
	}
	// Nine of the second too: in its panic all ten of it are used.
	eject("b", 9)
	if got := counts(t, s, n, byZone); got["b"] != n {
		t.Errorf("with one host in service: %v", got)
	}
	if got := counts(t, s, n, byAddress); len(got) != 10 {
		t.Errorf("in a panic %d hosts are used, want 10", len(got))
	}
	// Without a panic mode there is nobody when all are ejected.
	eject("b", 1)
	s.Update(Config{}, localities)
	if _, err := s.Pick(PickInfo{}); !errors.Is(err, ErrNoHealthyEndpoint) {
		t.Errorf("Pick: %v, want %v", err, ErrNoHealthyEndpoint)
	}
}

func TestUpdatesKeepEjections(t *testing.T) {
	t.Parallel()
	config := consecutiveOnly(5)
	s, hosts := watched(t, 5, config)
	report(hosts[1], internal500, 5)
	list := endpoints(6, equalWeights)
	s.Update(Config{}, []LocalityEndpoints{{Endpoints: list}})
	if got := counts(t, s, 100, byAddress); got[address(1)] != 0 || len(got) != 5 {
		t.Errorf("picks after an update: %v", got)
	}
	// A host that leaves makes room; what it still reports changes nothing.
	_, removed := s.Update(Config{}, []LocalityEndpoints{{Endpoints: append(slices.Clone(list[:1]), list[2:]...)}})
	if reason, ok := removed[0].Ejected(); len(removed) != 1 || !ok || reason != Consecutive5xxFailures {
		t.Errorf("removed %v, ejected: %t by %v", removed, ok, reason)
	}
	expect(t, "reports of a host that left", report(hosts[1], internal500, 10))
	expect(t, "another host", report(hosts[2], internal500, 5), "consecutive-5xx")
	// It comes back as a new one.
	s.Update(Config{}, []LocalityEndpoints{{Endpoints: list}})
	if h := hostAt(t, s, address(1)); isEjected(h) || h == hosts[1] {
		t.Error("a host that came back is still ejected")
	}
	if h := hostAt(t, s, address(5)); report(h, internal500, 4) != nil || isEjected(h) {
		t.Error("a host that came with an update is not counted right")
	}
}

func TestReportAllocatesNothing(t *testing.T) {
	config := DefaultOutlierConfig()
	config.SplitLocalOrigin = true
	_, hosts := watched(t, 5, config)
	if got := testing.AllocsPerRun(1000, func() {
		hosts[0].Report(&internal500)
		hosts[0].Report(&ok200)
		hosts[0].Report(&refused)
	}); got != 0 {
		t.Errorf("%v allocations for three reports, want 0", got)
	}
}

// Everything at once, for the race detector; at the end the books must balance.
func TestEverythingAtOnce(t *testing.T) {
	t.Parallel()
	config := DefaultOutlierConfig()
	config.BaseEjectionTime, config.MaxEjectionPercent, config.SuccessRate.RequestVolume = 1, 50, 1
	s := NewSet(Config{}, nil)
	list := endpoints(20, equalWeights)
	s.Update(Config{}, []LocalityEndpoints{{Endpoints: list}})
	s.SetOutlier(&config)
	var mu sync.Mutex
	balance := 0
	book := func(changes ...Ejection) {
		mu.Lock()
		defer mu.Unlock()
		for _, e := range changes {
			if e.Returned {
				balance--
			} else {
				balance++
			}
		}
	}
	var callers, others sync.WaitGroup
	done := make(chan struct{})
	for i := range 4 {
		callers.Go(func() {
			for j := range 3000 {
				h, err := s.Pick(PickInfo{})
				if err != nil {
					t.Error(err)
					return
				}
				o := internal500
				if (i+j/50)%3 == 0 {
					o = ok200
				}
				if e, ok := h.Report(&o); ok {
					book(e)
				}
			}
		})
	}
	repeat := func(f func(i int)) {
		others.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-done:
					return
				default:
					f(i)
				}
			}
		})
	}
	repeat(func(int) { book(s.Sweep()...) })
	repeat(func(i int) {
		_, removed := s.Update(Config{PanicThreshold: float64(i % 2 * 50)}, []LocalityEndpoints{{Endpoints: list[i%5:]}})
		for _, h := range removed {
			if _, ok := h.Ejected(); ok {
				book(Ejection{Host: h, Returned: true})
			}
		}
		if i%50 == 0 {
			book(s.SetOutlier(nil)...)
		}
		s.SetOutlier(&config)
	})
	callers.Wait()
	close(done)
	others.Wait()
	ejected := 0
	for h := range s.Hosts() {
		if isEjected(h) {
			ejected++
		}
	}
	if ejected != s.ejected || ejected != balance {
		t.Errorf("%d hosts are ejected, %d counted, %d by the events", ejected, s.ejected, balance)
	}
}

func TestEveryReasonHasItsName(t *testing.T) {
	t.Parallel()
	for r := Consecutive5xxFailures; r <= HighFailurePercentageLocal; r++ {
		if r.String() == "" || r.String() == "unknown" {
			t.Errorf("reason %d has no name", r)
		}
	}
	if got := OutlierReason(200).String(); got != "unknown" {
		t.Errorf("an unknown reason is called %q", got)
	}
}
