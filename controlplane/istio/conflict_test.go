package istio_test

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	resource "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/google/go-cmp/cmp"

	"github.com/inboardmesh/inboard/controlplane/istio"
)

// made adds to the documents of a namespace when they were made.
func made(created, yaml string) string {
	return strings.ReplaceAll(yaml, "metadata: {", "metadata: {creationTimestamp: \""+created+"\", ")
}

var placeOfObject = regexp.MustCompile(` \(x\.yaml:[0-9]+\)`)

// withoutPlaces leaves out where the objects stand that a message names.
func withoutPlaces(message string) string { return placeOfObject.ReplaceAllString(message, "") }

const (
	early = "2026-01-01T00:00:00Z"
	late  = "2026-02-01T00:00:00Z"
)

// paymentVS is a VirtualService of payment with a route of its own name.
func paymentVS(namespace, name, more string) string {
	return document("VirtualService", namespace, name, more+"  hosts: ["+paymentHost+"]\n  http: [{name: "+name+", route: [{destination: {host: "+paymentHost+"}}]}]\n")
}

// paymentHTTPRoute is the same with an HTTPRoute.
func paymentHTTPRoute(namespace, name string) string {
	return gateway("HTTPRoute", namespace, name, ", port: 8080", toPayment(name, "{}"))
}

// routeConflicts are documents of several namespaces that are about one host. None of them is
// wrong by itself: it is decided, as in Istio, and reported to who loses.
var routeConflicts = []struct {
	name, yaml string
	// want are the routes of nodes in the namespaces shop, bank and evil.
	want     [3]string
	warnings []string
}{
	{
		"a route for the clients of its namespace beside a VirtualService",
		paymentVS("shop", "vs", "") + paymentHTTPRoute("evil", "r"),
		[3]string{"vs", "vs", "r"},
		[]string{`VirtualService shop/vs: spec.hosts[0]: has no effect on port 8080 of "` + paymentHost + `" in namespace "evil": HTTPRoute evil/r goes before it`},
	},
	{
		"a route for all clients beside a VirtualService of others",
		paymentVS("evil", "vs", "") + paymentHTTPRoute("shop", "r"),
		[3]string{"r", "r", "r"},
		[]string{`VirtualService evil/vs: spec.hosts[0]: has no effect on port 8080 of "` + paymentHost + `": HTTPRoute shop/r goes before it`},
	},
	{
		"a VirtualService that is older than the route",
		made(early, paymentVS("evil", "vs", "")) + made(late, paymentHTTPRoute("shop", "r")),
		[3]string{"vs", "vs", "vs"},
		[]string{`HTTPRoute shop/r: spec.parentRefs[0]: is not accepted (Conflicted) for port 8080 of "` + paymentHost + `": VirtualService evil/vs is for the same calls, and goes before it`},
	},
	{
		"a route that is older than the VirtualService",
		made(late, paymentVS("shop", "vs", "")) + made(early, paymentHTTPRoute("shop", "r")),
		[3]string{"r", "r", "r"},
		[]string{`VirtualService shop/vs: spec.hosts[0]: has no effect on port 8080 of "` + paymentHost + `": HTTPRoute shop/r goes before it`},
	},
	{
		"a VirtualService that only its namespace sees",
		paymentVS("bank", "vs", "  exportTo: [.]\n") + paymentHTTPRoute("shop", "r"),
		[3]string{"r", "vs", "r"},
		[]string{`HTTPRoute shop/r: spec.parentRefs[0]: is not accepted (Conflicted) for port 8080 of "` + paymentHost + `": VirtualService bank/vs is for the same calls, and goes before it`},
	},
	{
		"VirtualServices of two namespaces, of unknown age",
		paymentVS("evil", "a", "") + "---\n" + paymentVS("shop", "b", ""),
		[3]string{"b", "b", "b"},
		[]string{`VirtualService evil/a: spec.hosts[0]: has no effect on "` + paymentHost + `": VirtualService shop/b goes before it, which is of the namespace of the service, because it is not known which is older`},
	},
	{
		"VirtualServices of two namespaces, of which the older is not the service's",
		made(early, paymentVS("evil", "a", "")) + "---\n" + made(late, paymentVS("shop", "b", "")),
		[3]string{"a", "a", "a"},
		[]string{`VirtualService shop/b: spec.hosts[0]: has no effect on "` + paymentHost + `": the older VirtualService evil/a wins`},
	},
	{
		"VirtualServices of strangers, of unknown age",
		paymentVS("evil", "b", "") + "---\n" + paymentVS("bank", "a", ""),
		[3]string{"a", "a", "a"},
		[]string{`VirtualService evil/b: spec.hosts[0]: has no effect on "` + paymentHost + `": VirtualService bank/a goes before it by its name, because it is not known which is older`},
	},
	{
		"VirtualServices of the same age",
		made(early, paymentVS("shop", "b", "")+"---\n"+paymentVS("shop", "a", "")),
		[3]string{"a", "a", "a"},
		[]string{`VirtualService shop/b: spec.hosts[0]: has no effect on "` + paymentHost + `": VirtualService shop/a goes before it by its name, because it is not known which is older`},
	},
}

func TestRoutesOfSeveralNamespacesAreRankedAsInIstio(t *testing.T) {
	t.Parallel()
	for _, c := range routeConflicts {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			config := parse(t, yamlFile(shop), yamlFile(c.yaml))
			for i, namespace := range []string{"shop", "bank", "evil"} {
				if got := ruleNames(t, config, in(namespace), paymentRoutes); got != c.want[i] {
					t.Errorf("namespace %s: routes %q, want %q", namespace, got, c.want[i])
				}
			}
			var got []string
			for _, w := range config.Warnings() {
				got = append(got, w.Object+": "+w.Field+": "+withoutPlaces(w.Message))
			}
			if diff := cmp.Diff(c.warnings, got); diff != "" {
				t.Errorf("warnings (-want +got):\n%s", diff)
			}
			lost := strings.HasPrefix(c.warnings[0], "HTTPRoute")
			for _, s := range config.Routes() {
				if mentioned := strings.Contains(s.String(), "goes before it"); mentioned != lost {
					t.Errorf("status %s", s)
				}
			}
		})
	}
}

// A VirtualService for some callers leaves the others to the route behind it.
func TestARouteIsForWhomAVirtualServiceBeforeItLeaves(t *testing.T) {
	t.Parallel()
	config := parse(t, yamlFile(shop), yamlFile(document("VirtualService", "bank", "some", `
  hosts: [`+paymentHost+`]
  exportTo: [.]
  http: [{name: some, match: [{sourceLabels: {app: teller}}], route: [{destination: {host: `+paymentHost+`}}]}]
`)+paymentHTTPRoute("shop", "r")))
	for labels, want := range map[string]string{"teller": "some", "other": "r"} {
		if got := ruleNames(t, config, istio.Node{Namespace: "bank", Labels: map[string]string{"app": labels}}, paymentRoutes); got != want {
			t.Errorf("%s: routes %q, want %q", labels, got, want)
		}
	}
	if got := warningsOf(config); len(got) > 0 {
		t.Errorf("warnings %q", got)
	}
}

// Nobody takes a host from whom it is named after, nor from who had it before.
func TestAHostOfSeveralNamespacesIsThatOfItsOwner(t *testing.T) {
	t.Parallel()
	entry := func(namespace, host string, port int) string {
		return document("ServiceEntry", namespace, "entry", fmt.Sprintf("  hosts: [%s]\n  resolution: STATIC\n  ports: [{name: http, number: %d, protocol: HTTP}]\n", host, port))
	}
	const home, outside = "cart.shop.svc.cluster.local", "api.example.com"
	for _, c := range []struct{ name, host, yaml, want, warning string }{
		{
			"after whom it is named", home, made(early, entry("evil", home, 1)) + "---\n" + made(late, entry("shop", home, 2)), home + ":2",
			`"` + home + `" has no effect in other namespaces than "evil": it is the name of ServiceEntry shop/entry`,
		},
		{
			"who had it first", outside, made(late, entry("evil", outside, 1)) + "---\n" + made(early, entry("shop", outside, 2)), outside + ":2",
			`"` + outside + `" has no effect in other namespaces than "evil": the older ServiceEntry shop/entry wins`,
		},
	} {
		config := parse(t, yamlFile(c.yaml))
		for namespace, want := range map[string]string{"bank": c.want, "shop": c.want, "evil": c.host + ":1"} {
			if got := config.Names(in(namespace), resource.ListenerType); !slices.Equal(got, []string{want}) {
				t.Errorf("%s: namespace %s: %q, want %q", c.name, namespace, got, want)
			}
		}
		if got := config.Warnings(); len(got) != 1 || got[0].Object != "ServiceEntry evil/entry" || withoutPlaces(got[0].Message) != c.warning {
			t.Errorf("%s: warnings %v", c.name, got)
		}
	}
}
