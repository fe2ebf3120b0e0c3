package breaker

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sony/gobreaker/v2"

	"github.com/inboardmesh/inboard/outcome"
)

var testSettings = Settings{FailureRatio: 0.5, MinRequests: 4, Window: 10 * time.Second, OpenTime: 5 * time.Second, HalfOpenProbes: 2}

// call makes an attempt that ends at once.
func call(b *ErrorRate, verdict outcome.Verdict) error {
	permit, err := b.Allow()
	permit.Done(verdict)
	return err
}

func calls(t *testing.T, b *ErrorRate, verdict outcome.Verdict, n int) {
	t.Helper()
	for range n {
		if err := call(b, verdict); err != nil {
			t.Fatalf("Allow: %v", err)
		}
	}
}

func checkState(t *testing.T, b *ErrorRate, want State) {
	t.Helper()
	if got := b.State(); got != want {
		t.Fatalf("state %v, want %v", got, want)
	}
}

// open returns a breaker that has just opened.
func open(t *testing.T, onChange func(from, to State)) *ErrorRate {
	t.Helper()
	b := NewErrorRate("c", testSettings, onChange)
	calls(t, b, outcome.Failure, 4)
	checkState(t, b, Open)
	return b
}

// A probe may be a stream of hours, or hang: it keeps nobody else out for long.
func TestProbesThatTakeLongAreNotWaitedFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := open(t, nil)
		time.Sleep(testSettings.OpenTime + 1)
		var slow [2]Permit
		for i := range slow {
			permit, err := b.Allow()
			if err != nil {
				t.Fatal(err)
			}
			slow[i] = permit
		}
		if err := call(b, outcome.Success); !errors.Is(err, ErrOpen) {
			t.Fatalf("a third probe: %v", err)
		}
		time.Sleep(testSettings.OpenTime - time.Millisecond)
		if err := call(b, outcome.Success); !errors.Is(err, ErrOpen) {
			t.Fatalf("a third probe, just before the time: %v", err)
		}
		time.Sleep(time.Millisecond)
		calls(t, b, outcome.Success, 2)
		checkState(t, b, Closed)
		for i := range slow { // what they say now counts for nothing
			slow[i].Done(outcome.Failure)
		}
		checkState(t, b, Closed)
		calls(t, b, outcome.Success, 8)
	})
}

func TestAnAnswerEndsAProbe(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := open(t, nil)
		time.Sleep(testSettings.OpenTime + 1)
		for range testSettings.HalfOpenProbes {
			permit, err := b.Allow()
			if err != nil {
				t.Fatal(err)
			}
			permit.Answered()
			permit.Answered()
			defer permit.Done(outcome.Failure) // its body, which comes too late to count
		}
		checkState(t, b, Closed)
	})
}

// PassesIn says when to ask again, and is right to the nanosecond.
func TestPassesInIsWhenItPasses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		passesIn := func(b *ErrorRate, want time.Duration) {
			t.Helper()
			if got := b.PassesIn(); got != want {
				t.Fatalf("passes in %v, want %v", got, want)
			}
			if got := b.Passes(); got != (want == 0) {
				t.Fatalf("passes: %v", got)
			}
		}
		passesIn(nil, 0)
		passesIn(NewErrorRate("c", testSettings, nil), 0)
		b := open(t, nil)
		time.Sleep(time.Second)
		passesIn(b, testSettings.OpenTime-time.Second+1)
		time.Sleep(b.PassesIn() - 1)
		passesIn(b, 1)
		time.Sleep(time.Nanosecond)
		passesIn(b, 0)
		first, err := b.Allow()
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		second, err := b.Allow()
		if err != nil {
			t.Fatal(err)
		}
		passesIn(b, testSettings.OpenTime-time.Second+1) // the oldest probe gives its place away
		time.Sleep(b.PassesIn())
		passesIn(b, 0)
		first.Done(outcome.Success)
		second.Done(outcome.Success)
		passesIn(b, 0)
	})
}

func TestErrorRateOpens(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name     string
		settings Settings
		verdicts string // s, f or i
		want     State
	}{
		{"at the ratio", testSettings, "ssff", Open},
		{"below the ratio", testSettings, "sssff", Closed},
		{"too few requests", testSettings, "fff", Closed},
		{"when the last of enough requests fails", testSettings, "fffsf", Open},
		{"not by a success, which only makes it fewer", testSettings, "fffs", Closed},
		{"ignored ones are not requests", testSettings, "fffiiiiii", Closed},
		{"ignored ones are not successes", testSettings, "iiiiffff", Open},
		{"all must fail", Settings{FailureRatio: 1, MinRequests: 2, Window: time.Second, OpenTime: time.Second, HalfOpenProbes: 1}, "sffffffff", Closed},
		{"all fail", Settings{FailureRatio: 1, MinRequests: 2, Window: time.Second, OpenTime: time.Second, HalfOpenProbes: 1}, "ff", Open},
		{"one request suffices", Settings{FailureRatio: 0.1, MinRequests: 1, Window: time.Second, OpenTime: time.Second, HalfOpenProbes: 1}, "f", Open},
		// 0.07*100 is more than 7 as a float64.
		{"exactly seven percent", Settings{FailureRatio: 0.07, MinRequests: 100, Window: time.Second, OpenTime: time.Second, HalfOpenProbes: 1}, fmt.Sprintf("%093dfffffff", 0), Open},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := NewErrorRate("c", tt.settings, nil)
				for _, v := range tt.verdicts {
					verdict := outcome.Success
					switch v {
					case 'f':
						verdict = outcome.Failure
					case 'i':
						verdict = outcome.Ignored
					}
					calls(t, b, verdict, 1)
				}
				checkState(t, b, tt.want)
			})
		})
	}
}

func TestErrorRateLife(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var changes []string
		b := open(t, func(from, to State) { changes = append(changes, from.String()+" to "+to.String()) })
		if err := call(b, outcome.Success); !errors.Is(err, ErrOpen) || err.Error() != "error-rate breaker is open" {
			t.Errorf("open breaker: %v", err)
		}
		time.Sleep(5 * time.Second)
		checkState(t, b, Open) // OpenTime is not over yet
		time.Sleep(time.Nanosecond)
		checkState(t, b, HalfOpen)

		first, err1 := b.Allow()
		second, err2 := b.Allow()
		_, err3 := b.Allow()
		if err1 != nil || err2 != nil {
			t.Fatalf("probes: %v, %v", err1, err2)
		}
		if !errors.Is(err3, ErrOpen) || err3.Error() != "error-rate breaker is open: half-open, and its probes are under way" {
			t.Errorf("a third probe: %v", err3)
		}
		first.Done(outcome.Success)
		checkState(t, b, HalfOpen)
		second.Done(outcome.Success)
		checkState(t, b, Closed)

		calls(t, b, outcome.Failure, 4)
		time.Sleep(5*time.Second + 1)
		calls(t, b, outcome.Failure, 1)
		checkState(t, b, Open)
		want := []string{
			"closed to open", "open to half-open", "half-open to closed",
			"closed to open", "open to half-open", "half-open to open",
		}
		if !slices.Equal(changes, want) {
			t.Errorf("changes %q, want %q", changes, want)
		}
	})
}

func TestErrorRateWindowRolls(t *testing.T) {
	t.Parallel()
	t.Run("old results leave", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			b := NewErrorRate("c", testSettings, nil)
			calls(t, b, outcome.Failure, 3)
			time.Sleep(10 * time.Second)
			calls(t, b, outcome.Failure, 3)
			checkState(t, b, Closed)
			calls(t, b, outcome.Failure, 1)
			checkState(t, b, Open)
		})
	})
	t.Run("results of nine tenths of the window stay", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			b := NewErrorRate("c", testSettings, nil)
			time.Sleep(1234 * time.Millisecond)
			calls(t, b, outcome.Failure, 3)
			time.Sleep(9 * time.Second)
			calls(t, b, outcome.Failure, 1)
			checkState(t, b, Open)
		})
	})
	t.Run("across a boundary of fixed windows", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			b := NewErrorRate("c", testSettings, nil)
			time.Sleep(9500 * time.Millisecond)
			calls(t, b, outcome.Failure, 2)
			time.Sleep(time.Second)
			calls(t, b, outcome.Failure, 2)
			checkState(t, b, Open)
		})
	})
	for _, window := range []time.Duration{1, 9, 10, 11, 19, 12345, time.Millisecond, 24 * time.Hour} {
		t.Run("of "+window.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := testSettings
				s.Window = window
				b := NewErrorRate("c", s, nil)
				calls(t, b, outcome.Failure, 3)
				time.Sleep(window + 10) // steps are rounded up to a nanosecond
				calls(t, b, outcome.Failure, 3)
				checkState(t, b, Closed)
				calls(t, b, outcome.Failure, 1)
				checkState(t, b, Open)
			})
		})
	}
}

// A cluster that hangs fails every call after the timeout, which may be longer
// than the window.
func TestErrorRateCountsAttemptsThatTakeLongerThanTheWindow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := NewErrorRate("c", testSettings, nil)
		var permits []Permit
		for range 4 {
			p, err := b.Allow()
			if err != nil {
				t.Fatal(err)
			}
			permits = append(permits, p)
		}
		time.Sleep(10 * testSettings.Window)
		for _, p := range permits {
			p.Done(outcome.Failure)
		}
		checkState(t, b, Open)
	})
}

func TestErrorRateIgnoresResultsFromBeforeAChange(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := NewErrorRate("c", testSettings, nil)
		var old []Permit
		for range 10 {
			p, _ := b.Allow()
			old = append(old, p)
		}
		calls(t, b, outcome.Failure, 4)
		checkState(t, b, Open)
		old[0].Done(outcome.Success)
		time.Sleep(testSettings.OpenTime + 1)
		checkState(t, b, HalfOpen)
		old[1].Done(outcome.Success)
		old[2].Done(outcome.Success)
		old[3].Done(outcome.Failure)
		checkState(t, b, HalfOpen)
		calls(t, b, outcome.Success, 2) // both places are still free
		checkState(t, b, Closed)
		for _, p := range old[4:] {
			p.Done(outcome.Failure)
		}
		checkState(t, b, Closed)
	})
}

func TestIgnoredVerdictFreesAProbe(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := open(t, nil)
		time.Sleep(testSettings.OpenTime + 1)
		for range 100 {
			if !b.Passes() {
				t.Fatal("a probe that was ignored keeps its place")
			}
			calls(t, b, outcome.Ignored, 1)
		}
		checkState(t, b, HalfOpen)
		calls(t, b, outcome.Success, 2)
		checkState(t, b, Closed)
	})
}

func TestPermitIsDoneOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := NewErrorRate("c", testSettings, nil)
		p, _ := b.Allow()
		for range 10 {
			p.Done(outcome.Failure)
		}
		checkState(t, b, Closed)

		b = open(t, nil)
		time.Sleep(testSettings.OpenTime + 1)
		p, _ = b.Allow()
		p.Done(outcome.Success)
		p.Done(outcome.Success)
		p.Done(outcome.Failure)
		checkState(t, b, HalfOpen)
		new(Permit).Done(outcome.Failure)
	})
}

func TestPermitsSurvivePanicAndGoexit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := open(t, nil)
		time.Sleep(testSettings.OpenTime + 1)
		for _, end := range []func(){func() { panic("handler") }, runtime.Goexit, func() {}} {
			var wg sync.WaitGroup
			wg.Go(func() {
				defer func() { _ = recover() }()
				p, err := b.Allow()
				if err != nil {
					t.Error(err)
				}
				verdict := outcome.Ignored
				defer func() { p.Done(verdict) }()
				end()
			})
			wg.Wait()
		}
		calls(t, b, outcome.Success, 2)
		checkState(t, b, Closed)
	})
}

func TestNilErrorRateAdmitsEverything(t *testing.T) {
	t.Parallel()
	var b *ErrorRate
	b.SetSettings(testSettings)
	calls(t, b, outcome.Failure, 100)
	checkState(t, b, Closed)
}

func TestOnChangeMayCallTheBreaker(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var b *ErrorRate
		var changes []string
		b = NewErrorRate("c", testSettings, func(from, to State) {
			changes = append(changes, from.String()+" to "+to.String())
			if to == Open && len(changes) == 1 {
				// Causes further changes, which are reported after this one.
				time.Sleep(testSettings.OpenTime + 1)
				checkState(t, b, HalfOpen)
				calls(t, b, outcome.Failure, 1)
				checkState(t, b, Open)
				changes = append(changes, "end of the first")
			}
		})
		calls(t, b, outcome.Failure, 4)
		want := []string{"closed to open", "end of the first", "open to half-open", "half-open to open"}
		if !slices.Equal(changes, want) {
			t.Errorf("changes %q, want %q", changes, want)
		}
	})
}

func TestOnChangeThatPanicsIsNotTheLastCall(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var changes []State
		b := NewErrorRate("c", testSettings, func(_, to State) {
			changes = append(changes, to)
			if len(changes) == 1 {
				panic("observer")
			}
		})
		func() {
			defer func() { _ = recover() }()
			for range 4 {
				_ = call(b, outcome.Failure)
			}
		}()
		time.Sleep(testSettings.OpenTime + 1)
		checkState(t, b, HalfOpen)
		if !slices.Equal(changes, []State{Open, HalfOpen}) {
			t.Errorf("changes to %v, want open and half-open", changes)
		}
	})
}

func TestSetSettings(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var changes []string
		b := open(t, func(from, to State) { changes = append(changes, from.String()+" to "+to.String()) })
		b.SetSettings(testSettings)
		checkState(t, b, Open) // equal settings change nothing

		time.Sleep(testSettings.OpenTime + 1)
		probe, err := b.Allow()
		if err != nil {
			t.Fatal(err)
		}
		other := testSettings
		other.MinRequests = 2
		b.SetSettings(other)
		checkState(t, b, Closed)
		probe.Done(outcome.Failure) // opens only what is gone
		checkState(t, b, Closed)
		calls(t, b, outcome.Failure, 2)
		checkState(t, b, Open)
		want := []string{"closed to open", "open to half-open", "half-open to closed", "closed to open"}
		if !slices.Equal(changes, want) {
			t.Errorf("changes %q, want %q", changes, want)
		}
	})
}

// Whatever goroutines do, each change begins where the one before ended.
func TestChangesAreReportedInOrder(t *testing.T) {
	t.Parallel()
	s := Settings{FailureRatio: 0.3, MinRequests: 3, Window: time.Millisecond, OpenTime: time.Microsecond, HalfOpenProbes: 2}
	state := Closed
	var inside atomic.Int32
	n := 0
	b := NewErrorRate("c", s, func(from, to State) {
		if inside.Add(1) != 1 {
			t.Error("two calls at once")
		}
		if from != state || from == to {
			t.Errorf("change %d is from %v to %v, want it from %v", n, from, to, state)
		}
		state = to
		n++
		inside.Add(-1)
	})
	t.Logf("seed %d", 7)
	var wg sync.WaitGroup
	for g := range uint64(8) {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(7, g))
			for i := range 3_000 {
				p, err := b.Allow()
				if err == nil {
					if i%7 == 0 {
						runtime.Gosched()
					}
					p.Done(outcome.Verdict(random.IntN(3)))
				}
				if g == 0 && i%100 == 0 {
					next := s
					next.MinRequests = uint32(3 + random.IntN(2))
					b.SetSettings(next)
				}
			}
		})
	}
	wg.Wait()
	if got := b.State(); got != state || n == 0 {
		t.Errorf("state %v, the last of %d reports says %v", got, n, state)
	}
}

func TestSettingsValidate(t *testing.T) {
	t.Parallel()
	if err := testSettings.Validate(); err != nil {
		t.Errorf("valid settings: %v", err)
	}
	with := func(change func(*Settings)) Settings {
		s := testSettings
		change(&s)
		return s
	}
	tests := []struct {
		settings Settings
		want     string
	}{
		{with(func(s *Settings) { s.FailureRatio = 0 }), "failureRatio 0: must be above 0 and at most 1"},
		{with(func(s *Settings) { s.FailureRatio = 50 }), "failureRatio 50: must be above 0 and at most 1"},
		{with(func(s *Settings) { s.FailureRatio = math.NaN() }), "failureRatio NaN: must be above 0 and at most 1"},
		{with(func(s *Settings) { s.MinRequests = 0 }), "minimumRequests 0: must be at least 1"},
		{with(func(s *Settings) { s.Window = -time.Second }), "window -1s: must be above 0 and at most 24h0m0s"},
		{with(func(s *Settings) { s.Window = math.MaxInt64 }), "window 2562047h47m16.854775807s: must be above 0 and at most 24h0m0s"},
		{with(func(s *Settings) { s.OpenTime = 0 }), "openTime 0s: must be a positive duration"},
		{with(func(s *Settings) { s.HalfOpenProbes = 0 }), "halfOpenProbes 0: must be at least 1"},
		{Settings{}, "failureRatio 0: must be above 0 and at most 1\nminimumRequests 0: must be at least 1\n" +
			"window 0s: must be above 0 and at most 24h0m0s\nopenTime 0s: must be a positive duration\nhalfOpenProbes 0: must be at least 1"},
	}
	for _, tt := range tests {
		if err := tt.settings.Validate(); err == nil || err.Error() != tt.want {
			t.Errorf("%+v: error %q, want %q", tt.settings, err, tt.want)
		}
	}
}

func TestStateString(t *testing.T) {
	t.Parallel()
	for s, want := range map[State]string{Closed: "closed", HalfOpen: "half-open", Open: "open"} {
		if s.String() != want {
			t.Errorf("state %d is %q, want %q", s, s, want)
		}
	}
}

var benchSettings = Settings{FailureRatio: 0.5, MinRequests: 20, Window: 10 * time.Second, OpenTime: 5 * time.Second, HalfOpenProbes: 3}

func BenchmarkErrorRate(b *testing.B) {
	e := NewErrorRate("c", benchSettings, func(State, State) {})
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			p, err := e.Allow()
			if err != nil {
				b.Error(err)
				return
			}
			p.Done(outcome.Success)
		}
	})
}

// BenchmarkGobreaker is the same with nothing around it.
func BenchmarkGobreaker(b *testing.B) {
	g := gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{Interval: 10 * time.Second, BucketPeriod: time.Second})
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			done, err := g.Allow()
			if err != nil {
				b.Error(err)
				return
			}
			done(nil)
		}
	})
}
