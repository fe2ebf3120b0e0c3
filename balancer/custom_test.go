package balancer

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestBL12_PickFirstStaysWithOneHost(t *testing.T) {
	t.Parallel()
	config := Config{Policy: PickFirst}
	all := endpoints(4, equalWeights)
	s := seededSet(t, config, LocalityEndpoints{Endpoints: all})
	want := func(when string, i int) {
		t.Helper()
		if got := counts(t, s, 10, byAddress); got[address(i)] != 10 {
			t.Errorf("%s: picks went to %v, want all to %s", when, got, address(i))
		}
	}
	want("at first", 0)
	hostAt(t, s, address(0)).SetReachable(false)
	want("the first cannot be reached", 1)
	hostAt(t, s, address(0)).SetReachable(true)
	want("it can again", 1)
	s.Update(config, []LocalityEndpoints{{Endpoints: all[1:]}})
	want("the first has left", 1)
	s.Update(config, []LocalityEndpoints{{Endpoints: all}})
	want("it is back", 1)
	if h := mustPick(t, s, hostAt(t, s, address(1))); h.Endpoint().Address != address(2) {
		t.Errorf("a second attempt goes to %s, want the next one", h.Endpoint().Address)
	}
}

func TestBL12_PickFirstShuffles(t *testing.T) {
	t.Parallel()
	config := Config{Policy: PickFirst, Shuffle: true}
	firsts := make(map[string]int)
	for range 64 {
		s := NewSet(config, nil)
		s.Update(config, []LocalityEndpoints{{Endpoints: endpoints(4, equalWeights)}})
		h := mustPick(t, s)
		firsts[h.Endpoint().Address]++
		s.Update(config, []LocalityEndpoints{{Endpoints: endpoints(4, equalWeights)}})
		if again := mustPick(t, s); again != h {
			t.Fatal("an update changes the order")
		}
	}
	// With 64 clients one of four hosts is missing once in 25 million.
	if len(firsts) != 4 {
		t.Errorf("64 clients begin at %v, want all four hosts", firsts)
	}
}

// lastPicker picks the last host, or what the hash says.
type lastPicker struct{ n int }

func (p lastPicker) Pick(info PickInfo) int {
	if info.Hashed {
		return int(info.Hash % uint64(p.n))
	}
	return p.n - 1
}

func TestBL11_CustomPolicyPicks(t *testing.T) {
	t.Parallel()
	var configured any
	config := Config{Policy: CustomPolicy, Custom: &Custom{
		Name: "last", Config: map[string]any{"x": 1.0},
		New: func(hosts []*Host, config map[string]any) Picker {
			configured = config["x"]
			return lastPicker{len(hosts)}
		},
	}}
	s := seededSet(t, config, LocalityEndpoints{Endpoints: endpoints(4, equalWeights)})
	if got := mustPick(t, s); got.Endpoint().Address != address(3) || configured != 1.0 {
		t.Errorf("picked %s, configured with %v", got.Endpoint().Address, configured)
	}
	if got := pickHash(t, s, 6); got != address(2) {
		t.Errorf("with a hash of 6 it picked %s", got)
	}
	last := hostAt(t, s, address(3))
	if got := mustPick(t, s, last); got == last {
		t.Error("a host that was tried is picked again")
	}
}

// Of two hosts, one answers in 10 ms and one in 100 ms; each call takes its time.
func TestPeakEWMAPrefersTheFasterHost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		config := Config{Policy: PeakEWMA}
		s := seededSet(t, config, LocalityEndpoints{Endpoints: endpoints(2, equalWeights)})
		took := map[string]time.Duration{address(0): 10 * time.Millisecond, address(1): 100 * time.Millisecond}
		got := make(map[string]int)
		call := func() {
			h := mustPick(t, s)
			got[h.Endpoint().Address]++
			h.Begin()
			time.Sleep(took[h.Endpoint().Address])
			h.End()
			h.Took(time.Now(), took[h.Endpoint().Address])
		}
		for range 200 {
			call()
		}
		if n := got[address(1)]; n == 0 || n > 20 {
			t.Errorf("the slow host got %d of 200 calls, want a few", n)
		}
		took[address(0)], took[address(1)] = took[address(1)], took[address(0)]
		clear(got)
		for range 200 {
			call()
		}
		t.Logf("after the change: %v", got)
		if n := got[address(0)]; n > 60 {
			t.Errorf("the host that became slow got %d of 200 calls", n)
		}
	})
}

// Of two hosts, one answers in 10 ms, and callers give up the other after 2 ms.
func TestPeakEWMADoesNotTakeAShortWaitForAQuickAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := seededSet(t, Config{Policy: PeakEWMA}, LocalityEndpoints{Endpoints: endpoints(2, equalWeights)})
		quick, slow := hostAt(t, s, address(0)), hostAt(t, s, address(1))
		quick.Took(time.Now(), 10*time.Millisecond)
		slow.Took(time.Now(), 100*time.Millisecond)
		for range 100 {
			time.Sleep(2 * time.Millisecond)
			slow.Waited(time.Now(), 2*time.Millisecond)
		}
		quick.Took(time.Now(), 10*time.Millisecond)
		for range 20 {
			if got := mustPick(t, s); got != quick {
				t.Fatal("the host that nobody waits for is preferred")
			}
		}
		quick.Waited(time.Now(), time.Second)
		if got := mustPick(t, s); got != slow {
			t.Error("a long wait without an answer does not count")
		}
	})
}

// A host that fails at once gets what shows whether it still does, and is taken back when
// it does not.
func TestPeakEWMACountsFailures(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := seededSet(t, Config{Policy: PeakEWMA}, LocalityEndpoints{Endpoints: endpoints(2, equalWeights)})
		ill := hostAt(t, s, address(1))
		failing := true
		calls := func(n int) (got int) {
			for range n {
				h := mustPick(t, s)
				h.Begin()
				time.Sleep(10 * time.Millisecond)
				h.End()
				if h != ill {
					h.Took(time.Now(), 10*time.Millisecond)
					continue
				}
				if got++; failing {
					h.Failed(time.Now(), time.Millisecond)
				} else {
					h.Took(time.Now(), 10*time.Millisecond)
				}
			}
			return got
		}
		if got := calls(30_000); got == 0 || got > 30 { // in five minutes
			t.Errorf("the host that fails got %d of 30000 calls, want a few", got)
		}
		failing = false
		calls(6_000)
		if got := calls(6_000); got < 1_500 {
			t.Errorf("the host that is well again got %d of 6000 calls", got)
		}
	})
}

func TestPeakEWMAWaitsForTheFirstAnswer(t *testing.T) {
	t.Parallel()
	s := seededSet(t, Config{Policy: PeakEWMA}, LocalityEndpoints{Endpoints: endpoints(2, equalWeights)})
	mustPick(t, s).Begin()
	hosts := make(map[*Host]bool)
	for range 20 {
		hosts[mustPick(t, s)] = true
	}
	if len(hosts) != 1 {
		t.Error("a host that has not answered yet gets more while another is idle")
	}
}

// pickerFunc picks what it says.
type pickerFunc func(PickInfo) int

func (f pickerFunc) Pick(info PickInfo) int { return f(info) }

// A mistake of a policy is an error of the picks that it concerns, and is over with
// the next picker.
func TestACustomPolicyThatFailsIsAnError(t *testing.T) {
	t.Parallel()
	const prefix = `load-balancing policy "mine": `
	for _, tt := range []struct {
		name string
		make func() Picker
		want string
	}{
		{"New panics", func() Picker { panic("no weights") }, "panic in New: no weights"},
		{"there is no picker", func() Picker { return nil }, "no picker from New"},
		{"the index is too large", func() Picker { return pickerFunc(func(PickInfo) int { return 4 }) }, "picked host 4 of 4"},
		{"the index is negative", func() Picker { return pickerFunc(func(PickInfo) int { return -3 }) }, "picked host -3 of 4"},
		{"Pick panics", func() Picker { return pickerFunc(func(PickInfo) int { panic("no idea") }) }, "panic in Pick: no idea"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			broken := true
			var told []string
			config := Config{Policy: CustomPolicy, Custom: &Custom{
				Name: "mine",
				New: func(hosts []*Host, _ map[string]any) Picker {
					if broken {
						return tt.make()
					}
					return lastPicker{len(hosts)}
				},
				Failed: func(err error) { told = append(told, err.Error()) },
			}}
			localities := []LocalityEndpoints{{Endpoints: endpoints(4, equalWeights)}}
			s := seededSet(t, config, localities...)
			for _, info := range []PickInfo{{}, {Hash: 5, Hashed: true}, {Prefer: &Locality{Region: "eu"}}, {Avoid: []*Host{hostAt(t, s, address(3))}}} {
				if h, err := s.Pick(info); h != nil || err == nil || err.Error() != prefix+tt.want {
					t.Errorf("picked %v, error %v, want %q", h, err, prefix+tt.want)
				}
			}
			if len(told) != 1 || told[0] != prefix+tt.want {
				t.Errorf("told %q, want that once", told)
			}
			broken = false
			s.Update(config, localities)
			if h := mustPick(t, s); h.Endpoint().Address != address(3) {
				t.Errorf("picked %s after it was mended", h.Endpoint().Address)
			}
		})
	}
}

// One mistake among good picks is no error where another host is asked for: the hosts
// are searched.
func TestACustomPolicyThatHasNoOtherHost(t *testing.T) {
	t.Parallel()
	first := true
	config := Config{Policy: CustomPolicy, Custom: &Custom{Name: "mine", New: func([]*Host, map[string]any) Picker {
		return pickerFunc(func(PickInfo) int {
			if first {
				first = false
				return 0
			}
			return 17
		})
	}}}
	s := seededSet(t, config, LocalityEndpoints{Endpoints: endpoints(2, equalWeights)})
	if h := mustPick(t, s, hostAt(t, s, address(0))); h.Endpoint().Address != address(1) {
		t.Errorf("picked %s, want the host that was not tried", h.Endpoint().Address)
	}
}
