package istio

import (
	"net/netip"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
	networking "istio.io/api/networking/v1alpha3"
)

// defaultRouteName is the name of the route of a service without a
// VirtualService.
const defaultRouteName = "default"

// anyPort stands for whatever port is called, where a rule is only checked.
const anyPort = 0

// portRoutes are the routes of a port of a service: those of its
// VirtualService, else one to the whole service.
func (r *registry) portRoutes(s *service, p *servicePort) []*routev3.Route {
	if vs, ok := r.routes[s.host]; ok {
		if routes := r.virtualRoutes(vs, p.number); len(routes) > 0 {
			return routes
		}
	}
	// Nothing can be wrong with an empty rule, so that no field is needed to
	// report it at.
	return []*routev3.Route{{
		Name:  defaultRouteName,
		Match: routeMatch(nil),
		Action: &routev3.Route_Route{Route: forward(&networking.HTTPRoute{}, &routev3.RouteAction_Cluster{
			Cluster: clusterName(p.number, "", s.host),
		}, at{})},
	}}
}

// virtualRoutes are the routes of a VirtualService on one port: one for each
// match of a rule, in order. Nothing is listed after a route that matches
// every request.
func (r *registry) virtualRoutes(vs *virtualService, port uint32) []*routev3.Route {
	var routes []*routev3.Route
	for i, http := range vs.spec.Http {
		a := vs.at.field("http").index(i)
		if len(http.Match) == 0 {
			return append(routes, r.virtualRoute(vs, http, nil, port, a))
		}
		for _, match := range http.Match {
			if match.Port != 0 && match.Port != port {
				continue
			}
			route := r.virtualRoute(vs, http, match, port, a)
			routes = append(routes, route)
			if matchesAll(route.Match) {
				return routes
			}
		}
	}
	return routes
}

func matchesAll(m *routev3.RouteMatch) bool {
	all := false
	switch path := m.PathSpecifier.(type) {
	case *routev3.RouteMatch_Prefix:
		all = path.Prefix == "/"
	case *routev3.RouteMatch_SafeRegex:
		all = path.SafeRegex.Regex == ".*"
	}
	return all && len(m.Headers) == 0 && len(m.QueryParameters) == 0
}

func (r *registry) virtualRoute(vs *virtualService, http *networking.HTTPRoute, match *networking.HTTPMatchRequest, port uint32, a at) *routev3.Route {
	route := &routev3.Route{Name: http.Name, Match: routeMatch(match)}
	if match.GetName() != "" {
		route.Name += "." + match.GetName()
	}
	ops := headerOperations(http.Headers, a.field("headers"))
	switch {
	case http.Redirect != nil:
		route.Action = &routev3.Route_Redirect{Redirect: redirect(http.Redirect, http.Match, port, a.field("redirect"))}
	case http.DirectResponse != nil:
		route.Action = &routev3.Route_DirectResponse{
			DirectResponse: directResponse(http.DirectResponse, a.field("directResponse")),
		}
	default:
		action := forward(http, nil, a)
		r.destinations(vs, http, port, action, &ops, a.field("route"))
		route.Action = &routev3.Route_Route{Route: action}
	}
	route.RequestHeadersToAdd, route.RequestHeadersToRemove = ops.requestAdd, ops.requestRemove
	route.ResponseHeadersToAdd, route.ResponseHeadersToRemove = ops.responseAdd, ops.responseRemove
	if f := fault(http.Fault, a.field("fault")); f != nil {
		route.TypedPerFilterConfig = map[string]*anypb.Any{faultFilter: f}
	}
	return route
}

// forward is a route action without its clusters, unless they are given.
// Proxyless gRPC clients know max_stream_duration and not timeout; 0 is no
// limit in both.
func forward(http *networking.HTTPRoute, cluster *routev3.RouteAction_Cluster, a at) *routev3.RouteAction {
	timeout := http.Timeout
	if timeout == nil {
		timeout = durationpb.New(0)
	}
	action := &routev3.RouteAction{
		Timeout:           timeout,
		MaxStreamDuration: &routev3.RouteAction_MaxStreamDuration{MaxStreamDuration: timeout},
		RetryPolicy:       retryPolicy(http.Retries, a.field("retries")),
	}
	if cluster != nil {
		action.ClusterSpecifier = cluster
	}
	host := authority(http.Headers)
	if rewrite := http.Rewrite; rewrite != nil {
		if rewrite.Uri == "" && rewrite.Authority == "" {
			a.field("rewrite").errorf("needs uri or authority")
		}
		action.PrefixRewrite = rewrite.Uri
		if rewrite.Authority != "" {
			host = rewrite.Authority
		}
	}
	if host == "" && len(http.Route) == 1 {
		host = authority(http.Route[0].Headers)
	}
	if host != "" {
		action.HostRewriteSpecifier = &routev3.RouteAction_HostRewriteLiteral{HostRewriteLiteral: host}
	}
	return action
}

// destinations adds the clusters of a route. The header operations of a single
// destination come after those of the route; several destinations keep their
// own.
func (r *registry) destinations(vs *virtualService, http *networking.HTTPRoute, port uint32, action *routev3.RouteAction, ops *headerOps, a at) {
	if len(http.Route) == 1 {
		only := http.Route[0]
		action.ClusterSpecifier = &routev3.RouteAction_Cluster{
			Cluster: r.destination(vs, only.Destination, port, a.index(0).field("destination")),
		}
		ops.append(headerOperations(only.Headers, a.index(0).field("headers")))
		return
	}
	weighted := new(routev3.WeightedCluster)
	for i, d := range http.Route {
		name := r.destination(vs, d.Destination, port, a.index(i).field("destination"))
		own := headerOperations(d.Headers, a.index(i).field("headers"))
		if d.Weight <= 0 {
			continue
		}
		weighted.Clusters = append(weighted.Clusters, &routev3.WeightedCluster_ClusterWeight{
			Name:                    name,
			Weight:                  wrapperspb.UInt32(uint32(d.Weight)),
			RequestHeadersToAdd:     own.requestAdd,
			RequestHeadersToRemove:  own.requestRemove,
			ResponseHeadersToAdd:    own.responseAdd,
			ResponseHeadersToRemove: own.responseRemove,
		})
	}
	action.ClusterSpecifier = &routev3.RouteAction_WeightedClusters{WeightedClusters: weighted}
}

// destination is the cluster of a destination, which must exist. Without a
// port it is the port that was called, as in Istio.
func (r *registry) destination(vs *virtualService, d *networking.Destination, port uint32, a at) string {
	if d == nil {
		a.errorf("is required")
		return ""
	}
	host := fullHost(d.Host, vs.at.obj.namespace)
	if !checkHost(host, a.field("host")) {
		return ""
	}
	s, ok := r.knownHost(host, a.field("host"))
	if !ok {
		return ""
	}
	if d.Port != nil {
		port = d.Port.Number
	}
	if !s.hasPort(port) {
		if d.Port != nil {
			a.field("port").field("number").errorf("%q has no port %d", host, port)
		} else if port != anyPort {
			a.field("port").errorf("%q has no port %d, on which this route is called: set port.number", host, port)
		}
	}
	if d.Subset != "" && !r.rules[host].has(d.Subset) {
		a.field("subset").errorf("no DestinationRule of %q has a subset %q", host, d.Subset)
	}
	return clusterName(port, d.Subset, host)
}

func (d *destinationRule) has(subset string) bool {
	if d == nil {
		return false
	}
	for _, s := range d.spec.Subsets {
		if s.Name == subset {
			return true
		}
	}
	return false
}

// routeTables are the RouteConfigurations of a port for the nodes of the
// service's own namespace and for all others. They differ in the names under
// which the host is known there.
func routeTables(s *service, p *servicePort, routes []*routev3.Route) (near, far *routev3.RouteConfiguration) {
	table := func(domains []string) *routev3.RouteConfiguration {
		return &routev3.RouteConfiguration{
			Name: clusterName(p.number, "", s.host),
			VirtualHosts: []*routev3.VirtualHost{{
				Name: hostPort(s.host, p.number), Domains: domains, Routes: routes,
			}},
		}
	}
	domains := func(hosts ...string) []string {
		list := make([]string, 0, 2*len(hosts))
		for _, h := range hosts {
			list = append(list, h, hostPort(h, p.number))
		}
		return list
	}
	names := []string{s.host}
	if _, err := netip.ParseAddr(s.host); err != nil {
		names = append(names, s.host+".")
	}
	name, namespace, ok := serviceName(s.host)
	if !ok {
		table := table(domains(names...))
		return table, table
	}
	qualified := name + "." + namespace
	near = table(domains(append(names, name, qualified+".svc", qualified)...))
	far = table(domains(append(names, qualified, qualified+".svc")...))
	return near, far
}
