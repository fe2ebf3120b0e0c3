package balancer

import (
	"testing"
	"testing/synctest"
	"time"
)

// gradedSet has two hosts of each of three priorities, chosen as in gRPC.
func gradedSet(edit ...func([]LocalityEndpoints)) *Set {
	config := Config{PanicThreshold: 50, Failover: &Failover{}}
	s := NewSet(config, nil)
	localities := []LocalityEndpoints{
		{Endpoints: []Endpoint{{Address: "a1"}, {Address: "a2"}}},
		{Priority: 1, Endpoints: []Endpoint{{Address: "b1"}, {Address: "b2"}}},
		{Priority: 2, Endpoints: []Endpoint{{Address: "c1"}, {Address: "c2"}}},
	}
	for _, e := range edit {
		e(localities)
	}
	s.Update(config, localities)
	return s
}

// wantPriority picks some times.
func wantPriority(t *testing.T, s *Set, want uint32) {
	t.Helper()
	for range 20 {
		h, err := s.Pick(PickInfo{})
		if err != nil {
			t.Fatal(err)
		}
		if h.Priority() != want {
			t.Errorf("%s of priority %d was picked, want priority %d", h.Endpoint().Address, h.Priority(), want)
			return
		}
	}
}

// TestBP5_PrioritiesAsInGRPC: nothing spills over; a priority is left when it cannot
// be connected to, and taken again with the first connection.
func TestBP5_PrioritiesAsInGRPC(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := gradedSet()
		wantPriority(t, s, 0)
		a1, a2, b1 := hostAt(t, s, "a1"), hostAt(t, s, "a2"), hostAt(t, s, "b1")
		a1.SetReachable(false)
		wantPriority(t, s, 0)
		if a1.Standby() {
			t.Error("the priority has another host")
		}
		a2.SetReachable(false)
		wantPriority(t, s, 1)
		if !a1.Standby() || b1.Standby() {
			t.Error("the first priority must be left, the second not")
		}
		a1.SetReachable(true) // its back-off is over: that is no connection
		wantPriority(t, s, 1)
		a1.Opened()
		wantPriority(t, s, 0)
	})
}

func TestBP5_NoOverprovisioning(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		first, second Health
		want          uint32
	}{
		"one of two is healthy":                    {Healthy, Unhealthy, 0},
		"one is draining, one unknown":             {Draining, Unknown, 0},
		"degraded hosts are not healthy":           {Degraded, Unhealthy, 1},
		"without a healthy one there is no panic":  {Unhealthy, Unhealthy, 1},
		"a timeout is as good as an unhealthy one": {Timeout, Unhealthy, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := gradedSet(func(l []LocalityEndpoints) {
				l[0].Endpoints[0].Health, l[0].Endpoints[1].Health = tt.first, tt.second
			})
			wantPriority(t, s, tt.want)
			if c := s.Capacity(); c.Healthy != 100 || c.Degraded != 0 {
				t.Errorf("the capacity is %+v", c)
			}
		})
	}
	s := gradedSet(func(l []LocalityEndpoints) {
		for i := range l {
			for j := range l[i].Endpoints {
				l[i].Endpoints[j].Health = Unhealthy
			}
		}
	})
	if _, err := s.Pick(PickInfo{}); err == nil {
		t.Error("picked although nothing is healthy")
	}
}

// TestBP5_ConnectingForTenSeconds: silent hosts keep calls for the time of the timer,
// from when connecting began without a connection.
func TestBP5_ConnectingForTenSeconds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := gradedSet()
		time.Sleep(time.Hour)
		a1, a2, b1 := hostAt(t, s, "a1"), hostAt(t, s, "a2"), hostAt(t, s, "b1")
		first := a1.Connecting()
		time.Sleep(6 * time.Second)
		second := a2.Connecting()
		first()
		time.Sleep(4*time.Second - time.Nanosecond)
		wantPriority(t, s, 0)
		time.Sleep(time.Nanosecond)
		wantPriority(t, s, 1)
		third := b1.Connecting()
		time.Sleep(10 * time.Second)
		wantPriority(t, s, 2)
		b1.Opened()
		third()
		wantPriority(t, s, 1)
		a2.Opened()
		second()
		wantPriority(t, s, 0)

		// With a connection there is no timer, whatever is connected to beside it.
		ended := a1.Connecting()
		time.Sleep(time.Minute)
		wantPriority(t, s, 0)
		// Nor without anybody who connects.
		ended()
		a2.Closed()
		time.Sleep(time.Minute)
		wantPriority(t, s, 0)
		ended = a1.Connecting()
		defer ended()
		time.Sleep(10 * time.Second)
		wantPriority(t, s, 1)
	})
}

// A priority that gets new hosts is tried again; one that loses some is not.
func TestBP5_NewHostsAreTried(t *testing.T) {
	t.Parallel()
	s := gradedSet()
	hostAt(t, s, "a1").SetReachable(false)
	hostAt(t, s, "a2").SetReachable(false)
	wantPriority(t, s, 1)
	config := Config{Failover: &Failover{}}
	next := func(first ...Endpoint) {
		s.Update(config, []LocalityEndpoints{{Endpoints: first}, {Priority: 1, Endpoints: []Endpoint{{Address: "b1"}, {Address: "b2"}}}})
	}
	next(Endpoint{Address: "a1"})
	wantPriority(t, s, 1)
	next(Endpoint{Address: "a1"}, Endpoint{Address: "a3"})
	wantPriority(t, s, 0)
	s.Update(Config{}, []LocalityEndpoints{{Endpoints: []Endpoint{{Address: "a1"}}}})
	if hostAt(t, s, "a1").Standby() {
		t.Error("a set that follows Envoy has no such priorities")
	}
}

// When no priority can be connected to, the first that may be is tried.
func TestBP5_AllPrioritiesFail(t *testing.T) {
	t.Parallel()
	s := gradedSet()
	for h := range s.Hosts() {
		h.SetReachable(false)
	}
	for range 5 {
		if _, err := s.Pick(PickInfo{}); err != nil {
			t.Fatal(err)
		}
	}
	hostAt(t, s, "b2").SetReachable(true)
	if h, _ := s.Pick(PickInfo{}); h.Endpoint().Address != "b2" {
		t.Errorf("%s was picked, want the one that may be tried", h.Endpoint().Address)
	}
	hostAt(t, s, "c1").Opened()
	hostAt(t, s, "c1").SetReachable(true)
	wantPriority(t, s, 2)
}
