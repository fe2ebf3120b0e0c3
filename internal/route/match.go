package route

import (
	"math/rand/v2"
	"net/url"
	"strconv"
	"strings"

	"github.com/inboardmesh/inboard/discovery"
)

// onlyPath reports whether a route asks for nothing but its path.
func onlyPath(m *discovery.RouteMatch) bool {
	return len(m.Headers)+len(m.Query)+len(m.Cookies)+len(m.Metadata) == 0 && !m.GRPC && m.PerMillion == nil
}

// matchRest reports whether a request meets every condition of a route but that
// on its path.
func (t *Table) matchRest(m *discovery.RouteMatch, req *Request) bool {
	return unmet(m, req) == noCondition && (m.PerMillion == nil || draw(t.random, *m.PerMillion))
}

// condition is one of the conditions of a route: its kind, and which of them.
type condition struct {
	kind  conditionKind
	index int
}

type conditionKind uint8

const (
	everyCondition conditionKind = iota
	headerCondition
	queryCondition
	cookieCondition
	metadataCondition
	grpcCondition
)

// noCondition is the answer for a request that meets all.
var noCondition = condition{}

// unmet returns the first condition that a request does not meet, but for those
// on its path and on chance.
func unmet(m *discovery.RouteMatch, req *Request) condition {
	for i := range m.Headers {
		if !MatchHeader(&m.Headers[i], req) {
			return condition{headerCondition, i}
		}
	}
	for i := range m.Query {
		if !matchQuery(&m.Query[i], req.Query) {
			return condition{queryCondition, i}
		}
	}
	for i := range m.Cookies {
		if !matchCookie(&m.Cookies[i], req) {
			return condition{cookieCondition, i}
		}
	}
	for i := range m.Metadata {
		if !m.Metadata[i].Matches(req.Metadata) {
			return condition{metadataCondition, i}
		}
	}
	if m.GRPC && !IsGRPC(req) {
		return condition{kind: grpcCondition}
	}
	return noCondition
}

// Draw is true for n out of a million calls, at random.
func Draw(n uint32) bool { return draw(rand.Uint64N, n) }

func draw(random func(uint64) uint64, n uint32) bool {
	const million = 1_000_000
	return n >= million || n > 0 && random(million) < uint64(n)
}

// matchPath reports whether a path meets the path condition of a route. Without
// regard to case is without regard to that of ASCII letters, as in Envoy.
func matchPath(m *discovery.PathMatch, path string) bool {
	value := m.Value
	if m.IgnoreCase {
		path, value = lowerASCII(path), lowerASCII(value)
	}
	switch m.Kind {
	case discovery.PathExact:
		return path == value
	case discovery.PathRegex, discovery.PathTemplate:
		return m.Regex.MatchString(path)
	case discovery.PathSeparatedPrefix:
		return strings.HasPrefix(path, value) && (len(path) == len(value) || path[len(value)] == '/')
	}
	return strings.HasPrefix(path, value)
}

// headerValue returns the header's values joined by commas, as gRFC A28 and
// Envoy compare them. Pseudo-headers are taken from the request line; "host"
// is ":authority". Binary headers of gRPC are never seen (gRFC A28).
func headerValue(req *Request, name string) (string, bool) {
	if value, ok := req.pseudo(name); ok {
		return value, true
	}
	if strings.HasSuffix(name, "-bin") || req.Header == nil {
		return "", false
	}
	switch values := req.Header.Values(name); len(values) {
	case 0:
		return "", false
	case 1:
		return values[0], true
	default:
		return strings.Join(values, ","), true
	}
}

// MatchHeader applies Envoy's HeaderMatcher: a missing header matches nothing,
// not even an inverted comparison, except present_match, and except where it is
// treated as empty.
func MatchHeader(m *discovery.HeaderMatch, req *Request) bool {
	value, ok := headerValue(req, m.Name)
	return MatchHeaderValue(m, value, ok)
}

// MatchHeaderValue is [MatchHeader] for a value; ok is false for a missing one.
func MatchHeaderValue(m *discovery.HeaderMatch, value string, ok bool) bool {
	if m.Kind == discovery.HeaderPresent {
		return (ok == m.Present) != m.Invert
	}
	if !ok {
		if !m.TreatMissingAsEmpty {
			return false
		}
		value = ""
	}
	var match bool
	switch m.Kind {
	case discovery.HeaderRange:
		n, err := strconv.ParseInt(value, 10, 64)
		match = err == nil && m.Start <= n && n < m.End
	default:
		match = m.String.Matches(value)
	}
	return match != m.Invert
}

// matchQuery compares the first value of a named parameter.
func matchQuery(m *discovery.QueryMatch, raw string) bool {
	value, ok := queryValue(raw, m.Name)
	return ok && (m.AnyValue || m.String.Matches(value))
}

// queryValue finds the first parameter of that name without building a map of
// the whole query. What cannot be unescaped is compared as it was sent.
func queryValue(raw, name string) (string, bool) {
	for raw != "" {
		var pair string
		pair, raw, _ = strings.Cut(raw, "&")
		key, value, _ := strings.Cut(pair, "=")
		if unescape(key) == name {
			return unescape(value), true
		}
	}
	return "", false
}

func unescape(s string) string {
	if decoded, err := url.QueryUnescape(s); err == nil {
		return decoded
	}
	return s
}

// matchCookie compares the first cookie of a name.
func matchCookie(m *discovery.CookieMatch, req *Request) bool {
	value, ok := cookieValue(req, m.Name)
	return (ok && m.String.Matches(value)) != m.Invert
}

// cookieValue finds the first cookie of that name (RFC 6265, section 4.2.1).
func cookieValue(req *Request, name string) (string, bool) {
	if req.Header == nil {
		return "", false
	}
	for _, line := range req.Header.Values("cookie") {
		for line != "" {
			var pair string
			pair, line, _ = strings.Cut(line, ";")
			key, value, ok := strings.Cut(strings.TrimSpace(pair), "=")
			if ok && key == name {
				if len(value) >= 2 && value[0] == '"' && value[len(value)-1] == '"' {
					value = value[1 : len(value)-1]
				}
				return value, true
			}
		}
	}
	return "", false
}

// IsGRPC reports whether a request is gRPC, by its content type.
func IsGRPC(req *Request) bool {
	value, _ := headerValue(req, "content-type")
	rest, ok := strings.CutPrefix(value, "application/grpc")
	return ok && (rest == "" || rest[0] == '+' || rest[0] == ';')
}
