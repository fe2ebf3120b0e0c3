package istio

import (
	"cmp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// The other groups whose kinds are known one by one: of them a kind that nobody knows may
// be about what this control plane has to enforce, or be misspelt.
const (
	experimentalGroup = "gateway.networking.x-k8s.io"
	istioDomain       = "istio.io"
)

// notForMesh are the kinds of these groups that are none of the mesh's business, and why
// they are not read. Those of any other group are none of it either.
var notForMesh = map[string]string{
	"Binding": "", "ComponentStatus": "", "Event": "", "LimitRange": "", "PersistentVolume": "", "PersistentVolumeClaim": "",
	"PodTemplate": "", "ResourceQuota": "", "Secret": "", "ConfigMap": "",
	"ReplicationController": workloadsElsewhere, "Namespace": existByName, "ServiceAccount": existByName,

	"Gateway.networking.istio.io": noGateways, "WorkloadGroup.networking.istio.io": "a WorkloadEntry says where a workload is",
	"ProxyConfig.networking.istio.io": noProxies, "Telemetry.telemetry.istio.io": "a process reports by its own OpenTelemetry",
	"IstioOperator.install.istio.io": noInstallation,

	"Gateway.gateway.networking.k8s.io": noGateways, "GatewayClass.gateway.networking.k8s.io": noGateways,
	"ListenerSet.gateway.networking.k8s.io": noGateways, "XListenerSet.gateway.networking.x-k8s.io": noGateways,
	"ReferenceGrant.gateway.networking.k8s.io": "the routes of a mesh may name Services of every namespace (GEP-1294)",
	"TCPRoute.gateway.networking.k8s.io":       noGateways, "TLSRoute.gateway.networking.k8s.io": noGateways,
	"UDPRoute.gateway.networking.k8s.io": noGateways,
}

// whyNot says of some kinds of other groups why they are not read.
var whyNot = map[string]string{
	"Deployment.apps": workloadsElsewhere, "ReplicaSet.apps": workloadsElsewhere,
	"StatefulSet.apps": workloadsElsewhere, "DaemonSet.apps": workloadsElsewhere,
	"NetworkPolicy.networking.k8s.io": "the network of the cluster enforces it, and the mesh does not: it does that for an AuthorizationPolicy",
	"Ingress.networking.k8s.io":       noGateways,
	"Istio.sailoperator.io":           noInstallation, "IstioRevision.sailoperator.io": noInstallation,
}

const (
	workloadsElsewhere = "Services, EndpointSlices and Pods say where a service runs, or a ServiceEntry of resolution STATIC"
	existByName        = "it exists by being named"
	noGateways         = "this is a mesh without gateways"
	noProxies          = "there are no proxies"
	noInstallation     = "it says how Istio is installed"
)

// unenforced are the kinds that change what is allowed or what becomes of calls, and that
// nothing here enforces: to skip them would be to pretend.
var unenforced = map[string]string{
	"EnvoyFilter.networking.istio.io": "is not supported, because it changes what Envoy does, and there is no Envoy here: say it in a VirtualService, DestinationRule or AuthorizationPolicy, and remove the document",
	"WasmPlugin.extensions.istio.io":  "is not supported, because it runs in Envoy, and there is no Envoy here: use filters of the process or envoyExtAuthz providers, and remove the document",
	"Sidecar.networking.istio.io":     "is not supported, because it limits what its workloads can reach and are reached by: say with exportTo who sees a host, and remove the document",

	"BackendTLSPolicy.gateway.networking.k8s.io":        "is not supported, because it asks for TLS to a Service: use tls of a DestinationRule, and remove the document",
	"XBackendTrafficPolicy.gateway.networking.x-k8s.io": "is not supported, because it limits the retries of a Service: use retryBudget of a DestinationRule, and remove the document",
}

// groupOf is the API group of an apiVersion, "" for the core of Kubernetes.
func groupOf(apiVersion string) string {
	group, _, ok := strings.Cut(apiVersion, "/")
	if !ok {
		return coreGroup
	}
	return group
}

// kindIn names a kind together with its group.
func kindIn(group, kind string) string {
	if group == coreGroup {
		return kind
	}
	return kind + "." + group
}

// isForeign reports whether a document of a kind that is translated is none of the
// mesh's nevertheless.
func (o *object) isForeign(fields fieldList, apiVersion string) bool {
	switch o.kind {
	case kindConfigMap:
		// A revision of Istio has its configuration under a name of its own, which is refused.
		ofRevision := strings.HasPrefix(o.name, meshConfigMap+"-") && child(valueOf(fields, "data"), meshConfigEntry) != nil
		return apiVersion == "v1" && o.name != meshConfigMap && !ofRevision
	case kindService:
		return groupOf(apiVersion) == "serving.knative.dev"
	}
	return false
}

// otherDocument says what becomes of a document that is not translated. It is skipped,
// with a warning, where it is about something else, and refused where somebody relies
// on what it says of the mesh. Nothing of it is kept, and no value of it printed: it may be
// a Secret.
func (d *decoder) otherDocument(fields fieldList, whole at, apiVersion string) {
	group, kind := groupOf(apiVersion), whole.field("kind")
	name := kindIn(group, d.obj.kind)
	why, listed := notForMesh[name]
	strict := group == coreGroup || group == gatewayGroup || group == experimentalGroup ||
		group == istioDomain || strings.HasSuffix(group, "."+istioDomain)
	reason, refused := unenforced[name]
	spec := valueOf(fields, "spec")
	switch {
	case apiVersion == "" || strict && !listed && !refused:
		kind.errorf("%q %s", d.obj.kind, refusal(d.obj.kind))
		return
	case d.obj.kind == "EnvoyFilter" && refused:
		refused = !eachIs(child(spec, "configPatches"), func(patch *yaml.Node) bool { return textOf(child(patch, "match", "context")) == "GATEWAY" })
		why = noGateways
	case d.obj.kind == "ProxyConfig" && listed && child(spec, "environmentVariables") != nil:
		refused, reason = true, "is not supported with environmentVariables, which change what a proxy does, and there are no proxies: remove them"
	case strings.HasSuffix(name, "Route."+gatewayGroup) && !onlyGateways(spec):
		refused, reason = true, "is not supported for a Service: use an HTTPRoute, a GRPCRoute or a VirtualService, and remove the document"
	case why == noInstallation || whyNot[name] == noInstallation:
		if child(spec, "meshConfig") != nil || child(spec, "values", "meshConfig") != nil {
			refused, reason = true, `is not read, and has a configuration of the mesh: write that into the ConfigMap "istio", and remove the document`
		}
	}
	if refused {
		kind.errorf("%q %s", d.obj.kind, reason)
		return
	}
	kind.warnf(lintSkippedDocument, "%q is not read: %s", d.obj.kind, cmp.Or(why, whyNot[name], "it is not about the mesh"))
}

// readTitle takes the name and the namespace of a document that is not read.
func (d *decoder) readTitle(fields fieldList) {
	metadata := valueOf(fields, "metadata")
	d.obj.name, d.obj.namespace = textOf(child(metadata, "name")), textOf(child(metadata, "namespace"))
}

// onlyForGateways reports whether routes are for gateways alone: nothing in them is for the
// callers of the mesh.
func onlyForGateways(kind string, spec *yaml.Node) bool {
	switch kind {
	case kindVirtualService:
		return eachIs(child(spec, "gateways"), func(n *yaml.Node) bool { return textOf(n) != meshGateway })
	case kindHTTPRoute, kindGRPCRoute:
		return onlyGateways(spec)
	}
	return false
}

// onlyGateways reports whether every parent of a route of the Gateway API is a gateway.
func onlyGateways(spec *yaml.Node) bool {
	return eachIs(child(spec, "parentRefs"), func(parent *yaml.Node) bool {
		kind, group := child(parent, "kind"), child(parent, "group")
		return (kind == nil || slices.Contains(gatewayParents, textOf(kind))) &&
			(group == nil || textOf(group) == gatewayGroup || textOf(group) == experimentalGroup)
	})
}

// gatewayParents are the kinds of parents that are gateways, or parts of them.
var gatewayParents = []string{"Gateway", "ListenerSet", "XListenerSet"}

// withoutGatewayRoutes are the fields of a VirtualService but for its routes of TCP and
// TLS, if all of them are for gateways.
func withoutGatewayRoutes(spec *yaml.Node) *yaml.Node {
	if spec.Kind != yaml.MappingNode {
		return spec
	}
	kept := *spec
	kept.Content = nil
	for i := 0; i+1 < len(spec.Content); i += 2 {
		key, value := spec.Content[i], spec.Content[i+1]
		if (key.Value == "tcp" || key.Value == "tls") && eachIs(value, forGateways) {
			continue
		}
		kept.Content = append(kept.Content, key, value)
	}
	return &kept
}

// forGateways reports whether every match of a route is for gateways.
func forGateways(route *yaml.Node) bool {
	return eachIs(child(route, "match"), func(match *yaml.Node) bool {
		return eachIs(child(match, "gateways"), func(n *yaml.Node) bool { return textOf(n) != meshGateway })
	})
}

// valueOf is the value of an entry, nil without it.
func valueOf(fields fieldList, name string) *yaml.Node {
	f, _ := fields.get(name)
	return f.value
}

// child is the value at a path of entries, nil if there is none.
func child(n *yaml.Node, path ...string) *yaml.Node {
	for _, name := range path {
		if n == nil || n.Kind != yaml.MappingNode {
			return nil
		}
		var found *yaml.Node
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == name {
				found = n.Content[i+1]
				break
			}
		}
		n = found
	}
	return n
}

// textOf is the text of a node, "" for anything else.
func textOf(n *yaml.Node) string {
	if n == nil || n.Kind != yaml.ScalarNode || n.ShortTag() != "!!str" {
		return ""
	}
	return n.Value
}

// eachIs reports whether a node is a list with elements, of which each is as wanted.
func eachIs(n *yaml.Node, wanted func(*yaml.Node) bool) bool {
	return n != nil && n.Kind == yaml.SequenceNode && len(n.Content) > 0 &&
		!slices.ContainsFunc(n.Content, func(one *yaml.Node) bool { return !wanted(one) })
}
