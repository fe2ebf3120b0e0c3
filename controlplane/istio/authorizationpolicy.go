package istio

import (
	"cmp"
	"slices"
	"strings"

	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	httprbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	security "istio.io/api/security/v1beta1"
)

// dryRunAnnotation puts a policy on trial: it is evaluated and reported, and
// decides nothing.
const dryRunAnnotation = "istio.io/dry-run"

// authorizationPolicies are the AuthorizationPolicies by their namespace; those
// of the root namespace are for the whole mesh.
type authorizationPolicies struct {
	opts        Options
	byNamespace map[string][]*authorizationPolicy
}

type authorizationPolicy struct {
	obj      *object
	selector map[string]string
	action   security.AuthorizationPolicy_Action
	dryRun   bool
	// provider is the name of that of CUSTOM.
	provider string
	rules    []*security.Rule
	// policies are its rules, translated, by their names.
	policies map[string]*rbacv3.Policy
}

func newAuthorizationPolicies(opts Options) *authorizationPolicies {
	return &authorizationPolicies{opts: opts, byNamespace: make(map[string][]*authorizationPolicy)}
}

func (p *authorizationPolicies) add(o *object, spec *security.AuthorizationPolicy, a at) {
	policy := &authorizationPolicy{
		obj: o, selector: spec.GetSelector().GetMatchLabels(), action: spec.GetAction(),
		provider: spec.GetProvider().GetName(), rules: spec.GetRules(), policies: make(map[string]*rbacv3.Policy),
	}
	checkSelector(policy.selector, a.field("selector").field("matchLabels"))
	checkProvider(spec, a)
	annotation := at{rep: a.rep, obj: o}.field("metadata").field("annotations").key(dryRunAnnotation)
	switch o.annotations[dryRunAnnotation] {
	case "true":
		policy.dryRun = true
		switch policy.action { //exhaustive:ignore
		case security.AuthorizationPolicy_AUDIT:
			annotation.errorf("is for ALLOW and DENY: AUDIT decides nothing anyway")
		case security.AuthorizationPolicy_CUSTOM:
			annotation.errorf("is for ALLOW and DENY: whether a request is asked about cannot be tried")
		}
	case "", "false":
	default:
		// To take it for enforced could deny, for on trial could allow.
		annotation.errorf("%q is neither \"true\" nor \"false\"", o.annotations[dryRunAnnotation])
	}
	t := &ruleTranslator{namespace: o.namespace, opts: p.opts, denies: policy.action != security.AuthorizationPolicy_ALLOW}
	prefix := "ns[" + o.namespace + "]-policy[" + o.name + "]-rule["
	for i, rule := range spec.GetRules() {
		translated := t.rule(rule, a.field("rules").index(i))
		if err := validate(translated); err != nil {
			a.field("rules").index(i).doubt(err)
		}
		policy.policies[prefix+itoa(i)+"]"] = translated
	}
	if len(spec.GetRules()) == 0 {
		// Without a rule nothing matches: ALLOW allows nothing.
		never := &rbacv3.Policy{
			Permissions: []*rbacv3.Permission{notPermission(anyPermission())},
			Principals:  []*rbacv3.Principal{notPrincipal(anyPrincipal())},
		}
		policy.policies[prefix+"0]"] = never
		if policy.action != security.AuthorizationPolicy_ALLOW {
			a.field("rules").errorf("is required for %s: without a rule the policy matches nothing", policy.action)
		}
	}
	p.byNamespace[o.namespace] = append(p.byNamespace[o.namespace], policy)
}

// checkProvider checks what CUSTOM has, and only CUSTOM may have. It is decided
// before tokens are looked at, as in Istio: a rule about them would match
// nothing, and nobody would be asked.
func checkProvider(spec *security.AuthorizationPolicy, a at) {
	named := a.field("provider")
	if spec.GetAction() != security.AuthorizationPolicy_CUSTOM {
		if named.written() {
			named.errorf("is for CUSTOM only: remove it")
		}
		return
	}
	if spec.GetProvider().GetName() == "" {
		named.field("name").errorf("is required for CUSTOM: name an extension provider of the mesh configuration")
	}
	const before = "is not possible with CUSTOM, which is decided before tokens are looked at: use ALLOW or DENY"
	for i, rule := range spec.GetRules() {
		ra := a.field("rules").index(i)
		for j := range rule.GetFrom() {
			for _, name := range []string{"requestPrincipals", "notRequestPrincipals"} {
				if f := ra.field("from").index(j).field("source").field(name); f.written() {
					f.errorf(before)
				}
			}
		}
		for j, when := range rule.GetWhen() {
			if strings.HasPrefix(when.GetKey(), "request.auth.") {
				ra.field("when").index(j).field("key").errorf(before)
			}
		}
	}
}

// of are the policies of a workload: those of the root namespace and of its own
// that have no selector or one that fits.
func (p *authorizationPolicies) of(namespace string, labels map[string]string) []*authorizationPolicy {
	var found []*authorizationPolicy
	namespaces := []string{p.opts.RootNamespace, namespace}
	for _, n := range slices.Compact(namespaces) {
		for _, policy := range p.byNamespace[n] {
			if subsetOf(policy.selector, labels) {
				found = append(found, policy)
			}
		}
	}
	return found
}

// policiesOf are the sets of policies that a port of a node obeys, each of
// which must allow a request. It is one set for a node that says who it is. One
// that does not say its labels, or its namespace, may be any workload that fits,
// and obeys the policies of all of them: what is left out of a bootstrap must
// not open what a policy closes.
func (c *Config) policiesOf(node Node, port uint32) [][]*authorizationPolicy {
	p := c.authorization
	if len(p.byNamespace) == 0 {
		return nil
	}
	if node.Namespace != "" && len(node.Labels) > 0 {
		return [][]*authorizationPolicy{p.of(node.Namespace, node.Labels)}
	}
	namespaces := []string{node.Namespace}
	if node.Namespace == "" {
		namespaces = append(namespaces, sortedKeys(p.byNamespace)...)
	}
	var sets [][]*authorizationPolicy
	add := func(namespace string, labels map[string]string) {
		if len(node.Labels) > 0 {
			labels = node.Labels
		}
		set := p.of(namespace, labels)
		if !slices.ContainsFunc(sets, func(known []*authorizationPolicy) bool { return slices.Equal(known, set) }) {
			sets = append(sets, set)
		}
	}
	for _, namespace := range namespaces {
		known := false
		for _, e := range c.workloads[workloadKey{namespace, port}] {
			if e.serviceAccount != "" && node.ServiceAccount != "" && e.serviceAccount != node.ServiceAccount {
				continue
			}
			add(e.namespace, e.labels)
			known = true
		}
		if known && node.Namespace != "" {
			continue
		}
		add(namespace, nil)
		for _, n := range slices.Compact([]string{p.opts.RootNamespace, namespace}) {
			for _, policy := range p.byNamespace[n] {
				add(namespace, policy.selector)
			}
		}
	}
	return sets
}

// titles names sets of policies.
func titles(sets [][]*authorizationPolicy) string {
	var b strings.Builder
	for _, set := range sets {
		for _, policy := range set {
			b.WriteString(policy.obj.title() + " ")
		}
		b.WriteString("; ")
	}
	return b.String()
}

// policyKind is an action of policies.
type policyKind struct {
	name   string
	action security.AuthorizationPolicy_Action
	rbac   rbacv3.RBAC_Action
}

// policyKinds are the actions in the order in which they are evaluated.
var policyKinds = [...]policyKind{
	{"custom", security.AuthorizationPolicy_CUSTOM, rbacv3.RBAC_DENY},
	{"audit", security.AuthorizationPolicy_AUDIT, rbacv3.RBAC_LOG},
	{"deny", security.AuthorizationPolicy_DENY, rbacv3.RBAC_DENY},
	{"allow", security.AuthorizationPolicy_ALLOW, rbacv3.RBAC_ALLOW},
}

// kindRules are the rules of all policies of a kind.
type kindRules struct {
	enforced, tried *rbacv3.RBAC // nil if there are none
	prefix          string       // of the statistics of those that are tried
}

// rulesOf collects the rules of a kind, as they hold for what is decided about; as is
// nil for a rule that does not. It is nil if there is no policy of the kind: one whose
// rules all do not hold is still one.
func rulesOf(set []*authorizationPolicy, kind policyKind, as func(*rbacv3.Policy) *rbacv3.Policy) *kindRules {
	var found *kindRules
	for _, policy := range set {
		if policy.action != kind.action {
			continue
		}
		if found == nil {
			found = &kindRules{}
		}
		rules := &found.enforced
		if policy.dryRun {
			rules, found.prefix = &found.tried, "istio_dry_run_"+kind.name+"_"
		}
		if *rules == nil {
			*rules = &rbacv3.RBAC{Action: kind.rbac, Policies: make(map[string]*rbacv3.Policy)}
		}
		for name, p := range policy.policies {
			if p = as(p); p != nil {
				(*rules).Policies[name] = p
			}
		}
	}
	return found
}

// authorizationFilters are the HTTP filters of sets of policies, in Istio's
// order: AUDIT, then DENY, then ALLOW. Those of CUSTOM come before, and before
// tokens are looked at.
func authorizationFilters(sets [][]*authorizationPolicy) ([]*hcmv3.HttpFilter, error) {
	var filters []*hcmv3.HttpFilter
	for i, set := range sets {
		suffix := ""
		if i > 0 {
			suffix = "." + itoa(i)
		}
		for _, kind := range policyKinds[1:] {
			r := rulesOf(set, kind, func(p *rbacv3.Policy) *rbacv3.Policy { return p })
			if r == nil {
				continue
			}
			f, err := httpFilter("envoy.filters.http.rbac."+kind.name+suffix, &httprbacv3.RBAC{
				Rules: r.enforced, ShadowRules: r.tried, ShadowRulesStatPrefix: r.prefix,
			})
			if err != nil {
				return nil, err
			}
			filters = append(filters, f)
		}
	}
	return filters, nil
}

// cutWildcard tells how a value of a policy is compared: exactly, by the
// beginning before a star or the end after one, or only to be there.
func cutWildcard(value string) (text string, kind wildcardKind) {
	switch {
	case value == "*":
		return "", present
	case strings.HasSuffix(value, "*"):
		return value[:len(value)-1], beginning
	case strings.HasPrefix(value, "*"):
		return value[1:], ending
	}
	return value, whole
}

type wildcardKind uint8

const (
	whole wildcardKind = iota
	beginning
	ending
	present
)

// trustDomains are those that stand for the mesh's own: a principal of one is a
// principal of all of them.
func (o *Options) trustDomains() []string {
	domains := append([]string{o.TrustDomain}, o.TrustDomainAliases...)
	slices.SortFunc(domains[1:], cmp.Compare[string])
	return slices.Compact(domains)
}
