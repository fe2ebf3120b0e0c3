package discovery

import (
	"slices"
	"strings"
)

// MetadataMatch is Envoy's MetadataMatcher: it compares a value in the dynamic
// metadata of a request, in the namespace of a filter.
type MetadataMatch struct {
	Filter string
	// Path are the keys that lead to the value.
	Path  []string
	Value ValueMatch
	// Invert matches what does not match, a missing value too.
	Invert bool
}

// Name is where the value is: "filter:key:key".
func (m *MetadataMatch) Name() string {
	return strings.Join(append([]string{m.Filter}, m.Path...), ":")
}

// Matches reports whether metadata satisfies the matcher. Values are those of
// encoding/json.
func (m *MetadataMatch) Matches(metadata map[string]map[string]any) bool {
	return m.matches(metadata) != m.Invert
}

func (m *MetadataMatch) matches(metadata map[string]map[string]any) bool {
	values, found := metadata[m.Filter]
	if !found || len(m.Path) == 0 {
		return false
	}
	last := len(m.Path) - 1
	for _, key := range m.Path[:last] {
		inner, ok := values[key].(map[string]any)
		if !ok {
			return false
		}
		values = inner
	}
	value, found := values[m.Path[last]]
	return found && m.Value.Matches(value)
}

// ValueMatch is Envoy's ValueMatcher.
type ValueMatch struct {
	Kind ValueMatchKind
	// Start and End delimit ValueDouble: [Start, End); equal ones are one value.
	Start, End float64
	// Bool is set for ValueBool.
	Bool bool
	// String is set for ValueString.
	String StringMatch
	// Any are alternatives: of a value for ValueOr, of an element of a list for
	// ValueList.
	Any []ValueMatch
}

// ValueMatchKind is how a [ValueMatch] compares.
type ValueMatchKind uint8

// The kinds of Envoy's ValueMatcher.
const (
	// ValuePresent matches every value that is no list and no structure.
	ValuePresent ValueMatchKind = iota
	ValueNull
	ValueDouble
	ValueString
	ValueBool
	ValueList
	ValueOr
)

// Matches reports whether a value satisfies the matcher.
func (m *ValueMatch) Matches(value any) bool {
	switch m.Kind {
	case ValuePresent:
		switch value.(type) {
		case []any, map[string]any:
			return false
		}
		return true
	case ValueNull:
		return value == nil
	case ValueDouble:
		n, ok := value.(float64)
		return ok && (n == m.Start && m.Start == m.End || m.Start <= n && n < m.End)
	case ValueString:
		s, ok := value.(string)
		return ok && m.String.Matches(s)
	case ValueBool:
		b, ok := value.(bool)
		return ok && b == m.Bool
	case ValueList:
		list, _ := value.([]any)
		return slices.ContainsFunc(list, m.any)
	case ValueOr:
		return m.any(value)
	}
	return false
}

func (m *ValueMatch) any(value any) bool {
	for i := range m.Any {
		if m.Any[i].Matches(value) {
			return true
		}
	}
	return false
}
