package istio

import (
	"strconv"

	security "istio.io/api/security/v1beta1"
)

// mtlsMode is how a listener treats mutual TLS.
type mtlsMode uint8

const (
	permissive mtlsMode = iota
	strict
	disabled
)

// peerPolicies are the PeerAuthentications by their scope. A narrower scope
// wins over a wider one, and UNSET inherits from the wider one; with nothing
// set the mode is PERMISSIVE.
type peerPolicies struct {
	rootNamespace string
	// wide are the policies without a selector by namespace; that of the root
	// namespace is for the whole mesh.
	wide map[string]*peerPolicy
	// narrow are the policies with a selector by namespace. At most one of
	// them can match a set of labels.
	narrow map[string][]*peerPolicy
}

type peerPolicy struct {
	obj      *object
	selector map[string]string
	mode     security.PeerAuthentication_MutualTLS_Mode
	ports    map[uint32]security.PeerAuthentication_MutualTLS_Mode
}

func newPeerPolicies(rootNamespace string) *peerPolicies {
	return &peerPolicies{
		rootNamespace: rootNamespace,
		wide:          make(map[string]*peerPolicy),
		narrow:        make(map[string][]*peerPolicy),
	}
}

func (p *peerPolicies) add(o *object, spec *security.PeerAuthentication, a at) {
	policy := &peerPolicy{
		obj: o, selector: spec.GetSelector().GetMatchLabels(), mode: spec.GetMtls().GetMode(),
		ports: make(map[uint32]security.PeerAuthentication_MutualTLS_Mode, len(spec.PortLevelMtls)),
	}
	for port, mtls := range spec.PortLevelMtls {
		policy.ports[port] = mtls.GetMode()
		if !isPort(port) {
			a.field("portLevelMtls").key(strconv.FormatUint(uint64(port), 10)).refuse("is not a port: use 1..65535")
		}
	}
	if len(policy.selector) == 0 {
		p.addWide(o, policy, a)
		return
	}
	selectorAt := a.field("selector").field("matchLabels")
	checkSelector(policy.selector, selectorAt)
	if o.namespace == p.rootNamespace {
		a.field("selector").refuse("has no effect in the root namespace %q: move the policy to the namespace of its workloads", o.namespace)
		return
	}
	// Istio lets the oldest policy win. Files have no age, and a silent choice
	// between two policies is not one to make about security.
	for _, other := range p.narrow[o.namespace] {
		if compatible(policy.selector, other.selector) {
			selectorAt.errorf("a workload could match this selector and that of %s: add a label that tells them apart", other.obj.source())
		}
	}
	p.narrow[o.namespace] = append(p.narrow[o.namespace], policy)
}

func (p *peerPolicies) addWide(o *object, policy *peerPolicy, a at) {
	if len(policy.ports) > 0 {
		a.field("portLevelMtls").refuse("needs a selector")
	}
	if other, ok := p.wide[o.namespace]; ok {
		a.errorf("%s already has no selector: a namespace can have one such policy", other.obj.source())
		return
	}
	p.wide[o.namespace] = policy
}

// compatible reports whether one set of labels can satisfy both selectors.
func compatible(a, b map[string]string) bool {
	for k, v := range a {
		if other, ok := b[k]; ok && other != v {
			return false
		}
	}
	return true
}

// mode is the mode of a port of a workload.
func (p *peerPolicies) mode(namespace string, labels map[string]string, port uint32) mtlsMode {
	mode := permissive
	inherit := func(m security.PeerAuthentication_MutualTLS_Mode) {
		switch m {
		case security.PeerAuthentication_MutualTLS_DISABLE:
			mode = disabled
		case security.PeerAuthentication_MutualTLS_PERMISSIVE:
			mode = permissive
		case security.PeerAuthentication_MutualTLS_STRICT:
			mode = strict
		case security.PeerAuthentication_MutualTLS_UNSET:
		}
	}
	for _, scope := range []string{p.rootNamespace, namespace} {
		if policy, ok := p.wide[scope]; ok {
			inherit(policy.mode)
		}
	}
	for _, policy := range p.narrow[namespace] {
		if subsetOf(policy.selector, labels) {
			inherit(policy.mode)
			inherit(policy.ports[port])
		}
	}
	return mode
}

// strictest is the strictest mode of a port that a workload of any namespace
// can have: of any workload at all, if it has no labels.
func (p *peerPolicies) strictest(labels map[string]string, port uint32) mtlsMode {
	mode := p.mode("", labels, port)
	for namespace := range p.wide {
		mode = stricter(mode, p.mode(namespace, labels, port))
	}
	for namespace := range p.narrow {
		mode = stricter(mode, p.mode(namespace, labels, port))
		if len(labels) == 0 {
			mode = stricter(mode, p.strictestIn(namespace, port))
		}
	}
	return mode
}

// strictestIn is the strictest mode of a port that a workload of a namespace can have.
func (p *peerPolicies) strictestIn(namespace string, port uint32) mtlsMode {
	mode := p.mode(namespace, nil, port)
	for _, policy := range p.narrow[namespace] {
		mode = stricter(mode, p.mode(namespace, policy.selector, port))
	}
	return mode
}

// clientMode is the mode that clients see at an endpoint.
func (p *peerPolicies) clientMode(e *endpoint, port *servicePort) mtlsMode {
	return p.mode(e.namespace, e.labels, e.portFor(port))
}
