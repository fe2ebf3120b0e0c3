package rbac_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"math/rand/v2"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/condition"
	"github.com/inboardmesh/inboard/internal/filter"
	"github.com/inboardmesh/inboard/internal/route"
)

// reference decides as the documents say, one sentence after the other: it makes
// every reading of a request that there is, asks Envoy's rules about each, and
// then says what the action makes of it.
type reference struct {
	x    *filter.Exchange
	cert *x509.Certificate
	// connection tells that x is the facts of a connection, of which no request is known.
	connection bool
	// conditions are in words what those of the policies are compiled.
	conditions map[*condition.Condition]*referenceCondition
	// met, if it is not nil, counts how often rules of a kind match and do not.
	met map[discovery.RBACKind]map[bool]int
}

func (r *reference) allowed(rules *discovery.RBACRules) bool {
	matched := false
	for _, p := range rules.Policies {
		permitted, known := false, false
		for i := range p.Permissions {
			permitted = permitted || r.matches(&p.Permissions[i], rules.Action != discovery.RBACAllow)
		}
		for i := range p.Principals {
			known = known || r.matches(&p.Principals[i], rules.Action != discovery.RBACAllow)
		}
		holds := p.Condition == nil || r.conditions[p.Condition].holds(r.x, r.cert, rules.Action != discovery.RBACAllow)
		matched = matched || permitted && known && holds
	}
	switch rules.Action {
	case discovery.RBACAllow:
		return matched
	case discovery.RBACDeny:
		return !matched
	}
	return true
}

// matches is one rule; if one reading is enough, some of them must match, else
// all.
func (r *reference) matches(rule *discovery.RBACRule, oneIsEnough bool) bool {
	matched := r.asked(rule, oneIsEnough)
	if r.met != nil {
		if r.met[rule.Kind] == nil {
			r.met[rule.Kind] = make(map[bool]int)
		}
		r.met[rule.Kind][matched]++
	}
	return matched
}

func (r *reference) asked(rule *discovery.RBACRule, oneIsEnough bool) bool {
	if r.connection {
		switch rule.Kind {
		case discovery.RBACHeader, discovery.RBACPath, discovery.RBACTemplate:
			return false
		case discovery.RBACMetadata:
			return rule.Metadata.Matches(nil)
		}
	}
	switch rule.Kind {
	case discovery.RBACAny:
		return true
	case discovery.RBACAnd:
		for i := range rule.Rules {
			if !r.matches(&rule.Rules[i], oneIsEnough) {
				return false
			}
		}
		return true
	case discovery.RBACOr:
		for i := range rule.Rules {
			if r.matches(&rule.Rules[i], oneIsEnough) {
				return true
			}
		}
		return false
	case discovery.RBACNot:
		// Not one reading matches; or not all do.
		return !r.matches(&rule.Rules[0], !oneIsEnough)
	case discovery.RBACHeader:
		return r.header(&rule.Header, oneIsEnough)
	case discovery.RBACPath:
		return slices.ContainsFunc(r.paths(), rule.Text.Matches)
	case discovery.RBACTemplate:
		return slices.ContainsFunc(r.paths(), func(path string) bool {
			// No operator of a template meets "=" and "é": what denies does not rest on that.
			return rule.Template.MatchString(path) || oneIsEnough && rule.Template.MatchString(strings.NewReplacer("=", "x", "é", "x").Replace(path))
		})
	case discovery.RBACDestination:
		return rule.Prefix.Contains(r.x.Facts.Local.(*net.TCPAddr).AddrPort().Addr().Unmap())
	case discovery.RBACPort:
		port := uint32(r.x.Facts.Local.(*net.TCPAddr).Port)
		return rule.Start <= port && port < rule.End
	case discovery.RBACMetadata:
		return rule.Metadata.Matches(r.x.Metadata)
	case discovery.RBACServerName:
		return r.x.TLS == nil && rule.Text.Matches("") || r.x.TLS != nil && rule.Text.Matches(r.x.TLS.ServerName)
	case discovery.RBACPrincipal:
		return r.cert != nil && (rule.Text == nil || slices.ContainsFunc(r.names(), rule.Text.Matches))
	case discovery.RBACURI:
		return r.cert != nil && slices.ContainsFunc(uris(r.cert), rule.Text.Matches)
	case discovery.RBACDNS:
		return r.cert != nil && slices.ContainsFunc(r.cert.DNSNames, rule.Text.Matches)
	case discovery.RBACDirectIP:
		return rule.Prefix.Contains(netip.MustParseAddrPort(r.x.Facts.Peer).Addr().Unmap())
	case discovery.RBACRemoteIP:
		return rule.Prefix.Contains(netip.MustParseAddr(r.x.Facts.Remote))
	}
	panic("a kind that the test does not make")
}

// paths are the ways to write the path.
func (r *reference) paths() []string {
	decoded, _ := url.PathUnescape(r.x.Path)
	return []string{r.x.Path, decoded}
}

// names are those that a peer is known by: of the first kind that it has.
func (r *reference) names() []string {
	switch {
	case len(r.cert.URIs) > 0:
		return uris(r.cert)
	case len(r.cert.DNSNames) > 0:
		return r.cert.DNSNames
	}
	return []string{r.cert.Subject.String()}
}

func uris(cert *x509.Certificate) []string {
	all := make([]string, len(cert.URIs))
	for i, uri := range cert.URIs {
		all[i] = uri.String()
	}
	return all
}

// hosts are the ways to write the host, in lower case.
func (r *reference) hosts() []string {
	host := strings.ToLower(r.x.Host)
	name, port, _ := strings.Cut(host, ":")
	bare := strings.TrimSuffix(name, ".")
	all := []string{host, name, bare}
	if port != "" {
		all = append(all, bare+":"+port)
	}
	return all
}

// spelled is a rule about what can be written in several ways: each is the same, so
// that one which matches is enough, and one is enough against an inverted rule.
func spelled(m *discovery.HeaderMatch, spellings []string) bool {
	plain := *m
	plain.Invert, plain.String.IgnoreCase = false, m.String.IgnoreCase || m.Name == ":authority"
	return m.Invert != slices.ContainsFunc(spellings, func(s string) bool { return route.MatchHeaderValue(&plain, s, true) })
}

func (r *reference) header(m *discovery.HeaderMatch, oneIsEnough bool) bool {
	switch m.Name {
	case ":method":
		return route.MatchHeaderValue(m, r.x.Method, true)
	case ":path":
		paths := r.paths()
		if r.x.Query != "" {
			paths = []string{paths[0] + "?" + r.x.Query, paths[1] + "?" + r.x.Query}
		}
		return spelled(m, paths)
	case ":authority":
		return spelled(m, r.hosts())
	}
	values := r.x.Header.Values(m.Name)
	if len(values) == 0 {
		return route.MatchHeaderValue(m, "", false)
	}
	lines := append([]string{strings.Join(values, ",")}, values...)
	if oneIsEnough != m.Invert && m.Kind != discovery.HeaderPresent {
		for _, v := range values {
			lines = append(lines, strings.TrimSpace(v))
			for part := range strings.SplitSeq(v, ",") {
				lines = append(lines, strings.TrimSpace(part))
			}
		}
	}
	for _, line := range lines {
		if route.MatchHeaderValue(m, line, true) == oneIsEnough {
			return oneIsEnough
		}
	}
	return !oneIsEnough
}

// random makes rules and requests of few words, so that they often meet.
type random struct {
	*rand.Rand

	conditions []*referenceCondition
	// expressions are compiled once.
	expressions map[string]*discovery.StringMatch
}

func newRandom(t testing.TB, source rand.Source) random {
	return random{rand.New(source), referenceConditions(t), make(map[string]*discovery.StringMatch)}
}

func (r random) regex(words ...string) *discovery.StringMatch {
	word := r.pick(words...)
	if r.expressions[word] == nil {
		r.expressions[word] = matchRegex(word)
	}
	return r.expressions[word]
}

func (r random) pick(words ...string) string { return words[r.IntN(len(words))] }

func (r random) text() *discovery.StringMatch {
	m := &discovery.StringMatch{Kind: discovery.StringMatchKind(r.IntN(4)), Value: r.pick("a", "b", "/a", "/a/b", "é", "", "a,b"), IgnoreCase: r.IntN(4) == 0}
	if r.IntN(6) == 0 {
		return r.regex("a.*", "/a(/b)?", "[ab]", ".*")
	}
	return m
}

// name is a rule about a name in a certificate.
func (r random) name() *discovery.StringMatch {
	return &discovery.StringMatch{
		Kind: discovery.StringMatchKind(r.IntN(4)), Value: r.pick("spiffe://td/a", "spiffe://td/", "/a", "spiffe://td2/a", "a", "b.", "CN=a", "td"), IgnoreCase: r.IntN(4) == 0,
	}
}

func (r random) rule(depth int) discovery.RBACRule {
	if depth > 0 && r.IntN(2) == 0 {
		rule := discovery.RBACRule{Kind: discovery.RBACAnd + discovery.RBACKind(r.IntN(3))}
		n := 1
		if rule.Kind != discovery.RBACNot {
			n += r.IntN(3)
		}
		for range n {
			rule.Rules = append(rule.Rules, r.rule(depth-1))
		}
		return rule
	}
	switch r.IntN(13) {
	case 0:
		return anything
	case 9:
		return address(discovery.RBACDestination, r.pick("10.0.0.0/8", "10.0.0.1/32", "10.1.0.0/16", "::/0"))
	case 10:
		return discovery.RBACRule{Kind: discovery.RBACTemplate, Template: r.regex("/[a-z~]+", "/a/[a-z~]*", "/.*").Regex}
	case 11:
		return discovery.RBACRule{Kind: discovery.RBACURI, Text: r.name()}
	case 12:
		return discovery.RBACRule{Kind: discovery.RBACDNS, Text: r.name()}
	case 1:
		return path(r.text())
	case 2:
		m := peer(r.name())
		if r.IntN(4) == 0 {
			m.Text = nil
		}
		return m
	case 3:
		return address(discovery.RBACDirectIP+discovery.RBACKind(r.IntN(2)), r.pick("10.0.0.0/8", "10.1.0.0/16", "::/0", "0.0.0.0/0", "2001:db8::/32"))
	case 4:
		start := uint32(r.IntN(4))
		return discovery.RBACRule{Kind: discovery.RBACPort, Start: 8080 + start, End: 8081 + start + uint32(r.IntN(3))}
	case 5:
		return discovery.RBACRule{Kind: discovery.RBACMetadata, Metadata: &discovery.MetadataMatch{
			Filter: "f", Path: []string{"k"}, Invert: r.IntN(3) == 0, Value: discovery.ValueMatch{Kind: discovery.ValueString, String: *r.text()},
		}}
	case 6:
		return discovery.RBACRule{Kind: discovery.RBACServerName, Text: r.text()}
	}
	h := header(r.pick("x-a", "x-a", "x-b", "x-b", ":method", ":path", ":authority"), r.text())
	switch {
	case h.Header.Name == ":authority" && r.IntN(4) == 0:
		h.Header.String = *r.regex("a.*", `a\.b`, `.*:80`, ".*")
	case h.Header.Name == ":authority":
		h.Header.String.Value = r.pick("a.b", "A.b", "a", "b", "a.b:80", "a.b.:80", "", ":80")
	case r.IntN(6) == 0:
		h.Header.Kind, h.Header.Start, h.Header.End = discovery.HeaderRange, int64(r.IntN(3)), int64(2+r.IntN(3))
	}
	h.Header.Invert = r.IntN(4) == 0
	h.Header.TreatMissingAsEmpty = r.IntN(4) == 0
	if r.IntN(5) == 0 {
		h.Header.Kind, h.Header.Present = discovery.HeaderPresent, r.IntN(2) == 0
	}
	return h
}

func (r random) rules() *discovery.RBACRules {
	rules := &discovery.RBACRules{Action: discovery.RBACAction(r.IntN(3))}
	for i := range r.IntN(4) {
		p := discovery.RBACPolicy{Name: string(rune('a' + i))}
		for range 1 + r.IntN(2) {
			p.Permissions = append(p.Permissions, r.rule(3))
			p.Principals = append(p.Principals, r.rule(2))
		}
		if r.IntN(3) == 0 {
			p.Condition = r.conditions[r.IntN(len(r.conditions))].compiled
		}
		rules.Policies = append(rules.Policies, p)
	}
	return rules
}

func (r random) exchange() (*filter.Exchange, *x509.Certificate) {
	x := exchange(func(x *filter.Exchange) {
		x.Path, x.Method = r.pick("/a", "/a/b", "/b", "/%C3%A9", "/a=b"), r.pick("a", "b", "GET")
		x.Query, x.Host = r.pick("", "", "a", "/a"), r.pick("a.b", "A.B", "a.b.", "a.b:80", "a.B.:80", "b", "payment.shop")
		x.Facts.Remote = r.pick("10.1.0.1", "10.2.0.1", "2001:db8::1")
		x.Facts.Peer = r.pick("10.1.0.1:1", "10.2.0.1:1", "[::ffff:10.1.0.1]:1", "[2001:db8::1]:1")
		x.Facts.Local = &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 8080 + r.IntN(4)}
		for range r.IntN(4) {
			x.Headers.Add(r.pick("x-a", "x-b"), r.pick("a", "b", "a,b", "a, é", "", "A", " a", "b\t", "1", "2", "1,2", " 2"))
		}
		if r.IntN(2) == 0 {
			x.SetMetadata("f", map[string]any{"k": r.pick("a", "b", "")})
		}
	})
	if r.IntN(2) == 0 {
		return x, nil
	}
	cert := []*x509.Certificate{
		certificate([]string{r.pick("spiffe://td/a", "spiffe://td/b", "spiffe://td2/a")}, []string{"a"}, "a"),
		certificate([]string{"spiffe://td/b", "spiffe://td2/a"}, nil, "b"),
		certificate(nil, []string{r.pick("a", "b.a", "spiffe://td/a")}, "a"),
		certificate(nil, []string{"b.c", "a"}, "a"),
		certificate(nil, nil, r.pick("a", "b")),
	}[min(r.IntN(9), 4)]
	x.TLS = &tls.ConnectionState{HandshakeComplete: true, ServerName: r.pick("a", "b", ""), PeerCertificates: []*x509.Certificate{cert}}
	return x, cert
}

// written is a source of randomness that says what was written, and then goes on by
// itself.
type written struct {
	data []byte
	rest *rand.PCG
}

func (w *written) Uint64() uint64 {
	const size = 8
	if len(w.data) < size {
		return w.rest.Uint64()
	}
	n := binary.LittleEndian.Uint64(w.data)
	w.data = w.data[size:]
	return n
}

// FuzzEngine holds the engine against the reference: what the fuzzer writes chooses the
// rules and the request.
func FuzzEngine(f *testing.F) {
	f.Add([]byte{})
	for seed := range byte(8) {
		f.Add(bytes.Repeat([]byte{seed << 5, seed, 3 * seed, 7, seed, 1, seed << 3, seed << 5}, 20))
	}
	conditions := make(map[*condition.Condition]*referenceCondition)
	r := newRandom(f, rand.NewPCG(0, 0))
	for _, c := range r.conditions {
		conditions[c.compiled] = c
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r.Rand = rand.New(&written{data, rand.NewPCG(uint64(len(data)), 1)})
		rules := r.rules()
		x, cert := r.exchange()
		want := (&reference{x: x, cert: cert, conditions: conditions}).allowed(rules)
		if got := allows(t, &discovery.RBAC{Rules: rules}, x); got != want {
			t.Fatalf("allowed %t, want %t: %+v for %+v", got, want, rules, x)
		}
	})
}
