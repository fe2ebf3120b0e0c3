package decode

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"github.com/google/go-cmp/cmp"

	"github.com/inboardmesh/inboard/discovery"
)

func TestListenerDecodesAnAPIListener(t *testing.T) {
	t.Parallel()
	name, got, err := Listener(marshal(t, fromJSON[listenerv3.Listener](t, apiListenerFixture)))
	if err != nil {
		t.Fatal(err)
	}
	if name != "payment.shop:80" {
		t.Errorf("name %q", name)
	}
	want := &ListenerResource{Outbound: &discovery.APIListener{
		Name:      "payment.shop:80",
		RouteName: "outbound|80||payment.shop",
		Filters: []discovery.HTTPFilter{{
			Name:     "fault",
			Disabled: true,
			Config:   &discovery.Fault{Delay: &discovery.FaultDelay{Fixed: 2 * time.Second, PerMillion: 100_000}},
		}},
		MaxStreamDuration: 30 * time.Second,
		StreamIdleTimeout: 40 * time.Second,
	}}
	if diff := cmp.Diff(want, got, sameModel); diff != "" {
		t.Errorf("listener (-want +got):\n%s", diff)
	}
}

func TestListenerDecodesInlineRoutes(t *testing.T) {
	t.Parallel()
	_, got, err := Listener(marshal(t, fromJSON[listenerv3.Listener](t, apiListener(`"routeConfig": `+tableWith(`{"match": {"prefix": "/"}, "route": {"cluster": "c"}}`)+`, `+routerOnly))))
	if err != nil {
		t.Fatal(err)
	}
	l := got.Outbound
	if l.RouteName != "" || l.Routes == nil || l.Routes.VirtualHosts[0].Routes[0].Forward.Clusters[0].Name != "c" {
		t.Errorf("routes %+v, name %q: want the inline table", l.Routes, l.RouteName)
	}
}

// defaultLimits are Envoy's.
var defaultLimits = discovery.HeaderLimits{Bytes: 60 << 10, Count: 100}

func TestListenerDecodesAnInboundListener(t *testing.T) {
	t.Parallel()
	_, got, err := Listener(marshal(t, fromJSON[listenerv3.Listener](t, inboundFixture)))
	if err != nil {
		t.Fatal(err)
	}
	want := &ListenerResource{Inbound: &discovery.Inbound{
		Name:    "xds.istio.io/grpc/lds/inbound/0.0.0.0:8080",
		Address: "0.0.0.0:8080",
		Chains: []discovery.FilterChain{{
			Name:  "mtls",
			Match: discovery.ChainMatch{TransportProtocol: "tls", ApplicationProtocols: []string{"h2", "http/1.1"}, DestinationPort: 8080},
			TLS: &discovery.DownstreamTLS{
				IdentityInstance: "default", RootInstance: "roots", RequireClientCertificate: true,
				ALPN: []string{"h2", "http/1.1"},
			},
			StreamIdleTimeout: 40 * time.Second, RequestTimeout: 50 * time.Second,
			Headers: defaultLimits,
			Routes: &discovery.RouteTable{Name: "inbound", VirtualHosts: []*discovery.VirtualHost{{
				Domains: []string{"*"},
				Routes: []*discovery.Route{{
					Match: discovery.RouteMatch{Path: discovery.PathMatch{Kind: discovery.PathPrefix, Value: "/"}},
					Local: true,
				}},
			}}},
		}},
		Default: &discovery.FilterChain{Name: "plaintext", RouteName: "inbound-routes", MaxStreamDuration: 20 * time.Second,
			Headers: discovery.HeaderLimits{Bytes: 32 << 10, Count: 50},
			Forwarding: discovery.Forwarding{
				Client: discovery.ClientIsPeer, Hops: 2, SkipAppend: true,
				Internal:  []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")},
				RequestID: true, KeepRequestID: true, Certificate: discovery.CertificateSet,
				Details: discovery.CertificateDetails{Subject: true, Certificate: true, Chain: true, DNS: true, URI: true},
			},
		},
	}}
	if diff := cmp.Diff(want, got, sameModel); diff != "" {
		t.Errorf("listener (-want +got):\n%s", diff)
	}
}

func TestListenerDecodesPermissiveChainsAndDeprecatedCertificateFields(t *testing.T) {
	t.Parallel()
	_, got, err := Listener(marshal(t, fromJSON[listenerv3.Listener](t, permissiveFixture)))
	if err != nil {
		t.Fatal(err)
	}
	want := &ListenerResource{Inbound: &discovery.Inbound{
		Name:    "inbound",
		Address: "[::]:9090",
		Chains: []discovery.FilterChain{
			{
				Match: discovery.ChainMatch{TransportProtocol: "tls"},
				TLS: &discovery.DownstreamTLS{
					IdentityInstance: "default", RootInstance: "default",
					// The names to match cannot be matched without a certificate.
					RequireClientCertificate: true,
					SANs:                     []discovery.StringMatch{{Kind: discovery.MatchPrefix, Value: "spiffe://cluster.local/"}},
				},
				RouteName: "r", Headers: defaultLimits,
				Forwarding: discovery.Forwarding{Client: discovery.ClientIsForwarded, Hops: 1},
			},
			{Match: discovery.ChainMatch{TransportProtocol: "raw_buffer"}, RouteName: "r", Headers: defaultLimits, Forwarding: discovery.Forwarding{
				Client: discovery.ClientIsForwarded, TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")},
			}},
		},
	}}
	if diff := cmp.Diff(want, got, sameModel); diff != "" {
		t.Errorf("listener (-want +got):\n%s", diff)
	}
}

const (
	routerFilter = `{"name": "router", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}`
	faultFilter  = `{"name": "fault", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault"}}`
	routerOnly   = `"httpFilters": [` + routerFilter + `]`
	adsRoutes    = `"rds": {"routeConfigName": "r", "configSource": {"ads": {}}}`
	hcmType      = `"@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"`
	anAddress    = `"address": {"socketAddress": {"address": "0.0.0.0", "portValue": 80}}`
)

// apiListener is a Listener with a connection manager that has these fields.
func apiListener(fields string) string {
	return `{"name": "l", "apiListener": {"apiListener": {` + hcmType + `, ` + fields + `}}}`
}

// chain is a FilterChain with these fields and a good connection manager.
func chain(fields string) string {
	return `{"filters": [{"name": "hcm", "typedConfig": {` + hcmType + `, ` + adsRoutes + `, ` + routerOnly + `}}]` + fields + `}`
}

// serverTLS is a transport_socket with a DownstreamTlsContext.
func serverTLS(fields string) string {
	return `"transportSocket": {"name": "tls", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"` + fields + `}}`
}

type listenerCase struct {
	name string
	json string
	want []string
}

func wantListenerErrors(t *testing.T, tests []listenerCase) {
	t.Helper()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, l, err := Listener(marshal(t, fromJSON[listenerv3.Listener](t, tt.json)))
			if (l == nil) != (len(tt.want) > 0) {
				t.Errorf("listener %v", l)
			}
			wantErrors(t, err, tt.want...)
		})
	}
}

func TestX60_HTTPFilters(t *testing.T) {
	t.Parallel()
	const at = "api_listener.api_listener.http_filters"
	filters := func(list ...string) string {
		return apiListener(adsRoutes + `, "httpFilters": [` + strings.Join(list, ", ") + `]`)
	}
	unknown := func(more string) string {
		return `{"name": "unknown"` + more + `, "typedConfig": {"@type": "type.googleapis.com/envoy.config.core.v3.Locality"}}`
	}
	wantListenerErrors(t, []listenerCase{
		{"an unknown filter that is required", filters(unknown(""), routerFilter),
			[]string{at + `[0].typed_config: HTTP filter "envoy.config.core.v3.Locality" is not supported`}},
		{"an unknown filter that is optional", filters(unknown(`, "isOptional": true`), routerFilter), nil},
		{"an unknown filter that is optional, after the router", filters(routerFilter, unknown(`, "isOptional": true`)), nil},
		{"a filter without a configuration", filters(`{"name": "empty"}`, routerFilter),
			[]string{at + "[0].typed_config: must be set"}},
		{"a filter whose configuration is to be discovered", filters(`{"name": "late", "isOptional": true, "configDiscovery": {"configSource": {"ads": {}}, "typeUrls": ["t"]}}`, routerFilter),
			[]string{at + "[0].config_discovery: not supported"}},
		{"no filter", filters(), []string{at + ": must end with the router"}},
		{"no router", filters(faultFilter), []string{at + ": must end with the router"}},
		{"a filter after the router", filters(routerFilter, faultFilter),
			[]string{at + `[1]: filter "fault" comes after the router, which must be the last`}},
		{"two routers", filters(routerFilter, strings.Replace(routerFilter, `"router"`, `"router2"`, 1)),
			[]string{at + `[1]: filter "router2" comes after the router, which must be the last`}},
		{"a name twice", filters(faultFilter, faultFilter, routerFilter),
			[]string{at + `[1].name: "fault" is the name of an earlier filter`}},
		{"a router that is disabled", filters(strings.Replace(routerFilter, `"name"`, `"disabled": true, "name"`, 1)),
			[]string{at + `[0].disabled: the router cannot be disabled`}},
		{"a filter with a bad configuration, though it is optional",
			filters(`{"name": "fault", "isOptional": true, "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault", "abort": {"httpStatus": 99}}}`, routerFilter),
			[]string{at + `[0].typed_config.abort.http_status: value must be inside range [200, 600)`}},
	})
}

func TestX76_RoutesMustComeOverTheSameStream(t *testing.T) {
	t.Parallel()
	const at = "api_listener.api_listener.rds."
	rds := func(source string) string {
		return apiListener(`"rds": {"routeConfigName": "r", "configSource": ` + source + `}, ` + routerOnly)
	}
	wantListenerErrors(t, []listenerCase{
		{"ads", rds(`{"ads": {}}`), nil},
		{"self", rds(`{"self": {}}`), nil},
		{"a file", rds(`{"pathConfigSource": {"path": "/x"}}`),
			[]string{at + "config_source.path_config_source: not supported", at + "config_source: must be ads or self"}},
		{"nothing", rds(`{}`),
			[]string{at + "config_source.config_source_specifier: value is required", at + "config_source: must be ads or self"}},
		{"version 2", rds(`{"ads": {}, "resourceApiVersion": "V2"}`),
			[]string{at + "config_source.resource_api_version: V2 is not supported: use V3"}},
		{"no name", apiListener(`"rds": {"configSource": {"ads": {}}}, ` + routerOnly),
			[]string{at + "route_config_name: must not be empty"}},
	})
}

func TestX59_SecurityFieldsOfA29AreRefused(t *testing.T) {
	t.Parallel()
	const at = "filter_chains[0].transport_socket.typed_config."
	listen := func(tls string) string {
		return `{"name": "l", ` + anAddress + `, "filterChains": [` + chain(`, `+serverTLS(tls)) + `]}`
	}
	const identity = `"tlsCertificateProviderInstance": {"instanceName": "default"}`
	common := func(fields string) string { return listen(`, "commonTlsContext": {` + identity + fields + `}`) }
	validation := func(fields string) string {
		return common(`, "validationContext": {"caCertificateProviderInstance": {"instanceName": "default"}, ` + fields + `}`)
	}
	wantListenerErrors(t, []listenerCase{
		{"TLS parameters that are not spoken", common(`, "tlsParams": {"tlsMinimumProtocolVersion": "TLSv1_1", "cipherSuites": ["AES128-SHA", "RC4"], "ecdhCurves": ["P-224"]}`),
			[]string{
				at + "common_tls_context.tls_params.tls_minimum_protocol_version: TLSv1_1 is not supported: use TLSv1_2 or TLSv1_3",
				at + `common_tls_context.tls_params.cipher_suites[1]: "RC4" is not supported`,
				at + "common_tls_context.tls_params.cipher_suites: none of them is implemented",
				at + `common_tls_context.tls_params.ecdh_curves[0]: "P-224" is not supported`,
			}},
		{"versions the wrong way round", common(`, "tlsParams": {"tlsMinimumProtocolVersion": "TLSv1_3", "tlsMaximumProtocolVersion": "TLSv1_2"}`),
			[]string{at + "common_tls_context.tls_params.tls_maximum_protocol_version: is below tls_minimum_protocol_version"}},
		{"a custom handshaker", common(`, "customHandshaker": {"name": "h", "typedConfig": {"@type": "type.googleapis.com/envoy.config.core.v3.Locality"}}`),
			[]string{at + "common_tls_context.custom_handshaker: not supported"}},
		{"a key log", common(`, "keyLog": {"path": "keys.log"}`),
			[]string{at + "common_tls_context.key_log: not supported"}},
		{"SNI required", listen(`, "requireSni": true, "commonTlsContext": {` + identity + `}`),
			[]string{at + "require_sni: not supported with another value than zero"}},
		{"OCSP", listen(`, "ocspStaplePolicy": "MUST_STAPLE", "commonTlsContext": {` + identity + `}`),
			[]string{at + "ocsp_staple_policy: not supported"}},
		{"SPKI that is none", validation(`"verifyCertificateSpki": ["NvqYIYSbgK2vCJpQhObf77vv+bQWtc5ek5RIOwPiC9!="]`),
			[]string{at + `common_tls_context.validation_context.verify_certificate_spki[0]: "NvqYIYSbgK2vCJpQhObf77vv+bQWtc5ek5RIOwPiC9!=" is not a SHA-256 digest`}},
		{"a hash that is none", validation(`"verifyCertificateHash": ["zz6ff72fe9116521268f6f2dd4966f51df479883fe7037b39f75916ac3049d1a"]`),
			[]string{at + `common_tls_context.validation_context.verify_certificate_hash[0]: "zz6ff72fe9116521268f6f2dd4966f51df479883fe7037b39f75916ac3049d1a" is not a SHA-256 digest`}},
		{"a revocation list", validation(`"crl": {"filename": "/crl"}`),
			[]string{at + "common_tls_context.validation_context.crl.filename: not supported"}},
		{"certificates that have expired", validation(`"allowExpiredCertificate": true`),
			[]string{at + "common_tls_context.validation_context.allow_expired_certificate: not supported"}},
		{"an untrusted chain", validation(`"trustChainVerification": "ACCEPT_UNTRUSTED"`),
			[]string{at + "common_tls_context.validation_context.trust_chain_verification: not supported"}},
		{"a custom validator", validation(`"customValidatorConfig": {"name": "v", "typedConfig": {"@type": "type.googleapis.com/envoy.config.core.v3.Locality"}}`),
			[]string{at + `common_tls_context.validation_context.custom_validator_config.typed_config: "envoy.config.core.v3.Locality" is not supported here: must be "envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig"`}},
		{"required timestamps", validation(`"requireSignedCertificateTimestamp": true`),
			[]string{at + "common_tls_context.validation_context.require_signed_certificate_timestamp: not supported with another value than zero"}},
		{"a DNS name", validation(`"matchTypedSubjectAltNames": [{"sanType": "DNS", "matcher": {"exact": "a"}}]`),
			[]string{at + "common_tls_context.validation_context.match_typed_subject_alt_names: must be of type URI: clients have SPIFFE IDs"}},
		{"certificates from a file", listen(`, "commonTlsContext": {"tlsCertificates": [{"certificateChain": {"filename": "/c"}, "privateKey": {"filename": "/k"}}]}`),
			[]string{at + "common_tls_context.tls_certificates: not supported: use tls_certificate_provider_instance", at + "common_tls_context.tls_certificate_provider_instance: must be set: a server needs a certificate"}},
		{"two certificates", listen(`, "commonTlsContext": {"tlsCertificateSdsSecretConfigs": [{"name": "default"}, {"name": "other"}]}`),
			[]string{at + "common_tls_context.tls_certificate_sds_secret_configs: more than one is not supported", at + "common_tls_context.tls_certificate_provider_instance: must be set: a server needs a certificate"}},
		{"roots of the system for clients", common(`, "validationContext": {"systemRootCerts": {}, "matchSubjectAltNames": [{"exact": "a"}]}`),
			[]string{
				at + "common_tls_context.validation_context.system_root_certs: not supported for clients",
				at + "common_tls_context.validation_context: must name a certificate provider instance for the roots that verify the required client certificate",
			}},
		{"roots from a file", common(`, "validationContext": {"trustedCa": {"filename": "/ca"}}`),
			[]string{at + "common_tls_context.validation_context.trusted_ca: not supported: use ca_certificate_provider_instance"}},
		{"session tickets", listen(`, "sessionTicketKeys": {"keys": [{"filename": "/k"}]}, "commonTlsContext": {` + identity + `}`),
			[]string{at + "session_ticket_keys: not supported"}},
		{"a client certificate without roots to verify it", listen(`, "requireClientCertificate": true, "commonTlsContext": {` + identity + `}`),
			[]string{at + "common_tls_context.validation_context: must name a certificate provider instance for the roots that verify the required client certificate"}},
		{"names to match without roots", common(`, "validationContext": {"matchSubjectAltNames": [{"exact": "spiffe://a/b"}]}`),
			[]string{at + "common_tls_context.validation_context: must name a certificate provider instance for the roots that verify the required client certificate"}},
		{"an instance without a name", listen(`, "commonTlsContext": {"tlsCertificateCertificateProviderInstance": {}}`),
			[]string{
				at + "common_tls_context.tls_certificate_certificate_provider_instance.instance_name: must not be empty",
				at + "common_tls_context.tls_certificate_provider_instance: must be set: a server needs a certificate",
			}},
		{"no certificates at all", listen(``),
			[]string{at + "common_tls_context.tls_certificate_provider_instance: must be set: a server needs a certificate"}},
		{"an upstream's TLS", `{"name": "l", ` + anAddress + `, "filterChains": [` + chain(`, "transportSocket": {"name": "tls", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"}}`) + `]}`,
			[]string{`filter_chains[0].transport_socket.typed_config: "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext" is not supported here: must be "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"`}},
		{"a socket without a configuration", `{"name": "l", ` + anAddress + `, "filterChains": [` + chain(`, "transportSocket": {"name": "envoy.transport_sockets.tls"}`) + `]}`,
			[]string{`filter_chains[0].transport_socket.typed_config: "" is not supported here: must be "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"`}},
	})
}

func TestBadListeners(t *testing.T) {
	t.Parallel()
	inbound := func(fields string) string { return `{"name": "l", ` + anAddress + `, ` + fields + `}` }
	wantListenerErrors(t, []listenerCase{
		{"empty", `{}`, []string{
			"name: must not be empty",
			"address.socket_address: must be set",
			"filter_chains: must not be empty without a default_filter_chain",
		}},
		{"a filter chain beside an API listener", strings.Replace(apiListener(adsRoutes+", "+routerOnly), `"name": "l"`, `"name": "l", "filterChains": [{}], "defaultFilterChain": {}, "listenerFilters": [{"name": "f"}]`, 1),
			[]string{
				"filter_chains: must not be set beside api_listener",
				"default_filter_chain: must not be set beside api_listener",
				"listener_filters: must not be set beside api_listener",
			}},
		{"an address beside an API listener, which istiod sets", strings.Replace(apiListener(adsRoutes+", "+routerOnly), `"name": "l"`, `"name": "l", `+anAddress, 1), nil},
		{"an API listener that is none", `{"name": "l", "apiListener": {"apiListener": {"@type": "type.googleapis.com/envoy.config.core.v3.Locality"}}}`,
			[]string{`api_listener.api_listener: "envoy.config.core.v3.Locality" is not supported here: must be "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"`}},
		{"an API listener that is empty", `{"name": "l", "apiListener": {}}`,
			[]string{`api_listener.api_listener: "" is not supported here: must be "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"`}},
		{"no routes", apiListener(routerOnly), []string{"api_listener.api_listener.route_specifier: value is required"}},
		{"scoped routes", apiListener(`"scopedRoutes": {}, ` + routerOnly), []string{
			"api_listener.api_listener.scoped_routes.name: value length must be at least 1 runes",
			"api_listener.api_listener.scoped_routes.scope_key_builder: value is required",
			"api_listener.api_listener.scoped_routes.config_specifier: value is required",
			"api_listener.api_listener.scoped_routes: not supported",
		}},
		{"timeouts that are a server's", apiListener(`"requestTimeout": "1s", "requestHeadersTimeout": "2s", ` + adsRoutes + `, ` + routerOnly), []string{
			"api_listener.api_listener.request_headers_timeout: not supported: the application's server reads the headers before the mesh sees the request: set ReadHeaderTimeout of its http.Server",
			"api_listener.api_listener.request_timeout: not supported in an api_listener: the client is this process, whose calls have deadlines",
		}},
		{"connection settings", apiListener(`"commonHttpProtocolOptions": {"idleTimeout": "1s", "maxConnectionDuration": "1s", "maxRequestsPerConnection": 1}, ` + adsRoutes + `, ` + routerOnly), []string{
			"api_listener.api_listener.common_http_protocol_options.idle_timeout: not supported in a listener",
			"api_listener.api_listener.common_http_protocol_options.max_connection_duration: not supported in a listener",
			"api_listener.api_listener.common_http_protocol_options.max_requests_per_connection: not supported in a listener",
		}},
		{"trusted hops", apiListener(`"xffNumTrustedHops": 1, ` + adsRoutes + `, ` + routerOnly),
			[]string{"api_listener.api_listener.xff_num_trusted_hops: has no effect in an api_listener, to which nobody connects"}},
		{"inline routes with a problem", apiListener(`"routeConfig": ` + tableWith(`{"match": {"prefix": "/"}, "route": {"cluster": "c", "idleTimeout": "-1s"}}`) + `, ` + routerOnly),
			[]string{"api_listener.api_listener.route_config.virtual_hosts[0].routes[0].route.idle_timeout: must not be negative: is -1s"}},

		{"an address that is a name", `{"name": "l", "address": {"socketAddress": {"address": "localhost", "portValue": 80}}, "defaultFilterChain": ` + chain("") + `}`,
			[]string{`address.socket_address.address: "localhost" is not an IP address`}},
		{"UDP", `{"name": "l", "address": {"socketAddress": {"protocol": "UDP", "address": "::1", "portValue": 80}}, "defaultFilterChain": ` + chain("") + `}`,
			[]string{"address.socket_address.protocol: UDP is not supported: use TCP"}},
		{"a named port", `{"name": "l", "address": {"socketAddress": {"address": "::1", "namedPort": "http"}}, "defaultFilterChain": ` + chain("") + `}`,
			[]string{
				"address.socket_address.named_port: not supported: use port_value",
				"address.socket_address.port_value: must be between 1 and 65535: is 0",
			}},
		{"another listener filter", inbound(`"listenerFilters": [{"name": "p", "typedConfig": {"@type": "type.googleapis.com/envoy.config.core.v3.Locality"}}], "defaultFilterChain": ` + chain("")),
			[]string{`listener_filters[0].typed_config: "envoy.config.core.v3.Locality" is not supported here: must be "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"`}},
		{"the original destination", inbound(`"useOriginalDst": true, "defaultFilterChain": ` + chain("")),
			[]string{"use_original_dst: not supported with another value than zero"}},
		{"a chain without filters", inbound(`"filterChains": [{}]`),
			[]string{"filter_chains[0].filters: must end with the HTTP connection manager or the TCP proxy"}},
		{"a chain with another filter", inbound(`"filterChains": [{"filters": [{"name": "tcp", "typedConfig": {"@type": "type.googleapis.com/envoy.config.core.v3.Locality"}}]}]`),
			[]string{`filter_chains[0].filters[0].typed_config: "envoy.config.core.v3.Locality" is not supported here: must be "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"`}},
		{"a match by server name", inbound(`"filterChains": [` + chain(`, "filterChainMatch": {"serverNames": ["a"]}`) + `]`),
			[]string{"filter_chains[0].filter_chain_match.server_names: not supported"}},
		{"a match by another transport", inbound(`"filterChains": [` + chain(`, "filterChainMatch": {"transportProtocol": "quic"}`) + `]`),
			[]string{`filter_chains[0].filter_chain_match.transport_protocol: "quic" is not supported: use "tls" or "raw_buffer"`}},
		{"TLS that nobody can read", inbound(`"filterChains": [` + chain(`, "filterChainMatch": {"transportProtocol": "tls"}`) + `]`),
			[]string{"filter_chains[0].transport_socket: must be set: the chain matches TLS connections"}},
		{"two chains that match the same", inbound(`"filterChains": [` + chain(`, "filterChainMatch": {"applicationProtocols": ["a", "b"]}`) + `, ` + chain(`, "filterChainMatch": {"applicationProtocols": ["c", "b"]}`) + `]`),
			[]string{"filter_chains[1].filter_chain_match: matches what filter_chains[0].filter_chain_match matches"}},
		{"two chains that match everything", inbound(`"filterChains": [` + chain("") + `, ` + chain("") + `]`),
			[]string{"filter_chains[1].filter_chain_match: matches what filter_chains[0].filter_chain_match matches"}},
		{"a default chain with a match", inbound(`"defaultFilterChain": ` + chain(`, "filterChainMatch": {"transportProtocol": "raw_buffer"}`)),
			[]string{"default_filter_chain.filter_chain_match: must not be set: the default chain matches everything"}},
	})
}
