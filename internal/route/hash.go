package route

import (
	"math/bits"
	"math/rand/v2"
	"strconv"
	"strings"

	"github.com/cespare/xxhash/v2"

	"github.com/inboardmesh/inboard/discovery"
)

// Hash combines the policies in order, as Envoy does: the hash so far is rotated
// by one bit, and the next one added exclusively. ok is false if a request has
// nothing that could be hashed. cookies are the Set-Cookie headers of what was
// made for a caller who has no cookie yet: the response must carry them.
func Hash(policies []discovery.HashPolicy, req *Request) (sum uint64, ok bool, cookies []string) {
	for i := range policies {
		p := &policies[i]
		value, found := hashed(p, req)
		if !found && p.NewCookie != nil {
			value, found = newCookie(), true
			cookies = append(cookies, SetCookie(p.Cookie, value, p.NewCookie))
		}
		if found {
			sum = bits.RotateLeft64(sum, 1) ^ xxhash.Sum64String(value)
			ok = true
		}
		if p.Terminal && ok {
			break
		}
	}
	return sum, ok, cookies
}

// hash is Hash for a choice that makes no cookies.
func hash(policies []discovery.HashPolicy, req *Request) (sum uint64, ok bool) {
	for i := range policies {
		p := &policies[i]
		if value, found := hashed(p, req); found {
			sum = bits.RotateLeft64(sum, 1) ^ xxhash.Sum64String(value)
			ok = true
		}
		if p.Terminal && ok {
			break
		}
	}
	return sum, ok
}

func hashed(p *discovery.HashPolicy, req *Request) (string, bool) {
	switch {
	case p.Query != "":
		return queryValue(req.Query, p.Query)
	case p.Cookie != "":
		value, found := cookieValue(req, p.Cookie)
		return value, found && value != "" // as in Envoy: whoever has an empty one has none
	case p.Source:
		return req.Source, req.Source != ""
	case p.Channel:
		return strconv.FormatUint(req.Channel, 10), req.Channel != 0
	}
	value, ok := headerValue(req, p.Header)
	if ok && p.HeaderRewrite != nil {
		value = p.HeaderRewrite.Replace(value)
	}
	return value, ok
}

// newCookie is a value for a cookie. It is no secret: it only has to be another
// one for other callers.
func newCookie() string {
	return strconv.FormatUint(rand.Uint64(), 16)
}

// SetCookie is a Set-Cookie header as Envoy writes it.
func SetCookie(name, value string, c *discovery.NewCookie) string {
	var b strings.Builder
	b.WriteString(name + `="` + value + `"`)
	if c.TTL > 0 {
		b.WriteString("; Max-Age=" + strconv.FormatInt(int64(c.TTL.Seconds()), 10))
	}
	if c.Path != "" {
		b.WriteString("; Path=" + c.Path)
	}
	for _, a := range c.Attributes {
		b.WriteString("; " + a.Name)
		if a.Value != "" {
			b.WriteString("=" + a.Value)
		}
	}
	b.WriteString("; HttpOnly")
	return b.String()
}

// Cookie returns the value of the first cookie of a name.
func (r *Request) Cookie(name string) (string, bool) { return cookieValue(r, name) }
