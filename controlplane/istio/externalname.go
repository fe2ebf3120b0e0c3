package istio

import (
	"strings"

	"github.com/inboardmesh/inboard/controlplane/istio/internal/kubeapi"
)

// A Service of the type ExternalName is another name. Where it leads to a host of the
// mesh, it is that host, as in Istio: callers get the host's ports, routes, rules and
// endpoints under both names. Where it leads out, Istio leaves it to DNS. Here it is
// the outside host on the ports of the Service, as with a ServiceEntry, so that routes
// and rules for it are in force; without ports it is left to DNS here, too.

const externalNameType = "ExternalName"

// externalName is one such Service.
type externalName struct {
	spec   *kubeapi.ServiceSpec
	target string
	// at is its spec, hostAt its name.
	at, hostAt at
}

// addExternalNames registers them. All hosts that they can lead to are known.
func (r *registry) addExternalNames(objects []*object) {
	names := make(map[string]*externalName)
	for _, o := range objects {
		n := &externalName{
			spec: o.spec.(*kubeapi.ServiceSpec), at: at{rep: r.rep, obj: o}.field("spec"),
			hostAt: at{rep: r.rep, obj: o}.field("metadata").field("name"),
		}
		host := fullHost(o.name, o.namespace)
		if n.check(host, r.services[host]) {
			names[host] = n
		}
	}
	for _, host := range sortedKeys(names) {
		n := names[host]
		target, ok := n.follow(names)
		switch {
		case !ok:
			n.at.field("externalName").errorf("%q leads back to itself", n.target)
		case len(r.services[target]) > 0:
			r.aliasOf[host] = target
			r.aliases[target] = append(r.aliases[target], host)
		default:
			r.addOutside(host, target, n)
		}
	}
}

// check reports whether the Service can be another name, and reads of what.
func (n *externalName) check(host string, others []*service) bool {
	a := n.at.field("externalName")
	if n.spec.TrafficDistribution != nil {
		n.at.field("trafficDistribution").refuse("has no effect with type ExternalName: remove it")
	}
	// Written with a dot at the end, it is as absolute as without.
	n.target = strings.TrimSuffix(n.spec.ExternalName, ".")
	ok := checkHost(host, n.hostAt)
	switch {
	case isAddress(n.target):
		a.errorf("%q is an address and no name: use an EndpointSlice", n.target)
		return false
	case !checkHost(n.target, a) || !ok:
		return false
	case len(others) > 0:
		n.hostAt.errorf("%q is already a host of %s: merging is not supported", host, others[0].at.obj.source())
		return false
	}
	return true
}

// follow is where a name leads in the end, by way of other names.
func (n *externalName) follow(names map[string]*externalName) (target string, ok bool) {
	for range names {
		next := names[n.target]
		if next == nil {
			return n.target, true
		}
		n = next
	}
	return "", false
}

// addOutside registers a host that callers find outside of the mesh by another name.
func (r *registry) addOutside(host, target string, n *externalName) {
	ports := kubernetesPorts(n.spec.Ports, n.at.field("ports"))
	if len(ports) == 0 {
		n.at.field("ports").warnf(lintUnknownProtocol, "%q is not in the mesh: no port says that it speaks HTTP, HTTP/2 or gRPC", host)
		return
	}
	r.services[host] = append(r.services[host], &service{
		host: host, at: n.at, hostAt: n.hostAt, exports: exports{all: true}, external: true, dns: everyAddress, ports: ports,
		endpoints: []*endpoint{{at: n.hostAt, namespace: n.at.obj.namespace, address: target, weight: 1}},
	})
}
