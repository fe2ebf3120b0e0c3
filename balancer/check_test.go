package balancer

import (
	"errors"
	"testing"
)

// checked is a set of two priorities with hosts in each, none of them ejected.
func checked(t *testing.T, config Config, first, second int) (*Set, []*Host) {
	t.Helper()
	s := NewSet(config, nil)
	var localities []LocalityEndpoints
	for priority, n := range []int{first, second} {
		l := LocalityEndpoints{Weight: 1, Priority: uint32(priority)}
		for i := range n {
			l.Endpoints = append(l.Endpoints, Endpoint{Address: string(rune('a'+priority)) + string(rune('0'+i))})
		}
		if n > 0 {
			localities = append(localities, l)
		}
	}
	hosts, _ := s.Update(config, localities)
	return s, hosts
}

// sharesOf counts picks by priority.
func sharesOf(t *testing.T, s *Set, n int) (first, second int) {
	t.Helper()
	for range n {
		h, err := s.Pick(PickInfo{})
		if err != nil {
			t.Fatal(err)
		}
		if h.Endpoint().Address[0] == 'a' {
			first++
		} else {
			second++
		}
	}
	return first, second
}

func TestFailedChecksCountAsUnhealthy(t *testing.T) {
	t.Parallel()
	s, hosts := checked(t, Config{PanicThreshold: 50}, 4, 4)
	for _, h := range hosts[:2] {
		s.SetCheck(h, Failing)
	}
	// BP1: 50 % healthy bear 70 % of the traffic; 4 deviations of 4000 draws are 116.
	if first, _ := sharesOf(t, s, 4000); first < 2800-116 || first > 2800+116 {
		t.Errorf("the first priority got %d of 4000, want 2800 ± 116", first)
	}
	for _, h := range hosts[:4] {
		s.SetCheck(h, Failing)
	}
	if first, _ := sharesOf(t, s, 100); first != 0 {
		t.Errorf("a priority without a healthy host got %d calls", first)
	}
	for _, h := range hosts {
		s.SetCheck(h, Passing)
	}
	if _, second := sharesOf(t, s, 100); second != 0 {
		t.Errorf("the second priority got %d calls while the first is whole", second)
	}
	s.Update(Config{}, nil)
}

func TestExcludedHostsDoNotCount(t *testing.T) {
	t.Parallel()
	s, hosts := checked(t, Config{PanicThreshold: 50}, 4, 4)
	for _, h := range hosts[:3] {
		s.SetCheck(h, Excluded)
	}
	if _, second := sharesOf(t, s, 100); second != 0 {
		t.Errorf("one of one host is healthy; the second priority got %d calls", second)
	}
	s.SetCheck(hosts[3], Excluded)
	if first, _ := sharesOf(t, s, 100); first != 0 {
		t.Errorf("a priority all of whose hosts are excluded got %d calls", first)
	}
	for _, h := range hosts[4:] {
		s.SetCheck(h, Excluded)
	}
	// Nothing counts: a panic over all there is.
	if first, second := sharesOf(t, s, 100); first == 0 || second == 0 {
		t.Errorf("%d and %d calls in a panic", first, second)
	}
	s, hosts = checked(t, Config{}, 1, 0)
	s.SetCheck(hosts[0], Excluded)
	if _, err := s.Pick(PickInfo{}); !errors.Is(err, ErrNoHealthyEndpoint) {
		t.Errorf("without a panic threshold: %v", err)
	}
}

func TestAPanicMayFail(t *testing.T) {
	t.Parallel()
	config := Config{PanicThreshold: 60, FailOnPanic: true}
	s, hosts := checked(t, config, 2, 0)
	if _, err := s.Pick(PickInfo{}); err != nil {
		t.Errorf("all are healthy: %v", err)
	}
	s.SetCheck(hosts[0], Failing)
	if h, err := s.Pick(PickInfo{}); !errors.Is(err, ErrPanic) {
		t.Errorf("in a panic: %v and %v", h, err)
	}
	// Only what goes to the priority in panic fails: 14 % and 84 % are less than the
	// whole together, and are divided as 15 to 85. 4 deviations are 91 calls.
	s, hosts = checked(t, Config{PanicThreshold: 50, FailOnPanic: true}, 10, 10)
	for i, h := range hosts {
		if i != 0 && i < 14 {
			s.SetCheck(h, Failing)
		}
	}
	failed := 0
	for range 4000 {
		switch h, err := s.Pick(PickInfo{}); {
		case err != nil:
			failed++
		case h.Endpoint().Address[0] != 'b':
			t.Fatalf("%s of the priority in panic was picked", h.Endpoint().Address)
		}
	}
	if failed < 600-91 || failed > 600+91 {
		t.Errorf("%d of 4000 failed, want 600 ± 91", failed)
	}
}
