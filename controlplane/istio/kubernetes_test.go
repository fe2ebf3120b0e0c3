package istio_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	resource "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/google/go-cmp/cmp"

	"github.com/inboardmesh/inboard/controlplane/istio"
)

// exported is what kubectl get svc,endpointslices,pods,nodes -o yaml prints, with
// what it prints of them and nobody reads.
const exported = `apiVersion: v1
kind: List
metadata: {resourceVersion: ""}
items:
- apiVersion: v1
  kind: Service
  metadata:
    name: cart
    namespace: shop
    creationTimestamp: "2026-01-31T12:00:00Z"
    resourceVersion: "4711"
    uid: 0e1d
    labels: {app: cart}
    annotations: {kubectl.kubernetes.io/last-applied-configuration: "{}"}
  spec:
    clusterIP: 10.96.0.17
    clusterIPs: [10.96.0.17]
    internalTrafficPolicy: Cluster
    ipFamilies: [IPv4]
    ipFamilyPolicy: SingleStack
    ports:
    - {name: http, nodePort: 30080, port: 80, protocol: TCP, targetPort: web}
    - {name: rpc, appProtocol: grpc, port: 9090, protocol: TCP, targetPort: 9090}
    - {name: metrics, port: 9100, protocol: TCP, targetPort: 9100}
    - {name: http-udp, port: 53, protocol: UDP}
    selector: {app: cart}
    sessionAffinity: None
    type: NodePort
  status: {loadBalancer: {}}
- apiVersion: discovery.k8s.io/v1
  kind: EndpointSlice
  metadata:
    generateName: cart-
    name: cart-b
    namespace: shop
    labels: {kubernetes.io/service-name: cart, endpointslice.kubernetes.io/managed-by: endpointslice-controller.k8s.io}
  addressType: IPv4
  endpoints:
  - {addresses: [10.1.0.4], conditions: {ready: false, serving: true, terminating: true}, nodeName: n2, zone: z2, targetRef: {kind: Pod, name: cart-4, namespace: shop}}
  - {addresses: [10.1.0.5], conditions: {ready: false, serving: false, terminating: false}, targetRef: {kind: Pod, name: cart-5, namespace: shop}}
  - {addresses: [10.1.0.6], conditions: {ready: false, serving: false, terminating: true}}
  - {addresses: [10.1.0.1], conditions: {ready: false, serving: true, terminating: true}, nodeName: n1, zone: z1, targetRef: {kind: Pod, name: cart-1, namespace: shop}}
  ports: [{name: http, port: 8081, protocol: TCP}]
- apiVersion: discovery.k8s.io/v1
  kind: EndpointSlice
  metadata: {name: cart-a, namespace: shop, labels: {kubernetes.io/service-name: cart}}
  addressType: IPv4
  endpoints:
  - addresses: [10.1.0.1]
    conditions: {ready: true, serving: true, terminating: false}
    hints: {forZones: [{name: z1}], forNodes: [{name: n1}]}
    hostname: cart-1
    nodeName: n1
    zone: z1
    targetRef: {kind: Pod, name: cart-1, namespace: shop, uid: 8a2b}
  - {addresses: [10.1.0.2], conditions: {}, targetRef: {kind: Pod, name: cart-2}}
  ports:
  - {name: http, port: 8080, protocol: TCP}
  - {name: rpc, port: 9090, protocol: TCP, appProtocol: grpc}
- apiVersion: discovery.k8s.io/v1
  kind: EndpointSlice
  metadata: {name: cart-six, namespace: shop, labels: {kubernetes.io/service-name: cart}}
  addressType: IPv6
  endpoints: [{addresses: ["fd00::1"], conditions: {ready: true}, targetRef: {kind: Pod, name: cart-1}}]
  ports: [{name: http, port: 8080, protocol: TCP}]
- apiVersion: v1
  kind: Service
  metadata: {name: database, namespace: shop}
  spec: {clusterIP: None, ports: [{port: 5432}]}
- apiVersion: v1
  kind: Service
  metadata: {name: lone, namespace: shop}
  spec: {clusterIP: None, ports: [{port: 80, appProtocol: kubernetes.io/h2c}]}
- apiVersion: discovery.k8s.io/v1
  kind: EndpointSlice
  metadata: {name: lone-a, namespace: shop, labels: {kubernetes.io/service-name: lone}}
  addressType: IPv4
  endpoints: null
  ports: null
- {apiVersion: v1, kind: Pod, metadata: {name: cart-1, namespace: shop, generateName: cart-, labels: {app: cart, version: v1}, annotations: {sidecar.istio.io/inject: "false"}}, spec: {serviceAccountName: cart, nodeName: n1, containers: [{name: cart, image: cart}]}, status: {podIP: 10.1.0.1}}
- {apiVersion: v1, kind: Pod, metadata: {name: cart-2, namespace: shop, labels: {app: cart, version: v2, istio-locality: eu.z9, topology.istio.io/network: net2}}, spec: {}}
- {apiVersion: v1, kind: Pod, metadata: {name: cart-4, namespace: shop, labels: {app: cart, version: v1}}, spec: {serviceAccountName: cart}}
- {apiVersion: v1, kind: Node, metadata: {name: n1, labels: {topology.kubernetes.io/region: eu, topology.kubernetes.io/zone: z1, topology.istio.io/subzone: rack7}}, spec: {podCIDR: 10.1.0.0/24}}
`

const cartHost = "cart.shop.svc.cluster.local"

// endpointsOf are the endpoints of a cluster, each a line.
func endpointsOf(t *testing.T, config *istio.Config, name string) []string {
	t.Helper()
	m := resourceOf[*endpointv3.ClusterLoadAssignment](t, config, resource.EndpointType, name)
	lines := []string{}
	for _, l := range m.Endpoints {
		for _, e := range l.LbEndpoints {
			address := e.GetEndpoint().GetAddress().GetSocketAddress()
			lines = append(lines, fmt.Sprintf("%s:%d %s x%d in %s/%s/%s", address.GetAddress(), address.GetPortValue(), e.HealthStatus,
				e.GetLoadBalancingWeight().GetValue(), l.GetLocality().GetRegion(), l.GetLocality().GetZone(), l.GetLocality().GetSubZone()))
		}
	}
	slices.Sort(lines)
	return lines
}

func TestAnExportOfKubernetesBecomesHosts(t *testing.T) {
	t.Parallel()
	rule := document("DestinationRule", "shop", "cart", `
  host: cart
  subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]
`)
	config := parse(t, istio.File{Name: "export.yaml", Data: []byte(exported)}, istio.File{Name: "rule.yaml", Data: []byte(rule)})
	checkResources(t, config)

	one := "10.1.0.1:8080 HEALTHY x1 in eu/z1/rack7"
	two := "10.1.0.2:8080 HEALTHY x1 in eu/z9/"
	four := "10.1.0.4:8081 DRAINING x1 in /z2/"
	for name, want := range map[string][]string{
		"outbound|80||" + cartHost:                 {one, two, four},
		"outbound|80|v1|" + cartHost:               {one, four},
		"outbound|80|v2|" + cartHost:               {two},
		"outbound|9090||" + cartHost:               {"10.1.0.1:9090 HEALTHY x1 in eu/z1/rack7", "10.1.0.2:9090 HEALTHY x1 in eu/z9/"},
		"outbound|80||lone.shop.svc.cluster.local": {},
	} {
		if diff := cmp.Diff(want, endpointsOf(t, config, name)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	node := istio.Node{Namespace: "shop"}
	wantHosts := []string{cartHost + ":80", cartHost + ":9090", "lone.shop.svc.cluster.local:80"}
	if got := config.Names(node, resource.ListenerType); !slices.Equal(got, wantHosts) {
		t.Errorf("listeners %q, want %q", got, wantHosts)
	}
	cluster := resourceOf[*clusterv3.Cluster](t, config, resource.ClusterType, "outbound|9090||"+cartHost)
	options := contextOf(t, cluster.TypedExtensionProtocolOptions["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"], new(httpv3.HttpProtocolOptions))
	if options.GetExplicitHttpConfig().GetHttp2ProtocolOptions() == nil {
		t.Errorf("the port of gRPC speaks %v", options)
	}
	secure := contextOf(t, cluster.GetTransportSocket().GetTypedConfig(), new(tlsv3.UpstreamTlsContext)).String()
	for _, id := range []string{"spiffe://cluster.local/ns/shop/sa/cart", "spiffe://cluster.local/ns/shop/sa/default"} {
		if !strings.Contains(secure, `"`+id+`"`) {
			t.Errorf("%s is not expected: %s", id, secure)
		}
	}
	wantWarnings := []string{
		`export.yaml:24:7: warning: Service shop/cart: spec.ports[2]: port 9100 is not in the mesh: nothing says that it speaks HTTP, HTTP/2, gRPC or TCP`,
		`export.yaml:25:7: warning: Service shop/cart: spec.ports[3]: port 53 is not in the mesh: nothing says that it speaks HTTP, HTTP/2, gRPC or TCP`,
		`export.yaml:39:5: warning: EndpointSlice shop/cart-b: endpoints[0]: no document has the Node "n2" of 10.1.0.4: its region is not known`,
		`export.yaml:69:35: warning: Service shop/database: spec.ports[0]: port 5432 is not in the mesh: nothing says that it speaks HTTP, HTTP/2, gRPC or TCP`,
	}
	if diff := cmp.Diff(wantWarnings, warningsOf(config)); diff != "" {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}
}

// Without the Pods nobody knows labels and service accounts; that is said, and a
// server that does not say who it is is held to every policy that can be meant.
func TestEndpointSlicesWithoutPods(t *testing.T) {
	t.Parallel()
	const documents = `
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec: {ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: cart-a, namespace: shop, labels: {kubernetes.io/service-name: cart}}
addressType: IPv4
endpoints: [{addresses: [10.1.0.1], zone: z1}]
ports: [{name: http, port: 8080}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: cart, namespace: shop}
spec: {host: cart, subsets: [{name: v1, labels: {version: v1}}]}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: cart, namespace: shop}
spec: {selector: {matchLabels: {app: cart}}, mtls: {mode: STRICT}}
`
	config := parse(t, istio.File{Name: "x.yaml", Data: []byte(documents)})
	var codes []string
	for _, w := range config.Warnings() {
		codes = append(codes, w.Code)
	}
	for _, code := range []string{"unknown-pod", "empty-subset"} {
		if !slices.Contains(codes, code) {
			t.Errorf("no warning %s: %v", code, warningsOf(config))
		}
	}
	if got, want := endpointsOf(t, config, "outbound|80||"+cartHost), []string{"10.1.0.1:8080 HEALTHY x1 in /z1/"}; !slices.Equal(got, want) {
		t.Errorf("endpoints %q, want %q", got, want)
	}
	m, ok := config.Resource(istio.Node{Namespace: "shop"}, resource.ListenerType, inbound+"10.1.0.1:8080")
	if !ok || !strings.Contains(fmt.Sprint(m), "require_client_certificate") {
		t.Errorf("a server whose pod is not known does not ask for certificates: %v", m)
	}
}

var kubernetesProblems = []problemCase{
	{name: "a Service that is not translated", yaml: `
apiVersion: v1
kind: Service
metadata: {name: a, namespace: shop}
spec: {type: ExternalName, externalName: example.com, sessionAffinity: ClientIP, internalTrafficPolicy: Local, trafficDistribution: PreferFar, portz: []}
---
apiVersion: v1
kind: Service
metadata: {name: b, namespace: shop}
spec: {type: Other, ports: [{name: http, port: 0}, {name: http, port: 80}, {name: http, port: 80, targetPort: 1.5}, {name: H, port: 70000}]}
---
apiVersion: v1
kind: Service
metadata: {name: payment, namespace: shop}
spec: {ports: [{name: http, port: 80}]}
---
apiVersion: v1beta1
kind: Service
metadata: {name: c, namespace: shop}
`, want: []string{
		"x.yaml:4:72: Service shop/a: spec.sessionAffinity: \"ClientIP\" is not supported: use consistentHash of a DestinationRule, and None here",
		"x.yaml:4:105: Service shop/a: spec.internalTrafficPolicy: \"Local\" is not supported: use Cluster",
		"x.yaml:4:112: Service shop/a: spec.trafficDistribution: has no effect with type ExternalName: remove it",
		`x.yaml:4:144: Service shop/a: spec.portz: unknown field: did you mean "ports"?`,
		`x.yaml:9:14: Service shop/b: spec.type: "Other" is not one of ClusterIP, NodePort, LoadBalancer, ExternalName`,
		"x.yaml:9:48: Service shop/b: spec.ports[0].port: 0 is not a port: use 1..65535",
		`x.yaml:9:59: Service shop/b: spec.ports[1].name: "http" is the name of two ports`,
		`x.yaml:9:83: Service shop/b: spec.ports[2].name: "http" is the name of two ports`,
		"x.yaml:9:111: Service shop/b: spec.ports[2].targetPort: expected text, found the number 1.5: put it in quotes",
		"x.yaml:9:133: Service shop/b: spec.ports[3].port: 70000 is not a port: use 1..65535",
		`x.yaml:13:18: Service shop/payment: metadata.name: "payment.shop.svc.cluster.local" is already a host of ServiceEntry shop/payment (shop.yaml:1): merging is not supported`,
		`x.yaml:16:13: Service shop/c: apiVersion: "v1beta1" is not an API version of Service: use v1`,
	}},
	{name: "slices that cannot be used", yaml: `
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: a, namespace: shop}
addressType: IPv4
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: b, namespace: shop, labels: {kubernetes.io/service-name: nobody}}
addressType: IPv4
endpointz: []
---
apiVersion: v1
kind: Service
metadata: {name: c, namespace: shop}
spec: {ports: [{name: http, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: c, namespace: shop, labels: {kubernetes.io/service-name: c}}
addressType: IPv4
endpoints:
- {addresses: [10.0.0.1, 10.0.0.2]}
- {addresses: [one.example.com]}
- {addresses: [10.0.0.3], conditions: {ready: maybe}, ready: true}
ports: [{name: http}, {name: a, port: 0}, {name: a, port: 1}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: d, namespace: shop, labels: {kubernetes.io/service-name: c}}
addressType: FQDN
---
kind: Endpoints
`, want: []string{
		"x.yaml:3:1: EndpointSlice shop/a: metadata.labels[kubernetes.io/service-name]: is required: the name of the Service that the endpoints are of",
		"x.yaml:8:75: EndpointSlice shop/b: metadata.labels[kubernetes.io/service-name]: there is no Service shop/nobody: export it too",
		`x.yaml:10:1: EndpointSlice shop/b: endpointz: unknown field: did you mean "endpoints"?`,
		"x.yaml:22:15: EndpointSlice shop/c: endpoints[0].addresses: there are 2 addresses: one is possible",
		`x.yaml:23:16: EndpointSlice shop/c: endpoints[1].addresses[0]: "one.example.com" is not an IP address`,
		"x.yaml:24:47: EndpointSlice shop/c: endpoints[2].conditions.ready: expected true or false, found text",
		"x.yaml:24:55: EndpointSlice shop/c: endpoints[2].ready: unknown field",
		"x.yaml:25:9: EndpointSlice shop/c: ports[0].port: is required: endpoints that serve all ports are not supported",
		"x.yaml:25:39: EndpointSlice shop/c: ports[1].port: 0 is not a port: use 1..65535",
		"x.yaml:30:14: EndpointSlice shop/d: addressType: FQDN is not supported: use a ServiceEntry",
		`x.yaml:32:7: Endpoints: kind: "Endpoints" is not read: export the EndpointSlices, which say more`,
	}},
}

func TestKubernetesProblems(t *testing.T) {
	t.Parallel()
	for _, c := range kubernetesProblems {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			checkProblems(t, c)
		})
	}
}
