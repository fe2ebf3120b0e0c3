package decode

import (
	"net/url"
	"strings"

	"github.com/inboardmesh/inboard/discovery"
)

// canonicalPath spells the escapes of a path that a policy names as servers spell those
// of requests before they compare: with upper-case digits, and letters, digits, "-", "_"
// and "~" as they are. A policy that is written in another way would be met by no
// request. An expression is left as it is.
func canonicalPath(m discovery.StringMatch) discovery.StringMatch {
	if m.Kind == discovery.MatchRegex || !strings.Contains(m.Value, "%") {
		return m
	}
	const escape = len("%00")
	var b strings.Builder
	for rest := m.Value; rest != ""; {
		if rest[0] == '%' && len(rest) >= escape {
			if c, err := url.PathUnescape(rest[:escape]); err == nil {
				if !isPlain(c[0]) {
					c = strings.ToUpper(rest[:escape])
				}
				b.WriteString(c)
				rest = rest[escape:]
				continue
			}
		}
		b.WriteByte(rest[0])
		rest = rest[1:]
	}
	m.Value = b.String()
	return m
}

// isPlain reports whether a character needs no escape and separates nothing.
func isPlain(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-_~", c) >= 0
}
