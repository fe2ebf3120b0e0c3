package offline_test

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"

	"github.com/inboardmesh/inboard/controlplane/istio"
	"github.com/inboardmesh/inboard/discovery/xds"
)

// What the control plane takes for a command operator is what clients take for one:
// neither knows the other, and what only one of them knew would be promised in vain,
// or refused for nothing.
func TestTheControlPlaneAndClientsHaveTheSameCommands(t *testing.T) {
	t.Parallel()
	values := []string{
		"plain", "%%", "%", "100%", "%%%", "%REQ%%", "%req(a)%", "% REQ(a)%", "%REQ(a)", "%REQ(a%", "%()%",
		"%REQ(a):7%", "%REQ(a):0%", "%REQ(a):x%", "%REQ(a):%", "%REQ(a?b)%", "%REQ(:path)%", "%PROTOCOL%-%HOSTNAME%", "%START_TIME(%Y)%",
	}
	var operators []string
	// The operators of Envoy's page on access logging, with an argument where one is
	// needed.
	for name := range strings.FieldsSeq(`REQ(a) RESP(a) TRAILER(a) DYNAMIC_METADATA(a:b) CLUSTER_METADATA(a:b) UPSTREAM_METADATA(a:b)
		FILTER_STATE(a) UPSTREAM_FILTER_STATE(a) QUERY_PARAM(a) QUERY_PARAMS PATH ENVIRONMENT(a) COALESCE(a) FILE_CONTENT(a) CEL(a) METADATA(ROUTE:a:b)
		REQUEST_HEADERS_BYTES RESPONSE_HEADERS_BYTES RESPONSE_TRAILERS_BYTES BYTES_RECEIVED BYTES_SENT BYTES_RETRANSMITTED PACKETS_RETRANSMITTED
		PROTOCOL UPSTREAM_PROTOCOL RESPONSE_CODE RESPONSE_CODE_DETAILS RESPONSE_FLAGS RESPONSE_FLAGS_LONG CONNECTION_TERMINATION_DETAILS
		START_TIME START_TIME_LOCAL EMIT_TIME DURATION COMMON_DURATION(a:b:ms) REQUEST_DURATION REQUEST_TX_DURATION RESPONSE_DURATION RESPONSE_TX_DURATION
		UPSTREAM_HOST UPSTREAM_HOST_NAME UPSTREAM_CLUSTER UPSTREAM_CLUSTER_RAW UPSTREAM_CONNECTION_ID UPSTREAM_REMOTE_ADDRESS
		UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT UPSTREAM_REMOTE_PORT UPSTREAM_LOCAL_ADDRESS UPSTREAM_REQUEST_ATTEMPT_COUNT
		UPSTREAM_TRANSPORT_FAILURE_REASON DOWNSTREAM_REMOTE_ADDRESS DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT DOWNSTREAM_REMOTE_PORT
		DOWNSTREAM_DIRECT_REMOTE_ADDRESS DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT DOWNSTREAM_DIRECT_REMOTE_PORT
		DOWNSTREAM_LOCAL_ADDRESS DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT DOWNSTREAM_LOCAL_PORT DOWNSTREAM_LOCAL_URI_SAN
		DOWNSTREAM_PEER_URI_SAN DOWNSTREAM_PEER_DNS_SAN DOWNSTREAM_PEER_SUBJECT DOWNSTREAM_PEER_CERT DOWNSTREAM_TLS_VERSION DOWNSTREAM_TLS_CIPHER
		CONNECTION_ID STREAM_ID REQUESTED_SERVER_NAME ROUTE_NAME VIRTUAL_CLUSTER_NAME HOSTNAME LOCAL_REPLY_BODY FILTER_CHAIN_NAME TRACE_ID CUSTOM`) {
		values = append(values, "%"+name+"%")
		operator, _, _ := strings.Cut(name, "(")
		operators = append(operators, operator)
	}
	page, err := os.ReadFile("../../docs/lint.md")
	if err != nil {
		t.Fatal(err)
	}
	taken := 0
	for _, value := range values {
		for _, side := range []string{"request", "response"} {
			yaml := services + "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: payment, namespace: shop}\n" +
				fmt.Sprintf("spec: {hosts: [payment], http: [{headers: {%s: {set: {x: %q}}}, route: [{destination: {host: payment}}]}]}\n", side, value)
			_, problems := istio.Parse([]istio.File{{Name: "x.yaml", Data: []byte(yaml)}}, istio.Options{})
			err := checkHeader(t, value, side == "request")
			if (len(problems) == 0) != (err == nil) {
				t.Errorf("%q of a %s: the control plane says %v, clients say %v", value, side, problems, err)
			}
			if len(problems) == 0 {
				taken++
				name, _, _ := strings.Cut(strings.Trim(value, "%"), "(")
				if slices.Contains(operators, name) && !bytes.Contains(page, []byte("`"+name)) {
					t.Errorf("docs/lint.md does not have %s", name)
				}
			} else if want := "spec.http[0].headers." + side + ".set[x]"; problems[0].Field != want {
				t.Errorf("%q of a %s: %v is not of %s", value, side, problems, want)
			}
		}
	}
	if taken < 30 {
		t.Errorf("only %d values are taken", taken)
	}
}

// checkHeader asks clients about a value of a header.
func checkHeader(t *testing.T, value string, request bool) error {
	t.Helper()
	route := &routev3.Route{
		Match:  &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
		Action: &routev3.Route_Route{Route: &routev3.RouteAction{ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: "a"}}},
	}
	header := []*corev3.HeaderValueOption{{Header: &corev3.HeaderValue{Key: "x", Value: value}}}
	if request {
		route.RequestHeadersToAdd = header
	} else {
		route.ResponseHeadersToAdd = header
	}
	resource, err := proto.Marshal(&routev3.RouteConfiguration{
		Name: "a", VirtualHosts: []*routev3.VirtualHost{{Name: "a", Domains: []string{"*"}, Routes: []*routev3.Route{route}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return xds.Check("type.googleapis.com/envoy.config.route.v3.RouteConfiguration", resource)
}
