package meshtest_test

import (
	"fmt"

	"github.com/inboardmesh/inboard/mesh/meshtest"
)

// Callers with labels of their own, and a caller that runs near one of the instances.
func ExampleWorld_Workload() {
	run(func(t meshtest.TB) {
		w := meshtest.New(t)
		w.Service("payment.shop", meshtest.Version("v1"), meshtest.Locality("east/1"))
		w.Service("payment.shop", meshtest.Version("v2"), meshtest.Locality("west/1"))
		gold := w.Workload("customer.shop", meshtest.Labels(map[string]string{"tier": "gold"}))
		w.Apply(subsets("v1", "v2") + bySourceYAML) // v2 for sourceLabels: {app: customer, tier: gold}
		visit(t, gold.HTTPClient(), "http://payment.shop/")
		visit(t, w.Workload("customer.shop").HTTPClient(), "http://payment.shop/")

		w.Apply(failoverYAML)
		visit(t, w.Workload("customer.shop", meshtest.Locality("west/1")).HTTPClient(), "http://payment.shop/")
		for _, call := range w.Calls() {
			fmt.Println(call)
		}
	})
	// Output:
	// customer.shop GET payment.shop/: payment-v2 200
	// customer.shop GET payment.shop/: payment-v1 200
	// customer.shop GET payment.shop/: payment-v2 200
}

const failoverYAML = `
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: payment, namespace: shop}
spec:
  host: payment
  trafficPolicy:
    outlierDetection: {consecutive5xxErrors: 1, baseEjectionTime: 1h}
    loadBalancer: {simple: ROUND_ROBIN, localityLbSetting: {enabled: true, failover: [{from: west, to: east}]}}
`

// What "inboard validate" would warn of.
func ExampleWorld_Warnings() {
	run(func(t meshtest.TB) {
		w := meshtest.New(t)
		w.Service("payment.shop")
		w.Apply(`
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: payment, namespace: shop}
spec:
  parentRefs: [{group: "", kind: Service, name: payment, port: 80}]
  rules: [{backendRefs: [{name: payment, port: 80, weight: 0}]}]
`)
		for _, warning := range w.Warnings() {
			fmt.Println(warning)
		}
	})
	// Output:
	// config.yaml:7:25: warning: HTTPRoute shop/payment: spec.rules[0].backendRefs: there is no backend with a weight: every request is answered with 500
}
