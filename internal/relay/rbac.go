package relay

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	httprbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/route"
)

// serverFacts are what is known of every call of a server.
type serverFacts struct {
	port uint32
	// direct tells that the client's address is the peer's.
	direct bool
}

// rbac writes a policy. What grpc-go would read in another way is an error: a
// rule that it takes for one that never matches denies nothing.
func (e *encoder) rbac(where string, r *discovery.RBAC, facts serverFacts) (*httprbacv3.RBAC, error) {
	if r.Shadow != nil {
		e.leave(where, "policies on trial are not reported")
	}
	out := &httprbacv3.RBAC{}
	if r.Rules == nil {
		return out, nil
	}
	if r.Rules.Tree != nil {
		return nil, fmt.Errorf("grpc-go does not evaluate trees of matchers: %w", errInstead)
	}
	switch r.Rules.Action {
	case discovery.RBACAllow:
		// Without policies it allows nothing, as it should.
		out.Rules = &rbacv3.RBAC{Action: rbacv3.RBAC_ALLOW}
	case discovery.RBACDeny:
		out.Rules = &rbacv3.RBAC{Action: rbacv3.RBAC_DENY}
	default:
		e.leave(where, "what policies match is not reported")
		return out, nil
	}
	out.Rules.Policies = make(map[string]*rbacv3.Policy, len(r.Rules.Policies))
	for i := range r.Rules.Policies {
		p := &r.Rules.Policies[i]
		policy, err := rbacPolicy(p, facts)
		if err != nil {
			return nil, fmt.Errorf("policy %q: %w: %w", p.Name, err, errInstead)
		}
		out.Rules.Policies[p.Name] = policy
	}
	return out, nil
}

func rbacPolicy(p *discovery.RBACPolicy, facts serverFacts) (*rbacv3.Policy, error) {
	if p.Condition != nil {
		return nil, errors.New("grpc-go does not evaluate conditions")
	}
	out := &rbacv3.Policy{}
	for i := range p.Permissions {
		rule, err := permission(&p.Permissions[i], facts)
		if err != nil {
			return nil, err
		}
		out.Permissions = append(out.Permissions, rule)
	}
	for i := range p.Principals {
		rule, err := principal(&p.Principals[i], facts)
		if err != nil {
			return nil, err
		}
		out.Principals = append(out.Principals, rule)
	}
	return out, nil
}

// permission writes a rule about what is done.
func permission(r *discovery.RBACRule, facts serverFacts) (*rbacv3.Permission, error) {
	switch r.Kind {
	case discovery.RBACAny:
		return &rbacv3.Permission{Rule: &rbacv3.Permission_Any{Any: true}}, nil
	case discovery.RBACAnd, discovery.RBACOr, discovery.RBACNot:
		inner := make([]*rbacv3.Permission, 0, len(r.Rules))
		for i := range r.Rules {
			rule, err := permission(&r.Rules[i], facts)
			if err != nil {
				return nil, err
			}
			inner = append(inner, rule)
		}
		switch r.Kind {
		case discovery.RBACAnd:
			return &rbacv3.Permission{Rule: &rbacv3.Permission_AndRules{AndRules: &rbacv3.Permission_Set{Rules: inner}}}, nil
		case discovery.RBACOr:
			return anyOf(inner), nil
		}
		return notPermission(inner[0]), nil
	case discovery.RBACHeader:
		m, unlessPresent, err := rbacHeader(&r.Header)
		if err != nil {
			return nil, err
		}
		header := &rbacv3.Permission{Rule: &rbacv3.Permission_Header{Header: m}}
		if !unlessPresent {
			return header, nil
		}
		return anyOf([]*rbacv3.Permission{header, notPermission(&rbacv3.Permission{Rule: &rbacv3.Permission_Header{Header: present(m.GetName())}})}), nil
	case discovery.RBACPath, discovery.RBACTemplate:
		return &rbacv3.Permission{Rule: &rbacv3.Permission_UrlPath{UrlPath: urlPath(r)}}, nil
	case discovery.RBACDestination:
		return &rbacv3.Permission{Rule: &rbacv3.Permission_DestinationIp{DestinationIp: cidr(r.Prefix)}}, nil
	case discovery.RBACPort:
		// The port is that of the listener, and grpc-go knows no ranges.
		always := &rbacv3.Permission{Rule: &rbacv3.Permission_Any{Any: true}}
		if r.Start <= facts.port && facts.port < r.End {
			return always, nil
		}
		return notPermission(always), nil
	}
	return nil, unknownRule(r.Kind)
}

func anyOf(rules []*rbacv3.Permission) *rbacv3.Permission {
	return &rbacv3.Permission{Rule: &rbacv3.Permission_OrRules{OrRules: &rbacv3.Permission_Set{Rules: rules}}}
}

func notPermission(rule *rbacv3.Permission) *rbacv3.Permission {
	return &rbacv3.Permission{Rule: &rbacv3.Permission_NotRule{NotRule: rule}}
}

// principal writes a rule about who does it.
func principal(r *discovery.RBACRule, facts serverFacts) (*rbacv3.Principal, error) {
	switch r.Kind {
	case discovery.RBACAny:
		return &rbacv3.Principal{Identifier: &rbacv3.Principal_Any{Any: true}}, nil
	case discovery.RBACAnd, discovery.RBACOr, discovery.RBACNot:
		inner := make([]*rbacv3.Principal, 0, len(r.Rules))
		for i := range r.Rules {
			rule, err := principal(&r.Rules[i], facts)
			if err != nil {
				return nil, err
			}
			inner = append(inner, rule)
		}
		switch r.Kind {
		case discovery.RBACAnd:
			return &rbacv3.Principal{Identifier: &rbacv3.Principal_AndIds{AndIds: &rbacv3.Principal_Set{Ids: inner}}}, nil
		case discovery.RBACOr:
			return oneOf(inner), nil
		}
		return notPrincipal(inner[0]), nil
	case discovery.RBACHeader:
		m, unlessPresent, err := rbacHeader(&r.Header)
		if err != nil {
			return nil, err
		}
		header := &rbacv3.Principal{Identifier: &rbacv3.Principal_Header{Header: m}}
		if !unlessPresent {
			return header, nil
		}
		return oneOf([]*rbacv3.Principal{header, notPrincipal(&rbacv3.Principal{Identifier: &rbacv3.Principal_Header{Header: present(m.GetName())}})}), nil
	case discovery.RBACPath:
		return &rbacv3.Principal{Identifier: &rbacv3.Principal_UrlPath{UrlPath: urlPath(r)}}, nil
	case discovery.RBACPrincipal:
		return authenticated(r.Text), nil
	case discovery.RBACDirectIP:
		return &rbacv3.Principal{Identifier: &rbacv3.Principal_DirectRemoteIp{DirectRemoteIp: cidr(r.Prefix)}}, nil
	case discovery.RBACRemoteIP:
		if !facts.direct {
			return nil, errors.New("grpc-go takes the peer's address for the client's, whatever x-forwarded-for says")
		}
		return &rbacv3.Principal{Identifier: &rbacv3.Principal_DirectRemoteIp{DirectRemoteIp: cidr(r.Prefix)}}, nil
	}
	return nil, unknownRule(r.Kind)
}

func oneOf(ids []*rbacv3.Principal) *rbacv3.Principal {
	return &rbacv3.Principal{Identifier: &rbacv3.Principal_OrIds{OrIds: &rbacv3.Principal_Set{Ids: ids}}}
}

func notPrincipal(id *rbacv3.Principal) *rbacv3.Principal {
	return &rbacv3.Principal{Identifier: &rbacv3.Principal_NotId{NotId: id}}
}

// authenticated is a peer with a name; nil is any name. To grpc-go a rule without
// one holds for every TLS connection, also of a client without a certificate.
func authenticated(name *discovery.StringMatch) *rbacv3.Principal {
	match := &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: regex(".+")}}
	if name != nil {
		match = stringMatch(name)
	}
	return &rbacv3.Principal{Identifier: &rbacv3.Principal_Authenticated_{
		Authenticated: &rbacv3.Principal_Authenticated{PrincipalName: match},
	}}
}

// unknownRule names what grpc-go takes for a rule that never matches, or rejects.
func unknownRule(kind discovery.RBACKind) error {
	what := map[discovery.RBACKind]string{
		discovery.RBACMetadata:   "what filters found out",
		discovery.RBACServerName: "the name that the client asked for (SNI)",
		discovery.RBACURI:        "one URI of a certificate",
		discovery.RBACDNS:        "a DNS name of a certificate",
		discovery.RBACTemplate:   "path templates of principals",
	}[kind]
	if what == "" {
		what = fmt.Sprintf("rules of kind %d", kind)
	}
	return fmt.Errorf("grpc-go does not look at %s", what)
}

func urlPath(r *discovery.RBACRule) *matcherv3.PathMatcher {
	match := &matcherv3.StringMatcher{}
	if r.Kind == discovery.RBACTemplate {
		match.MatchPattern = &matcherv3.StringMatcher_SafeRegex{SafeRegex: regex(r.Template.Source)}
	} else {
		match = stringMatch(r.Text)
	}
	return &matcherv3.PathMatcher{Rule: &matcherv3.PathMatcher_Path{Path: match}}
}

func cidr(p netip.Prefix) *corev3.CidrRange {
	return &corev3.CidrRange{AddressPrefix: p.Addr().String(), PrefixLen: wrapperspb.UInt32(uint32(max(p.Bits(), 0)))}
}

func present(name string) *routev3.HeaderMatcher {
	return &routev3.HeaderMatcher{Name: name, HeaderMatchSpecifier: &routev3.HeaderMatcher_PresentMatch{PresentMatch: true}}
}

// rbacHeader writes a rule about a header. orMissing tells that a call without
// the header matches too.
func rbacHeader(m *discovery.HeaderMatch) (out *routev3.HeaderMatcher, orMissing bool, err error) {
	switch {
	case m.Name == ":scheme", strings.HasPrefix(m.Name, "grpc-"):
		return nil, false, fmt.Errorf("grpc-go does not look at header %q", m.Name)
	case strings.HasSuffix(m.Name, "-bin"):
		return nil, false, fmt.Errorf("grpc-go decodes header %q before it looks at it", m.Name)
	case m.Name == ":authority", m.Name == "host":
		return authority(m), false, nil
	}
	orMissing = m.Kind != discovery.HeaderPresent && m.TreatMissingAsEmpty && route.MatchHeaderValue(m, "", false)
	return headerMatch(m), orMissing, nil
}

// authority writes a rule about the host of a call. A rule about one spelling is
// about all: in any case, with and without a dot at the end and a port.
func authority(m *discovery.HeaderMatch) *routev3.HeaderMatcher {
	out := headerMatch(m)
	out.Name = ":authority"
	if m.Kind != discovery.HeaderString {
		return out
	}
	const spellings = `\.?(?::[0-9]*)?`
	value := regexp.QuoteMeta(m.String.Value)
	switch m.String.Kind {
	case discovery.MatchExact:
		value += spellings
	case discovery.MatchPrefix:
		value += ".*"
	case discovery.MatchSuffix:
		value = ".*" + value + spellings
	case discovery.MatchContains:
		value = ".*" + value + ".*"
	case discovery.MatchRegex:
		value = "(?:" + m.String.Regex.Source + ")" + spellings
	}
	out.HeaderMatchSpecifier = &routev3.HeaderMatcher_StringMatch{StringMatch: &matcherv3.StringMatcher{
		MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: regex("(?is)" + value)},
	}}
	return out
}
