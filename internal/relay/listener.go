package relay

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	httprbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/proto"

	"github.com/inboardmesh/inboard/discovery"
)

// clientListener writes the Listener of a destination, with its routes.
func (e *encoder) clientListener(name string, t *discovery.Target, refused refusedClusters) (proto.Message, error) {
	filters, err := e.clientFilters("listener", t.Listener.Filters)
	if err != nil {
		return nil, err
	}
	table, err := (&tableEncoder{encoder: e, filters: filters, target: t, refused: refused}).routeTable(t.Routes)
	if err != nil {
		return nil, err
	}
	list, err := filters.withRouter()
	if err != nil {
		return nil, err
	}
	manager, err := pack(&hcmv3.HttpConnectionManager{
		RouteSpecifier: &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: table}, HttpFilters: list,
	})
	if err != nil {
		return nil, err
	}
	return &listenerv3.Listener{Name: name, ApiListener: &listenerv3.ApiListener{ApiListener: manager}}, nil
}

// serverManager is the connection manager of a server.
func serverManager(f *filters, table *routev3.RouteConfiguration) (*hcmv3.HttpConnectionManager, error) {
	list, err := f.withRouter()
	if err != nil {
		return nil, err
	}
	if table == nil {
		table = &routev3.RouteConfiguration{}
	}
	return &hcmv3.HttpConnectionManager{
		RouteSpecifier: &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: table}, HttpFilters: list,
	}, nil
}

// serverListener is a Listener with one filter chain, for all connections.
func serverListener(name, host string, port uint32, manager *hcmv3.HttpConnectionManager) *listenerv3.Listener {
	packed, err := pack(manager)
	if err != nil {
		packed = nil // then grpc-go rejects it
	}
	return &listenerv3.Listener{
		Name: name, Address: socketAddress(host, port),
		FilterChains: []*listenerv3.FilterChain{{
			Filters: []*listenerv3.Filter{{
				Name: "envoy.filters.network.http_connection_manager", ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: packed},
			}},
		}},
	}
}

// served is a Listener for a server, and what it means for connections without
// TLS.
type served struct {
	listener *listenerv3.Listener
	// plaintext tells that connections without TLS are accepted beside those with
	// it, which a server can do whose credentials are the mesh's.
	plaintext bool
}

// serverListener writes the Listener of an address of this process.
//
// grpc-go chooses filter chains by addresses only. So all connections get the
// one chain for TLS, if there is one. Where plaintext is accepted beside it, under
// the same policies, credentials tell one from the other.
func (e *encoder) serverListener(name, host string, port uint32, in *discovery.Inbound) (served, error) {
	secure, plain, err := chains(in, port)
	if err != nil {
		return served{}, err
	}
	chain := secure
	if chain == nil {
		chain = plain
	}
	both := secure != nil && plain != nil
	if both {
		e.leave("listener", "connections without TLS are refused, unless the server serves on nativegrpc's Listener and has its credentials")
	}
	if both && !e.samePolicies(secure, plain, port) {
		e.leave("listener", "connections without TLS are refused: their policies differ from those of TLS, and grpc-go has one filter chain for all")
		both = false
	}
	if chain.TCP {
		return served{}, fmt.Errorf("filter chain %q: it is for connections of TCP, and not for calls: %w", chain.Name, errInstead)
	}
	before, err := e.connectionPolicies(chain, both, factsOf(chain, port))
	if err != nil {
		return served{}, err
	}
	manager, err := e.chainManager(chain, before, port)
	if err != nil {
		return served{}, err
	}
	out := serverListener(name, host, port, manager)
	if chain.TLS != nil {
		if out.FilterChains[0].TransportSocket, err = downstreamTLS(chain.TLS); err != nil {
			return served{}, fmt.Errorf("%w: %w", err, errInstead)
		}
	}
	for what, is := range map[string]bool{
		"calls have no time limits of the server": chain.MaxStreamDuration > 0 || chain.StreamIdleTimeout > 0 || chain.RequestTimeout > 0,
		"headers have gRPC's limits":              chain.Headers != discovery.HeaderLimits{},
		"headers that tell of the client are as they came": chain.Forwarding.RequestID ||
			chain.Forwarding.Client != discovery.ClientUnsaid || chain.Forwarding.Certificate != discovery.CertificateSanitize,
	} {
		if is {
			e.leave("listener", "%s", what)
		}
	}
	return served{listener: out, plaintext: both}, nil
}

// chains chooses the filter chains for TLS and for plaintext, of which one may be
// nil.
func chains(in *discovery.Inbound, port uint32) (secure, plain *discovery.FilterChain, err error) {
	var candidates []*discovery.FilterChain
	for _, want := range []uint32{port, 0} {
		for i := range in.Chains {
			if c := &in.Chains[i]; c.Match.DestinationPort == want {
				candidates = append(candidates, c)
			}
		}
		if len(candidates) > 0 {
			break // a chain for the port goes before one for any
		}
	}
	if in.Default != nil {
		fallback := *in.Default
		fallback.Match = discovery.ChainMatch{}
		candidates = append(candidates, &fallback)
	}
	for i, c := range candidates {
		isDefault := in.Default != nil && i == len(candidates)-1
		switch {
		case c.TLS != nil && c.Match.TransportProtocol == "raw_buffer", c.TLS == nil && c.Match.TransportProtocol == "tls":
			return nil, nil, fmt.Errorf("filter chain %q: its TLS does not fit what it matches", c.Name)
		case c.TLS != nil && secure == nil:
			secure = c
		case c.TLS != nil && isDefault: // it is for what no chain is for
		case c.TLS != nil:
			return nil, nil, fmt.Errorf("filter chains %q and %q are both for TLS, and grpc-go does not choose by application protocols: %w", secure.Name, c.Name, errInstead)
		case plain == nil && len(c.Match.ApplicationProtocols) == 0:
			plain = c
		}
	}
	if secure == nil && plain == nil {
		return nil, nil, errors.New("no filter chain matches any connection")
	}
	return secure, plain, nil
}

// samePolicies reports whether the calls of two chains are treated alike: whether
// what is written of them is the same.
func (e *encoder) samePolicies(a, b *discovery.FilterChain, port uint32) bool {
	written := func(c *discovery.FilterChain) (out [2]proto.Message, ok bool) {
		aside := newEncoder(e.trustDomain) // what it notes is noted already, or does not matter
		manager, err := aside.chainManager(c, nil, port)
		if err != nil {
			return out, false
		}
		bare := *c
		bare.TLS = nil
		network, err := aside.connectionPolicies(&bare, false, factsOf(c, port))
		if err != nil {
			return out, false
		}
		return [2]proto.Message{manager, &hcmv3.HttpConnectionManager{HttpFilters: network}}, true
	}
	first, ok := written(a)
	second, alsoOK := written(b)
	return ok && alsoOK && proto.Equal(first[0], second[0]) && proto.Equal(first[1], second[1])
}

// chainManager writes the connection manager of a chain, with filters before its
// own.
func (e *encoder) chainManager(chain *discovery.FilterChain, before []*hcmv3.HttpFilter, port uint32) (*hcmv3.HttpConnectionManager, error) {
	filters, err := e.serverFilters(chain, factsOf(chain, port))
	if err != nil {
		return nil, err
	}
	filters.list = append(before, filters.list...)
	table, err := (&tableEncoder{encoder: e, filters: filters}).routeTable(chain.Routes)
	if err != nil {
		return nil, err
	}
	return serverManager(filters, table)
}

func factsOf(chain *discovery.FilterChain, port uint32) serverFacts {
	return serverFacts{port: port, direct: direct(&chain.Forwarding)}
}

// direct reports whether the client's address is that of the peer.
func direct(f *discovery.Forwarding) bool {
	return f.Client != discovery.ClientIsForwarded && f.Hops == 0 && len(f.TrustedProxies) == 0
}

// connectionPolicies writes what decides about connections as filters of their
// calls: who may connect by name, and the network filters.
func (e *encoder) connectionPolicies(chain *discovery.FilterChain, plaintext bool, facts serverFacts) ([]*hcmv3.HttpFilter, error) {
	f := &filters{}
	if t := chain.TLS; t != nil && t.RequireClientCertificate {
		sans, err := e.peers(cmp.Or(t.IdentityInstance, t.RootInstance), t.SANs, nil)
		if err != nil {
			return nil, err
		}
		policy := &rbacv3.Policy{Permissions: []*rbacv3.Permission{{Rule: &rbacv3.Permission_Any{Any: true}}}}
		for _, san := range sans {
			policy.Principals = append(policy.Principals, &rbacv3.Principal{Identifier: &rbacv3.Principal_Authenticated_{
				Authenticated: &rbacv3.Principal_Authenticated{PrincipalName: san},
			}})
		}
		if plaintext {
			anybody := &rbacv3.Principal{Identifier: &rbacv3.Principal_Authenticated_{Authenticated: &rbacv3.Principal_Authenticated{}}}
			policy.Principals = append(policy.Principals, notPrincipal(anybody)) // without TLS
		}
		err = f.add("inboard.peers", &httprbacv3.RBAC{Rules: &rbacv3.RBAC{
			Action: rbacv3.RBAC_ALLOW, Policies: map[string]*rbacv3.Policy{"members of the mesh": policy},
		}})
		if err != nil {
			return nil, err
		}
	}
	for i, config := range chain.Network {
		where := fmt.Sprintf("network filter %d", i)
		if aboutRequests(config) {
			return nil, fmt.Errorf("%s: it has rules about requests: %w", where, errInstead)
		}
		rules, err := e.rbac(where, config, facts)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", where, err)
		}
		if err := f.add(fmt.Sprintf("inboard.network.%d", i), rules); err != nil {
			return nil, err
		}
	}
	return f.list, nil
}

// aboutRequests reports whether a policy for connections has rules about
// requests, which no connection fulfils.
func aboutRequests(config *discovery.RBAC) bool {
	var about func([]discovery.RBACRule) bool
	about = func(rules []discovery.RBACRule) bool {
		return slices.ContainsFunc(rules, func(r discovery.RBACRule) bool {
			switch r.Kind {
			case discovery.RBACHeader, discovery.RBACPath, discovery.RBACTemplate, discovery.RBACMetadata:
				return true
			}
			return about(r.Rules)
		})
	}
	return config.Rules != nil && slices.ContainsFunc(config.Rules.Policies, func(p discovery.RBACPolicy) bool {
		return about(p.Permissions) || about(p.Principals)
	})
}

// splitAddress reads the address of a server, as net.Addr has it.
func splitAddress(address string) (host string, port uint32, err error) {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return "", 0, fmt.Errorf("%q is no address to listen on: %w", address, err)
	}
	return ap.Addr().String(), uint32(ap.Port()), nil
}
