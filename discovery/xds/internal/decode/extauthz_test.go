package decode

import (
	"maps"
	"strings"
	"testing"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/inboardmesh/inboard/discovery"
)

func TestExtAuthzDefaults(t *testing.T) {
	t.Parallel()
	_, l, err := Listener(marshal(t, fromJSON[listenerv3.Listener](t, inboundWith("ext_authz.v3.ExtAuthz", `"grpcService": {"envoyGrpc": {"clusterName": "c"}}`))))
	if err != nil {
		t.Fatal(err)
	}
	got := l.Inbound.Default.Filters[0].Config.(*discovery.ExtAuthz)
	if got.StatusOnError != 403 || got.GRPC.Timeout != defaultAuthzTimeout || got.FailureModeAllow || got.Body != nil || got.AllowedHeaders != nil || got.PerMillion != nil {
		t.Errorf("%+v", got)
	}
}

func TestExtAuthzConfigurationsThatAreRefused(t *testing.T) {
	t.Parallel()
	const service = `"grpcService": {"envoyGrpc": {"clusterName": "c"}}, `
	http := func(uri, more string) string {
		return `"httpService": {"serverUri": {"uri": "` + uri + `", "cluster": "c", "timeout": "1s"}` + more + `}`
	}
	for _, tt := range []struct{ name, config, at, want string }{
		{"no service", `"failureModeAllow": true`, "", "must have grpc_service or http_service"},
		{"a service outside the mesh", `"grpcService": {"googleGrpc": {"targetUri": "a.test", "statPrefix": "x"}}`, "grpc_service.google_grpc", "name a cluster"},
		{"no time", `"grpcService": {"envoyGrpc": {"clusterName": "c"}, "timeout": "0s"}`, "grpc_service.timeout", "must not be 0"},
		{"an error that is a success", service + `"statusOnError": {"code": "OK"}`, "status_on_error.code", "no status of a failure"},
		{"a shadow", service + `"shadowMode": true`, "shadow_mode", "not supported"},
		{"rules about changes", service + `"decoderHeaderMutationRules": {}`, "decoder_header_mutation_rules", "not supported"},
		{"an old API", service + `"transportApiVersion": "V2"`, "transport_api_version", "use V3"},
		{"a huge body", service + `"withRequestBody": {"maxRequestBytes": 4000000000}`, "with_request_body.max_request_bytes", "is too much"},
		{"a URI that is none", http("authz", ""), "http_service.server_uri.uri", "must begin with http"},
		{"two paths", http("http://a.test", `, "pathPrefix": "/a", "pathOverride": "/b"`), "http_service.path_override", "must not be set beside path_prefix"},
		{"a path that is none", http("http://a.test", `, "pathPrefix": "a"`), "http_service.path_prefix", "must begin with /"},
		{"a computed header", http("http://a.test", `, "authorizationRequest": {"headersToAdd": [{"key": "x", "value": "%REQ(a)%"}]}`), "http_service.authorization_request.headers_to_add[0].value", "is not a plain header value"},
		{"retries", http("http://a.test", `, "retryPolicy": {}`), "http_service.retry_policy", "not supported"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, _, err := Listener(marshal(t, fromJSON[listenerv3.Listener](t, inboundWith("ext_authz.v3.ExtAuthz", tt.config))))
			at := "default_filter_chain.filters[0].typed_config.http_filters[0].typed_config"
			if tt.at != "" {
				at += "." + tt.at
			}
			if err == nil || !strings.Contains(err.Error(), at) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v\nwant %s: %s", err, at, tt.want)
			}
		})
	}
}

func TestExtAuthzOfRoutes(t *testing.T) {
	t.Parallel()
	_, table, err := RouteConfiguration(marshal(t, fromJSON[routev3.RouteConfiguration](t, authzRoutesFixture)))
	if err != nil {
		t.Fatal(err)
	}
	routes := table.VirtualHosts[0].Routes
	a := routes[0].Filters["grpc"].Config.(*discovery.ExtAuthzPerRoute)
	if want := map[string]string{"host": "all", "route": "a"}; !maps.Equal(a.ContextExtensions, want) || a.Body.MaxBytes != 5 {
		t.Errorf("the first route: %+v", a)
	}
	if b := routes[1].Filters["grpc"].Config.(*discovery.ExtAuthzPerRoute); !b.NoBody || b.ContextExtensions["route"] != "none" {
		t.Errorf("the second route: %+v", b)
	}
	if c := routes[2].Filters["grpc"]; !c.Disabled || c.Config != nil {
		t.Errorf("the third route: %+v", c)
	}
}
