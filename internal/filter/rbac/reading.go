package rbac

import (
	"net/url"
	"slices"
	"strings"
)

// readings are the spellings of a request's path: as it is on the wire, and
// decoded, as most applications see it. The framework refuses requests of which
// the two could mean different things, so that either is the same path.
type readings struct {
	read          bool
	path, decoded string
}

func (s *Subject) read() *readings {
	r := &s.readings
	if !r.read {
		r.read = true
		r.path, r.decoded = s.Request.Path, s.Request.Path
		if strings.IndexByte(r.path, '%') >= 0 {
			if decoded, err := url.PathUnescape(r.path); err == nil {
				r.decoded = decoded
			}
		}
	}
	return r
}

// hostSpellings are the ways to write a host: as it was sent, without the port,
// without the brackets, and without the dot at its end, the port kept and left out.
func hostSpellings(host string) (spellings [5]string, n int) {
	add := func(s string) {
		if !slices.Contains(spellings[:n], s) {
			spellings[n] = s
			n++
		}
	}
	add(host)
	name, port := host, ""
	if colon := strings.LastIndexByte(host, ':'); colon >= 0 && strings.IndexByte(host[colon:], ']') < 0 {
		name, port = host[:colon], host[colon:]
	}
	add(name)
	if inside, ok := strings.CutPrefix(name, "["); ok {
		add(strings.TrimSuffix(inside, "]"))
	}
	if bare, ok := strings.CutSuffix(name, "."); ok {
		add(bare + port)
		add(bare)
	}
	return spellings, n
}
