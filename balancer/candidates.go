package balancer

// Candidates returns the hosts of which [Set.Pick] takes one for a first attempt
// now, in the order of the configuration within each group of hosts; why there is
// none, as Pick does. It takes no turn and draws nothing.
func (s *Set) Candidates() ([]*Host, error) { return s.CandidatesFor(nil) }

// CandidatesFor is [Set.Candidates] for attempts that prefer a locality, as those
// with [PickInfo.Prefer] do; nil prefers none.
func (s *Set) CandidatesFor(prefer *Locality) ([]*Host, error) {
	snapshot := s.snapshot.Load()
	if snapshot.err != nil {
		return nil, snapshot.err
	}
	var all, reachable []*Host
	choices := snapshot.choices
	if snapshot.levels != nil {
		choices = []choice{*snapshot.serving()}
	}
	for i := range choices {
		for _, g := range choices[i].groups {
			all = append(all, g.hosts...)
		}
	}
	if reachable = reachableAmong(all); len(reachable) > 0 {
		if preferred := among(reachable, prefer); len(preferred) > 0 {
			return preferred, nil
		}
		return reachable, nil
	}
	for _, g := range snapshot.reserve {
		if reachable = reachableAmong(g.hosts); len(reachable) > 0 {
			return reachable, nil
		}
	}
	return all, nil
}

// among are the hosts within a locality.
func among(hosts []*Host, locality *Locality) []*Host {
	if locality == nil {
		return nil
	}
	var there []*Host
	for _, h := range hosts {
		if locality.covers(h.Locality()) {
			there = append(there, h)
		}
	}
	return there
}

func reachableAmong(hosts []*Host) []*Host {
	var reachable []*Host
	for _, h := range hosts {
		if h.Reachable() {
			reachable = append(reachable, h)
		}
	}
	return reachable
}
