package balancer

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// parted returns endpoints of three localities with random metadata.
func parted(random *rand.Rand, n int) []LocalityEndpoints {
	localities := make([]LocalityEndpoints, 3)
	for i := range localities {
		localities[i] = LocalityEndpoints{
			Locality: Locality{Zone: fmt.Sprint(i)}, Priority: uint32(random.IntN(2)), Weight: uint32(1 + random.IntN(2)),
		}
	}
	for _, i := range random.Perm(n)[:n-random.IntN(3)] {
		zone := i % 3
		if random.IntN(30) == 0 {
			zone = random.IntN(3)
		}
		versions := []string{"v1", "v2", "v3", "v4"}
		version := versions[i%4]
		if random.IntN(30) == 0 {
			version = versions[random.IntN(4)]
		}
		values := map[string]string{"version": version, "stage": []string{"dev", "prod"}[i/2%2]}
		if random.IntN(10) == 0 {
			delete(values, "stage")
		}
		if random.IntN(20) == 0 {
			values["hash_key"] = fmt.Sprint("other", i)
		}
		localities[zone].Endpoints = append(localities[zone].Endpoints, Endpoint{
			Address: address(i), Weight: uint32(1 + i%3 + random.IntN(20)/19), Health: []Health{Healthy, Unhealthy, Degraded}[max(random.IntN(20)-17, 0)],
			Metadata: map[string]map[string]string{subsetNamespace: values},
		})
	}
	for _, l := range localities {
		if random.IntN(2) == 0 { // else their order changes, too
			slices.SortFunc(l.Endpoints, func(a, b Endpoint) int { return slices.Compare([]byte(a.Address), []byte(b.Address)) })
		}
	}
	return localities
}

// told is all that picks from a snapshot depend on.
func told(s *snapshot) string {
	var text strings.Builder
	fmt.Fprintln(&text, s.err, s.capacity, s.zoneOff)
	group := func(g *group) {
		for _, h := range g.hosts {
			text.WriteString(" " + h.Endpoint().Address)
		}
		switch c := g.chooser.(type) {
		case *turns:
			fmt.Fprint(&text, c.n)
		case *schedule:
			fmt.Fprint(&text, c.order)
		case *spread:
			fmt.Fprint(&text, c.ends)
		}
		switch p := g.picker.(type) {
		case *maglev:
			fmt.Fprint(&text, p.table)
		case *ring:
			fmt.Fprint(&text, p.points)
		case *warming:
			for i, h := range g.hosts {
				if h.began.Load() != notYet { // else it is taken as long in service
					fmt.Fprint(&text, p.began[i])
				}
			}
		}
		text.WriteString("\n")
	}
	for i := range s.choices {
		fmt.Fprintln(&text, s.choices[i].below, s.choices[i].degraded)
		for _, g := range s.choices[i].groups {
			group(g)
		}
	}
	for _, g := range s.reserve {
		group(g)
	}
	return text.String()
}

// Snapshots of subsets are kept from before, and are what they would be if all were
// made anew.
func TestSubsetsAreThoseOfTheHostsAfterAnyChanges(t *testing.T) {
	t.Parallel()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, seed))
	config := Subsets{
		Selectors: []SubsetSelector{{Keys: []string{"version"}}, {Keys: []string{"version", "stage"}}, {Keys: []string{"stage"}, Fallback: FallbackDefault}},
		Default:   map[string]string{"version": "v2"}, LocalityWeightAware: true,
	}
	kept := 0
	for _, c := range []Config{
		{}, {LocalityWeighted: true}, {Policy: LeastRequest}, {Policy: Maglev, MaglevSize: 53}, {Policy: RingHash, MinRingSize: 8, MaxRingSize: 16},
		{SlowStart: SlowStart{Window: time.Hour}}, {PanicThreshold: 50, LocalityWeighted: true},
	} {
		c.Subsets = &config
		outliers := OutlierConfig{MaxEjectionPercent: 50, BaseEjectionTime: time.Nanosecond, Consecutive5xx: ConsecutiveFailures{Threshold: 1, Enforcing: 100}}
		s := newSet(c, nil, random.Uint64)
		s.SetOutlier(&outliers)
		localities := parted(random, 24)
		s.Update(c, localities)
		before := s.snapshot.Load().subsets
		for range 60 {
			hosts := slices.Collect(s.Hosts())
			one := hosts[random.IntN(len(hosts))]
			switch random.IntN(5) {
			case 0:
				localities = parted(random, 24)
				s.Update(c, localities)
			case 1:
				localities = slices.Clone(localities)
				l := &localities[random.IntN(3)]
				l.Endpoints = slices.Clone(l.Endpoints)
				l.Endpoints = append(l.Endpoints, Endpoint{Address: fmt.Sprint("new", random.IntN(3)), Metadata: map[string]map[string]string{subsetNamespace: {"version": "v1"}}})
				s.Update(c, localities)
			case 2:
				s.SetCheck(one, Check(random.IntN(5)))
			case 3:
				one.Report(&internal500)
			case 4:
				s.Sweep()
			}
			now := s.snapshot.Load().subsets
			for key, part := range before.byKey {
				if now.byKey[key] == part {
					kept++
				}
			}
			checkParts(t, s, localities)
			before = s.snapshot.Load().subsets
			if t.Failed() {
				t.Fatalf("with %+v", c)
			}
		}
	}
	if kept < 500 {
		t.Errorf("%d snapshots were kept, want many", kept)
	}
}

// checkParts compares the subsets of a set with those that its hosts make.
func checkParts(t *testing.T, s *Set, localities []LocalityEndpoints) {
	t.Helper()
	got := s.snapshot.Load().subsets
	want := make(map[string][]*Host)
	for h := range s.Hosts() {
		m := h.Endpoint().Metadata[subsetNamespace]
		for _, keys := range [][]string{{"version"}, {"stage"}, {"version", "stage"}} {
			values := make(map[string]string)
			for _, k := range keys {
				if v, ok := m[k]; ok {
					values[k] = v
				}
			}
			if len(values) == len(keys) {
				want[NewMatch(values).key] = append(want[NewMatch(values).key], h)
			}
		}
	}
	if len(got.byKey) != len(want) {
		t.Errorf("%d subsets, want %d", len(got.byKey), len(want))
	}
	for key, hosts := range want {
		if got.byKey[key] == nil || !slices.Equal(got.byKey[key].hosts, hosts) {
			t.Errorf("the hosts of %q are others", key)
			return
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.parting.all() {
		for key, part := range d.parts {
			for _, sp := range part.spans {
				if !slices.ContainsFunc(localities, func(l LocalityEndpoints) bool {
					return alike(&l, sp.locality) && &l.Endpoints[0] == &sp.locality.Endpoints[0]
				}) {
					t.Errorf("%q has a locality of an update before", key)
				}
			}
		}
	}
	s.parting.forget()
	s.rebuildLocked(s.snapshot.Load().hosts)
	anew := s.snapshot.Load().subsets
	for key := range want {
		if kept, made := told(got.byKey[key]), told(anew.byKey[key]); kept != made {
			t.Errorf("%q is\n%s, want\n%s", key, kept, made)
		}
	}
	if kept, made := told(got.chosen), told(anew.chosen); kept != made {
		t.Errorf("the default subset is\n%s, want\n%s", kept, made)
	}
}

func TestASubsetIsMadeAnewOnlyIfItHasChanged(t *testing.T) {
	t.Parallel()
	config := Config{Policy: Maglev, MaglevSize: 53, Subsets: &Subsets{Selectors: []SubsetSelector{{Keys: []string{"version"}}}}}
	version := func(v string) map[string]string { return map[string]string{"version": v} }
	hosts := labelled(version("v1"), version("v1"), version("v2"), version("v2"))
	key := func(v string) string { return NewMatch(version(v)).key }
	outliers := OutlierConfig{MaxEjectionPercent: 50, Consecutive5xx: ConsecutiveFailures{Threshold: 1, Enforcing: 100}}
	tests := []struct {
		name   string
		change func(s *Set)
	}{
		{"an endpoint that comes", func(s *Set) {
			s.Update(config, []LocalityEndpoints{labelled(version("v1"), version("v1"), version("v2"), version("v2"), version("v1"))})
		}},
		{"an endpoint that leaves", func(s *Set) {
			s.Update(config, []LocalityEndpoints{{Endpoints: slices.Delete(slices.Clone(hosts.Endpoints), 1, 2)}})
		}},
		{"a weight", func(s *Set) {
			changed := LocalityEndpoints{Endpoints: slices.Clone(hosts.Endpoints)}
			changed.Endpoints[0].Weight = 7
			s.Update(config, []LocalityEndpoints{changed})
		}},
		{"a health", func(s *Set) {
			changed := LocalityEndpoints{Endpoints: slices.Clone(hosts.Endpoints)}
			changed.Endpoints[0].Health = Unhealthy
			s.Update(config, []LocalityEndpoints{changed})
		}},
		{"a check", func(s *Set) { s.SetCheck(hostAt(t, s, address(0)), Failing) }},
		{"a key of the hash", func(s *Set) {
			changed := labelled(map[string]string{"version": "v1", "hash_key": "mine"}, version("v1"), version("v2"), version("v2"))
			s.Update(config, []LocalityEndpoints{changed})
		}},
		{"one that leaves for one that comes", func(s *Set) {
			changed := LocalityEndpoints{Endpoints: slices.Clone(hosts.Endpoints)}
			changed.Endpoints[1].Address = "new"
			s.Update(config, []LocalityEndpoints{changed})
		}},
		{"an ejection", func(s *Set) { hostAt(t, s, address(0)).Report(&internal500) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := seededSet(t, config, hosts)
			s.SetOutlier(&outliers)
			before := s.snapshot.Load().subsets.byKey
			old := slices.Clone(before[key("v1")].choices[0].groups[0].hosts)
			tt.change(s)
			now := s.snapshot.Load().subsets.byKey
			if now[key("v1")] == before[key("v1")] {
				t.Error("the subset that changed is the one of before")
			}
			if now[key("v2")] != before[key("v2")] {
				t.Error("the other subset was made anew")
			}
			if !slices.Equal(before[key("v1")].choices[0].groups[0].hosts, old) {
				t.Error("the hosts of before have changed, of which calls may pick at this moment")
			}
		})
	}
	t.Run("another way of balancing", func(t *testing.T) {
		t.Parallel()
		s := seededSet(t, config, hosts)
		before := s.snapshot.Load().subsets.byKey
		random := config
		random.Policy = Random
		s.Update(random, []LocalityEndpoints{hosts})
		for k, now := range s.snapshot.Load().subsets.byKey {
			if now == before[k] {
				t.Errorf("%q is the one of before", k)
			}
		}
	})
}
