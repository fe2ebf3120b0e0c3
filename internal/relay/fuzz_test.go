package relay

import (
	"context"
	"crypto/x509"
	"log/slog"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	httprbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/discovery/bootstrap"
	"github.com/inboardmesh/inboard/discovery/xds"
	"github.com/inboardmesh/inboard/internal/adstest"
	"github.com/inboardmesh/inboard/internal/memnet"
	"github.com/inboardmesh/inboard/internal/tlstest"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

// The names of what the control plane of the fuzz target serves.
const (
	fuzzTarget  = "payment:9090"
	fuzzAddress = "0.0.0.0:9090"
)

const fuzzRouter = `{"name": "router", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}`

// fuzzServer is a Listener of a server with a filter before the router.
func fuzzServer(chains string) string {
	return `{"address": {"socketAddress": {"address": "0.0.0.0", "portValue": 9090}},
	"listenerFilters": [{"name": "i", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"}}],
	"filterChains": [` + chains + `]}`
}

func fuzzChain(match, tls, network, filters, override string) string {
	socket := ""
	if tls != "" {
		socket = `"transportSocket": {"name": "envoy.transport_sockets.tls", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
		"requireClientCertificate": true, "commonTlsContext": {"tlsCertificateProviderInstance": {"instanceName": "default"}, ` + tls + `}}},`
	}
	return `{"filterChainMatch": {` + match + `}, ` + socket + `"filters": [` + network + `{"name": "hcm", "typedConfig": {
	"@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager", "statPrefix": "in",
	"routeConfig": {"virtualHosts": [{"name": "h", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "nonForwardingAction": {}` + override + `}]}]},
	"httpFilters": [` + filters + fuzzRouter + `]}}]}`
}

const (
	fuzzRoots = `"validationContext": {"caCertificateProviderInstance": {"instanceName": "default"}}`
	fuzzDeny  = `{"name": "deny", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
	"rules": {"action": "DENY", "policies": {"p": {"permissions": [{"urlPath": {"path": {"prefix": "/admin"}}}], "principals": [{"notId": {"authenticated": {"principalName": {"exact": "spiffe://cluster.local/ns/a/sa/b"}}}}]}}}}},`
	fuzzAllow = `{"name": "allow", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
	"rules": {"policies": {"p": {"permissions": [{"header": {"name": ":method", "stringMatch": {"exact": "POST"}}}, {"destinationPort": 9090}], "principals": [{"any": true}]}}}}},`
	fuzzNetwork = `{"name": "n", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC", "statPrefix": "n",
	"rules": {"policies": {"p": {"permissions": [{"any": true}], "principals": [{"directRemoteIp": {"addressPrefix": "10.0.0.0", "prefixLen": 8}}]}}}}},`
	fuzzOff = `, "typedPerFilterConfig": {"deny": {"@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBACPerRoute"}}`
)

var fuzzSeeds = []struct {
	kind byte
	text string
}{
	{0, fuzzServer(fuzzChain(``, fuzzRoots, ``, fuzzDeny+fuzzAllow, ``))},
	{0, fuzzServer(fuzzChain(`"transportProtocol": "tls"`, fuzzRoots, fuzzNetwork, fuzzDeny, fuzzOff) + `,` + fuzzChain(`"transportProtocol": "raw_buffer"`, ``, fuzzNetwork, fuzzDeny, fuzzOff))},
	{0, fuzzServer(fuzzChain(`"transportProtocol": "tls"`, fuzzRoots, ``, fuzzAllow, ``) + `,` + fuzzChain(`"transportProtocol": "raw_buffer"`, ``, ``, ``, ``))},
	{0, fuzzServer(fuzzChain(``, ``, ``, strings.Replace(fuzzDeny, `"name": "deny",`, `"name": "deny", "disabled": true,`, 1), ``))},
	{1, `{"virtualHosts": [{"name": "h", "domains": ["*"], "routes": [
		{"match": {"path": "/a", "headers": [{"name": "x", "stringMatch": {"prefix": "y"}}]}, "directResponse": {"status": 403}},
		{"match": {"safeRegex": {"regex": "/b.*"}}, "route": {"weightedClusters": {"clusters": [{"name": "payment", "weight": 1}, {"name": "other", "weight": 3}]}, "timeout": "3s",
			"retryPolicy": {"retryOn": "unavailable,5xx", "numRetries": 2}, "hashPolicy": [{"header": {"headerName": "x"}}]}},
		{"match": {"prefix": "/"}, "route": {"cluster": "payment"}}]}]}`},
	{2, `{"type": "EDS", "edsClusterConfig": {"edsConfig": {"ads": {}}}, "lbPolicy": "RING_HASH", "circuitBreakers": {"thresholds": [{"maxRequests": 7}]},
		"transportSocket": {"name": "envoy.transport_sockets.tls", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
		"commonTlsContext": {"tlsCertificateProviderInstance": {"instanceName": "default"}, ` + fuzzRoots + `}}}}`},
	{2, `{"type": "EDS", "edsClusterConfig": {"edsConfig": {"ads": {}}}, "transportSocketMatches": [
		{"name": "mtls", "match": {"tlsMode": "istio"}, "transportSocket": {"name": "envoy.transport_sockets.tls", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
		"commonTlsContext": {"tlsCertificateProviderInstance": {"instanceName": "default"}, "combinedValidationContext": {"defaultValidationContext": {"caCertificateProviderInstance": {"instanceName": "default"},
		"matchTypedSubjectAltNames": [{"sanType": "URI", "matcher": {"exact": "spiffe://cluster.local/ns/a/sa/b"}}]}}}}}},
		{"name": "plain", "match": {}, "transportSocket": {"name": "envoy.transport_sockets.raw_buffer", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"}}}]}`},
}

// FuzzGuest lets a control plane send any Listener of a server, route table or
// cluster, and has what the mesh takes of it written for a guest. Nothing panics,
// the same is written each time, and no policy and no TLS is lost on the way: what
// cannot be written is refused.
func FuzzGuest(f *testing.F) {
	for _, seed := range fuzzSeeds {
		m := fuzzMessage(seed.kind)
		if err := protojson.Unmarshal([]byte(seed.text), m); err != nil {
			f.Fatalf("%v: %s", err, seed.text)
		}
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(seed.kind, b)
		f.Add(seed.kind, b[:len(b)*3/4])
	}
	root := tlstest.NewCA(f)
	identity, err := meshtls.NewIdentity(root.Workload(f, "spiffe://cluster.local/ns/shop/sa/payment"), []*x509.Certificate{root.Certificate})
	if err != nil {
		f.Fatal(err)
	}
	source := meshtls.NewStatic(identity)
	f.Fuzz(func(t *testing.T, kind byte, body []byte) {
		m := fuzzMessage(kind)
		if proto.Unmarshal(body, m) != nil {
			return // that the mesh rejects it is shown elsewhere
		}
		synctest.Test(t, func(t *testing.T) { fuzzGuest(t, source, m) })
	})
}

func fuzzMessage(kind byte) proto.Message {
	switch kind % 3 {
	case 0:
		return new(listenerv3.Listener)
	case 1:
		return new(routev3.RouteConfiguration)
	}
	return new(clusterv3.Cluster)
}

// fuzzed are the resources of a control plane of which one is foreign.
func fuzzed(m proto.Message) []proto.Message {
	parse := func(m proto.Message, text string) proto.Message {
		if err := protojson.Unmarshal([]byte(text), m); err != nil {
			panic(err)
		}
		return m
	}
	all := []proto.Message{
		parse(new(listenerv3.Listener), `{"name": "`+fuzzTarget+`", "apiListener": {"apiListener": {"@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
			"rds": {"routeConfigName": "routes", "configSource": {"ads": {}}}, "httpFilters": [`+fuzzRouter+`]}}}`),
		parse(new(routev3.RouteConfiguration), `{"name": "routes", "virtualHosts": [{"name": "h", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "payment"}}]}]}`),
		parse(new(clusterv3.Cluster), `{"name": "payment", "type": "EDS", "edsClusterConfig": {"edsConfig": {"ads": {}}}}`),
		parse(new(endpointv3.ClusterLoadAssignment), `{"clusterName": "payment", "endpoints": [{"locality": {"zone": "z"}, "loadBalancingWeight": 1, "lbEndpoints": [
			{"endpoint": {"address": {"socketAddress": {"address": "10.0.0.1", "portValue": 9090}}}, "metadata": {"filterMetadata": {"envoy.transport_socket_match": {"tlsMode": "istio"}}}},
			{"endpoint": {"address": {"socketAddress": {"address": "10.0.0.2", "portValue": 9090}}}}]}]}`),
	}
	switch m := m.(type) {
	case *listenerv3.Listener:
		m.Name = "in/" + fuzzAddress
		m.Address = &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
			Address: "0.0.0.0", PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: 9090},
		}}}
		return append(all, m)
	case *routev3.RouteConfiguration:
		m.Name = "routes"
		all[1] = m
	case *clusterv3.Cluster:
		m.Name = "payment"
		if eds := m.GetEdsClusterConfig(); eds != nil {
			eds.ServiceName = ""
		}
		all[2] = m
	}
	return all
}

// fuzzGuest follows the whole way: from the control plane's bytes to a guest's.
func fuzzGuest(t *testing.T, identity meshtls.Source, m proto.Message) {
	network := new(memnet.Network)
	plane := adstest.Serve(t, adstest.Config{Network: network})
	source, err := xds.NewSource(&bootstrap.Config{
		Servers: []bootstrap.Server{{
			URI: "passthrough:///xds.test", ChannelCreds: bootstrap.Credentials{Type: "insecure"}, API: bootstrap.APIDelta,
			DialOptions: []grpc.DialOption{grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
				return network.DialContext(ctx, "tcp", address)
			})},
		}},
		Node: bootstrap.Node{ID: "guest"}, ServerListenerTemplate: "in/%s",
		CertificateProviders: map[string]bootstrap.CertificateProvider{"default": {Plugin: "test"}},
	}, xds.Options{})
	if err != nil {
		t.Fatal(err)
	}
	r := &Relay{plaintext: make(map[uint32]*follow), options: Options{
		Config: &bootstrap.Config{}, Logger: slog.New(slog.DiscardHandler),
		Identity: func(string) (meshtls.Source, error) { return identity, nil },
	}}
	var target discovery.Update[*discovery.Target]
	var inbound discovery.Update[*discovery.Inbound]
	plane.Set(fuzzed(m)...)
	stopTarget := source.WatchTarget(fuzzTarget, func(u discovery.Update[*discovery.Target]) { target = u })
	stopInbound := source.WatchInbound(fuzzAddress, func(u discovery.Update[*discovery.Inbound]) { inbound = u })
	synctest.Wait()
	stopTarget()
	stopInbound()
	if err := source.Close(); err != nil {
		t.Fatal(err)
	}
	write := func() (*snapshot, *snapshot) {
		client := &follow{relay: r, name: fuzzTarget, pairs: make(map[string]*writtenCluster)}
		server := &follow{relay: r, name: "in/" + fuzzAddress, server: true, host: "0.0.0.0", port: 9090}
		return client.writeClient(target), server.writeServer(inbound)
	}
	client, server := write()
	clientAgain, serverAgain := write()
	if !sameSnapshot(client, clientAgain) || !sameSnapshot(server, serverAgain) {
		t.Fatal("the same is not written the same again")
	}
	if inbound.Value != nil {
		checkServer(t, inbound.Value, server)
	}
	if target.Value != nil {
		checkClient(t, target.Value, client)
	}
}

func sameSnapshot(a, b *snapshot) bool {
	if a == nil || b == nil {
		return a == b
	}
	same := func(x, y map[string]resource) bool {
		for name, r := range x {
			if !proto.Equal(r.body, y[name].body) || r.refused != y[name].refused {
				return false
			}
		}
		return len(x) == len(y)
	}
	return proto.Equal(a.listener.body, b.listener.body) && same(a.clusters, b.clusters) && same(a.endpoints, b.endpoints) && slices.Equal(a.notes, b.notes)
}

// decisions counts what decides about the calls of a server.
type decisions struct {
	network, requests int
	// peers tells that who may connect is decided by name.
	peers bool
}

// enforced counts the policies of a chain, and says whether it has filters that a
// guest cannot apply.
func enforced(c *discovery.FilterChain) (p decisions, beyond bool) {
	active := func(config *discovery.RBAC) bool {
		return config.Rules != nil && (config.Rules.Action == discovery.RBACAllow || config.Rules.Action == discovery.RBACDeny)
	}
	p.peers = c.TLS != nil && c.TLS.RequireClientCertificate
	for _, n := range c.Network {
		if active(n) {
			p.network++
		}
	}
	for i := range c.Filters {
		f := &c.Filters[i]
		switch config := f.Config.(type) {
		case *discovery.RBAC:
			if !f.Disabled && active(config) {
				p.requests++
			}
		case *discovery.CORS:
		default:
			beyond = beyond || !f.Disabled && !isIdle(config)
		}
	}
	return p, beyond
}

// checkServer holds what was written of a server's Listener against the model.
func checkServer(t *testing.T, in *discovery.Inbound, s *snapshot) {
	t.Helper()
	l := new(listenerv3.Listener)
	if err := s.listener.body.UnmarshalTo(l); err != nil || len(l.GetFilterChains()) != 1 {
		t.Fatalf("written %v, %v", l, err)
	}
	chain := l.GetFilterChains()[0]
	if s.listener.refused {
		if !strings.HasPrefix(chain.GetTransportSocket().GetName(), "refused by the mesh") {
			t.Fatalf("refused by %v", chain)
		}
		return
	}
	all := make([]*discovery.FilterChain, 0, len(in.Chains)+1)
	for i := range in.Chains {
		all = append(all, &in.Chains[i])
	}
	if in.Default != nil {
		all = append(all, in.Default)
	}
	// A guest has one chain, which is at least as strict as the least strict that
	// it may stand for.
	secure := slices.ContainsFunc(all, func(c *discovery.FilterChain) bool { return c.TLS != nil })
	fewest, beyond, anonymous := decisions{network: 1 << 20, requests: 1 << 20, peers: true}, true, false
	for _, c := range all {
		if secure && c.TLS == nil {
			continue // TLS goes before
		}
		n, more := enforced(c)
		anonymous = anonymous || c.TLS != nil && !c.TLS.RequireClientCertificate
		beyond = beyond && more
		fewest = decisions{network: min(fewest.network, n.network), requests: min(fewest.requests, n.requests), peers: fewest.peers && n.peers}
	}
	if beyond {
		t.Fatalf("served without filters that no guest applies: %+v", in)
	}
	if secure {
		context := new(tlsv3.DownstreamTlsContext)
		if err := chain.GetTransportSocket().GetTypedConfig().UnmarshalTo(context); err != nil || !anonymous && !context.GetRequireClientCertificate().GetValue() {
			t.Fatalf("TLS became %v, %v", chain.GetTransportSocket(), err)
		}
	}
	manager := new(hcmv3.HttpConnectionManager)
	if err := chain.GetFilters()[0].GetTypedConfig().UnmarshalTo(manager); err != nil {
		t.Fatal(err)
	}
	got := writtenPolicies(t, manager)
	if got.network < fewest.network || got.requests < fewest.requests || fewest.peers && !got.peers {
		t.Fatalf("%+v became %+v: %v", fewest, got, manager)
	}
}

func writtenPolicies(t *testing.T, manager *hcmv3.HttpConnectionManager) (p decisions) {
	t.Helper()
	for _, f := range manager.GetHttpFilters() {
		config := new(httprbacv3.RBAC)
		if !f.GetTypedConfig().MessageIs(config) {
			continue
		}
		if err := f.GetTypedConfig().UnmarshalTo(config); err != nil || f.GetIsOptional() || f.GetDisabled() {
			t.Fatalf("%v, %v", f, err)
		}
		switch {
		case config.GetRules() == nil:
		case f.GetName() == "inboard.peers":
			p.peers = true
		case strings.HasPrefix(f.GetName(), "inboard.network."):
			p.network++
		default:
			p.requests++
		}
	}
	return p
}

// checkClient holds what was written of a destination against the model.
func checkClient(t *testing.T, target *discovery.Target, s *snapshot) {
	t.Helper()
	for name, result := range target.Clusters {
		written, ok := s.clusters[refusedClusters{name: true}.name(name)]
		if !ok {
			written, ok = s.clusters[name]
		}
		if !ok {
			t.Fatalf("cluster %q is not written", name)
		}
		c := new(clusterv3.Cluster)
		if err := written.body.UnmarshalTo(c); err != nil {
			t.Fatal(err)
		}
		if written.refused {
			if !strings.HasPrefix(c.GetTransportSocket().GetName(), "refused by the mesh") {
				t.Fatalf("refused by %v", c)
			}
			continue
		}
		if result.Err != nil {
			t.Fatalf("cluster %q is in error and is written: %v", name, c)
		}
		if result.Cluster.TLS == nil || len(result.Cluster.TLSMatches) > 0 || len(result.Cluster.Aggregate) > 0 {
			continue
		}
		context := new(tlsv3.UpstreamTlsContext)
		if err := c.GetTransportSocket().GetTypedConfig().UnmarshalTo(context); err != nil {
			t.Fatalf("TLS of cluster %q became %v: %v", name, c.GetTransportSocket(), err)
		}
		verified := context.GetCommonTlsContext().GetValidationContext()
		if verified.GetCaCertificateProviderInstance().GetInstanceName() == "" || len(verified.GetMatchSubjectAltNames()) == 0 { //nolint:staticcheck // the field that grpc-go reads
			t.Fatalf("TLS of cluster %q verifies anybody: %v", name, context)
		}
	}
	if s.listener.refused {
		return
	}
	for _, f := range target.Listener.Filters {
		switch f.Config.(type) {
		case *discovery.RBAC, *discovery.ExtAuthz, *discovery.JWTAuthn:
			t.Fatalf("a client without its filter %T: %v", f.Config, f)
		}
	}
	checkRoutes(t, target, s)
}

// checkRoutes checks that each route leads to a cluster that is written, or fails.
func checkRoutes(t *testing.T, target *discovery.Target, s *snapshot) {
	t.Helper()
	l, manager := new(listenerv3.Listener), new(hcmv3.HttpConnectionManager)
	if err := s.listener.body.UnmarshalTo(l); err != nil {
		t.Fatal(err)
	}
	if err := l.GetApiListener().GetApiListener().UnmarshalTo(manager); err != nil {
		t.Fatal(err)
	}
	hosts := manager.GetRouteConfig().GetVirtualHosts()
	if len(hosts) != len(target.Routes.VirtualHosts) {
		t.Fatalf("%d virtual hosts became %d", len(target.Routes.VirtualHosts), len(hosts))
	}
	for _, host := range hosts {
		for _, route := range host.GetRoutes() {
			names := []string{route.GetRoute().GetCluster()}
			for _, c := range route.GetRoute().GetWeightedClusters().GetClusters() {
				names = append(names, c.GetName())
			}
			for _, name := range names {
				if _, ok := s.clusters[name]; name != "" && !ok {
					t.Fatalf("route %v leads to a cluster that is not written", route)
				}
			}
			if route.GetAction() == nil {
				t.Fatalf("route %v has no action", route)
			}
		}
	}
}
