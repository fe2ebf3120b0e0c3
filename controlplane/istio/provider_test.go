package istio_test

import (
	"slices"
	"strings"
	"testing"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	resource "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/inboardmesh/inboard/controlplane/istio"
)

// meshConfig is the ConfigMap of Istio with a configuration, whose first line is
// line 5.
func meshConfig(text string) string {
	return "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata: {mesh: \"" +
		strings.NewReplacer("\"", "\\\"", "\n", "\\n").Replace(text) + "\"}\n"
}

// providers are two of the mesh configuration, as Istio's users write them.
const providers = `apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |
    accessLogFile: /dev/stdout
    defaultConfig: {discoveryAddress: "istiod.istio-system.svc:15012"}
    defaultProviders: {metrics: [prometheus]}
    enablePrometheusMerge: true
    rootNamespace: istio-system
    trustDomain: cluster.local
    extensionProviders:
    - name: opa
      envoyExtAuthzGrpc:
        service: shop/payment.shop.svc.cluster.local
        port: 9090
        timeout: 1.5s
        failOpen: true
        clearRouteCache: true
        statusOnError: "503"
        includeRequestBodyInCheck: {maxRequestBytes: 1000, allowPartialMessage: true, packAsBytes: true}
    - name: web
      envoyExtAuthzHttp:
        service: payment.shop.svc.cluster.local
        port: 8080
        pathPrefix: /check
        includeRequestHeadersInCheck: [x-user, "x-auth-*", "*-id"]
        includeAdditionalHeadersInCheck: {x-from: mesh}
        headersToUpstreamOnAllow: [x-role]
        headersToDownstreamOnDeny: [x-reason]
        headersToDownstreamOnAllow: [x-checked]
---
`

// inboundHTTP are the HTTP filters of a node's listener as JSON without spaces, by
// their names.
func inboundHTTP(t *testing.T, config *istio.Config, node istio.Node) (names []string, configs map[string]string) {
	t.Helper()
	m, ok := config.Resource(node, resource.ListenerType, "xds.istio.io/grpc/lds/inbound/0.0.0.0:8080")
	if !ok {
		t.Fatal("no listener")
	}
	checkValid(t, "listener", m)
	hcm := &hcmv3.HttpConnectionManager{}
	if err := m.(*listenerv3.Listener).GetFilterChains()[0].GetFilters()[0].GetTypedConfig().UnmarshalTo(hcm); err != nil {
		t.Fatal(err)
	}
	configs = make(map[string]string)
	for _, f := range hcm.GetHttpFilters() {
		name := strings.TrimPrefix(f.GetName(), "envoy.filters.http.")
		text, err := protojson.Marshal(f.GetTypedConfig())
		if err != nil {
			t.Fatal(err)
		}
		names, configs[name] = append(names, name), strings.ReplaceAll(string(text), " ", "")
	}
	return names, configs
}

func TestBA02_CustomIsAskedBeforeEverythingElse(t *testing.T) {
	t.Parallel()
	yaml := shop + "---\n" + providers +
		policy("shop", "a", `{action: CUSTOM, provider: {name: opa}, rules: [{to: [{operation: {paths: [/pay]}}]}]}`) +
		policy("shop", "b", `{action: DENY, rules: [{}]}`) +
		"---\napiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {name: r, namespace: shop}\nspec: {jwtRules: [{issuer: a, jwks: '" + keysJSON + "'}]}\n"
	config, problems := istio.Parse([]istio.File{{Name: "x.yaml", Data: []byte(yaml)}}, istio.Options{})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	node := istio.Node{Namespace: "shop", Labels: map[string]string{"app": "a"}}
	names, configs := inboundHTTP(t, config, node)
	if want := []string{"rbac.custom", "ext_authz", "jwt_authn", "rbac.deny", "router"}; !slices.Equal(names, want) {
		t.Errorf("got %v, want %v", names, want)
	}
	for name, parts := range map[string][]string{
		"rbac.custom": {`"shadowRulesStatPrefix":"istio_ext_authz_"`, `"istio-ext-authz-ns[shop]-policy[a]-rule[0]"`, `"action":"DENY"`},
		"ext_authz": {
			`"clusterName":"outbound|9090||payment.shop.svc.cluster.local"`, `"timeout":"1.500s"`, `"failureModeAllow":true`,
			`"clearRouteCache":true`, `"code":"ServiceUnavailable"`, `"maxRequestBytes":1000`, `"allowPartialMessage":true`, `"packAsBytes":true`,
			`"filterEnabledMetadata":{"filter":"envoy.filters.http.rbac","path":[{"key":"istio_ext_authz_shadow_effective_policy_id"}],"value":{"stringMatch":{"prefix":"istio-ext-authz"}}}`,
		},
	} {
		for _, part := range parts {
			if !strings.Contains(configs[name], part) {
				t.Errorf("%s: %s is not in %s", name, part, configs[name])
			}
		}
	}
}

func TestAnHTTPProviderIsTranslated(t *testing.T) {
	t.Parallel()
	yaml := shop + "---\n" + providers +
		policy("shop", "a", `{action: CUSTOM, provider: {name: web}, rules: [{}]}`) +
		policy("shop", "b", `{action: CUSTOM, provider: {name: opa}, rules: [{}]}`)
	config, problems := istio.Parse([]istio.File{{Name: "x.yaml", Data: []byte(yaml)}}, istio.Options{})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	names, configs := inboundHTTP(t, config, istio.Node{Namespace: "shop", Labels: map[string]string{"app": "a"}})
	if want := []string{"rbac.custom.opa", "ext_authz.opa", "rbac.custom.web", "ext_authz.web", "router"}; !slices.Equal(names, want) {
		t.Errorf("got %v, want %v", names, want)
	}
	for _, part := range []string{
		`"uri":"http://payment.shop.svc.cluster.local:8080"`, `"cluster":"outbound|8080||payment.shop.svc.cluster.local"`, `"timeout":"600s"`,
		`"pathPrefix":"/check"`, `{"exact":"x-user","ignoreCase":true}`, `{"prefix":"x-auth-","ignoreCase":true}`, `{"suffix":"-id","ignoreCase":true}`,
		`"headersToAdd":[{"key":"x-from","value":"mesh"}]`, `"allowedUpstreamHeaders"`, `"allowedClientHeaders"`, `"allowedClientHeadersOnSuccess"`,
		`"key":"istio_ext_authz_web_shadow_effective_policy_id"`,
	} {
		if !strings.Contains(configs["ext_authz.web"], part) {
			t.Errorf("%s is not in %s", part, configs["ext_authz.web"])
		}
	}
}

func TestAnUnknownProviderDeniesEverything(t *testing.T) {
	t.Parallel()
	config, problems := istio.Parse([]istio.File{{Name: "x.yaml", Data: []byte(
		policy("shop", "a", `{action: CUSTOM, provider: {name: gone}, rules: [{to: [{operation: {paths: [/pay]}}]}]}`))}}, istio.Options{})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	names, configs := inboundHTTP(t, config, istio.Node{Namespace: "shop", Labels: map[string]string{"app": "a"}})
	if want := []string{"rbac.custom", "router"}; !slices.Equal(names, want) {
		t.Errorf("got %v, want %v", names, want)
	}
	if !strings.Contains(configs["rbac.custom"], `"permissions":[{"any":true}],"principals":[{"any":true}]`) {
		t.Errorf("got %s", configs["rbac.custom"])
	}
	if w := config.Warnings(); len(w) != 1 || w[0].Code != "unknown-provider" {
		t.Errorf("warnings %v", w)
	}
}

func TestTheMeshConfigurationNamesTrustDomainAndRootNamespace(t *testing.T) {
	t.Parallel()
	text := "trustDomain: new.example\ntrustDomainAliases: [old.example]\nrootNamespace: root\n"
	yaml := meshConfig(text) + policy("root", "a", `{rules: [{from: [{source: {principals: [new.example/ns/a/sa/b]}}]}]}`)
	for _, opts := range []istio.Options{{}, {TrustDomain: "new.example", RootNamespace: "root"}} {
		_, configs := rbacFilters(t, opts, istio.Node{Namespace: "shop", Labels: map[string]string{"app": "a"}}, yaml)
		if !strings.Contains(configs, "spiffe://old.example/ns/a/sa/b") {
			t.Errorf("%+v: got %s", opts, configs)
		}
	}
	_, problems := istio.Parse([]istio.File{{Name: "x.yaml", Data: []byte(yaml)}}, istio.Options{TrustDomain: "other.example"})
	if len(problems) != 1 || problems[0].Message != `is "new.example", and the control plane was started with "other.example": give both the same` {
		t.Errorf("problems %v", problems)
	}
}

// meshProblem is a mesh configuration in line 4.
func meshProblem(name, text string, want ...string) problemCase {
	for i := range want {
		place := "x.yaml:4: "
		if strings.HasPrefix(want[i], ": ") {
			place = "x.yaml:4:14: " // of the text
		}
		want[i] = place + "ConfigMap istio-system/istio: data.mesh" + want[i]
	}
	return problemCase{name: name, want: want, yaml: meshConfig(text)}
}

var meshProblems = []problemCase{
	meshProblem("no YAML", "a: [", `: not valid YAML: line 1: did not find expected node content`),
	meshProblem("two documents", "a: b\n---\nc: d\n", `: must be one document`),
	meshProblem("a field that nobody knows", "extensionProvider: []", `.extensionProvider: unknown field: did you mean "extensionProviders"?`),
	meshProblem("a field that would change what is served", "outboundTrafficPolicy: {mode: REGISTRY_ONLY}", `.outboundTrafficPolicy: is not supported: remove it`),
	meshProblem("another kind of provider", "extensionProviders: [{name: z, zipkin: {service: a, port: 1}}]",
		`.extensionProviders[0].zipkin: is not supported: remove it`),
	meshProblem("a trust domain that is none", "trustDomain: A", `.trustDomain: "A" is not a valid name`),
	meshProblem("an alias that is none", "trustDomainAliases: [a/b]", `.trustDomainAliases[0]: "a/b" is not a trust domain: use lower case letters, digits, '.', '-' and '_'`),
	meshProblem("a provider without a name", "extensionProviders: [{envoyExtAuthzGrpc: {service: a, port: 1}}]",
		`.extensionProviders[0].name: must not be empty: policies refer to it`),
	meshProblem("a provider without a kind", "extensionProviders: [{name: a}]",
		`.extensionProviders[0]: must have envoyExtAuthzGrpc or envoyExtAuthzHttp`),
	meshProblem("a service that is not there", "extensionProviders: [{name: a, envoyExtAuthzGrpc: {service: a.b, port: 1}}]",
		`.extensionProviders[0].envoyExtAuthzGrpc.service: no Service or ServiceEntry has the host "a.b"`),
	meshProblem("a port that is not there", "extensionProviders: [{name: a, envoyExtAuthzGrpc: {service: payment.shop.svc.cluster.local, port: 1}}]",
		`.extensionProviders[0].envoyExtAuthzGrpc.port: "payment.shop.svc.cluster.local" has no port 1`),
	meshProblem("the service of another namespace", "extensionProviders: [{name: a, envoyExtAuthzGrpc: {service: bank/payment.shop.svc.cluster.local, port: 8080}}]",
		`.extensionProviders[0].envoyExtAuthzGrpc.service: no Service or ServiceEntry of namespace "bank" has the host "payment.shop.svc.cluster.local"`),
	meshProblem("values that are none", `extensionProviders: [{name: a, envoyExtAuthzHttp: {service: payment.shop.svc.cluster.local, port: 8080, pathPrefix: check, statusOnError: "200", timeout: 0s, includeRequestBodyInCheck: {}, headersToUpstreamOnAllow: ["*"], includeAdditionalHeadersInCheck: {":path": /}}}]`,
		`.extensionProviders[0].envoyExtAuthzHttp.timeout: 0s is too short: use at least 1ms, or leave the field out`,
		`.extensionProviders[0].envoyExtAuthzHttp.pathPrefix: "check" must begin with /`,
		`.extensionProviders[0].envoyExtAuthzHttp.statusOnError: "200" is no status of a failure: use 400 to 599`,
		`.extensionProviders[0].envoyExtAuthzHttp.includeRequestBodyInCheck.maxRequestBytes: 0 is not in 1..67108864`,
		`.extensionProviders[0].envoyExtAuthzHttp.headersToUpstreamOnAllow[0]: "*" is not the name of a header, nor one with a star at one end`,
		`.extensionProviders[0].envoyExtAuthzHttp.includeAdditionalHeadersInCheck[:path]: is not a header that can be set`),
	{name: "the ConfigMap of a revision", yaml: "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio-canary}\ndata: {mesh: \"\"}\n", want: []string{
		`x.yaml:3:18: ConfigMap default/istio-canary: metadata.name: "istio-canary" is not read: only the ConfigMap "istio" is, which has the configuration of the mesh; remove the document`,
	}},
	{name: "a ConfigMap without data", yaml: "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio}\n", want: []string{
		`x.yaml:1:1: ConfigMap default/istio: data: is required: the entry "mesh" has the configuration of the mesh`,
	}},
	{name: "a ConfigMap with networks", yaml: "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio}\ndata: {meshNetworks: \"networks: {a: {}}\", mesh: \"\"}\n", want: []string{
		`x.yaml:4:8: ConfigMap default/istio: data.meshNetworks: is not supported: only "mesh" is read, remove it`,
	}},
	{name: "two configurations", yaml: "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio}\ndata: {mesh: \"\"}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: b}\ndata: {mesh: \"\"}\n", want: []string{
		`x.yaml:9:14: ConfigMap b/istio: data.mesh: is the second configuration of the mesh: the first is in ConfigMap default/istio (x.yaml:1)`,
	}},
}

func TestLinesOfTheMeshConfigurationAreThoseOfTheFile(t *testing.T) {
	t.Parallel()
	checkProblems(t, problemCase{yaml: strings.Replace(providers, "port: 9090", "port: none", 1), want: []string{
		"x.yaml:16: ConfigMap istio-system/istio: data.mesh.extensionProviders[0].envoyExtAuthzGrpc.port: expected a whole number, found text",
	}})
}
