package istio

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	security "istio.io/api/security/v1beta1"

	"github.com/inboardmesh/inboard/internal/near"
)

// lintPolicies finds security policies that are for no workload of the documents, and
// parts of them that no request meets: what is denied there is allowed.
func (r *registry) lintPolicies(endpoints []*endpoint) {
	inhabited := maps.Clone(r.inhabited)
	for _, e := range endpoints {
		inhabited[e.namespace] = true
	}
	for _, namespace := range sortedKeys(r.peers.narrow) {
		for _, policy := range r.peers.narrow[namespace] {
			r.lintPeerPolicy(policy, namespace, endpoints)
		}
	}
	for _, namespace := range sortedKeys(r.peers.wide) {
		r.lintNamespace(r.peers.wide[namespace].obj, inhabited)
	}
	for _, policy := range r.requestPolicies {
		r.lintSelector(policy.obj, policy.selector, r.within(policy.obj), endpoints)
		if len(policy.selector) == 0 {
			r.lintNamespace(policy.obj, inhabited)
		}
	}
	for _, namespace := range sortedKeys(r.policies.byNamespace) {
		for _, policy := range r.policies.byNamespace[namespace] {
			selected := r.lintSelector(policy.obj, policy.selector, r.within(policy.obj), endpoints)
			if len(policy.selector) == 0 {
				selected = r.lintNamespace(policy.obj, inhabited)
			}
			if selected {
				r.lintPorts(policy)
			}
			r.lintAsked(policy)
		}
	}
}

// lintAsked warns of a policy with CUSTOM for the service that it asks: each question is
// a request to it, about which it is asked.
func (r *registry) lintAsked(policy *authorizationPolicy) {
	p := r.providers[policy.provider]
	if policy.action != security.AuthorizationPolicy_CUSTOM || p == nil {
		return
	}
	namespace := r.within(policy.obj)
	for _, s := range r.services[p.host] {
		if slices.ContainsFunc(s.endpoints, func(e *endpoint) bool {
			return (namespace == "" || e.namespace == namespace) && subsetOf(policy.selector, e.labels)
		}) {
			at{rep: r.rep, obj: policy.obj}.field("spec").warnf(lintAsksItself,
				"is for the service %q of its provider %q, too: a question that its rules match is asked about in turn, without end", p.host, policy.provider)
			return
		}
	}
}

// lintNamespace warns of a policy without a selector in a namespace without workloads,
// and reports whether there are some. Documents without any workload tell nothing.
func (r *registry) lintNamespace(o *object, inhabited map[string]bool) (selected bool) {
	if o.namespace == r.opts.RootNamespace || inhabited[o.namespace] || len(inhabited) == 0 {
		return true
	}
	at{rep: r.rep, obj: o}.field("metadata").field("namespace").warnf(lintUnmatchedSelector,
		"no workload of the documents is in the namespace %q: the policy is only for those that join there%s",
		o.namespace, near.Question(near.Names(o.namespace, sortedKeys(inhabited))))
	return false
}

// within is the namespace in which a policy selects, "" for all of them.
func (r *registry) within(o *object) string {
	if o.namespace == r.opts.RootNamespace {
		return ""
	}
	return o.namespace
}

// selects reports whether a selector may select an endpoint. One of a Pod that no
// document has may have any labels.
func selects(selector map[string]string, namespace string, e *endpoint) bool {
	return (namespace == "" || e.namespace == namespace) && (e.unknown || subsetOf(selector, e.labels))
}

// lintSelector warns of a policy whose selector selects no endpoint, and reports
// whether it does. Workloads may join with labels that no document has.
func (r *registry) lintSelector(o *object, selector map[string]string, namespace string, endpoints []*endpoint) (selected bool) {
	if len(selector) == 0 || slices.ContainsFunc(endpoints, func(e *endpoint) bool { return selects(selector, namespace, e) }) {
		return true
	}
	of := "any namespace"
	if namespace != "" {
		of = "the namespace " + strconv.Quote(namespace)
	}
	at{rep: r.rep, obj: o}.field("spec").field("selector").field("matchLabels").warnf(lintUnmatchedSelector,
		"no endpoint of %s has these labels: the policy is for no workload of the documents, only for those that join with such labels of their own", of)
	return false
}

// servedBy are the ports that the endpoints which a selector may select serve.
func (r *registry) servedBy(selector map[string]string, namespace string) map[uint32]bool {
	served := make(map[uint32]bool)
	for _, services := range r.services {
		for _, s := range services {
			for _, e := range s.endpoints {
				if !selects(selector, namespace, e) {
					continue
				}
				for _, p := range s.ports {
					served[e.portFor(p)] = true
				}
			}
		}
	}
	return served
}

func (r *registry) lintPeerPolicy(policy *peerPolicy, namespace string, endpoints []*endpoint) {
	if len(policy.ports) == 0 && len(policy.selector) == 0 || !r.lintSelector(policy.obj, policy.selector, namespace, endpoints) {
		return
	}
	spec := at{rep: r.rep, obj: policy.obj}.field("spec")
	served := r.servedBy(policy.selector, namespace)
	for _, port := range slices.Sorted(maps.Keys(policy.ports)) {
		if !served[port] {
			spec.field("portLevelMtls").key(strconv.FormatUint(uint64(port), 10)).warnf(lintUnservedPort,
				"no selected endpoint serves port %d: the number is that of the process, targetPort, and not of the service", port)
		}
	}
}

// lintPorts finds the ports of a policy's rules that no workload serves which the policy
// is for: mostly those of the service.
func (r *registry) lintPorts(policy *authorizationPolicy) {
	served := r.servedBy(policy.selector, r.within(policy.obj))
	if len(served) == 0 {
		return // there may be workloads, of which no document says what they serve
	}
	check := func(ports []string, consequence string, a at) {
		for i, text := range ports {
			if port, err := strconv.ParseUint(text, 10, 16); err == nil && !served[uint32(port)] {
				a.index(i).warnf(lintUnservedPort,
					"no selected endpoint serves port %d, so that %s: the number is that of the process, targetPort, and not of the service", port, consequence)
			}
		}
	}
	nothing := map[security.AuthorizationPolicy_Action]string{
		security.AuthorizationPolicy_ALLOW: "it allows nothing", security.AuthorizationPolicy_DENY: "it denies nothing",
		security.AuthorizationPolicy_AUDIT: "it reports nothing", security.AuthorizationPolicy_CUSTOM: "nobody is asked about anything",
	}[policy.action]
	const exempt = "it exempts nothing"
	rules := at{rep: r.rep, obj: policy.obj}.field("spec").field("rules")
	for i, rule := range policy.rules {
		in := rules.index(i)
		for j, to := range rule.GetTo() {
			operation := in.field("to").index(j).field("operation")
			check(to.GetOperation().GetPorts(), nothing, operation.field("ports"))
			check(to.GetOperation().GetNotPorts(), exempt, operation.field("notPorts"))
		}
		for j, when := range rule.GetWhen() {
			if when.GetKey() == "destination.port" {
				check(when.GetValues(), nothing, in.field("when").index(j).field("values"))
				check(when.GetNotValues(), exempt, in.field("when").index(j).field("notValues"))
			}
		}
	}
}

// lintMethod finds a method of a rule that no request has.
func lintMethod(value string, a at) {
	if upper := strings.ToUpper(value); value != upper && slices.Contains(httpMethods, upper) {
		a.warnf(lintImpossibleMatch, "%q is met by no request: methods are in upper case, write %s", value, upper)
	}
}
