package istio_test

import (
	"slices"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	resource "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/inboardmesh/inboard/controlplane/istio"
)

// A name that leads into the mesh is a further name of the host: its listeners have
// the host's routes, under the names that each namespace knows it by.
func TestAnExternalNameOfAHostOfTheMesh(t *testing.T) {
	t.Parallel()
	config := parse(t, istio.File{Name: "x.yaml", Data: []byte(shop + `---
apiVersion: v1
kind: Service
metadata: {name: pay, namespace: web}
spec: {type: ExternalName, externalName: payment.shop.svc.cluster.local., ports: [{name: http, port: 1}]}
---
apiVersion: v1
kind: Service
metadata: {name: pay2, namespace: web}
spec: {type: ExternalName, externalName: pay.web.svc.cluster.local}
`)})
	const route = "outbound|8080||payment.shop.svc.cluster.local"
	for namespace, want := range map[string]struct{ known, unknown []string }{
		"web":  {[]string{"pay.web.svc.cluster.local:8080", "pay2:8080", "pay.web", "payment.shop"}, []string{"payment"}},
		"shop": {[]string{"pay2.web.svc.cluster.local:8080", "pay.web:8080", "payment"}, []string{"pay"}},
		"":     {[]string{"pay.web.svc.cluster.local", "payment.shop.svc.cluster.local:8080"}, []string{"pay", "payment"}},
	} {
		node := istio.Node{Namespace: namespace}
		m, ok := config.Resource(node, resource.RouteType, route)
		if !ok {
			t.Fatalf("%q has no routes", namespace)
		}
		domains := m.(*routev3.RouteConfiguration).VirtualHosts[0].Domains
		for _, name := range want.known {
			if !slices.Contains(domains, name) {
				t.Errorf("%q does not know %q: %q", namespace, name, domains)
			}
		}
		for _, name := range want.unknown {
			if slices.Contains(domains, name) {
				t.Errorf("%q knows %q: %q", namespace, name, domains)
			}
		}
		listeners := config.Names(node, resource.ListenerType)
		for _, name := range []string{"pay.web.svc.cluster.local:8080", "pay2.web.svc.cluster.local:9090"} {
			if _, ok := config.Resource(node, resource.ListenerType, name); !ok || !slices.Contains(listeners, name) {
				t.Errorf("%q: no listener %q, or it is not listed", namespace, name)
			}
		}
		if _, ok := config.Resource(node, resource.ListenerType, "pay.web.svc.cluster.local:1"); ok {
			t.Error("the ports are those of the name, want those of the host")
		}
	}
	if _, ok := config.Resource(istio.Node{Namespace: "web"}, resource.ListenerType, "pay2:8080"); !ok {
		t.Error("the namespace of the name does not know it by its first label")
	}
}

// A name that leads out is the outside host on the ports of the Service.
func TestAnExternalNameOfAHostOutside(t *testing.T) {
	t.Parallel()
	const host = "api.shop.svc.cluster.local"
	cluster := func(documents string) *clusterv3.Cluster {
		config := parse(t, istio.File{Name: "x.yaml", Data: []byte(documents + `---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: api, namespace: shop}
spec: {host: api, trafficPolicy: {tls: {mode: SIMPLE, sni: api.example.com, subjectAltNames: [api.example.com], credentialName: outside}, connectionPool: {http: {http2MaxRequests: 7}}}}
`)})
		if got := config.Names(istio.Node{}, resource.ListenerType); !slices.Equal(got, []string{host + ":443"}) {
			t.Errorf("listeners %q", got)
		}
		return resourceOf[*clusterv3.Cluster](t, config, resource.ClusterType, "outbound|443||"+host)
	}
	named := cluster(`
apiVersion: v1
kind: Service
metadata: {name: api, namespace: shop}
spec: {type: ExternalName, externalName: api.example.com, ports: [{name: http-api, port: 443, targetPort: 8443}, {name: tls, port: 8443}]}
`)
	described := cluster(`
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: api, namespace: shop}
spec:
  hosts: [api.shop.svc.cluster.local]
  location: MESH_EXTERNAL
  resolution: DNS
  ports: [{name: http-api, number: 443, protocol: HTTP}]
  endpoints: [{address: api.example.com}]
`)
	if named.GetType() != clusterv3.Cluster_STRICT_DNS {
		t.Errorf("the cluster is %v", named.GetType())
	}
	if diff := cmp.Diff(described, named, protocmp.Transform()); diff != "" {
		t.Errorf("the cluster is not that of the same ServiceEntry (-want +got):\n%s", diff)
	}
}

// Without a port for the mesh it is left to DNS, as in Istio.
func TestAnExternalNameWithoutPortsIsNotInTheMesh(t *testing.T) {
	t.Parallel()
	config := parse(t, istio.File{Name: "x.yaml", Data: []byte(`
apiVersion: v1
kind: Service
metadata: {name: api, namespace: shop}
spec: {type: ExternalName, externalName: api.example.com}
`)})
	if got := config.Names(istio.Node{}, resource.ListenerType); len(got) > 0 {
		t.Errorf("listeners %q, want none", got)
	}
	var codes []string
	for _, w := range config.Warnings() {
		codes = append(codes, w.Code)
	}
	if !slices.Equal(codes, []string{"unknown-protocol"}) {
		t.Errorf("warnings %q", codes)
	}
}

var externalNameProblems = []problemCase{
	{name: "names that lead nowhere", yaml: `
apiVersion: v1
kind: Service
metadata: {name: a, namespace: web}
spec: {type: ExternalName}
---
apiVersion: v1
kind: Service
metadata: {name: b, namespace: web}
spec: {type: ExternalName, externalName: 10.0.0.1}
---
apiVersion: v1
kind: Service
metadata: {name: c, namespace: web}
spec: {type: ExternalName, externalName: d.web.svc.cluster.local}
---
apiVersion: v1
kind: Service
metadata: {name: d, namespace: web}
spec: {type: ExternalName, externalName: c.web.svc.cluster.local}
---
apiVersion: v1
kind: Service
metadata: {name: payment, namespace: shop}
spec: {type: ExternalName, externalName: example.com}
---
apiVersion: v1
kind: Service
metadata: {name: e, namespace: web}
spec: {type: ExternalName, externalName: "*.example.com"}
`, want: []string{
		"x.yaml:4:1: Service web/a: spec.externalName: is required",
		`x.yaml:9:42: Service web/b: spec.externalName: "10.0.0.1" is an address and no name: use an EndpointSlice`,
		`x.yaml:14:42: Service web/c: spec.externalName: "d.web.svc.cluster.local" leads back to itself`,
		`x.yaml:19:42: Service web/d: spec.externalName: "c.web.svc.cluster.local" leads back to itself`,
		`x.yaml:23:18: Service shop/payment: metadata.name: "payment.shop.svc.cluster.local" is already a host of ServiceEntry shop/payment (shop.yaml:1): merging is not supported`,
		`x.yaml:29:42: Service web/e: spec.externalName: "*.example.com": hosts with a wildcard are not supported: name each host`,
	}},
	{name: "documents about another name", yaml: `
apiVersion: v1
kind: Service
metadata: {name: pay, namespace: web}
spec: {type: ExternalName, externalName: payment.shop.svc.cluster.local}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: pay-1, namespace: web, labels: {kubernetes.io/service-name: pay}}
addressType: IPv4
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: pay, namespace: web}
spec: {host: pay}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: pay, namespace: web}
spec: {hosts: [ledger.bank.svc.cluster.local], http: [{route: [{destination: {host: pay, port: {number: 8080}}}]}]}
`, want: []string{
		"x.yaml:8:78: EndpointSlice web/pay-1: metadata.labels[kubernetes.io/service-name]: Service web/pay is of the type ExternalName, which has no endpoints",
		`x.yaml:14:14: DestinationRule web/pay: spec.host: "pay.web.svc.cluster.local" is another name of "payment.shop.svc.cluster.local", by its type ExternalName: write that one`,
		`x.yaml:19:85: VirtualService web/pay: spec.http[0].route[0].destination.host: "pay.web.svc.cluster.local" is another name of "payment.shop.svc.cluster.local", by its type ExternalName: write that one`,
	}},
}
