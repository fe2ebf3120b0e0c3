package balancer

import (
	"maps"
	"reflect"
	"slices"
)

// parting is how the hosts of a set are divided into subsets. It lives from snapshot
// to snapshot: a subset of which nothing has changed keeps the one it has, so that a
// change costs what is to be computed for those that it is in. Set.mu guards it.
type parting struct {
	config    *Subsets
	selectors map[string]*SubsetSelector // by their keys
	// divisions has one for each set of keys; chosen is that of the default subset,
	// nil if no call comes to it.
	divisions []*division
	chosen    *division
	// known is what the hosts were when the latest snapshot was made, in their order.
	known []hostState
}

// division is the division by one set of keys, or into the default subset and what
// is not of it.
type division struct {
	// keys are the names, sorted, and encoded what a Match has of them; values are
	// what the hosts of the default subset have.
	keys    []string
	encoded string
	values  map[string]string
	parts   map[string]*part
	// of is the part of each host, in the order of the hosts; nil for none.
	of    []*part
	round uint32 // counts the updates
}

// part is one subset.
type part struct {
	key   string
	hosts []*Host
	spans []partSpan
	// cursors are those of the snapshot, which is nil if it is to be made.
	cursors  cursors
	snapshot *snapshot

	// These are of an update: its round, how many hosts and spans it has in common
	// with the one before, and the span of the latest host.
	round           uint32
	hostsIn, spanIn int
	in              *LocalityEndpoints
	changed         bool
}

// partSpan is where the hosts of a locality begin.
type partSpan struct {
	locality *LocalityEndpoints
	from     int
}

// hostState is what a snapshot says of a host.
type hostState struct {
	endpoint *Endpoint
	began    int64
	class    class
	excluded bool
}

func (h *Host) state() hostState {
	return hostState{endpoint: h.Endpoint(), began: h.began.Load(), class: h.class(), excluded: h.Check() == Excluded}
}

// same reports whether a snapshot with the other state would be the same.
func (s hostState) same(other hostState, config *Config) bool {
	if s == other {
		return true
	}
	a, b := s.endpoint, other.endpoint
	if a == nil || s.began != other.began || s.class != other.class || s.excluded != other.excluded || a.Weight != b.Weight {
		return false
	}
	return !config.Policy.hashes() || a.hashKey(config.HashHostnames) == b.hashKey(config.HashHostnames)
}

// after returns the parting of an update's hosts, nil without subsets; p, which may be
// nil, is that of the update before.
func (p *parting) after(old, config *Config, configs []hostConfig, spans []span) *parting {
	if config.Subsets == nil {
		return nil
	}
	next := p
	if p == nil || !reflect.DeepEqual(p.config, config.Subsets) {
		next = newParting(config.Subsets, p)
	}
	known := make([]hostState, len(configs))
	for i := range configs {
		if was := configs[i].was; p != nil && was > 0 {
			known[i] = p.known[was-1]
		}
	}
	next.config, next.known = config.Subsets, known
	for _, d := range next.all() {
		d.regroup(configs, spans)
	}
	// A policy of the application may look at everything that a host has.
	if config.Policy == CustomPolicy || next != p || !reflect.DeepEqual(old, config) {
		next.forget()
	}
	return next
}

// newParting returns one without hosts, or with those of old where it divides alike.
func newParting(config *Subsets, old *parting) *parting {
	p := &parting{selectors: make(map[string]*SubsetSelector, len(config.Selectors))}
	for i := range config.Selectors {
		s := &config.Selectors[i]
		keys := slices.Compact(slices.Sorted(slices.Values(s.Keys)))
		if len(keys) == 0 {
			continue
		}
		var encoded []byte
		for _, k := range keys {
			encoded = appendPart(encoded, k)
		}
		d := &division{keys: keys, encoded: string(encoded), parts: make(map[string]*part)}
		if p.selectors[d.encoded] == nil {
			p.divisions = append(p.divisions, old.division(d))
		}
		p.selectors[d.encoded] = s
	}
	if len(config.Default) > 0 && config.uses(FallbackDefault) {
		p.chosen = &division{values: config.Default, parts: make(map[string]*part)}
	}
	return p
}

// division returns the one that is like d, or d.
func (p *parting) division(d *division) *division {
	if p != nil {
		for _, had := range p.divisions {
			if had.encoded == d.encoded {
				return had
			}
		}
	}
	return d
}

func (p *parting) all() []*division {
	if p.chosen == nil {
		return p.divisions
	}
	return append(slices.Clip(p.divisions), p.chosen)
}

// forget lets all snapshots be made anew.
func (p *parting) forget() {
	if p == nil {
		return
	}
	for _, d := range p.all() {
		for _, part := range d.parts {
			part.snapshot = nil
		}
	}
}

// regroup takes over the hosts of an update.
func (d *division) regroup(configs []hostConfig, spans []span) {
	d.round++
	of := make([]*part, len(configs))
	var key []byte
	i := 0
	for _, sp := range spans {
		for _, h := range sp.hosts {
			var ok bool
			if key, ok = d.keyOf(key[:0], configs[i].endpoint); ok {
				var p *part
				if was := configs[i].was; was > 0 && int(was) <= len(d.of) {
					p = d.of[was-1]
				}
				if p == nil || p.key != string(key) {
					if p = d.parts[string(key)]; p == nil {
						p = &part{key: string(key)}
						d.parts[p.key] = p
					}
				}
				p.add(h, sp.locality, d.round)
				of[i] = p
			}
			i++
		}
	}
	d.of = of
	maps.DeleteFunc(d.parts, func(_ string, p *part) bool {
		if p.round != d.round {
			return true
		}
		if !p.changed && p.hostsIn < len(p.hosts) {
			p.depart()
		}
		p.in = nil
		return false
	})
}

// keyOf appends the key of an endpoint's part; ok is false if it is of none.
func (d *division) keyOf(key []byte, e *Endpoint) (_ []byte, ok bool) {
	metadata := e.Metadata[subsetNamespace]
	for _, k := range d.keys {
		value, ok := metadata[k]
		if !ok {
			return key, false
		}
		key = appendPart(appendPart(key, k), value)
	}
	return key, d.values == nil || has(metadata, d.values)
}

// add adds the next host of an update.
func (p *part) add(h *Host, locality *LocalityEndpoints, round uint32) {
	if p.round != round {
		p.round, p.hostsIn, p.spanIn, p.in, p.changed = round, 0, 0, nil, false
	}
	first := p.in != locality
	p.in = locality
	if !p.changed {
		if p.continues(h, locality, first) {
			p.hostsIn++
			if first {
				p.spans[p.spanIn].locality = locality // for the one before is not to be kept
				p.spanIn++
			}
			return
		}
		p.depart()
	}
	if first {
		p.spans = append(p.spans, partSpan{locality: locality, from: len(p.hosts)})
	}
	p.hosts = append(p.hosts, h)
}

// continues reports whether the next host is the one of the update before.
func (p *part) continues(h *Host, locality *LocalityEndpoints, first bool) bool {
	if p.hostsIn == len(p.hosts) || p.hosts[p.hostsIn] != h {
		return false
	}
	begins := p.spanIn < len(p.spans) && p.spans[p.spanIn].from == p.hostsIn
	return begins == first && (!first || alike(p.spans[p.spanIn].locality, locality))
}

// alike reports whether the localities differ by nothing but their endpoints.
func alike(a, b *LocalityEndpoints) bool {
	return a.Locality == b.Locality && a.Weight == b.Weight && a.Priority == b.Priority
}

// depart leaves what the update before had, which its snapshot goes on using.
func (p *part) depart() {
	p.changed, p.snapshot = true, nil
	p.hosts, p.spans = slices.Clone(p.hosts[:p.hostsIn]), p.spans[:p.spanIn]
}

// subsets returns the snapshots of all subsets, of which b makes those that there are
// none of. all is that of all hosts.
func (p *parting) subsets(b *builder, all *snapshot) *subsets {
	b.unused = false
	b.config.LocalityWeighted = b.config.LocalityWeighted && p.config.LocalityWeightAware
	divisions := p.all()
	for i, h := range all.hosts {
		now := h.state()
		if !p.known[i].same(now, &b.config) {
			for _, d := range divisions {
				if part := d.of[i]; part != nil {
					part.snapshot = nil
				}
			}
		}
		p.known[i] = now
	}
	total := 0
	for _, d := range p.divisions {
		total += len(d.parts)
	}
	t := &subsets{
		config: p.config, selectors: p.selectors, byKey: make(map[string]*snapshot, total),
		all: all, chosen: all, none: &snapshot{hosts: all.hosts, err: ErrNoSubset},
	}
	for _, d := range p.divisions {
		for key, part := range d.parts {
			t.byKey[key] = part.made(b)
		}
	}
	if p.chosen != nil {
		if part := p.chosen.parts[""]; part != nil {
			t.chosen = part.made(b)
		} else {
			t.chosen = &snapshot{err: ErrNoEndpoint}
		}
	}
	return t
}

// made returns the part's snapshot, and makes it if there is none.
func (p *part) made(b *builder) *snapshot {
	if p.snapshot != nil {
		return p.snapshot
	}
	spans := make([]span, len(p.spans))
	end := len(p.hosts)
	for i := len(spans) - 1; i >= 0; i-- {
		from := p.spans[i].from
		spans[i] = span{locality: p.spans[i].locality, hosts: p.hosts[from:end:end]}
		end = from
	}
	b.old, b.cursors = p.cursors, cursors{}
	p.snapshot = b.build(p.hosts, spans)
	p.cursors = b.cursors
	return p.snapshot
}
