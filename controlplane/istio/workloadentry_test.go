package istio_test

import (
	"slices"
	"testing"

	"github.com/inboardmesh/inboard/controlplane/istio"
)

// healthEntries are a service whose WorkloadEntries tell whether they are healthy.
const healthEntries = `
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: cart, namespace: shop}
spec:
  hosts: [cart.shop.svc.cluster.local]
  resolution: STATIC
  ports: [{name: http, number: 80, protocol: HTTP}]
  workloadSelector: {labels: {app: cart}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: cart-1, namespace: shop, annotations: {proxy.istio.io/health-checks-enabled: "true"}}
spec: {address: 10.0.0.1, labels: {app: cart}, weight: 3, locality: eu/a/1}
status:
  conditions:
  - {type: Ready, status: "False", lastProbeTime: "2026-01-31T12:00:00Z"}
  - {type: Healthy, status: "True", message: fine}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: cart-2, namespace: shop, annotations: {proxy.istio.io/health-checks-enabled: "true"}}
spec: {address: 10.0.0.2, labels: {app: cart}}
status: {conditions: [{type: Healthy, status: "False"}]}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: cart-3, namespace: shop, annotations: {proxy.istio.io/health-checks-enabled: "true"}}
spec: {address: 10.0.0.3, labels: {app: cart}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: cart-4, namespace: shop, annotations: {proxy.istio.io/health-checks-enabled: "false"}}
spec: {address: 10.0.0.4, labels: {app: cart}, locality: eu/b}
status: {conditions: [{type: Healthy, status: "False"}]}
`

func TestAWorkloadEntryThatIsNotHealthyIsNotCalled(t *testing.T) {
	t.Parallel()
	config := parse(t, istio.File{Name: "x.yaml", Data: []byte(healthEntries)})
	want := []string{"10.0.0.1:80 UNKNOWN x3 in eu/a/1", "10.0.0.4:80 UNKNOWN x1 in eu/b/"}
	if got := endpointsOf(t, config, "outbound|80||"+cartHost); !slices.Equal(got, want) {
		t.Errorf("endpoints %q, want %q", got, want)
	}
}

func TestWorkloadEntryHealthProblems(t *testing.T) {
	t.Parallel()
	for _, c := range []problemCase{
		{name: "a status that cannot be read", yaml: `
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: a, namespace: shop, annotations: {proxy.istio.io/health-checks-enabled: "yes"}}
spec: {address: 10.0.0.1}
status: {conditions: {}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: b, namespace: shop}
spec: {address: 10.0.0.1}
status: {conditions: [{type: Healthy, status: true}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: c, namespace: shop, annotations: {proxy.istio.io/health-checks-enabled: "true"}}
spec: {hosts: [c.example.com], resolution: STATIC, ports: [{name: http, number: 80, protocol: HTTP}]}
`, want: []string{
			`x.yaml:3:90: WorkloadEntry shop/a: metadata.annotations[proxy.istio.io/health-checks-enabled]: "yes" is not one of true, false`,
			"x.yaml:5:22: WorkloadEntry shop/a: status.conditions: expected a list, found a mapping",
			"x.yaml:11:47: WorkloadEntry shop/b: status.conditions[0].status: expected text, found the truth value true: put it in quotes",
			"x.yaml:15:52: ServiceEntry shop/c: metadata.annotations[proxy.istio.io/health-checks-enabled]: annotations of Istio are not supported: remove it",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			checkProblems(t, c)
		})
	}
}
