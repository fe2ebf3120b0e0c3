package balancer

// Candidates returns the hosts of which [Set.Pick] takes one for a first attempt
// now, in the order of the configuration within each group of hosts; why there is
// none, as Pick does. It takes no turn and draws nothing.
func (s *Set) Candidates() ([]*Host, error) { return s.CandidatesFor(&PickInfo{}) }

// CandidatesFor is [Set.Candidates] for attempts with these Pinned, Strict, Prefer, Match,
// Refuses and Part, and with Hash and InFlight if the policy is one that hashes. It is one
// host if they determine it. Of Part every place up to it counts, unless there is a hash.
// What else info says is not looked at.
func (s *Set) CandidatesFor(info *PickInfo) ([]*Host, error) {
	snapshot := s.snapshot.Load()
	if info.Pinned != "" {
		if h := s.pinned(snapshot, info); h != nil {
			return []*Host{h}, nil
		}
		if info.Strict {
			return nil, ErrPinned
		}
	}
	if snapshot.subsets != nil {
		snapshot, _ = snapshot.subsets.find(info.Match)
	}
	if snapshot.err != nil {
		return nil, snapshot.err
	}
	var all, reachable []*Host
	choices := snapshot.choices
	if snapshot.levels != nil {
		choices = []choice{*snapshot.serving()}
	}
	for i := range choices {
		if snapshot.levels == nil && !snapshot.takes(i, info) {
			continue
		}
		for _, g := range choices[i].groups {
			all = append(all, g.hosts...)
		}
	}
	if len(all) == 0 {
		return nil, ErrPanic
	}
	h := s.determined(snapshot, info)
	if h != nil && (info.Prefer == nil || info.Prefer.covers(h.Locality())) {
		return []*Host{h}, nil
	}
	if reachable = info.admittedAmong(all); len(reachable) > 0 {
		if preferred := among(reachable, info.Prefer); len(preferred) > 0 {
			return preferred, nil
		}
		if h != nil {
			return []*Host{h}, nil
		}
		return reachable, nil
	}
	for _, g := range snapshot.reserve {
		if reachable = info.admittedAmong(g.hosts); len(reachable) > 0 {
			return reachable, nil
		}
	}
	return all, nil
}

// determined is the host that a hash leads to, nil if chance has a part in it.
func (s *Set) determined(snapshot *snapshot, info *PickInfo) *Host {
	c := snapshot.ledTo(info)
	if c == nil || !snapshot.hashing || len(c.groups) == 0 {
		return nil
	}
	g, q := c.groups[0], s.query(snapshot, info)
	if h := g.pick(q); h.usable(info) {
		return h
	}
	if search := (search{revivals: s.revivals.Load()}); search.vain(g) {
		return nil
	}
	return g.alternative(q, info)
}

// ledTo is the choice that a hash leads to, nil if there is none, or chance decides.
func (s *snapshot) ledTo(info *PickInfo) *choice {
	switch {
	case !info.Hashed:
		return nil
	case s.levels != nil:
		return s.serving()
	case info.Part.At > 0:
		if c := s.at(info.Part); c != nil {
			return c
		}
	}
	if !s.hashing {
		return nil
	}
	i := 0
	for info.Hash%100 >= uint64(s.choices[i].below) {
		i++
	}
	return &s.choices[i]
}

// takes reports whether attempts may come to a choice.
func (s *snapshot) takes(i int, info *PickInfo) bool {
	if c := s.ledTo(info); c != nil {
		return c == &s.choices[i]
	}
	return s.comesTo(i, info.Part)
}

// Panics returns the priorities that attempts come to and whose share of healthy hosts is
// below [Config.PanicThreshold]: all of their hosts are used, or with [Config.FailOnPanic]
// none. Of info it looks at what [Set.CandidatesFor] does.
func (s *Set) Panics(info *PickInfo) []uint32 {
	snapshot := s.snapshot.Load()
	if info.Pinned != "" && (info.Strict || s.pinned(snapshot, info) != nil) {
		return nil
	}
	if snapshot.subsets != nil {
		snapshot, _ = snapshot.subsets.find(info.Match)
	}
	var all []uint32
	for i := range snapshot.choices {
		if c := &snapshot.choices[i]; c.panics && snapshot.takes(i, info) {
			all = append(all, c.priority)
		}
	}
	return all
}

// OfSubset reports whether a host is of the subset that a match asks for, or of what
// takes its place; true without subsets.
func (s *Set) OfSubset(h *Host, m *Match) bool {
	snapshot := s.snapshot.Load()
	return snapshot.subsets == nil || snapshot.subsets.holds(h, m)
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

// admittedAmong are the hosts that can be reached and would not refuse.
func (i *PickInfo) admittedAmong(hosts []*Host) []*Host {
	var reachable []*Host
	for _, h := range hosts {
		if h.Reachable() && !i.refuses(h) {
			reachable = append(reachable, h)
		}
	}
	return reachable
}
