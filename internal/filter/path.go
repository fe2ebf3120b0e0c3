package filter

import (
	"strings"
	"unicode/utf8"
)

// Guard is a [Filter] that decides by what a request is. Before it runs, a
// request whose path could be read in more than one way is refused: what the
// guard reads and what the application acts on must be the same.
type Guard interface {
	Filter
	Guards() bool
}

// guards reports whether a filter is a guard that has something to decide.
func guards(f Filter) bool {
	g, ok := f.(Guard)
	return ok && g.Guards()
}

// CanonicalPath is the one spelling of a path in which it is compared, given the
// path as it was sent, escaped, and decoded. ok is false for a path that servers
// and applications read in different ways (decision D7): one that is not clean,
// or hides a separator in an escape, or has characters at which somebody could
// cut it. Escapes of plain letters and digits are only another spelling.
func CanonicalPath(escaped, decoded string) (canonical string, ok bool) {
	if !hasOneReading(decoded) {
		return "", false
	}
	first := strings.IndexByte(escaped, '%')
	if first < 0 {
		return escaped, true
	}
	var b strings.Builder
	b.Grow(len(escaped))
	b.WriteString(escaped[:first])
	for i := first; i < len(escaped); i++ {
		if escaped[i] != '%' {
			b.WriteByte(escaped[i])
			continue
		}
		if i+2 >= len(escaped) {
			return "", false
		}
		high, low := unhex(escaped[i+1]), unhex(escaped[i+2])
		if high < 0 || low < 0 {
			return "", false
		}
		c := byte(high<<4 | low)
		switch {
		case c == '/' || c == '.' || c == '%':
			return "", false
		case isUnreserved(c):
			b.WriteByte(c)
		default:
			b.WriteString("%" + strings.ToUpper(escaped[i+1:i+3]))
		}
		i += 2
	}
	return b.String(), true
}

// hasOneReading reports whether everybody reads a decoded path in the same way.
func hasOneReading(path string) bool {
	if path == "" || path[0] != '/' {
		return false
	}
	ascii := true
	for i := range len(path) {
		switch c := path[i]; {
		case c == '/':
			rest := path[i+1:]
			if rest == "" {
				continue
			}
			// An empty segment, "." and "..".
			segment, _, _ := strings.Cut(rest[:min(len(rest), 3)], "/")
			if segment == "" || segment == "." || segment == ".." {
				return false
			}
		case c < ' ' || c == 0x7f || c == '\\' || c == '#' || c == '?' || c == ';':
			return false
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	return ascii || utf8.ValidString(path)
}

func isUnreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_' || c == '~'
}

func unhex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}
