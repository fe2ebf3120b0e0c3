package istio

import (
	"slices"
	"strings"

	networking "istio.io/api/networking/v1alpha3"
)

// service is one host of a ServiceEntry.
type service struct {
	host string
	// at is the spec of the ServiceEntry, hostAt the element of its hosts.
	at       at
	hostAt   at
	exports  exports
	external bool
	dns      dnsMode
	ports    []*servicePort
	// others are the ports that are not in the mesh: calls to them go round it.
	others []*servicePort
	// endpoints are all endpoints, in a fixed order.
	endpoints []*endpoint
	// sans are the names that a peer may prove with mutual TLS; given tells
	// that they are subjectAltNames and not the service accounts.
	sans  []string
	given bool
	// distribution is what the service itself says of localities, for rules that say
	// nothing; nil is nothing.
	distribution *networking.LocalityLoadBalancerSetting
}

type servicePort struct {
	number, target uint32
	name           string
	http2          bool
	// tcp is a port whose bytes are the application's, see protocolsOfTCP.
	tcp bool
}

// listsPort reports whether a service has a port, in the mesh or not.
func (s *service) listsPort(number uint32) bool {
	return s.hasPort(number) || slices.ContainsFunc(s.others, func(p *servicePort) bool { return p.number == number })
}

func (s *service) hasPort(number uint32) bool {
	return slices.ContainsFunc(s.ports, func(p *servicePort) bool { return p.number == number })
}

func (r *registry) addService(o *object, spec *networking.ServiceEntry, a at, workloads []*endpoint) {
	visible := newExports(o, spec.ExportTo, a.field("exportTo"))
	dns := notNamed
	if !slices.ContainsFunc(spec.Ports, encrypts) || slices.ContainsFunc(spec.Ports, func(p *networking.ServicePort) bool { return !encrypts(p) }) {
		dns = resolutionOf(spec, a.field("resolution"))
	}
	warnOfSessions(at{rep: r.rep, obj: o})
	ports, others := servicePorts(spec.Ports, a.field("ports"))
	endpoints := r.serviceEndpoints(o, spec, a, slices.Concat(ports, others), workloads)
	checkDuplicates(endpoints, ports)
	dns.checkEndpoints(endpoints, a)
	sans := spec.SubjectAltNames
	for i, san := range sans {
		if san == "" {
			a.field("subjectAltNames").index(i).errorf("must not be empty")
		}
	}
	if len(sans) == 0 {
		sans = serviceAccountIDs(r.opts.TrustDomain, endpoints)
	}
	if len(spec.Hosts) == 0 {
		a.field("hosts").errorf("is required")
	}
	for i, host := range spec.Hosts {
		hostAt := a.field("hosts").index(i)
		if !checkHost(host, hostAt) {
			continue
		}
		if i := slices.IndexFunc(r.services[host], func(s *service) bool { return s.at.obj.namespace == o.namespace }); i >= 0 {
			hostAt.errorf("%q is already a host of %s: merging is not supported", host, r.services[host][i].at.obj.source())
			continue
		}
		r.services[host] = append(r.services[host], &service{
			host: host, at: a, hostAt: hostAt, exports: visible,
			external: spec.Location == networking.ServiceEntry_MESH_EXTERNAL,
			dns:      dns,
			ports:    ports, others: others, endpoints: dns.endpointsOf(host, hostAt, a, endpoints),
			sans: sans, given: len(spec.SubjectAltNames) > 0,
		})
	}
}

// encrypts reports whether the callers of a port encrypt by themselves.
func encrypts(port *networking.ServicePort) bool {
	protocol := strings.ToUpper(port.Protocol)
	return protocol == "TLS" || protocol == "HTTPS"
}

// servicePorts are the ports that are in the mesh, and the others.
func servicePorts(specs []*networking.ServicePort, a at) (ports, others []*servicePort) {
	if len(specs) == 0 {
		a.errorf("is required")
	}
	for i, spec := range specs {
		pa := a.index(i)
		p := &servicePort{number: spec.Number, target: spec.TargetPort, name: spec.Name}
		if !isPort(spec.Number) {
			pa.field("number").errorf("%d is not a port: use 1..65535", spec.Number)
		}
		if pa.field("targetPort").written() && !isPort(spec.TargetPort) {
			pa.field("targetPort").errorf("%d is not a port: use 1..65535", spec.TargetPort)
		}
		if p.target == 0 {
			p.target = p.number
		}
		if !isDNSLabel(spec.Name) {
			pa.field("name").errorf("%q is not a port name: use lower case letters, digits and '-'", spec.Name)
		}
		for _, other := range slices.Concat(ports, others) {
			if other.name == p.name {
				pa.field("name").errorf("%q is the name of two ports", p.name)
			}
			if other.number == p.number {
				pa.field("number").errorf("%d is the number of two ports", p.number)
			}
		}
		switch protocol := strings.ToUpper(spec.Protocol); {
		case protocol == "HTTP":
		case protocol == "HTTP2", protocol == "GRPC":
			p.http2 = true
		case slices.Contains(protocolsOfTCP, protocol):
			p.tcp = true
		case protocol == "":
			pa.field("protocol").errorf("is required, because protocols are not guessed: use HTTP, HTTP2, GRPC or TCP")
		case encrypts(spec):
			p.tcp = true // for whoever serves it, as in Istio
			pa.warnf(lintUnknownProtocol, "port %d is not in the mesh, because its callers encrypt by themselves (%s): their calls go round it; TCP can carry that inside of mutual TLS", spec.Number, spec.Protocol)
			others = append(others, p)
			continue
		default:
			pa.field("protocol").errorf("%q is not supported: use HTTP, HTTP2, GRPC or TCP", spec.Protocol)
		}
		ports = append(ports, p)
	}
	return ports, others
}

func (r *registry) serviceEndpoints(o *object, spec *networking.ServiceEntry, a at, ports []*servicePort, workloads []*endpoint) []*endpoint {
	if spec.WorkloadSelector == nil {
		endpoints := make([]*endpoint, 0, len(spec.Endpoints))
		for i, e := range spec.Endpoints {
			ea := a.field("endpoints").index(i)
			ep := newEndpoint(o.namespace, e, ea, spec.Resolution != networking.ServiceEntry_STATIC)
			ep.labels = e.Labels
			for _, name := range sortedKeys(e.Ports) {
				if !slices.ContainsFunc(ports, func(p *servicePort) bool { return p.name == name }) {
					ea.field("ports").key(name).refuse("no port of the ServiceEntry has this name")
				}
			}
			endpoints = append(endpoints, ep)
		}
		return endpoints
	}
	if len(spec.Endpoints) > 0 {
		a.field("workloadSelector").refuse("cannot be set together with %q", "endpoints")
		return nil
	}
	labels := spec.WorkloadSelector.Labels
	if len(labels) == 0 {
		a.field("workloadSelector").field("labels").errorf("is required")
		return nil
	}
	checkSelector(labels, a.field("workloadSelector").field("labels"))
	var endpoints []*endpoint
	for _, w := range workloads {
		if w.namespace == o.namespace && subsetOf(labels, w.labels) {
			endpoints = append(endpoints, w)
		}
	}
	return endpoints
}

// checkSelector refuses what looks like a pattern: labels are compared
// literally.
func checkSelector(labels map[string]string, a at) {
	for _, k := range sortedKeys(labels) {
		if k == "" || strings.Contains(k+labels[k], "*") {
			a.key(k).errorf("%q: \"%s\" is not a label: wildcards are not supported", k, labels[k])
		}
	}
}

// checkDuplicates refuses an address that occurs twice behind one port, which
// gRPC clients reject and which would count twice in balancing.
func checkDuplicates(endpoints []*endpoint, ports []*servicePort) {
	for _, p := range ports {
		first := make(map[string]*endpoint)
		for _, e := range endpoints {
			address := hostPort(e.address, e.portFor(p))
			if other, ok := first[address]; ok {
				e.at.field("address").errorf("%s is already an endpoint: %s", address, other.at.obj.source())
				continue
			}
			first[address] = e
		}
	}
}

// subsetOf reports whether labels has everything that selector asks for.
func subsetOf(selector, labels map[string]string) bool {
	for k, v := range selector {
		if have, ok := labels[k]; !ok || have != v {
			return false
		}
	}
	return true
}
