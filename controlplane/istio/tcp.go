package istio

import (
	"cmp"
	"maps"
	"slices"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	networkrbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	networking "istio.io/api/networking/v1alpha3"
	security "istio.io/api/security/v1beta1"
)

const (
	networkRBACFilter = "envoy.filters.network.rbac"
	tcpProxyFilter    = "envoy.filters.network.tcp_proxy"
	// tcpPrefix begins the statistics of policies about connections, as in Istio.
	tcpPrefix = "tcp."
)

// protocolsOfTCP are those whose bytes nobody looks at. Istio knows more of some of
// them, for statistics.
var protocolsOfTCP = []string{"TCP", "MONGO", "MYSQL", "REDIS"}

// speaksTCP reports whether a port of a node carries connections of TCP, of which no
// requests are known. A node that could be one of several workloads at the port, some
// of them of TCP, is taken for one of those: policies about connections allow no more
// than those about requests do (see [connectionPolicies]), and hold for every server.
func (c *Config) speaksTCP(node Node, port uint32) bool {
	if node.NativeGRPC {
		return false // it serves gRPC, and applies what is said of requests
	}
	could := func(e *endpoint) bool {
		someone := e.serviceAccount != "" && node.ServiceAccount != "" && e.serviceAccount != node.ServiceAccount
		return !someone && (e.unknown || mayBe(&node, e))
	}
	if node.Namespace != "" {
		return slices.ContainsFunc(c.streams[workloadKey{node.Namespace, port}], could)
	}
	for key, endpoints := range c.streams {
		if key.port == port && slices.ContainsFunc(endpoints, could) {
			return true
		}
	}
	return false
}

func networkFilter(name string, config proto.Message) (*listenerv3.Filter, error) {
	packed, err := pack(config)
	if err != nil {
		return nil, err
	}
	return &listenerv3.Filter{Name: name, ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: packed}}, nil
}

// tcpFilters are the network filters of a port of TCP: the policies, in Istio's order,
// and the application. CUSTOM comes first, and denies what it would ask about, as in
// Istio when there is nobody to ask: no service is asked about connections here.
func tcpFilters(sets [][]*authorizationPolicy) ([]*listenerv3.Filter, error) {
	var filters []*listenerv3.Filter
	for i, set := range sets {
		suffix := ""
		if i > 0 {
			suffix = "." + itoa(i)
		}
		for _, kind := range policyKinds {
			r := rulesOf(set, kind, func(p *rbacv3.Policy) *rbacv3.Policy { return connectionPolicy(p, kind.rbac == rbacv3.RBAC_ALLOW) })
			if r == nil {
				continue
			}
			f, err := networkFilter(networkRBACFilter+"."+kind.name+suffix, &networkrbacv3.RBAC{
				StatPrefix: tcpPrefix, Rules: r.enforced, ShadowRules: r.tried, ShadowRulesStatPrefix: r.prefix,
			})
			if err != nil {
				return nil, err
			}
			filters = append(filters, f)
		}
	}
	application, err := networkFilter(tcpProxyFilter, &tcpproxyv3.TcpProxy{
		StatPrefix: "inbound", ClusterSpecifier: &tcpproxyv3.TcpProxy_Cluster{Cluster: "inbound"},
		// Unset it is an hour, in which a connection to a database may well be idle.
		IdleTimeout: durationpb.New(0),
	})
	return append(filters, application), err
}

// connectionPolicy is a rule as it holds for connections, of which no requests are
// known: as in Istio, one of ALLOW that looks at requests matches no connection, and is
// nil, and one of any other action looks at the rest only, and so matches more.
func connectionPolicy(p *rbacv3.Policy, allows bool) *rbacv3.Policy {
	out := &rbacv3.Policy{}
	for _, permission := range p.GetPermissions() {
		all := permission.GetAndRules().GetRules()
		if all == nil {
			all = []*rbacv3.Permission{permission}
		}
		kept := slices.DeleteFunc(slices.Clone(all), permissionOfRequests)
		if allows && len(kept) < len(all) {
			return nil
		}
		out.Permissions = append(out.Permissions, allPermissions(kept))
	}
	for _, principal := range p.GetPrincipals() {
		all := principal.GetAndIds().GetIds()
		if all == nil {
			all = []*rbacv3.Principal{principal}
		}
		kept := slices.DeleteFunc(slices.Clone(all), principalOfRequests)
		if allows && len(kept) < len(all) {
			return nil
		}
		out.Principals = append(out.Principals, allPrincipals(kept))
	}
	return out
}

// permissionOfRequests reports whether a permission looks at requests.
func permissionOfRequests(p *rbacv3.Permission) bool {
	switch r := p.GetRule().(type) {
	case *rbacv3.Permission_AndRules:
		return slices.ContainsFunc(r.AndRules.GetRules(), permissionOfRequests)
	case *rbacv3.Permission_OrRules:
		return slices.ContainsFunc(r.OrRules.GetRules(), permissionOfRequests)
	case *rbacv3.Permission_NotRule:
		return permissionOfRequests(r.NotRule)
	case *rbacv3.Permission_Any, *rbacv3.Permission_DestinationIp, *rbacv3.Permission_DestinationPort,
		*rbacv3.Permission_RequestedServerName:
		return false
	}
	return true
}

// principalOfRequests reports whether a principal looks at requests: tokens come with
// them, too.
func principalOfRequests(p *rbacv3.Principal) bool {
	switch i := p.GetIdentifier().(type) {
	case *rbacv3.Principal_AndIds:
		return slices.ContainsFunc(i.AndIds.GetIds(), principalOfRequests)
	case *rbacv3.Principal_OrIds:
		return slices.ContainsFunc(i.OrIds.GetIds(), principalOfRequests)
	case *rbacv3.Principal_NotId:
		return principalOfRequests(i.NotId)
	case *rbacv3.Principal_Any, *rbacv3.Principal_Authenticated_, *rbacv3.Principal_DirectRemoteIp, *rbacv3.Principal_RemoteIp:
		return false
	}
	return true
}

// warnOfCustom finds the policies with CUSTOM that deny connections, as nobody is asked
// about them.
func (r *registry) warnOfCustom(streams workloads) {
	keys := slices.SortedFunc(maps.Keys(streams), func(a, b workloadKey) int {
		return cmp.Or(cmp.Compare(a.namespace, b.namespace), cmp.Compare(a.port, b.port))
	})
	for _, namespace := range sortedKeys(r.policies.byNamespace) {
		for _, policy := range r.policies.byNamespace[namespace] {
			if policy.action != security.AuthorizationPolicy_CUSTOM {
				continue
			}
			of := func(key workloadKey) bool {
				return (key.namespace == namespace || namespace == r.opts.RootNamespace) && policy.mayMeet(key.port) &&
					slices.ContainsFunc(streams[key], func(e *endpoint) bool { return subsetOf(policy.selector, e.labels) })
			}
			if i := slices.IndexFunc(keys, of); i >= 0 {
				at{rep: r.rep, obj: policy.obj}.field("spec").field("action").warnf(lintCustomOnTCP,
					"denies the connections to port %d of a workload of namespace %q that it would ask about: nobody is asked about connections", keys[i].port, keys[i].namespace)
			}
		}
	}
}

// mayMeet reports whether a rule is for a port.
func (p *authorizationPolicy) mayMeet(port uint32) bool {
	if len(p.rules) == 0 {
		return false // which matches nothing
	}
	number := itoa(int(port))
	for _, rule := range p.rules {
		if len(rule.GetTo()) == 0 {
			return true
		}
		for _, to := range rule.GetTo() {
			if ports := to.GetOperation().GetPorts(); (len(ports) == 0 || slices.Contains(ports, number)) && !slices.Contains(to.GetOperation().GetNotPorts(), number) {
				return true
			}
		}
	}
	return false
}

// addStreams reads spec.tcp. A rule about connections is one about requests that looks
// at none of them.
func (vs *virtualService) addStreams() {
	streams := &virtualService{at: vs.at, spec: vs.spec, exports: vs.exports, hosts: vs.hosts, routes: make(map[uint32][]sourcedRoute)}
	for i, tcp := range vs.spec.Tcp {
		if len(tcp.GetRoute()) == 0 {
			vs.at.field("tcp").index(i).field("route").errorf("is required")
			continue
		}
		route := new(networking.HTTPRoute)
		for _, m := range tcp.GetMatch() {
			route.Match = append(route.Match, &networking.HTTPMatchRequest{
				Port: m.GetPort(), SourceLabels: m.GetSourceLabels(), SourceNamespace: m.GetSourceNamespace(), Gateways: m.GetGateways(),
			})
		}
		for _, d := range tcp.GetRoute() {
			route.Route = append(route.Route, &networking.HTTPRouteDestination{Destination: d.GetDestination(), Weight: d.GetWeight()})
		}
		if own, ok := newRule(route, vs.at.field("tcp").index(i)).inMesh(); ok {
			streams.rules = append(streams.rules, own)
		}
	}
	if len(streams.rules) > 0 {
		vs.streams = streams
	}
}

// streamsOf are the rules about connections of VirtualServices.
func streamsOf(from []*virtualService) (streams []*virtualService) {
	for _, vs := range from {
		if vs.streams != nil {
			streams = append(streams, vs.streams)
		}
	}
	return streams
}

// checkTCP refuses rules that no port of the hosts of a VirtualService has use for: those
// about requests, where there are none, and those about connections, where there are
// requests.
func (r *registry) checkTCP(vs *virtualService) {
	requests, connections := false, false
	for _, host := range vs.hosts {
		services := r.services[host]
		if services == nil {
			return // it is not known, or a pattern
		}
		for _, s := range services {
			for _, p := range s.ports {
				requests, connections = requests || !p.tcp, connections || p.tcp
			}
		}
	}
	if len(vs.spec.GetHttp()) > 0 && connections && !requests {
		vs.at.field("http").errorf("has no effect: the ports of %q speak protocols of TCP, which have no requests: use tcp", cmp.Or(vs.hosts...))
	}
	if vs.streams != nil && requests && !connections {
		vs.at.field("tcp").errorf("has no effect: the ports of %q speak HTTP or gRPC: use http, or let the port have a protocol of TCP", cmp.Or(vs.hosts...))
	}
}
