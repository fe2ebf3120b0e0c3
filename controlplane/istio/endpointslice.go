package istio

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/inboardmesh/inboard/controlplane/istio/internal/kubeapi"
)

// serviceNameLabel says whose endpoints are in a slice.
const serviceNameLabel = "kubernetes.io/service-name"

// sliceEndpoints are the endpoints of a Service by its slices, in their order. An
// endpoint can be in several, as while it moves from one to another, and of a
// service with addresses of both families only those of the first count, so that
// a pod is there once.
func (r *registry) sliceEndpoints(k *kubernetes, spec *kubeapi.ServiceSpec, objects []*object) []*endpoint {
	var endpoints []*endpoint
	byAddress := make(map[string][]*endpoint)
	for _, o := range objects {
		a := at{rep: r.rep, obj: o}
		s := o.spec.(*kubeapi.EndpointSlice)
		switch s.AddressType {
		case "IPv4", "IPv6":
		case "FQDN":
			a.field("addressType").errorf("FQDN is not supported: use a ServiceEntry")
			continue
		default:
			a.field("addressType").errorf("%q is not one of IPv4, IPv6", s.AddressType)
			continue
		}
		ports := slicePorts(s.Ports, a.field("ports"))
		for i := range s.Endpoints {
			e := r.sliceEndpoint(k, o, &s.Endpoints[i], ports, a.field("endpoints").index(i))
			if e == nil || len(spec.IPFamilies) > 0 && spec.IPFamilies[0] != s.AddressType {
				continue
			}
			there := byAddress[e.address]
			if i := slices.IndexFunc(there, e.same); i >= 0 {
				there[i].join(e)
				continue
			}
			byAddress[e.address] = append(there, e)
			endpoints = append(endpoints, e)
		}
	}
	return endpoints
}

// same reports whether two entries for an address are one endpoint: of one pod, or
// with a port in common, as of a pod and the one that takes its place on the
// network of their machine.
func (e *endpoint) same(other *endpoint) bool {
	if e.pod != "" && e.pod == other.pod {
		return true
	}
	for name, port := range e.ports {
		if other.ports[name] == port {
			return true
		}
	}
	return false
}

// join adds what another entry says of an endpoint: further ports. The one that is
// ready knows better, since a slice that an endpoint is leaving may be late.
func (e *endpoint) join(other *endpoint) {
	better, late := *e, *other
	if better.health == corev3.HealthStatus_UNHEALTHY || late.health == corev3.HealthStatus_HEALTHY {
		better, late = late, better
	}
	ports := maps.Clone(late.ports)
	maps.Copy(ports, better.ports)
	*e, e.ports = better, ports
}

// slicePorts are the ports of a slice's endpoints by name.
func slicePorts(specs []kubeapi.EndpointPort, a at) map[string]uint32 {
	ports := make(map[string]uint32, len(specs))
	for i := range specs {
		spec, pa := &specs[i], a.index(i)
		name := deref(spec.Name)
		if _, ok := ports[name]; ok {
			pa.field("name").errorf("%q is the name of two ports", name)
		}
		switch {
		case spec.Port == nil:
			pa.field("port").errorf("is required: endpoints that serve all ports are not supported")
		case *spec.Port < 1 || *spec.Port > 65535:
			pa.field("port").errorf("%d is not a port: use 1..65535", *spec.Port)
		default:
			ports[name] = uint32(*spec.Port)
		}
	}
	return ports
}

// sliceEndpoint is one endpoint of a slice, nil if nobody can call it. One that is
// not ready is nobody's to call, and a server already, which policies are for.
func (r *registry) sliceEndpoint(k *kubernetes, o *object, spec *kubeapi.Endpoint, ports map[string]uint32, a at) *endpoint {
	if len(spec.Addresses) != 1 {
		a.field("addresses").errorf("there are %d addresses: one is possible", len(spec.Addresses))
		return nil
	}
	address, err := netip.ParseAddr(spec.Addresses[0])
	if err != nil || address.Zone() != "" {
		a.field("addresses").index(0).errorf("%q is not an IP address", spec.Addresses[0])
		return nil
	}
	e := &endpoint{
		at: a, namespace: o.namespace, address: address.Unmap().String(), ports: ports, weight: 1, sliced: true,
		health: sliceHealth(&spec.Conditions),
	}
	e.node = deref(spec.NodeName)
	k.describe(e, spec)
	if e.unknown && e.health != corev3.HealthStatus_UNHEALTHY {
		a.warnf(lintUnknownPod, "no document has the Pod of %s: its labels and service account are not known", e.address)
	}
	if e.node != "" && k.nodes[e.node] == nil && strings.HasPrefix(e.locality, "/") {
		a.warnf(lintUnknownNode, "no document has the Node %q of %s: its region is not known", e.node, e.address)
	}
	return e
}

// sliceHealth reads the conditions by the rules of the API: what is not known is
// ready, and what ends and still serves finishes what it has. What ends and is said
// to be ready is of a Service with publishNotReadyAddresses, whose readiness
// Kubernetes has overridden already, so that nobody else has to look at that field.
func sliceHealth(c *kubeapi.EndpointConditions) corev3.HealthStatus {
	ready := c.Ready == nil || *c.Ready
	serving := ready
	if c.Serving != nil {
		serving = *c.Serving
	}
	terminating := c.Terminating != nil && *c.Terminating
	switch {
	case c.Ready != nil && *c.Ready:
		return corev3.HealthStatus_HEALTHY
	case serving && terminating:
		return corev3.HealthStatus_DRAINING
	case ready && !terminating:
		return corev3.HealthStatus_HEALTHY
	}
	return corev3.HealthStatus_UNHEALTHY
}

// describe adds what is known of the endpoint's pod and machine. The slice itself
// tells the zone only.
func (k *kubernetes) describe(e *endpoint, spec *kubeapi.Endpoint) {
	var pod *object
	if ref := spec.TargetRef; ref != nil && ref.Kind == kindPod {
		pod = k.pods[cmp.Or(ref.Namespace, e.namespace)+"/"+ref.Name]
	}
	if e.unknown = pod == nil; !e.unknown {
		e.pod, e.labels = pod.name, pod.labels
		// Kubernetes runs a pod that names none under this one.
		e.serviceAccount = cmp.Or(pod.spec.(*kubeapi.PodSpec).ServiceAccountName, "default")
		e.network = pod.labels[networkLabel]
	}
	if e.locality = labelledLocality(e.labels); e.locality != "" {
		return
	}
	var machine map[string]string
	if node := k.nodes[deref(spec.NodeName)]; node != nil {
		machine = node.labels
	}
	region := cmp.Or(machine[regionLabel], e.labels[regionLabel])
	zone := cmp.Or(deref(spec.Zone), machine[zoneLabel], e.labels[zoneLabel])
	if subZone := machine[subZoneLabel]; region+zone+subZone != "" {
		e.locality = region + "/" + zone + "/" + subZone
	}
}

func deref(text *string) string {
	if text == nil {
		return ""
	}
	return *text
}
