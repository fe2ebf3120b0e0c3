package decode

import (
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/google/go-cmp/cmp"

	"github.com/inboardmesh/inboard/discovery"
)

const mirrorsFixture = `{
  "name": "r",
  "requestMirrorPolicies": [{"cluster": "table"}],
  "virtualHosts": [
    {"name": "plain", "domains": ["plain"], "typedPerFilterConfig": {"fault": {"@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault",
      "delay": {"headerDelay": {}, "percentage": {"numerator": 5}}, "abort": {"headerAbort": {}, "percentage": {"numerator": 5, "denominator": "MILLION"}}},
      "cors": {"@type": "type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors"},
      "policy": {"@type": "type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy",
        "allowOriginStringMatch": [{"exact": "https://shop.example"}], "allowMethods": "GET", "allowHeaders": "x-a", "exposeHeaders": "x-b", "maxAge": "60",
        "allowCredentials": true, "filterEnabled": {"defaultValue": {"numerator": 50}}, "allowPrivateNetworkAccess": true,
        "forwardNotMatchingPreflights": false},
      "shadowed": {"@type": "type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy", "shadowEnabled": {"defaultValue": {"numerator": 50}}}},
       "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "v1"}}]},
    {"name": "host", "domains": ["host"], "requestMirrorPolicies": [{"cluster": "host"}], "routes": [
      {"match": {"prefix": "/"}, "route": {"cluster": "v1"}},
      {"match": {"prefix": "/own"}, "route": {"cluster": "v1", "requestMirrorPolicies": [
        {"cluster": "own", "runtimeFraction": {"defaultValue": {"numerator": 7}}, "hostRewriteLiteral": "shadow.shop"},
        {"clusterHeader": "X-Shadow", "disableShadowHostSuffixAppend": true},
        {"cluster": "never", "runtimeFraction": {"defaultValue": {}}}
      ]}}
    ]}
  ]
}`

func TestBU8_TheMostSpecificMirrorsHold(t *testing.T) {
	t.Parallel()
	_, table, err := RouteConfiguration(marshal(t, fromJSON[routev3.RouteConfiguration](t, mirrorsFixture)))
	if err != nil {
		t.Fatal(err)
	}
	got := make([][]discovery.Mirror, 0, 3)
	for _, host := range table.VirtualHosts {
		for _, route := range host.Routes {
			got = append(got, route.Forward.Mirrors)
		}
	}
	want := [][]discovery.Mirror{
		{{Cluster: "table", PerMillion: 1_000_000}},
		{{Cluster: "host", PerMillion: 1_000_000}},
		{{Cluster: "own", PerMillion: 70_000, Host: "shadow.shop"}, {Header: "x-shadow", PerMillion: 1_000_000, KeepHost: true}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("mirrors (-want +got):\n%s", diff)
	}
}

func TestBU8_BadMirrors(t *testing.T) {
	t.Parallel()
	_, _, err := RouteConfiguration(marshal(t, fromJSON[routev3.RouteConfiguration](t, `{"name": "r", "virtualHosts": [{"name": "a", "domains": ["*"], "routes": [
		{"match": {"prefix": "/"}, "route": {"cluster": "c", "requestMirrorPolicies": [
			{}, {"cluster": "a", "clusterHeader": "b"}, {"cluster": "a", "traceSampled": true}, {"cluster": "a", "hostRewriteLiteral": "a/b c"},
			{"cluster": "a", "requestHeadersMutations": [{"remove": "x"}]}
		]}}]}]}`)))
	const in = "virtual_hosts[0].routes[0].route.request_mirror_policies"
	wantErrors(t, err,
		in+"[2].trace_sampled: not supported with another value than zero",
		in+"[4].request_headers_mutations: not supported: change the headers of the route, which its copies have as well",
		in+"[0].cluster: must not be empty unless cluster_header is set",
		in+"[1].cluster_header: must not be set beside cluster",
		in+`[3].host_rewrite_literal: "a/b c" is not a valid host`,
	)
}
