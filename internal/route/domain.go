package route

import (
	"cmp"
	"slices"
	"strings"
)

// domains finds virtual hosts: exact, then the longest suffix wildcard, then
// the longest prefix wildcard, then "*", without regard to case (Envoy
// route_components.proto, gRFC A27). What it costs grows with the number of
// different lengths of wildcards, not with that of domains.
type domains struct {
	ignorePort bool
	exact      map[string]*virtualHost
	// suffixes are the domains "*.x", prefixes the domains "x.*", both by their
	// length, the longest first.
	suffixes, prefixes []wildcards
	any                *virtualHost
}

// wildcards are the domains with a star of one length.
type wildcards struct {
	length int
	// hosts are by the domain without its star, in lower case.
	hosts map[string]*virtualHost
}

// add takes a domain in. Each is there once: the decoder sees to that.
func (d *domains) add(domain string, vh *virtualHost) {
	domain = strings.ToLower(domain)
	switch {
	case domain == "*":
		d.any = vh
	case strings.HasPrefix(domain, "*"):
		d.suffixes = addWildcard(d.suffixes, domain[1:], vh)
	case strings.HasSuffix(domain, "*"):
		d.prefixes = addWildcard(d.prefixes, domain[:len(domain)-1], vh)
	default:
		if d.exact == nil {
			d.exact = make(map[string]*virtualHost)
		}
		d.exact[domain] = vh
	}
}

func addWildcard(all []wildcards, text string, vh *virtualHost) []wildcards {
	i := slices.IndexFunc(all, func(w wildcards) bool { return w.length == len(text) })
	if i < 0 {
		i = len(all)
		all = append(all, wildcards{length: len(text), hosts: make(map[string]*virtualHost)})
	}
	all[i].hosts[text] = vh
	return all
}

// sort puts the wildcards in the order in which they are tried.
func (d *domains) sort() {
	longestFirst := func(a, b wildcards) int { return cmp.Compare(b.length, a.length) }
	slices.SortFunc(d.suffixes, longestFirst)
	slices.SortFunc(d.prefixes, longestFirst)
}

// find returns the virtual host of an authority, nil if there is none.
func (d *domains) find(authority string) *virtualHost {
	vh, _ := d.locate(authority)
	return vh
}

// star is how a domain stands for an authority: with a star in the place of all
// but length bytes at its end, or at its beginning.
type star struct {
	kind   starKind
	length int
}

type starKind uint8

const (
	noStar starKind = iota
	starBefore
	starAfter
	onlyStar
)

// locate is find that tells the domain too.
func (d *domains) locate(authority string) (*virtualHost, star) {
	if d.ignorePort {
		authority = stripPort(authority)
	}
	if vh := d.exact[authority]; vh != nil { // most are in lower case already
		return vh, star{}
	}
	authority = lower(authority)
	if vh := d.exact[authority]; vh != nil {
		return vh, star{}
	}
	// A wildcard stands for at least one character.
	for _, w := range d.suffixes {
		if len(authority) > w.length {
			if vh := w.hosts[authority[len(authority)-w.length:]]; vh != nil {
				return vh, star{starBefore, w.length}
			}
		}
	}
	for _, w := range d.prefixes {
		if len(authority) > w.length {
			if vh := w.hosts[authority[:w.length]]; vh != nil {
				return vh, star{starAfter, w.length}
			}
		}
	}
	return d.any, star{kind: onlyStar}
}

// lower is strings.ToLower without its cost for what is lower case already.
func lower(s string) string {
	for i := range len(s) {
		if c := s[i]; 'A' <= c && c <= 'Z' || c >= 0x80 {
			return strings.ToLower(s)
		}
	}
	return s
}

func stripPort(authority string) string {
	colon := strings.LastIndexByte(authority, ':')
	if colon < 0 || strings.IndexByte(authority[colon:], ']') >= 0 {
		return authority
	}
	for _, c := range []byte(authority[colon+1:]) {
		if c < '0' || c > '9' {
			return authority
		}
	}
	return authority[:colon]
}
