package istio_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	resource "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/proto"

	"github.com/inboardmesh/inboard/controlplane/istio"
)

const sourced = `
  hosts: [payment]
  http:
  - name: canary
    match: [{sourceLabels: {app: web, track: canary}}]
    route: [{destination: {host: payment}}]
  - name: bank
    match: [{sourceNamespace: bank}, {uri: {exact: /pay}, sourceLabels: {app: web}}]
    route: [{destination: {host: payment}}]
  - name: rest
    route: [{destination: {host: payment}}]
`

func TestRoutesDependOnWhoAsks(t *testing.T) {
	t.Parallel()
	config := parse(t, yamlFile(shop), yamlFile(document("VirtualService", "shop", "a", sourced)))
	for _, test := range []struct {
		name string
		node istio.Node
		want []string
	}{
		{"nobody", istio.Node{}, []string{"rest"}},
		{"another namespace", in("x"), []string{"rest"}},
		{"the namespace", in("bank"), []string{"bank"}},
		{"one of two labels", istio.Node{Namespace: "shop", Labels: map[string]string{"app": "web"}}, []string{"bank", "rest"}},
		{"both labels", istio.Node{Labels: map[string]string{"app": "web", "track": "canary", "x": "y"}}, []string{"canary"}},
		{"another value", istio.Node{Labels: map[string]string{"app": "web", "track": "stable"}}, []string{"bank", "rest"}},
	} {
		var got []string
		for _, route := range routesOf(t, config, test.node, paymentRoutes) {
			got = append(got, route[:len(route)-len(" > "+paymentRoutes)])
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
		checkResourcesOf(t, config, test.node)
	}
}

func TestAVirtualServiceWithoutARouteForANodeLeavesItToTheNext(t *testing.T) {
	t.Parallel()
	vs := func(name, created, match string) string {
		return fmt.Sprintf("---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: %s, namespace: shop, creationTimestamp: %s}\n"+
			"spec: {hosts: [payment], http: [{name: %[1]s, match: [%[3]s], route: [{destination: {host: payment}}]}]}\n", name, created, match)
	}
	config := parse(t, yamlFile(shop), yamlFile(
		vs("old", "2026-01-01T00:00:00Z", "{sourceNamespace: bank}")+vs("young", "2026-01-02T00:00:00Z", "{sourceNamespace: x}, {port: 9090}")))
	for namespace, want := range map[string]string{"bank": "old", "x": "young", "y": "default"} {
		if got := routesOf(t, config, in(namespace), paymentRoutes); len(got) != 1 || got[0] != want+" > "+paymentRoutes {
			t.Errorf("namespace %q: %q, want %q", namespace, got, want)
		}
	}
	for namespace, want := range map[string]string{"bank": "old", "y": "young"} {
		const grpc = "outbound|9090||" + paymentHost
		if got := routesOf(t, config, in(namespace), grpc); len(got) != 1 || got[0] != want+" > "+grpc {
			t.Errorf("namespace %q, port 9090: %q, want %q", namespace, got, want)
		}
	}
}

func TestNodesOfOneClassShareTheirRoutes(t *testing.T) {
	t.Parallel()
	config := parse(t, yamlFile(shop), yamlFile(document("VirtualService", "shop", "a", sourced)))
	get := func(labels map[string]string) *routev3.RouteConfiguration {
		m, ok := config.Resource(istio.Node{Labels: labels}, resource.RouteType, paymentRoutes)
		if !ok {
			t.Error("no routes")
		}
		return m.(*routev3.RouteConfiguration)
	}
	var wait sync.WaitGroup
	tables := make([]*routev3.RouteConfiguration, 16)
	for i := range tables {
		wait.Go(func() {
			tables[i] = get(map[string]string{"app": "web", "pod": fmt.Sprint(i)})
		})
	}
	wait.Wait()
	for _, table := range tables {
		if table != tables[0] {
			t.Fatal("two nodes with the same routes got different messages")
		}
	}
	if proto.Equal(tables[0], get(nil)) {
		t.Error("the label makes no difference")
	}
}

func TestMoreClassesThanAreKeptGetTheirRoutes(t *testing.T) {
	t.Parallel()
	rules := make([]string, 9)
	for i := range rules {
		rules[i] = fmt.Sprintf("  - {name: r%d, match: [{sourceLabels: {l%[1]d: x}, uri: {exact: /%[1]d}}], route: [{destination: {host: payment}}]}\n", i)
	}
	spec := "  hosts: [payment]\n  http:\n" + strings.Join(rules, "")
	config := parse(t, yamlFile(shop), yamlFile(document("VirtualService", "shop", "a", spec+"  - {name: rest, route: [{destination: {host: payment}}]}\n")))
	for class := range 1 << 9 {
		labels := make(map[string]string)
		for i := range 9 {
			if class&(1<<i) != 0 {
				labels[fmt.Sprintf("l%d", i)] = "x"
			}
		}
		node := istio.Node{Labels: labels}
		if got := routesOf(t, config, node, paymentRoutes); len(got) != len(labels)+1 {
			t.Fatalf("%v: %q", labels, got)
		}
		first, _ := config.Resource(node, resource.RouteType, paymentRoutes)
		again, _ := config.Resource(node, resource.RouteType, paymentRoutes)
		if !proto.Equal(first, again) {
			t.Fatalf("%v: two answers to one question", labels)
		}
	}
}

func TestSchemeAndStatPrefixAreTranslated(t *testing.T) {
	t.Parallel()
	config := parse(t, yamlFile(shop), yamlFile(document("VirtualService", "shop", "a", `
  hosts: [payment]
  http:
  - match: [{scheme: {exact: http}, statPrefix: pay}]
    route: [{destination: {host: payment}}]
`)))
	m, _ := config.Resource(caller, resource.RouteType, paymentRoutes)
	route := m.(*routev3.RouteConfiguration).VirtualHosts[0].Routes[0]
	if got := route.Match.Headers[0]; got.Name != ":scheme" || got.GetStringMatch().GetExact() != "http" {
		t.Errorf("header %v", got)
	}
	if route.StatPrefix != "pay" {
		t.Errorf("stat prefix %q", route.StatPrefix)
	}
}

func TestADestinationWithoutAPortIsTheOnlyPortOfItsHost(t *testing.T) {
	t.Parallel()
	config := parse(t, yamlFile(shop), yamlFile(document("VirtualService", "shop", "a", `
  hosts: [payment]
  http: [{name: a, route: [{destination: {host: ledger.bank.svc.cluster.local}}]}]
`)))
	want := []string{"a > outbound|7070||ledger.bank.svc.cluster.local"}
	if got := routesOf(t, config, caller, paymentRoutes); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestAWildcardIsForEveryServiceItCovers(t *testing.T) {
	t.Parallel()
	config := parse(t, yamlFile(shop), yamlFile(document("VirtualService", "shop", "a", `
  hosts: ["*.svc.cluster.local", "*.example.com"]
  http: [{name: a, route: [{destination: {host: payment, port: {number: 8080}}}]}]
`)))
	for _, name := range []string{paymentRoutes, "outbound|7070||ledger.bank.svc.cluster.local"} {
		if got := routesOf(t, config, caller, name); !slices.Equal(got, []string{"a > " + paymentRoutes}) {
			t.Errorf("%s: %q", name, got)
		}
	}
	want := []string{`x.yaml:6:34: warning: VirtualService shop/a: spec.hosts[1]: "*.example.com": no Service or ServiceEntry has such a host: it has no effect`}
	if got := warningsOf(config); !slices.Equal(got, want) {
		t.Errorf("warnings %q, want %q", got, want)
	}
}
