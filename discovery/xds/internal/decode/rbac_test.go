package decode

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/condition"
)

func TestPoliciesAreInTheOrderOfTheirNames(t *testing.T) {
	t.Parallel()
	_, l, err := Listener(marshal(t, fromJSON[listenerv3.Listener](t, guardedFixture)))
	if err != nil {
		t.Fatal(err)
	}
	chain := l.Inbound.Default
	rbac := chain.Filters[0].Config.(*discovery.RBAC)
	var names []string
	for _, p := range rbac.Rules.Policies {
		names = append(names, p.Name)
	}
	if !slices.Equal(names, []string{"a", "b", "c"}) || rbac.Rules.Action != discovery.RBACDeny || !chain.StrictPaths {
		t.Errorf("policies %v, action %d, strict %t", names, rbac.Rules.Action, chain.StrictPaths)
	}
	and := rbac.Rules.Policies[0].Permissions[0].Rules
	if got := and[0].Rules[0].Header.Name + " " + and[0].Rules[1].Header.Name; got != "x-role :authority" {
		t.Errorf("headers %q", got)
	}
	if got := and[3].Prefix; got != netip.MustParsePrefix("10.0.0.0/8") {
		t.Errorf("an IPv4 address in IPv6 became %v", got)
	}
	if len(chain.Network) != 1 || len(chain.Network[0].Rules.Policies) != 1 || chain.Network[0].Shadow.Action != discovery.RBACLog {
		t.Errorf("about connections: %+v", chain.Network)
	}
	override := chain.Routes.VirtualHosts[0].Routes[0].Filters["rbac"].Config.(*discovery.RBAC)
	if override.Rules.Action != discovery.RBACDeny || len(override.Rules.Policies) != 0 || override.Shadow != nil {
		t.Errorf("the route has %+v", override)
	}
}

// guarded is a listener with one policy.
func guarded(permission, principal string) string {
	rbac := `{"@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC", "rules": {"policies": {"p": {"permissions": [` +
		permission + `], "principals": [` + principal + `]}}}}`
	return filtered(rbac)
}

func filtered(filter string) string {
	return `{"name": "l", "address": {"socketAddress": {"address": "::1", "portValue": 80}}, "defaultFilterChain": {"filters": [{"name": "hcm", "typedConfig": {
		"@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
		"routeConfig": {"name": "r"},
		"httpFilters": [{"name": "f", "typedConfig": ` + filter + `}, {"name": "router", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}]}}]}}`
}

// conditional is a listener with one policy that has a condition.
func conditional(condition string) string {
	return filtered(`{"@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC", "rules": {"policies": {"p": {
		"permissions": [{"any": true}], "principals": [{"any": true}], ` + condition + `}}}}`)
}

// methodIsGet is the tree of 'request.method == "GET"'.
const methodIsGet = `{"callExpr": {"function": "_==_", "args": [
	{"selectExpr": {"operand": {"identExpr": {"name": "request"}}, "field": "method"}}, {"constExpr": {"stringValue": "GET"}}]}}`

func TestConditionsAreCompiled(t *testing.T) {
	t.Parallel()
	for _, listener := range []string{conditional(`"condition": ` + methodIsGet), conditional(`"checkedCondition": {"expr": ` + methodIsGet + `}`)} {
		_, l, err := Listener(marshal(t, fromJSON[listenerv3.Listener](t, listener)))
		if err != nil {
			t.Fatal(err)
		}
		compiled := l.Inbound.Default.Filters[0].Config.(*discovery.RBAC).Rules.Policies[0].Condition
		for method, want := range map[string]bool{"GET": true, "PUT": false} {
			facts := &condition.Facts{Request: &condition.Request{Method: method}}
			if got := compiled.Holds(facts, true); got != want {
				t.Errorf("%s: %t", method, got)
			}
		}
	}
}

func connections(permission string) string {
	return `{"name": "l", "address": {"socketAddress": {"address": "::1", "portValue": 80}}, "defaultFilterChain": {"filters": [
		{"name": "rbac", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC", "statPrefix": "s",
			"rules": {"policies": {"p": {"permissions": [` + permission + `], "principals": [{"any": true}]}}}}},
		{"name": "hcm", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
		"routeConfig": {"name": "r"}, "httpFilters": [{"name": "router", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}]}}]}}`
}

// TestBA10_V11_WhatIsNotUnderstoodIsRefused: also deep inside of what is.
func TestBA10_V11_WhatIsNotUnderstoodIsRefused(t *testing.T) {
	t.Parallel()
	const anybody = `{"any": true}`
	deep := func(rule string) string {
		return `{"notRule": {"orRules": {"rules": [{"any": true}, {"andRules": {"rules": [` + rule + `]}}]}}}`
	}
	const where = "default_filter_chain.filters[0].typed_config.http_filters[0].typed_config."
	tests := []struct{ name, listener, want string }{
		{"a permission of no kind", guarded(`{}`, anybody), where + `rules.policies["p"].permissions[0].rule: `},
		{"one deep inside", guarded(deep(`{}`), anybody), where + `rules.policies["p"].permissions[0].not_rule.or_rules.rules[1].and_rules.rules[0].rule: `},
		{"no permissions", guarded(``, anybody), where + `rules.policies["p"].permissions: `},
		{"no principals", guarded(anybody, ``), where + `rules.policies["p"].principals: `},
		{"a principal of no kind", guarded(anybody, `{"notId": {}}`), where + `rules.policies["p"].principals[0].not_id.identifier: `},
		{"any that is false", guarded(`{"any": false}`, anybody), where + `rules.policies["p"].permissions[0].any: `},
		{"an empty set", guarded(`{"orRules": {}}`, anybody), where + `rules.policies["p"].permissions[0].or_rules.rules: `},
		{"an extension", guarded(`{"matcher": {"name": "m", "typedConfig": {"@type": "type.googleapis.com/envoy.config.core.v3.Locality"}}}`, anybody),
			where + `rules.policies["p"].permissions[0].matcher: not supported: no extension of permissions is known here`},
		{"an extension of principals", guarded(anybody, `{"custom": {"name": "m", "typedConfig": {"@type": "type.googleapis.com/envoy.config.core.v3.Locality"}}}`),
			where + `rules.policies["p"].principals[0].custom.typed_config: "envoy.config.core.v3.Locality" is not supported here`},
		{"the filter state", guarded(anybody, `{"filterState": {"key": "k", "stringMatch": {"exact": "v"}}}`),
			where + `rules.policies["p"].principals[0].filter_state: not supported: there is no filter state here`},
		{"metadata of routes", guarded(`{"sourcedMetadata": {"metadataSource": "ROUTE", "metadataMatcher": {"filter": "f", "path": [{"key": "a"}], "value": {"nullMatch": {}}}}}`, anybody),
			where + `rules.policies["p"].permissions[0].sourced_metadata.metadata_source: ROUTE is not supported`},
		{"a metadata value of no kind", guarded(`{"metadata": {"filter": "f", "path": [{"key": "a"}], "value": {}}}`, anybody), where + `rules.policies["p"].permissions[0].metadata.value.match_pattern: `},
		{"a range of ports that is none", guarded(`{"destinationPortRange": {"start": 9, "end": 9}}`, anybody), where + `rules.policies["p"].permissions[0].destination_port_range: [9, 9) is no range of ports`},
		{"an address that is a name", guarded(anybody, `{"remoteIp": {"addressPrefix": "localhost", "prefixLen": 8}}`), where + `rules.policies["p"].principals[0].remote_ip.address_prefix: "localhost" is not an IP address`},
		{"an address with a zone", guarded(anybody, `{"remoteIp": {"addressPrefix": "fe80::1%eth0", "prefixLen": 8}}`), where + `rules.policies["p"].principals[0].remote_ip.address_prefix: "fe80::1%eth0" is not an IP address`},
		{"a prefix that is too long", guarded(anybody, `{"remoteIp": {"addressPrefix": "10.0.0.0", "prefixLen": 33}}`), where + `rules.policies["p"].principals[0].remote_ip.prefix_len: 33 is too long for 10.0.0.0`},
		{"BA5: a header of gRPC", guarded(`{"header": {"name": "Grpc-Timeout", "presentMatch": true}}`, anybody), where + `rules.policies["p"].permissions[0].header.name: "grpc-timeout" cannot be matched`},
		{"BA5: the scheme", guarded(`{"header": {"name": ":scheme", "exactMatch": "http"}}`, anybody), where + `rules.policies["p"].permissions[0].header.name: ":scheme" cannot be matched`},
		{"BA5: a header of one hop", guarded(`{"header": {"name": "TE", "presentMatch": true}}`, anybody), where + `rules.policies["p"].permissions[0].header.name: "te" cannot be matched`},
		{"another pseudo-header", guarded(`{"header": {"name": ":protocol", "presentMatch": true}}`, anybody), where + `rules.policies["p"].permissions[0].header.name: ":protocol" is not supported`},
		{"a header of a connection", connections(`{"header": {"name": "a", "presentMatch": true}}`), `default_filter_chain.filters[0].typed_config.rules.policies["p"].permissions[0].header: a connection has no requests`},
		{"a path of a connection", connections(`{"notRule": {"urlPath": {"path": {"exact": "/"}}}}`), `default_filter_chain.filters[0].typed_config.rules.policies["p"].permissions[0].not_rule.url_path: a connection has no requests`},
		{"an expression that asks about what is not there", conditional(`"condition": {"selectExpr": {"operand": {"identExpr": {"name": "response"}}, "field": "code"}}`),
			where + `rules.policies["p"].condition: does not type-check: undeclared reference to 'response'`},
		{"an expression that is a text", conditional(`"condition": {"constExpr": {"stringValue": "true"}}`),
			where + `rules.policies["p"].condition: must be true or false: is of type string`},
		{"an expression of no kind", conditional(`"condition": {"id": "1"}`), where + `rules.policies["p"].condition: `},
		{"an expression that somebody else has checked", conditional(`"checkedCondition": {"typeMap": {"1": {"primitive": "BOOL"}}, "expr": {"id": "1", "identExpr": {"name": "a"}}}`),
			where + `rules.policies["p"].checked_condition.expr: does not type-check: undeclared reference to 'a'`},
		{"a checked expression without one", conditional(`"checkedCondition": {}`), where + `rules.policies["p"].checked_condition.expr: `},
		{"two expressions", conditional(`"condition": {"constExpr": {"boolValue": true}}, "checkedCondition": {"expr": {"constExpr": {"boolValue": true}}}`),
			where + `rules.policies["p"].checked_condition: must not be set beside condition`},
		{"other functions", conditional(`"condition": {"constExpr": {"boolValue": true}}, "celConfig": {"enableStringFunctions": true}`),
			where + `rules.policies["p"].cel_config: not supported: the functions that it switches on are not there`},
		{"a constant of a kind that is deprecated", conditional(`"condition": {"constExpr": {"durationValue": "1s"}}`),
			where + `rules.policies["p"].condition.const_expr.duration_value: not supported: call duration with a string`},
		{"a request in the expression of a connection", `{"name": "l", "address": {"socketAddress": {"address": "::1", "portValue": 80}}, "defaultFilterChain": {"filters": [
			{"name": "rbac", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC", "statPrefix": "s",
				"rules": {"policies": {"p": {"permissions": [{"any": true}], "principals": [{"any": true}], "condition": ` + methodIsGet + `}}}}},
			{"name": "hcm", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
			"routeConfig": {"name": "r"}, "httpFilters": [{"name": "router", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}]}}]}}`,
			`default_filter_chain.filters[0].typed_config.rules.policies["p"].condition: does not type-check: undeclared reference to 'request'`},
		{"a tree of matchers", filtered(`{"@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC", "matcher": {}}`), where + `matcher.matcher_list: must be set without matcher_tree and on_no_match`},
		{"audit loggers", filtered(`{"@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC", "rules": {"auditLoggingOptions": {"auditCondition": "ON_DENY"}}}`),
			where + `rules.audit_logging_options: not supported: `},
		{"the configuration of a route in the listener", filtered(`{"@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBACPerRoute"}`), where[:len(where)-1] + `: `},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, _, err := Listener(marshal(t, fromJSON[listenerv3.Listener](t, tt.listener)))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

// TestBA5_V07_NamesOfHeadersHaveNoCase: however a policy writes a name, it is that
// of the header; and "host" is the authority.
func TestBA5_V07_NamesOfHeadersHaveNoCase(t *testing.T) {
	t.Parallel()
	for written, want := range map[string]string{"x-role": "x-role", "X-Role": "x-role", "X-ROLE": "x-role", "Host": ":authority", ":authority": ":authority"} {
		rule := fmt.Sprintf(`{"header": {"name": %q, "exactMatch": "admin"}}`, written)
		_, l, err := Listener(marshal(t, fromJSON[listenerv3.Listener](t, guarded(rule, rule))))
		if err != nil {
			t.Errorf("%s: %v", written, err)
			continue
		}
		p := l.Inbound.Default.Filters[0].Config.(*discovery.RBAC).Rules.Policies[0]
		if got := [2]string{p.Permissions[0].Header.Name, p.Principals[0].Header.Name}; got != [2]string{want, want} {
			t.Errorf("%s: got %q, want %q", written, got, want)
		}
	}
}

// FuzzRBAC: V11. Whatever decodes has a kind that is known everywhere; the
// decoder never panics.
func FuzzRBAC(f *testing.F) {
	for _, seed := range []string{
		`{"policies": {"p": {"permissions": [{"any": true}], "principals": [{"any": true}]}}}`,
		`{"action": "DENY", "policies": {"p": {"permissions": [{"notRule": {"header": {"name": "a", "exactMatch": "b"}}}], "principals": [{"sourceIp": {"addressPrefix": "::1"}}]}}}`,
		`{"action": "LOG", "policies": {"p": {"permissions": [{"destinationPortRange": {"start": 1, "end": 2}}], "principals": [{"authenticated": {}}]}}}`,
		`{"policies": {"p": {"permissions": [{"any": true}], "principals": [{"any": true}], "condition": ` + methodIsGet + `}}}`,
		`{"policies": {"p": {"permissions": [{"any": true}], "principals": [{"any": true}], "checkedCondition": {"expr": {"comprehensionExpr": {"iterVar": "x",
			"iterRange": {"listExpr": {"elements": [{"constExpr": {"int64Value": "1"}}]}}, "accuVar": "y", "accuInit": {"constExpr": {"boolValue": false}},
			"loopCondition": {"constExpr": {"boolValue": true}}, "loopStep": {"identExpr": {"name": "y"}}, "result": {"identExpr": {"name": "y"}}}}}}}}`,
		`{"policies": {"p": {"permissions": [{"metadata": {"filter": "f", "path": [{"key": "k"}], "value": {"nullMatch": {}}}}], "principals": [{"notId": {"remoteIp": {"addressPrefix": "::ffff:1.2.3.4", "prefixLen": 100}}}]}}}`,
	} {
		m := &rbacv3.RBAC{}
		if err := protojson.Unmarshal([]byte(seed), m); err != nil {
			f.Fatal(err)
		}
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m := &rbacv3.RBAC{}
		if proto.Unmarshal(b, m) != nil {
			return
		}
		for _, http := range []bool{true, false} {
			d := &decoder{}
			d.check(path{}, m)
			rules := d.rbacRules(path{}, m, http)
			if d.problems.err() != nil {
				continue
			}
			for i := range rules.Policies {
				p := &rules.Policies[i]
				if p.Condition != nil { // it decides, whatever is asked
					facts := &condition.Facts{}
					if http {
						facts.Request = &condition.Request{Paths: []string{"/"}, Hosts: []string{"a"}, Header: func(string) []string { return nil }}
					}
					if p.Condition.Holds(facts, true) && !p.Condition.Holds(facts, false) {
						t.Errorf("policy %q is certain and not possible: %v", p.Name, m)
					}
				}
				if len(p.Permissions) == 0 || len(p.Principals) == 0 {
					t.Errorf("policy %q matches nothing: %v", p.Name, m)
				}
				checkRules(t, p.Permissions, http)
				checkRules(t, p.Principals, http)
			}
		}
	})
}

func checkRules(t *testing.T, rules []discovery.RBACRule, http bool) {
	t.Helper()
	for i := range rules {
		r := &rules[i]
		checkRules(t, r.Rules, http)
		complete := true
		switch r.Kind {
		case discovery.RBACAny, discovery.RBACPrincipal:
		case discovery.RBACAnd, discovery.RBACOr:
			complete = len(r.Rules) > 0
		case discovery.RBACNot:
			complete = len(r.Rules) == 1
		case discovery.RBACHeader:
			complete = http && r.Header.Name != "" && r.Header.Name == strings.ToLower(r.Header.Name)
		case discovery.RBACPath:
			complete = http && r.Text != nil
		case discovery.RBACTemplate:
			complete = http && r.Template != nil
		case discovery.RBACServerName, discovery.RBACURI, discovery.RBACDNS:
			complete = r.Text != nil
		case discovery.RBACDestination, discovery.RBACDirectIP, discovery.RBACRemoteIP:
			complete = r.Prefix.IsValid() && !r.Prefix.Addr().Is4In6()
		case discovery.RBACPort:
			complete = r.Start < r.End
		case discovery.RBACMetadata:
			complete = r.Metadata != nil && len(r.Metadata.Path) > 0
		default:
			complete = false
		}
		if !complete {
			t.Errorf("%+v is not complete", r)
		}
	}
}

// TestV02_APathOfAPolicyIsSpelledAsThoseOfRequestsAre: or it would be met by none.
func TestV02_APathOfAPolicyIsSpelledAsThoseOfRequestsAre(t *testing.T) {
	t.Parallel()
	for written, want := range map[string]string{
		"/plain":       "/plain",
		"/%c3%a9":      "/%C3%A9",
		"/%C3%a9/x":    "/%C3%A9/x",
		"/%61dmin":     "/admin",
		"/a%2db%5F%7e": "/a-b_~",
		"/x%3ay":       "/x%3Ay",
		"/a%2f%2e":     "/a%2F%2E", // which no request has: such a path is refused
		"/50%":         "/50%",
		"/%c":          "/%c",
		"/%zz%e9":      "/%zz%E9",
	} {
		pattern := &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: written}}
		inURL := &rbacv3.Permission{Rule: &rbacv3.Permission_UrlPath{UrlPath: &matcherv3.PathMatcher{Rule: &matcherv3.PathMatcher_Path{Path: pattern}}}}
		inHeader := &rbacv3.Permission{Rule: &rbacv3.Permission_Header{Header: &routev3.HeaderMatcher{
			Name: ":path", HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: pattern},
		}}}
		d := &decoder{}
		if got := d.permission(path{}, inURL, true).Text.Value; got != want {
			t.Errorf("url_path %q: %q, want %q", written, got, want)
		}
		if got := d.permission(path{}, inHeader, true).Header.String.Value; got != want {
			t.Errorf(":path %q: %q, want %q", written, got, want)
		}
	}
}
