package decode

import (
	"regexp"
	"strings"
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/google/go-cmp/cmp"

	"github.com/inboardmesh/inboard/discovery"
)

// rewritesFixture has the ways to match, to choose and to rewrite that
// routesFixture has not.
const rewritesFixture = `{
  "name": "rewrites",
  "virtualHosts": [{"name": "v", "domains": ["*"], "routes": [
    {
      "match": {
        "pathMatchPolicy": {"name": "template", "typedConfig": {
          "@type": "type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig",
          "pathTemplate": "/videos/{lang}/{file}.m4s"}},
        "grpc": {},
        "cookies": [{"name": "canary", "stringMatch": {"exact": "yes"}, "invertMatch": true}],
        "dynamicMetadata": [{"filter": "envoy.filters.http.jwt_authn", "path": [{"key": "payload"}, {"key": "role"}],
          "value": {"stringMatch": {"exact": "cook"}}, "invert": true}]
      },
      "requestHeadersToAdd": [{"header": {"key": "x-from", "value": "%REQ(x-user?:authority):8% at %START_TIME(%s)%"}}],
      "responseHeadersToAdd": [{"header": {"key": "x-by", "value": "%UPSTREAM_REMOTE_ADDRESS%"}}],
      "route": {
        "clusterHeader": "X-Cluster",
        "pathRewritePolicy": {"name": "template", "typedConfig": {
          "@type": "type.googleapis.com/envoy.extensions.path.rewrite.uri_template.v3.UriTemplateRewriteConfig",
          "pathTemplateRewrite": "/{file}/$/{lang}"}},
        "hostRewriteHeader": "X-Host", "appendXForwardedHost": true,
        "internalRedirectPolicy": {
          "maxInternalRedirects": 3, "redirectResponseCodes": [303, 302, 404], "allowCrossSchemeRedirect": true,
          "responseHeadersToCopy": ["X-Token"],
          "predicates": [
            {"name": "a", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.internal_redirect.previous_routes.v3.PreviousRoutesConfig"}},
            {"name": "b", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.internal_redirect.safe_cross_scheme.v3.SafeCrossSchemeConfig"}},
            {"name": "c", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.internal_redirect.allow_listed_routes.v3.AllowListedRoutesConfig",
              "allowedRouteNames": ["next"]}}
          ]
        }
      }
    },
    {
      "match": {"prefix": "/a"},
      "route": {
        "weightedClusters": {"useHashPolicy": true, "clusters": [
          {"name": "v1", "weight": 1, "hostRewriteLiteral": "v1.shop"}, {"clusterHeader": "X-Other", "weight": 1}]},
        "hashPolicy": [
          {"header": {"headerName": "X-User", "regexRewrite": {"pattern": {"regex": "@.*$"}, "substitution": ""}}},
          {"cookie": {"name": "session"}, "terminal": true},
          {"queryParameter": {"name": "q"}}
        ],
        "regexRewrite": {"pattern": {"regex": "^/a/([^/]+)"}, "substitution": "/$\\1\\\\"},
        "autoHostRewrite": true,
        "internalRedirectPolicy": {}
      }
    },
    {
      "match": {"prefix": "/b"},
      "route": {
        "weightedClusters": {"headerName": "X-Random", "clusters": [{"name": "v1", "weight": 1}, {"name": "v2", "weight": 1}]},
        "pathRewrite": "/b/%REQ(x-b)%",
        "hostRewritePathRegex": {"pattern": {"regex": "^/b/(.*)$"}, "substitution": "\\1"}
      }
    },
    {"match": {"prefix": "/c"}, "redirect": {"regexRewrite": {"pattern": {"regex": "c"}, "substitution": "d"}}},
    {"match": {"prefix": "/d"}, "redirect": {"pathRewrite": "/e%REQ(x-e)%"}}
  ]}]
}`

func TestRouteConfigurationDecodesRewrites(t *testing.T) {
	t.Parallel()
	_, got, err := RouteConfiguration(marshal(t, fromJSON[routev3.RouteConfiguration](t, rewritesFixture)))
	if err != nil {
		t.Fatal(err)
	}
	template := `/videos/(?P<lang>[a-zA-Z0-9\-._~%!$&'()+,;:@=]+)/(?P<file>[a-zA-Z0-9\-._~%!$&'()+,;:@=]+)\.m4s`
	program := regexp.MustCompile(`\A` + template + `\z`)
	substitution := func(source, template, replacement string) *discovery.Substitution {
		return &discovery.Substitution{
			Source: source, Template: template, Program: regexp.MustCompile(source), Replacement: replacement,
		}
	}
	want := []*discovery.Route{
		{
			Match: discovery.RouteMatch{
				Path: discovery.PathMatch{
					Kind: discovery.PathTemplate, Value: "/videos/{lang}/{file}.m4s",
					Regex: &discovery.Regex{Source: template, Program: program},
				},
				Cookies: []discovery.CookieMatch{{Name: "canary", String: discovery.StringMatch{Value: "yes"}, Invert: true}},
				Metadata: []discovery.MetadataMatch{{
					Filter: "envoy.filters.http.jwt_authn", Path: []string{"payload", "role"}, Invert: true,
					Value: discovery.ValueMatch{Kind: discovery.ValueString, String: discovery.StringMatch{Value: "cook"}},
				}},
				GRPC: true,
			},
			Headers: discovery.HeaderMutations{
				RequestAdd: []discovery.HeaderValue{{Name: "x-from", Format: &discovery.Format{
					Source: "%REQ(x-user?:authority):8% at %START_TIME(%s)%",
					Parts: []discovery.FormatPart{
						{Command: discovery.CommandRequestHeader, Name: "x-user", Alternative: ":authority", MaxLength: 8},
						{Text: " at "},
						{Command: discovery.CommandStartTime, Text: "%s"},
					},
				}}},
				ResponseAdd: []discovery.HeaderValue{{Name: "x-by", Format: &discovery.Format{
					Source: "%UPSTREAM_REMOTE_ADDRESS%", Parts: []discovery.FormatPart{{Command: discovery.CommandUpstreamAddress}},
				}}},
			},
			Forward: &discovery.Forward{
				Clusters: []discovery.WeightedCluster{{Header: "x-cluster", Weight: 1}},
				Timeout:  defaultRouteTimeout,
				PathSubstitution: &discovery.Substitution{
					Source: "/videos/{lang}/{file}.m4s", Template: "/{file}/$/{lang}", Program: program, Replacement: "/${file}/$$/${lang}",
				},
				HostFrom:            &discovery.HostSource{Header: "x-host"},
				AppendForwardedHost: true,
				InternalRedirect: &discovery.InternalRedirect{
					MaxRedirects: 3, Statuses: []int{303, 302}, CrossScheme: true, SafeCrossScheme: true,
					PreviousRoutes: true, AllowedRoutes: []string{"next"}, CopyHeaders: []string{"x-token"},
				},
			},
		},
		{
			Match: discovery.RouteMatch{Path: discovery.PathMatch{Value: "/a"}},
			Forward: &discovery.Forward{
				Clusters: []discovery.WeightedCluster{{Name: "v1", Weight: 1, HostRewrite: "v1.shop"}, {Header: "x-other", Weight: 1}},
				WeightHash: []discovery.HashPolicy{
					{Header: "x-user", HeaderRewrite: substitution("@.*$", "", "")},
					{Cookie: "session", Terminal: true},
					{Query: "q"},
				},
				Hash: []discovery.HashPolicy{
					{Header: "x-user", HeaderRewrite: substitution("@.*$", "", "")},
					{Cookie: "session", Terminal: true},
					{Query: "q"},
				},
				Timeout:          defaultRouteTimeout,
				PathSubstitution: substitution("^/a/([^/]+)", `/$\1\\`, `/$$${1}\`),
				HostFrom:         &discovery.HostSource{Endpoint: true},
				InternalRedirect: &discovery.InternalRedirect{MaxRedirects: 1, Statuses: []int{302}},
			},
		},
		{
			Match: discovery.RouteMatch{Path: discovery.PathMatch{Value: "/b"}},
			Forward: &discovery.Forward{
				Clusters:     []discovery.WeightedCluster{{Name: "v1", Weight: 1}, {Name: "v2", Weight: 1}},
				WeightHeader: "x-random",
				Timeout:      defaultRouteTimeout,
				PathFormat: &discovery.Format{Source: "/b/%REQ(x-b)%", Parts: []discovery.FormatPart{
					{Text: "/b/"}, {Command: discovery.CommandRequestHeader, Name: "x-b"},
				}},
				HostFrom: &discovery.HostSource{Path: substitution("^/b/(.*)$", `\1`, "${1}")},
			},
		},
		{
			Match:    discovery.RouteMatch{Path: discovery.PathMatch{Value: "/c"}},
			Redirect: &discovery.Redirect{Status: 301, PathSubstitution: substitution("c", "d", "d")},
		},
		{
			Match: discovery.RouteMatch{Path: discovery.PathMatch{Value: "/d"}},
			Redirect: &discovery.Redirect{Status: 301, PathFormat: &discovery.Format{
				Source: "/e%REQ(x-e)%",
				Parts:  []discovery.FormatPart{{Text: "/e"}, {Command: discovery.CommandRequestHeader, Name: "x-e"}},
			}},
		},
	}
	if diff := cmp.Diff(want, got.VirtualHosts[0].Routes, sameModel); diff != "" {
		t.Errorf("routes (-want +got):\n%s", diff)
	}
}

func TestBadRewrites(t *testing.T) {
	t.Parallel()
	const route = "virtual_hosts[0].routes[0]."
	acting := func(action string) string { return tableWith(`{"match": {"prefix": "/"}, ` + action + `}`) }
	forwarding := func(fields string) string { return acting(`"route": {"cluster": "c", ` + fields + `}`) }
	redirecting := func(predicate string) string {
		return forwarding(`"internalRedirectPolicy": {"predicates": [{"name": "p", "typedConfig": ` + predicate + `}]}`)
	}
	wantRouteErrors(t, []routeCase{
		{"two rewrites of the path", forwarding(`"prefixRewrite": "/a", "regexRewrite": {"pattern": {"regex": "a"}}`),
			[]string{route + "route.regex_rewrite: must not be set beside prefix_rewrite"}},
		{"a rewrite of a template without one", forwarding(`"pathRewritePolicy": {"name": "t", "typedConfig": {
			"@type": "type.googleapis.com/envoy.extensions.path.rewrite.uri_template.v3.UriTemplateRewriteConfig", "pathTemplateRewrite": "/a"}}`),
			[]string{route + "route.path_rewrite_policy: needs a match by path_match_policy, whose variables it uses"}},
		{"another policy to rewrite", forwarding(`"pathRewritePolicy": {"name": "t", "typedConfig": {"@type": "type.googleapis.com/envoy.config.core.v3.Locality"}}`),
			[]string{route + `route.path_rewrite_policy.typed_config: "envoy.config.core.v3.Locality" is not supported here: must be "envoy.extensions.path.rewrite.uri_template.v3.UriTemplateRewriteConfig"`}},
		{"another policy to match", tableWith(`{"match": {"pathMatchPolicy": {"name": "t", "typedConfig": {"@type": "type.googleapis.com/envoy.config.core.v3.Locality"}}}, "nonForwardingAction": {}}`),
			[]string{route + `match.path_match_policy.typed_config: "envoy.config.core.v3.Locality" is not supported here: must be "envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig"`}},
		{"a template without regard to case", tableWith(`{"match": {"caseSensitive": false, "pathMatchPolicy": {"name": "t", "typedConfig": {
			"@type": "type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig", "pathTemplate": "/a"}}}, "nonForwardingAction": {}}`),
			[]string{route + "match.case_sensitive: false does not apply to path_match_policy"}},
		{"a path with an unknown command", forwarding(`"pathRewrite": "/%DYNAMIC_METADATA(a:b)%"`),
			[]string{route + `route.path_rewrite: command DYNAMIC_METADATA is not supported: use one of ` + requestCommands}},
		{"an expression that is broken", forwarding(`"regexRewrite": {"pattern": {"regex": "a("}}`),
			[]string{route + "route.regex_rewrite.pattern: missing closing )"}},
		{"a host that is none", forwarding(`"hostRewriteLiteral": "a b"`),
			[]string{route + `route.host_rewrite_literal: "a b" is not a valid host`}},
		{"a name beside a header", acting(`"route": {"weightedClusters": {"clusters": [{"name": "a", "clusterHeader": "x", "weight": 1}]}}`),
			[]string{route + "route.weighted_clusters.clusters[0].cluster_header: must not be set beside name"}},
		{"a hash without a policy", acting(`"route": {"weightedClusters": {"useHashPolicy": true, "clusters": [{"name": "a", "weight": 1}]}}`),
			[]string{route + "route.weighted_clusters.use_hash_policy: needs a hash_policy"}},
		{"an unknown predicate", redirecting(`{"@type": "type.googleapis.com/envoy.config.core.v3.Locality"}`),
			[]string{route + `route.internal_redirect_policy.predicates[0].typed_config: internal redirect predicate "envoy.config.core.v3.Locality" is not supported: use one of AllowListedRoutesConfig, PreviousRoutesConfig, SafeCrossSchemeConfig`}},
		{"metadata under no key", tableWith(`{"match": {"prefix": "/", "dynamicMetadata": [{"filter": "f", "path": [{"key": ""}], "value": {"presentMatch": true}}]}, "nonForwardingAction": {}}`),
			[]string{route + `match.dynamic_metadata[0].path[0].key: value length must be at least 1 runes`}},
		{"a command of responses for a request", `{"name": "r", "requestHeadersToAdd": [{"header": {"key": "x", "value": "%RESP(x)%"}}]}`,
			[]string{`request_headers_to_add[0].header.value: command RESP is for responses only`}},
	})
}

// requestCommands are those that an error lists.
var requestCommands = strings.Join([]string{
	"DOWNSTREAM_DIRECT_REMOTE_ADDRESS", "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT", "DOWNSTREAM_DIRECT_REMOTE_PORT",
	"DOWNSTREAM_LOCAL_ADDRESS", "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", "DOWNSTREAM_LOCAL_PORT", "DOWNSTREAM_PEER_URI_SAN",
	"DOWNSTREAM_REMOTE_ADDRESS", "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", "DOWNSTREAM_REMOTE_PORT",
	"HOSTNAME", "PROTOCOL", "QUERY_PARAM", "REQ", "ROUTE_NAME", "START_TIME", "UPSTREAM_CLUSTER",
}, ", ")

// The examples are those of Envoy's documentation of templates.
func TestBU2_PathTemplates(t *testing.T) {
	t.Parallel()
	tests := []struct {
		template string
		yes, no  []string
	}{
		{"/", []string{"/"}, []string{"", "/a"}},
		{"/a/", []string{"/a/"}, []string{"/a", "/a/b"}},
		{"/videos/*/*/*.m4s", []string{"/videos/123414/hls/1080p5000_00001.m4s"}, []string{"/videos/hls/1.m4s", "/videos/1/2/3/4.m4s", "/videos/1/2/3.mp4"}},
		{"/api/{seg}/**", []string{"/api/a;b=c/d", "/api/=/d=e/f"}, []string{"/api/a*b/d", "/api/a|b/d"}},
		{"/a=b/{x=c=d/*}", []string{"/a=b/c=d/e=f"}, []string{"/a/c=d/e"}},
		{"/videos/{file}", []string{"/videos/1080p5000_00001.m4s"}, []string{"/videos/", "/videos/a/b", "/videos"}},
		{"/**.mpd", []string{"/content/123/india/dash/55/manifest.mpd", "/a.mpd", "/.mpd"}, []string{"/a.m3u8"}},
		{"/api/v{version}/users/{id}.json", []string{"/api/v2/users/456.json"}, []string{"/api/2/users/456.json", "/api/v2/users/4/5.json"}},
		{"/**", []string{"/", "/a", "/a/b/c"}, []string{"", "a"}},
		{"/a/{rest=**}", []string{"/a/", "/a/b/c"}, []string{"/a", "/b/"}},
		{"/{name=videos/*}/x", []string{"/videos/7/x"}, []string{"/video/7/x", "/videos/7/8/x"}},
		{"/a.b/$(c)+", []string{"/a.b/$(c)+"}, []string{"/aab/$(c)+"}},
		{"/%7Ea/*", []string{"/%7Ea/b"}, []string{"/~a/b"}},
	}
	for _, tt := range tests {
		expression, err := parseTemplate(tt.template)
		if err != nil {
			t.Errorf("%s: %v", tt.template, err)
			continue
		}
		program := regexp.MustCompile(`\A` + expression + `\z`)
		for _, path := range tt.yes {
			if !program.MatchString(path) {
				t.Errorf("%s does not match %q", tt.template, path)
			}
		}
		for _, path := range tt.no {
			if program.MatchString(path) {
				t.Errorf("%s matches %q", tt.template, path)
			}
		}
	}
}

func TestBU2_BadPathTemplates(t *testing.T) {
	t.Parallel()
	for template, want := range map[string]string{
		"a/b":                      `must begin with "/"`,
		"/a//b":                    "has an empty segment",
		"/a/**/b/*":                `has an operator after "**", which must be the last`,
		"/**/{a}":                  `has an operator after "**", which must be the last`,
		"/{a=**}/{b=**}":           `has an operator after "**", which must be the last`,
		"/a*":                      `has text before an operator: use a variable, "{name}"`,
		"/*a/b":                    `has text after an operator that is not at the end: use a variable, "{name}"`,
		"/***":                     "has two operators in one segment",
		"/{a}{b}":                  "has two operators in one segment",
		"/{a":                      `has a "{" without "}"`,
		"/{}":                      `variable "": a name has 1..16 characters`,
		"/{1a}":                    `variable "1a": a name has letters, digits and "_", and begins with a letter`,
		"/{a234567890abcdefg}":     `variable "a234567890abcdefg": a name has 1..16 characters`,
		"/{a}/{a}":                 `variable "a" is there twice`,
		"/{a}/{b}/{c}/{d}/{e}/{f}": "has more than 5 variables",
		"/{a=}":                    `variable "a": has an empty segment`,
		"/a b":                     "has ' ', which a path segment does not have unescaped",
		"/a}":                      "has '}', which a path segment does not have unescaped",
	} {
		if _, err := parseTemplate(template); err == nil || err.Error() != want {
			t.Errorf("%s: error %v, want %s", template, err, want)
		}
	}
}

func TestBU5_TemplatesPutVariablesTogetherAnew(t *testing.T) {
	t.Parallel()
	tests := []struct{ match, rewrite, path, want string }{
		{"/{one}/{two}", "/{two}/{one}", "/cat/dog", "/dog/cat"},
		{"/videos/{language=lang/*}/*", "/{language}", "/videos/lang/en/video.m4s", "/lang/en"},
		{"/content/{format}/{lang}/{id}/{file}.vtt", "/{lang}/{format}/{file}.vtt", "/content/hls/en-us/12345/en_193913.vtt", "/en-us/hls/en_193913.vtt"},
		{"/a/{rest=**}", "/b/$1/{rest}x", "/a/c/d", "/b/$1/c/dx"},
		{"/{a}", "/", "/x", "/"},
	}
	for _, tt := range tests {
		expression, err := parseTemplate(tt.match)
		if err != nil {
			t.Fatal(err)
		}
		s := discovery.Substitution{Program: regexp.MustCompile(`\A` + expression + `\z`)}
		if s.Replacement, err = parseTemplateRewrite(tt.rewrite, s.Program); err != nil {
			t.Errorf("%s: %v", tt.rewrite, err)
			continue
		}
		if got := s.Replace(tt.path); got != tt.want {
			t.Errorf("%s with %s: %q became %q, want %q", tt.match, tt.rewrite, tt.path, got, tt.want)
		}
	}
	program := regexp.MustCompile(`\A/(?P<a>.*)\z`)
	for rewrite, want := range map[string]string{
		"a":      `must begin with "/"`,
		"/a//b":  "has an empty segment",
		"/{b}":   `the match has no variable "b"`,
		"/{}":    `the match has no variable ""`,
		"/{a":    `has a "{" without "}"`,
		"/{a}*":  "has '*', which a path segment does not have unescaped",
		"/a?{a}": "has '?', which a path segment does not have unescaped",
	} {
		if _, err := parseTemplateRewrite(rewrite, program); err == nil || err.Error() != want {
			t.Errorf("%s: error %v, want %s", rewrite, err, want)
		}
	}
}

// The examples are those of Envoy's RouteAction.regex_rewrite.
func TestBU5_ExpressionsRewriteWhatTheyMatch(t *testing.T) {
	t.Parallel()
	tests := []struct{ pattern, text, path, want string }{
		{"^/service/([^/]+)(/.*)$", `\2/instance/\1`, "/service/foo/v1/api", "/v1/api/instance/foo"},
		{"one", "two", "/xxx/one/yyy/one/zzz", "/xxx/two/yyy/two/zzz"},
		{"^(.*?)one(.*)$", `\1two\2`, "/xxx/one/yyy/one/zzz", "/xxx/two/yyy/one/zzz"},
		{"(?i)/xxx/", "/yyy/", "/aaa/XxX/bbb", "/aaa/yyy/bbb"},
		{"(a)(b)?", `[\0|\1|\2|$1]`, "/a", "/[a|a||$1]"},
	}
	for _, tt := range tests {
		program, err := compileSearch(tt.pattern)
		if err != nil {
			t.Fatal(err)
		}
		replacement, err := parseReplacement(tt.text, program.NumSubexp())
		if err != nil {
			t.Fatal(err)
		}
		s := discovery.Substitution{Program: program, Replacement: replacement}
		if got := s.Replace(tt.path); got != tt.want {
			t.Errorf("%s with %s: %q became %q, want %q", tt.pattern, tt.text, tt.path, got, tt.want)
		}
	}
	for text, want := range map[string]string{
		`\2`:                      `has "\2", but the pattern has 1 groups`,
		`\`:                       `has a "\" at the end: write "\\"`,
		`\n`:                      `has "\n": only "\0" to "\9" and "\\" have a meaning`,
		"a\n":                     "has a control character",
		strings.Repeat("x", 1025): "has 1025 bytes: at most 1024 are allowed",
	} {
		if _, err := parseReplacement(text, 1); err == nil || err.Error() != want {
			t.Errorf("%s: error %v, want %s", text, err, want)
		}
	}
}

func FuzzPathTemplate(f *testing.F) {
	for _, template := range []string{"/", "/a/*", "/{a=b/**}x", "/v{a}/{b}.json", "/**.mpd", "/a//b", "/{"} {
		f.Add(template, "/a/b", "/{a}")
	}
	f.Fuzz(func(t *testing.T, template, path, rewrite string) {
		expression, err := parseTemplate(template)
		if err != nil {
			return
		}
		program, err := regexp.Compile(`\A` + expression + `\z`)
		if err != nil {
			t.Fatalf("%q: %v", template, err)
		}
		replacement, err := parseTemplateRewrite(rewrite, program)
		if err != nil || !program.MatchString(path) {
			return
		}
		s := discovery.Substitution{Program: program, Replacement: replacement}
		if got := s.Replace(path); !strings.HasPrefix(got, "/") {
			t.Errorf("%q became %q", path, got)
		}
	})
}
