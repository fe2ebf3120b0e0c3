package balancer

import (
	"errors"
	"maps"
	"slices"
	"testing"
)

// labelled returns endpoints with these metadata.
func labelled(metadata ...map[string]string) LocalityEndpoints {
	l := LocalityEndpoints{Endpoints: endpoints(len(metadata), equalWeights)}
	for i, values := range metadata {
		l.Endpoints[i].Metadata = map[string]map[string]string{subsetNamespace: values}
	}
	return l
}

func TestSubsets(t *testing.T) {
	t.Parallel()
	hosts := labelled(
		map[string]string{"version": "v1", "stage": "prod"},
		map[string]string{"version": "v1", "stage": "dev"},
		map[string]string{"version": "v2", "stage": "prod"},
		map[string]string{"stage": "dev"},
	)
	byVersion := SubsetSelector{Keys: []string{"version"}}
	both := SubsetSelector{Keys: []string{"stage", "version"}}
	tests := []struct {
		name   string
		config Subsets
		match  map[string]string
		want   []int // the hosts that are picked; nil is ErrNoSubset
	}{
		{"one key", Subsets{Selectors: []SubsetSelector{byVersion}}, map[string]string{"version": "v1"}, []int{0, 1}},
		{"two keys, whatever their order", Subsets{Selectors: []SubsetSelector{both}}, map[string]string{"version": "v1", "stage": "dev"}, []int{1}},
		{"fewer keys than a selector has", Subsets{Selectors: []SubsetSelector{both}}, map[string]string{"version": "v1"}, nil},
		{"a value that nobody has", Subsets{Selectors: []SubsetSelector{byVersion}}, map[string]string{"version": "v9"}, nil},
		{"nothing asked for, without a fallback", Subsets{Selectors: []SubsetSelector{byVersion}}, nil, nil},
		{"any endpoint", Subsets{Selectors: []SubsetSelector{byVersion}, Fallback: FallbackAny}, map[string]string{"version": "v9"}, []int{0, 1, 2, 3}},
		{
			"the default subset", Subsets{Selectors: []SubsetSelector{byVersion}, Fallback: FallbackDefault, Default: map[string]string{"stage": "dev"}},
			nil, []int{1, 3},
		},
		{
			"a default subset of all endpoints", Subsets{Selectors: []SubsetSelector{byVersion}, Fallback: FallbackDefault},
			map[string]string{"version": "v9"}, []int{0, 1, 2, 3},
		},
		{
			"a default subset without a host", Subsets{Selectors: []SubsetSelector{byVersion}, Fallback: FallbackDefault, Default: map[string]string{"stage": "none"}},
			nil, nil,
		},
		{
			"a default subset without a host, and any in a panic",
			Subsets{Selectors: []SubsetSelector{byVersion}, Fallback: FallbackDefault, Default: map[string]string{"stage": "none"}, PanicAny: true},
			nil, []int{0, 1, 2, 3},
		},
		{
			"no fallback, and any in a panic", Subsets{Selectors: []SubsetSelector{byVersion}, Fallback: FallbackNone, PanicAny: true},
			map[string]string{"version": "v9"}, nil,
		},
		{
			"a selector without a fallback, and any in a panic",
			Subsets{Selectors: []SubsetSelector{{Keys: []string{"version"}, Fallback: FallbackNone}}, Fallback: FallbackAny, PanicAny: true},
			map[string]string{"version": "v9"}, nil,
		},
		{
			"a selector whose default is nobody, and any in a panic",
			Subsets{
				Selectors: []SubsetSelector{{Keys: []string{"version"}, Fallback: FallbackDefault}}, Default: map[string]string{"stage": "none"},
				Fallback: FallbackAny, PanicAny: true,
			},
			map[string]string{"version": "v9"}, nil,
		},
		{
			"a selector's own fallback", Subsets{Selectors: []SubsetSelector{{Keys: []string{"version"}, Fallback: FallbackAny}}},
			map[string]string{"version": "v9"}, []int{0, 1, 2, 3},
		},
		{
			"a selector that has none in spite of the whole's",
			Subsets{Selectors: []SubsetSelector{{Keys: []string{"version"}, Fallback: FallbackNone}}, Fallback: FallbackAny},
			map[string]string{"version": "v9"}, nil,
		},
		{"no selector, and no fallback", Subsets{Fallback: FallbackNone}, map[string]string{"version": "v1"}, nil},
		{"no selector, and any endpoint", Subsets{Fallback: FallbackAny}, map[string]string{"version": "v1"}, []int{0, 1, 2, 3}},
		{
			"no selector, and the default subset", Subsets{Fallback: FallbackDefault, Default: map[string]string{"stage": "dev"}},
			map[string]string{"version": "v1"}, []int{1, 3},
		},
		{
			"fewer keys", Subsets{Selectors: []SubsetSelector{
				{Keys: []string{"version", "stage"}, Fallback: FallbackKeysSubset, FallbackKeys: []string{"version"}}, byVersion,
			}},
			map[string]string{"version": "v2", "stage": "dev"}, []int{2},
		},
	}
	for _, policy := range []Policy{RoundRobin, LeastRequest, Random, RingHash, Maglev} {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				t.Parallel()
				s := seededSet(t, Config{Policy: policy, Subsets: &tt.config}, hosts)
				want := make(map[string]bool)
				for _, i := range tt.want {
					want[address(i)] = true
				}
				got := make(map[string]bool)
				for range 200 {
					h, err := s.Pick(PickInfo{Match: NewMatch(tt.match)})
					if len(tt.want) == 0 {
						if !errors.Is(err, ErrNoSubset) && !errors.Is(err, ErrNoEndpoint) {
							t.Fatalf("error %v, want that there is no subset", err)
						}
						return
					}
					if err != nil {
						t.Fatal(err)
					}
					got[h.Endpoint().Address] = true
				}
				if !maps.Equal(got, want) {
					t.Errorf("picked %v, want %v", got, want)
				}
			})
		}
	}
}

// Whoever brings the address of a host gets it only if the call may go there.
func TestASessionStaysInTheSubsetOfItsCall(t *testing.T) {
	t.Parallel()
	hosts := labelled(map[string]string{"version": "v1"}, map[string]string{"version": "v2"}, map[string]string{"version": "v2"}, nil)
	selectors := []SubsetSelector{{Keys: []string{"version"}}}
	v1 := map[string]string{"version": "v1"}
	tests := []struct {
		name   string
		config Subsets
		match  map[string]string
		want   []int // who may be pinned
	}{
		{"a subset", Subsets{Selectors: selectors, Fallback: FallbackAny}, map[string]string{"version": "v2"}, []int{1, 2}},
		{"a subset of nobody", Subsets{Selectors: selectors}, map[string]string{"version": "v9"}, nil},
		{"any endpoint", Subsets{Selectors: selectors, Fallback: FallbackAny}, nil, []int{0, 1, 2, 3}},
		{"the default subset", Subsets{Selectors: selectors, Fallback: FallbackDefault, Default: v1}, nil, []int{0}},
		{"a default subset of all", Subsets{Selectors: selectors, Fallback: FallbackDefault}, nil, []int{0, 1, 2, 3}},
		{"any in a panic", Subsets{Selectors: selectors, Fallback: FallbackDefault, Default: map[string]string{"version": "v9"}, PanicAny: true}, nil, []int{0, 1, 2, 3}},
		{"fewer keys", Subsets{Selectors: append(selectors, SubsetSelector{
			Keys: []string{"stage", "version"}, Fallback: FallbackKeysSubset, FallbackKeys: []string{"version"},
		})}, map[string]string{"version": "v2", "stage": "x"}, []int{1, 2}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := seededSet(t, Config{Subsets: &tt.config}, hosts)
			for i := range 4 {
				info := PickInfo{Match: NewMatch(tt.match), Pinned: address(i), Strict: true}
				may := slices.Contains(tt.want, i)
				if h, err := s.Pick(info); may && (err != nil || h.Endpoint().Address != address(i)) || !may && !errors.Is(err, ErrPinned) || s.Pins(info) != may {
					t.Errorf("host %d: picked %v, %v, want it to be allowed: %t", i, h, err, may)
				}
				info.Strict = false
				h, err := s.Pick(info)
				if len(tt.want) == 0 {
					if err == nil {
						t.Errorf("host %d: picked %s", i, h.Endpoint().Address)
					}
					continue
				}
				allowed := err == nil && slices.ContainsFunc(tt.want, func(n int) bool { return address(n) == h.Endpoint().Address })
				if !allowed || may && h.Endpoint().Address != address(i) {
					t.Errorf("host %d: picked %v, %v, want one of %v", i, h, err, tt.want)
				}
			}
		})
	}
}

// The subset of a host follows its metadata, and its turns go on.
func TestSubsetsFollowUpdates(t *testing.T) {
	t.Parallel()
	config := Config{Subsets: &Subsets{Selectors: []SubsetSelector{{Keys: []string{"version"}}}}}
	s := seededSet(t, config, labelled(map[string]string{"version": "v1"}, map[string]string{"version": "v2"}))
	v2 := NewMatch(map[string]string{"version": "v2"})
	s.Update(config, []LocalityEndpoints{labelled(map[string]string{"version": "v2"}, map[string]string{"version": "v2"})})
	got := make(map[*Host]int)
	for range 10 {
		h, err := s.Pick(PickInfo{Match: v2})
		if err != nil {
			t.Fatal(err)
		}
		got[h]++
	}
	if len(got) != 2 {
		t.Errorf("picked %v, want both hosts", got)
	}
}

func TestMatchTellsValuesApart(t *testing.T) {
	t.Parallel()
	a, b := NewMatch(map[string]string{"a": "bc"}), NewMatch(map[string]string{"ab": "c"})
	if a.key == b.key || a.Equal(b) || !a.Equal(NewMatch(map[string]string{"a": "bc"})) || NewMatch(nil) != nil {
		t.Errorf("keys %q and %q", a.key, b.key)
	}
}
