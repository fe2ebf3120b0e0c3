package istio

import (
	"cmp"
	"slices"

	"github.com/inboardmesh/inboard/controlplane/istio/internal/kubeapi"
)

// kubePackage is where the types of Kubernetes' own kinds are.
const kubePackage = "github.com/inboardmesh/inboard/controlplane/istio/internal/kubeapi"

// flatKinds have their fields beside metadata, and no spec.
var flatKinds = map[string]bool{kindEndpointSlice: true}

// clusterKinds have no namespace.
var clusterKinds = map[string]bool{kindNode: true}

// partialStructs are the specs of which a few fields are read and the others are
// for who runs the pod or the machine, and nothing in them changes a call.
var partialStructs = map[string]bool{"PodSpec": true, "NodeSpec": true, "statusCondition": true}

// kubernetesMembers are, by struct, the fields that are accepted. Those of
// ServiceSpec that nothing reads are about how kube-proxy, DNS and load balancers
// outside get to the pods: a client of the mesh calls the pods themselves.
var kubernetesMembers = map[string][]string{
	"EndpointSlice": {"addressType", "endpoints", "ports"},
	// hints is how kube-proxy is to balance; Istio does not look at it either.
	"Endpoint":           {"addresses", "conditions", "hostname", "targetRef", "nodeName", "zone", "hints"},
	"EndpointConditions": {"ready", "serving", "terminating"},
	"EndpointPort":       {"name", "protocol", "port", "appProtocol"},
	"ObjectReference":    {"kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath"},
	"EndpointHints":      {"forZones", "forNodes"},
	"ForZone":            {"name"},
	"ForNode":            {"name"},
	"ServiceSpec": {
		"ports", "type", "ipFamilies", "trafficDistribution", "sessionAffinity", "internalTrafficPolicy", "externalName",
		"selector", "clusterIP", "clusterIPs", "externalIPs", "loadBalancerIP", "loadBalancerSourceRanges",
		"externalTrafficPolicy", "healthCheckNodePort", "publishNotReadyAddresses", "ipFamilyPolicy",
		"allocateLoadBalancerNodePorts", "loadBalancerClass", "sessionAffinityConfig",
	},
	"ServicePort":           {"name", "protocol", "appProtocol", "port", "targetPort", "nodePort"},
	"SessionAffinityConfig": {"clientIP"},
	"ClientIPConfig":        {"timeoutSeconds"},
	"PodSpec":               {"serviceAccountName"},
	"NodeSpec":              {"unschedulable"},
	"statusCondition":       {"type", "status"},
}

func isTranslatedMember(structure, field string) bool {
	return slices.Contains(translatedStructs[structure], field) || slices.Contains(kubernetesMembers[structure], field)
}

// withoutHead are the fields of a flat kind that are its own.
func withoutHead(fields fieldList) fieldList {
	var own fieldList
	for _, f := range fields {
		switch f.name {
		case "apiVersion", "kind", "metadata":
		default:
			own = append(own, f)
		}
	}
	return own
}

// kubernetes are the objects of a cluster, as kubectl exports them.
type kubernetes struct {
	services []*object
	slices   []*object
	// endpoints are what was there before the slices.
	endpoints []*object
	// pods and nodes are found by "namespace/name" and by name.
	pods, nodes map[string]*object
}

func newKubernetes() *kubernetes {
	return &kubernetes{pods: make(map[string]*object), nodes: make(map[string]*object)}
}

// endpointsOnly stands for an Endpoints document, of which nothing is read.
type endpointsOnly struct{}

func (k *kubernetes) add(o *object) {
	switch o.spec.(type) {
	case endpointsOnly:
		k.endpoints = append(k.endpoints, o)
	case *kubeapi.ServiceSpec:
		k.services = append(k.services, o)
	case *kubeapi.EndpointSlice:
		k.slices = append(k.slices, o)
	case *kubeapi.PodSpec:
		k.pods[o.namespace+"/"+o.name] = o
	case *kubeapi.NodeSpec:
		k.nodes[o.name] = o
	}
}

// addKubernetes registers the Services, with the endpoints of their slices.
func (r *registry) addKubernetes(k *kubernetes) {
	slices.SortStableFunc(k.slices, func(a, b *object) int {
		return cmp.Or(cmp.Compare(a.namespace, b.namespace), cmp.Compare(a.name, b.name))
	})
	of := make(map[string][]*object)
	known := make(map[string]bool)
	for _, o := range k.services {
		known[o.namespace+"/"+o.name] = true
	}
	for _, o := range k.slices {
		label := at{rep: r.rep, obj: o}.field("metadata").field("labels").key(serviceNameLabel)
		name := o.labels[serviceNameLabel]
		switch service := o.namespace + "/" + name; {
		case name == "":
			label.errorf("is required: the name of the Service that the endpoints are of")
		case !known[service]:
			label.errorf("there is no Service %s: export it too", service)
		default:
			of[service] = append(of[service], o)
		}
	}
	var named []*object
	for _, o := range k.services {
		endpointSlices := of[o.namespace+"/"+o.name]
		if o.spec.(*kubeapi.ServiceSpec).Type != externalNameType {
			r.addKubernetesService(k, o, endpointSlices)
			continue
		}
		checkKubernetesService(o.spec.(*kubeapi.ServiceSpec), at{rep: r.rep, obj: o}.field("spec"))
		named = append(named, o)
		for _, s := range endpointSlices {
			at{rep: r.rep, obj: s}.field("metadata").field("labels").key(serviceNameLabel).errorf(
				"Service %s/%s is of the type ExternalName, which has no endpoints", o.namespace, o.name)
		}
	}
	r.addExternalNames(named)
	for _, o := range k.endpoints {
		service := o.namespace + "/" + o.name
		kind := at{rep: r.rep, obj: o}.field("kind")
		if known[service] && len(of[service]) == 0 {
			kind.errorf("%q %s", o.kind, refusal(o.kind))
		} else {
			kind.warnf(lintSkippedDocument, "%q is not read: EndpointSlices say where a Service is", o.kind)
		}
	}
}

// addKubernetesService registers a Service under the name that it has in DNS. One
// without a port for the mesh is none of its hosts.
func (r *registry) addKubernetesService(k *kubernetes, o *object, endpointSlices []*object) {
	a := at{rep: r.rep, obj: o}.field("spec")
	spec := o.spec.(*kubeapi.ServiceSpec)
	checkKubernetesService(spec, a)
	distribution := trafficDistribution(spec.TrafficDistribution, a)
	ports := kubernetesPorts(spec.Ports, a.field("ports"))
	if len(ports) == 0 {
		return
	}
	host := fullHost(o.name, o.namespace)
	hostAt := at{rep: r.rep, obj: o}.field("metadata").field("name")
	if !checkHost(host, hostAt) {
		return
	}
	for _, other := range r.services[host] {
		if other.at.obj.namespace == o.namespace {
			hostAt.errorf("%q is already a host of %s: merging is not supported", host, other.at.obj.source())
			return
		}
	}
	if len(endpointSlices) == 0 {
		hostAt.warnf(lintNoEndpointSlice, "no EndpointSlice is of %q: it has no endpoint, and calls to it fail", host)
	}
	warnOfSessions(at{rep: r.rep, obj: o})
	endpoints := r.sliceEndpoints(k, spec, endpointSlices)
	r.services[host] = append(r.services[host], &service{
		host: host, at: a, hostAt: hostAt, exports: exports{all: true}, ports: ports, endpoints: endpoints,
		sans: serviceAccountIDs(r.opts.TrustDomain, endpoints), distribution: distribution,
	})
}
