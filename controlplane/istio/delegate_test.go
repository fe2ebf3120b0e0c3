package istio_test

import (
	"slices"
	"strings"
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	resource "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/inboardmesh/inboard/controlplane/istio"
)

// root delegates what begins with /a to shop/a.
func root(rule string) string {
	return document("VirtualService", "shop", "root", "  hosts: [payment]\n  http:\n  - "+rule+"\n  - {name: rest, route: [{destination: {host: payment}}]}")
}

func TestDelegatesAreMergedAsInIstio(t *testing.T) {
	t.Parallel()
	config := parse(t, yamlFile(shop), yamlFile(root(`name: root
    match:
    - {name: m, uri: {prefix: /a}, headers: {x: {exact: "1"}}, port: 8080}
    delegate: {name: a, namespace: bank}
    timeout: 3s
    retries: {attempts: 0}
    headers: {request: {set: {from: root}}}
    rewrite: {uri: /root}
`)+document("VirtualService", "bank", "a", `
  http:
  - name: leaf
    match: [{name: n, uri: {prefix: /a/b}, headers: {y: {exact: "2"}}}, {uri: {exact: /a}, method: {exact: GET}}]
    route: [{destination: {host: ledger}}]
    timeout: 1s
  - route: [{destination: {host: ledger}}]
    headers: {request: {set: {from: leaf}}}
`)))
	m, _ := config.Resource(caller, resource.RouteType, paymentRoutes)
	var got []string
	for _, r := range m.(*routev3.RouteConfiguration).VirtualHosts[0].Routes {
		got = append(got, summary(t, r))
	}
	want := []string{
		`root-leaf.m-n /a/b [x y] 1s root /root outbound|7070||ledger.bank.svc.cluster.local`,
		`root-leaf.m =/a [x :method] 1s root /root outbound|7070||ledger.bank.svc.cluster.local`,
		`root.m /a [x] 3s leaf /root outbound|7070||ledger.bank.svc.cluster.local`,
		`rest / [] 0s   outbound|8080||` + paymentHost,
	}
	if !slices.Equal(got, want) {
		t.Errorf("routes\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if got := warningsOf(config); len(got) > 0 {
		t.Errorf("warnings %q", got)
	}
	m, _ = config.Resource(caller, resource.RouteType, "outbound|9090||"+paymentHost)
	if routes := m.(*routev3.RouteConfiguration).VirtualHosts[0].Routes; len(routes) != 1 {
		t.Errorf("%d routes on the other port, want the last only", len(routes))
	}
}

// A rule may have one field or the other; what a delegate says of one and its root of
// the other, both apply.
func TestADelegateHasTheMirrorsOfBoth(t *testing.T) {
	t.Parallel()
	config := parse(t, yamlFile(shop), yamlFile(root(`mirror: {host: ledger.bank.svc.cluster.local}
    mirrorPercentage: {value: 20}
    delegate: {name: a, namespace: bank}
`)+document("VirtualService", "bank", "a", `
  http:
  - route: [{destination: {host: ledger}}]
    mirrors: [{destination: {host: ledger}, percentage: {value: 10}}]
`)))
	m, _ := config.Resource(caller, resource.RouteType, paymentRoutes)
	var got []uint32
	for _, policy := range m.(*routev3.RouteConfiguration).VirtualHosts[0].Routes[0].GetRoute().RequestMirrorPolicies {
		got = append(got, policy.RuntimeFraction.DefaultValue.Numerator)
	}
	if want := []uint32{200_000, 100_000}; !slices.Equal(got, want) {
		t.Errorf("mirrors of %d per million, want %d", got, want)
	}
}

// summary is what the test looks at of a route.
func summary(t *testing.T, r *routev3.Route) string {
	t.Helper()
	path := r.Match.GetPrefix()
	if r.Match.GetPath() != "" {
		path = "=" + r.Match.GetPath()
	}
	var headers []string
	for _, h := range r.Match.Headers {
		headers = append(headers, h.Name)
	}
	var set []string
	for _, h := range r.RequestHeadersToAdd {
		set = append(set, h.Header.Value)
	}
	action := r.GetRoute()
	timeout, err := protojson.Marshal(action.GetTimeout())
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join([]string{
		r.Name, path, "[" + strings.Join(headers, " ") + "]", strings.Trim(string(timeout), `"`), strings.Join(set, ","), action.GetPrefixRewrite(), clusterOf(r),
	}, " ")
}

func TestADelegatesRuleOutsideOfItsRootHasNoEffect(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, root, leaf string
		inside           bool
	}{
		{"a longer prefix", "uri: {prefix: /a}", "uri: {prefix: /a/b}", true},
		{"an exact path in a prefix", "uri: {prefix: /a}", "uri: {exact: /ab}", true},
		{"a shorter prefix", "uri: {prefix: /a/b}", "uri: {prefix: /a}", false},
		{"another exact path", "uri: {exact: /a}", "uri: {exact: /b}", false},
		{"a prefix in an exact path", "uri: {exact: /a}", "uri: {prefix: /a}", false},
		{"an expression beside anything", "uri: {prefix: /a}", "uri: {regex: /a.*}", false},
		{"anything beside an expression", "uri: {regex: /a.*}", "uri: {exact: /a}", false},
		{"an expression alone", "uri: {regex: /a.*}", "method: {exact: GET}", true},
		{"the same header", "headers: {x: {exact: a}}", "headers: {x: {exact: a}}", true},
		{"another value of a header", "headers: {x: {exact: a}}", "headers: {x: {exact: b}}", false},
		{"the same header to be without", "withoutHeaders: {x: {prefix: a}}", "withoutHeaders: {x: {exact: b}}", false},
		{"another value of a parameter", "queryParams: {x: {exact: a}}", "queryParams: {x: {exact: b}}", false},
		{"another method", "method: {exact: GET}", "method: {exact: PUT}", false},
		{"another scheme", "scheme: {exact: http}", "scheme: {exact: https}", false},
		{"another authority", "authority: {prefix: pay}", "authority: {prefix: led}", false},
		{"another case", "uri: {prefix: /a}, ignoreUriCase: true", "uri: {prefix: /a}", false},
		{"another port", "port: 8080", "port: 9090", false},
		{"the same port", "port: 8080", "port: 8080", true},
		{"another label", "sourceLabels: {a: b}", "sourceLabels: {a: c}", false},
		{"a further label", "sourceLabels: {a: b}", "sourceLabels: {c: d}", true},
		{"any namespace in one", "sourceNamespace: a", "uri: {prefix: /a}", false},
		{"one namespace in any", "uri: {prefix: /a}", "sourceNamespace: a", true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			config := parse(t, yamlFile(shop), yamlFile(root("match: [{"+test.root+"}]\n    delegate: {name: a}")+
				document("VirtualService", "shop", "a", "  http:\n  - match: [{"+test.leaf+"}]\n    route: [{destination: {host: payment, port: {number: 8080}}}]")))
			want := []string{`x.yaml:17:13: warning: VirtualService shop/a: spec.http[0].match[0]: has no effect: it is not within the match of spec.http[0] of VirtualService shop/root (x.yaml:8), which delegates to it`}
			if test.inside {
				want = nil
			}
			if got := warningsOf(config); !slices.Equal(got, want) {
				t.Errorf("warnings %q, want %q", got, want)
			}
		})
	}
}

func TestADelegateThatNobodyDelegatesToIsReported(t *testing.T) {
	t.Parallel()
	config := parse(t, yamlFile(shop), yamlFile(document("VirtualService", "shop", "a", "  http: [{route: [{destination: {host: payment}}]}]")))
	want := []string{"x.yaml:6:3: warning: VirtualService shop/a: spec: has no hosts, and no VirtualService delegates to it: it has no effect"}
	if got := warningsOf(config); !slices.Equal(got, want) {
		t.Errorf("warnings %q, want %q", got, want)
	}
	_, problems := istio.Parse([]istio.File{{Name: "shop.yaml", Data: []byte(shop)}, yamlFile(document("VirtualService", "shop", "a", "  http: [{route: [{destination: {host: nobody}}]}]"))}, istio.Options{})
	if len(problems) != 1 {
		t.Errorf("problems %v, want one: a delegate that is not used is checked too", problems)
	}
}
