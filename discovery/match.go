package discovery

import "strings"

// Matches reports whether s satisfies the matcher, as Envoy's StringMatcher
// has it.
func (m *StringMatch) Matches(s string) bool {
	switch m.Kind {
	case MatchRegex:
		return m.Regex.MatchString(s)
	case MatchPrefix:
		return HasPrefix(s, m.Value, m.IgnoreCase)
	case MatchSuffix:
		return len(s) >= len(m.Value) && HasPrefix(s[len(s)-len(m.Value):], m.Value, m.IgnoreCase)
	case MatchContains:
		if m.IgnoreCase {
			return strings.Contains(strings.ToLower(s), strings.ToLower(m.Value))
		}
		return strings.Contains(s, m.Value)
	}
	if m.IgnoreCase {
		return strings.EqualFold(s, m.Value)
	}
	return s == m.Value
}

// HasPrefix is strings.HasPrefix, without regard to case if fold is true.
func HasPrefix(s, prefix string, fold bool) bool {
	if len(s) < len(prefix) {
		return false
	}
	if fold {
		return strings.EqualFold(s[:len(prefix)], prefix)
	}
	return s[:len(prefix)] == prefix
}
