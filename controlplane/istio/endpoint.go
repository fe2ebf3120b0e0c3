package istio

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"
	networking "istio.io/api/networking/v1alpha3"
)

const (
	tlsModeLabel = "security.istio.io/tlsMode"
	// localityLabel is where Istio looks if an endpoint has no locality; it
	// may be written with dots, since a label has no slashes.
	localityLabel = "istio-locality"
	// healthCheckAnnotation on a WorkloadEntry says that its status tells whether it
	// is healthy; until it does, it is not.
	healthCheckAnnotation = "proxy.istio.io/health-checks-enabled"
)

// endpoint is a WorkloadEntry, or an inline endpoint of a ServiceEntry.
type endpoint struct {
	// at is the WorkloadEntry's spec, or the element of spec.endpoints.
	at        at
	namespace string
	address   string
	ports     map[string]uint32
	labels    map[string]string
	locality  string
	// network tells failoverPriority which endpoints are near. Without gateways, all
	// are reachable directly, as in Istio.
	network        string
	weight         uint32
	serviceAccount string
	health         corev3.HealthStatus
	// sliced is one of an EndpointSlice, which serves no other port than ports, and
	// unknown one whose pod is in no document: nobody knows its labels.
	sliced, unknown bool
	// pod is its name, node that of the machine, "" if it is not known.
	pod, node string
}

// serves reports whether the endpoint has a port of its service at all.
func (e *endpoint) serves(p *servicePort) bool { return !e.sliced || e.ports[p.name] > 0 }

// called reports whether clients may know the endpoint. One that is said not to be
// healthy is left out, as in Istio, so that no panic threshold finds it.
func (e *endpoint) called(p *servicePort) bool {
	return e.serves(p) && e.health != corev3.HealthStatus_UNHEALTHY
}

// newEndpoint checks one endpoint; named allows a host name in the place of the
// address. The labels are the caller's to set.
func newEndpoint(namespace string, spec *networking.WorkloadEntry, a at, named bool) *endpoint {
	e := &endpoint{
		at: a, namespace: namespace,
		address: spec.Address, ports: spec.Ports,
		locality: spec.Locality, network: spec.Network, weight: spec.Weight, serviceAccount: spec.ServiceAccount,
	}
	address, err := netip.ParseAddr(spec.Address)
	switch {
	case err == nil && address.Zone() == "":
		e.address = address.Unmap().String()
	case named && isDNSSubdomain(spec.Address):
	case named:
		a.field("address").errorf("%q is neither an IP address nor a host name: write names in lower case", spec.Address)
	default:
		a.field("address").errorf("%q is not an IP address: names are for a ServiceEntry with resolution DNS, sockets are not supported", spec.Address)
	}
	for _, name := range sortedKeys(spec.Ports) {
		if !isDNSLabel(name) {
			a.field("ports").key(name).refuse("%q is not a port name: use lower case letters, digits and '-'", name)
		}
		if !isPort(spec.Ports[name]) {
			a.field("ports").key(name).errorf("%d is not a port: use 1..65535", spec.Ports[name])
		}
	}
	if strings.Count(spec.Locality, "/") > 2 {
		a.field("locality").errorf("%q is not a locality: write region/zone/subzone", spec.Locality)
	}
	if spec.ServiceAccount != "" && !isDNSSubdomain(spec.ServiceAccount) {
		a.field("serviceAccount").errorf("%q is not the name of a service account", spec.ServiceAccount)
	}
	if e.weight == 0 {
		e.weight = 1
	}
	return e
}

// workloadEndpoint is the endpoint of a WorkloadEntry document. Its labels are
// those of the spec and of the metadata; the latter win, as in Istio.
func workloadEndpoint(o *object, spec *networking.WorkloadEntry, a at) *endpoint {
	e := newEndpoint(o.namespace, spec, a, false)
	e.labels = maps.Clone(spec.Labels)
	if e.labels == nil {
		e.labels = make(map[string]string, len(o.labels))
	}
	maps.Copy(e.labels, o.labels)
	if o.annotations[healthCheckAnnotation] == "true" && !o.healthy {
		e.health = corev3.HealthStatus_UNHEALTHY
	}
	return e
}

// portFor is where the endpoint serves a port of its service: by the port's
// name, else by its targetPort, else its number.
func (e *endpoint) portFor(p *servicePort) uint32 {
	if port, ok := e.ports[p.name]; ok && port > 0 {
		return port
	}
	return p.target
}

// mutualTLS reports whether the endpoint itself offers mutual TLS: by Istio's
// label, else because it has a service account.
func (e *endpoint) mutualTLS() bool {
	if mode, ok := e.labels[tlsModeLabel]; ok {
		return mode == "istio"
	}
	return e.serviceAccount != ""
}

func (e *endpoint) localityParts() Locality {
	text := e.locality
	if text == "" {
		text = labelledLocality(e.labels)
	}
	return parseLocality(text)
}

// labelledLocality is the locality that labels tell, "" for none.
func labelledLocality(labels map[string]string) string {
	text := labels[localityLabel]
	if !strings.Contains(text, "/") {
		text = strings.ReplaceAll(text, ".", "/")
	}
	return text
}

func parseLocality(text string) Locality {
	parts := strings.SplitN(text, "/", 3)
	parts = append(parts, "", "")
	return Locality{Region: parts[0], Zone: parts[1], SubZone: parts[2]}
}

// serviceAccountIDs are the SPIFFE IDs of the endpoints' service accounts,
// sorted, each once.
func serviceAccountIDs(trustDomain string, endpoints []*endpoint) []string {
	var ids []string
	for _, e := range endpoints {
		if e.serviceAccount != "" {
			ids = append(ids, spiffeID(trustDomain, e.namespace, e.serviceAccount))
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

func spiffeID(trustDomain, namespace, serviceAccount string) string {
	return "spiffe://" + trustDomain + "/ns/" + namespace + "/sa/" + serviceAccount
}

func lbEndpoint(e *endpoint, p *servicePort) *endpointv3.LbEndpoint {
	return &endpointv3.LbEndpoint{
		HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{
			Address: socketAddress(e.address, e.portFor(p)),
		}},
		LoadBalancingWeight: wrapperspb.UInt32(e.weight),
		HealthStatus:        e.health,
	}
}

func socketAddress(host string, port uint32) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address:       host,
		PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: port},
	}}}
}
