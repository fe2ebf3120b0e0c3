package istio_test

import (
	"slices"
	"strings"
	"testing"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	httprbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	resource "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/inboardmesh/inboard/controlplane/istio"
)

// rbacFilters are the names of the RBAC filters of a node's listener, and their
// configuration as JSON without spaces.
func rbacFilters(t *testing.T, opts istio.Options, node istio.Node, yaml string) (names []string, configs string) {
	t.Helper()
	config, problems := istio.Parse([]istio.File{{Name: "x.yaml", Data: []byte(yaml)}}, opts)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	m, ok := config.Resource(node, resource.ListenerType, "xds.istio.io/grpc/lds/inbound/0.0.0.0:8080")
	if !ok {
		t.Fatal("no listener")
	}
	for _, chain := range m.(*listenerv3.Listener).GetFilterChains() {
		hcm := &hcmv3.HttpConnectionManager{}
		if err := chain.GetFilters()[0].GetTypedConfig().UnmarshalTo(hcm); err != nil {
			t.Fatal(err)
		}
		names = nil
		for _, f := range hcm.GetHttpFilters()[:len(hcm.GetHttpFilters())-1] {
			names = append(names, strings.TrimPrefix(f.GetName(), "envoy.filters.http.rbac."))
			rbac := &httprbacv3.RBAC{}
			if err := f.GetTypedConfig().UnmarshalTo(rbac); err != nil {
				t.Fatal(err)
			}
			text, err := protojson.Marshal(rbac)
			if err != nil {
				t.Fatal(err)
			}
			configs += strings.ReplaceAll(string(text), " ", "")
		}
	}
	return names, configs
}

func policy(namespace, name, spec string) string {
	return "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: " + name + ", namespace: " + namespace + "}\nspec: " + spec + "\n"
}

func TestBA02_TheOrderIsThatOfIstio(t *testing.T) {
	t.Parallel()
	node := istio.Node{Namespace: "shop", Labels: map[string]string{"app": "a"}}
	names, configs := rbacFilters(t, istio.Options{}, node,
		policy("shop", "c", `{rules: [{}]}`)+policy("istio-system", "b", `{action: DENY, rules: [{}]}`)+policy("shop", "a", `{action: AUDIT, rules: [{}]}`))
	if !slices.Equal(names, []string{"audit", "deny", "allow"}) {
		t.Errorf("got %v", names)
	}
	for _, want := range []string{`"ns[shop]-policy[c]-rule[0]"`, `"ns[istio-system]-policy[b]-rule[0]"`} {
		if !strings.Contains(configs, want) {
			t.Errorf("%s is not in %s", want, configs)
		}
	}
}

// What a node leaves out of its bootstrap must not open what a policy closes.
func TestANodeThatDoesNotSayWhoItIsObeysEveryPolicy(t *testing.T) {
	t.Parallel()
	yaml := policy("shop", "a", `{selector: {matchLabels: {app: a}}, rules: [{to: [{operation: {paths: [/a]}}]}]}`) +
		policy("shop", "b", `{selector: {matchLabels: {app: b}}, action: DENY, rules: [{}]}`)
	for _, tt := range []struct {
		name string
		node istio.Node
		want []string
	}{
		{"the one", istio.Node{Namespace: "shop", Labels: map[string]string{"app": "a"}}, []string{"allow"}},
		{"the other", istio.Node{Namespace: "shop", Labels: map[string]string{"app": "b"}}, []string{"deny"}},
		{"neither", istio.Node{Namespace: "shop", Labels: map[string]string{"app": "c"}}, nil},
		{"without labels", istio.Node{Namespace: "shop"}, []string{"allow.1", "deny.2"}},
		{"without a namespace", istio.Node{Labels: map[string]string{"app": "b"}}, []string{"deny.1"}},
		{"without anything", istio.Node{}, []string{"allow.1", "deny.2"}},
		{"of another namespace", istio.Node{Namespace: "bank"}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if names, _ := rbacFilters(t, istio.Options{}, tt.node, yaml); !slices.Equal(names, tt.want) {
				t.Errorf("got %v, want %v", names, tt.want)
			}
		})
	}
}

func TestV21_ATrustDomainAndItsAliasesAreTheSame(t *testing.T) {
	t.Parallel()
	opts := istio.Options{TrustDomain: "new.example", TrustDomainAliases: []string{"old.example"}}
	node := istio.Node{Namespace: "shop", Labels: map[string]string{"app": "a"}}
	for _, tt := range []struct {
		principal string
		want      []string
	}{
		{"new.example/ns/a/sa/b", []string{`"spiffe://new.example/ns/a/sa/b"`, `"spiffe://old.example/ns/a/sa/b"`}},
		{"old.example/ns/a/sa/b", []string{`"spiffe://new.example/ns/a/sa/b"`, `"spiffe://old.example/ns/a/sa/b"`}},
		{"cluster.local/ns/a/*", []string{`"spiffe://new.example/ns/a/"`, `"spiffe://old.example/ns/a/"`}},
		{"other.example/ns/a/sa/b", []string{`"spiffe://other.example/ns/a/sa/b"`}},
	} {
		_, configs := rbacFilters(t, opts, node, policy("shop", "p", `{rules: [{from: [{source: {principals: ["`+tt.principal+`"]}}]}]}`))
		if got := strings.Count(configs, "spiffe://"); got != 2*len(tt.want) && got != len(tt.want) {
			t.Errorf("%s: %d names in %s", tt.principal, got, configs)
		}
		for _, want := range tt.want {
			if !strings.Contains(configs, want) {
				t.Errorf("%s: %s is not in %s", tt.principal, want, configs)
			}
		}
	}
}

// TestRequestPrincipalsArePartedAsByIstio: at the last slash, for an issuer may be
// a URL.
func TestRequestPrincipalsArePartedAsByIstio(t *testing.T) {
	t.Parallel()
	const present = `"safeRegex":{"regex":".+"}`
	for value, want := range map[string][2]string{
		"https://issuer.test/a/cook": {`"exact":"https://issuer.test/a"`, `"exact":"cook"`},
		"issuer/":                    {`"exact":"issuer"`, `"exact":""`},
		"issuer":                     {`"exact":"issuer"`, `"exact":""`},
		"*":                          {present, present},
		"https://issuer.test/*":      {`"exact":"https://issuer.test"`, present},
		"issuer/co*":                 {`"exact":"issuer"`, `"prefix":"co"`},
		"iss*":                       {`"prefix":"iss"`, present},
		"*/cook":                     {present, `"exact":"cook"`},
		"*.test/cook":                {`"suffix":".test"`, `"exact":"cook"`},
		"*ok":                        {present, `"suffix":"ok"`},
	} {
		_, configs := rbacFilters(t, istio.Options{}, istio.Node{Namespace: "shop"},
			policy("shop", "a", `{rules: [{from: [{source: {requestPrincipals: ["`+value+`"]}}]}]}`))
		issuer := `{"key":"payload"},{"key":"iss"}],"value":{"stringMatch":{` + want[0] + `}}`
		subject := `{"key":"payload"},{"key":"sub"}],"value":{"stringMatch":{` + want[1] + `}}`
		if !strings.Contains(configs, issuer) || !strings.Contains(configs, subject) {
			t.Errorf("%s: got %s", value, configs)
		}
	}
}

// What a star alone means of an empty value, Istio's API and its translation say
// differently. It is the safe side that is taken.
func TestV11_AStarIsMetByAnEmptyValueWhereThatDenies(t *testing.T) {
	t.Parallel()
	const wide, narrow = `"safeRegex":{"regex":".*"}`, `"safeRegex":{"regex":".+"}`
	for spec, want := range map[string]string{
		`{action: DENY, rules: [{when: [{key: "request.headers[x-role]", values: ["*"]}]}]}`:    wide,
		`{rules: [{when: [{key: "request.headers[x-role]", values: ["*"]}]}]}`:                  narrow,
		`{action: DENY, rules: [{when: [{key: "request.headers[x-role]", notValues: ["*"]}]}]}`: narrow,
		`{rules: [{when: [{key: "request.headers[x-role]", notValues: ["*"]}]}]}`:               wide,
		`{action: DENY, rules: [{to: [{operation: {hosts: ["*"]}}]}]}`:                          wide,
		`{rules: [{to: [{operation: {hosts: ["*"]}}]}]}`:                                        narrow,
		`{rules: [{to: [{operation: {notMethods: ["*"]}}]}]}`:                                   wide,
	} {
		if _, got := rbacFilters(t, istio.Options{}, istio.Node{Namespace: "shop"}, policy("shop", "a", spec)); !strings.Contains(got, want) {
			t.Errorf("%s: no %s in %s", spec, want, got)
		}
	}
}
