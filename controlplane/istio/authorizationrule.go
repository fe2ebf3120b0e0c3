package istio

import (
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	templatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/path/match/uri_template/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"
	security "istio.io/api/security/v1beta1"
)

func itoa(i int) string { return strconv.Itoa(i) }

// ruleTranslator translates the rules of a policy, as Istio does.
type ruleTranslator struct {
	namespace string // of the policy
	opts      Options
	// denies is whether what matches is denied, or asked about, and not allowed.
	denies bool
	// wide is whether the field at hand matches more rather than less: where it
	// denies, and where what it does not match is allowed.
	wide bool
}

// rule is who may do what under which conditions. Within a field one value is
// enough, and every field must match; an empty rule matches everything.
func (t *ruleTranslator) rule(r *security.Rule, a at) *rbacv3.Policy {
	for name, length := range map[string]int{"from": len(r.GetFrom()), "to": len(r.GetTo()), "when": len(r.GetWhen())} {
		if length == 0 && a.field(name).written() {
			a.field(name).errorf("must not be empty: to match whatever it is, remove %q", name)
		}
	}
	permissions, principals := t.conditions(r.GetWhen(), a.field("when"))
	policy := &rbacv3.Policy{}
	for i, to := range r.GetTo() {
		in := a.field("to").index(i).field("operation")
		all := t.operation(to.GetOperation(), in)
		if len(all) == 0 {
			in.errorf("must have a field: to match every operation, remove \"to\"")
		}
		policy.Permissions = append(policy.Permissions, allPermissions(append(all, permissions...)))
	}
	if len(r.GetTo()) == 0 {
		policy.Permissions = []*rbacv3.Permission{allPermissions(permissions)}
	}
	for i, from := range r.GetFrom() {
		in := a.field("from").index(i).field("source")
		all := t.source(from.GetSource(), in)
		if len(all) == 0 {
			in.errorf("must have a field: to match every source, remove \"from\"")
		}
		policy.Principals = append(policy.Principals, allPrincipals(append(all, principals...)))
	}
	if len(r.GetFrom()) == 0 {
		policy.Principals = []*rbacv3.Principal{allPrincipals(principals)}
	}
	return policy
}

func (t *ruleTranslator) operation(o *security.Operation, a at) []*rbacv3.Permission {
	var all []*rbacv3.Permission
	for _, f := range []struct {
		name   string
		values []string
		negate bool
		make   func(string, at) *rbacv3.Permission
	}{
		{"hosts", o.GetHosts(), false, t.host},
		{"notHosts", o.GetNotHosts(), true, t.host},
		{"ports", o.GetPorts(), false, t.port},
		{"notPorts", o.GetNotPorts(), true, t.port},
		{"methods", o.GetMethods(), false, t.method},
		{"notMethods", o.GetNotMethods(), true, t.method},
		{"paths", o.GetPaths(), false, t.path},
		{"notPaths", o.GetNotPaths(), true, t.path},
	} {
		t.wide = t.denies != f.negate
		if p := permissionOf(f.values, f.negate, a.field(f.name), f.make); p != nil {
			all = append(all, p)
		}
	}
	return all
}

func (t *ruleTranslator) source(s *security.Source, a at) []*rbacv3.Principal {
	if len(s.GetServiceAccounts())+len(s.GetNotServiceAccounts()) > 0 &&
		len(s.GetPrincipals())+len(s.GetNotPrincipals())+len(s.GetNamespaces())+len(s.GetNotNamespaces()) > 0 {
		a.field("serviceAccounts").errorf("cannot be set together with principals or namespaces")
	}
	var all []*rbacv3.Principal
	for _, f := range []struct {
		name   string
		values []string
		negate bool
		make   func(string, at) *rbacv3.Principal
	}{
		{"principals", s.GetPrincipals(), false, t.principal},
		{"notPrincipals", s.GetNotPrincipals(), true, t.principal},
		{"requestPrincipals", s.GetRequestPrincipals(), false, t.requestPrincipal},
		{"notRequestPrincipals", s.GetNotRequestPrincipals(), true, t.requestPrincipal},
		{"namespaces", s.GetNamespaces(), false, t.sourceNamespace},
		{"notNamespaces", s.GetNotNamespaces(), true, t.sourceNamespace},
		{"serviceAccounts", s.GetServiceAccounts(), false, t.serviceAccount},
		{"notServiceAccounts", s.GetNotServiceAccounts(), true, t.serviceAccount},
		{"trustDomains", s.GetTrustDomains(), false, t.trustDomain},
		{"notTrustDomains", s.GetNotTrustDomains(), true, t.trustDomain},
		{"ipBlocks", s.GetIpBlocks(), false, directIP},
		{"notIpBlocks", s.GetNotIpBlocks(), true, directIP},
		{"remoteIpBlocks", s.GetRemoteIpBlocks(), false, remoteIP},
		{"notRemoteIpBlocks", s.GetNotRemoteIpBlocks(), true, remoteIP},
	} {
		t.wide = t.denies != f.negate
		if p := principalOf(f.values, f.negate, a.field(f.name), f.make); p != nil {
			all = append(all, p)
		}
	}
	return all
}

// permissionOf is one field: one of its values, or none of them; nil if it is
// not set.
func permissionOf(values []string, negate bool, a at, one func(string, at) *rbacv3.Permission) *rbacv3.Permission {
	if len(values) == 0 {
		if a.written() {
			a.errorf("must not be empty: remove it, or write a value")
		}
		return nil
	}
	or := &rbacv3.Permission_Set{}
	for i, v := range values {
		or.Rules = append(or.Rules, one(v, notEmpty(v, a.index(i))))
	}
	p := &rbacv3.Permission{Rule: &rbacv3.Permission_OrRules{OrRules: or}}
	if negate {
		return notPermission(p)
	}
	return p
}

func principalOf(values []string, negate bool, a at, one func(string, at) *rbacv3.Principal) *rbacv3.Principal {
	if len(values) == 0 {
		if a.written() {
			a.errorf("must not be empty: remove it, or write a value")
		}
		return nil
	}
	or := &rbacv3.Principal_Set{}
	for i, v := range values {
		or.Ids = append(or.Ids, one(v, notEmpty(v, a.index(i))))
	}
	p := &rbacv3.Principal{Identifier: &rbacv3.Principal_OrIds{OrIds: or}}
	if negate {
		return notPrincipal(p)
	}
	return p
}

func notEmpty(value string, a at) at {
	if value == "" {
		a.errorf("must not be empty")
	}
	if text, kind := cutWildcard(value); kind != present && strings.Contains(text, "*") && !strings.ContainsAny(value, "{}") {
		a.errorf("%q: a star stands at the beginning or at the end", value)
	}
	return a
}

func (t *ruleTranslator) host(value string, a at) *rbacv3.Permission {
	if strings.ContainsAny(value, "/@ ") {
		a.errorf("%q is not a host: write a name, with a port or without", value)
	}
	match := t.wildcard(value)
	match.IgnoreCase = match.GetSafeRegex() == nil
	return headerPermission(":authority", match)
}

func (t *ruleTranslator) method(value string, a at) *rbacv3.Permission {
	lintMethod(value, a)
	return headerPermission(":method", t.wildcard(value))
}

func (t *ruleTranslator) path(value string, a at) *rbacv3.Permission {
	if strings.ContainsAny(value, "{}") {
		template := strings.ReplaceAll(strings.ReplaceAll(value, "{**}", "**"), "{*}", "*")
		if strings.ContainsAny(template, "{}") || strings.Contains(strings.ReplaceAll(strings.ReplaceAll(value, "{**}", ""), "{*}", ""), "*") {
			a.errorf("%q: a template has {*} for a segment and {**} for several, and no other braces or stars", value)
		}
		config, err := pack(&templatev3.UriTemplateMatchConfig{PathTemplate: template})
		if err != nil {
			a.doubt(err)
		}
		return &rbacv3.Permission{Rule: &rbacv3.Permission_UriTemplate{UriTemplate: &corev3.TypedExtensionConfig{
			Name: "uri-template", TypedConfig: config,
		}}}
	}
	if value != "" && value[0] != '/' && value[0] != '*' {
		a.errorf("%q is met by no request: paths begin with a slash", value)
	}
	if strings.ContainsAny(value, "?#") {
		a.errorf("%q is met by no request: a path has no query", value)
	}
	return &rbacv3.Permission{Rule: &rbacv3.Permission_UrlPath{UrlPath: &matcherv3.PathMatcher{
		Rule: &matcherv3.PathMatcher_Path{Path: wildcardMatch(value)},
	}}}
}

func (t *ruleTranslator) port(value string, a at) *rbacv3.Permission {
	port, err := strconv.ParseUint(value, 10, 16)
	if err != nil || port == 0 {
		a.errorf("%q is not a port: use 1..65535", value)
	}
	return &rbacv3.Permission{Rule: &rbacv3.Permission_DestinationPort{DestinationPort: uint32(port)}}
}

// principal is "TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT". The own trust domain,
// its aliases and "cluster.local" are the same.
func (t *ruleTranslator) principal(value string, a at) *rbacv3.Principal {
	if strings.HasPrefix(value, "spiffe://") {
		a.errorf("%q is met by nobody: write it without \"spiffe://\"", value)
	}
	domain, rest, found := strings.Cut(value, "/")
	own := t.opts.trustDomains()
	if !found || domain != "cluster.local" && !slices.Contains(own, domain) {
		return identity(value)
	}
	or := &rbacv3.Principal_Set{}
	for _, d := range own {
		or.Ids = append(or.Ids, identity(d+"/"+rest))
	}
	return &rbacv3.Principal{Identifier: &rbacv3.Principal_OrIds{OrIds: or}}
}

// identity compares a SPIFFE ID without its scheme.
func identity(value string) *rbacv3.Principal {
	const scheme = "spiffe://"
	switch text, kind := cutWildcard(value); kind {
	case present:
		return authenticated(regexMatch(".+"))
	case ending:
		return authenticated(regexMatch(scheme + ".*" + regexp.QuoteMeta(text)))
	case beginning:
		return authenticated(&matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: scheme + text}})
	default:
		return authenticated(&matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: scheme + text}})
	}
}

func (t *ruleTranslator) sourceNamespace(value string, _ at) *rbacv3.Principal {
	return authenticated(regexMatch(`spiffe://[^/]+/ns/` + wildcardExpression(value) + `/.*`))
}

func (t *ruleTranslator) trustDomain(value string, _ at) *rbacv3.Principal {
	return authenticated(regexMatch(`spiffe://` + wildcardExpression(value) + `/.*`))
}

// serviceAccount is "NAMESPACE/ACCOUNT", or an account of the policy's namespace.
func (t *ruleTranslator) serviceAccount(value string, a at) *rbacv3.Principal {
	namespace, account, found := strings.Cut(value, "/")
	if !found {
		namespace, account = t.namespace, value
	}
	if strings.ContainsAny(value, "*") || strings.Contains(account, "/") || namespace == "" || account == "" {
		a.errorf("%q is not a service account: write ACCOUNT or NAMESPACE/ACCOUNT, without wildcards", value)
	}
	return authenticated(regexMatch(`spiffe://[^/]+/ns/` + regexp.QuoteMeta(namespace) + `/sa/` + regexp.QuoteMeta(account)))
}

// wildcardExpression matches a part of an ID between slashes.
func wildcardExpression(value string) string {
	switch text, kind := cutWildcard(value); kind {
	case present:
		return `[^/]+`
	case ending:
		return `[^/]*` + regexp.QuoteMeta(text)
	case beginning:
		return regexp.QuoteMeta(text) + `[^/]*`
	default:
		return regexp.QuoteMeta(text)
	}
}

func directIP(value string, a at) *rbacv3.Principal {
	return &rbacv3.Principal{Identifier: &rbacv3.Principal_DirectRemoteIp{DirectRemoteIp: cidr(value, a)}}
}

func remoteIP(value string, a at) *rbacv3.Principal {
	return &rbacv3.Principal{Identifier: &rbacv3.Principal_RemoteIp{RemoteIp: cidr(value, a)}}
}

func cidr(value string, a at) *corev3.CidrRange {
	prefix, err := netip.ParsePrefix(value)
	if err != nil {
		address, err := netip.ParseAddr(value)
		if err != nil || address.Zone() != "" {
			a.errorf("%q is neither an IP address nor a block such as 10.0.0.0/8", value)
			return nil
		}
		prefix = netip.PrefixFrom(address, address.BitLen())
	}
	return &corev3.CidrRange{AddressPrefix: prefix.Addr().String(), PrefixLen: wrapperspb.UInt32(uint32(prefix.Bits()))}
}

// wildcardMatch compares text.
func wildcardMatch(value string) *matcherv3.StringMatcher {
	switch text, kind := cutWildcard(value); kind {
	case present:
		return regexMatch(".+")
	case ending:
		return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Suffix{Suffix: text}}
	case beginning:
		return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: text}}
	default:
		return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: text}}
	}
}

// wildcard compares text of a request. A star alone is met by an empty value as well
// where that is the safe side: Istio's API says that it is not empty, and its
// translation that it is there.
func (t *ruleTranslator) wildcard(value string) *matcherv3.StringMatcher {
	if _, kind := cutWildcard(value); kind == present && t.wide {
		return regexMatch(".*")
	}
	return wildcardMatch(value)
}

func regexMatch(expression string) *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: expression}}}
}

func headerPermission(name string, match *matcherv3.StringMatcher) *rbacv3.Permission {
	return &rbacv3.Permission{Rule: &rbacv3.Permission_Header{Header: headerMatcher(name, match)}}
}

func headerMatcher(name string, match *matcherv3.StringMatcher) *routev3.HeaderMatcher {
	return &routev3.HeaderMatcher{Name: name, HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: match}}
}

func authenticated(match *matcherv3.StringMatcher) *rbacv3.Principal {
	return &rbacv3.Principal{Identifier: &rbacv3.Principal_Authenticated_{Authenticated: &rbacv3.Principal_Authenticated{PrincipalName: match}}}
}

func anyPermission() *rbacv3.Permission {
	return &rbacv3.Permission{Rule: &rbacv3.Permission_Any{Any: true}}
}

func notPermission(p *rbacv3.Permission) *rbacv3.Permission {
	return &rbacv3.Permission{Rule: &rbacv3.Permission_NotRule{NotRule: p}}
}

func anyPrincipal() *rbacv3.Principal {
	return &rbacv3.Principal{Identifier: &rbacv3.Principal_Any{Any: true}}
}

func notPrincipal(p *rbacv3.Principal) *rbacv3.Principal {
	return &rbacv3.Principal{Identifier: &rbacv3.Principal_NotId{NotId: p}}
}

func allPermissions(all []*rbacv3.Permission) *rbacv3.Permission {
	if len(all) == 0 {
		return anyPermission()
	}
	return &rbacv3.Permission{Rule: &rbacv3.Permission_AndRules{AndRules: &rbacv3.Permission_Set{Rules: all}}}
}

func allPrincipals(all []*rbacv3.Principal) *rbacv3.Principal {
	if len(all) == 0 {
		return anyPrincipal()
	}
	return &rbacv3.Principal{Identifier: &rbacv3.Principal_AndIds{AndIds: &rbacv3.Principal_Set{Ids: all}}}
}
