package ads

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"
)

// scheme begins the names that have an authority (xDS TP1, gRFC A47):
// "xdstp://AUTHORITY/TYPE/ID?CONTEXT".
const scheme = "xdstp:"

// maxName bounds the names that are sent.
const maxName = 64 << 10

// resourceName is a name, taken apart.
type resourceName struct {
	// canonical is the form in which names are compared and sent: context
	// parameters sorted, the last of several with one key, escapes as few as
	// possible.
	canonical string
	// federated is true for xdstp: names; then authority is theirs.
	federated bool
	authority string
	// typ is the resource type of an xdstp: name, without the prefix of type URLs.
	typ string
	// glob is the collection that an xdstp: name is part of, in canonical form;
	// that of a collection is "".
	glob string
	// collection is true for an xdstp: name that ends with "/*".
	collection bool
}

// parseName takes a name apart.
func parseName(name string) (resourceName, error) {
	if !strings.HasPrefix(name, scheme) {
		return resourceName{canonical: name}, nil
	}
	if len(name) > maxName {
		return resourceName{}, fmt.Errorf("the resource name is longer than %d bytes", maxName)
	}
	u, err := url.Parse(name)
	if err != nil {
		return resourceName{}, fmt.Errorf("the resource name is no URI: %w", err)
	}
	switch {
	case !strings.HasPrefix(name, scheme+"//"):
		return resourceName{}, errors.New(`the resource name does not begin with "xdstp://AUTHORITY/"`)
	case u.Fragment != "" || strings.Contains(name, "#"):
		return resourceName{}, errors.New("the resource name has a fragment: names have none")
	case u.User != nil:
		return resourceName{}, errors.New("the resource name has user information")
	}
	typ, id, ok := strings.Cut(strings.TrimPrefix(u.EscapedPath(), "/"), "/")
	if !ok || typ == "" || id == "" {
		return resourceName{}, errors.New(`the resource name is not of the form "xdstp://AUTHORITY/TYPE/ID"`)
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return resourceName{}, fmt.Errorf("the context parameters of the resource name: %w", err)
	}
	segments := strings.Split(id, "/")
	for i, segment := range segments {
		plain, err := url.PathUnescape(segment)
		if err != nil {
			return resourceName{}, fmt.Errorf("the resource name: %w", err)
		}
		segments[i] = escapeSegment(plain)
	}
	last := len(segments) - 1
	n := resourceName{federated: true, authority: u.Host, typ: typ, collection: segments[last] == "*"}
	parameters := contextParameters(query)
	prefix := scheme + "//" + u.Host + "/" + typ + "/"
	n.canonical = prefix + strings.Join(segments, "/") + parameters
	if !n.collection {
		segments[last] = "*"
		n.glob = prefix + strings.Join(segments, "/") + parameters
	}
	return n, nil
}

// Authority returns what tells apart the authorities of names in their canonical form:
// "//AUTHORITY" for an xdstp: name, "" for one without an authority.
func Authority(name string) string {
	rest, ok := strings.CutPrefix(name, scheme+"//")
	if !ok {
		return ""
	}
	authority, _, _ := strings.Cut(rest, "/")
	return "//" + authority
}

// escapeSegment escapes what may not stand in a segment of a path (RFC 3986,
// pchar), and nothing else.
func escapeSegment(s string) string {
	const hex, plain = "0123456789ABCDEF", "-._~!$&'()*+,;=:@"
	var b strings.Builder
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte(plain, c) >= 0:
			b.WriteByte(c)
		default:
			b.Write([]byte{'%', hex[c>>4], hex[c&15]})
		}
	}
	return b.String()
}

// contextParameters returns them in their canonical form, with the "?".
func contextParameters(query url.Values) string {
	var b strings.Builder
	for i, key := range slices.Sorted(maps.Keys(query)) {
		b.WriteByte("?&"[min(i, 1)])
		b.WriteString(escapeParameter(key))
		b.WriteByte('=')
		values := query[key]
		b.WriteString(escapeParameter(values[len(values)-1]))
	}
	return b.String()
}

// escapeParameter escapes a space as RFC 3986 does, and not as forms do.
func escapeParameter(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }

// Canonical returns the form of a name in which it is known here, and told of by hooks
// and [Client.Dump]. One that cannot be asked for is left alone.
func Canonical(name string) string {
	if n, err := parseName(name); err == nil {
		return n.canonical
	}
	return name
}

// typePrefix is what type URLs begin with and xdstp: names leave out.
const typePrefix = "type.googleapis.com/"

// check reports why a resource of a type cannot be asked for by this name.
func (n *resourceName) check(t *Type) error {
	switch {
	case n.canonical == "":
		return errors.New("the resource name is empty")
	case !utf8.ValidString(n.canonical):
		return errors.New("the resource name is not valid UTF-8")
	case n.canonical == Wildcard && !t.FullStateInSotW:
		return errors.New("the resource type has no wildcard")
	case n.federated && typePrefix+n.typ != t.URL:
		return fmt.Errorf("the resource name is of the type %q, not of %q", n.typ, strings.TrimPrefix(t.URL, typePrefix))
	}
	return nil
}
