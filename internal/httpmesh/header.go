package httpmesh

import (
	"fmt"
	"maps"
	"net/http"
	"net/textproto"
	"slices"

	"github.com/inboardmesh/inboard/internal/pipeline"
	"github.com/inboardmesh/inboard/internal/route"
	"github.com/inboardmesh/inboard/internal/upstream"
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
	to, _ := copyControlled(from)
	return to
}

// copyControlled is copyHeader, and reports whether there is a header that controls the
// call.
func copyControlled(from http.Header) (to http.Header, controlled bool) {
	const room = 2 // the timeout and the trace; a map of up to eight costs least
	to = make(http.Header, len(from)+room)
	for name, values := range from {
		// A key that the application wrote in another way is the same header: policies,
		// routes and the deadline must see it.
		if name = http.CanonicalHeaderKey(name); to[name] != nil {
			to[name] = append(to[name], values...)
		} else {
			to[name] = slices.Clip(values)
		}
		controlled = controlled || pipeline.IsControl(name)
	}
	return to, controlled
}

// stripControls removes what controls calls from the headers of a request that
// arrived.
func stripControls(h header) {
	for name := range h {
		if pipeline.IsControl(name) {
			delete(h, name)
		}
	}
}

// Values finds a header without making a canonical copy of its name, which for
// names that net/http does not know costs an allocation.
func (h header) Values(name string) []string {
	var room [longestName]byte
	canonical, ok := appendCanonical(room[:0], name)
	if !ok {
		return h[textproto.CanonicalMIMEHeaderKey(name)]
	}
	return h[string(canonical)]
}

// longestName bounds the names that are made canonical without an allocation.
const longestName = 64

// appendCanonical appends the canonical form of a name of letters, digits and
// hyphens, as nearly all are. ok is false for others, and if there is no room.
func appendCanonical(to []byte, name string) (canonical []byte, ok bool) {
	if len(name) > cap(to)-len(to) {
		return nil, false
	}
	upper := true
	for i := range len(name) {
		c := name[i]
		switch {
		case 'a' <= c && c <= 'z':
			if upper {
				c -= 'a' - 'A'
			}
		case 'A' <= c && c <= 'Z':
			if !upper {
				c += 'a' - 'A'
			}
		case '0' <= c && c <= '9', c == '-':
		default:
			return nil, false
		}
		to = append(to, c)
		upper = c == '-'
	}
	return to, true
}

func (h header) Get(name string) string {
	if values := h.Values(name); len(values) > 0 {
		return values[0]
	}
	return ""
}

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

// routedHeader is the headers of a request that the configuration changes. What it removes
// is not sent, although net/http has a value of its own for it.
type routedHeader struct{ header }

var _ route.HeaderMap = routedHeader{}

// identity asks for a response as it is: what net/http would ask for otherwise is
// gzip, and for nothing it cannot be asked over HTTP/2.
var identity = []string{"identity"}

// Del removes a header.
func (r routedHeader) Del(name string) {
	switch name = http.CanonicalHeaderKey(name); name {
	case "User-Agent":
		r.header[name] = nil // net/http's way to say: none
	case "Accept-Encoding":
		r.header[name] = identity
	default:
		delete(r.header, name)
	}
}

// Add appends to what is there, which takes the place of none.
func (r routedHeader) Add(name, value string) {
	if name = http.CanonicalHeaderKey(name); name == "Accept-Encoding" && isIdentity(r.header[name]) {
		r.header[name] = nil
	}
	r.header.Add(name, value)
}

// Values are what the request has, to those who add what is absent.
func (r routedHeader) Values(name string) []string {
	values := r.header.Values(name)
	if isIdentity(values) {
		return nil
	}
	return values
}

// isIdentity reports whether values are those that Del has left.
func isIdentity(values []string) bool { return len(values) == 1 && &values[0] == &identity[0] }

// Format prints the names: the values are credentials as often as not, and who logs a
// call does not mean to log them.
func (h header) Format(s fmt.State, _ rune) { fmt.Fprint(s, slices.Sorted(maps.Keys(h))) }

// MarshalText is Format for what logs in another way.
func (h header) MarshalText() ([]byte, error) { return fmt.Append(nil, h), nil }

// outgoing is the headers of an attempt. It has room for a few values that are
// set, each of which would be an allocation in an [http.Header].
type outgoing struct {
	header

	values [3]string
	used   int

	attempt        *pipeline.Attempt
	anew           bool
	deadlineHeader string // canonical; set when the attempt is sent, if it has a deadline
}

var (
	_ observe.Carrier    = (*outgoing)(nil)
	_ upstream.Departure = (*outgoing)(nil)
)

// Set replaces a header, which every observer does that propagates a context.
func (o *outgoing) Set(name, value string) {
	switch name {
	case "traceparent":
		o.set("Traceparent", value)
	case "tracestate":
		o.set("Tracestate", value)
	case "baggage":
		o.set("Baggage", value)
	default:
		o.set(textproto.CanonicalMIMEHeaderKey(name), value)
	}
}

// set is Set for a canonical name.
func (o *outgoing) set(name, value string) {
	if o.used == len(o.values) {
		o.header[name] = []string{value}
		return
	}
	i := o.used
	o.values[i] = value
	o.header[name] = o.values[i : i+1 : i+1]
	o.used++
}
