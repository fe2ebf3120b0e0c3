package istio_test

import (
	"slices"
	"strings"
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	resource "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
)

// What the VirtualService that delegates says holds for the rules of its delegates,
// unless they say it themselves.
func TestAnnotationsHoldForTheRoutesThatLeadToADestination(t *testing.T) {
	t.Parallel()
	annotated := func(namespace, name, annotations, spec string) string {
		text := document("VirtualService", namespace, name, spec)
		return strings.Replace(text, "name: "+name, "annotations: {"+annotations+"}, name: "+name, 1)
	}
	config := parse(t, yamlFile(shop),
		yamlFile(annotated("shop", "root", `inboard.hedge: "delay: 1s", inboard.deadline: "minimum: 2s"`, `
  hosts: [payment]
  http:
  - {match: [{uri: {prefix: /a}}], delegate: {name: a, namespace: bank}}
  - {name: redirect, match: [{uri: {prefix: /b}}], redirect: {uri: /c}}
  - {name: rest, route: [{destination: {host: payment}}]}
`)+annotated("bank", "a", `inboard.hedge: "{delay: 3s, maxAttempts: 2}"`, `
  http:
  - {name: leaf, route: [{destination: {host: ledger}}]}
`)))
	m, _ := config.Resource(caller, resource.RouteType, paymentRoutes)
	var got []string
	for _, r := range m.(*routev3.RouteConfiguration).VirtualHosts[0].Routes {
		metadata := r.GetMetadata().GetFilterMetadata()
		hedge, minimum := metadata["inboard.hedge"].GetFields(), metadata["inboard.deadline"].GetFields()
		got = append(got, strings.Join([]string{r.Name, hedge["delay"].GetStringValue(), minimum["minimum"].GetStringValue()}, " "))
	}
	want := []string{"leaf 3s 2s", "redirect  ", "rest 1s 2s"}
	if !slices.Equal(got, want) {
		t.Errorf("routes %q, want %q", got, want)
	}
}
