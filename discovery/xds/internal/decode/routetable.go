package decode

import (
	"maps"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/inboardmesh/inboard/discovery"
)

var routeTableFields = []messageFields{
	{
		message: (*routev3.RouteConfiguration)(nil),
		read: "name virtual_hosts response_headers_to_add response_headers_to_remove " +
			"request_headers_to_add request_headers_to_remove most_specific_header_mutations_wins " +
			"max_direct_response_body_size_bytes cluster_specifier_plugins ignore_port_in_host_matching " +
			"typed_per_filter_config request_mirror_policies",
		// A table may name clusters that are not there: they fail their own
		// calls.
		zero: "validate_clusters",
		// Metadata is for filters and access logs that are not there.
		harmless: "metadata",
		instead: map[string]string{
			"vhds":                  "virtual hosts come with their table: use virtual_hosts",
			"internal_only_headers": "use request_headers_to_remove",
			"vhost_header":          "the virtual host is found by the authority",
			"ignore_path_parameters_in_path_matching": "policies and the application would read different paths",
			"route_specifiers":                        "no route specifier is known: write the routes out",
		},
	},
	{message: (*routev3.ClusterSpecifierPlugin)(nil), read: "extension is_optional"},
	{
		message: (*routev3.VirtualHost)(nil),
		read: "name domains routes request_headers_to_add request_headers_to_remove " +
			"response_headers_to_add response_headers_to_remove typed_per_filter_config retry_policy " +
			"include_request_attempt_count include_attempt_count_in_response include_is_timeout_retry_header hedge_policy request_mirror_policies cors",
		// virtual_clusters name metrics. Metadata is for filters and access
		// logs that are not there.
		harmless: "virtual_clusters metadata",
		instead: map[string]string{
			"matcher":                        "use routes",
			"require_tls":                    "whether TLS is needed is said by the listener's filter chains",
			"rate_limits":                    "there is no rate limit service here",
			"retry_policy_typed_config":      "use retry_policy",
			"per_request_buffer_limit_bytes": "how much of a body is kept for retries is not configurable",
			"request_body_buffer_limit":      "how much of a body is kept for retries is not configurable",
			"route_specifiers":               "no route specifier is known: write the routes out",
		},
	},
}

// defaultDirectResponseSize is Envoy's max_direct_response_body_size_bytes.
const defaultDirectResponseSize = 4096

// tableDecoder is a decoder with what the whole table says about its routes.
type tableDecoder struct {
	*decoder
	maxBody int
	// plugins are the names of the optional cluster specifier plugins.
	plugins map[string]struct{}
	// tableMirrors are for virtual hosts that have none, hostMirrors for routes.
	tableMirrors, hostMirrors []discovery.Mirror
}

// routeTable decodes a RouteConfiguration.
func (d *decoder) routeTable(at path, m *routev3.RouteConfiguration) *discovery.RouteTable {
	t := &tableDecoder{decoder: d, maxBody: defaultDirectResponseSize, plugins: d.optionalPlugins(at, m)}
	if limit := m.GetMaxDirectResponseBodySizeBytes(); limit != nil {
		t.maxBody = int(limit.GetValue())
	}
	table := &discovery.RouteTable{
		Name:                            m.GetName(),
		Headers:                         d.headerMutations(at, m),
		MostSpecificHeaderMutationsWins: m.GetMostSpecificHeaderMutationsWins(),
		IgnorePortInHostMatching:        m.GetIgnorePortInHostMatching(),
	}
	filters := d.filterOverrides(at, m.GetTypedPerFilterConfig())
	t.tableMirrors = d.mirrors(at, m.GetRequestMirrorPolicies())
	domains := make(map[string]path)
	for i, vh := range m.GetVirtualHosts() {
		host := t.virtualHost(at.element("virtual_hosts", i), vh, domains)
		inheritChecks(filters, host.Filters)
		host.Filters = withDefaults(host.Filters, filters)
		for _, r := range host.Routes {
			inheritChecks(host.Filters, r.Filters)
		}
		table.VirtualHosts = append(table.VirtualHosts, host)
	}
	return table
}

// optionalPlugins refuses the cluster specifier plugins, none of which is
// known, and returns the names of those that are optional.
func (d *decoder) optionalPlugins(at path, m *routev3.RouteConfiguration) map[string]struct{} {
	names := make(map[string]struct{})
	for i, plugin := range m.GetClusterSpecifierPlugins() {
		if plugin.GetIsOptional() {
			names[plugin.GetExtension().GetName()] = struct{}{}
			continue
		}
		d.refusef(at.element("cluster_specifier_plugins", i), "cluster specifier plugin %q is not supported", typeName(plugin.GetExtension().GetTypedConfig()))
	}
	return names
}

// withDefaults adds the filter configuration of the table, which is the least
// specific, to that of a virtual host.
func withDefaults(of, defaults map[string]discovery.FilterOverride) map[string]discovery.FilterOverride {
	if len(defaults) == 0 {
		return of
	}
	all := maps.Clone(defaults)
	maps.Copy(all, of)
	return all
}

// virtualHost decodes a VirtualHost. domains holds those of the former hosts.
func (t *tableDecoder) virtualHost(at path, m *routev3.VirtualHost, domains map[string]path) *discovery.VirtualHost {
	host := &discovery.VirtualHost{
		Name:    m.GetName(),
		Domains: m.GetDomains(),
		Headers: t.headerMutations(at, m),
		Filters: t.filterOverrides(at, m.GetTypedPerFilterConfig()),
	}
	host.Filters = t.legacyCORS(at.field("cors"), m.GetCors(), host.Filters) //nolint:staticcheck // the deprecated field is still in use
	host.Hedge = t.hedgePolicy(at.field("hedge_policy"), m.GetHedgePolicy())
	host.Retry, host.RetryHeaders = t.retryPolicy(at.field("retry_policy"), m.GetRetryPolicy())
	for i, domain := range m.GetDomains() {
		t.domain(at.element("domains", i), domain, domains)
	}
	t.hostMirrors = t.tableMirrors
	if policies := m.GetRequestMirrorPolicies(); len(policies) > 0 {
		t.hostMirrors = t.mirrors(at, policies)
	}
	for i, r := range m.GetRoutes() {
		decoded := t.route(at.element("routes", i), r, host)
		if f := decoded.Forward; f != nil {
			f.AttemptCount, f.TimeoutRetry = m.GetIncludeRequestAttemptCount(), m.GetIncludeIsTimeoutRetryHeader()
			f.AttemptCountInResponse = m.GetIncludeAttemptCountInResponse()
		}
		host.Routes = append(host.Routes, decoded)
	}
	return host
}

// domain checks a domain of a virtual host: a name, "*.suffix", "prefix.*" or
// "*", once in a table, without regard to case.
func (d *decoder) domain(at path, domain string, domains map[string]path) {
	if len(domain) > 1 && strings.Contains(domain[1:len(domain)-1], "*") ||
		len(domain) > 1 && domain[0] == '*' && domain[len(domain)-1] == '*' {
		d.refusef(at, `%q: "*" must be the first or the last character, and only once`, domain)
	}
	if domain == "" {
		d.refusef(at, "must not be empty")
	}
	key := strings.ToLower(domain)
	if first, ok := domains[key]; ok {
		d.refusef(at, "%q is also %s", domain, first)
		return
	}
	domains[key] = at
}
