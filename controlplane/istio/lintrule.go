package istio

import (
	networking "istio.io/api/networking/v1alpha3"
)

// lintRules warns about DestinationRules.
func (r *registry) lintRules() {
	used := r.usedRules()
	for _, rule := range r.destinationRules {
		applies := false
		for _, host := range sortedKeys(r.services) {
			if host != rule.host && !covers(rule.host, host) {
				continue
			}
			applies = true
		}
		if !applies {
			continue // which is reported already
		}
		if !used[rule] {
			rule.at.field("host").warnf(lintUnusedDestinationRule, "no client uses the rule: another one is for %q, or it is exported to nobody who looks for it", rule.host)
			continue
		}
		r.lintSubsets(rule)
		r.lintMutualTLS(rule)
		r.lintBalancing(rule)
	}
}

// usedRules are the rules by which any namespace calls any service.
func (r *registry) usedRules() map[*destinationRule]bool {
	used := make(map[*destinationRule]bool)
	for host, services := range r.services {
		for _, namespace := range r.spacesOf(host, services) {
			if s := serviceIn(services, namespace); s != nil {
				if rule := r.ruleIn(s, namespace); rule != nil {
					used[rule] = true
				}
			}
		}
	}
	return used
}

// servicesOf are the services that a rule is for, with endpoints.
func (r *registry) servicesOf(rule *destinationRule) []*service {
	var services []*service
	for _, host := range sortedKeys(r.services) {
		if host != rule.host && !covers(rule.host, host) {
			continue
		}
		for _, s := range r.services[host] {
			if len(s.endpoints) > 0 {
				services = append(services, s)
			}
		}
	}
	return services
}

// lintSubsets finds subsets without endpoints, of services that have some.
func (r *registry) lintSubsets(rule *destinationRule) {
	services := r.servicesOf(rule)
	for i, subset := range rule.spec.Subsets {
		selected := 0
		for _, s := range services {
			for _, e := range s.endpoints {
				if subsetOf(subset.Labels, e.labels) {
					selected++
				}
			}
		}
		if selected == 0 && len(services) > 0 {
			rule.at.field("subsets").index(i).field("labels").warnf(lintEmptySubset,
				"no endpoint of %q has these labels: calls to the subset %q fail", rule.host, subset.Name)
		}
	}
}

// lintMutualTLS finds rules that say plaintext to servers that refuse it, and
// mutual TLS to servers that do not speak it.
func (r *registry) lintMutualTLS(rule *destinationRule) {
	for _, s := range r.servicesOf(rule) {
		for _, p := range s.ports {
			for subset := -1; subset < len(rule.spec.Subsets); subset++ {
				policy := rule.policyFor(p.number, subset)
				if policy.tls == nil {
					continue
				}
				for _, e := range s.endpoints {
					if subset < 0 || subsetOf(rule.spec.Subsets[subset].Labels, e.labels) {
						r.lintEndpointTLS(policy, p, e)
					}
				}
			}
		}
	}
}

func (r *registry) lintEndpointTLS(policy policy, p *servicePort, e *endpoint) {
	mode := r.peers.clientMode(e, p)
	switch mutual := policy.tls.Mode == networking.ClientTLSSettings_ISTIO_MUTUAL; {
	case !mutual && mode == strict:
		policy.tlsAt.field("mode").warnf(lintMutualTLSConflict,
			"%v, and by a PeerAuthentication port %d of %s accepts mutual TLS only: calls to it fail", policy.tls.Mode, p.number, e.describe())
	case mutual && mode == disabled:
		policy.tlsAt.field("mode").warnf(lintMutualTLSConflict,
			"%v, and by a PeerAuthentication port %d of %s accepts plaintext only: calls to it fail", policy.tls.Mode, p.number, e.describe())
	}
}

// lintSelectors finds what selects no workload.
func (r *registry) lintSelectors() {
	var endpoints []*endpoint
	for _, host := range sortedKeys(r.services) {
		for _, s := range r.services[host] {
			endpoints = append(endpoints, s.endpoints...)
			if selector := s.at.field("workloadSelector"); len(s.endpoints) == 0 && selector.written() {
				selector.field("labels").warnf(lintUnmatchedSelector, "no WorkloadEntry of the namespace %q has these labels: the service has no endpoints", s.at.obj.namespace)
			}
		}
	}
	r.lintPolicies(endpoints)
}
