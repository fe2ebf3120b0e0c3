package decode

import (
	"net/netip"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	tlsinspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"

	"github.com/inboardmesh/inboard/discovery"
)

var listenerFields = []messageFields{
	{
		message: (*listenerv3.Listener)(nil),
		read:    "name address filter_chains default_filter_chain listener_filters api_listener",
		// What false says is what the mesh does: it binds, redirects and waits
		// for nothing.
		zero: "use_original_dst transparent freebind",
		// Metrics, metadata and access logs; the sockets, their queues and the
		// threads behind them, which are the application's; limits of a process
		// that has none.
		harmless: "stat_prefix stats_matcher metadata access_log traffic_direction additional_addresses " +
			"enable_reuse_port reuse_port tcp_backlog_size max_connections_to_accept_per_socket_event " +
			"connection_balance_config per_connection_buffer_limit_bytes ignore_global_conn_limit " +
			"bypass_overload_manager",
	},
	{message: (*listenerv3.ApiListener)(nil), read: "api_listener"},
	// Of the extensions, the type of the configuration says which one it is.
	{message: (*listenerv3.ListenerFilter)(nil), read: "typed_config", harmless: "name"},
	{
		message: (*tlsinspectorv3.TlsInspector)(nil),
		zero:    "enable_ja3_fingerprinting enable_ja4_fingerprinting",
		// It sizes a buffer.
		harmless: "initial_read_buffer_size",
	},
	{
		message: (*listenerv3.FilterChain)(nil),
		read:    "filter_chain_match filters transport_socket name",
		zero:    "use_proxy_proto",
		// Metadata is for filters that are not there.
		harmless: "metadata",
	},
	{
		message: (*listenerv3.FilterChainMatch)(nil),
		read:    "destination_port transport_protocol application_protocols",
	},
	{message: (*listenerv3.Filter)(nil), read: "typed_config", harmless: "name"},
	{message: (*corev3.TransportSocket)(nil), read: "typed_config", harmless: "name"},
}

// listener decodes a Listener of either kind.
func (d *decoder) listener(at path, m *listenerv3.Listener) *ListenerResource {
	if m.GetApiListener() != nil {
		return &ListenerResource{Outbound: d.apiListener(at, m)}
	}
	return &ListenerResource{Inbound: d.inbound(at, m)}
}

// apiListener decodes a Listener with an api_listener. Its address, which
// istiod sets, has no use.
func (d *decoder) apiListener(at path, m *listenerv3.Listener) *discovery.APIListener {
	const beside = "must not be set beside api_listener"
	if len(m.GetFilterChains()) > 0 {
		d.refusef(at.field("filter_chains"), beside)
	}
	if m.GetDefaultFilterChain() != nil {
		d.refusef(at.field("default_filter_chain"), beside)
	}
	if len(m.GetListenerFilters()) > 0 {
		d.refusef(at.field("listener_filters"), beside)
	}
	hcm := &hcmv3.HttpConnectionManager{}
	in := at.field("api_listener").field("api_listener")
	if !d.unpack(in, m.GetApiListener().GetApiListener(), hcm) {
		return nil
	}
	manager := d.connectionManager(in, hcm)
	d.noForwarding(in, hcm)
	if manager.strictPaths {
		d.refusef(in, "normalize_path, merge_slashes and path_with_escaped_slashes_action are not supported in an api_listener")
	}
	if manager.requestTimeout > 0 {
		d.refusef(in.field("request_timeout"), "not supported in an api_listener: the client is this process, whose calls have deadlines")
	}
	return &discovery.APIListener{
		Name:              m.GetName(),
		RouteName:         manager.routeName,
		Routes:            manager.routes,
		Filters:           manager.filters,
		MaxStreamDuration: manager.maxStreamDuration,
		StreamIdleTimeout: manager.streamIdleTimeout,
		HideOriginals:     manager.hideOriginals,
	}
}

// inbound decodes a Listener for connections to this process.
func (d *decoder) inbound(at path, m *listenerv3.Listener) *discovery.Inbound {
	l := &discovery.Inbound{
		Name:    m.GetName(),
		Address: d.socketAddress(at.field("address"), m.GetAddress()),
	}
	for i, filter := range m.GetListenerFilters() {
		d.unpack(at.element("listener_filters", i).field("typed_config"), filter.GetTypedConfig(), &tlsinspectorv3.TlsInspector{})
	}
	matches := make(map[chainKey]path)
	for i, chain := range m.GetFilterChains() {
		in := at.element("filter_chains", i)
		l.Chains = append(l.Chains, d.filterChain(in, chain))
		d.uniqueMatch(in.field("filter_chain_match"), chain.GetFilterChainMatch(), matches)
	}
	if chain := m.GetDefaultFilterChain(); chain != nil {
		in := at.field("default_filter_chain")
		l.Default = new(d.filterChain(in, chain))
		if chain.GetFilterChainMatch() != nil {
			d.refusef(in.field("filter_chain_match"), "must not be set: the default chain matches everything")
		}
	}
	if len(l.Chains) == 0 && l.Default == nil {
		d.refusef(at.field("filter_chains"), "must not be empty without a default_filter_chain")
	}
	return l
}

// socketAddress decodes an address that must be an IP address and a port.
func (d *decoder) socketAddress(at path, m *corev3.Address) string {
	host, port, ok := d.tcpAddress(at, m)
	if !ok {
		return ""
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		d.refusef(at.field("socket_address").field("address"), "%q is not an IP address", host)
		return ""
	}
	return netip.AddrPortFrom(ip, port).String()
}

// tcpAddress decodes an address whose host may be anything.
func (d *decoder) tcpAddress(at path, m *corev3.Address) (host string, port uint16, ok bool) {
	socket := m.GetSocketAddress()
	if socket == nil {
		d.refusef(at.field("socket_address"), "must be set")
		return "", 0, false
	}
	if socket.GetProtocol() != corev3.SocketAddress_TCP {
		d.refusef(at.field("socket_address").field("protocol"), "%s is not supported: use TCP", socket.GetProtocol())
	}
	if n := socket.GetPortValue(); n == 0 || n > 65535 {
		d.refusef(at.field("socket_address").field("port_value"), "must be between 1 and 65535: is %d", n)
		return "", 0, false
	}
	return socket.GetAddress(), uint16(socket.GetPortValue()), true
}
