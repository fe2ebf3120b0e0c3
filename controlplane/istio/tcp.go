package istio

import (
	"cmp"
	"slices"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	networkrbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
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
			config := &networkrbacv3.RBAC{StatPrefix: tcpPrefix}
			for _, policy := range set {
				if policy.action != kind.action {
					continue
				}
				rules := &config.Rules
				if policy.dryRun {
					rules = &config.ShadowRules
					config.ShadowRulesStatPrefix = "istio_dry_run_" + kind.name + "_"
				}
				if *rules == nil {
					*rules = &rbacv3.RBAC{Action: kind.rbac, Policies: make(map[string]*rbacv3.Policy)}
				}
				for name, p := range policy.policies {
					if p = connectionPolicy(p, kind.rbac == rbacv3.RBAC_ALLOW); p != nil {
						(*rules).Policies[name] = p
					}
				}
			}
			if config.Rules == nil && config.ShadowRules == nil {
				continue
			}
			f, err := networkFilter(networkRBACFilter+"."+kind.name+suffix, config)
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

// policyKinds are the actions in the order in which they are evaluated.
var policyKinds = [...]struct {
	name   string
	action security.AuthorizationPolicy_Action
	rbac   rbacv3.RBAC_Action
}{
	{"custom", security.AuthorizationPolicy_CUSTOM, rbacv3.RBAC_DENY},
	{"audit", security.AuthorizationPolicy_AUDIT, rbacv3.RBAC_LOG},
	{"deny", security.AuthorizationPolicy_DENY, rbacv3.RBAC_DENY},
	{"allow", security.AuthorizationPolicy_ALLOW, rbacv3.RBAC_ALLOW},
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

// checkTCP refuses rules about the requests of a VirtualService whose hosts have none.
func (r *registry) checkTCP(vs *virtualService) {
	if len(vs.spec.GetHttp()) == 0 {
		return
	}
	found := false
	for _, host := range vs.hosts {
		for _, s := range r.services[host] {
			if slices.ContainsFunc(s.ports, func(p *servicePort) bool { return !p.tcp }) {
				return
			}
			found = found || len(s.ports) > 0
		}
	}
	if found {
		vs.at.field("http").errorf("has no effect: the ports of %q speak protocols of TCP, which have no requests", cmp.Or(vs.hosts...))
	}
}
