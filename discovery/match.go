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
			return containsFold(s, m.Value)
		}
		return strings.Contains(s, m.Value)
	}
	if m.IgnoreCase {
		return equalFold(s, m.Value)
	}
	return s == m.Value
}

// HasPrefix is strings.HasPrefix, without regard to the case of ASCII letters if
// fold is true.
func HasPrefix(s, prefix string, fold bool) bool {
	if len(s) < len(prefix) {
		return false
	}
	if fold {
		return equalFold(s[:len(prefix)], prefix)
	}
	return s[:len(prefix)] == prefix
}

// equalFold compares without regard to the case of ASCII letters, as Envoy does.
// That of others is no business of a policy: to [strings.EqualFold] the Kelvin
// sign is a k, and any two bytes that are no text are the same.
func equalFold(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if lower(a[i]) != lower(b[i]) {
			return false
		}
	}
	return true
}

func containsFold(s, part string) bool {
	for i := 0; i+len(part) <= len(s); i++ {
		if equalFold(s[i:i+len(part)], part) {
			return true
		}
	}
	return false
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}
