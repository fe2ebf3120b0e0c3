package balancer

import (
	"errors"
	"maps"
	"slices"
	"strings"
)

// ErrNoSubset is returned by Pick if no endpoint is in the subset that a call asks
// for, and the policy has no other for it.
var ErrNoSubset = errors.New("no endpoint in the subset")

// subsetNamespace is the metadata of endpoints that subsets are made by.
const subsetNamespace = "envoy.lb"

// Subsets divides the hosts of a cluster by what their metadata "envoy.lb" says:
// Envoy's LbSubsetConfig. A call that asks for a [Match] gets a host that has it.
// Each subset is balanced as a cluster of its own.
type Subsets struct {
	// Selectors are the sets of keys that a call may ask for: those of its Match
	// must be one of them, no more and no less.
	Selectors []SubsetSelector
	// Fallback is for a call that asks for nothing, or for a subset that has no
	// host.
	Fallback SubsetFallback
	// Default is what the hosts of FallbackDefault have.
	Default map[string]string
	// PanicAny takes any host rather than to fail.
	PanicAny bool
	// LocalityWeightAware keeps the weights of localities within subsets.
	LocalityWeightAware bool
}

// SubsetSelector is one set of keys.
type SubsetSelector struct {
	Keys []string
	// Fallback is for calls that ask for these keys; [FallbackUnset] leaves it to
	// that of all.
	Fallback SubsetFallback
	// FallbackKeys are some of Keys, for FallbackKeysSubset: the call is as one
	// that asks for no others.
	FallbackKeys []string
}

// SubsetFallback is what becomes of a call whose subset has no host.
type SubsetFallback uint8

const (
	// FallbackUnset is FallbackNone, but for a selector.
	FallbackUnset SubsetFallback = iota
	// FallbackNone fails the call.
	FallbackNone
	// FallbackAny takes any host.
	FallbackAny
	// FallbackDefault takes a host of the default subset.
	FallbackDefault
	// FallbackKeysSubset asks for fewer keys. It is for a selector.
	FallbackKeysSubset
)

// Match is the metadata that a call asks its host to have. It is immutable; nil
// asks for nothing.
type Match struct {
	values map[string]string
	// keys and key are the sorted keys, without and with their values.
	keys, key string
}

// NewMatch returns the match for these values, nil if there are none. It keeps
// values.
func NewMatch(values map[string]string) *Match {
	if len(values) == 0 {
		return nil
	}
	m := &Match{values: values}
	var keys, key strings.Builder
	for _, k := range slices.Sorted(maps.Keys(values)) {
		writePart(&keys, k)
		writePart(&key, k)
		writePart(&key, values[k])
	}
	m.keys, m.key = keys.String(), key.String()
	return m
}

// Values returns what is asked for. It must not be changed.
func (m *Match) Values() map[string]string {
	if m == nil {
		return nil
	}
	return m.values
}

// Equal reports whether both ask for the same.
func (m *Match) Equal(other *Match) bool { return maps.Equal(m.Values(), other.Values()) }

// only returns the match for some of the keys.
func (m *Match) only(keys []string) *Match {
	values := make(map[string]string, len(keys))
	for _, k := range keys {
		values[k] = m.values[k]
	}
	return NewMatch(values)
}

// writePart writes a string so that its end is certain.
func writePart(b *strings.Builder, s string) {
	for range len(s) / 255 {
		b.WriteByte(255)
	}
	b.WriteByte(byte(len(s) % 255))
	b.WriteString(s)
}

// subsets is the snapshots of all subsets. It is immutable.
type subsets struct {
	byKey     map[string]*snapshot
	selectors map[string]*SubsetSelector
	config    *Subsets
	// all is of all hosts, chosen of the default subset; none is for calls that
	// fail.
	all, chosen, none *snapshot
}

// divide makes the snapshots of all subsets.
func (b *builder) divide(all *snapshot, spans []span) *subsets {
	config := b.config.Subsets
	t := &subsets{
		config: config, all: all, none: &snapshot{hosts: all.hosts, err: ErrNoSubset},
		byKey: make(map[string]*snapshot), selectors: make(map[string]*SubsetSelector, len(config.Selectors)),
	}
	weighted := b.config.LocalityWeighted
	b.config.LocalityWeighted = weighted && config.LocalityWeightAware
	for i := range config.Selectors {
		s := &config.Selectors[i]
		keys := slices.Compact(slices.Sorted(slices.Values(s.Keys)))
		asked := make(map[string]string, len(keys))
		for _, k := range keys {
			asked[k] = ""
		}
		if len(keys) > 0 {
			t.selectors[NewMatch(asked).keys] = s
		}
		for key, part := range b.selected(spans, keys) {
			b.subset = key
			t.byKey[key] = b.part(part)
		}
	}
	t.chosen = all
	if len(config.Default) > 0 {
		b.subset = "default"
		t.chosen = b.part(filterSpans(spans, func(h *Host) bool { return h.has(config.Default) }))
	}
	b.subset, b.config.LocalityWeighted = "", weighted
	return t
}

func (b *builder) part(spans []span) *snapshot {
	var hosts []*Host
	for _, sp := range spans {
		hosts = append(hosts, sp.hosts...)
	}
	return b.build(hosts, spans)
}

// selected divides the hosts that have all keys by their values.
func (b *builder) selected(spans []span, keys []string) map[string][]span {
	parts := make(map[string][]span)
	var key strings.Builder
	for i, sp := range spans {
	hosts:
		for _, h := range sp.hosts {
			key.Reset()
			metadata := h.Endpoint().Metadata[subsetNamespace]
			for _, k := range keys {
				value, ok := metadata[k]
				if !ok {
					continue hosts
				}
				writePart(&key, k)
				writePart(&key, value)
			}
			part := parts[key.String()]
			if len(part) == 0 || part[len(part)-1].locality != spans[i].locality {
				part = append(part, span{locality: sp.locality})
			}
			last := &part[len(part)-1]
			last.hosts = append(last.hosts, h)
			parts[key.String()] = part
		}
	}
	return parts
}

func filterSpans(spans []span, keep func(*Host) bool) []span {
	var kept []span
	for _, sp := range spans {
		var hosts []*Host
		for _, h := range sp.hosts {
			if keep(h) {
				hosts = append(hosts, h)
			}
		}
		if len(hosts) > 0 {
			kept = append(kept, span{locality: sp.locality, hosts: hosts})
		}
	}
	return kept
}

// has reports whether the host's metadata have all these values.
func (h *Host) has(values map[string]string) bool {
	metadata := h.Endpoint().Metadata[subsetNamespace]
	for k, v := range values {
		if got, ok := metadata[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// find returns the hosts for a call.
func (t *subsets) find(m *Match) *snapshot {
	fallback := t.config.Fallback
	if m != nil {
		if s := t.byKey[m.key]; s != nil {
			return s
		}
		if s := t.selectors[m.keys]; s != nil && s.Fallback != FallbackUnset {
			if s.Fallback == FallbackKeysSubset {
				return t.find(m.only(s.FallbackKeys))
			}
			fallback = s.Fallback
		}
	}
	found := t.none
	switch fallback {
	case FallbackAny:
		found = t.all
	case FallbackDefault:
		found = t.chosen
	case FallbackUnset, FallbackNone, FallbackKeysSubset:
	}
	if found.err != nil && t.config.PanicAny {
		return t.all
	}
	return found
}
