package istio

import (
	"fmt"
	"maps"
	"slices"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/types/known/anypb"
)

// build checks the references between the objects and translates them. What it
// returns is complete only if no problem was reported.
func (r *registry) build() *Config {
	c := &Config{
		services:     r.services,
		apiListeners: make(map[string]*anypb.Any),
		nearRoutes:   make(map[string]*routev3.RouteConfiguration),
		farRoutes:    make(map[string]*routev3.RouteConfiguration),
		clusters:     make(map[string]*clusterv3.Cluster),
		assignments:  make(map[string]*endpointv3.ClusterLoadAssignment),
		peers:        r.peers,
		workloads:    make(workloads),
	}
	r.checkHosts()
	var err error
	if c.inbound, err = inboundListeners(); err != nil {
		r.rep.doubts = append(r.rep.doubts, Problem{Message: "the listeners of servers: " + err.Error()})
	}
	for _, s := range r.sortedServices() {
		for _, p := range s.ports {
			for _, e := range s.endpoints {
				c.workloads.add(e, e.portFor(p))
			}
			if err := r.buildPort(c, s, p); err != nil {
				s.at.doubt(fmt.Errorf("port %d of %q: %w", p.number, s.host, err))
			}
			c.listenerNames = append(c.listenerNames, hostPort(s.host, p.number))
		}
	}
	slices.Sort(c.listenerNames)
	c.routeNames = slices.Sorted(maps.Keys(c.farRoutes))
	c.clusterNames = slices.Sorted(maps.Keys(c.clusters))
	return c
}

// checkHosts checks that the hosts exist for which there are rules and routes.
func (r *registry) checkHosts() {
	for _, host := range sortedKeys(r.rules) {
		rule := r.rules[host]
		if s, ok := r.knownHost(host, rule.at.field("host")); ok {
			rule.checkReferences(s)
		}
	}
	for _, vs := range r.virtualServices {
		r.checkVirtualService(vs)
	}
}

func (r *registry) buildPort(c *Config, s *service, p *servicePort) error {
	name := clusterName(p.number, "", s.host)
	var err error
	if c.apiListeners[name], err = apiManager(name); err != nil {
		return err
	}
	near, far := routeTables(s, p, r.portRoutes(s, p))
	c.nearRoutes[name], c.farRoutes[name] = near, far
	for _, table := range []*routev3.RouteConfiguration{near, far} {
		if err := validate(table); err != nil {
			return err
		}
	}
	rule := r.rules[s.host]
	if err := r.buildCluster(c, s, p, rule, -1); err != nil || rule == nil {
		return err
	}
	for i := range rule.spec.Subsets {
		if err := r.buildCluster(c, s, p, rule, i); err != nil {
			return err
		}
	}
	return nil
}

func (r *registry) buildCluster(c *Config, s *service, p *servicePort, rule *destinationRule, subset int) error {
	endpoints, subsetName := s.endpoints, ""
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
		return err
	}
	c.clusters[name] = cluster
	c.assignments[name] = assignment(name, p, endpoints, s.at.field(endpointsField(s)))
	return validate(c.assignments[name])
}
