package istio

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"golang.org/x/net/http/httpguts"
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

// portRoutes are the routes of a port: those of the VirtualServices of its host,
// in the order in which they are tried, and at last what is for everybody else. decided is
// the one that leaves nobody, nil for none.
func (r *registry) portRoutes(port uint32, from []*virtualService, fallback []sourcedRoute) (choices [][]sourcedRoute, decided *virtualService) {
	choices = make([][]sourcedRoute, 0, len(from)+1)
	for _, vs := range from {
		routes := r.virtualRoutes(vs, port)
		if len(routes) == 0 {
			continue
		}
		choices = append(choices, routes)
		if slices.ContainsFunc(routes, func(r sourcedRoute) bool { return r.from.none() }) {
			return choices, vs
		}
	}
	return append(choices, fallback), nil
}

// choices are the routes of a port, of VirtualServices and of the Gateway API. Where both
// are for a host, it is decided as in Istio, for which a route of the Gateway API is a
// VirtualService that everybody sees: those that are exported more narrowly go first, then a
// route of the callers' own namespace, and then the older one.
func (r *registry) choices(s *service, p *servicePort, from []*virtualService, gateway []*gatewayParent, fallback []sourcedRoute) [][]sourcedRoute {
	if len(gateway) == 0 {
		choices, _ := r.portRoutes(p.number, from, fallback)
		return choices
	}
	// One for a wildcard is less specific than a route of the host itself.
	if len(from) > 0 && !slices.Contains(from[0].hosts, s.host) {
		from = nil
	}
	ahead := 0
	for ahead < len(from) && r.goesBefore(from[ahead], gateway, s) {
		ahead++
	}
	choices, decided := r.portRoutes(p.number, from[:ahead], r.mergeGateway(gateway, p.number))
	for _, parent := range gateway {
		if decided == nil {
			parent.used = true
			continue
		}
		parent.lost = decided.at.obj
		parent.at.warnf(lintConflictingRoute, "is not accepted (Conflicted) for port %d of %q: %s is for the same calls, and goes before it",
			p.number, s.host, decided.at.obj.source())
	}
	if decided == nil {
		for _, vs := range from[ahead:] {
			vs.hostAt(s.host).warnf(lintOverriddenHost, "has no effect on port %d of %q%s: %s goes before it", p.number, s.host, gateway[0].callers(), gateway[0].route.at.obj.source())
		}
	}
	return choices
}

// goesBefore reports whether a VirtualService goes before the routes of the Gateway API of
// the same host.
func (r *registry) goesBefore(vs *virtualService, gateway []*gatewayParent, s *service) bool {
	if !vs.exports.all {
		return true
	}
	first := gateway[0]
	if first.consumer != "" {
		return false
	}
	for _, p := range gateway {
		if older(p.route.at.obj, first.route.at.obj) < 0 {
			first = p
		}
	}
	a, b := vs.at.obj, first.route.at.obj
	switch {
	case a.isOlder(b):
		return true
	case b.isOlder(a):
		return false
	case a.namespace == b.namespace:
		first.at.errorf("%q has %s too, and it is not known which is the older one, which would win: use one or the other, or give both metadata.creationTimestamp", s.host, a.source())
	}
	// The route is of the namespace of the service.
	return false
}

// defaultRoute is the route of a service without a VirtualService. Nothing can
// be wrong with an empty rule, so that no field is needed to report it at.
func defaultRoute(cluster string) sourcedRoute {
	return sourcedRoute{route: &routev3.Route{
		Name:  defaultRouteName,
		Match: routeMatch(nil),
		Action: &routev3.Route_Route{
			Route: forward(&rule{spec: &networking.HTTPRoute{}}, &routev3.RouteAction_Cluster{Cluster: cluster}),
		},
	}}
}

// virtualRoutes are the routes of a VirtualService on one port: one for each
// match of a rule, in order. Nothing is listed after a route that matches
// every request of every node.
func (r *registry) virtualRoutes(vs *virtualService, port uint32) []sourcedRoute {
	if routes, ok := vs.routes[port]; ok {
		return routes
	}
	var routes []sourcedRoute
	defer func() { vs.routes[port] = routes }()
	for _, one := range vs.rules {
		if len(one.spec.Match) == 0 {
			routes = append(routes, sourcedRoute{route: r.virtualRoute(one, nil, port), at: one.at, target: one.field("route")})
			return routes
		}
		for i, match := range one.spec.Match {
			if match.Port != 0 && match.Port != port {
				continue
			}
			route := sourcedRoute{
				route: r.virtualRoute(one, match, port),
				from:  source{labels: match.SourceLabels, namespace: match.SourceNamespace},
				at:    one.matches[i], target: one.field("route"),
			}
			routes = append(routes, route)
			if matchesAll(route.route.Match) && route.from.none() {
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
	return all && len(m.Headers) == 0 && len(m.QueryParameters) == 0 && m.RuntimeFraction == nil
}

func (r *registry) virtualRoute(from *rule, match *networking.HTTPMatchRequest, port uint32) *routev3.Route {
	http := from.spec
	route := &routev3.Route{Name: http.Name, Match: routeMatch(match), StatPrefix: match.GetStatPrefix()}
	if route.Name == "" {
		route.Name = from.unnamed()
	}
	if match.GetName() != "" {
		route.Name += "." + match.GetName()
	}
	ops := headerOperations(http.Headers, from.field("headers"))
	switch {
	case http.Redirect != nil:
		route.Action = &routev3.Route_Redirect{Redirect: redirect(http.Redirect, http.Match, port, from.field("redirect"))}
	case http.DirectResponse != nil:
		route.Action = &routev3.Route_DirectResponse{
			DirectResponse: directResponse(http.DirectResponse, from.field("directResponse")),
		}
	default:
		action := forward(from, nil)
		r.destinations(http, port, action, &ops, from.field("route"))
		action.RequestMirrorPolicies = r.mirrors(from, port)
		route.Action, route.Metadata = &routev3.Route_Route{Route: action}, filterMetadata(from.metadata)
	}
	route.RequestHeadersToAdd, route.RequestHeadersToRemove = ops.requestAdd, ops.requestRemove
	route.ResponseHeadersToAdd, route.ResponseHeadersToRemove = ops.responseAdd, ops.responseRemove
	route.TypedPerFilterConfig = make(map[string]*anypb.Any)
	if f := fault(http.Fault, from.field("fault")); f != nil {
		route.TypedPerFilterConfig[faultFilter] = f
	}
	if c := cors(http.CorsPolicy, from.field("corsPolicy")); c != nil {
		route.TypedPerFilterConfig[corsFilter] = c
	}
	return route
}

// forward is a route action without its clusters, unless they are given.
// Proxyless gRPC clients know max_stream_duration and not timeout; 0 is no
// limit in both.
func forward(from *rule, cluster *routev3.RouteAction_Cluster) *routev3.RouteAction {
	http := from.spec
	timeout := http.Timeout
	if timeout == nil {
		timeout = durationpb.New(0)
	}
	action := &routev3.RouteAction{
		Timeout:           timeout,
		MaxStreamDuration: &routev3.RouteAction_MaxStreamDuration{MaxStreamDuration: timeout},
		RetryPolicy:       retryPolicy(http.Retries, from.field("retries")),
	}
	if cluster != nil {
		action.ClusterSpecifier = cluster
	}
	host := authority(http.Headers)
	if rewrite := http.Rewrite; rewrite != nil {
		if rewrite.Uri == "" && rewrite.Authority == "" && rewrite.UriRegexRewrite == nil {
			from.field("rewrite").errorf("needs uri, uriRegexRewrite or authority")
		}
		if rewrite.Authority != "" && !httpguts.ValidHostHeader(rewrite.Authority) {
			from.field("rewrite").field("authority").errorf("%q is not a host name", rewrite.Authority)
		}
		checkRewrite(rewrite.Uri, from.field("rewrite").field("uri"))
		action.PrefixRewrite = rewrite.Uri
		action.RegexRewrite = regexRewrite(rewrite, from.field("rewrite"))
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

// regexRewrite translates uriRegexRewrite; nil without one.
func regexRewrite(in *networking.HTTPRewrite, a at) *matcherv3.RegexMatchAndSubstitute {
	re := in.UriRegexRewrite
	if re == nil {
		return nil
	}
	a = a.field("uriRegexRewrite")
	if in.Uri != "" {
		a.refuse("cannot be set together with %q", "uri")
	}
	if re.Match == "" {
		a.field("match").errorf("is required")
		return nil
	}
	checkRegex(re.Match, a.field("match"))
	checkReplaced(re, a)
	return &matcherv3.RegexMatchAndSubstitute{Pattern: &matcherv3.RegexMatcher{Regex: re.Match}, Substitution: re.Rewrite}
}

// checkReplaced checks what an expression is replaced by, as RE2 reads it.
func checkReplaced(re *networking.RegexRewrite, a at) {
	text, a := re.Rewrite, a.field("rewrite")
	if text == "" {
		a.errorf("is required")
	}
	program, err := regexp.Compile(re.Match)
	if err != nil {
		return // that was reported
	}
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' {
			continue
		}
		i++
		switch {
		case i == len(text):
			a.errorf("ends with a backslash: write two for one")
		case text[i] == '\\':
		case text[i] < '0' || text[i] > '9':
			a.errorf(`has "\%c": only "\0" to "\9" and "\\" have a meaning`, text[i])
		case int(text[i]-'0') > program.NumSubexp():
			a.errorf(`has "\%c", but the last group of the expression is "\%d"`, text[i], program.NumSubexp())
		}
	}
}

// destinations adds the clusters of a route. The header operations of a single
// destination come after those of the route; several destinations keep their
// own.
func (r *registry) destinations(http *networking.HTTPRoute, port uint32, action *routev3.RouteAction, ops *headerOps, a at) {
	if len(http.Route) == 1 {
		only := http.Route[0]
		action.ClusterSpecifier = &routev3.RouteAction_Cluster{
			Cluster: r.destination(only.Destination, port, a.index(0).field("destination")),
		}
		ops.append(headerOperations(only.Headers, a.index(0).field("headers")))
		return
	}
	weighted := new(routev3.WeightedCluster)
	for i, d := range http.Route {
		name := r.destination(d.Destination, port, a.index(i).field("destination"))
		own := headerOperations(d.Headers, a.index(i).field("headers"))
		if d.Weight <= 0 {
			continue
		}
		weight := &routev3.WeightedCluster_ClusterWeight{
			Name:                    name,
			Weight:                  wrapperspb.UInt32(uint32(d.Weight)),
			RequestHeadersToAdd:     own.requestAdd,
			RequestHeadersToRemove:  own.requestRemove,
			ResponseHeadersToAdd:    own.responseAdd,
			ResponseHeadersToRemove: own.responseRemove,
		}
		if host := authority(d.Headers); host != "" {
			weight.HostRewriteSpecifier = &routev3.WeightedCluster_ClusterWeight_HostRewriteLiteral{HostRewriteLiteral: host}
		}
		weighted.Clusters = append(weighted.Clusters, weight)
	}
	action.ClusterSpecifier = &routev3.RouteAction_WeightedClusters{WeightedClusters: weighted}
}

// destination is the cluster of a destination, which must exist. Without a
// port it is the only port of the host, else the port that was called, as in
// Istio.
func (r *registry) destination(d *networking.Destination, port uint32, a at) string {
	if d == nil {
		a.errorf("is required")
		return ""
	}
	namespace := a.obj.namespace
	host := fullHost(d.Host, namespace)
	if !checkHost(host, a.field("host")) {
		return ""
	}
	if !r.refers(host, callsFail, a.field("host")) {
		return clusterName(d.Port.GetNumber(), d.Subset, host) // which there is not
	}
	s := r.seenFrom(host, namespace)
	switch {
	case d.Port != nil:
		port = d.Port.Number
	case len(s.ports) == 1:
		port = s.ports[0].number
	}
	if !r.takesCalls(s, port) {
		if d.Port != nil {
			a.field("port").field("number").wrong(host, callsFail, "%s", s.lacksPort(port))
		} else if port != anyPort {
			a.field("port").wrong(host, callsFail, "%q has no port %d, on which this route is called: set port.number", host, port)
		}
	}
	if d.Subset != "" && !r.rep.unread && !r.hasSubset(host, d.Subset) {
		a.field("subset").wrong(host, callsFail, "no DestinationRule of %q has a subset %q%s", host, d.Subset, r.subsetsOf(host))
	}
	return clusterName(port, d.Subset, host)
}

// takesCalls reports whether calls can go to a port of a service: one of the mesh, or one
// for which some DestinationRule has them encrypted.
func (r *registry) takesCalls(s *service, port uint32) bool {
	if s.hasPort(port) {
		return true
	}
	return s.listsPort(port) && slices.ContainsFunc(r.rules.about(s.host), func(found patternValues[*destinationRule]) bool {
		return slices.ContainsFunc(found.values, func(rule *destinationRule) bool { return rule.policyFor(port, -1).originates() })
	})
}

// lacksPort says that calls cannot go to a port.
func (s *service) lacksPort(port uint32) string {
	if s.listsPort(port) {
		return fmt.Sprintf("the callers of port %d of %q encrypt by themselves: let a DestinationRule do so, with tls of the mode SIMPLE for the port", port, s.host)
	}
	return fmt.Sprintf("%q has no port %d: it has %s", s.host, port, s.portNumbers())
}

// seenFrom is the service of a host that exists: as a namespace sees it, or if
// it sees none the first.
func (r *registry) seenFrom(host, namespace string) *service {
	if s := serviceIn(r.services[host], namespace); s != nil {
		return s
	}
	return r.services[host][0]
}

// subsetsOf lists the subsets of a host.
func (r *registry) subsetsOf(host string) string {
	names := make(map[string]bool)
	for _, found := range r.rules.about(host) {
		for _, rule := range found.values {
			for _, s := range rule.spec.Subsets {
				names[s.Name] = true
			}
		}
	}
	if len(names) == 0 {
		return ": it has none"
	}
	return ": it has " + strings.Join(sortedKeys(names), ", ")
}

// hasSubset reports whether any rule of a host has a subset.
func (r *registry) hasSubset(host, subset string) bool {
	for _, found := range r.rules.about(host) {
		for _, rule := range found.values {
			if slices.ContainsFunc(rule.spec.Subsets, func(s *networking.Subset) bool { return s.Name == subset }) {
				return true
			}
		}
	}
	return false
}
