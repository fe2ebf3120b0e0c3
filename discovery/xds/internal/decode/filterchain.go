package decode

import (
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	networkextauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/ext_authz/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	networkrbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"

	"github.com/inboardmesh/inboard/discovery"
)

// The transport protocols that tls_inspector tells apart.
const (
	transportTLS = "tls"
	transportRaw = "raw_buffer"
)

var tcpFields = []messageFields{{
	message: (*tcpproxyv3.TcpProxy)(nil),
	// Unset it is Envoy's default of 1 h, which is not filled in: an application may
	// well have connections over which nothing comes for longer.
	zero: "idle_timeout",
	// The application has the connection: it is the cluster, and nothing is dialed.
	// Metrics and access logs.
	harmless: "cluster max_connect_attempts stat_prefix access_log access_log_flush_interval flush_access_log_on_connected access_log_options",
	instead: map[string]string{
		"weighted_clusters": "the connections of a listener are this process's: use cluster",
	},
}}

// filterChain decodes a FilterChain: an HTTP connection manager, or a TCP proxy,
// behind any number of RBAC filters, with or without TLS.
func (d *decoder) filterChain(at path, m *listenerv3.FilterChain) discovery.FilterChain {
	match := m.GetFilterChainMatch()
	chain := discovery.FilterChain{
		Name: m.GetName(),
		Match: discovery.ChainMatch{
			TransportProtocol:    match.GetTransportProtocol(),
			ApplicationProtocols: match.GetApplicationProtocols(),
			DestinationPort:      match.GetDestinationPort().GetValue(),
		},
		TLS: d.downstreamTLS(at.field("transport_socket"), m.GetTransportSocket()),
	}
	switch match.GetTransportProtocol() {
	case "", transportRaw:
	case transportTLS:
		if m.GetTransportSocket() == nil {
			d.refusef(at.field("transport_socket"), "must be set: the chain matches TLS connections")
		}
	default:
		d.refusef(at.field("filter_chain_match").field("transport_protocol"), "%q is not supported: use %q or %q", match.GetTransportProtocol(), transportTLS, transportRaw)
	}
	last := len(m.GetFilters()) - 1
	if last < 0 {
		d.refusef(at.field("filters"), "must end with the HTTP connection manager or the TCP proxy")
		return chain
	}
	terminal := m.GetFilters()[last].GetTypedConfig()
	chain.TCP = is(terminal, (*tcpproxyv3.TcpProxy)(nil))
	for i, filter := range m.GetFilters()[:last] {
		in := at.element("filters", i).field("typed_config")
		if is(filter.GetTypedConfig(), (*networkextauthzv3.ExtAuthz)(nil)) {
			if chain.TCP {
				d.refusef(in, "not supported: nobody is asked about connections of TCP: use RBAC, which decides by itself")
			} else {
				d.refusef(in, "not supported: it decides about streams of TCP, and this chain is of HTTP: use the HTTP filter, which decides about each request")
			}
			continue
		}
		rbac := &networkrbacv3.RBAC{}
		if d.unpack(in, filter.GetTypedConfig(), rbac) {
			chain.Network = append(chain.Network, d.networkRBAC(in, rbac))
		}
	}
	hcm := &hcmv3.HttpConnectionManager{}
	in := at.element("filters", last).field("typed_config")
	if chain.TCP {
		d.unpack(in, terminal, &tcpproxyv3.TcpProxy{})
		chain.Routes = passedOn()
		// An application may serve HTTP over such connections all the same.
		chain.Headers, chain.Forwarding = headerLimits(hcm), d.forwarding(in, hcm)
		return chain
	}
	if !d.unpack(in, terminal, hcm) {
		return chain
	}
	manager := d.connectionManager(in, hcm)
	chain.Headers, chain.Forwarding = headerLimits(hcm), d.forwarding(in, hcm)
	chain.Filters = manager.filters
	chain.Routes = manager.routes
	chain.RouteName = manager.routeName
	chain.MaxStreamDuration = manager.maxStreamDuration
	chain.StreamIdleTimeout, chain.RequestTimeout = manager.streamIdleTimeout, manager.requestTimeout
	chain.StrictPaths = manager.strictPaths
	return chain
}

// passedOn are routes that leave every request to the application.
func passedOn() *discovery.RouteTable {
	return &discovery.RouteTable{Name: "tcp", VirtualHosts: []*discovery.VirtualHost{{
		Name: "tcp", Domains: []string{"*"}, Routes: []*discovery.Route{{Name: "tcp", Local: true}},
	}}}
}

// chainKey is one combination of criteria; "" and 0 match anything.
type chainKey struct {
	transport string
	alpn      string
	port      uint32
}

// uniqueMatch refuses a match of which a former chain has a combination, for
// then neither would be the more specific. seen holds the former ones.
func (d *decoder) uniqueMatch(at path, m *listenerv3.FilterChainMatch, seen map[chainKey]path) {
	protocols := m.GetApplicationProtocols()
	if len(protocols) == 0 {
		protocols = []string{""}
	}
	for _, alpn := range protocols {
		key := chainKey{transport: m.GetTransportProtocol(), alpn: alpn, port: m.GetDestinationPort().GetValue()}
		if first, ok := seen[key]; ok {
			d.refusef(at, "matches what %s matches", first)
			return
		}
		seen[key] = at
	}
}
