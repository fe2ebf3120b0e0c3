package istio

import (
	"maps"
	"regexp"
	"strings"

	networking "istio.io/api/networking/v1alpha3"
)

// matchCovers reports whether every request that meets b meets a too. It may say no
// where it does not know. Nil is met by every request.
func matchCovers(a, b *networking.HTTPMatchRequest) bool {
	if a == nil {
		return true
	}
	if b == nil {
		b = new(networking.HTTPMatchRequest)
	}
	return uriCovers(a, b) &&
		stringCovers(a.Method, b.Method) && stringCovers(a.Authority, b.Authority) && stringCovers(a.Scheme, b.Scheme) &&
		allCovered(a.Headers, b.Headers) && allCovered(a.QueryParams, b.QueryParams) &&
		noneCovered(a.WithoutHeaders, b.WithoutHeaders) &&
		(a.Port == 0 || a.Port == b.Port) &&
		(a.SourceNamespace == "" || a.SourceNamespace == b.SourceNamespace) &&
		subsetOf(a.SourceLabels, b.SourceLabels)
}

func uriCovers(a, b *networking.HTTPMatchRequest) bool {
	switch prefix, ok := a.GetUri().GetMatchType().(*networking.StringMatch_Prefix); {
	case a.GetUri().GetMatchType() == nil, ok && (prefix.Prefix == "/" || prefix.Prefix == ""):
		return true
	case b.GetUri().GetMatchType() == nil, b.IgnoreUriCase && !a.IgnoreUriCase:
		return false
	case a.IgnoreUriCase:
		return stringCovers(lowerMatch(a.Uri), lowerMatch(b.Uri))
	}
	return stringCovers(a.Uri, b.Uri)
}

// lowerMatch is a match in lower case, where that means the same.
func lowerMatch(m *networking.StringMatch) *networking.StringMatch {
	switch v := m.GetMatchType().(type) {
	case *networking.StringMatch_Exact:
		return &networking.StringMatch{MatchType: &networking.StringMatch_Exact{Exact: strings.ToLower(v.Exact)}}
	case *networking.StringMatch_Prefix:
		return &networking.StringMatch{MatchType: &networking.StringMatch_Prefix{Prefix: strings.ToLower(v.Prefix)}}
	}
	return m
}

// stringCovers is matchCovers for one string, which is always there.
func stringCovers(a, b *networking.StringMatch) bool {
	if a.GetMatchType() == nil {
		return true
	}
	if b.GetMatchType() == nil {
		return false
	}
	exact, isExact := b.MatchType.(*networking.StringMatch_Exact)
	switch v := a.MatchType.(type) {
	case *networking.StringMatch_Exact:
		return isExact && exact.Exact == v.Exact
	case *networking.StringMatch_Prefix:
		prefix, isPrefix := b.MatchType.(*networking.StringMatch_Prefix)
		other, isRegex := b.MatchType.(*networking.StringMatch_Regex)
		return isExact && strings.HasPrefix(exact.Exact, v.Prefix) || isPrefix && strings.HasPrefix(prefix.Prefix, v.Prefix) ||
			isRegex && beginsWith(other.Regex, v.Prefix)
	case *networking.StringMatch_Regex:
		other, isRegex := b.MatchType.(*networking.StringMatch_Regex)
		return v.Regex == ".*" || isRegex && other.Regex == v.Regex || isExact && matchesWhole(v.Regex, exact.Exact)
	}
	return false
}

func matchesWhole(expression, text string) bool {
	program, err := regexp.Compile(`\A(?:` + expression + `)\z`)
	return err == nil && program.MatchString(text)
}

// beginsWith reports whether everything that an expression matches as a whole has a prefix.
func beginsWith(expression, prefix string) bool {
	program, err := regexp.Compile(expression)
	if err != nil {
		return false
	}
	literal, _ := program.LiteralPrefix()
	return strings.HasPrefix(literal, prefix)
}

// allCovered reports whether each condition of a follows from one of b.
func allCovered(a, b map[string]*networking.StringMatch) bool {
	for name, m := range a {
		other, ok := b[name]
		if !ok || !anyValue(m) && (anyValue(other) || !stringCovers(m, other)) {
			return false
		}
	}
	return true
}

// noneCovered is allCovered for what a request must not have.
func noneCovered(a, b map[string]*networking.StringMatch) bool {
	for name, m := range a {
		other, ok := b[name]
		if !ok || !anyValue(other) && (anyValue(m) || !stringCovers(other, m)) {
			return false
		}
	}
	return true
}

// lintMatches finds matches that no request meets.
func lintMatches(one *rule) {
	for i, m := range one.spec.Match {
		a := one.matches[i]
		lintPath(m.Uri, a.field("uri"))
		lintMethod(m.GetMethod().GetExact(), a.field("method").field("exact"))
	}
}

// lintPath finds paths that no request has: they begin with a slash. The path of
// OPTIONS can be a star.
func lintPath(m *networking.StringMatch, a at) {
	begins := func(kind, path, written string) {
		if path != "" && path[0] != '/' && path[0] != '*' {
			a.field(kind).warnf(lintImpossibleMatch, "%q is met by no request: paths begin with a slash", written)
		}
	}
	switch v := m.GetMatchType().(type) {
	case *networking.StringMatch_Exact:
		if v.Exact == "" {
			a.field("exact").warnf(lintImpossibleMatch, "%q is met by no request: the shortest path is /", "")
		}
		begins("exact", v.Exact, v.Exact)
	case *networking.StringMatch_Prefix:
		begins("prefix", v.Prefix, v.Prefix)
	case *networking.StringMatch_Regex:
		if program, err := regexp.Compile(v.Regex); err == nil {
			prefix, _ := program.LiteralPrefix()
			begins("regex", prefix, v.Regex)
		}
	}
}

// onlyURI reports whether a match asks for nothing but the path and the port.
func onlyURI(m *networking.HTTPMatchRequest) bool {
	return m.Method == nil && m.Authority == nil && m.Scheme == nil &&
		len(m.Headers)+len(m.QueryParams)+len(m.WithoutHeaders) == 0
}

// callerOf is the condition of a match on who calls, if it has one.
func callerOf(m *networking.HTTPMatchRequest) (source, bool) {
	s := source{labels: maps.Clone(m.SourceLabels), namespace: m.SourceNamespace}
	return s, !s.none()
}
