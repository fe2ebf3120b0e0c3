package balancer

import (
	"slices"
	"testing"
)

// Hosts that would refuse are passed over as if they could not be reached: what gets no
// traffic otherwise, and hosts that were tried before, go before them.
func TestHostsThatRefuseArePickedLast(t *testing.T) {
	t.Parallel()
	for _, policy := range []Policy{RoundRobin, LeastRequest, Random, RingHash, Maglev} {
		config := Config{Policy: policy}
		s := NewSet(config, nil)
		s.Update(config, []LocalityEndpoints{
			{Weight: 1, Endpoints: endpointsFrom(0, 4)},
			{Weight: 1, Priority: 1, Endpoints: endpointsFrom(4, 2)},
		})
		hosts := slices.Collect(s.Hosts())
		for _, c := range []struct {
			name             string
			refuse, avoid    []*Host
			unreachable, may []*Host
		}{
			{name: "nobody refuses", may: hosts[:4]},
			{name: "some refuse", refuse: hosts[:3], may: hosts[3:4]},
			{name: "a priority refuses", refuse: hosts[:4], may: hosts[4:]},
			{name: "who was tried does not refuse", refuse: hosts[1:4], avoid: hosts[:1], may: hosts[:1]},
			{name: "all refuse", refuse: hosts, may: hosts},
			{name: "all refuse, and some were tried", refuse: hosts, avoid: hosts[:5], may: hosts[5:]},
			{name: "who refuses goes before who is not there", refuse: hosts[:1], unreachable: hosts[1:], may: hosts[:1]},
		} {
			for _, h := range c.unreachable {
				h.SetReachable(false)
			}
			info := PickInfo{Avoid: c.avoid, Hashed: true}
			if c.refuse != nil {
				info.Refuses = func(h *Host) bool { return slices.Contains(c.refuse, h) }
			}
			for n := range 200 {
				info.Hash = uint64(n) * 0x9E3779B97F4A7C15
				if h, err := s.Pick(info); err != nil || !slices.Contains(c.may, h) {
					t.Fatalf("policy %d, %s: picked %v, %v", policy, c.name, h, err)
				}
			}
			if got, want := s.Usable(&info), len(c.refuse) < len(hosts) && len(c.unreachable) == 0; got != want {
				t.Errorf("policy %d, %s: usable %v", policy, c.name, got)
			}
			for _, h := range c.unreachable {
				h.SetReachable(true)
			}
		}
	}
}
