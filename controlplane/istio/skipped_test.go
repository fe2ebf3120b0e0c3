package istio_test

import (
	"slices"
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	resource "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/google/go-cmp/cmp"

	"github.com/inboardmesh/inboard/controlplane/istio"
)

// other is a document of a kind, with what follows its metadata.
func other(apiVersion, kind, rest string) string {
	return "apiVersion: " + apiVersion + "\nkind: " + kind + "\nmetadata: {name: a, namespace: shop}\n" + rest
}

const (
	notRead = `kind: "KIND" is not read: `
	gone    = notRead + "this is a mesh without gateways"
)

// skippedKinds are documents as they stand beside those of the mesh, and what is said of
// each.
var skippedKinds = []struct{ apiVersion, kind, rest, want string }{
	{"v1", "Secret", "data: {password: aHVudGVyMg==}\n", notRead + "it is not about the mesh"},
	{"v1", "ConfigMap", "data: {mesh: none}\n", notRead + "it is not about the mesh"},
	{"v1", "Namespace", "spec: {finalizers: [kubernetes]}\n", notRead + "it exists by being named"},
	{"v1", "ServiceAccount", "", notRead + "it exists by being named"},
	{"apps/v1", "Deployment", "spec: {replicas: 2}\n", notRead + "Services, EndpointSlices and Pods say where a service runs, or a ServiceEntry of resolution STATIC"},
	{"batch/v1", "Job", "", notRead + "it is not about the mesh"},
	{"rbac.authorization.k8s.io/v1", "Role", "rules: []\n", notRead + "it is not about the mesh"},
	{"autoscaling/v2", "HorizontalPodAutoscaler", "", notRead + "it is not about the mesh"},
	{"apiextensions.k8s.io/v1", "CustomResourceDefinition", "", notRead + "it is not about the mesh"},
	{"cert-manager.io/v1", "Certificate", "", notRead + "it is not about the mesh"},
	{"serving.knative.dev/v1", "Service", "spec: {template: {}}\n", notRead + "it is not about the mesh"},
	{"networking.k8s.io/v1", "Ingress", "", gone},
	{"networking.k8s.io/v1", "NetworkPolicy", "", notRead + "the network of the cluster enforces it, and the mesh does not: it does that for an AuthorizationPolicy"},
	{"networking.istio.io/v1", "Gateway", "spec: {servers: []}\n", gone},
	{"networking.istio.io/v1", "WorkloadGroup", "", notRead + "a WorkloadEntry says where a workload is"},
	{"networking.istio.io/v1beta1", "ProxyConfig", "spec: {concurrency: 0}\n", notRead + "there are no proxies"},
	{"networking.istio.io/v1alpha3", "EnvoyFilter", "spec: {configPatches: [{applyTo: LISTENER, match: {context: GATEWAY}}]}\n", gone},
	{"telemetry.istio.io/v1", "Telemetry", "spec: {accessLogging: []}\n", notRead + "a process reports by its own OpenTelemetry"},
	{"install.istio.io/v1alpha1", "IstioOperator", "spec: {profile: default}\n", notRead + "it says how Istio is installed"},
	{"gateway.networking.k8s.io/v1", "Gateway", "", gone},
	{"gateway.networking.k8s.io/v1", "GatewayClass", "", gone},
	{"gateway.networking.k8s.io/v1", "TLSRoute", "spec: {parentRefs: [{name: ingress}]}\n", gone},
	{"gateway.networking.k8s.io/v1beta1", "ReferenceGrant", "spec: {from: [], to: []}\n", notRead + "the routes of a mesh may name Services of every namespace (GEP-1294)"},
}

func TestDocumentsThatAreNotAboutTheMeshAreSkippedAndNamed(t *testing.T) {
	t.Parallel()
	var documents, want []string
	for _, c := range skippedKinds {
		documents = append(documents, other(c.apiVersion, c.kind, c.rest))
		want = append(want, c.kind+" shop/a: "+strings.Replace(c.want, "KIND", c.kind, 1))
	}
	config := parse(t, yamlFile(shop), yamlFile(strings.Join(documents, "---\n")))
	var got []string
	for _, w := range config.Warnings() {
		if w.Code != "skipped-document" || w.Line == 0 {
			t.Errorf("another warning: %v", w)
		}
		got = append(got, w.Object+": "+w.Field+": "+w.Message)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}
}

// What is written into a Secret is nowhere in what is said of it, even if the rest of
// the file is wrong.
func TestTheContentOfASecretIsNotPrinted(t *testing.T) {
	t.Parallel()
	const secret = "hunter2"
	for _, rest := range []string{
		"stringData: {password: " + secret + "}\n", "data: " + secret + "\n", "data: [" + secret + "]\n",
		"metadata: {name: [" + secret + "], namespace: {" + secret + ": 1}}\n",
	} {
		review := istio.Read([]istio.File{{Name: "x.yaml", Data: []byte("apiVersion: v1\nkind: Secret\n" + rest)}}, istio.Options{})
		for _, p := range slices.Concat(review.Problems, review.Warnings) {
			if strings.Contains(p.String(), secret) {
				t.Errorf("%q: printed: %v", rest, p)
			}
		}
	}
}

// unenforcedProblems are documents that nothing here enforces: they are no matter of a
// warning.
var unenforcedProblems = []problemCase{
	{name: "kinds of Istio that change what proxies do", yaml: other("networking.istio.io/v1alpha3", "EnvoyFilter", "spec: {configPatches: [{match: {context: GATEWAY}}, {match: {context: SIDECAR_INBOUND}}]}\n") + "---\n" +
		other("networking.istio.io/v1alpha3", "EnvoyFilter", "") + "---\n" +
		other("extensions.istio.io/v1alpha1", "WasmPlugin", "") + "---\n" +
		other("networking.istio.io/v1", "Sidecar", "spec: {outboundTrafficPolicy: {mode: REGISTRY_ONLY}}\n") + "---\n" +
		other("networking.istio.io/v1beta1", "ProxyConfig", "spec: {environmentVariables: {A: b}}\n") + "---\n" +
		other("install.istio.io/v1alpha1", "IstioOperator", "spec: {values: {meshConfig: {trustDomain: td}}}\n"), want: []string{
		`x.yaml:2:7: EnvoyFilter shop/a: kind: "EnvoyFilter" is not supported, because it changes what Envoy does, and there is no Envoy here: say it in a VirtualService, DestinationRule or AuthorizationPolicy, and remove the document`,
		`x.yaml:7:7: EnvoyFilter shop/a: kind: "EnvoyFilter" is not supported, because it changes what Envoy does, and there is no Envoy here: say it in a VirtualService, DestinationRule or AuthorizationPolicy, and remove the document`,
		`x.yaml:11:7: WasmPlugin shop/a: kind: "WasmPlugin" is not supported, because it runs in Envoy, and there is no Envoy here: use filters of the process or envoyExtAuthz providers, and remove the document`,
		`x.yaml:15:7: Sidecar shop/a: kind: "Sidecar" is not supported, because it limits what its workloads can reach and are reached by: say with exportTo who sees a host, and remove the document`,
		`x.yaml:20:7: ProxyConfig shop/a: kind: "ProxyConfig" is not supported with environmentVariables, which change what a proxy does, and there are no proxies: remove them`,
		`x.yaml:25:7: IstioOperator shop/a: kind: "IstioOperator" is not read, and has a configuration of the mesh: write that into the ConfigMap "istio", and remove the document`,
	}},
	{name: "kinds of the Gateway API that change calls", yaml: other("gateway.networking.k8s.io/v1", "BackendTLSPolicy", "") + "---\n" +
		other("gateway.networking.k8s.io/v1", "TCPRoute", "spec: {parentRefs: [{name: g}, {group: '', kind: Service, name: payment}]}\n"), want: []string{
		`x.yaml:2:7: BackendTLSPolicy shop/a: kind: "BackendTLSPolicy" is not supported, because it asks for TLS to a Service: use tls of a DestinationRule, and remove the document`,
		`x.yaml:6:7: TCPRoute shop/a: kind: "TCPRoute" is not supported for a Service: use an HTTPRoute, a GRPCRoute or a VirtualService, and remove the document`,
	}},
	{name: "kinds that nobody knows, of groups that matter, and misspelt ones", yaml: other("security.istio.io/v1", "AuthorizationPolicys", "") + "---\n" +
		other("rbac.istio.io/v1alpha1", "ServiceRole", "") + "---\n" + other("v1", "Servce", "") + "---\n" +
		other("policy.linkerd.io/v1alpha1", "AuthorizationPolicy", ""), want: []string{
		`x.yaml:2:7: AuthorizationPolicys shop/a: kind: "AuthorizationPolicys" is not supported: did you mean "AuthorizationPolicy"?`,
		`x.yaml:6:7: ServiceRole shop/a: kind: "ServiceRole" is not supported: use one of ServiceEntry, WorkloadEntry, DestinationRule, VirtualService, PeerAuthentication, RequestAuthentication, AuthorizationPolicy, HTTPRoute, GRPCRoute, Service, EndpointSlice, Pod, Node, or the ConfigMap istio`,
		`x.yaml:10:7: Servce shop/a: kind: "Servce" is not supported: did you mean "Service"?`,
		`x.yaml:13:13: AuthorizationPolicy shop/a: apiVersion: "policy.linkerd.io/v1alpha1" is not an API version of AuthorizationPolicy: use security.istio.io/v1, security.istio.io/v1beta1`,
	}},
	{name: "Endpoints of a Service without slices", yaml: kubernetesService("[{name: http, port: 80}]") + "---\napiVersion: v1\nkind: Endpoints\nmetadata: {name: cart, namespace: shop}\nsubsets: []\n", want: []string{
		`x.yaml:7:7: Endpoints shop/cart: kind: "Endpoints" is not read: export the EndpointSlices, which say more`,
	}},
	{name: "routes of TLS for the mesh", yaml: `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a, namespace: shop}
spec:
  hosts: [payment]
  gateways: [mesh, ingress]
  tls:
  - match: [{gateways: [ingress], sniHosts: [a.example]}]
    route: [{destination: {host: payment}}]
  - match: [{sniHosts: [a.example]}]
    route: [{destination: {host: payment}}]
`, want: []string{
		`x.yaml:7:3: VirtualService shop/a: spec.tls: is not supported: remove it, or use http: it routes what callers have encrypted themselves, and a caller in the process does not`,
	}},
}

// forGatewaysToo is a VirtualService of a gateway and of the mesh.
const forGatewaysToo = `apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a, namespace: shop}
spec:
  hosts: [payment.shop.svc.cluster.local, shop.example]
  gateways: [ingress, mesh]
  tls:
  - match: [{gateways: [ingress], sniHosts: [shop.example]}]
    route: [{destination: {host: outside.example}}]
  http:
  - name: gateway
    match: [{gateways: [ingress], uri: {prefix: /edge}}, {gateways: [other/ingress]}]
    route: [{destination: {host: outside.example}}]
  - name: leaf
    match: [{gateways: [ingress, mesh], uri: {prefix: /leaf}}]
    delegate: {name: leaf}
  - name: both
    match: [{gateways: [ingress], uri: {prefix: /edge}}, {gateways: [mesh], uri: {prefix: /mesh}}, {uri: {prefix: /both}}]
    route: [{destination: {host: payment}}]
  - name: rest
    route: [{destination: {host: payment}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: leaf, namespace: shop}
spec:
  http:
  - {name: out, match: [{gateways: [elsewhere, mesh], uri: {prefix: /leaf/o}}], route: [{destination: {host: payment}}]}
  - {name: edge, match: [{gateways: [ingress], uri: {prefix: /leaf/e}}], route: [{destination: {host: payment}}]}
  - {name: in, match: [{uri: {prefix: /leaf/i}}], route: [{destination: {host: payment}}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: shop, namespace: shop}
spec: {hosts: [shop.example], resolution: STATIC, ports: [{name: http, number: 8080, protocol: HTTP}]}
`

// What is for gateways is left out for the callers of the mesh, as in Istio.
func TestAVirtualServiceOfGatewaysAndOfTheMesh(t *testing.T) {
	t.Parallel()
	config := parse(t, yamlFile(shop), yamlFile(forGatewaysToo))
	if got, want := ruleNames(t, config, caller, paymentRoutes), "leaf-in both both rest"; got != want {
		t.Errorf("routes %q, want %q", got, want)
	}
	want := []string{
		"spec.http[0].match[0]: has no effect: it is not within the match of spec.http[1] of VirtualService shop/a (x.yaml:14), which delegates to it",
	}
	var got []string
	for _, w := range config.Warnings() {
		got = append(got, w.Field+": "+w.Message)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}
}

// A rule of which nothing is left is none for every request.
func TestAVirtualServiceWhoseRulesAreForGatewaysLeavesTheService(t *testing.T) {
	t.Parallel()
	config := parse(t, yamlFile(shop), yamlFile(document("VirtualService", "shop", "a", `
  hosts: [payment]
  gateways: [ingress, mesh]
  http: [{name: edge, match: [{gateways: [ingress]}], fault: {abort: {httpStatus: 503, percentage: {value: 100}}}, route: [{destination: {host: payment}}]}]
`)))
	if got := ruleNames(t, config, caller, paymentRoutes); got != "default" {
		t.Errorf("routes %q, want those of the service alone", got)
	}
}

// forGatewaysOnly has a host and destinations that no document has, and fields that are
// not translated.
const forGatewaysOnly = `apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a, namespace: shop, annotations: {networking.istio.io/some: thing}}
spec:
  hosts: ["*"]
  gateways: [ingress]
  tcp: [{route: [{destination: {host: nowhere}}]}]
  http: [{match: [{headers: {"@request.auth.claims.group": {exact: a}}}], route: [{destination: {host: payment, subset: v9}}]}, {delegate: {name: leaf}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: leaf, namespace: shop}
spec: {http: [{route: [{destination: {host: payment}}]}]}
`

func TestRoutesForGatewaysAloneAreNotLookedAt(t *testing.T) {
	t.Parallel()
	config := parse(t, yamlFile(shop), yamlFile(forGatewaysOnly+"---\n"+strings.NewReplacer(
		`{kind: Service, group: "", name: payment, port: 8080}`, `{name: ingress}`, "[{name: payment, port: 8080}]\n",
		"[{name: nowhere}]\n    sessionPersistence: {}\n    filters: [{type: ExtensionRef, extensionRef: {group: a, kind: B, name: c}}]\n",
	).Replace(gatewayHTTPRoute)))
	want := []string{
		`VirtualService shop/a: spec.gateways: has no effect: this is a mesh without gateways, and "mesh" is not among them [foreign-gateway]`,
		`HTTPRoute shop/web: spec.parentRefs[0]: is not accepted: this is a mesh, and Gateway shop/ingress is a gateway: calls of the mesh do not pass it [foreign-parent]`,
	}
	var got []string
	for _, w := range config.Warnings() {
		got = append(got, w.Object+": "+w.Field+": "+w.Message+" ["+w.Code+"]")
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}
	if got := ruleNames(t, config, caller, paymentRoutes); got != "default" {
		t.Errorf("routes %q, want those of the service alone", got)
	}
	if got := config.Routes(); len(got) != 1 || got[0].Conditions[0].Reason != "NoMatchingParent" {
		t.Errorf("status %v", got)
	}
}

// A host may be in the mesh on some ports only.
func TestAPortWhoseCallersEncryptIsNotInTheMesh(t *testing.T) {
	t.Parallel()
	config := parse(t, yamlFile(document("ServiceEntry", "shop", "api", `
  hosts: [api.example.com]
  location: MESH_EXTERNAL
  resolution: DNS
  ports: [{name: https, number: 443, protocol: HTTPS}, {name: http, number: 80, protocol: HTTP, targetPort: 443}]
  endpoints: [{address: eu.example.com, ports: {https: 8443}}]
`)))
	if got, want := config.Names(caller, resource.ListenerType), []string{"api.example.com:80"}; !slices.Equal(got, want) {
		t.Errorf("listeners %q, want %q", got, want)
	}
	if _, ok := config.Resource(caller, resource.ClusterType, "outbound|443||api.example.com"); ok {
		t.Error("there is a cluster for what the mesh cannot carry")
	}
}

// A DestinationRule can do for callers what they do not do themselves: so Istio's own
// example of a call of Google has it.
func TestCallsCanBeEncryptedForAPortThatIsNotInTheMesh(t *testing.T) {
	t.Parallel()
	entry := document("ServiceEntry", "shop", "api", `
  hosts: [api.example.com]
  location: MESH_EXTERNAL
  resolution: DNS
  ports: [{name: https, number: 443, protocol: HTTPS}, {name: http, number: 80, protocol: HTTP}]
`) + document("VirtualService", "shop", "api", `
  hosts: [api.example.com]
  http: [{match: [{port: 80}], route: [{destination: {host: api.example.com, port: {number: 443}}}]}]
`)
	config := parse(t, yamlFile(entry+document("DestinationRule", "shop", "api", `
  host: api.example.com
  trafficPolicy: {portLevelSettings: [{port: {number: 443}, tls: {mode: SIMPLE, subjectAltNames: [api.example.com]}}]}
`)))
	m, ok := config.Resource(caller, resource.ClusterType, "outbound|443||api.example.com")
	if !ok {
		t.Fatal("no cluster for the port")
	}
	if c := m.(*clusterv3.Cluster); c.TransportSocket.GetName() != "envoy.transport_sockets.tls" {
		t.Errorf("it is not encrypted: %v", c)
	}
	if got, want := routesOf(t, config, caller, "outbound|80||api.example.com"), []string{"shop/api/0 > outbound|443||api.example.com"}; !slices.Equal(got, want) {
		t.Errorf("routes %q, want %q", got, want)
	}
	_, problems := istio.Parse([]istio.File{yamlFile(entry)}, istio.Options{})
	const want = `spec.http[0].route[0].destination.port.number: the callers of port 443 of "api.example.com" encrypt by themselves: let a DestinationRule do so, with tls of the mode SIMPLE for the port`
	if len(problems) != 1 || !strings.HasSuffix(problems[0].String(), want) {
		t.Errorf("problems %v, want one: %s", problems, want)
	}
}
