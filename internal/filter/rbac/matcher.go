package rbac

import (
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/route"
)

// compile makes the matcher of a rule. A kind that it does not know matches
// nothing: the decoder lets none through.
func compile(r *discovery.RBACRule) matcher {
	switch r.Kind {
	case discovery.RBACAny:
		return anything{}
	case discovery.RBACAnd:
		return and(compileAll(r.Rules))
	case discovery.RBACOr:
		return or(compileAll(r.Rules))
	case discovery.RBACNot:
		return not{compile(&r.Rules[0])}
	case discovery.RBACHeader:
		return compileHeader(&r.Header)
	case discovery.RBACPath:
		return pathMatch{r.Text.Matches}
	case discovery.RBACTemplate:
		return templateMatch{r.Template}
	case discovery.RBACDestination:
		return destination(r.Prefix)
	case discovery.RBACPort:
		return ports{r.Start, r.End}
	case discovery.RBACMetadata:
		return metadata{r.Metadata}
	case discovery.RBACServerName:
		return serverName{r.Text}
	case discovery.RBACPrincipal:
		return principal{r.Text}
	case discovery.RBACURI:
		return uriSAN{r.Text}
	case discovery.RBACDNS:
		return dnsSAN{r.Text}
	case discovery.RBACDirectIP:
		return direct(r.Prefix)
	case discovery.RBACRemoteIP:
		return remote(r.Prefix)
	}
	return or(nil)
}

func compileAll(rules []discovery.RBACRule) []matcher {
	all := make([]matcher, len(rules))
	for i := range rules {
		all[i] = compile(&rules[i])
	}
	return all
}

type anything struct{}

func (anything) match(*Subject, bool) bool { return true }

type and []matcher

func (m and) match(s *Subject, certain bool) bool {
	for _, one := range m {
		if !one.match(s, certain) {
			return false
		}
	}
	return true
}

type or []matcher

func (m or) match(s *Subject, certain bool) bool { return anyOf(m, s, certain) }

// not is certain of what is not possible, and the other way round.
type not struct{ rule matcher }

func (m not) match(s *Subject, certain bool) bool { return !m.rule.match(s, !certain) }

// pathMatch compares the path. Its spellings are the same path: see readings.
type pathMatch struct{ matches func(string) bool }

func (m pathMatch) match(s *Subject, _ bool) bool {
	if s.Request == nil {
		return false
	}
	r := s.read()
	return m.matches(r.path) || r.decoded != r.path && m.matches(r.decoded)
}

// templateMatch compares the path with a template. Its operators do not match some
// characters that need no escape in a path, such as "=" (Envoy's uri_template_match):
// what is certain is the template as it is; what is possible lets them match.
type templateMatch struct{ program *discovery.Regex }

func (m templateMatch) match(s *Subject, certain bool) bool {
	if (pathMatch{m.program.MatchString}).match(s, certain) {
		return true
	}
	return !certain && pathMatch{func(path string) bool { return m.program.MatchString(templated(path)) }}.match(s, certain)
}

// templated is a path with another letter in the place of each that no operator of a
// template matches.
func templated(path string) string {
	return strings.Map(func(r rune) rune {
		if r >= utf8.RuneSelf || r <= ' ' || strings.ContainsRune("=*[]{}<>|^\"`\\#?", r) {
			return '~'
		}
		return r
	}, path)
}

type destination netip.Prefix

func (m destination) match(s *Subject, _ bool) bool {
	return netip.Prefix(m).Contains(s.localAddress().Addr())
}

type direct netip.Prefix

func (m direct) match(s *Subject, _ bool) bool { return netip.Prefix(m).Contains(s.peerIP()) }

type remote netip.Prefix

func (m remote) match(s *Subject, _ bool) bool { return netip.Prefix(m).Contains(s.remoteIP()) }

type ports struct{ start, end uint32 }

func (m ports) match(s *Subject, _ bool) bool {
	a := s.localAddress()
	return a.IsValid() && m.start <= uint32(a.Port()) && uint32(a.Port()) < m.end
}

type metadata struct{ matcher *discovery.MetadataMatch }

func (m metadata) match(s *Subject, _ bool) bool {
	if s.Request == nil {
		return m.matcher.Matches(nil)
	}
	return m.matcher.Matches(s.Request.Metadata)
}

type serverName struct{ text *discovery.StringMatch }

func (m serverName) match(s *Subject, _ bool) bool { return m.text.Matches(s.ServerName) }

// principal compares the name of the peer: the URIs of its certificate, if it
// has any, else its DNS names, else the subject. One that has URIs is never
// known by its DNS names.
type principal struct{ text *discovery.StringMatch }

func (m principal) match(s *Subject, certain bool) bool {
	cert := s.Certificate
	switch {
	case cert == nil:
		return false
	case m.text == nil:
		return true
	case len(cert.URIs) > 0:
		return uriSAN(m).match(s, certain)
	case len(cert.DNSNames) > 0:
		return dnsSAN(m).match(s, certain)
	}
	return m.text.Matches(cert.Subject.String())
}

type uriSAN struct{ text *discovery.StringMatch }

func (m uriSAN) match(s *Subject, _ bool) bool {
	if s.Certificate == nil {
		return false
	}
	for _, uri := range s.Certificate.URIs {
		if m.text.Matches(uri.String()) {
			return true
		}
	}
	return false
}

type dnsSAN struct{ text *discovery.StringMatch }

func (m dnsSAN) match(s *Subject, _ bool) bool {
	if s.Certificate == nil {
		return false
	}
	return slices.ContainsFunc(s.Certificate.DNSNames, m.text.Matches)
}

// compileHeader makes the matcher of a header. The path, the method and the
// authority have matchers of their own.
func compileHeader(h *discovery.HeaderMatch) matcher {
	switch h.Name {
	case ":path":
		return target{h}
	case ":authority":
		// Hosts are the same in either case, also to an expression, which has no
		// setting for it but a flag of its own.
		folded := *h
		folded.String.IgnoreCase = true
		if regex := h.String.Regex; regex != nil {
			folded.String.Regex = &discovery.Regex{Source: regex.Source, Program: regexp.MustCompile("(?i)" + regex.Program.String())}
		}
		return authority{&folded}
	}
	return headerMatch{h}
}

// target compares the path with its query.
type target struct{ header *discovery.HeaderMatch }

func (m target) match(s *Subject, _ bool) bool {
	if s.Request == nil {
		return false
	}
	r := s.read()
	query := ""
	if s.Request.Query != "" {
		query = "?" + s.Request.Query
	}
	return either(m.header, r.path+query, r.decoded+query)
}

// either reports whether a header with one of two spellings of a value matches:
// inverted, neither may match.
func either(h *discovery.HeaderMatch, a, b string) bool {
	if h.Invert {
		return route.MatchHeaderValue(h, a, true) && route.MatchHeaderValue(h, b, true)
	}
	return route.MatchHeaderValue(h, a, true) || route.MatchHeaderValue(h, b, true)
}

// authority compares the host, with its port and without, and without the dot at
// its end.
type authority struct{ header *discovery.HeaderMatch }

func (m authority) match(s *Subject, _ bool) bool {
	if s.Request == nil {
		return false
	}
	spellings, n := hostSpellings(s.Request.Host)
	for _, host := range spellings[:n] {
		if route.MatchHeaderValue(m.header, host, true) != m.header.Invert {
			return !m.header.Invert
		}
	}
	return m.header.Invert
}

// headerMatch compares a header. If it is there more than once, its readings are
// the list, joined by commas as Envoy and gRPC have it, and each value alone
// (decision D6). What denies looks at the parts of a joined value too, and at
// values without the space around them: what one sender joins another sends
// apart, and not every protocol trims. Text that has commas of its own is not
// taken apart where that would allow less.
type headerMatch struct{ header *discovery.HeaderMatch }

func (m headerMatch) match(s *Subject, certain bool) bool {
	if s.Request == nil {
		return false
	}
	if m.header.Name == ":method" {
		return route.MatchHeaderValue(m.header, s.Request.Method, true)
	}
	var values []string
	if s.Request.Header != nil {
		values = s.Request.Header.Values(m.header.Name)
	}
	switch len(values) {
	case 0:
		return route.MatchHeaderValue(m.header, "", false)
	case 1:
		if m.header.Kind == discovery.HeaderPresent || strings.IndexByte(values[0], ',') < 0 && strings.TrimSpace(values[0]) == values[0] {
			return route.MatchHeaderValue(m.header, values[0], true)
		}
	}
	if route.MatchHeaderValue(m.header, strings.Join(values, ","), true) != certain {
		return !certain
	}
	for _, value := range values {
		if route.MatchHeaderValue(m.header, value, true) != certain {
			return !certain
		}
		// Inverted, it is the rule that allows which names what is denied.
		if certain == m.header.Invert && m.aPartMatches(value, !certain) {
			return !certain
		}
	}
	return certain
}

// aPartMatches reports whether a part of a joined value matches, or does not if
// that is what is wanted. The value itself is one, without the space around it.
func (m headerMatch) aPartMatches(value string, want bool) bool {
	if route.MatchHeaderValue(m.header, strings.TrimSpace(value), true) == want {
		return true
	}
	for part := range strings.SplitSeq(value, ",") {
		if route.MatchHeaderValue(m.header, strings.TrimSpace(part), true) == want {
			return true
		}
	}
	return false
}
