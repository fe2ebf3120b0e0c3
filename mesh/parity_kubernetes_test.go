package mesh_test

import (
	"slices"
	"testing"
)

// kubernetesDocuments are what kubectl exports of the Service kube-ROW: two pods
// that are ready, one that ends, and one that is not ready.
const kubernetesDocuments = `apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Service
  metadata: {name: kube-ROW, namespace: shop}
  spec:
    ports: [{name: http, port: 80, targetPort: web}, {name: http2, port: 82}, {name: rpc, port: 9090, appProtocol: grpc}]
    type: ClusterIP
- apiVersion: discovery.k8s.io/v1
  kind: EndpointSlice
  metadata: {name: kube-ROW-1, namespace: shop, labels: {kubernetes.io/service-name: kube-ROW}}
  addressType: IPv4
  endpoints: [{addresses: [127.0.0.1], conditions: {ready: true}, targetRef: {kind: Pod, name: kube-ROW-1, namespace: shop}}]
  ports: [{name: http, port: HTTP(v1-a)}, {name: http2, port: HTTP(v1-a)}, {name: rpc, port: GRPC(v1-a)}]
- apiVersion: discovery.k8s.io/v1
  kind: EndpointSlice
  metadata: {name: kube-ROW-2, namespace: shop, labels: {kubernetes.io/service-name: kube-ROW}}
  addressType: IPv4
  endpoints: [{addresses: [127.0.0.1], conditions: {}, targetRef: {kind: Pod, name: kube-ROW-2, namespace: shop}}]
  ports: [{name: http, port: HTTP(v2-a)}, {name: http2, port: HTTP(v2-a)}, {name: rpc, port: GRPC(v2-a)}]
- apiVersion: discovery.k8s.io/v1
  kind: EndpointSlice
  metadata: {name: kube-ROW-3, namespace: shop, labels: {kubernetes.io/service-name: kube-ROW}}
  addressType: IPv4
  endpoints: [{addresses: [127.0.0.1], conditions: {ready: false, serving: true, terminating: true}, targetRef: {kind: Pod, name: kube-ROW-3, namespace: shop}}]
  ports: [{name: http, port: HTTP(v1-b)}, {name: http2, port: HTTP(v1-b)}, {name: rpc, port: GRPC(v1-b)}]
- apiVersion: discovery.k8s.io/v1
  kind: EndpointSlice
  metadata: {name: kube-ROW-4, namespace: shop, labels: {kubernetes.io/service-name: kube-ROW}}
  addressType: IPv4
  endpoints: [{addresses: [127.99.0.1], conditions: {ready: false}, targetRef: {kind: Pod, name: kube-ROW-1, namespace: shop}}]
  ports: [{name: http, port: 80}, {name: http2, port: 80}, {name: rpc, port: 80}]
- {apiVersion: v1, kind: Pod, metadata: {name: kube-ROW-1, namespace: shop, labels: {version: v1}}, spec: {serviceAccountName: payment}}
- {apiVersion: v1, kind: Pod, metadata: {name: kube-ROW-2, namespace: shop, labels: {version: v2}}, spec: {serviceAccountName: payment}}
- {apiVersion: v1, kind: Pod, metadata: {name: kube-ROW-3, namespace: shop, labels: {version: v1}}, spec: {serviceAccountName: payment}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: kube-ROW, namespace: shop}
spec:
  host: kube-ROW
  trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}
  subsets: [{name: v2, labels: {version: v2}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: kube-ROW, namespace: shop}
spec:
  hosts: [kube-ROW]
  http:
  - match: [{headers: {x-two: {}}}]
    route: [{destination: {host: kube-ROW, subset: v2}}]
  - route: [{destination: {host: kube-ROW}}]
`

// distributedDocuments are a Service that prefers what is close, one pod of it far
// away.
const distributedDocuments = `apiVersion: v1
kind: Service
metadata: {name: near-ROW, namespace: shop}
spec:
  trafficDistribution: PreferClose
  ports: [{name: http, port: 80}, {name: http2, port: 82}, {name: rpc, port: 9090, appProtocol: grpc}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: near-ROW-1, namespace: shop, labels: {kubernetes.io/service-name: near-ROW}}
addressType: IPv4
endpoints: [{addresses: [127.0.0.1], conditions: {ready: true}, nodeName: close-ROW, targetRef: {kind: Pod, name: near-ROW-1, namespace: shop}}]
ports: [{name: http, port: HTTP(v1-a)}, {name: http2, port: HTTP(v1-a)}, {name: rpc, port: GRPC(v1-a)}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: near-ROW-2, namespace: shop, labels: {kubernetes.io/service-name: near-ROW}}
addressType: IPv4
endpoints: [{addresses: [127.0.0.1], conditions: {ready: true}, nodeName: far-ROW, targetRef: {kind: Pod, name: near-ROW-2, namespace: shop}}]
ports: [{name: http, port: HTTP(v2-a)}, {name: http2, port: HTTP(v2-a)}, {name: rpc, port: GRPC(v2-a)}]
---
{apiVersion: v1, kind: Pod, metadata: {name: near-ROW-1, namespace: shop, labels: {version: v1}}, spec: {serviceAccountName: payment}}
---
{apiVersion: v1, kind: Pod, metadata: {name: near-ROW-2, namespace: shop, labels: {version: v2}}, spec: {serviceAccountName: payment}}
---
{apiVersion: v1, kind: Node, metadata: {name: close-ROW, labels: {topology.kubernetes.io/region: r1, topology.kubernetes.io/zone: z1}}}
---
{apiVersion: v1, kind: Node, metadata: {name: far-ROW, labels: {topology.kubernetes.io/region: r1, topology.kubernetes.io/zone: z2}}}
`

// namedDocuments are two further names of a row's host.
const namedDocuments = `{apiVersion: v1, kind: Service, metadata: {name: named-ROW, namespace: shop}, spec: {type: ExternalName, externalName: HOST}}
---
{apiVersion: v1, kind: Service, metadata: {name: renamed-ROW, namespace: shop}, spec: {type: ExternalName, externalName: named-ROW.shop.svc.cluster.local}}
`

func parityKubernetesRows() []parityRow {
	return []parityRow{{
		name:      "Service.externalName",
		routes:    noRetries + "\n  headers: {request: {add: {x-route: own}}}" + toV1,
		documents: namedDocuments,
		run: func(t *testing.T, p *parityProbe) {
			for _, host := range []string{"named-HOST", "renamed-HOST", "HOST"} {
				r := p.call(t, parityCall{host: host})
				by("v1").check(t, p.parityProtocol, r)
				if got := r.sent("x-route"); !slices.Equal(got, []string{"own"}) || r.Reply.Peer == "" {
					t.Errorf("%s: the route adds %q, the caller is %q: want those of the host", host, got, r.Reply.Peer)
				}
			}
		},
	}, {
		name:      "Service.trafficDistribution",
		documents: distributedDocuments,
		run: func(t *testing.T, p *parityProbe) {
			for range 10 {
				by("v1-a").check(t, p.parityProtocol, p.call(t, parityCall{host: "near-HOST"}))
			}
		},
	}, {
		name:      "Service, EndpointSlice and Pod of Kubernetes",
		documents: kubernetesDocuments,
		run: func(t *testing.T, p *parityProbe) {
			got := make(map[string]int)
			for range 10 {
				r := p.call(t, parityCall{host: "kube-HOST"})
				answered.check(t, p.parityProtocol, r)
				if r.Reply.Peer == "" {
					t.Errorf("the payment has not verified its caller: %v", r)
				}
				got[r.Instance]++
			}
			if len(got) != 2 || got["v1-a"] != 5 || got["v2-a"] != 5 {
				t.Errorf("calls by payment: %v, want those that are ready", got)
			}
			two := header("x-two", "1")
			two.host = "kube-HOST"
			for range 3 {
				by("v2-a").check(t, p.parityProtocol, p.call(t, two))
			}
		},
	}}
}
