package rbac_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/filter"
	"github.com/inboardmesh/inboard/internal/filter/rbac"
	"github.com/inboardmesh/inboard/internal/route"
	"github.com/inboardmesh/inboard/observe"
)

type headers map[string][]string

func (h headers) Values(name string) []string { return h[name] }
func (h headers) Set(name, value string)      { h[name] = []string{value} }
func (h headers) Add(name, value string)      { h[name] = append(h[name], value) }
func (h headers) Del(name string)             { delete(h, name) }

func exact(s string) *discovery.StringMatch { return &discovery.StringMatch{Value: s} }

func prefix(s string) *discovery.StringMatch {
	return &discovery.StringMatch{Kind: discovery.MatchPrefix, Value: s}
}

func matchRegex(s string) *discovery.StringMatch {
	return &discovery.StringMatch{Kind: discovery.MatchRegex, Regex: &discovery.Regex{Source: s, Program: regexp.MustCompile(`\A(?:` + s + `)\z`)}}
}

var anything = discovery.RBACRule{Kind: discovery.RBACAny}

func path(m *discovery.StringMatch) discovery.RBACRule {
	return discovery.RBACRule{Kind: discovery.RBACPath, Text: m}
}

func header(name string, m *discovery.StringMatch) discovery.RBACRule {
	return discovery.RBACRule{Kind: discovery.RBACHeader, Header: discovery.HeaderMatch{Name: name, String: *m}}
}

func peer(m *discovery.StringMatch) discovery.RBACRule {
	return discovery.RBACRule{Kind: discovery.RBACPrincipal, Text: m}
}

func not(r discovery.RBACRule) discovery.RBACRule {
	return discovery.RBACRule{Kind: discovery.RBACNot, Rules: []discovery.RBACRule{r}}
}

func address(kind discovery.RBACKind, p string) discovery.RBACRule {
	return discovery.RBACRule{Kind: kind, Prefix: netip.MustParsePrefix(p)}
}

// policies makes one policy per permission.
func policies(action discovery.RBACAction, permissions ...discovery.RBACRule) *discovery.RBACRules {
	rules := &discovery.RBACRules{Action: action}
	for i, p := range permissions {
		rules.Policies = append(rules.Policies, discovery.RBACPolicy{
			Name: string(rune('a' + i)), Permissions: []discovery.RBACRule{p}, Principals: []discovery.RBACRule{anything},
		})
	}
	return rules
}

// exchange is a request, changed as a test wants it.
func exchange(change func(*filter.Exchange)) *filter.Exchange {
	h := headers{}
	x := &filter.Exchange{
		Request: route.Request{Method: "GET", Host: "payment.shop", Path: "/admin", Header: h}, Headers: h,
		Facts: route.Facts{Remote: "10.1.2.3:4000", Peer: "10.1.2.3:4000", Local: &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 8080}},
	}
	if change != nil {
		change(x)
	}
	return x
}

func allows(t *testing.T, config *discovery.RBAC, x *filter.Exchange) bool {
	t.Helper()
	answer, err := rbac.New(config, nil).Request(t.Context(), x)
	if err != nil {
		t.Fatal(err)
	}
	return answer == nil
}

func TestBA01_ActionsDecideOverPolicies(t *testing.T) {
	t.Parallel()
	admin, other := path(exact("/admin")), path(exact("/other"))
	for _, tt := range []struct {
		name  string
		rules *discovery.RBACRules
		want  bool
	}{
		{"allowed by one that matches", policies(discovery.RBACAllow, other, admin), true},
		{"not allowed by one that does not", policies(discovery.RBACAllow, other), false},
		{"denied by one that matches", policies(discovery.RBACDeny, other, admin), false},
		{"not denied by one that does not", policies(discovery.RBACDeny, other), true},
		{"a log allows what matches", policies(discovery.RBACLog, admin), true},
		{"a log allows what does not match", policies(discovery.RBACLog, other), true},
		{"both a permission and a principal must match", &discovery.RBACRules{Policies: []discovery.RBACPolicy{{
			Permissions: []discovery.RBACRule{admin}, Principals: []discovery.RBACRule{peer(nil)},
		}}}, false},
		{"one of the permissions and of the principals is enough", &discovery.RBACRules{Policies: []discovery.RBACPolicy{{
			Permissions: []discovery.RBACRule{other, admin}, Principals: []discovery.RBACRule{peer(nil), anything},
		}}}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := allows(t, &discovery.RBAC{Rules: tt.rules}, exchange(nil)); got != tt.want {
				t.Errorf("allowed %t, want %t", got, tt.want)
			}
		})
	}
}

func TestBA03_V11_NoRulesEnforceNothingAndNoPoliciesAllowNothing(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		config discovery.RBAC
		want   bool
	}{
		{"no rules", discovery.RBAC{}, true},
		{"an ALLOW without policies", discovery.RBAC{Rules: policies(discovery.RBACAllow)}, false},
		{"a DENY without policies", discovery.RBAC{Rules: policies(discovery.RBACDeny)}, true},
		{"rules on trial", discovery.RBAC{Shadow: policies(discovery.RBACAllow)}, true},
	} {
		if got := allows(t, &tt.config, exchange(nil)); got != tt.want {
			t.Errorf("%s: allowed %t, want %t", tt.name, got, tt.want)
		}
	}
}

func TestBA03_RulesOnTrialAreReportedAndLeaveMetadata(t *testing.T) {
	t.Parallel()
	var events []observe.AuthorizationEvent
	hooks := &observe.Hooks{Authorized: func(e observe.AuthorizationEvent) { events = append(events, e) }}
	f := rbac.New(&discovery.RBAC{
		Rules:  policies(discovery.RBACAllow, anything),
		Shadow: policies(discovery.RBACDeny, path(exact("/other")), path(exact("/admin"))), ShadowPrefix: "trial_",
	}, hooks)
	x := exchange(func(x *filter.Exchange) { x.Listener, x.Facts.PeerID = "0.0.0.0:8080", "spiffe://td/ns/a/sa/b" })
	if answer, err := f.Request(t.Context(), x); answer != nil || err != nil {
		t.Fatalf("got %v, %v", answer, err)
	}
	want := []observe.AuthorizationEvent{{
		Listener: "0.0.0.0:8080", Prefix: "trial_", Policy: "b", Shadow: true, Method: "GET", Path: "/admin",
		PeerID: "spiffe://td/ns/a/sa/b", PeerAddress: "10.1.2.3:4000",
	}}
	if !slices.Equal(events, want) {
		t.Errorf("got %+v", events)
	}
	m := x.Metadata["envoy.filters.http.rbac"]
	if m["trial_shadow_engine_result"] != "denied" || m["trial_shadow_effective_policy_id"] != "b" {
		t.Errorf("metadata %v", x.Metadata)
	}
}

// TestConditionsAreNoTrial: what CUSTOM policies match is asked about, which is neither a
// denial nor what a policy on trial would decide.
func TestConditionsAreNoTrial(t *testing.T) {
	t.Parallel()
	config := &discovery.RBAC{Shadow: policies(discovery.RBACDeny, path(exact("/other")), path(exact("/admin"))), ShadowPrefix: "istio_ext_authz_"}
	for _, tt := range []struct {
		name string
		m    discovery.MetadataMatch
		want bool
	}{
		{"its policy", discovery.MetadataMatch{Filter: "envoy.filters.http.rbac", Path: []string{"istio_ext_authz_shadow_effective_policy_id"}}, true},
		{"its result", discovery.MetadataMatch{Filter: "envoy.filters.http.rbac", Path: []string{"istio_ext_authz_shadow_engine_result"}}, true},
		{"another's policy", discovery.MetadataMatch{Filter: "envoy.filters.http.rbac", Path: []string{"shadow_effective_policy_id"}}, false},
		{"another filter's", discovery.MetadataMatch{Filter: "envoy.filters.http.jwt_authn", Path: []string{"istio_ext_authz_shadow_effective_policy_id"}}, false},
		{"nothing", discovery.MetadataMatch{Filter: "envoy.filters.http.rbac"}, false},
	} {
		if got := rbac.Decides(config, &tt.m); got != tt.want {
			t.Errorf("%s: %t", tt.name, got)
		}
	}
	var events []observe.AuthorizationEvent
	f := rbac.NewCondition(config, &observe.Hooks{Authorized: func(e observe.AuthorizationEvent) { events = append(events, e) }})
	for _, p := range []string{"/admin", "/free"} {
		x := exchange(func(x *filter.Exchange) { x.Path = p })
		if answer, err := f.Request(t.Context(), x); answer != nil || err != nil {
			t.Fatalf("got %v, %v", answer, err)
		}
		if got := x.Metadata["envoy.filters.http.rbac"]["istio_ext_authz_shadow_effective_policy_id"]; (got == "b") != (p == "/admin") {
			t.Errorf("%s: metadata %v", p, x.Metadata)
		}
	}
	if len(events) != 1 || !events[0].Asked || !events[0].Allowed || events[0].Shadow || events[0].Policy != "b" || events[0].Path != "/admin" {
		t.Errorf("got %+v", events)
	}
}

func TestALogReportsWhatItMatches(t *testing.T) {
	t.Parallel()
	var events []observe.AuthorizationEvent
	f := rbac.New(&discovery.RBAC{Rules: policies(discovery.RBACLog, path(exact("/admin")))},
		&observe.Hooks{Authorized: func(e observe.AuthorizationEvent) { events = append(events, e) }})
	for _, p := range []string{"/admin", "/other"} {
		x := exchange(func(x *filter.Exchange) { x.Path = p })
		if answer, _ := f.Request(t.Context(), x); answer != nil {
			t.Fatal("a log denied")
		}
		if hint := x.Metadata["envoy.common"]["access_log_hint"]; hint != (p == "/admin") {
			t.Errorf("%s: hint %v", p, hint)
		}
	}
	if len(events) != 1 || !events[0].Allowed || !events[0].Logged || events[0].Policy != "a" || events[0].Path != "/admin" {
		t.Errorf("got %+v", events)
	}
}

func TestBA11_ADenialTellsNoPolicy(t *testing.T) {
	t.Parallel()
	rules := policies(discovery.RBACDeny, anything)
	rules.Policies[0].Name = "ns[secret]-policy[x]-rule[0]"
	answer, _ := rbac.New(&discovery.RBAC{Rules: rules}, nil).Request(t.Context(), exchange(nil))
	if answer == nil || answer.Status != 403 || answer.GRPCCode().String() != "PermissionDenied" {
		t.Fatalf("got %+v", answer)
	}
	if text := string(answer.Body) + answer.Reason; strings.Contains(text, "secret") || answer.Headers != nil {
		t.Errorf("the caller reads %q, %v", text, answer.Headers)
	}
}

// D6: what denies needs one reading, what allows all.
func TestV06_D6_ARepeatedHeaderDeniesByOneValueAndAllowsByAll(t *testing.T) {
	t.Parallel()
	many := make([]string, 101)
	for i := range many {
		many[i] = "user"
	}
	many[57] = "admin"
	for _, tt := range []struct {
		name        string
		values      []string
		match       *discovery.StringMatch
		deny, allow bool // whether DENY denies, whether ALLOW allows
	}{
		{"alone", []string{"admin"}, exact("admin"), true, true},
		{"absent", nil, exact("admin"), false, false},
		{"first", []string{"admin", "user"}, exact("admin"), true, false},
		{"last", []string{"user", "admin"}, exact("admin"), true, false},
		{"one of a hundred and one", many, exact("admin"), true, false},
		{"joined", []string{"user,admin"}, exact("admin"), true, false},
		{"joined with a space", []string{"user, admin"}, exact("admin"), true, false},
		{"mixed", []string{"a,b", "c, admin"}, exact("admin"), true, false},
		{"as the list", []string{"a", "b"}, exact("a,b"), true, false},
		{"twice the same", []string{"admin", "admin"}, exact("admin"), true, false},
		{"a prefix of all", []string{"admin1", "admin2"}, prefix("admin"), true, true},
		{"a prefix of one", []string{"admin1", "user"}, prefix("admin"), true, false},
		{"an empty value", []string{"", "admin"}, exact("admin"), true, false},
		{"a longer value", []string{"administrator"}, exact("admin"), false, false},
		{"text with a comma", []string{"Mozilla (like Gecko, or so)"}, prefix("Mozilla"), true, true},
		{"space around it", []string{" admin "}, exact("admin"), true, false},
		{"bytes that are no text", []string{"admin\xff"}, exact("admin"), false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			x := func() *filter.Exchange {
				return exchange(func(x *filter.Exchange) {
					if tt.values != nil {
						x.Headers.(headers)["x-role"] = tt.values
					}
				})
			}
			rule := header("x-role", tt.match)
			if got := !allows(t, &discovery.RBAC{Rules: policies(discovery.RBACDeny, rule)}, x()); got != tt.deny {
				t.Errorf("DENY denies %t, want %t", got, tt.deny)
			}
			if got := allows(t, &discovery.RBAC{Rules: policies(discovery.RBACAllow, rule)}, x()); got != tt.allow {
				t.Errorf("ALLOW allows %t, want %t", got, tt.allow)
			}
			// Everybody but: ALLOW must be as strict about what it excludes as DENY.
			if got := !allows(t, &discovery.RBAC{Rules: policies(discovery.RBACAllow, not(rule))}, x()); got != tt.deny {
				t.Errorf("ALLOW of all others denies %t, want %t", got, tt.deny)
			}
			if got := allows(t, &discovery.RBAC{Rules: policies(discovery.RBACDeny, not(rule))}, x()); got != tt.allow {
				t.Errorf("DENY of all others allows %t, want %t", got, tt.allow)
			}
		})
	}
}

// What is no text is compared byte by byte: no byte ends a value, stands for
// another or is passed over.
func TestV08_WhiteSpaceAroundAValueIsSeen(t *testing.T) {
	t.Parallel()
	// White space around a value is seen by some applications and not by others.
	for _, value := range []string{"admin ", "admin\n"} {
		x := func() *filter.Exchange {
			return exchange(func(x *filter.Exchange) { x.Headers.(headers)["x-role"] = []string{value} })
		}
		rule := header("x-role", exact("admin"))
		if allows(t, &discovery.RBAC{Rules: policies(discovery.RBACDeny, rule)}, x()) {
			t.Errorf("%q: DENY does not deny", value)
		}
		if allows(t, &discovery.RBAC{Rules: policies(discovery.RBACAllow, rule)}, x()) {
			t.Errorf("%q: ALLOW allows", value)
		}
	}
	for _, tt := range []struct {
		name, value string
		match       *discovery.StringMatch
		want        bool
	}{
		{"a zero at the end", "admin\x00", exact("admin"), false},
		{"a zero, which the policy has too", "admin\x00", exact("admin\x00"), true},
		{"a zero inside a prefix", "ad\x00min", prefix("admin"), false},
		{"a byte that is no text at the end", "admin\x80", exact("admin"), false},
		{"Latin-1 is not UTF-8", "caf\xe9", exact("café"), false},
		{"UTF-8", "café", exact("café"), true},
		{"any byte in an expression", "\xff\x80admin\xff", matchRegex(".*admin.*"), true},
		{"a byte of no class in an expression", "adm\xffin", matchRegex("[a-z]+"), false},
		{"a zero in an expression", "admin\x00", matchRegex("admin"), false},

		{"a space that a prefix does not mind", "admin ", prefix("admin"), true},
		{"a full-width letter", "\uff41dmin", exact("admin"), false},
	} {
		x := func() *filter.Exchange {
			return exchange(func(x *filter.Exchange) { x.Headers.(headers)["x-role"] = []string{tt.value} })
		}
		rule := header("x-role", tt.match)
		if got := !allows(t, &discovery.RBAC{Rules: policies(discovery.RBACDeny, rule)}, x()); got != tt.want {
			t.Errorf("%s: DENY denies %t", tt.name, got)
		}
		if got := allows(t, &discovery.RBAC{Rules: policies(discovery.RBACAllow, rule)}, x()); got != tt.want {
			t.Errorf("%s: ALLOW allows %t", tt.name, got)
		}
	}
}

func TestBA06_AMissingHeaderMatchesNothing(t *testing.T) {
	t.Parallel()
	present := func(want, invert bool) discovery.RBACRule {
		return discovery.RBACRule{Kind: discovery.RBACHeader, Header: discovery.HeaderMatch{
			Name: "x-user", Kind: discovery.HeaderPresent, Present: want, Invert: invert,
		}}
	}
	inverted := header("x-user", exact("a"))
	inverted.Header.Invert = true
	for _, tt := range []struct {
		name string
		rule discovery.RBACRule
		want bool
	}{
		{"compared", header("x-user", exact("")), false},
		{"compared and inverted", inverted, false},
		{"must be there", present(true, false), false},
		{"must not be there", present(false, false), true},
		{"must be there, inverted", present(true, true), true},
	} {
		if got := allows(t, &discovery.RBAC{Rules: policies(discovery.RBACAllow, tt.rule)}, exchange(nil)); got != tt.want {
			t.Errorf("%s: %t, want %t", tt.name, got, tt.want)
		}
	}
}

func certificate(uris, dns []string, subject string) *x509.Certificate {
	c := &x509.Certificate{DNSNames: dns, Subject: pkix.Name{CommonName: subject}}
	for _, u := range uris {
		parsed, err := url.Parse(u)
		if err != nil {
			panic(err)
		}
		c.URIs = append(c.URIs, parsed)
	}
	return c
}

func TestBA07_V13_APeerIsKnownByTheFirstKindOfNameThatItHas(t *testing.T) {
	t.Parallel()
	const a, b = "spiffe://td/ns/a/sa/x", "b.example"
	both := certificate([]string{a}, []string{b}, "c")
	for _, tt := range []struct {
		name string
		cert *x509.Certificate
		rule discovery.RBACRule
		want bool
	}{
		{"by the URI", both, peer(exact(a)), true},
		{"not by the DNS name beside a URI", both, peer(exact(b)), false},
		{"not by the subject beside a URI", both, peer(exact("CN=c")), false},
		{"by the DNS name without a URI", certificate(nil, []string{"z", b}, "c"), peer(exact(b)), true},
		{"by the subject without names", certificate(nil, nil, "c"), peer(exact("CN=c")), true},
		{"by any name", both, peer(nil), true},
		{"not plaintext", nil, peer(nil), false},
		{"not plaintext by a pattern that matches the empty name", nil, peer(prefix("")), false},
		{"V20: not a DNS name that reads like a URI", certificate(nil, []string{a}, ""), discovery.RBACRule{Kind: discovery.RBACURI, Text: exact(a)}, false},
		{"a DNS name by its type", both, discovery.RBACRule{Kind: discovery.RBACDNS, Text: exact(b)}, true},
		{"V09: a dot is a dot", certificate([]string{"spiffe://cluster.local/ns/aXb/sa/x"}, nil, ""), peer(exact("spiffe://cluster.local/ns/a.b/sa/x")), false},
		{"V09: an expression is for the whole", certificate([]string{a + "y"}, nil, ""), peer(matchRegex("spiffe://td/ns/a/sa/x")), false},
		{"V21: a prefix is of one trust domain", certificate([]string{"spiffe://td2/ns/a/sa/x"}, nil, ""), peer(prefix("spiffe://td/ns/a")), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := rbac.Subject{Certificate: tt.cert, Request: &route.Request{Path: "/"}}
			f := rbac.New(&discovery.RBAC{Rules: policies(discovery.RBACAllow, tt.rule)}, nil)
			if got := f.Connection(&s, "", ""); got != tt.want {
				t.Errorf("%t, want %t", got, tt.want)
			}
		})
	}
}

func TestBA08_V12_Addresses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		remote string
		rule   discovery.RBACRule
		want   bool
	}{
		{"within", "10.1.2.3:1", address(discovery.RBACDirectIP, "10.0.0.0/8"), true},
		{"outside", "11.1.2.3:1", address(discovery.RBACDirectIP, "10.0.0.0/8"), false},
		{"IPv4 in IPv6", "[::ffff:10.0.0.1]:1", address(discovery.RBACDirectIP, "10.0.0.0/8"), true},
		{"IPv6", "[2001:db8::1]:1", address(discovery.RBACRemoteIP, "2001:db8::/32"), true},
		{"IPv4 is not in ::/0", "10.0.0.1:1", address(discovery.RBACRemoteIP, "::/0"), false},
		{"with a zone", "[fe80::1%eth0]:1", address(discovery.RBACRemoteIP, "fe80::/10"), true},
		{"everything", "10.0.0.1:1", address(discovery.RBACRemoteIP, "0.0.0.0/0"), true},
		{"no address", "a client", address(discovery.RBACRemoteIP, "0.0.0.0/0"), false},
		{"no address at all", "", not(address(discovery.RBACRemoteIP, "10.0.0.0/8")), true},
		{"the own address", "1.1.1.1:1", address(discovery.RBACDestination, "10.0.0.1/32"), true},
		{"the own port", "1.1.1.1:1", discovery.RBACRule{Kind: discovery.RBACPort, Start: 8080, End: 8081}, true},
		{"another port", "1.1.1.1:1", discovery.RBACRule{Kind: discovery.RBACPort, Start: 8081, End: 9000}, false},
	} {
		x := exchange(func(x *filter.Exchange) {
			x.Facts.Remote, x.Facts.Peer = tt.remote, tt.remote
			// V15: a client's own word is nothing.
			x.Headers.Set("x-forwarded-for", "10.0.0.1")
		})
		if got := allows(t, &discovery.RBAC{Rules: policies(discovery.RBACAllow, tt.rule)}, x); got != tt.want {
			t.Errorf("%s: %t, want %t", tt.name, got, tt.want)
		}
	}
}

func TestADirectAddressIsThePeersWhateverAProxySays(t *testing.T) {
	t.Parallel()
	x := exchange(func(x *filter.Exchange) { x.Facts.Remote = "192.0.2.1" })
	for prefix, kind := range map[string]discovery.RBACKind{"192.0.2.0/24": discovery.RBACRemoteIP, "10.1.0.0/16": discovery.RBACDirectIP} {
		if !allows(t, &discovery.RBAC{Rules: policies(discovery.RBACAllow, address(kind, prefix))}, x) {
			t.Errorf("%s is not the client's", prefix)
		}
	}
}

func TestBA09_MetadataAndServerNames(t *testing.T) {
	t.Parallel()
	role := discovery.RBACRule{Kind: discovery.RBACMetadata, Metadata: &discovery.MetadataMatch{
		Filter: "jwt", Path: []string{"payload", "role"},
		Value: discovery.ValueMatch{Kind: discovery.ValueOr, Any: []discovery.ValueMatch{
			{Kind: discovery.ValueString, String: *exact("admin")},
			{Kind: discovery.ValueList, Any: []discovery.ValueMatch{{Kind: discovery.ValueString, String: *exact("admin")}}},
		}},
	}}
	for _, tt := range []struct {
		name  string
		value any
		want  bool
	}{
		{"none", nil, false},
		{"the value", "admin", true},
		{"one of a list", []any{"user", "admin"}, true},
		{"another type", true, false},
		{"a structure", map[string]any{"admin": "admin"}, false},
	} {
		x := exchange(func(x *filter.Exchange) {
			if tt.value != nil {
				x.SetMetadata("jwt", map[string]any{"payload": map[string]any{"role": tt.value}})
			}
		})
		if got := allows(t, &discovery.RBAC{Rules: policies(discovery.RBACAllow, role)}, x); got != tt.want {
			t.Errorf("%s: %t, want %t", tt.name, got, tt.want)
		}
		if got := allows(t, &discovery.RBAC{Rules: policies(discovery.RBACDeny, not(role))}, x); got != tt.want {
			t.Errorf("%s, denied to others: %t, want %t", tt.name, got, tt.want)
		}
	}
	name := discovery.RBACRule{Kind: discovery.RBACServerName, Text: exact("")}
	if !allows(t, &discovery.RBAC{Rules: policies(discovery.RBACAllow, name)}, exchange(nil)) {
		t.Error("plaintext has a server name")
	}
}

func TestV18_APathIsComparedWithoutItsQueryAndInEitherSpelling(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		path, query string
		rule        discovery.RBACRule
		want        bool
	}{
		{"/admin", "x", path(exact("/admin")), true},
		{"/admin", "x", header(":path", exact("/admin")), false},
		{"/admin", "x", header(":path", exact("/admin?x")), true},
		{"/caf%C3%A9", "", path(exact("/café")), true},
		{"/caf%C3%A9", "", path(exact("/caf%C3%A9")), true},
		{"/caf%C3%A9", "", header(":path", prefix("/café")), true},
		{"/administrator", "", path(exact("/admin")), false},
		{"/a/b/x/c", "", discovery.RBACRule{Kind: discovery.RBACTemplate, Template: matchRegex("/a/[^/]+/c").Regex}, false},
		{"/a/b/c", "", discovery.RBACRule{Kind: discovery.RBACTemplate, Template: matchRegex("/a/[^/]+/c").Regex}, true},
	} {
		x := exchange(func(x *filter.Exchange) { x.Path, x.Query = tt.path, tt.query })
		if got := !allows(t, &discovery.RBAC{Rules: policies(discovery.RBACDeny, tt.rule)}, x); got != tt.want {
			t.Errorf("%s?%s is denied %t, want %t", tt.path, tt.query, got, tt.want)
		}
	}
}

// TestV18_D7_ATemplateDeniesWhatItsOperatorsMayMeet: as Envoy has them, they match no
// "=", so that a policy which denies would be passed by what it is meant for.
func TestV18_D7_ATemplateDeniesWhatItsOperatorsMayMeet(t *testing.T) {
	t.Parallel()
	rule := discovery.RBACRule{Kind: discovery.RBACTemplate, Template: matchRegex(`/admin/[a-zA-Z0-9\-._~%!$&'()+,;:@]+`).Regex}
	for path, want := range map[string]struct{ denied, allowed bool }{
		"/admin/a": {true, true}, "/admin/a%3Db": {true, true}, "/admin/a=b": {true, false}, "/admin/a*": {true, false}, "/admin/[x]": {true, false},
		"/admin/ä": {true, false}, "/admin/a=/b": {}, "/other/a=b": {}, "/admin/": {},
	} {
		x := func() *filter.Exchange { return exchange(func(x *filter.Exchange) { x.Path = path }) }
		if got := !allows(t, &discovery.RBAC{Rules: policies(discovery.RBACDeny, rule)}, x()); got != want.denied {
			t.Errorf("%s: DENY denies it: %t", path, got)
		}
		if got := allows(t, &discovery.RBAC{Rules: policies(discovery.RBACAllow, rule)}, x()); got != want.allowed {
			t.Errorf("%s: ALLOW allows it: %t", path, got)
		}
		if got := allows(t, &discovery.RBAC{Rules: policies(discovery.RBACAllow, not(rule))}, x()); got == want.denied {
			t.Errorf("%s: ALLOW of all else allows it: %t", path, got)
		}
	}
}

func TestAConnectionHasNoRequest(t *testing.T) {
	t.Parallel()
	for name, rule := range map[string]discovery.RBACRule{
		"a path": path(prefix("")), "a header": header("x", exact("")), "a host": header(":authority", prefix("")),
		"a target": header(":path", prefix("")), "metadata": {Kind: discovery.RBACMetadata, Metadata: &discovery.MetadataMatch{Filter: "f", Path: []string{"k"}}},
	} {
		f := rbac.New(&discovery.RBAC{Rules: policies(discovery.RBACAllow, rule)}, nil)
		if f.Connection(&rbac.Subject{Remote: "10.0.0.1:1", Peer: "10.0.0.1:1"}, "", "") {
			t.Errorf("%s was found in a connection", name)
		}
	}
}

// TestV08_ValuesAreComparedAsBytes: a rule means the bytes that it is written in,
// and what a value has more is never cut off.
func TestV08_ValuesAreComparedAsBytes(t *testing.T) {
	t.Parallel()
	const latin, utf8 = "caf\xe9", "café"
	for _, tt := range []struct {
		name, value string
		match       *discovery.StringMatch
		want        bool
	}{
		{"a NUL behind it", "admin\x00", exact("admin"), false},
		{"a NUL in it", "ad\x00min", exact("admin"), false},
		{"a NUL behind it, as a prefix", "admin\x00", prefix("admin"), true},
		{"a NUL behind it, as an expression", "admin\x00", matchRegex("admin"), false},
		{"a NUL is any character", "admin\x00", matchRegex("admin."), true},
		{"a line feed behind it", "admin\n", matchRegex("admin"), false},
		{"UTF-8 for UTF-8", utf8, exact(utf8), true},
		{"Latin-1 for UTF-8", latin, exact(utf8), false},
		{"Latin-1 for UTF-8, as an expression", latin, matchRegex(utf8), false},
		{"Latin-1 is any character", latin, matchRegex("caf."), true},
		{"Latin-1 is one character", latin, matchRegex("caf.."), false},
		{"Latin-1 is none of others", latin, matchRegex("caf[^e]"), true},
		{"bytes that are no text, as a prefix", "\xff\xfe", prefix("\xff"), true},
		{"an overlong form is no slash", "a\xc0\xafb", exact("a/b"), false},
		{"Latin-1 without regard to case", "\xe9", &discovery.StringMatch{Value: "É", IgnoreCase: true}, false},
		{"another letter without regard to case", "\u212aing", &discovery.StringMatch{Value: "king", IgnoreCase: true}, false},
		{"part of another letter without regard to case", "a\u212aing", &discovery.StringMatch{Kind: discovery.MatchContains, Value: "KING", IgnoreCase: true}, false},
		{"a part without regard to case", "a\xffKing", &discovery.StringMatch{Kind: discovery.MatchContains, Value: "kING", IgnoreCase: true}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			x := func() *filter.Exchange {
				return exchange(func(x *filter.Exchange) { x.Headers.Set("x-role", tt.value) })
			}
			rule := header("x-role", tt.match)
			if got := allows(t, &discovery.RBAC{Rules: policies(discovery.RBACAllow, rule)}, x()); got != tt.want {
				t.Errorf("ALLOW allows %t, want %t", got, tt.want)
			}
			if got := !allows(t, &discovery.RBAC{Rules: policies(discovery.RBACDeny, rule)}, x()); got != tt.want && strings.TrimSpace(tt.value) == tt.value {
				t.Errorf("DENY denies %t, want %t", got, tt.want)
			}
		})
	}
}
