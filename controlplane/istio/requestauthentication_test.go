package istio_test

import (
	"strings"
	"testing"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	jwtv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/inboardmesh/inboard/controlplane/istio"
)

const (
	keysJSON = `{"keys":[{"kty":"EC","crv":"P-256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}]}`

	// privateJSON is keysJSON with a private key after it.
	privateJSON = `{"keys":[{"kty":"EC","crv":"P-256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"},
		{"kid":"b","kty":"EC","crv":"P-256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM","d":"AA"}]}`

	issuerService = `
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: issuer, namespace: shop}
spec:
  hosts: [issuer.shop.svc.cluster.local]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{number: 8000, name: http, protocol: HTTP}, {number: 443, name: https, protocol: HTTPS}]
  endpoints: [{address: 10.9.9.9, serviceAccount: issuer}]
`
)

// requestAuthentication is a document with the given rules.
func requestAuthentication(namespace, name, selector, rules string) string {
	return `
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: ` + name + `, namespace: ` + namespace + `}
spec: {` + selector + `jwtRules: [` + rules + `]}
`
}

// tokensOf is the JWT filter of the listener of a node, nil without one.
func tokensOf(t *testing.T, config *istio.Config, node istio.Node) *jwtv3.JwtAuthentication {
	t.Helper()
	m, ok := config.Resource(node, "type.googleapis.com/envoy.config.listener.v3.Listener", inbound+"0.0.0.0:8080")
	if !ok {
		t.Fatal("no listener")
	}
	var found *jwtv3.JwtAuthentication
	for _, chain := range m.(*listenerv3.Listener).GetFilterChains() {
		manager := &hcmv3.HttpConnectionManager{}
		if err := chain.GetFilters()[0].GetTypedConfig().UnmarshalTo(manager); err != nil {
			t.Fatal(err)
		}
		for _, f := range manager.GetHttpFilters() {
			if f.GetName() != "envoy.filters.http.jwt_authn" {
				continue
			}
			found = &jwtv3.JwtAuthentication{}
			if err := f.GetTypedConfig().UnmarshalTo(found); err != nil {
				t.Fatal(err)
			}
		}
	}
	return found
}

func issuersOf(m *jwtv3.JwtAuthentication) string {
	var issuers []string
	for i := range len(m.GetProviders()) {
		issuers = append(issuers, m.GetProviders()["origins-"+string(rune('0'+i))].GetIssuer())
	}
	return strings.Join(issuers, " ")
}

func TestRequestAuthenticationsApplyTogether(t *testing.T) {
	t.Parallel()
	rule := func(issuer string) string { return `{issuer: ` + issuer + `, jwks: '` + keysJSON + `'}` }
	config := parse(t, istio.File{Name: "x.yaml", Data: []byte(
		requestAuthentication("istio-system", "mesh", "", rule("mesh")) +
			requestAuthentication("istio-system", "labelled", "selector: {matchLabels: {app: payment}}, ", rule("everywhere")) +
			requestAuthentication("shop", "all", "", rule("shop")) +
			requestAuthentication("shop", "payment", "selector: {matchLabels: {app: payment}}, ", rule("payment")) +
			requestAuthentication("bank", "all", "", rule("bank")) +
			requestAuthentication("shop", "empty", "", ""),
	)})
	for _, tt := range []struct {
		name string
		node istio.Node
		want string
	}{
		{"a workload of the namespace", istio.Node{Namespace: "shop", Labels: map[string]string{"app": "web"}}, "mesh shop"},
		{"a workload that is selected", istio.Node{Namespace: "shop", Labels: map[string]string{"app": "payment", "v": "1"}}, "everywhere mesh payment shop"},
		{"a workload of another namespace", istio.Node{Namespace: "bank", Labels: map[string]string{"app": "payment"}}, "bank everywhere mesh"},
		{"a workload of nowhere", istio.Node{}, "everywhere mesh"},
		{"one of the namespace that says no labels, and is in no document", istio.Node{Namespace: "shop"}, "everywhere mesh payment shop"},
	} {
		if got := issuersOf(tokensOf(t, config, tt.node)); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
	if m := tokensOf(t, parse(t), istio.Node{Namespace: "shop"}); m != nil {
		t.Errorf("without policies: %v", m)
	}
}

func TestRequestAuthenticationIsTranslatedWhole(t *testing.T) {
	t.Parallel()
	config := parse(t, istio.File{Name: "x.yaml", Data: []byte(issuerService + requestAuthentication("shop", "all", "", `
{issuer: "https://b.test", audiences: [shop], jwksUri: "http://issuer.shop.svc.cluster.local:8000/keys?a=b", timeout: 2s,
 fromHeaders: [{name: x-jwt, prefix: "Token "}], fromParams: [jwt], fromCookies: [session], outputPayloadToHeader: x-payload,
 forwardOriginalToken: true, outputClaimToHeaders: [{header: x-role, claim: realm.role}], spaceDelimitedClaims: [roles, scope]},
{issuer: "https://a.test", jwks: '`+keysJSON+`'}`))})
	want := &jwtv3.JwtAuthentication{}
	if err := protojson.Unmarshal([]byte(`{
		"bypassCorsPreflight": true,
		"providers": {
			"origins-0": {"issuer": "https://a.test", "payloadInMetadata": "payload",
				"normalizePayloadInMetadata": {"spaceDelimitedClaims": ["permission", "scope"]},
				"localJwks": {"inlineString": "`+strings.ReplaceAll(keysJSON, `"`, `\"`)+`"}},
			"origins-1": {"issuer": "https://b.test", "audiences": ["shop"], "payloadInMetadata": "payload", "forward": true,
				"normalizePayloadInMetadata": {"spaceDelimitedClaims": ["permission", "roles", "scope"]},
				"fromHeaders": [{"name": "x-jwt", "valuePrefix": "Token "}], "fromParams": ["jwt"], "fromCookies": ["session"],
				"forwardPayloadHeader": "x-payload", "claimToHeaders": [{"headerName": "x-role", "claimName": "realm.role"}],
				"remoteJwks": {"cacheDuration": "300s", "httpUri": {"uri": "http://issuer.shop.svc.cluster.local:8000/keys?a=b",
					"cluster": "outbound|8000||issuer.shop.svc.cluster.local", "timeout": "2s"}}}
		},
		"rules": [{"match": {"prefix": "/"}, "requires": {"requiresAny": {"requirements": [
			{"providerName": "origins-0"}, {"providerName": "origins-1"},
			{"requiresAll": {"requirements": [
				{"requiresAny": {"requirements": [{"providerName": "origins-0"}, {"allowMissing": {}}]}},
				{"requiresAny": {"requirements": [{"providerName": "origins-1"}, {"allowMissing": {}}]}}]}}]}}}]
	}`), want); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, tokensOf(t, config, istio.Node{Namespace: "shop"}), protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
}

func TestRequestAuthenticationProblems(t *testing.T) {
	t.Parallel()
	const plain = `
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: outside, namespace: bank}
spec:
  hosts: [keys.test]
  location: MESH_EXTERNAL
  resolution: STATIC
  exportTo: ["."]
  ports: [{number: 443, name: http, protocol: HTTP}]
  endpoints: [{address: 10.9.9.8}]
`
	const rule = "spec.jwtRules[0]"
	for _, tt := range []struct{ name, namespace, rule, field, want string }{
		{"no issuer", "shop", `{jwks: '` + keysJSON + `'}`, rule + ".issuer", "must not be empty"},
		{"no keys", "shop", `{issuer: a}`, rule, "must have jwks or jwksUri"},
		{"keys twice", "shop", `{issuer: a, jwks: '` + keysJSON + `', jwksUri: "http://issuer.shop.svc.cluster.local:8000/"}`, rule + ".jwks", "must not be set beside jwksUri"},
		{"keys that are none", "shop", `{issuer: a, jwks: secret}`, rule + ".jwks", "key set: "},
		{"no key that can be used", "shop", `{issuer: a, jwks: '{"keys":[]}'}`, rule + ".jwks", "every token of the issuer would be refused"},
		{"a key that cannot be used", "shop", `{issuer: a, jwks: '{"keys":[{"kty":"oct","k":"c2hvcnQ"}]}'}`, rule + ".jwks", "would be refused; keys[0]: is a secret of 5 bytes: must have at least 32"},
		{"a private key beside a public one", "shop", `{issuer: a, jwks: '` + privateJSON + `'}`, rule + ".jwks", `keys[1] (kid "b"): has its private part with it, by which each workload that gets it could make tokens of "a": give its public half`},
		{"V33 a file", "shop", `{issuer: a, jwksUri: "file:///etc/passwd"}`, rule + ".jwksUri", "is not a URL that begins with http"},
		{"V33 a host that the mesh does not know", "shop", `{issuer: a, jwksUri: "http://169.254.169.254/latest/meta-data"}`, rule + ".jwksUri", `no Service or ServiceEntry has the host "169.254.169.254"`},
		{"V33 a port that the service does not have", "shop", `{issuer: a, jwksUri: "http://issuer.shop.svc.cluster.local:9999/"}`, rule + ".jwksUri", "has no port 9999"},
		{"V33 a port whose callers encrypt", "shop", `{issuer: a, jwksUri: "https://issuer.shop.svc.cluster.local/"}`, rule + ".jwksUri", `port 443 of "issuer.shop.svc.cluster.local" is not in the mesh, because its callers encrypt by themselves: give it protocol HTTP`},
		{"V33 a user", "shop", `{issuer: a, jwksUri: "https://a:b@issuer.shop.svc.cluster.local:8000/"}`, rule + ".jwksUri", "neither a user"},
		{"V33 another namespace's service", "shop", `{issuer: a, jwksUri: "https://keys.test/"}`, rule + ".jwksUri", `is not exported to namespace "shop"`},
		{"V33 plaintext", "bank", `{issuer: a, jwksUri: "https://keys.test/"}`, rule + ".jwksUri", "would be fetched in plaintext"},
		{"an empty audience", "shop", `{issuer: a, jwks: '` + keysJSON + `', audiences: [""]}`, rule + ".audiences[0]", "must not be empty"},
		{"a header that is none", "shop", `{issuer: a, jwks: '` + keysJSON + `', fromHeaders: [{name: "a b"}]}`, rule + ".fromHeaders[0].name", "is not the name of a header"},
		{"claims where tokens are", "shop", `{issuer: a, jwks: '` + keysJSON + `', outputPayloadToHeader: Authorization}`, rule + ".outputPayloadToHeader", "is where tokens are looked for"},
		{"two claims in a header", "shop", `{issuer: a, jwks: '` + keysJSON + `', outputClaimToHeaders: [{header: a, claim: b}, {header: A, claim: c}]}`, rule + ".outputClaimToHeaders[1].header", "is written twice"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, problems := istio.Parse([]istio.File{{Name: "x.yaml", Data: []byte(issuerService + plain + requestAuthentication(tt.namespace, "p", "", tt.rule))}}, istio.Options{})
			if len(problems) != 1 || problems[0].Field != tt.field || !strings.Contains(problems[0].Message, tt.want) {
				t.Errorf("%v\nwant %s: %s", problems, tt.field, tt.want)
			}
		})
	}
	_, problems := istio.Parse([]istio.File{{Name: "x.yaml", Data: []byte(requestAuthentication("shop", "p", "targetRefs: [{kind: Gateway, name: x}], ", ""))}}, istio.Options{})
	if len(problems) != 1 || problems[0].Field != "spec.targetRefs" {
		t.Errorf("targetRefs: %v", problems)
	}
}
