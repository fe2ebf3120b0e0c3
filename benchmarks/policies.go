package main

import (
	"fmt"
	"net"
	"strings"

	"github.com/inboardmesh/inboard/controlplane/istio"
)

// The documents of the control plane. A case has all of them that [everything] names;
// those of [layers] have one more than the case before.
const (
	serviceEntry = `
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: payment, namespace: shop}
spec:
  hosts: [payment.shop.svc.cluster.local]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{number: 80, name: PROTOCOL, protocol: PROTOCOL, targetPort: PORT}]
  endpoints: [{address: 127.0.0.1, serviceAccount: payment}]
`
	strictTLS = `
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
`
	limits  = `connectionPool: {tcp: {maxConnections: 1000}, http: {http2MaxRequests: 10000, http1MaxPendingRequests: 1000}}`
	outlier = `outlierDetection: {consecutive5xxErrors: 5}`
	least   = `loadBalancer: {simple: LEAST_REQUEST}`
	breaker = `inboard.breaker: '{"failureRatio": 0.5, "minimumRequests": 100, "window": "10s", "openTime": "5s"}'`
	timeout = `timeout: 5s`
	retries = `retries: {attempts: 2, perTryTimeout: 2s}`
	// authorization allows the customer what it asks for by the last of its rules.
	authorization = `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: payment, namespace: shop}
spec:
  action: ALLOW
  rules:
  - from: [{source: {principals: [cluster.local/ns/shop/sa/auditor]}}]
    to: [{operation: {methods: [GET], paths: [/ledger/*]}}]
  - from: [{source: {namespaces: [monitoring]}}]
    to: [{operation: {paths: [/metrics, /healthz]}}]
  - from: [{source: {principals: [cluster.local/ns/shop/sa/customer]}}]
    to: [{operation: {methods: [GET, POST], paths: [/charge, /grpc.testing.TestService/*]}}]
`
)

// everything is all policy that a production service has on the way of a call: limits, a
// timeout, retries, outlier detection, an error-rate breaker and STRICT mutual TLS.
var everything = documents(destinationRule(breaker, limits, outlier, least), virtualService(timeout, retries))

// documents are the service's, with those that are given.
func documents(more ...string) string {
	return strings.Join(append([]string{serviceEntry, strictTLS}, more...), "---")
}

// destinationRule has an annotation, "" for none, and fields of a trafficPolicy.
func destinationRule(annotation string, fields ...string) string {
	return fmt.Sprintf(`
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata:
  name: payment
  namespace: shop
  annotations:
    benchmarks: "yes"
    %s
spec:
  host: payment.shop.svc.cluster.local
  trafficPolicy:
    %s
`, annotation, strings.Join(fields, "\n    "))
}

// virtualService is a route of two, with fields of the one that calls take.
func virtualService(fields ...string) string {
	return fmt.Sprintf(`
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: payment, namespace: shop}
spec:
  hosts: [payment.shop.svc.cluster.local]
  http:
  - match: [{headers: {x-tester: {exact: "yes"}}}]
    route: [{destination: {host: payment.shop.svc.cluster.local}}]
  - route: [{destination: {host: payment.shop.svc.cluster.local}}]
    %s
`, strings.Join(fields, "\n    "))
}

// point makes the mesh's payment the server at an address, with the policy of a case.
func (w *world) point(addr string, c *benchCase) error {
	protocol := "http"
	switch {
	case c.client.isGRPC():
		protocol = "grpc"
	case strings.HasPrefix(string(c.client), string(http2Mesh)):
		protocol = "http2"
	}
	policy := c.policy
	if policy == "" {
		policy = everything
	}
	return w.apply(addr, protocol, policy)
}

func (w *world) apply(addr, protocol, policy string) error {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	yaml := strings.NewReplacer("PORT", port, "PROTOCOL", protocol).Replace(policy)
	if problems := w.server.Update([]istio.File{{Name: "payment.yaml", Data: []byte(yaml)}}); len(problems) > 0 {
		return fmt.Errorf("configuration refused: %v", problems)
	}
	return nil
}
