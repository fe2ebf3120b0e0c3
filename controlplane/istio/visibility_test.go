package istio_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	resource "github.com/envoyproxy/go-control-plane/pkg/resource/v3"

	"github.com/inboardmesh/inboard/controlplane/istio"
)

const (
	paymentHost   = "payment.shop.svc.cluster.local"
	paymentRoutes = "outbound|8080||" + paymentHost
)

// in is a node of a namespace.
func in(namespace string) istio.Node { return istio.Node{Namespace: namespace} }

// document is a document of Istio's networking API.
func document(kind, namespace, name, spec string) string {
	return fmt.Sprintf("---\napiVersion: networking.istio.io/v1\nkind: %s\nmetadata: {name: %s, namespace: %s}\nspec:\n%s\n",
		kind, name, namespace, strings.TrimPrefix(spec, "\n"))
}

// routesOf are the routes of a node to a port, as "name > cluster".
func routesOf(t *testing.T, config *istio.Config, node istio.Node, name string) []string {
	t.Helper()
	m, ok := config.Resource(node, resource.RouteType, name)
	if !ok {
		t.Fatalf("no routes %q", name)
	}
	var routes []string
	for _, r := range m.(*routev3.RouteConfiguration).VirtualHosts[0].Routes {
		routes = append(routes, r.Name+" > "+clusterOf(r))
	}
	return routes
}

// clusterOf is the cluster of a route, or its first.
func clusterOf(r *routev3.Route) string {
	if weighted := r.GetRoute().GetWeightedClusters().GetClusters(); len(weighted) > 0 {
		return weighted[0].Name
	}
	return r.GetRoute().GetCluster()
}

// warningsOf are the warnings of a configuration, each a line.
func warningsOf(config *istio.Config) []string {
	var lines []string
	for _, w := range config.Warnings() {
		lines = append(lines, w.String())
	}
	return lines
}

func TestAServiceIsThereForWhomItIsExportedTo(t *testing.T) {
	t.Parallel()
	config := parse(t, yamlFile(shop), yamlFile(document("ServiceEntry", "bank", "vault", `
  hosts: [vault.bank.svc.cluster.local]
  exportTo: [., shop]
  resolution: STATIC
  ports: [{name: http, number: 80, protocol: HTTP}]
`)+document("ServiceEntry", "bank", "nobody", `
  hosts: [nobody.bank.svc.cluster.local]
  exportTo: ["~"]
  resolution: STATIC
  ports: [{name: http, number: 80, protocol: HTTP}]
`)))
	const vault = "outbound|80||vault.bank.svc.cluster.local"
	for namespace, want := range map[string]bool{"bank": true, "shop": true, "elsewhere": false, "": false} {
		for typeURL, name := range map[string]string{
			resource.ListenerType: "vault.bank:80", resource.RouteType: vault,
			resource.ClusterType: vault, resource.EndpointType: vault,
		} {
			if _, ok := config.Resource(in(namespace), typeURL, name); ok != want {
				t.Errorf("namespace %q, %s: found: %v, want %v", namespace, typeURL, ok, want)
			}
		}
		for typeURL, name := range map[string]string{
			resource.ListenerType: "vault.bank.svc.cluster.local:80", resource.RouteType: vault, resource.ClusterType: vault,
		} {
			if got := slices.Contains(config.Names(in(namespace), typeURL), name); got != want {
				t.Errorf("namespace %q, %s: listed: %v, want %v", namespace, typeURL, got, want)
			}
		}
		if _, ok := config.Resource(in(namespace), resource.ClusterType, "outbound|80||nobody.bank.svc.cluster.local"); ok {
			t.Errorf("namespace %q sees what nobody sees", namespace)
		}
		checkResourcesOf(t, config, in(namespace))
	}
}

func TestANamespaceSeesItsOwnServiceOfAHostBeforeThatOfOthers(t *testing.T) {
	t.Parallel()
	entry := func(namespace, exportTo string, port int) string {
		return document("ServiceEntry", namespace, "api", fmt.Sprintf(`
  hosts: [api.example.com]
  exportTo: [%s]
  resolution: STATIC
  ports: [{name: http, number: %d, protocol: HTTP}]
`, exportTo, port))
	}
	config := parse(t, yamlFile(entry("shop", `"*"`, 80)+entry("bank", ".", 81)))
	for namespace, want := range map[string][]string{
		"shop": {"api.example.com:80"}, "bank": {"api.example.com:81"}, "": {"api.example.com:80"},
	} {
		if got := config.Names(in(namespace), resource.ListenerType); !slices.Equal(got, want) {
			t.Errorf("namespace %q: %v, want %v", namespace, got, want)
		}
	}
	_, problems := istio.Parse([]istio.File{yamlFile(entry("shop", "x", 80) + entry("bank", "x, y", 81))}, istio.Options{})
	want := `x.yaml:16:11: ServiceEntry bank/api: spec.hosts[0]: "api.example.com" is also a host of ServiceEntry shop/api (x.yaml:2), and namespace "x" sees both: hide one of them with exportTo`
	if len(problems) != 1 || problems[0].String() != want {
		t.Errorf("problems %v, want %s", problems, want)
	}
}

func TestDestinationRulesAreLookedForWhereIstioDoes(t *testing.T) {
	t.Parallel()
	rule := func(namespace, name, host, exportTo string, connections int) string {
		return document("DestinationRule", namespace, name, fmt.Sprintf(`
  host: %q
  exportTo: [%s]
  trafficPolicy: {connectionPool: {tcp: {maxConnections: %d}}}
`, host, exportTo, connections))
	}
	type answers map[string]uint32
	const none = 4294967295
	tests := []struct {
		name  string
		rules string
		want  answers
	}{
		{"none", "", answers{"shop": none, "bank": none, "istio-system": none, "": none}},
		{"that of the service is for everybody",
			rule("shop", "a", paymentHost, `"*"`, 1), answers{"shop": 1, "bank": 1, "istio-system": 1, "": 1}},
		{"the caller's own goes first",
			rule("shop", "a", paymentHost, `"*"`, 1) + rule("bank", "a", paymentHost, `"*"`, 2), answers{"shop": 1, "bank": 2, "x": 1}},
		{"the caller's own goes first with a wildcard too",
			rule("shop", "a", paymentHost, `"*"`, 1) + rule("bank", "a", "*.svc.cluster.local", ".", 2), answers{"shop": 1, "bank": 2, "x": 1}},
		{"of a namespace that is neither the caller's nor the service's there is none",
			rule("bank", "a", paymentHost, `"*"`, 2), answers{"shop": none, "bank": 2, "x": none}},
		{"what is hidden is not for others",
			rule("shop", "a", paymentHost, ".", 1), answers{"shop": 1, "bank": none}},
		{"what is exported by name is for those",
			rule("shop", "a", paymentHost, "bank", 1), answers{"shop": none, "bank": 1, "x": none}},
		{"the root namespace comes last",
			rule("istio-system", "a", "*", `"*"`, 9) + rule("shop", "a", paymentHost, ".", 1), answers{"shop": 1, "bank": 9, "": 9}},
		{"for the root namespace too",
			rule("istio-system", "a", paymentHost, `"*"`, 9) + rule("shop", "a", paymentHost, `"*"`, 1), answers{"istio-system": 1, "shop": 1}},
		{"what the root namespace keeps for itself is its own",
			rule("istio-system", "a", paymentHost, ".", 9) + rule("shop", "a", paymentHost, `"*"`, 1), answers{"istio-system": 9, "shop": 1}},
		{"the most specific host of a namespace wins",
			rule("shop", "a", "*.shop.svc.cluster.local", `"*"`, 2) + rule("shop", "b", "*.cluster.local", `"*"`, 3) + rule("shop", "c", "*", `"*"`, 4),
			answers{"shop": 2, "bank": 2}},
		{"the name wins over any wildcard",
			rule("shop", "a", "*.shop.svc.cluster.local", `"*"`, 2) + rule("shop", "b", "payment", `"*"`, 3), answers{"shop": 3, "bank": 3}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			config := parse(t, yamlFile(shop), yamlFile(test.rules))
			for namespace, want := range test.want {
				m, ok := config.Resource(in(namespace), resource.ClusterType, paymentRoutes)
				if !ok {
					t.Fatalf("namespace %q: no cluster", namespace)
				}
				if got := m.(*clusterv3.Cluster).CircuitBreakers.Thresholds[0].MaxConnections.Value; got != want {
					t.Errorf("namespace %q: %d, want %d", namespace, got, want)
				}
				checkResourcesOf(t, config, in(namespace))
			}
		})
	}
}

func TestASubsetIsThereForWhomItsRuleIs(t *testing.T) {
	t.Parallel()
	config := parse(t, yamlFile(shop), yamlFile(document("DestinationRule", "shop", "a", `
  host: payment
  subsets: [{name: v1, labels: {version: v1}}]
`)+document("DestinationRule", "bank", "a", "  host: "+paymentHost)+document("VirtualService", "shop", "a", `
  hosts: [payment]
  http:
  - route: [{destination: {host: payment, subset: v1}}]
`)))
	const v1 = "outbound|8080|v1|" + paymentHost
	for namespace, want := range map[string]bool{"shop": true, "bank": false, "": true} {
		if _, ok := config.Resource(in(namespace), resource.ClusterType, v1); ok != want {
			t.Errorf("namespace %q: found: %v, want %v", namespace, ok, want)
		}
		if _, ok := config.Resource(in(namespace), resource.EndpointType, v1); ok != want {
			t.Errorf("namespace %q: endpoints found: %v, want %v", namespace, ok, want)
		}
	}
	want := []string{`x.yaml:22:12: warning: VirtualService shop/a: spec.http[0].route: subset "v1" of "` + paymentHost + `" is not visible to clients in namespace "bank", who get this route: their calls fail`}
	if got := warningsOf(config); !slices.Equal(got, want) {
		t.Errorf("warnings %q, want %q", got, want)
	}
}

func TestVirtualServicesAreForWhomTheyAreExportedTo(t *testing.T) {
	t.Parallel()
	service := func(namespace, name, exportTo, created, hosts string) string {
		return fmt.Sprintf(`---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: %s, namespace: %s, creationTimestamp: %s}
spec:
  exportTo: [%s]
  hosts: [%q]
  http:
  - name: %[1]s
    route: [{destination: {host: %[6]s, port: {number: 8080}}}]
`, name, namespace, created, exportTo, hosts, paymentHost)
	}
	const (
		old, older = "2026-02-01T00:00:00Z", "2026-01-01T00:00:00Z"
		nobody     = "default"
	)
	tests := []struct {
		name     string
		services string
		want     map[string]string
		warnings int
	}{
		{"everybody", service("shop", "a", `"*"`, "null", "payment"), map[string]string{"shop": "a", "bank": "a", "": "a"}, 0},
		{"the own namespace", service("bank", "a", ".", "null", paymentHost), map[string]string{"shop": nobody, "bank": "a", "": nobody}, 0},
		{"a namespace by name", service("bank", "a", "shop", "null", paymentHost), map[string]string{"shop": "a", "bank": nobody}, 0},
		{"the own one goes first", service("shop", "a", `"*"`, older, "payment") + service("bank", "b", ".", old, paymentHost),
			map[string]string{"shop": "a", "bank": "b"}, 1},
		{"what is exported by name goes before what everybody sees", service("shop", "a", `"*"`, older, "payment") + service("shop", "b", "bank", old, paymentHost),
			map[string]string{"shop": "a", "bank": "b"}, 1},
		{"the oldest wins", service("shop", "a", `"*"`, old, "payment") + service("shop", "b", `"*"`, older, "payment"),
			map[string]string{"shop": "b", "bank": "b"}, 1},
		{"a name wins over a wildcard", service("shop", "a", `"*"`, older, "*.shop.svc.cluster.local") + service("shop", "b", `"*"`, old, "payment"),
			map[string]string{"shop": "b", "bank": "b"}, 0},
		{"a name wins over an own wildcard", service("bank", "a", ".", older, "*.shop.svc.cluster.local") + service("shop", "b", `"*"`, old, "payment"),
			map[string]string{"shop": "b", "bank": "b"}, 0},
		{"the longest wildcard wins", service("shop", "a", `"*"`, older, "*.cluster.local") + service("shop", "b", `"*"`, old, "*.shop.svc.cluster.local"),
			map[string]string{"shop": "b", "bank": "b"}, 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			config := parse(t, yamlFile(shop), yamlFile(test.services))
			for namespace, want := range test.want {
				if got := routesOf(t, config, in(namespace), paymentRoutes); len(got) != 1 || got[0] != want+" > "+paymentRoutes {
					t.Errorf("namespace %q: %q, want %s", namespace, got, want)
				}
				checkResourcesOf(t, config, in(namespace))
			}
			if got := warningsOf(config); len(got) != test.warnings {
				t.Errorf("warnings: %q, want %d", got, test.warnings)
			}
		})
	}
}

func TestTheLoserOfAHostIsReported(t *testing.T) {
	t.Parallel()
	config := parse(t, yamlFile(shop), yamlFile(`apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: young, namespace: shop, creationTimestamp: 2026-02-01T00:00:00Z}
spec: {hosts: [payment], http: [{route: [{destination: {host: payment}}]}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: old, namespace: shop, creationTimestamp: "2026-01-01T00:00:00Z"}
spec: {hosts: [payment], http: [{route: [{destination: {host: payment}}]}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: own, namespace: bank}
spec: {exportTo: [.], hosts: [`+paymentHost+`], http: [{route: [{destination: {host: `+paymentHost+`}}]}]}
`))
	want := []string{
		`x.yaml:4:16: warning: VirtualService shop/young: spec.hosts[0]: has no effect on "` + paymentHost + `" in namespace "bank": VirtualService bank/own (x.yaml:11) is exported more narrowly`,
		`x.yaml:4:16: warning: VirtualService shop/young: spec.hosts[0]: has no effect on "` + paymentHost + `": the older VirtualService shop/old (x.yaml:6) wins`,
		`x.yaml:9:16: warning: VirtualService shop/old: spec.hosts[0]: has no effect on "` + paymentHost + `" in namespace "bank": VirtualService bank/own (x.yaml:11) is exported more narrowly`,
	}
	got := warningsOf(config)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("warnings\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	_, problems := istio.Parse([]istio.File{yamlFile("kind: VirtualService\nmetadata: {name: a, creationTimestamp: yesterday}\napiVersion: networking.istio.io/v1\nspec: {http: [{directResponse: {status: 200}}]}\n")}, istio.Options{})
	if want := `x.yaml:2:40: VirtualService default/a: metadata.creationTimestamp: "yesterday" is not a time: write it like 2026-01-31T12:00:00Z, or remove it`; len(problems) != 1 || problems[0].String() != want {
		t.Errorf("problems %v, want %s", problems, want)
	}
}

func TestARouteToWhatItsClientsDoNotSeeIsReported(t *testing.T) {
	t.Parallel()
	config := parse(t, yamlFile(shop), yamlFile(document("ServiceEntry", "shop", "inner", `
  hosts: [inner.shop.svc.cluster.local]
  exportTo: [.]
  resolution: STATIC
  ports: [{name: http, number: 80, protocol: HTTP}]
`)+document("VirtualService", "shop", "a", `
  hosts: [payment]
  http:
  - match: [{uri: {prefix: /shop}, sourceNamespace: shop}]
    route: [{destination: {host: inner}}]
  - match: [{uri: {prefix: /bank}, sourceNamespace: bank}]
    route: [{destination: {host: inner}}]
  - route: [{destination: {host: inner}}]
`)))
	const inner = `"inner.shop.svc.cluster.local" is not visible to clients in `
	want := []string{
		`x.yaml:21:12: warning: VirtualService shop/a: spec.http[1].route: ` + inner + `namespace "bank", who get this route: their calls fail`,
		`x.yaml:22:12: warning: VirtualService shop/a: spec.http[2].route: ` + inner + `other namespaces, who get this route: their calls fail`,
	}
	got := warningsOf(config)
	if len(got) != len(want) {
		t.Fatalf("warnings\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("warning %s\nwant    %s", got[i], want[i])
		}
	}
}
