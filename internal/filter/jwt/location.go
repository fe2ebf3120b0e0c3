package jwt

import (
	"net/textproto"
	"net/url"
	"strings"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/filter"
	"github.com/inboardmesh/inboard/internal/route"
)

// found is a token and where it was found.
type found struct {
	raw string
	// One of the following is set. A token in a cookie stays where it is.
	header, param string
	// providers are those that look there.
	providers []*provider
}

// maxTokens bounds the tokens of one request.
const maxTokens = 16

// find returns the tokens at the places where the providers look, each place
// once. ok is false if there are too many, or if a header has one of its fields for
// a token and another for something else: who comes later may read either.
func find(providers []*provider, req *route.Request) (tokens []found, ok bool) {
	add := func(one found, p *provider) {
		for i := range tokens {
			if t := &tokens[i]; t.raw == one.raw && t.header == one.header && t.param == one.param {
				t.providers = append(t.providers, p)
				return
			}
		}
		one.providers = []*provider{p}
		tokens = append(tokens, one)
	}
	for _, p := range providers {
		for i := range p.config.Headers {
			h := &p.config.Headers[i]
			values, others := req.Header.Values(h.Name), 0
			for _, value := range values {
				if raw, ok := afterPrefix(value, h.Prefix); ok {
					add(found{raw: raw, header: h.Name}, p)
				} else {
					others++
				}
			}
			if others > 0 && others < len(values) {
				return nil, false
			}
		}
		for _, name := range p.config.Params {
			for _, raw := range paramValues(req.Query, name) {
				add(found{raw: raw, param: name}, p)
			}
		}
		for _, name := range p.config.Cookies {
			for _, raw := range cookieValues(req, name) {
				add(found{raw: raw}, p)
			}
		}
		if len(tokens) > maxTokens {
			return nil, false
		}
	}
	return tokens, true
}

// afterPrefix is what a header holds after the prefix of a location. The scheme
// of an Authorization header is without regard to case, and white space follows it
// and may surround it (RFC 9110, sections 11.1 and 5.5), which net/http takes away
// over HTTP/1.1 only. A value without the prefix is no token but somebody else's. One
// with the prefix elsewhere is a token for Envoy, and for applications that split
// there: it is one that is not well-formed.
func afterPrefix(value, prefix string) (string, bool) {
	const space = " \t"
	value = strings.Trim(value, space)
	scheme := strings.TrimRight(prefix, space)
	switch {
	case discovery.HasPrefix(value, scheme, true) &&
		(scheme == prefix || len(value) > len(scheme) && strings.IndexByte(space, value[len(scheme)]) >= 0):
		return strings.Trim(value[len(scheme):], space), true
	case strings.Contains(strings.ToLower(value), strings.ToLower(prefix)):
		return value, true
	}
	return "", false
}

// paramValues are the values of a query parameter. One that cannot be unescaped
// is returned as it is, and is no token.
func paramValues(query, name string) []string {
	var values []string
	for pair := range strings.SplitSeq(query, "&") {
		key, value, _ := strings.Cut(pair, "=")
		if unescape(key) == name {
			values = append(values, unescape(value))
		}
	}
	return values
}

func unescape(s string) string {
	if decoded, err := url.QueryUnescape(s); err == nil {
		return decoded
	}
	return s
}

// cookieValues are the values of a cookie.
func cookieValues(req *route.Request, name string) []string {
	var values []string
	for _, header := range req.Header.Values("cookie") {
		for pair := range strings.SplitSeq(header, ";") {
			key, value, ok := strings.Cut(pair, "=")
			// As net/http has it, which applications ask: with space round the name.
			if ok && textproto.TrimString(key) == name {
				values = append(values, strings.Trim(textproto.TrimString(value), `"`))
			}
		}
	}
	return values
}

// remove takes a token out of the request, and with it everything else that
// could be taken for it at the same place.
func (f *found) remove(x *filter.Exchange) {
	switch {
	case f.header != "":
		x.Headers.Del(f.header)
	case f.param != "":
		x.Query = withoutParam(x.Query, f.param)
	}
}

// withoutParam is a query without a parameter, otherwise byte for byte the same.
func withoutParam(query, name string) string {
	var kept []string
	for pair := range strings.SplitSeq(query, "&") {
		if key, _, _ := strings.Cut(pair, "="); unescape(key) != name {
			kept = append(kept, pair)
		}
	}
	return strings.Join(kept, "&")
}
