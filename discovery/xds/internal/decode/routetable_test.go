package decode

import (
	"fmt"
	"strings"
	"testing"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/google/go-cmp/cmp"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/retry"
)

func TestRouteConfigurationDecodesEveryField(t *testing.T) {
	t.Parallel()
	name, got, err := RouteConfiguration(marshal(t, fromJSON[routev3.RouteConfiguration](t, routesFixture)))
	if err != nil {
		t.Fatal(err)
	}
	if name != "outbound|80||payment.shop" {
		t.Errorf("name %q", name)
	}
	mutations := func(header string) discovery.HeaderMutations {
		add := []discovery.HeaderValue{{Name: header, Value: "1"}}
		return discovery.HeaderMutations{RequestAdd: add, RequestRemove: []string{"x-a"}, ResponseAdd: add, ResponseRemove: []string{"x-b"}}
	}
	off := discovery.FilterOverride{Disabled: true}
	want := &discovery.RouteTable{
		Name:                            "outbound|80||payment.shop",
		MostSpecificHeaderMutationsWins: true,
		IgnorePortInHostMatching:        true,
		Headers: discovery.HeaderMutations{
			RequestAdd:     []discovery.HeaderValue{{Name: "x-table", Value: "100%", Action: discovery.AddIfAbsent, KeepEmpty: true}},
			RequestRemove:  []string{"x-gone"},
			ResponseAdd:    []discovery.HeaderValue{{Name: "x-raw", Value: "raw", Action: discovery.OverwriteIfExistsOrAdd}},
			ResponseRemove: []string{"x-gone-too"},
		},
		VirtualHosts: []*discovery.VirtualHost{{
			Name:    "payment",
			Domains: []string{"payment.shop", "*.payment.shop"},
			Headers: mutations("x-host"),
			Retry:   &retry.Policy{MaxRetries: 2, On: retry.OnConnectFailure},
			Hedge:   &retry.Hedge{OnPerTryTimeout: true},
			Filters: map[string]discovery.FilterOverride{
				"off": off,
				"wrapped": {Config: &discovery.Fault{
					Abort:     &discovery.FaultAbort{IsGRPC: true, GRPCStatus: 14, PerMillion: 100},
					Headers:   []discovery.HeaderMatch{{Name: "x-fault", Kind: discovery.HeaderPresent, Present: true}},
					MaxActive: 7,
				}},
				// From the table, which is less specific.
				"fault": {Config: &discovery.Fault{Delay: &discovery.FaultDelay{Fixed: time.Second, PerMillion: 50_000}}},
			},
			Routes: []*discovery.Route{
				{
					Name: "canary",
					Match: discovery.RouteMatch{
						Path: discovery.PathMatch{Kind: discovery.PathPrefix, Value: "/pay", IgnoreCase: true},
						Headers: []discovery.HeaderMatch{
							{Name: "x-exact", String: discovery.StringMatch{Kind: discovery.MatchExact, Value: "a"}},
							{Name: "x-prefix", String: discovery.StringMatch{Kind: discovery.MatchPrefix, Value: "a"}},
							{Name: "x-suffix", String: discovery.StringMatch{Kind: discovery.MatchSuffix, Value: "a"}},
							{Name: "x-contains", String: discovery.StringMatch{Kind: discovery.MatchContains, Value: "a"}},
							{Name: "x-regex", String: discovery.StringMatch{Kind: discovery.MatchRegex, Value: "a+", Regex: mustRegex(t, "a+")}},
							{Name: "x-range", Kind: discovery.HeaderRange, Start: 1, End: 9},
							{Name: "x-present", Kind: discovery.HeaderPresent, Present: true, Invert: true},
							{Name: "x-string", String: discovery.StringMatch{Kind: discovery.MatchSuffix, Value: "z"}, TreatMissingAsEmpty: true},
						},
						Query: []discovery.QueryMatch{
							{Name: "q", String: discovery.StringMatch{Kind: discovery.MatchContains, Value: "v", IgnoreCase: true}},
							{Name: "q2", AnyValue: true},
						},
						PerMillion: new(uint32(250_000)),
					},
					Headers: mutations("x-route"),
					Filters: map[string]discovery.FilterOverride{
						"fault": {Config: &discovery.Fault{Abort: &discovery.FaultAbort{HTTPStatus: 503, PerMillion: 1}}},
					},
					Forward: &discovery.Forward{
						Clusters: []discovery.WeightedCluster{
							{Name: "v1", Weight: 90, Headers: mutations("x-cluster"), Filters: map[string]discovery.FilterOverride{"off": off}},
							{Name: "v2", Weight: 10},
						},
						Timeout:              3 * time.Second,
						MaxStreamDuration:    new(10 * time.Second),
						GRPCTimeoutHeaderMax: new(5 * time.Second),

						GRPCTimeoutHeaderOffset: 100 * time.Millisecond, IdleTimeout: new(7 * time.Second),
						Retry: &retry.Policy{
							MaxRetries:           3,
							On:                   retry.On5xx | retry.OnGRPCUnavailable | retry.OnRetriableStatusCodes,
							RetriableStatusCodes: []int{503, 429},
							PerTryTimeout:        250 * time.Millisecond,
							Backoff:              retry.Backoff{Base: 10 * time.Millisecond, Max: 100 * time.Millisecond},
							AvoidPreviousHosts:   true,
							OmitCanary:           true,
							OmitMetadata:         map[string]string{"stage": "test", "old": "true"},
							PriorityUpdates:      2,
							PerTryIdleTimeout:    500 * time.Millisecond,
							RateLimited: &retry.RateLimited{Max: time.Minute, Headers: []retry.ResetHeader{
								{Name: "retry-after"}, {Name: "x-ratelimit-reset", UnixTime: true},
							}},
						},
						RetryHeaders: &discovery.RetryHeaders{
							Response: []discovery.HeaderMatch{{Name: "x-again", Kind: discovery.HeaderPresent, Present: true}},
							Request:  []discovery.HeaderMatch{{Name: "x-may", String: discovery.StringMatch{Value: "yes"}}},
						},
						Hedge:                  &retry.Hedge{OnPerTryTimeout: true},
						AttemptCount:           true,
						AttemptCountInResponse: true,
						TimeoutRetry:           true,
						Priority:               discovery.PriorityHigh,
						PrefixRewrite:          "/v1",
						HostRewrite:            "payment-v1.shop",
					},
				},
				{
					Match: discovery.RouteMatch{Path: discovery.PathMatch{Kind: discovery.PathExact, Value: "/exact"}},
					Forward: &discovery.Forward{
						Clusters: []discovery.WeightedCluster{{Name: "v1", Weight: 1}},
						Timeout:  15 * time.Second,
						Retry:    &retry.Policy{MaxRetries: 2, On: retry.OnConnectFailure},
						Hedge:    &retry.Hedge{Delay: 50 * time.Millisecond, MaxAttempts: 3},
						MinTime:  20 * time.Millisecond,

						AttemptCount: true, AttemptCountInResponse: true, TimeoutRetry: true,
					},
				},
				{
					Match:    discovery.RouteMatch{Path: discovery.PathMatch{Kind: discovery.PathSeparatedPrefix, Value: "/sep"}},
					Redirect: &discovery.Redirect{Status: 307, Scheme: "http", Host: "h", Port: 81, Path: "/p", StripQuery: true},
				},
				{
					Match:    discovery.RouteMatch{Path: discovery.PathMatch{Kind: discovery.PathPrefix, Value: "/secure"}},
					Redirect: &discovery.Redirect{Status: 301, Scheme: "https", PrefixRewrite: "/s"},
				},
				{
					Match:  discovery.RouteMatch{Path: discovery.PathMatch{Kind: discovery.PathRegex, Value: "/a(b|c)", Regex: mustRegex(t, "/a(b|c)")}},
					Direct: &discovery.DirectResponse{Status: 418, Body: []byte("tea")},
				},
				{
					Match:  discovery.RouteMatch{Path: discovery.PathMatch{Kind: discovery.PathPrefix, Value: "/bytes"}},
					Direct: &discovery.DirectResponse{Status: 200, Body: []byte("hi")},
				},
				{
					Match: discovery.RouteMatch{Path: discovery.PathMatch{Kind: discovery.PathPrefix, Value: "/"}},
					Local: true,
				},
			},
		}},
	}
	if diff := cmp.Diff(want, got, sameModel); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
}

func mustRegex(tb testing.TB, source string) *discovery.Regex {
	tb.Helper()
	r, err := compileRegex(source)
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

// tableWith is a RouteConfiguration with one route, in JSON.
func tableWith(route string) string {
	return fmt.Sprintf(`{"name": "r", "virtualHosts": [{"name": "v", "domains": ["*"], "routes": [%s]}]}`, route)
}

func TestRouteDefaults(t *testing.T) {
	t.Parallel()
	_, table, err := RouteConfiguration(marshal(t, fromJSON[routev3.RouteConfiguration](t, tableWith(`{"match": {"prefix": "/"}, "route": {"cluster": "c", "retryPolicy": {"retryOn": "reset"}}}`))))
	if err != nil {
		t.Fatal(err)
	}
	want := &discovery.Forward{
		Clusters: []discovery.WeightedCluster{{Name: "c", Weight: 1}},
		Timeout:  15 * time.Second,
		Retry:    &retry.Policy{MaxRetries: 1, On: retry.OnReset},
	}
	if diff := cmp.Diff(want, table.VirtualHosts[0].Routes[0].Forward); diff != "" {
		t.Errorf("forward (-want +got):\n%s", diff)
	}
}

func TestZeroIsNotTheDefault(t *testing.T) {
	t.Parallel()
	_, table, err := RouteConfiguration(marshal(t, fromJSON[routev3.RouteConfiguration](t, tableWith(`{"match": {"prefix": "/", "runtimeFraction": {"defaultValue": {}}}, "route": {
		"cluster": "c", "timeout": "0s", "maxStreamDuration": {"maxStreamDuration": "0s"}, "retryPolicy": {"numRetries": 0}}}`))))
	if err != nil {
		t.Fatal(err)
	}
	r := table.VirtualHosts[0].Routes[0]
	if r.Forward.Timeout != 0 || r.Forward.Retry.MaxRetries != 0 {
		t.Errorf("timeout %v, retries %d: want none", r.Forward.Timeout, r.Forward.Retry.MaxRetries)
	}
	if d := r.Forward.MaxStreamDuration; d == nil || *d != 0 {
		t.Errorf("max stream duration %v: want a pointer to 0", d)
	}
	if f := r.Match.PerMillion; f == nil || *f != 0 {
		t.Errorf("fraction %v: want a pointer to 0", f)
	}
}

func TestWeightZeroIsNeverChosen(t *testing.T) {
	t.Parallel()
	_, table, err := RouteConfiguration(marshal(t, fromJSON[routev3.RouteConfiguration](t, tableWith(`{"match": {"prefix": "/"}, "route": {"weightedClusters": {
		"clusters": [{"name": "old", "weight": 0}, {"name": "none"}, {"name": "new", "weight": 4294967295}]}}}`))))
	if err != nil {
		t.Fatal(err)
	}
	want := []discovery.WeightedCluster{{Name: "new", Weight: 4294967295}}
	if diff := cmp.Diff(want, table.VirtualHosts[0].Routes[0].Forward.Clusters); diff != "" {
		t.Errorf("clusters (-want +got):\n%s", diff)
	}
}

func TestX76_RouteWeightsAndPlugins(t *testing.T) {
	t.Parallel()
	const at = "virtual_hosts[0].routes[0].route."
	route := func(action string) string {
		return tableWith(`{"match": {"prefix": "/"}, "route": ` + action + `}`)
	}
	wantRouteErrors(t, []routeCase{
		{"weights that add up to zero", route(`{"weightedClusters": {"clusters": [{"name": "a", "weight": 0}, {"name": "b"}]}}`),
			[]string{at + "weighted_clusters: the weights add up to 0: must be between 1 and 4294967295"}},
		{"weights that add up to more than 32 bits", route(`{"weightedClusters": {"clusters": [{"name": "a", "weight": 4294967295}, {"name": "b", "weight": 1}]}}`),
			[]string{at + "weighted_clusters: the weights add up to 4294967296: must be between 1 and 4294967295"}},
		{"weights that do not add up to the total", route(`{"weightedClusters": {"totalWeight": 100, "clusters": [{"name": "a", "weight": 99}]}}`),
			[]string{at + "weighted_clusters.total_weight: is 100, but the weights add up to 99"}},
		{"a plugin that is not optional", `{"name": "r", "clusterSpecifierPlugins": [{"extension": {"name": "p", "typedConfig": {"@type": "type.googleapis.com/envoy.config.core.v3.Locality"}}}]}`,
			[]string{`cluster_specifier_plugins[0]: cluster specifier plugin "envoy.config.core.v3.Locality" is not supported`}},
		{"a route to an optional plugin", strings.Replace(route(`{"clusterSpecifierPlugin": "p"}`), `{"name": "r"`,
			`{"name": "r", "clusterSpecifierPlugins": [{"isOptional": true, "extension": {"name": "p", "typedConfig": {"@type": "type.googleapis.com/envoy.config.core.v3.Locality"}}}]`, 1),
			[]string{at + `cluster_specifier_plugin: "p" is of a kind that is not supported`}},
		{"a route to a plugin that is not there", route(`{"clusterSpecifierPlugin": "p"}`),
			[]string{at + `cluster_specifier_plugin: "p" is not in cluster_specifier_plugins`}},
	})
}

type routeCase struct {
	name string
	json string
	want []string
}

func wantRouteErrors(t *testing.T, tests []routeCase) {
	t.Helper()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, table, err := RouteConfiguration(marshal(t, fromJSON[routev3.RouteConfiguration](t, tt.json)))
			if table != nil {
				t.Errorf("a table beside the error: %v", table)
			}
			wantErrors(t, err, tt.want...)
		})
	}
}

func TestBadRouteConfigurations(t *testing.T) {
	t.Parallel()
	const (
		route = "virtual_hosts[0].routes[0]."
		match = route + "match."
	)
	host := func(fields string) string {
		return `{"name": "r", "virtualHosts": [{"name": "v", "domains": ["*"], ` + fields + `}]}`
	}
	matching := func(m string) string { return tableWith(`{"match": ` + m + `, "nonForwardingAction": {}}`) }
	acting := func(action string) string { return tableWith(`{"match": {"prefix": "/"}, ` + action + `}`) }
	retrying := func(policy string) string {
		return acting(`"route": {"cluster": "c", "retryPolicy": ` + policy + `}`)
	}
	adding := func(option string) string { return `{"name": "r", "requestHeadersToAdd": [` + option + `]}` }
	wantRouteErrors(t, []routeCase{
		{"no name", `{}`, []string{"name: must not be empty"}},
		{"no domains", `{"name": "r", "virtualHosts": [{"name": "v"}]}`,
			[]string{"virtual_hosts[0].domains: value must contain at least 1 item(s)"}},
		{"a domain twice, in another case", `{"name": "r", "virtualHosts": [{"name": "a", "domains": ["A.shop"]}, {"name": "b", "domains": ["b", "a.shop"]}]}`,
			[]string{`virtual_hosts[1].domains[1]: "a.shop" is also virtual_hosts[0].domains[0]`}},
		{"domains that are no patterns", `{"name": "r", "virtualHosts": [{"name": "a", "domains": ["a*b", "*a*", "**", "", "*"]}]}`,
			[]string{
				`virtual_hosts[0].domains[0]: "a*b": "*" must be the first or the last character, and only once`,
				`virtual_hosts[0].domains[1]: "*a*": "*" must be the first or the last character, and only once`,
				`virtual_hosts[0].domains[2]: "**": "*" must be the first or the last character, and only once`,
				`virtual_hosts[0].domains[3]: must not be empty`,
			}},
		{"VHDS", `{"name": "r", "vhds": {"configSource": {"ads": {}}}}`, []string{"vhds: not supported: virtual hosts come with their table: use virtual_hosts"}},
		{"no match and no action", tableWith(`{}`),
			[]string{route + "match: value is required", route + "action: value is required"}},
		{"a match without a path", matching(`{}`), []string{match + "path_specifier: value is required"}},
		{"an action that is not supported", acting(`"filterAction": {}`), []string{route + "filter_action: not supported: it is for filters that route by themselves, of which there is none"}},
		{"a cluster without a name", acting(`"route": {"weightedClusters": {"clusters": [{"weight": 1}]}}`),
			[]string{route + "route.weighted_clusters.clusters[0].name: must not be empty unless cluster_header is set"}},
		{"an unknown priority", acting(`"route": {"cluster": "c", "priority": 7}`),
			[]string{route + "route.priority: value must be one of the defined enum values"}},
		{"a negative timeout", acting(`"route": {"cluster": "c", "timeout": "-1s"}`), []string{route + "route.timeout: must not be negative: is -1s"}},

		{"a broken expression", matching(`{"safeRegex": {"regex": "a)|(b"}}`),
			[]string{match + "safe_regex: unexpected )"}},
		{"a repetition of repetitions", matching(`{"safeRegex": {"regex": "((a{100}){100}){100}"}}`),
			[]string{match + "safe_regex: error parsing regexp: invalid repeat count: `{100}`"}},
		{"an expression without case", matching(`{"safeRegex": {"regex": "a"}, "caseSensitive": false}`),
			[]string{match + `case_sensitive: false does not apply to safe_regex: begin the expression with "(?i)"`}},
		{"a separated prefix with a slash at the end", matching(`{"pathSeparatedPrefix": "/a/"}`),
			[]string{match + "path_separated_prefix: value does not match regex pattern \"^[^?#]+[^?#/]$\""}},
		{"a header without a name", matching(`{"prefix": "/", "headers": [{"presentMatch": true}]}`),
			[]string{match + "headers[0].name: value length must be at least 1 runes"}},
		{"a header with an empty prefix", matching(`{"prefix": "/", "headers": [{"name": "a", "stringMatch": {"prefix": ""}}]}`),
			[]string{match + "headers[0].string_match.prefix: value length must be at least 1 runes"}},
		{"a header with an empty string match", matching(`{"prefix": "/", "headers": [{"name": "a", "stringMatch": {}}]}`),
			[]string{match + "headers[0].string_match.match_pattern: value is required"}},
		{"a header with a custom match", matching(`{"prefix": "/", "headers": [{"name": "a", "stringMatch": {"custom": {"name": "x", "typedConfig": {"@type": "type.googleapis.com/envoy.config.core.v3.Locality"}}}}]}`),
			[]string{
				match + "headers[0].string_match.custom: not supported",
				match + "headers[0].string_match.match_pattern: must be exact, prefix, suffix, contains or safe_regex",
			}},
		{"a query parameter that must be absent", matching(`{"prefix": "/", "queryParameters": [{"name": "q", "presentMatch": false}]}`),
			[]string{match + "query_parameters[0].present_match: false is not supported"}},
		{"a fraction without a value", matching(`{"prefix": "/", "runtimeFraction": {}}`),
			[]string{match + "runtime_fraction.default_value: value is required"}},

		{"an unknown retry condition", retrying(`{"retryOn": "5xx,5yy"}`),
			[]string{route + `route.retry_policy.retry_on: retry condition "5yy" is unknown: use one of 5xx, gateway-error, reset, reset-before-request, connect-failure, refused-stream, retriable-4xx, retriable-status-codes, retriable-headers, envoy-ratelimited, cancelled, deadline-exceeded, internal, resource-exhausted, unavailable, http3-post-connect-failure`}},
		{"a retry policy of a virtual host", host(`"retryPolicy": {"retriableStatusCodes": [99, 503, 600]}`),
			[]string{
				"virtual_hosts[0].retry_policy.retriable_status_codes[0]: 99 is not an HTTP status: must be between 100 and 599",
				"virtual_hosts[0].retry_policy.retriable_status_codes[2]: 600 is not an HTTP status: must be between 100 and 599",
			}},
		{"another host predicate", retrying(`{"retryHostPredicate": [{"name": "envoy.retry_host_predicates.omit_host_metadata"}]}`),
			[]string{route + `route.retry_policy.retry_host_predicate[0].name: "envoy.retry_host_predicates.omit_host_metadata" is not supported without typed_config: use "envoy.retry_host_predicates.previous_hosts" or "envoy.retry_host_predicates.omit_canary_hosts"`}},
		{"another typed host predicate", retrying(`{"retryHostPredicate": [{"name": "p", "typedConfig": {"@type": "type.googleapis.com/envoy.config.core.v3.Locality"}}]}`),
			[]string{route + `route.retry_policy.retry_host_predicate[0].typed_config: "envoy.config.core.v3.Locality" is not supported here: must be "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"`}},
		{"metadata to omit that are none", retrying(`{"retryHostPredicate": [{"name": "p", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.retry.host.omit_host_metadata.v3.OmitHostMetadataConfig"}}]}`),
			[]string{route + `route.retry_policy.retry_host_predicate[0].typed_config.metadata_match: must have values of "envoy.lb": without one it would omit every host`}},
		{"metadata to omit of another kind", retrying(`{"retryHostPredicate": [{"name": "p", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.retry.host.omit_host_metadata.v3.OmitHostMetadataConfig",
			"metadataMatch": {"filterMetadata": {"envoy.lb": {"n": 1}, "istio": {}}}}}]}`),
			[]string{
				route + `route.retry_policy.retry_host_predicate[0].typed_config.metadata_match.filter_metadata["envoy.lb"].n: must be a string or a bool: is 1`,
				route + `route.retry_policy.retry_host_predicate[0].typed_config.metadata_match.filter_metadata["istio"]: not supported: use "envoy.lb"`,
			}},
		{"another retry priority", retrying(`{"retryPriority": {"name": "p", "typedConfig": {"@type": "type.googleapis.com/envoy.config.core.v3.Locality"}}}`),
			[]string{route + `route.retry_policy.retry_priority.typed_config: "envoy.config.core.v3.Locality" is not supported here: must be "envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig"`}},
		{"retry priorities that are never updated", retrying(`{"retryPriority": {"name": "p", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig"}}}`),
			[]string{route + `route.retry_policy.retry_priority.typed_config.update_frequency: value must be greater than 0`}},
		{"back-off that shrinks", retrying(`{"retryBackOff": {"baseInterval": "1s", "maxInterval": "0.5s"}}`),
			[]string{route + "route.retry_policy.retry_back_off.max_interval: 500ms is less than base_interval 1s"}},
		{"back-off without a base", retrying(`{"retryBackOff": {"maxInterval": "0.5s"}}`),
			[]string{route + "route.retry_policy.retry_back_off.base_interval: value is required"}},

		{"a hedge that nobody implements", acting(`"route": {"cluster": "c", "hedgePolicy": {"initialRequests": 2, "additionalRequestChance": {"numerator": 1}}}`),
			[]string{
				route + "route.hedge_policy.additional_request_chance: not supported: no Envoy implements it",
				route + `route.hedge_policy.initial_requests: 2 is not supported, as no Envoy implements it: use the metadata "inboard.hedge"`,
			}},
		{"a hedge in metadata that is none", acting(`"route": {"cluster": "c"}, "metadata": {"filterMetadata": {"inboard.hedge": {"maxAttempts": 1, "wait": "1s"}}}`),
			[]string{
				route + `metadata.filter_metadata["inboard.hedge"].maxAttempts: must be at least 2: the first attempt counts`,
				route + `metadata.filter_metadata["inboard.hedge"].wait: unknown: use delay and maxAttempts`,
				route + `metadata.filter_metadata["inboard.hedge"].delay: must be set to a positive duration`,
			}},
		{"a minimum of time that is none", acting(`"route": {"cluster": "c"}, "metadata": {"filterMetadata": {"inboard.deadline": {"minimum": "-1s", "max": 1}}}`),
			[]string{
				route + `metadata.filter_metadata["inboard.deadline"].max: unknown: use minimum`,
				route + `metadata.filter_metadata["inboard.deadline"].minimum: must not be negative: is -1s`,
			}},

		{"a body that is too long", acting(`"directResponse": {"status": 200, "body": {"inlineString": "` + strings.Repeat("x", 4097) + `"}}`),
			[]string{route + "direct_response.body: has 4097 bytes: at most 4096 are allowed (max_direct_response_body_size_bytes)"}},
		{"a body from a file", acting(`"directResponse": {"status": 200, "body": {"filename": "/etc/passwd"}}`),
			[]string{route + "direct_response.body.filename: not supported"}},
		{"a status that is none", acting(`"directResponse": {"status": 42}`),
			[]string{route + "direct_response.status: value must be inside range [200, 600)"}},

		{"a header value with an unknown command", adding(`{"header": {"key": "x", "value": "%ENVIRONMENT(HOME)%"}}`),
			[]string{`request_headers_to_add[0].header.value: command ENVIRONMENT is not supported: use one of ` + requestCommands}},
		{"a raw header value with a percent sign", adding(`{"header": {"key": "x", "rawValue": "JQ=="}}`),
			[]string{`request_headers_to_add[0].header.raw_value: "%" begins no command: write "%%" for a percent sign`}},
		{"two header values", adding(`{"header": {"key": "x", "value": "a", "rawValue": "YQ=="}}`),
			[]string{`request_headers_to_add[0].header.raw_value: must not be set beside value`}},
		{"a raw header value with a line break", adding(`{"header": {"key": "x", "rawValue": "YQpi"}}`),
			[]string{`request_headers_to_add[0].header.raw_value: is not a valid header value`}},
		{"no header", adding(`{}`),
			[]string{"request_headers_to_add[0].header: value is required", `request_headers_to_add[0].header.key: "" is not a valid header name`}},
		{"append beside append_action", adding(`{"header": {"key": "x", "value": "a"}, "append": true, "appendAction": "OVERWRITE_IF_EXISTS"}`),
			[]string{"request_headers_to_add[0].append: must not be set beside append_action"}},
		{"headers that must stay", `{"name": "r", "requestHeadersToRemove": [":path", "Host", "transfer-encoding", "a b"]}`,
			[]string{
				`request_headers_to_remove[0]: pseudo header ":path" must not be added or removed`,
				`request_headers_to_remove[1]: header "Host" must not be added or removed`,
				`request_headers_to_remove[2]: header "transfer-encoding" must not be added or removed`,
				`request_headers_to_remove[3]: "a b" is not a valid header name`,
			}},
		{"a pseudo header to add", `{"name": "r", "responseHeadersToAdd": [{"header": {"key": ":status", "value": "200"}}]}`,
			[]string{`response_headers_to_add[0].header.key: pseudo header ":status" must not be added or removed`}},

		{"a filter that is not known", host(`"typedPerFilterConfig": {"envoy.filters.http.cors": {"@type": "type.googleapis.com/envoy.config.core.v3.Locality"}}`),
			[]string{`virtual_hosts[0].typed_per_filter_config["envoy.filters.http.cors"]: HTTP filter "envoy.config.core.v3.Locality" is not supported`}},
		{"a wrapped filter that is not known", host(`"typedPerFilterConfig": {"f": {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "config": {"@type": "type.googleapis.com/envoy.config.core.v3.Locality"}}}`),
			[]string{`virtual_hosts[0].typed_per_filter_config["f"].config: HTTP filter "envoy.config.core.v3.Locality" is not supported`}},
		{"an empty filter wrapper", host(`"typedPerFilterConfig": {"f": {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "isOptional": true}}`),
			[]string{`virtual_hosts[0].typed_per_filter_config["f"].config: must be set unless disabled is`}},
		{"a fault without a limit", host(`"typedPerFilterConfig": {"f": {"@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault", "responseRateLimit": {"fixedLimit": {}, "percentage": {}}}}`),
			[]string{`virtual_hosts[0].typed_per_filter_config["f"].response_rate_limit.fixed_limit.limit_kbps: value must be greater than or equal to 1`}},
		{"a fault with a status that is none", host(`"typedPerFilterConfig": {"f": {"@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault", "abort": {"grpcStatus": 17}, "delay": {}}}`),
			[]string{
				`virtual_hosts[0].typed_per_filter_config["f"].delay.fault_delay_secifier: value is required`,
				`virtual_hosts[0].typed_per_filter_config["f"].abort.grpc_status: 17 is not a gRPC status code: must be between 0 and 16`,
			}},
		{"a header name with a line break", `{"name": "r", "requestHeadersToRemove": ["a\nb"]}`,
			[]string{"request_headers_to_remove[0]: value does not match regex pattern \"^[^\\x00\\n\\r]*$\""}},
	})
}

func TestAnEmptyFilterConfigEnablesTheFilter(t *testing.T) {
	t.Parallel()
	_, table, err := RouteConfiguration(marshal(t, fromJSON[routev3.RouteConfiguration](t, `{"name": "r", "virtualHosts": [{"name": "v", "domains": ["*"],
		"typedPerFilterConfig": {"f": {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "config": {}}}}]}`)))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]discovery.FilterOverride{"f": {}}
	if diff := cmp.Diff(want, table.VirtualHosts[0].Filters); diff != "" {
		t.Errorf("filters (-want +got):\n%s", diff)
	}
}

func TestNoActiveFaultAllowedMeansNoFault(t *testing.T) {
	t.Parallel()
	_, table, err := RouteConfiguration(marshal(t, fromJSON[routev3.RouteConfiguration](t, `{"name": "r", "virtualHosts": [{"name": "v", "domains": ["*"],
		"typedPerFilterConfig": {"f": {"@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault",
			"maxActiveFaults": 0, "abort": {"httpStatus": 500, "percentage": {"numerator": 100}}}}}]}`)))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(discovery.FilterConfig(&discovery.Fault{}), table.VirtualHosts[0].Filters["f"].Config); diff != "" {
		t.Errorf("fault (-want +got):\n%s", diff)
	}
}

func TestX59_AMatchOfAnUnknownKindIsNotTakenForPresence(t *testing.T) {
	t.Parallel()
	m := fromJSON[routev3.RouteConfiguration](t, tableWith(`{"match": {"prefix": "/", "headers": [{"name": "a"}], "queryParameters": [{"name": "q"}]}, "nonForwardingAction": {}}`))
	_, table, err := RouteConfiguration(marshal(t, m))
	if err != nil {
		t.Fatal(err)
	}
	match := table.VirtualHosts[0].Routes[0].Match
	if !match.Headers[0].Present || !match.Query[0].AnyValue {
		t.Errorf("a name alone must match presence: %+v", match)
	}
	unknown := []byte{0xfa, 0xff, 0x03, 0x01, 'x'} // field 8191
	bad := m.GetVirtualHosts()[0].GetRoutes()[0].GetMatch()
	bad.GetHeaders()[0].ProtoReflect().SetUnknown(unknown)
	bad.GetQueryParameters()[0].ProtoReflect().SetUnknown(unknown)
	_, _, err = RouteConfiguration(marshal(t, m))
	wantErrors(t, err,
		"virtual_hosts[0].routes[0].match.headers[0].header_match_specifier: is of an unknown kind",
		"virtual_hosts[0].routes[0].match.query_parameters[0].query_parameter_match_specifier: is of an unknown kind",
	)
}
