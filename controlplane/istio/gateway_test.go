package istio_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	resource "github.com/envoyproxy/go-control-plane/pkg/resource/v3"

	"github.com/inboardmesh/inboard/controlplane/istio"
)

const paymentGRPC = "outbound|9090||" + paymentHost

// gateway is an HTTPRoute or GRPCRoute at the service payment.
func gateway(kind, namespace, name, parent, rules string) string {
	return fmt.Sprintf("---\napiVersion: gateway.networking.k8s.io/v1\nkind: %s\nmetadata: {name: %s, namespace: %s}\nspec:\n"+
		"  parentRefs: [{group: \"\", kind: Service, name: payment, namespace: shop%s}]\n  rules:\n%s", kind, name, namespace, parent, rules)
}

// toPayment is a rule with a name and matches.
func toPayment(name, matches string) string {
	return "  - {name: " + name + ", matches: [" + matches + "], backendRefs: [{name: payment, namespace: shop, port: 8080}]}\n"
}

// ruleNames are the names of the routes of a node to a port, without the
// namespace of the object.
func ruleNames(t *testing.T, config *istio.Config, node istio.Node, name string) string {
	t.Helper()
	m, ok := config.Resource(node, resource.RouteType, name)
	if !ok {
		t.Fatalf("no routes %q", name)
	}
	var names []string
	for _, r := range m.(*routev3.RouteConfiguration).VirtualHosts[0].Routes {
		names = append(names, r.Name[strings.LastIndexByte(r.Name, '/')+1:])
	}
	return strings.Join(names, " ")
}

func TestHTTPRoutesAreOrderedByHowSpecificTheyAre(t *testing.T) {
	t.Parallel()
	config := parse(t, yamlFile(shop), yamlFile(gateway("HTTPRoute", "shop", "a", "", ""+
		toPayment("all", "{}")+
		toPayment("regex", "{path: {type: RegularExpression, value: /a.*}}")+
		toPayment("param", "{path: {value: /a}, queryParams: [{name: x, value: y}]}")+
		toPayment("prefix", "{path: {value: /a}}")+
		toPayment("later", "{path: {value: /b}}")+
		toPayment("header", "{path: {value: /a}, headers: [{name: x, value: y}]}")+
		toPayment("headers", "{path: {value: /a}, headers: [{name: x, value: y}, {name: z, value: y}]}")+
		toPayment("method", "{path: {value: /a}, method: GET}")+
		toPayment("longer", "{path: {value: /a/b}}")+
		toPayment("exact", "{path: {type: Exact, value: /a}}")+
		toPayment("all-method", "{method: GET}"))))
	const want = "exact longer method headers header param prefix later regex all-method all"
	if got := ruleNames(t, config, caller, paymentRoutes); got != want {
		t.Errorf("order\n%s\nwant\n%s", got, want)
	}
	if got := warningsOf(config); len(got) > 0 {
		t.Errorf("warnings %q", got)
	}
}

func TestGRPCRoutesAreOrderedByHowSpecificTheyAre(t *testing.T) {
	t.Parallel()
	config := parse(t, yamlFile(shop), yamlFile(gateway("GRPCRoute", "shop", "a", ", port: 9090", ""+
		toPayment("all", "{}")+
		toPayment("regex", "{method: {type: RegularExpression, service: 'a.*'}}")+
		toPayment("only-method", "{method: {method: Charge}}")+
		toPayment("service", "{method: {service: pay.Payment}}")+
		toPayment("method", "{method: {service: pay.Payment, method: Charge}}")+
		toPayment("header", "{method: {service: pay.Payment, method: Charge}, headers: [{name: x, value: y}]}")+
		toPayment("longer", "{method: {service: pay.v1.Payment}}"))))
	const want = "longer header method service only-method regex all"
	if got := ruleNames(t, config, caller, paymentGRPC); got != want {
		t.Errorf("order\n%s\nwant\n%s", got, want)
	}
	if got := ruleNames(t, config, caller, paymentRoutes); got != "default" {
		t.Errorf("routes of the other port: %s", got)
	}
}

func TestRoutesThatAreEquallySpecificAreOrderedByAgeAndName(t *testing.T) {
	t.Parallel()
	aged := func(document, time string) string {
		return strings.Replace(document, "namespace: shop}\nspec", "namespace: shop, creationTimestamp: "+time+"}\nspec", 1)
	}
	const header = "{headers: [{name: %s, value: y}]}"
	match := func(name string) string { return toPayment(name, fmt.Sprintf(header, name)) }
	config := parse(t, yamlFile(shop), yamlFile(
		gateway("HTTPRoute", "shop", "c", "", match("c"))+
			gateway("HTTPRoute", "shop", "b", "", match("b1")+match("b2"))+
			aged(gateway("HTTPRoute", "shop", "d", "", match("d")), "2026-02-01T00:00:00Z")+
			aged(gateway("HTTPRoute", "shop", "e", "", match("e")), "2026-01-01T00:00:00Z")))
	const want = "e d b1 b2 c"
	if got := ruleNames(t, config, caller, paymentRoutes); got != want {
		t.Errorf("order %q, want %q", got, want)
	}
}

func TestRoutesOfTheCallersNamespaceGoBeforeThoseOfTheService(t *testing.T) {
	t.Parallel()
	config := parse(t, yamlFile(shop), yamlFile(
		gateway("HTTPRoute", "shop", "producer", "", toPayment("producer", "{}"))+
			gateway("HTTPRoute", "bank", "consumer", ", port: 8080", toPayment("consumer", "{path: {value: /a}}"))+
			gateway("HTTPRoute", "bank", "more", ", sectionName: http", toPayment("more", "{path: {value: /bb}}"))))
	for namespace, want := range map[string]string{"shop": "producer", "bank": "more consumer", "x": "producer", "": "producer"} {
		if got := ruleNames(t, config, in(namespace), paymentRoutes); got != want {
			t.Errorf("namespace %q: %q, want %q", namespace, got, want)
		}
		if got := ruleNames(t, config, in(namespace), paymentGRPC); got != "producer" {
			t.Errorf("namespace %q, the other port: %q", namespace, got)
		}
		checkResourcesOf(t, config, in(namespace))
	}
}

func TestAGRPCRouteGoesBeforeAnHTTPRoute(t *testing.T) {
	t.Parallel()
	config := parse(t, yamlFile(shop), yamlFile(
		gateway("HTTPRoute", "shop", "everywhere", "", toPayment("http", "{}"))+
			gateway("HTTPRoute", "shop", "loser", ", port: 9090", toPayment("loser", "{}"))+
			gateway("HTTPRoute", "bank", "consumer", ", port: 9090", toPayment("consumer", "{}"))+
			gateway("GRPCRoute", "shop", "winner", ", port: 9090", toPayment("grpc", "{}"))))
	for _, test := range []struct{ namespace, name, want string }{
		{"shop", paymentRoutes, "http"}, {"shop", paymentGRPC, "grpc"}, {"bank", paymentGRPC, "consumer"},
	} {
		if got := ruleNames(t, config, in(test.namespace), test.name); got != test.want {
			t.Errorf("%s of %s: %q, want %q", test.name, test.namespace, got, test.want)
		}
	}
	const why = `is not accepted (Conflicted) for port 9090 of "` + paymentHost + `": GRPCRoute shop/winner (x.yaml:26) is for the same calls, and goes before an HTTPRoute`
	want := []string{
		"x.yaml:6:16: warning: HTTPRoute shop/everywhere: spec.parentRefs[0]: " + why,
		"x.yaml:14:16: warning: HTTPRoute shop/loser: spec.parentRefs[0]: " + why,
	}
	if got := warningsOf(config); !slices.Equal(got, want) {
		t.Errorf("warnings\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	statuses := []string{
		"GRPCRoute shop/winner at Service shop/payment port 9090: Accepted=true (Accepted), ResolvedRefs=true (ResolvedRefs)",
		"HTTPRoute bank/consumer at Service shop/payment port 9090: Accepted=true (Accepted), ResolvedRefs=true (ResolvedRefs)",
		"HTTPRoute shop/everywhere at Service shop/payment: Accepted=true (Accepted): not for every port: GRPCRoute shop/winner goes before it, ResolvedRefs=true (ResolvedRefs)",
		"HTTPRoute shop/loser at Service shop/payment port 9090: Accepted=false (Conflicted): GRPCRoute shop/winner goes before it, ResolvedRefs=true (ResolvedRefs)",
	}
	got := make([]string, len(config.Routes()))
	for i, s := range config.Routes() {
		got[i] = s.String()
	}
	if !slices.Equal(got, statuses) {
		t.Errorf("statuses\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(statuses, "\n"))
	}
}

func TestAServiceWithARouteHasNoOtherRoutes(t *testing.T) {
	t.Parallel()
	config := parse(t, yamlFile(shop), yamlFile(gateway("HTTPRoute", "shop", "a", "", toPayment("a", "{path: {value: /a}}"))))
	if got := ruleNames(t, config, caller, paymentRoutes); got != "a" {
		t.Errorf("routes %q: what matches no rule has no route", got)
	}
}

func TestARouteOfAHostGoesBeforeAVirtualServiceOfAWildcard(t *testing.T) {
	t.Parallel()
	config := parse(t, yamlFile(shop), yamlFile(
		gateway("HTTPRoute", "shop", "a", "", toPayment("a", "{path: {value: /a}}"))+document("VirtualService", "shop", "a", `
  hosts: ["*.svc.cluster.local"]
  http: [{name: wild, route: [{destination: {host: payment, port: {number: 8080}}}]}]
`)))
	for name, want := range map[string]string{paymentRoutes: "a", "outbound|7070||ledger.bank.svc.cluster.local": "wild"} {
		if got := ruleNames(t, config, caller, name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

func TestWhatARouteOfTheGatewayAPICannotMeanIsReported(t *testing.T) {
	t.Parallel()
	config := parse(t, yamlFile(shop), yamlFile(`apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: a, namespace: shop}
spec:
  parentRefs: [{group: "", kind: Service, name: payment, port: 8080}]
  hostnames: [payment.example.com]
  rules: [{matches: [{path: {value: /a}}]}, {backendRefs: [{name: payment, port: 8080, weight: 0}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: b, namespace: bank}
spec: {parentRefs: [{group: "", kind: Service, name: payment, namespace: shop}]}
`))
	want := []string{
		"x.yaml:6:14: warning: HTTPRoute shop/a: spec.hostnames: has no effect on routes of a Service: match the header Host instead",
		"x.yaml:7:11: warning: HTTPRoute shop/a: spec.rules[0].backendRefs: there is no backend with a weight: every request is answered with 500",
		"x.yaml:7:59: warning: HTTPRoute shop/a: spec.rules[1].backendRefs: there is no backend with a weight: every request is answered with 500",
		`x.yaml:12:21: warning: GRPCRoute bank/b: spec.parentRefs[0]: is for port 8080 of "` + paymentHost + `" too, over which no gRPC call is made: set port`,
		"x.yaml:12:1: warning: GRPCRoute bank/b: spec.rules.backendRefs: there is no backend with a weight: every request is answered with 503",
	}
	got := warningsOf(config)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("warnings\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	m, _ := config.Resource(in("bank"), resource.RouteType, paymentGRPC)
	if status := m.(*routev3.RouteConfiguration).VirtualHosts[0].Routes[0].GetDirectResponse().GetStatus(); status != 503 {
		t.Errorf("a GRPCRoute without rules answers %d", status)
	}
}

func TestARedirectHasThePortThatTheGatewayAPIAsksFor(t *testing.T) {
	t.Parallel()
	for redirect, want := range map[string]uint32{
		"scheme: https":                         443,
		"scheme: http":                          80,
		"scheme: https, hostname: a.b":          0,
		"hostname: a.b":                         8080,
		"statusCode: 301":                       0,
		"port: 81":                              81,
		"port: 80, hostname: a.b":               0,
		"port: 80":                              80,
		"port: 80, scheme: https":               80,
		"port: 443, scheme: https, hostname: a": 0,
	} {
		checkRedirectPort(t, 8080, redirect, want)
	}
	// With these the request's own host has no other port, see Envoy's newUri.
	for redirect, want := range map[string]uint32{
		"scheme: https": 0, "scheme: http": 0, "port: 80": 0, "port: 443, scheme: https": 0, "port: 443": 443, "port: 80, scheme: https": 80,
	} {
		checkRedirectPort(t, 80, redirect, want)
	}
	for redirect, want := range map[string]uint32{"scheme: https": 0, "scheme: http": 80, "port: 443, scheme: https": 0} {
		checkRedirectPort(t, 443, redirect, want)
	}
}

// checkRedirectPort is for a redirect of the requests to a port of the service.
func checkRedirectPort(t *testing.T, called int, redirect string, want uint32) {
	t.Helper()
	port := strconv.Itoa(called)
	services := strings.ReplaceAll(shop, "number: 8080", "number: "+port)
	config := parse(t, yamlFile(services), yamlFile(gateway("HTTPRoute", "shop", "a", ", port: "+port,
		"  - {filters: [{type: RequestRedirect, requestRedirect: {"+redirect+"}}]}\n")))
	m, _ := config.Resource(caller, resource.RouteType, "outbound|"+port+"||"+paymentHost)
	if got := m.(*routev3.RouteConfiguration).VirtualHosts[0].Routes[0].GetRedirect().GetPortRedirect(); got != want {
		t.Errorf("port %d, %s: port %d, want %d", called, redirect, got, want)
	}
}

// What is not there fails its own share of the requests, and nothing else.
func TestABackendThatIsNotThereFailsItsShare(t *testing.T) {
	t.Parallel()
	routes := func(kind, port, backends string) []*routev3.Route {
		config := parse(t, yamlFile(shop), yamlFile(gateway(kind, "shop", "a", ", port: "+port,
			"  - {matches: [{headers: [{name: x, value: y}]}], backendRefs: ["+strings.ReplaceAll(backends, "PORT", port)+"]}\n")))
		checkResources(t, config)
		m, _ := config.Resource(caller, resource.RouteType, "outbound|"+port+"||"+paymentHost)
		return m.(*routev3.RouteConfiguration).VirtualHosts[0].Routes
	}
	for _, c := range []struct {
		name, backends string
		share          uint32 // of a million; 0 is none that fails
		forwards       bool
	}{
		{"all are there", "{name: payment, port: PORT}", 0, true},
		{"one of two", "{name: payment, port: PORT}, {name: gone, port: 1}", 500_000, true},
		{"a third", "{name: payment, port: PORT, weight: 2}, {name: gone, port: 1, weight: 1}", 333_333, true},
		{"hardly any", "{name: payment, port: PORT, weight: 1000000}, {name: gone, port: 1, weight: 1}", 1, true},
		{"one without a weight", "{name: payment, port: PORT}, {name: gone, port: 1, weight: 0}", 0, true},
		{"a port", "{name: payment, port: PORT, weight: 3}, {name: payment, port: 1}", 250_000, true},
		{"a kind", "{name: payment, port: PORT, weight: 3}, {kind: Bucket, name: b}", 250_000, true},
		{"all of them", "{name: gone, port: 1}", 0, false},
	} {
		for kind, port := range map[string]string{"HTTPRoute": "8080", "GRPCRoute": "9090"} {
			got := routes(kind, port, c.backends)
			last := got[len(got)-1]
			status := uint32(500)
			if kind == "GRPCRoute" {
				status = 503
			}
			if (last.GetRoute() != nil) != c.forwards || !c.forwards && last.GetDirectResponse().GetStatus() != status {
				t.Errorf("%s: %s: last is %v", kind, c.name, last)
			}
			if want := map[bool]int{true: 2, false: 1}[c.share > 0]; len(got) != want {
				t.Fatalf("%s: %s: %d routes, want %d: %v", kind, c.name, len(got), want, got)
			}
			if c.share == 0 {
				continue
			}
			fraction := got[0].Match.RuntimeFraction.GetDefaultValue()
			if fraction.Numerator != c.share || fraction.Denominator != typev3.FractionalPercent_MILLION ||
				got[0].GetDirectResponse().GetStatus() != status || len(got[0].Match.Headers) != 1 || last.Match.RuntimeFraction != nil {
				t.Errorf("%s: %s: got %v", kind, c.name, got)
			}
		}
	}
}

func TestWhatCannotBeResolvedIsInTheStatus(t *testing.T) {
	t.Parallel()
	config := parse(t, yamlFile(shop), yamlFile(strings.Replace(
		gateway("HTTPRoute", "shop", "a", ", port: 8080", "  - backendRefs: [{name: payment, port: 8080}, {name: gone, port: 1}]\n"),
		"parentRefs: [", "parentRefs: [{name: ingress, namespace: edge}, ", 1)))
	const unresolved = `ResolvedRefs=false (BackendNotFound): no Service or ServiceEntry has the host "gone.shop.svc.cluster.local"`
	want := []string{
		"HTTPRoute shop/a at Gateway edge/ingress: Accepted=false (NoMatchingParent): this is a mesh: it has no gateways, " + unresolved,
		"HTTPRoute shop/a at Service shop/payment port 8080: Accepted=true (Accepted), " + unresolved,
	}
	var got []string
	for _, s := range config.Routes() {
		got = append(got, s.String())
	}
	if !slices.Equal(got, want) {
		t.Errorf("statuses\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// A rule that fails its share does not hide what comes after it.
func TestAFailingShareIsNotForEveryRequest(t *testing.T) {
	t.Parallel()
	config := parse(t, yamlFile(shop), yamlFile(gateway("HTTPRoute", "shop", "a", ", port: 8080",
		"  - {name: all, backendRefs: [{name: gone, port: 1}, {name: payment, port: 8080}]}\n")))
	if got := ruleNames(t, config, caller, paymentRoutes); got != "all all" {
		t.Errorf("routes %q", got)
	}
}
