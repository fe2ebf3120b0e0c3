package balancer

// Candidates returns the hosts of which [Set.Pick] takes one for a first attempt
// now, in the order of the configuration within each group of hosts; why there is
// none, as Pick does. It takes no turn and draws nothing.
func (s *Set) Candidates() ([]*Host, error) {
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
		return reachable, nil
	}
	for _, g := range snapshot.reserve {
		if reachable = reachableAmong(g.hosts); len(reachable) > 0 {
			return reachable, nil
		}
	}
	return all, nil
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
