package istio

import (
	"slices"

	networking "istio.io/api/networking/v1alpha3"
)

// lintBalancing finds settings of a rule's load balancer that change nothing.
func (r *registry) lintBalancing(rule *destinationRule) {
	named := rule.metadata[balancerAnnotation].GetFields()["policy"].GetStringValue()
	// A wildcard is for others, too.
	alone := slices.ContainsFunc(r.services[rule.host], func(s *service) bool { return s.dns == oneEndpoint })
	rule.eachLoadBalancer(func(lb *networking.LoadBalancerSettings, a at) {
		if named != "" {
			lintNamedPolicy(named, lb, a)
		}
		s := lb.GetLocalityLbSetting()
		enabled := s.GetEnabled() == nil || s.Enabled.Value
		if alone && enabled && len(s.GetDistribute())+len(s.GetFailover())+len(s.GetFailoverPriority()) > 0 {
			a.field("localityLbSetting").warnf(lintIneffectiveBalancing,
				"has no effect: by resolution DNS_ROUND_ROBIN %q has one endpoint for all clients", rule.host)
		}
	})
}

// lintNamedPolicy finds what does not go with a policy that an annotation names. One
// of the application's is told the hash of each call.
func lintNamedPolicy(policy string, lb *networking.LoadBalancerSettings, a at) {
	for _, name := range []string{"warmup", "warmupDurationSecs"} {
		if a.field(name).written() {
			a.field(name).warnf(lintIneffectiveBalancing, "has no effect: the annotation %s names the policy %q, which has no slow start", balancerAnnotation, policy)
		}
	}
	if !hashes(lb) {
		return
	}
	ha := a.field("consistentHash")
	if policy == peakEWMA {
		ha.warnf(lintIneffectiveBalancing, "has no effect: the annotation %s names the policy %q, which does not look at hashes", balancerAnnotation, policy)
		return
	}
	for _, name := range []string{"ringHash", "maglev", "minimumRingSize"} {
		if ha.field(name).written() {
			ha.field(name).warnf(lintIneffectiveBalancing, "has no effect: the annotation %s names the policy %q, which is told the hash and has neither a ring nor a table of ours",
				balancerAnnotation, policy)
		}
	}
}

// eachLoadBalancer goes through the load balancers of a rule and of its subsets, for
// all ports and for some.
func (d *destinationRule) eachLoadBalancer(do func(*networking.LoadBalancerSettings, at)) {
	each := func(p *networking.TrafficPolicy, a at) {
		if p.GetLoadBalancer() != nil {
			do(p.LoadBalancer, a.field("loadBalancer"))
		}
		for i, pl := range p.GetPortLevelSettings() {
			if pl.GetLoadBalancer() != nil {
				do(pl.LoadBalancer, a.field("portLevelSettings").index(i).field("loadBalancer"))
			}
		}
	}
	each(d.spec.TrafficPolicy, d.at.field("trafficPolicy"))
	for i, subset := range d.spec.Subsets {
		each(subset.TrafficPolicy, d.at.field("subsets").index(i).field("trafficPolicy"))
	}
}
