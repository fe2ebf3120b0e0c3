package rbac_test

import (
	"crypto/tls"
	"crypto/x509"
	"math/rand/v2"
	"net"
	"net/netip"
	"net/url"
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
	// conditions are in words what those of the policies are compiled.
	conditions map[*condition.Condition]*referenceCondition
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
		decoded, _ := url.PathUnescape(r.x.Path)
		return rule.Text.Matches(r.x.Path) || rule.Text.Matches(decoded)
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
		return r.cert != nil && (rule.Text == nil || rule.Text.Matches(r.cert.URIs[0].String()))
	case discovery.RBACDirectIP:
		return rule.Prefix.Contains(netip.MustParseAddrPort(r.x.Facts.Peer).Addr().Unmap())
	case discovery.RBACRemoteIP:
		return rule.Prefix.Contains(netip.MustParseAddr(r.x.Facts.Remote))
	}
	panic("a kind that the test does not make")
}

func (r *reference) header(m *discovery.HeaderMatch, oneIsEnough bool) bool {
	if m.Name == ":method" {
		return route.MatchHeaderValue(m, r.x.Method, true)
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
}

func (r random) pick(words ...string) string { return words[r.IntN(len(words))] }

func (r random) text() *discovery.StringMatch {
	m := &discovery.StringMatch{Kind: discovery.StringMatchKind(r.IntN(4)), Value: r.pick("a", "b", "/a", "/a/b", "é", "", "a,b"), IgnoreCase: r.IntN(4) == 0}
	if r.IntN(6) == 0 {
		return matchRegex(r.pick("a.*", "/a(/b)?", "[ab]", ".*"))
	}
	return m
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
	switch r.IntN(9) {
	case 0:
		return anything
	case 1:
		return path(r.text())
	case 2:
		m := peer(&discovery.StringMatch{Kind: discovery.StringMatchKind(r.IntN(3)), Value: r.pick("spiffe://td/a", "spiffe://td/", "/a", "spiffe://td2/a")})
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
	h := header(r.pick("x-a", "x-b", ":method"), r.text())
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
		x.Path, x.Method = r.pick("/a", "/a/b", "/b", "/%C3%A9"), r.pick("a", "b", "GET")
		x.Facts.Remote = r.pick("10.1.0.1", "10.2.0.1", "2001:db8::1")
		x.Facts.Peer = r.pick("10.1.0.1:1", "10.2.0.1:1", "[::ffff:10.1.0.1]:1", "[2001:db8::1]:1")
		x.Facts.Local = &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 8080 + r.IntN(4)}
		for range r.IntN(4) {
			x.Headers.Add(r.pick("x-a", "x-b"), r.pick("a", "b", "a,b", "a, é", "", "A", " a", "b\t"))
		}
		if r.IntN(2) == 0 {
			x.SetMetadata("f", map[string]any{"k": r.pick("a", "b", "")})
		}
	})
	if r.IntN(2) == 0 {
		return x, nil
	}
	cert := certificate([]string{r.pick("spiffe://td/a", "spiffe://td/b", "spiffe://td2/a")}, []string{"a"}, "a")
	x.TLS = &tls.ConnectionState{HandshakeComplete: true, ServerName: r.pick("a", "b", ""), PeerCertificates: []*x509.Certificate{cert}}
	return x, cert
}

func TestTheEngineAgreesWithTheReference(t *testing.T) {
	t.Parallel()
	r := random{rand.New(rand.NewPCG(1, 2)), referenceConditions(t)}
	conditions := make(map[*condition.Condition]*referenceCondition)
	for _, c := range r.conditions {
		conditions[c.compiled] = c
	}
	counts := map[bool]int{}
	for range 100_000 {
		rules := r.rules()
		x, cert := r.exchange()
		want := (&reference{x: x, cert: cert, conditions: conditions}).allowed(rules)
		if got := allows(t, &discovery.RBAC{Rules: rules}, x); got != want {
			t.Fatalf("allowed %t, want %t: %+v for %+v", got, want, rules, x)
		}
		counts[want]++
	}
	if counts[true] < 20_000 || counts[false] < 20_000 {
		t.Errorf("the requests are too much alike: %v", counts)
	}
}
