package decode

import (
	"strings"
	"testing"
	"time"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	jwtv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
	"github.com/google/go-cmp/cmp"

	"github.com/inboardmesh/inboard/discovery"
)

// tokensOf decodes a listener with one JWT filter.
func tokensOf(t *testing.T, config string) (*discovery.JWTAuthn, error) {
	t.Helper()
	_, l, err := Listener(marshal(t, fromJSON[listenerv3.Listener](t, inboundWith("jwt_authn.v3.JwtAuthentication", config))))
	if err != nil {
		return nil, err
	}
	return l.Inbound.Default.Filters[0].Config.(*discovery.JWTAuthn), nil
}

// inboundWith is a listener with one HTTP filter.
func inboundWith(filterType, config string) string {
	return `{"name": "in", "address": {"socketAddress": {"address": "0.0.0.0", "portValue": 80}},
		"defaultFilterChain": {"filters": [{"name": "hcm", "typedConfig": {
			"@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
			"rds": {"configSource": {"ads": {}}, "routeConfigName": "r"},
			"httpFilters": [
				{"name": "f", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.http.` + filterType + `", ` + config + `}},
				{"name": "router", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}
			]}}]}}`
}

func TestJWTDefaults(t *testing.T) {
	t.Parallel()
	got, err := tokensOf(t, `"providers": {
		"r": {"remoteJwks": {"httpUri": {"uri": "http://issuer.test", "cluster": "c", "timeout": "1s"}}},
		"l": {"localJwks": {"inlineBytes": "eyJrZXlzIjpbXX0="}}
	}`)
	if err != nil {
		t.Fatal(err)
	}
	want := &discovery.JWTProvider{
		ClockSkew: time.Minute, CacheSize: 100,
		Headers: []discovery.JWTHeader{{Name: "authorization", Prefix: "Bearer "}}, Params: []string{"access_token"},
		RemoteKeys: &discovery.JWTRemoteKeys{
			Scheme: "http", Host: "issuer.test", Path: "/", Cluster: "c", Timeout: time.Second,
			CacheDuration: 10 * time.Minute, FailedRefetch: time.Second,
		},
	}
	if diff := cmp.Diff(want, got.Providers["r"]); diff != "" {
		t.Error(diff)
	}
	if keys := got.Providers["l"].Keys; keys == nil || keys.Len() != 0 {
		t.Errorf("an empty key set: %v", keys)
	}
}

func TestJWTConfigurationsThatAreRefused(t *testing.T) {
	t.Parallel()
	provider := func(fields string) string {
		return `"providers": {"p": {"localJwks": {"inlineString": "{\"keys\":[]}"}, ` + fields + `}}`
	}
	remote := func(uri, more string) string {
		return `"providers": {"p": {"remoteJwks": {"httpUri": {"uri": "` + uri + `", "cluster": "c", "timeout": "1s"}` + more + `}}}`
	}
	const inProvider = `providers["p"].`
	for _, tt := range []struct {
		name, config, at, want string
	}{
		{"V59 a file of keys", `"providers": {"p": {"localJwks": {"filename": "/etc/passwd"}}}`, inProvider + "local_jwks.filename", "not supported"},
		{"V59 a variable of keys", `"providers": {"p": {"localJwks": {"environmentVariable": "HOME"}}}`, inProvider + "local_jwks.environment_variable", "not supported"},
		{"keys that are none", `"providers": {"p": {"localJwks": {"inlineString": "secret"}}}`, inProvider + "local_jwks.inline_string", "key set: "},
		{"no keys at all", `"providers": {"p": {}}`, inProvider + "jwks_source_specifier", "value is required"},
		{"V33 a URI that is none", remote("://", ""), inProvider + "remote_jwks.http_uri.uri", "is not a URI"},
		{"V33 a file URI", remote("file:///etc/passwd", ""), inProvider + "remote_jwks.http_uri.uri", "must begin with http:// or https://"},
		{"V33 a URI without a host", remote("https:///keys", ""), inProvider + "remote_jwks.http_uri.uri", "has no host"},
		{"V33 a URI with a user", remote("https://a:b@issuer.test/keys", ""), inProvider + "remote_jwks.http_uri.uri", "must not have a user"},
		{"V33 no cluster", `"providers": {"p": {"remoteJwks": {"httpUri": {"uri": "https://a.test", "timeout": "1s"}}}}`, inProvider + "remote_jwks.http_uri.http_upstream_type", "value is required"},
		{"no time to fetch", `"providers": {"p": {"remoteJwks": {"httpUri": {"uri": "https://a.test", "cluster": "c", "timeout": "0s"}}}}`, inProvider + "remote_jwks.http_uri.timeout", "must not be 0"},
		{"too many retries", remote("https://a.test", `, "retryPolicy": {"numRetries": 99}`), inProvider + "remote_jwks.retry_policy.num_retries", "99 is too many"},
		{"a back-off that shrinks", remote("https://a.test", `, "retryPolicy": {"retryBackOff": {"baseInterval": "2s", "maxInterval": "1s"}}`), inProvider + "remote_jwks.retry_policy.retry_back_off.max_interval", "must not be less"},
		{"a life of nothing", provider(`"maxLifetime": "0s"`), inProvider + "max_lifetime", "must not be 0"},
		{"V38 claims as a pseudo header", provider(`"claimToHeaders": [{"headerName": ":path", "claimName": "a"}]`), inProvider + "claim_to_headers[0].header_name", "pseudo header"},
		{"V38 claims as framing", provider(`"forwardPayloadHeader": "Content-Length"`), inProvider + "forward_payload_header", "must not be added"},
		{"claims where tokens are", provider(`"forwardPayloadHeader": "Authorization"`), inProvider + "forward_payload_header", "is where tokens are looked for"},
		{"a claim where tokens are", provider(`"fromHeaders": [{"name": "x-a"}], "claimToHeaders": [{"headerName": "X-A", "claimName": "a"}]`), inProvider + "claim_to_headers[0].header_name", "is where tokens are looked for"},
		{"a claim with two names", provider(`"claimToHeaders": [{"headerName": "x", "claimName": "a", "claimPath": [{"key": "a"}]}]`), inProvider + "claim_to_headers[0]", "either claim_name or claim_path"},
		{"a claim without a name", provider(`"claimToHeaders": [{"headerName": "x"}]`), inProvider + "claim_to_headers[0]", "either claim_name or claim_path"},
		{"an unknown provider", `"rules": [{"match": {"prefix": "/"}, "requires": {"providerName": "x"}}]`, "rules[0].requires.provider_name", `"x" is not in providers`},
		{"an unknown provider deep inside", `"rules": [{"match": {"prefix": "/"}, "requires": {"requiresAny": {"requirements": [{"providerAndAudiences": {"providerName": "x"}}, {"allowMissing": {}}]}}}]`, "rules[0].requires.requires_any.requirements[0].provider_and_audiences.provider_name", `"x" is not in providers`},
		{"an unknown requirement", `"rules": [{"match": {"prefix": "/"}, "requirementName": "x"}]`, "rules[0].requirement_name", `"x" is not in requirement_map`},
		{"unverified tokens", `"rules": [{"match": {"prefix": "/"}, "requires": {"extractOnlyWithoutValidation": {}}}]`, "rules[0].requires.extract_only_without_validation", "anybody's word"},
		{"state of a request", `"filterStateRules": {"name": "x"}`, "filter_state_rules", "use rules"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := tokensOf(t, tt.config)
			const in = "default_filter_chain.filters[0].typed_config.http_filters[0].typed_config."
			if found := errorsAt(err, in+tt.at); len(found) != 1 || !strings.Contains(found[0], tt.want) {
				t.Errorf("%v\nwant %s%s: %s", err, in, tt.at, tt.want)
			}
		})
	}
}

func TestJWTRequirementsAreNotNestedWithoutEnd(t *testing.T) {
	t.Parallel()
	requires := `{"allowMissing": {}}`
	for range 20 {
		requires = `{"requiresAny": {"requirements": [` + requires + `, {"allowMissing": {}}]}}`
	}
	_, err := tokensOf(t, `"rules": [{"match": {"prefix": "/"}, "requires": `+requires+`}]`)
	if err == nil || !strings.Contains(err.Error(), "nested too deep") {
		t.Errorf("%v", err)
	}
}

func TestJWTRequirementsOfAnUnknownKindAreRefused(t *testing.T) {
	t.Parallel()
	unknown := []byte{0x9a, 0x06, 0x00} // field 99: what it asks for is not known, and it is not nothing
	for _, tt := range []struct {
		name string
		of   *jwtv3.JwtAuthentication
		want string
	}{
		{"a requirement", &jwtv3.JwtAuthentication{RequirementMap: map[string]*jwtv3.JwtRequirement{"r": {}}}, `requirement_map["r"]: requires something unknown`},
		{"a rule", &jwtv3.JwtAuthentication{Rules: []*jwtv3.RequirementRule{{Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}}}}}, "rules[0]: requires something unknown"},
	} {
		for _, known := range []bool{true, false} {
			if !known {
				for _, r := range tt.of.GetRequirementMap() {
					r.ProtoReflect().SetUnknown(unknown)
				}
				for _, r := range tt.of.GetRules() {
					r.ProtoReflect().SetUnknown(unknown)
				}
			}
			d := &decoder{}
			d.jwtAuthn(path{}, tt.of)
			err := d.problems.err()
			if known != (err == nil) || err != nil && err.Error() != tt.want {
				t.Errorf("%s, known %v: %v", tt.name, known, err)
			}
		}
	}
}
