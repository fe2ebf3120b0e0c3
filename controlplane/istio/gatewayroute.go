package istio

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/inboardmesh/inboard/controlplane/istio/internal/gatewayapi"
)

// The groups of the Gateway API's references.
const (
	coreGroup    = ""
	istioGroup   = "networking.istio.io"
	gatewayGroup = "gateway.networking.k8s.io"
)

// gatewayRoute is an HTTPRoute or a GRPCRoute.
type gatewayRoute struct {
	// at is the spec.
	at    at
	grpc  bool
	rules []*gatewayRule
	// parents are what the route is attached to.
	parents []*gatewayParent
	// routes are the rules' translations by port.
	routes map[uint32][]rankedRoute
	// unresolved is the condition ResolvedRefs, if a reference leads nowhere.
	unresolved RouteCondition
}

// gatewayRule is a rule of either kind. What GRPCRoute does not have is not set.
type gatewayRule struct {
	at       at
	name     string
	matches  []gatewayMatch
	filters  []gatewayapi.HTTPRouteFilter
	backends []gatewayapi.HTTPBackendRef
	timeouts *gatewayapi.HTTPRouteTimeouts
	retry    *gatewayapi.HTTPRouteRetry
}

// gatewayParent is one element of parentRefs, resolved.
type gatewayParent struct {
	route *gatewayRoute
	ref   *gatewayapi.ParentReference
	at    at
	// name is how the status calls the parent.
	name  string
	hosts []string
	// consumer is the only namespace whose clients the route is for, and "" if it
	// is for all of them.
	consumer string
	// port is the only port that the route is for, 0 for all.
	port uint32
	// used tells that the route is in force somewhere, and lost is what goes before it
	// somewhere.
	used bool
	lost *object
	// foreign tells that the parent is none of a mesh, and gone why there is none.
	foreign bool
	gone    string
	// idle is why the parent has no requests, "" if it has.
	idle string
}

func (r *registry) addHTTPRoute(o *object, spec *gatewayapi.HTTPRouteSpec, a at) {
	g := &gatewayRoute{at: a, routes: make(map[uint32][]rankedRoute)}
	for i := range spec.Rules {
		in, ra := &spec.Rules[i], a.field("rules").index(i)
		g.rules = append(g.rules, &gatewayRule{
			at: ra, name: text(in.Name), matches: httpMatches(in, ra),
			filters: in.Filters, backends: in.BackendRefs, timeouts: in.Timeouts, retry: in.Retry,
		})
	}
	r.addGatewayRoute(o, g, spec.ParentRefs, spec.Hostnames)
}

func (r *registry) addGRPCRoute(o *object, spec *gatewayapi.GRPCRouteSpec, a at) {
	g := &gatewayRoute{at: a, grpc: true, routes: make(map[uint32][]rankedRoute)}
	for i := range spec.Rules {
		in, ra := &spec.Rules[i], a.field("rules").index(i)
		rule := &gatewayRule{at: ra, name: text(in.Name), matches: grpcMatches(in, ra), filters: httpFilters(in.Filters)}
		for _, b := range in.BackendRefs {
			rule.backends = append(rule.backends, gatewayapi.HTTPBackendRef{
				Group: b.Group, Kind: b.Kind, Name: b.Name, Namespace: b.Namespace, Port: b.Port, Weight: b.Weight,
				Filters: httpFilters(b.Filters),
			})
		}
		g.rules = append(g.rules, rule)
	}
	r.addGatewayRoute(o, g, spec.ParentRefs, spec.Hostnames)
}

// httpFilters are the filters of a GRPCRoute as those of an HTTPRoute, which has
// all of them.
func httpFilters(in []gatewayapi.GRPCRouteFilter) []gatewayapi.HTTPRouteFilter {
	var out []gatewayapi.HTTPRouteFilter
	for _, f := range in {
		out = append(out, gatewayapi.HTTPRouteFilter{
			Type: f.Type, RequestHeaderModifier: f.RequestHeaderModifier, ResponseHeaderModifier: f.ResponseHeaderModifier,
			RequestMirror: f.RequestMirror,
		})
	}
	return out
}

func (r *registry) addGatewayRoute(o *object, g *gatewayRoute, parents []gatewayapi.ParentReference, hostnames []string) {
	if o.foreign {
		g.rules = nil // which others check
		r.addParents(g, parents)
		return
	}
	if len(parents) == 0 {
		g.at.field("parentRefs").errorf("is required: name the Service whose calls are routed")
	}
	if len(hostnames) > 0 {
		// GEP-1294 leaves no meaning to it.
		g.at.field("hostnames").warnf(lintIneffectiveHostnames, "has no effect on routes of a Service: match the header Host instead")
	}
	if len(g.rules) == 0 {
		if g.at.field("rules").written() {
			g.at.field("rules").errorf("needs at least one rule")
		}
		// The default of the Gateway API: one rule that matches everything, and
		// has no backend.
		g.rules = []*gatewayRule{{at: g.at.field("rules"), matches: anyMatch(g.at.field("rules"))}}
	}
	names := make(map[string]bool)
	for _, rule := range g.rules {
		switch {
		case rule.name == "":
		case !isDNSSubdomain(rule.name):
			rule.at.field("name").errorf("%q is not a name: use lower case letters, digits, '-' and '.'", rule.name)
		case names[rule.name]:
			rule.at.field("name").errorf("%q is the name of two rules", rule.name)
		}
		names[rule.name] = true
	}
	r.addParents(g, parents)
}

func (r *registry) addParents(g *gatewayRoute, parents []gatewayapi.ParentReference) {
	for i := range parents {
		g.parents = append(g.parents, &gatewayParent{
			route: g, ref: &parents[i], at: g.at.field("parentRefs").index(i), name: describeParent(&parents[i], g.at.obj.namespace),
		})
	}
	r.gatewayRoutes = append(r.gatewayRoutes, g)
}

func describeParent(ref *gatewayapi.ParentReference, namespace string) string {
	name := fmt.Sprintf("%s %s/%s", or(ref.Kind, "Gateway"), or(ref.Namespace, namespace), ref.Name)
	if ref.Port != nil {
		name += fmt.Sprintf(" port %d", *ref.Port)
	}
	if ref.SectionName != nil {
		name += " section " + *ref.SectionName
	}
	return name
}

// attach finds the hosts of every parent, when all services are known.
func (r *registry) attach() {
	for _, g := range r.gatewayRoutes {
		for _, p := range g.parents {
			r.resolveParent(p)
			for _, host := range p.hosts {
				r.attached[host] = append(r.attached[host], p)
			}
		}
		r.checkGatewayRoute(g)
	}
	for _, host := range sortedKeys(r.attached) {
		r.rankKinds(host)
	}
}

func (r *registry) resolveParent(p *gatewayParent) {
	ref := p.ref
	home := p.route.at.obj.namespace
	namespace := or(ref.Namespace, home)
	group, kind := or(ref.Group, gatewayGroup), or(ref.Kind, "Gateway")
	if ref.Name == "" {
		p.at.field("name").errorf("is required")
		return
	}
	var services []*service
	switch {
	case group == coreGroup && kind == "Service":
		host := fullHost(ref.Name, namespace)
		if !isDNSLabel(ref.Name) {
			p.at.field("name").errorf("%q is not the name of a Service", ref.Name)
			return
		}
		if len(r.services[host]) == 0 && namespace != home && r.aliasOf[host] == "" {
			p.absent(p.at.field("name"), fmt.Sprintf("no Service or ServiceEntry has the host %q%s", host, r.nearHosts(host)))
			return
		}
		if !r.known(host, p.at.field("name")) {
			return
		}
		services = []*service{r.seenFrom(host, home)}
	case group == istioGroup && kind == kindServiceEntry:
		services = r.entry(ref.Name, namespace)
		if len(services) == 0 && namespace != home {
			p.absent(p.at.field("name"), fmt.Sprintf("there is no ServiceEntry %s/%s", namespace, ref.Name))
			return
		}
		if len(services) == 0 {
			p.at.field("name").errorf("there is no ServiceEntry %s/%s", namespace, ref.Name)
			return
		}
	case kind == "Service" || kind == kindServiceEntry:
		p.at.field("group").errorf("%q has no %s: use group \"\" for a Service, %q for a ServiceEntry", group, kind, istioGroup)
		return
	case (group == gatewayGroup || group == experimentalGroup) && slices.Contains(gatewayParents, kind):
		// The same route can be for a gateway and for the mesh.
		p.foreign = true
		p.at.warnf(lintForeignParent, "is not accepted: this is a mesh, and %s is a gateway: calls of the mesh do not pass it", p.name)
		return
	default:
		p.at.field("kind").errorf("%q is not supported: this is a mesh, attach the route to a Service (group: \"\", kind: Service)", kind)
		return
	}
	if namespace != home {
		p.consumer = home
	}
	for _, s := range services {
		if p.consumer != "" && !s.exports.visibleIn(home) {
			p.absent(p.at.field("name"), fmt.Sprintf("%q is not exported to %q", s.host, home))
			continue
		}
		if p.selectPort(s) {
			p.hosts = append(p.hosts, s.host)
		}
	}
}

// absent reports a parent of another namespace that is not there, or not for this one. What
// others do with their documents must not make this one wrong.
func (p *gatewayParent) absent(a at, message string) {
	p.gone = message
	a.warnf(lintUnknownParent, "%s: the route is not accepted (NoMatchingParent)", message)
}

// missing reports a port that a parent does not have: a problem if the parent is of the
// route's own namespace.
func (p *gatewayParent) missing(a at, message string) {
	if p.consumer != "" {
		p.absent(a, message)
		return
	}
	a.errorf("%s", message)
}

// entry is the hosts of a ServiceEntry.
func (r *registry) entry(name, namespace string) []*service {
	var found []*service
	for _, host := range sortedKeys(r.services) {
		for _, s := range r.services[host] {
			if s.at.obj.name == name && s.at.obj.namespace == namespace {
				found = append(found, s)
			}
		}
	}
	return found
}

// selectPort narrows the route to a port of a service, by its number and by its
// name, which is what sectionName means for a Service.
func (p *gatewayParent) selectPort(s *service) bool {
	ref := p.ref
	if ref.Port != nil && !s.hasPort(uint32(*ref.Port)) {
		p.missing(p.at.field("port"), fmt.Sprintf("%q has no port %d: it has %s", s.host, *ref.Port, s.portNumbers()))
		return false
	}
	if ref.Port != nil {
		p.port = uint32(*ref.Port)
	}
	if ref.SectionName == nil {
		return true
	}
	i := slices.IndexFunc(s.ports, func(port *servicePort) bool { return port.name == *ref.SectionName })
	switch {
	case i < 0:
		p.missing(p.at.field("sectionName"), fmt.Sprintf("%q has no port with the name %q", s.host, *ref.SectionName))
		return false
	case p.port != 0 && p.port != s.ports[i].number:
		p.at.field("sectionName").errorf("port %q is %d: that is not the %q that is set too", *ref.SectionName, s.ports[i].number, "port")
		return false
	}
	p.port = s.ports[i].number
	return true
}

// checkGatewayRoute checks every rule, also those that are in force nowhere.
func (r *registry) checkGatewayRoute(g *gatewayRoute) {
	for i, rule := range g.rules {
		r.gatewayRule(g, rule, i, anyPort)
	}
}

// rankKinds decides where an HTTPRoute and a GRPCRoute are for the same clients
// of the same port: the GRPCRoute wins (GEP-1294, "Route types").
func (r *registry) rankKinds(host string) {
	all := r.attached[host]
	for _, s := range r.services[host] {
		for _, port := range s.ports {
			for _, p := range all {
				if p.port != 0 && p.port != port.number {
					continue
				}
				if port.tcp {
					if p.port != 0 || !slices.ContainsFunc(s.ports, func(p *servicePort) bool { return !p.tcp }) {
						p.idle = fmt.Sprintf("port %d of %q speaks a protocol of TCP, which has no requests", port.number, host)
						p.at.warnf(lintNoRequests, "is not accepted: %s", p.idle)
					}
					continue
				}
				if winner := p.beaten(all, port.number); winner != nil {
					p.lost = winner.route.at.obj
					p.at.warnf(lintConflictingRoute, "is not accepted (Conflicted) for port %d of %q: %s is for the same calls, and goes before an HTTPRoute",
						port.number, host, winner.route.at.obj.source())
					continue
				}
				switch {
				case !p.route.grpc || port.http2:
				case p.port == 0:
					p.at.warnf(lintGRPCRoutePort, "is for port %d of %q too, over which no gRPC call is made: set port", port.number, host)
				default:
					p.at.warnf(lintGRPCRoutePort, "is for port %d of %q, over which no gRPC call is made: every request there is routed as one", port.number, host)
				}
			}
		}
	}
}

// callers says whose calls the route is for, unless it is for all.
func (p *gatewayParent) callers() string {
	if p.consumer == "" {
		return ""
	}
	return fmt.Sprintf(" in namespace %q", p.consumer)
}

// beaten is the GRPCRoute that takes a port from an HTTPRoute, nil for none.
func (p *gatewayParent) beaten(all []*gatewayParent, port uint32) *gatewayParent {
	if p.route.grpc {
		return nil
	}
	for _, other := range all {
		if other.route.grpc && other.consumer == p.consumer && (other.port == 0 || other.port == port) {
			return other
		}
	}
	return nil
}

// attachedIn are the routes of a port for the clients of a namespace: those of
// the namespace itself, and if it has none, those of the service's own
// (GEP-1294, "Multiple routes for a Service").
func (r *registry) attachedIn(host, namespace string, port uint32) []*gatewayParent {
	all := r.attached[host]
	for _, consumer := range []string{namespace, elsewhere} {
		var group []*gatewayParent
		for _, p := range all {
			if p.consumer == consumer && (p.port == 0 || p.port == port) && p.beaten(all, port) == nil {
				group = append(group, p)
			}
		}
		if len(group) > 0 {
			return group
		}
	}
	return nil
}

// mergeGateway are the routes of all that are attached to a port, in the order
// of the Gateway API.
func (r *registry) mergeGateway(from []*gatewayParent, port uint32) []sourcedRoute {
	var ranked []rankedRoute
	var merged []*gatewayRoute
	for _, p := range from {
		if !slices.Contains(merged, p.route) { // two parents of one route can be one host
			merged = append(merged, p.route)
			ranked = append(ranked, r.gatewayPort(p.route, port)...)
		}
	}
	slices.SortStableFunc(ranked, rankedRoute.compare)
	routes := make([]sourcedRoute, len(ranked))
	for i, one := range ranked {
		routes[i] = one.sourcedRoute
	}
	return routes
}

// gatewayPort are the routes of all rules on a port, each with its rank.
func (r *registry) gatewayPort(g *gatewayRoute, port uint32) []rankedRoute {
	routes, ok := g.routes[port]
	if !ok {
		for i, rule := range g.rules {
			routes = append(routes, r.gatewayRule(g, rule, i, port)...)
		}
		g.routes[port] = routes
	}
	return routes
}

// older orders routes whose matches are equally specific: by age, and then by
// "namespace/name".
func older(a, b *object) int {
	if c := a.created.Compare(b.created); c != 0 {
		// What tells no age is not the oldest.
		switch {
		case a.created.IsZero():
			return 1
		case b.created.IsZero():
			return -1
		}
		return c
	}
	return strings.Compare(a.namespace+"/"+a.name, b.namespace+"/"+b.name)
}

// text is the value of an optional field, "" without one.
func text(s *string) string { return or(s, "") }

// or is the value of an optional field, or its default.
func or[T any](value *T, otherwise T) T {
	if value == nil {
		return otherwise
	}
	return *value
}

// RouteStatus says what became of an HTTPRoute or GRPCRoute at one of its
// parents, as the status of the object does in Kubernetes.
type RouteStatus struct {
	// Route is the kind, namespace and name: "HTTPRoute shop/payment".
	Route string
	// Parent is the same of the parent, with the port if the reference has one.
	Parent     string
	Conditions []RouteCondition
}

// RouteCondition is a condition of the Gateway API: Accepted or ResolvedRefs.
type RouteCondition struct {
	Type string
	// Status tells whether the condition holds.
	Status bool
	// Reason is the Gateway API's word, Message says more.
	Reason, Message string
}

// String is "HTTPRoute shop/a at Service shop/b: Accepted=true (Accepted), ...".
func (s RouteStatus) String() string {
	parts := make([]string, len(s.Conditions))
	for i, c := range s.Conditions {
		parts[i] = fmt.Sprintf("%s=%t (%s)", c.Type, c.Status, c.Reason)
		if c.Message != "" {
			parts[i] += ": " + c.Message
		}
	}
	return printable(s.Route + " at " + s.Parent + ": " + strings.Join(parts, ", "))
}

// gatewayStatus is the status of every route at every parent.
func (r *registry) gatewayStatus() []RouteStatus {
	var all []RouteStatus
	for _, g := range r.gatewayRoutes {
		for _, p := range g.parents {
			accepted := RouteCondition{Type: "Accepted", Status: true, Reason: "Accepted"}
			if p.foreign {
				accepted = RouteCondition{Type: "Accepted", Reason: "NoMatchingParent", Message: "this is a mesh: it has no gateways"}
			}
			if p.gone != "" && len(p.hosts) == 0 {
				accepted = RouteCondition{Type: "Accepted", Reason: "NoMatchingParent", Message: p.gone}
			}
			if p.idle != "" {
				accepted = RouteCondition{Type: "Accepted", Reason: "NoMatchingParent", Message: p.idle}
			}
			if p.lost != nil {
				accepted.Message = "not for every port: " + p.lost.title() + " goes before it"
			}
			if p.lost != nil && !p.used {
				accepted = RouteCondition{
					Type: "Accepted", Reason: "Conflicted", Message: p.lost.title() + " goes before it",
				}
			}
			resolved := RouteCondition{Type: "ResolvedRefs", Status: true, Reason: "ResolvedRefs"}
			if g.unresolved.Reason != "" {
				resolved = g.unresolved
			}
			all = append(all, RouteStatus{
				Route: g.at.obj.title(), Parent: p.name, Conditions: []RouteCondition{accepted, resolved},
			})
		}
	}
	slices.SortStableFunc(all, func(a, b RouteStatus) int {
		return cmp.Or(strings.Compare(a.Route, b.Route), strings.Compare(a.Parent, b.Parent))
	})
	return all
}
