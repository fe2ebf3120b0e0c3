package httpmesh

import (
	"net/http"
	"net/textproto"

	"github.com/inboardmesh/inboard/internal/route"
	"github.com/inboardmesh/inboard/observe"
)

// header is an http.Header as routing and observers see it.
type header http.Header

var (
	_ route.HeaderMap = header(nil)
	_ observe.Carrier = header(nil)
)

// copyHeader copies the map and shares the values, which are never changed in
// place: clipped, so that adding a value makes a new slice.
func copyHeader(from http.Header) http.Header {
	const room = 4 // for what the mesh adds
	to := make(http.Header, len(from)+room)
	for name, values := range from {
		to[name] = values[:len(values):len(values)]
	}
	return to
}

// Values finds a header without making a canonical copy of its name, which for
// names that net/http does not know costs an allocation.
func (h header) Values(name string) []string {
	var canonical [64]byte
	if len(name) > len(canonical) {
		return h[textproto.CanonicalMIMEHeaderKey(name)]
	}
	upper := true
	for i := range len(name) {
		c := name[i]
		switch {
		case upper && 'a' <= c && c <= 'z':
			c -= 'a' - 'A'
		case !upper && 'A' <= c && c <= 'Z':
			c += 'a' - 'A'
		}
		canonical[i] = c
		upper = c == '-'
	}
	return h[string(canonical[:len(name)])]
}

func (h header) Get(name string) string { return http.Header(h).Get(name) }

func (h header) Set(name, value string) { http.Header(h).Set(name, value) }

func (h header) Add(name, value string) { http.Header(h).Add(name, value) }

func (h header) Del(name string) { http.Header(h).Del(name) }

func (h header) Keys() []string {
	keys := make([]string, 0, len(h))
	for key := range h {
		keys = append(keys, key)
	}
	return keys
}
