package istio

import (
	"fmt"
	"maps"
	"slices"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	resource "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/types/known/anypb"
)

// build checks the references between the objects and translates them. What it
// returns is complete only if no problem was reported.
func (r *registry) build() *Config {
	c := &Config{
		opts:          r.opts,
		managers:      make(map[string]byNamespace[*anypb.Any]),
		routes:        make(map[string]byNamespace[*routeTable]),
		clusters:      make(map[string]byNamespace[*clusterv3.Cluster]),
		assignments:   make(map[string]byNamespace[*placement]),
		placed:        make(map[*clusterv3.Cluster]*placement),
		peers:         r.peers,
		natives:       natives{unsaid: r.unsaid},
		workloads:     make(workloads),
		streams:       make(workloads),
		registered:    make(registered),
		authorization: r.policies,
	}
	for host, services := range r.services {
		rankServices(host, services)
	}
	for _, vs := range r.virtualServices {
		r.resolve(vs)
	}
	for _, vs := range r.foreignServices {
		for _, http := range vs.spec.GetHttp() {
			r.noteDelegate(vs, http.Delegate)
		}
	}
	r.checkHosts()
	r.attach()
	for _, host := range sortedKeys(r.services) {
		for _, s := range r.services[host] {
			for _, p := range slices.Concat(s.ports, s.others) {
				for _, e := range s.endpoints {
					// The host of a service that has no endpoints is nobody's
					// workload.
					if e.at == s.hostAt || !e.serves(p) {
						continue
					}
					c.workloads.add(e, e.portFor(p))
					c.registered.add(e, e.portFor(p))
					if p.tcp {
						c.streams.add(e, e.portFor(p))
					}
				}
			}
		}
		r.buildHost(c, host)
	}
	r.resolveKeys(c)
	r.resolveProviders(c)
	r.warnOfCustom(c.streams)
	if len(r.rep.problems) == 0 {
		r.checkInbound(c)
		r.checkClusters(c)
		r.lintTogether()
	}
	r.lint()
	c.list()
	c.routeStatus = r.gatewayStatus()
	return c
}

// checkInbound makes the listeners of servers with each policy by itself, so that
// what Envoy would refuse is a problem now, and no missing listener later.
//
// What clients reject is found in the same way.
func (r *registry) checkInbound(c *Config) {
	check := func(applied []int, policies [][]*authorizationPolicy, doubt, reject func(error)) {
		for _, tcp := range []bool{false, true} {
			if tcp && len(c.streams) == 0 {
				break // nobody gets it
			}
			l, err := c.newInbound(inboundKey{mode: permissive, tcp: tcp}, applied, policies)
			if err != nil {
				doubt(err)
				return
			}
			if err := c.checkServer(l); err != nil {
				reject(err)
				return
			}
		}
	}
	nobody := func(err error) {
		r.rep.doubt(Problem{Message: "the listeners of servers: " + err.Error()})
	}
	check(nil, nil, nobody, nobody)
	for i, p := range c.requestPolicies {
		check([]int{i}, nil, p.at.doubt, p.at.rejected)
	}
	for _, namespace := range sortedKeys(r.policies.byNamespace) {
		for _, p := range r.policies.byNamespace[namespace] {
			a := at{rep: r.rep, obj: p.obj}.field("spec")
			check(nil, [][]*authorizationPolicy{{p}}, a.doubt, a.rejected)
		}
	}
}

// checkHosts checks that the hosts exist for which there are rules and routes.
func (r *registry) checkHosts() {
	for _, rule := range r.destinationRules {
		host, hostAt := rule.host, rule.at.field("host")
		if isWildcard(host) {
			if !slices.ContainsFunc(slices.Collect(maps.Keys(r.services)), func(known string) bool { return covers(host, known) }) {
				hostAt.warnf(lintUnknownHost, "%q: no Service or ServiceEntry has such a host: it has no effect", host)
			}
			continue
		}
		if r.refers(host, noEffect, hostAt) {
			rule.checkReferences(host, r.services[host])
		}
	}
	for _, vs := range r.virtualServices {
		r.checkVirtualService(vs)
	}
}

// hostBuild is one host while it is translated.
type hostBuild struct {
	managers    answers[*anypb.Any]
	routes      answers[*routeTable]
	clusters    answers[*clusterv3.Cluster]
	assignments answers[*placement]
	// What is the same for several namespaces is made once.
	built     map[builtKey][]builtCluster
	tables    []*builtTable
	fallbacks map[string][]sourcedRoute
}

type builtKey struct {
	service *service
	rule    *destinationRule
}

type builtCluster struct {
	name       string
	cluster    *clusterv3.Cluster
	assignment *placement
}

type builtTable struct {
	port    *servicePort
	service *service
	near    bool
	// namespace matters only if calls are hashed, by rules that may be its own, and for
	// a host with other names, of which some may be near.
	namespace string
	from      []*virtualService
	gateway   []*gatewayParent
	table     *routeTable
}

// hasRoutes reports whether a table has the routes of such a one: names that its
// callers know the host by apart, it is the same.
func (t *builtTable) hasRoutes(s *service, p *servicePort, from []*virtualService, gateway []*gatewayParent) bool {
	return t.port == p && t.service == s && slices.Equal(t.from, from) && slices.Equal(t.gateway, gateway)
}

// buildHost translates a host for every namespace that may have its own answer.
func (r *registry) buildHost(c *Config, host string) {
	services := r.services[host]
	spaces := r.spacesOf(host, services)
	checkServices(host, services, spaces)
	b := &hostBuild{
		managers: newAnswers[*anypb.Any](spaces), routes: newAnswers[*routeTable](spaces),
		clusters:    newAnswers[*clusterv3.Cluster](spaces),
		assignments: newAnswers[*placement](spaces),
		built:       make(map[builtKey][]builtCluster),
		fallbacks:   make(map[string][]sourcedRoute),
	}
	managers := make(map[string]*anypb.Any)
	for space, namespace := range spaces {
		s := serviceIn(services, namespace)
		if s == nil {
			continue
		}
		from := r.virtualServicesIn(host, namespace)
		for _, p := range s.ports {
			name := clusterName(p.number, "", host)
			if managers[name] == nil {
				manager, err := apiManager(name)
				if err != nil {
					s.doubt(p, err)
					continue
				}
				managers[name] = manager
				r.checkClient(hostPort(host, p.number), manager, s, p)
			}
			b.managers.put(name, space, managers[name])
			for _, alias := range r.aliases[host] {
				b.managers.put(clusterName(p.number, "", alias), space, managers[name])
			}
			b.routes.put(name, space, r.buildTable(b, s, p, namespace, from))
		}
		for _, built := range r.buildClusters(b, s, r.ruleIn(s, namespace)) {
			b.clusters.put(built.name, space, built.cluster)
			switch {
			case s.dns == notNamed:
				b.assignments.put(built.name, space, built.assignment)
			case built.assignment.setting != nil:
				c.placed[built.cluster] = built.assignment
			}
		}
	}
	b.managers.into(c.managers)
	b.routes.into(c.routes)
	b.clusters.into(c.clusters)
	b.assignments.into(c.assignments)
}

func (s *service) doubt(p *servicePort, err error) {
	s.at.doubt(fmt.Errorf("port %d of %q: %w", p.number, s.host, err))
}

func (r *registry) buildTable(b *hostBuild, s *service, p *servicePort, namespace string, from []*virtualService) *routeTable {
	aliases := r.aliases[s.host]
	near := isNear(s.host, namespace)
	gateway := r.attachedIn(s.host, namespace, p.number)
	if p.tcp {
		from, gateway = streamsOf(from), nil // the others are about requests
	}
	for _, t := range b.tables {
		if t.hasRoutes(s, p, from, gateway) && t.near == near && (!r.hashing && len(aliases) == 0 || t.namespace == namespace) {
			return t.table
		}
	}
	name := clusterName(p.number, "", s.host)
	if b.fallbacks[name] == nil {
		b.fallbacks[name] = []sourcedRoute{defaultRoute(name)}
	}
	choices := r.choices(s, p, from, gateway, b.fallbacks[name])
	choices = r.withHashes(choices, namespace)
	known := domains(s.host, namespace, p.number)
	var listeners []string
	for _, alias := range aliases {
		known = append(known, domains(alias, namespace, p.number)...)
		listeners = append(listeners, hostPort(alias, p.number))
	}
	table := newRouteTable(name, hostPort(s.host, p.number), known, choices)
	table.aliases = listeners
	if err := validate(table.whole()); err != nil {
		s.doubt(p, err)
	} else if r.hashing || !slices.ContainsFunc(b.tables, func(t *builtTable) bool { return t.hasRoutes(s, p, from, gateway) }) {
		r.checkTable(table, s, p)
	}
	b.tables = append(b.tables, &builtTable{p, s, near, namespace, from, gateway, table})
	return table
}

// buildClusters translates the ports of a service under a rule, which is nil for
// none, and the rule's subsets.
func (r *registry) buildClusters(b *hostBuild, s *service, rule *destinationRule) []builtCluster {
	key := builtKey{s, rule}
	if built, ok := b.built[key]; ok {
		return built
	}
	var built []builtCluster
	subsets := 0
	if rule != nil {
		subsets = len(rule.spec.Subsets)
	}
	for _, p := range slices.Concat(s.ports, s.others) {
		for subset := -1; subset < subsets; subset++ {
			if slices.Contains(s.others, p) && !rule.policyFor(p.number, subset).originates() {
				continue
			}
			one, err := r.buildCluster(s, p, rule, subset)
			if err != nil {
				s.doubt(p, err)
				continue
			}
			if err := r.takenCluster(one, s); err != nil {
				place := s.at
				if rule != nil {
					place = rule.at
				}
				place.rejected(fmt.Errorf("port %d of %q: %w", p.number, s.host, err))
			}
			built = append(built, one)
		}
	}
	b.built[key] = built
	return built
}

// takenCluster asks whether clients take a cluster and its endpoints.
func (r *registry) takenCluster(b builtCluster, s *service) error {
	if err := r.opts.clientsTake(resource.ClusterType, b.cluster); err != nil || s.dns != notNamed {
		return err
	}
	return r.opts.clientsTake(resource.EndpointType, b.assignment.common)
}

func (r *registry) buildCluster(s *service, p *servicePort, rule *destinationRule, subset int) (builtCluster, error) {
	endpoints, subsetName := s.endpoints, ""
	if out := func(e *endpoint) bool { return !e.called(p) }; slices.ContainsFunc(endpoints, out) {
		endpoints = slices.DeleteFunc(slices.Clone(endpoints), out)
	}
	if subset >= 0 {
		spec := rule.spec.Subsets[subset]
		subsetName = spec.Name
		endpoints = slices.DeleteFunc(slices.Clone(endpoints), func(e *endpoint) bool {
			return !subsetOf(spec.Labels, e.labels)
		})
	}
	name := clusterName(p.number, subsetName, s.host)
	cluster, err := r.cluster(name, s, p, rule, subset, endpoints)
	if err != nil {
		return builtCluster{}, err
	}
	setting := localitySetting(rule.policyFor(p.number, subset).of(s))
	if s.dns == oneEndpoint {
		setting = nil // there is nowhere else to go
	}
	var secure func(*endpoint) bool
	if len(cluster.TransportSocketMatches) > 0 {
		secure = func(e *endpoint) bool { return r.offersMutualTLS(e, p) }
	}
	built := builtCluster{name, cluster, newPlacement(name, p, endpoints, setting, secure, s.at.field(endpointsField(s)))}
	if s.dns != notNamed {
		s.dns.apply(cluster, built.assignment)
		return built, validate(cluster)
	}
	return built, validate(built.assignment.common)
}
