package istio

import (
	"slices"
	"strings"

	networking "istio.io/api/networking/v1alpha3"

	"github.com/inboardmesh/inboard/controlplane/istio/internal/kubeapi"
)

// checkKubernetesService refuses what would change where calls go and is not
// translated.
func checkKubernetesService(spec *kubeapi.ServiceSpec, a at) {
	switch spec.Type {
	case "", "ClusterIP", "NodePort", "LoadBalancer", externalNameType:
	default:
		a.field("type").errorf("%q is not one of ClusterIP, NodePort, LoadBalancer, ExternalName", spec.Type)
	}
	if spec.SessionAffinity != "" && spec.SessionAffinity != "None" {
		a.field("sessionAffinity").errorf("%q is not supported: use consistentHash of a DestinationRule, and None here", spec.SessionAffinity)
	}
	if policy := spec.InternalTrafficPolicy; policy != nil && *policy != "Cluster" {
		a.field("internalTrafficPolicy").errorf("%q is not supported: use Cluster", *policy)
	}
}

// sessionLabels are those of services with which Istio, where
// PILOT_ENABLE_PERSISTENT_SESSION_FILTER is set, keeps callers with one endpoint.
var sessionLabels = [...]string{"istio.io/persistent-session", "istio.io/persistent-session-header"}

// warnOfSessions warns of a service that asks for sessions.
func warnOfSessions(o at) {
	for _, label := range sessionLabels {
		if o.obj.labels[label] != "" {
			o.field("metadata").field("labels").key(label).warnf(lintPersistentSession,
				"has no effect: use consistentHash of a DestinationRule, or the filter stateful_session of xDS, and remove the label")
		}
	}
}

// trafficDistribution translates what a Service prefers as Istio does: into
// priorities, which need no outlier detection. A DestinationRule with a setting of
// its own overrides it.
func trafficDistribution(preference *string, a at) *networking.LocalityLoadBalancerSetting {
	near := []string{networkLabel, regionLabel, zoneLabel}
	switch deref(preference) {
	case "":
		return nil
	case "PreferClose", "PreferSameZone":
	case "PreferSameNode":
		near = append(near, subZoneLabel, hostLabel)
	default:
		a.field("trafficDistribution").errorf("%q is not one of PreferClose, PreferSameZone, PreferSameNode", *preference)
		return nil
	}
	return &networking.LocalityLoadBalancerSetting{FailoverPriority: near}
}

// kubernetesPorts are the ports of a Service that are in the mesh: those that say,
// as Istio reads it, what they speak.
func kubernetesPorts(specs []kubeapi.ServicePort, a at) []*servicePort {
	var ports []*servicePort
	for i := range specs {
		spec, pa := &specs[i], a.index(i)
		if spec.Port < 1 || !isPort(uint32(spec.Port)) {
			pa.field("port").errorf("%d is not a port: use 1..65535", spec.Port)
			continue
		}
		if spec.Name != "" && !isDNSLabel(spec.Name) {
			pa.field("name").errorf("%q is not a port name: use lower case letters, digits and '-'", spec.Name)
		}
		for j := range i {
			other := &specs[j]
			switch {
			case other.Name == spec.Name:
				pa.field("name").errorf("%q is the name of two ports", spec.Name)
			case other.Port == spec.Port && transport(other.Protocol) == transport(spec.Protocol):
				pa.field("port").errorf("%d is the number of two ports", spec.Port)
			}
		}
		p := &servicePort{number: uint32(spec.Port), target: uint32(spec.Port), name: spec.Name}
		known := false
		if transport(spec.Protocol) == "TCP" {
			p.http2, p.tcp, known = kubernetesProtocol(spec.Name, spec.AppProtocol)
		}
		if !known {
			pa.warnf(lintUnknownProtocol, "port %d is not in the mesh: nothing says that it speaks HTTP, HTTP/2, gRPC or TCP", spec.Port)
			continue
		}
		ports = append(ports, p)
	}
	return ports
}

// transport is the protocol of a port, TCP without one.
func transport(protocol string) string {
	if protocol == "" {
		return "TCP"
	}
	return protocol
}

// kubernetesProtocol reads the protocol as Istio does: appProtocol, else the name
// of the port up to a '-'. What Istio would guess from the first bytes is not
// known.
func kubernetesProtocol(name string, appProtocol *string) (http2, tcp, known bool) {
	protocol, _, _ := strings.Cut(name, "-")
	if appProtocol != nil {
		protocol = strings.ToLower(*appProtocol)
	} else if strings.HasPrefix(name, "grpc-web") {
		return false, false, false
	}
	switch strings.ToLower(protocol) {
	case "http", "kubernetes.io/ws":
		return false, false, true
	case "http2", "grpc", "kubernetes.io/h2c":
		return true, false, true
	}
	tcp = slices.Contains(protocolsOfTCP, strings.ToUpper(protocol))
	return false, tcp, tcp
}
