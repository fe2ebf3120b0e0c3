package decode

import (
	"strings"
	"testing"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"

	"github.com/inboardmesh/inboard/discovery"
)

const (
	treeAction  = `"action": {"name": "a", "typedConfig": {"@type": "type.googleapis.com/envoy.config.rbac.v3.Action", "name": "NAME", "action": "ACTION"}}`
	headerInput = `{"name": "h", "typedConfig": {"@type": "type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput", "headerName": "X-Role"}}`
)

func treeThen(name, action string) string {
	return strings.NewReplacer("NAME", name, "ACTION", action).Replace(treeAction)
}

func treeInput(kind string) string {
	return `{"name": "i", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.matching.common_inputs.` + kind + `"}}`
}

// treeFixture has every kind of matcher, about requests and about connections.
func treeFixture() string {
	single := func(input, value string) string {
		return `{"singlePredicate": {"input": ` + input + `, ` + value + `}}`
	}
	ip := `"customMatch": {"name": "ip", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.matching.input_matchers.ip.v3.Ip",
		"statPrefix": "s", "cidrRanges": [{"addressPrefix": "10.0.0.0", "prefixLen": 8}]}}`
	requests := `{"matcherList": {"matchers": [
		{"predicate": {"andMatcher": {"predicate": [
			` + single(headerInput, `"valueMatch": {"exact": "admin", "ignoreCase": true}`) + `,
			{"notMatcher": ` + single(treeInput("network.v3.ServerNameInput"), `"valueMatch": {"suffix": ".public"}`) + `}]}},
		 "onMatch": {` + treeThen("admins", "ALLOW") + `}},
		{"predicate": {"orMatcher": {"predicate": [
			` + single(treeInput("network.v3.SourceIPInput"), ip) + `,
			` + single(treeInput("ssl.v3.UriSanInput"), `"valueMatch": {"prefix": "spiffe://td/"}`) + `,
			` + single(headerInput, `"valueMatch": {"contains": "x"}`) + `,
			` + single(headerInput, `"valueMatch": {"safeRegex": {"googleRe2": {}, "regex": "a+"}}`) + `]}},
		 "onMatch": {"matcher": {"matcherTree": {"input": ` + headerInput + `, "exactMatchMap": {"map": {
			"a": {` + treeThen("a", "LOG") + `}, "b": {` + treeThen("b", "DENY") + `}}}}}}}]},
		"onNoMatch": {` + treeThen("others", "DENY") + `}}`
	connections := `{"matcherTree": {"input": ` + treeInput("network.v3.ServerNameInput") + `, "prefixMatchMap": {"map": {
			"a": {` + treeThen("a", "DENY") + `}, "ab": {` + treeThen("ab", "ALLOW") + `}}}}}`
	addresses := `{"matcherList": {"matchers": [
		{"predicate": ` + single(treeInput("network.v3.DirectSourceIPInput"), `"valueMatch": {"exact": "10.0.0.1"}`) + `, "onMatch": {` + treeThen("p", "ALLOW") + `}},
		{"predicate": ` + single(treeInput("network.v3.DestinationIPInput"), ip) + `, "onMatch": {` + treeThen("p", "ALLOW") + `}},
		{"predicate": ` + single(treeInput("network.v3.DestinationPortInput"), `"valueMatch": {"exact": "8080"}`) + `, "onMatch": {` + treeThen("p", "ALLOW") + `}}]}}`
	return `{"name": "l", "address": {"socketAddress": {"address": "::1", "portValue": 80}}, "defaultFilterChain": {"filters": [
		{"name": "rbac", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC", "statPrefix": "s",
			"matcher": ` + connections + `, "shadowMatcher": ` + addresses + `}},
		{"name": "hcm", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
		"routeConfig": {"name": "r"}, "httpFilters": [
			{"name": "f", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC", "matcher": ` + requests + `, "shadowMatcher": ` + requests + `}},
			{"name": "router", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}]}}]}}`
}

func TestATreeOfMatchersIsDecoded(t *testing.T) {
	t.Parallel()
	_, l, err := Listener(marshal(t, fromJSON[listenerv3.Listener](t, treeFixture())))
	if err != nil {
		t.Fatal(err)
	}
	chain := l.Inbound.Default
	tree := chain.Filters[0].Config.(*discovery.RBAC).Rules.Tree
	first, second := tree.Branches[0], tree.Branches[1]
	if first.Rule.Kind != discovery.RBACAnd || first.Rule.Rules[0].Header.Name != "x-role" || !first.Rule.Rules[0].Header.String.IgnoreCase ||
		first.Rule.Rules[1].Kind != discovery.RBACNot || first.Then.Policy != "admins" || first.Then.Action != discovery.RBACAllow {
		t.Errorf("first branch %+v", first)
	}
	if nested := second.Then.Tree; second.Rule.Kind != discovery.RBACOr || nested == nil || len(nested.Branches) != 2 || nested.Otherwise != nil ||
		nested.Branches[0].Then.Action != discovery.RBACLog {
		t.Errorf("second branch %+v", second)
	}
	if tree.Otherwise == nil || tree.Otherwise.Action != discovery.RBACDeny {
		t.Errorf("otherwise %+v", tree.Otherwise)
	}
	// Of prefixes the longest comes first.
	if names := chain.Network[0].Rules.Tree.Branches; names[0].Then.Policy != "ab" || names[1].Then.Policy != "a" {
		t.Errorf("prefixes %+v", names)
	}
}

func TestV11_ATreeThatIsNotUnderstoodIsRefused(t *testing.T) {
	t.Parallel()
	const at = "default_filter_chain.filters[0].typed_config.http_filters[0].typed_config.matcher."
	tree := func(text string) string {
		return filtered(`{"@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC", "matcher": ` + text + `}`)
	}
	list := func(predicate, then string) string {
		return tree(`{"matcherList": {"matchers": [{"predicate": ` + predicate + `, "onMatch": {` + then + `}}]}}`)
	}
	single := func(input, value string) string {
		return `{"singlePredicate": {"input": ` + input + `, ` + value + `}}`
	}
	allow := treeThen("p", "ALLOW")
	deep := `{"onNoMatch": {` + allow + `}}`
	for range maxTreeDepth {
		deep = `{"onNoMatch": {"matcher": ` + deep + `}}`
	}
	const field = at + "matcher_list.matchers[0]."
	for name, tt := range map[string]struct{ listener, want string }{
		"another input": {list(single(treeInput("network.v3.SourcePortInput"), `"valueMatch": {"exact": "1"}`), allow),
			field + `predicate.single_predicate.input.typed_config: "envoy.extensions.matching.common_inputs.network.v3.SourcePortInput" is not supported`},
		"a prefix of an address": {list(single(treeInput("network.v3.SourceIPInput"), `"valueMatch": {"prefix": "10."}`), allow),
			field + `predicate.single_predicate.value_match: must be exactly an address`},
		"a port that is none": {list(single(treeInput("network.v3.DestinationPortInput"), `"valueMatch": {"exact": "99999"}`), allow),
			field + `predicate.single_predicate.value_match: must be exactly a port`},
		"ranges of names": {list(single(headerInput, `"customMatch": {"name": "ip", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.matching.input_matchers.ip.v3.Ip", "statPrefix": "s", "cidrRanges": [{"addressPrefix": "10.0.0.0"}]}}`), allow),
			field + `predicate.single_predicate.input.typed_config: "envoy.type.matcher.v3.HttpRequestHeaderMatchInput" is not an address`},
		"another action": {list(single(headerInput, `"valueMatch": {"exact": "a"}`), `"action": {"name": "a", "typedConfig": {"@type": "type.googleapis.com/envoy.config.core.v3.Locality"}}`),
			field + `on_match.action.typed_config: "envoy.config.core.v3.Locality" is not supported here`},
		"matching goes on": {list(single(headerInput, `"valueMatch": {"exact": "a"}`), allow+`, "keepMatching": true`), field + `on_match.keep_matching: not supported`},
		"a header of one hop": {list(single(strings.Replace(headerInput, "X-Role", "TE", 1), `"valueMatch": {"exact": "a"}`), allow),
			field + `predicate.single_predicate.input.typed_config.name: "te" cannot be matched`},
		"a tree below a prefix": {tree(`{"matcherTree": {"input": ` + headerInput + `, "prefixMatchMap": {"map": {"a": {"matcher": {"onNoMatch": {` + allow + `}}}}}}}`),
			at + `matcher_tree.prefix_match_map.map["a"].matcher: not supported below a prefix`},
		"too deep": {tree(deep), `matcher: is more than 16 matchers deep`},
		"beside rules": {filtered(`{"@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC", "rules": {}, "matcher": {"onNoMatch": {` + allow + `}}}`),
			at[:len(at)-1] + `: must not be set beside rules`},
	} {
		_, _, err := Listener(marshal(t, fromJSON[listenerv3.Listener](t, tt.listener)))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want %q", name, err, tt.want)
		}
	}
}

// TestExternalAuthorizationOfConnectionsIsRefused, with what there is for it.
func TestExternalAuthorizationOfConnectionsIsRefused(t *testing.T) {
	t.Parallel()
	_, _, err := Listener(marshal(t, fromJSON[listenerv3.Listener](t, `{"name": "l", "address": {"socketAddress": {"address": "::1", "portValue": 80}}, "defaultFilterChain": {"filters": [
		{"name": "authz", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.network.ext_authz.v3.ExtAuthz", "statPrefix": "s"}},
		{"name": "hcm", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
		"routeConfig": {"name": "r"}, "httpFilters": [{"name": "router", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}]}}]}}`)))
	wantErrors(t, err, "default_filter_chain.filters[0].typed_config: not supported: it decides about streams of TCP, and this chain is of HTTP: use the HTTP filter, which decides about each request")
}
