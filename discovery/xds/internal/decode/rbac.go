package decode

import (
	"maps"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	httprbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	networkrbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	mtlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/rbac/principals/mtls_authenticated/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/inboardmesh/inboard/discovery"
)

var rbacFields = []messageFields{
	{
		message: (*httprbacv3.RBAC)(nil),
		read:    "rules rules_stat_prefix shadow_rules shadow_rules_stat_prefix matcher shadow_matcher",
		// Statistics per policy: hooks are told the policy's name always.
		harmless: "track_per_rule_stats",
	},
	{message: (*httprbacv3.RBACPerRoute)(nil), read: "rbac"},
	{
		message: (*networkrbacv3.RBAC)(nil),
		read:    "rules shadow_rules shadow_rules_stat_prefix stat_prefix matcher shadow_matcher",
		zero:    "delay_deny",
		// A connection is decided about when it is accepted and again with each
		// request, which is both kinds.
		harmless: "enforcement_type",
	},
	{
		message: (*rbacv3.RBAC)(nil),
		read:    "action policies",
		instead: map[string]string{"audit_logging_options": "hooks are told every decision that is reported"},
	},
	{
		message: (*rbacv3.Policy)(nil),
		read:    "permissions principals condition checked_condition",
		instead: map[string]string{"cel_config": "the functions that it switches on are not there: use the standard ones"},
	},
	{
		message: (*rbacv3.Permission)(nil),
		read: "and_rules or_rules any header url_path destination_ip destination_port destination_port_range " +
			"metadata not_rule requested_server_name uri_template sourced_metadata",
		instead: map[string]string{"matcher": "no extension of permissions is known here"},
	},
	{message: (*rbacv3.Permission_Set)(nil), read: "rules"},
	{
		message: (*rbacv3.Principal)(nil),
		read: "and_ids or_ids any authenticated source_ip direct_remote_ip remote_ip header url_path metadata " +
			"not_id sourced_metadata custom",
		instead: map[string]string{"filter_state": "there is no filter state here: use authenticated or metadata"},
	},
	{message: (*rbacv3.Principal_Set)(nil), read: "ids"},
	{message: (*rbacv3.Principal_Authenticated)(nil), read: "principal_name"},
	{message: (*rbacv3.SourcedMetadata)(nil), read: "metadata_matcher metadata_source"},
	{message: (*matcherv3.PathMatcher)(nil), read: "path"},
	{message: (*mtlsv3.Config)(nil), read: "san_matcher any_validated_client_certificate"},
}

// rbac decodes the HTTP filter.
func (d *decoder) rbac(at path, m *httprbacv3.RBAC) *discovery.RBAC {
	return &discovery.RBAC{
		Rules:        d.rulesOrTree(at, "rules", m.GetRules(), "matcher", m.GetMatcher(), true),
		Shadow:       d.rulesOrTree(at, "shadow_rules", m.GetShadowRules(), "shadow_matcher", m.GetShadowMatcher(), true),
		StatPrefix:   m.GetRulesStatPrefix(),
		ShadowPrefix: m.GetShadowRulesStatPrefix(),
	}
}

// rbacPerRoute decodes what takes the filter's place in a route. Without a
// configuration of its own the filter is switched off there, in Envoy.
func (d *decoder) rbacPerRoute(at path, m *httprbacv3.RBACPerRoute) *discovery.RBAC {
	return d.rbac(at.field("rbac"), m.GetRbac())
}

// networkRBAC decodes the network filter.
func (d *decoder) networkRBAC(at path, m *networkrbacv3.RBAC) *discovery.RBAC {
	return &discovery.RBAC{
		Rules:        d.rulesOrTree(at, "rules", m.GetRules(), "matcher", m.GetMatcher(), false),
		Shadow:       d.rulesOrTree(at, "shadow_rules", m.GetShadowRules(), "shadow_matcher", m.GetShadowMatcher(), false),
		StatPrefix:   m.GetStatPrefix(),
		ShadowPrefix: m.GetShadowRulesStatPrefix(),
	}
}

// rbacRules decodes RBAC; nil for none. http tells whether there are requests.
func (d *decoder) rbacRules(at path, m *rbacv3.RBAC, http bool) *discovery.RBACRules {
	if m == nil {
		return nil
	}
	rules := &discovery.RBACRules{}
	switch m.GetAction() {
	case rbacv3.RBAC_ALLOW:
		rules.Action = discovery.RBACAllow
	case rbacv3.RBAC_DENY:
		rules.Action = discovery.RBACDeny
	case rbacv3.RBAC_LOG:
		rules.Action = discovery.RBACLog
	default:
		d.refusef(at.field("action"), "%d is not supported", m.GetAction())
	}
	for _, name := range slices.Sorted(maps.Keys(m.GetPolicies())) {
		in := at.entry("policies", name)
		policy := m.GetPolicies()[name]
		p := discovery.RBACPolicy{Name: name}
		for i, permission := range policy.GetPermissions() {
			p.Permissions = append(p.Permissions, d.permission(in.element("permissions", i), permission, http))
		}
		for i, principal := range policy.GetPrincipals() {
			p.Principals = append(p.Principals, d.principal(in.element("principals", i), principal, http))
		}
		p.Condition = d.condition(in, policy, http)
		rules.Policies = append(rules.Policies, p)
	}
	return rules
}

func (d *decoder) permission(at path, m *rbacv3.Permission, http bool) discovery.RBACRule {
	// Every branch must set the kind: the zero kind matches everything.
	switch r := m.GetRule().(type) {
	case *rbacv3.Permission_AndRules:
		return d.permissionSet(at.field("and_rules"), discovery.RBACAnd, r.AndRules, http)
	case *rbacv3.Permission_OrRules:
		return d.permissionSet(at.field("or_rules"), discovery.RBACOr, r.OrRules, http)
	case *rbacv3.Permission_NotRule:
		return not(d.permission(at.field("not_rule"), r.NotRule, http))
	case *rbacv3.Permission_Any:
		return discovery.RBACRule{Kind: discovery.RBACAny} // Envoy's constraints want it true
	case *rbacv3.Permission_Header:
		return d.rbacHeader(at.field("header"), r.Header, http)
	case *rbacv3.Permission_UrlPath:
		in := at.field("url_path")
		d.needsRequest(in, http)
		return text(discovery.RBACPath, canonicalPath(d.stringMatch(in.field("path"), r.UrlPath.GetPath())))
	case *rbacv3.Permission_UriTemplate:
		in := at.field("uri_template")
		d.needsRequest(in, http)
		return discovery.RBACRule{Kind: discovery.RBACTemplate, Template: d.templateMatch(in, r.UriTemplate).Regex}
	case *rbacv3.Permission_DestinationIp:
		return d.address(at.field("destination_ip"), discovery.RBACDestination, r.DestinationIp)
	case *rbacv3.Permission_DestinationPort:
		return discovery.RBACRule{Kind: discovery.RBACPort, Start: r.DestinationPort, End: r.DestinationPort + 1}
	case *rbacv3.Permission_DestinationPortRange:
		in := at.field("destination_port_range")
		start, end := r.DestinationPortRange.GetStart(), r.DestinationPortRange.GetEnd()
		if start < 0 || end > 65536 || start >= end {
			d.refusef(in, "[%d, %d) is no range of ports", start, end)
			start, end = 0, 0
		}
		return discovery.RBACRule{Kind: discovery.RBACPort, Start: uint32(start), End: uint32(end)}
	case *rbacv3.Permission_Metadata:
		//nolint:staticcheck // the deprecated field is still in use
		return d.rbacMetadata(discovery.RBACMetadata, d.dynamicMatch(at.field("metadata"), r.Metadata))
	case *rbacv3.Permission_SourcedMetadata:
		return d.sourcedMetadata(at.field("sourced_metadata"), r.SourcedMetadata)
	case *rbacv3.Permission_RequestedServerName:
		return text(discovery.RBACServerName, d.stringMatch(at.field("requested_server_name"), r.RequestedServerName))
	}
	d.refusef(at.field("rule"), "must be one of the kinds of Permission")
	return discovery.RBACRule{}
}

func (d *decoder) permissionSet(at path, kind discovery.RBACKind, m *rbacv3.Permission_Set, http bool) discovery.RBACRule {
	set := discovery.RBACRule{Kind: kind}
	for i, rule := range m.GetRules() {
		set.Rules = append(set.Rules, d.permission(at.element("rules", i), rule, http))
	}
	return set
}

func (d *decoder) principal(at path, m *rbacv3.Principal, http bool) discovery.RBACRule {
	switch p := m.GetIdentifier().(type) {
	case *rbacv3.Principal_AndIds:
		return d.principalSet(at.field("and_ids"), discovery.RBACAnd, p.AndIds, http)
	case *rbacv3.Principal_OrIds:
		return d.principalSet(at.field("or_ids"), discovery.RBACOr, p.OrIds, http)
	case *rbacv3.Principal_NotId:
		return not(d.principal(at.field("not_id"), p.NotId, http))
	case *rbacv3.Principal_Any:
		return discovery.RBACRule{Kind: discovery.RBACAny}
	case *rbacv3.Principal_Authenticated_:
		name := p.Authenticated.GetPrincipalName()
		if name == nil {
			return discovery.RBACRule{Kind: discovery.RBACPrincipal}
		}
		return text(discovery.RBACPrincipal, d.stringMatch(at.field("authenticated").field("principal_name"), name))
	case *rbacv3.Principal_SourceIp:
		// Deprecated: the address of the peer, whatever a proxy says.
		return d.address(at.field("source_ip"), discovery.RBACDirectIP, p.SourceIp) //nolint:staticcheck // see above
	case *rbacv3.Principal_DirectRemoteIp:
		return d.address(at.field("direct_remote_ip"), discovery.RBACDirectIP, p.DirectRemoteIp)
	case *rbacv3.Principal_RemoteIp:
		return d.address(at.field("remote_ip"), discovery.RBACRemoteIP, p.RemoteIp)
	case *rbacv3.Principal_Header:
		return d.rbacHeader(at.field("header"), p.Header, http)
	case *rbacv3.Principal_UrlPath:
		in := at.field("url_path")
		d.needsRequest(in, http)
		return text(discovery.RBACPath, canonicalPath(d.stringMatch(in.field("path"), p.UrlPath.GetPath())))
	case *rbacv3.Principal_Metadata:
		//nolint:staticcheck // the deprecated field is still in use
		return d.rbacMetadata(discovery.RBACMetadata, d.dynamicMatch(at.field("metadata"), p.Metadata))
	case *rbacv3.Principal_SourcedMetadata:
		return d.sourcedMetadata(at.field("sourced_metadata"), p.SourcedMetadata)
	case *rbacv3.Principal_Custom:
		return d.customPrincipal(at.field("custom"), p.Custom)
	}
	d.refusef(at.field("identifier"), "must be one of the kinds of Principal")
	return discovery.RBACRule{}
}

func (d *decoder) principalSet(at path, kind discovery.RBACKind, m *rbacv3.Principal_Set, http bool) discovery.RBACRule {
	set := discovery.RBACRule{Kind: kind}
	for i, id := range m.GetIds() {
		set.Rules = append(set.Rules, d.principal(at.element("ids", i), id, http))
	}
	return set
}

func not(rule discovery.RBACRule) discovery.RBACRule {
	return discovery.RBACRule{Kind: discovery.RBACNot, Rules: []discovery.RBACRule{rule}}
}

func text(kind discovery.RBACKind, match discovery.StringMatch) discovery.RBACRule {
	return discovery.RBACRule{Kind: kind, Text: &match}
}

// needsRequest refuses what a connection does not have: a rule that matches
// nothing would let through what it denies.
func (d *decoder) needsRequest(at path, http bool) {
	if !http {
		d.refusef(at, "a connection has no requests: use the HTTP filter")
	}
}

// address decodes a CidrRange. An IPv4 address in the form of IPv6 is one of
// IPv4, to which a range of both would not apply.
func (d *decoder) address(at path, kind discovery.RBACKind, m *corev3.CidrRange) discovery.RBACRule {
	prefix := d.cidr(at, m)
	if prefix.Addr().Is4In6() {
		d.refusef(at.field("prefix_len"), "must be at least 96 for an IPv4 address in IPv6: is %d", prefix.Bits())
	}
	return discovery.RBACRule{Kind: kind, Prefix: prefix}
}

func (d *decoder) rbacMetadata(kind discovery.RBACKind, match *discovery.MetadataMatch) discovery.RBACRule {
	return discovery.RBACRule{Kind: kind, Metadata: match}
}

func (d *decoder) sourcedMetadata(at path, m *rbacv3.SourcedMetadata) discovery.RBACRule {
	if source := m.GetMetadataSource(); source != rbacv3.MetadataSource_DYNAMIC {
		d.refusef(at.field("metadata_source"), "%s is not supported: use DYNAMIC", source)
	}
	return d.rbacMetadata(discovery.RBACMetadata, d.dynamicMatch(at.field("metadata_matcher"), m.GetMetadataMatcher()))
}
