package balancer

import (
	"errors"
	"maps"
	"slices"
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
	// PanicAny takes any host if the hosts of Fallback are none. It is not for calls
	// that are to fail, by FallbackNone or by what a selector says of them.
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
	var keys, key []byte
	for _, k := range slices.Sorted(maps.Keys(values)) {
		keys = appendPart(keys, k)
		key = appendPart(appendPart(key, k), values[k])
	}
	return &Match{values: values, keys: string(keys), key: string(key)}
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

// appendPart appends a string so that its end is certain.
func appendPart(b []byte, s string) []byte {
	for range len(s) / 255 {
		b = append(b, 255)
	}
	return append(append(b, byte(len(s)%255)), s...)
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

// has reports whether metadata have all these values.
func has(metadata, values map[string]string) bool {
	for k, v := range values {
		if got, ok := metadata[k]; !ok || got != v {
			return false
		}
	}
	return true
}

func (h *Host) has(values map[string]string) bool {
	return has(h.Endpoint().Metadata[subsetNamespace], values)
}

// find returns the hosts for a call, and what they all have.
func (t *subsets) find(m *Match) (found *snapshot, have map[string]string) {
	if m != nil {
		if s := t.byKey[m.key]; s != nil {
			return s, m.values
		}
		if s := t.selectors[m.keys]; s != nil && s.Fallback != FallbackUnset {
			if s.Fallback == FallbackKeysSubset {
				return t.find(m.only(s.FallbackKeys))
			}
			return t.fallback(s.Fallback)
		}
	}
	found, have = t.fallback(t.config.Fallback)
	if configured := found != t.none; configured && found.err != nil && t.config.PanicAny {
		return t.all, nil
	}
	return found, have
}

// holds reports whether a host is one of those for a call.
func (t *subsets) holds(h *Host, m *Match) bool {
	found, have := t.find(m)
	return found != t.none && h.has(have)
}

// uses reports whether calls come to a fallback.
func (c *Subsets) uses(f SubsetFallback) bool {
	return c.Fallback == f || slices.ContainsFunc(c.Selectors, func(s SubsetSelector) bool { return s.Fallback == f })
}

// usesAll reports whether calls come to all hosts.
func (c *Subsets) usesAll() bool {
	return c.PanicAny || c.uses(FallbackAny) || len(c.Default) == 0 && c.uses(FallbackDefault)
}

// fallback is the hosts for a call whose subset has none.
func (t *subsets) fallback(f SubsetFallback) (found *snapshot, have map[string]string) {
	switch f {
	case FallbackAny:
		return t.all, nil
	case FallbackDefault:
		return t.chosen, t.config.Default
	case FallbackUnset, FallbackNone, FallbackKeysSubset:
	}
	return t.none, nil
}
