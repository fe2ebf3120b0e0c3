package istio

import (
	"fmt"
	"net/netip"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	tlsinspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// The names that Envoy gives to filters and transport protocols.
const (
	faultFilter        = "envoy.filters.http.fault"
	corsFilter         = "envoy.filters.http.cors"
	routerFilter       = "envoy.filters.http.router"
	hcmFilter          = "envoy.filters.network.http_connection_manager"
	tlsInspectorFilter = "envoy.filters.listener.tls_inspector"
	tlsProtocol        = "tls"
	plainProtocol      = "raw_buffer"
)

// pack wraps a message that Envoy's own constraints accept.
func pack(m proto.Message) (*anypb.Any, error) {
	if err := validate(m); err != nil {
		return nil, err
	}
	packed := new(anypb.Any)
	err := anypb.MarshalFrom(packed, m, proto.MarshalOptions{Deterministic: true})
	return packed, err
}

// validate applies the constraints that Envoy's API puts on a message and
// that Envoy would reject it for.
func validate(m proto.Message) error {
	if v, ok := m.(interface{ ValidateAll() error }); ok {
		return v.ValidateAll()
	}
	return fmt.Errorf("%T has no constraints", m)
}

func ads() *corev3.ConfigSource {
	return &corev3.ConfigSource{
		ResourceApiVersion:    corev3.ApiVersion_V3,
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
	}
}

func httpFilter(name string, config proto.Message) (*hcmv3.HttpFilter, error) {
	packed, err := pack(config)
	if err != nil {
		return nil, err
	}
	return &hcmv3.HttpFilter{
		Name: name, ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: packed},
	}, nil
}

// apiManager is the connection manager of the client side of a port: the filters
// of faults and of CORS, which are configured per route, and the router.
func apiManager(routeName string) (*anypb.Any, error) {
	fault, err := httpFilter(faultFilter, &faultv3.HTTPFault{})
	if err != nil {
		return nil, err
	}
	cors, err := httpFilter(corsFilter, &corsv3.Cors{})
	if err != nil {
		return nil, err
	}
	// gRPC's own clients do not know it and have no origin.
	cors.IsOptional = true
	router, err := httpFilter(routerFilter, &routerv3.Router{})
	if err != nil {
		return nil, err
	}
	return pack(&hcmv3.HttpConnectionManager{
		StatPrefix: routeName,
		RouteSpecifier: &hcmv3.HttpConnectionManager_Rds{
			Rds: &hcmv3.Rds{ConfigSource: ads(), RouteConfigName: routeName},
		},
		HttpFilters: []*hcmv3.HttpFilter{fault, cors, router},
	})
}

// apiListener is the listener of a port under the name that it was asked for.
func apiListener(name string, manager *anypb.Any) *listenerv3.Listener {
	return &listenerv3.Listener{
		Name:        name,
		ApiListener: &listenerv3.ApiListener{ApiListener: manager},
	}
}

// inboundListener is what the listeners of one mode have in common: all but
// the name and the address.
type inboundListener struct {
	filters []*listenerv3.ListenerFilter
	chains  []*listenerv3.FilterChain
}

// newInboundListener makes the listener of a mode, with the filters of its
// connections. PERMISSIVE tells TLS from plaintext by the first bytes; the other two
// have one chain for every connection, as native gRPC servers need it, so that
// what does not fit fails.
func newInboundListener(opts Options, mode mtlsMode, filters []*listenerv3.Filter) (*inboundListener, error) {
	socket, err := downstreamTLS(opts)
	if err != nil {
		return nil, err
	}
	inspector, err := pack(&tlsinspectorv3.TlsInspector{})
	if err != nil {
		return nil, err
	}
	chain := func(name, protocol string, socket *corev3.TransportSocket) *listenerv3.FilterChain {
		c := &listenerv3.FilterChain{
			Name:            name,
			Filters:         filters,
			TransportSocket: socket,
		}
		if protocol != "" {
			c.FilterChainMatch = &listenerv3.FilterChainMatch{TransportProtocol: protocol}
		}
		return c
	}
	const mtls, plaintext = "inbound-mtls", "inbound-plaintext"
	switch mode {
	case strict:
		return &inboundListener{chains: []*listenerv3.FilterChain{chain(mtls, "", socket)}}, nil
	case disabled:
		return &inboundListener{chains: []*listenerv3.FilterChain{chain(plaintext, "", nil)}}, nil
	case permissive:
	}
	return &inboundListener{
		filters: []*listenerv3.ListenerFilter{{
			Name:       tlsInspectorFilter,
			ConfigType: &listenerv3.ListenerFilter_TypedConfig{TypedConfig: inspector},
		}},
		chains: []*listenerv3.FilterChain{
			chain(mtls, tlsProtocol, socket), chain(plaintext, plainProtocol, nil),
		},
	}, nil
}

func inboundManager(filters []*hcmv3.HttpFilter) (*anypb.Any, error) {
	router, err := httpFilter(routerFilter, &routerv3.Router{})
	if err != nil {
		return nil, err
	}
	return pack(&hcmv3.HttpConnectionManager{
		StatPrefix: "inbound",
		RouteSpecifier: &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: &routev3.RouteConfiguration{
			Name: "inbound",
			VirtualHosts: []*routev3.VirtualHost{{
				Name: "inbound", Domains: []string{"*"},
				Routes: []*routev3.Route{{
					Match:  &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
					Action: &routev3.Route_NonForwardingAction{NonForwardingAction: &routev3.NonForwardingAction{}},
				}},
			}},
		}},
		HttpFilters: append(slices.Clip(filters), router),
	})
}

// inboundResource is the listener of a node at address "IP:PORT".
func (c *Config) inboundResource(node Node, name, address string) (proto.Message, bool) {
	ap, err := netip.ParseAddrPort(address)
	if err != nil || ap.Port() == 0 || ap.Addr().Zone() != "" {
		return nil, false
	}
	if node, err = c.listener(node, ap); err != nil {
		return nil, false // see Refusal
	}
	port := uint32(ap.Port())
	template := c.inboundFor(node, port)
	if template == nil {
		return nil, false
	}
	return &listenerv3.Listener{
		Name:            name,
		Address:         socketAddress(ap.Addr().String(), port),
		ListenerFilters: template.filters,
		FilterChains:    template.chains,
	}, true
}
