package istio_test

import (
	"slices"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	resource "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/inboardmesh/inboard/controlplane/istio"
)

// parsed translates documents without a mistake.
func parsed(t *testing.T, yaml string, opts istio.Options) *istio.Config {
	t.Helper()
	config, problems := istio.Parse([]istio.File{{Name: "x.yaml", Data: []byte(yaml)}}, opts)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	return config
}

func resourceOf[M proto.Message](t *testing.T, c *istio.Config, typeURL, name string) M {
	t.Helper()
	found, ok := c.Resource(istio.Node{Namespace: "default"}, typeURL, name)
	if !ok {
		t.Fatalf("no resource %q", name)
	}
	return found.(M)
}

func contextOf[M proto.Message](t *testing.T, packed *anypb.Any, context M) M {
	t.Helper()
	if err := packed.UnmarshalTo(context); err != nil {
		t.Fatal(err)
	}
	return context
}

const oneService = `
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: a}
spec:
  hosts: [a.example.com]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{name: http, number: 80, protocol: HTTP}]
  endpoints:
  - {address: 10.0.0.1, serviceAccount: a}
`

const (
	oneCluster = "outbound|80||a.example.com"
	oneInbound = "xds.istio.io/grpc/lds/inbound/0.0.0.0:80"
)

// TestAutoMutualTLSIsByEndpoint: one that offers none is spoken to in the clear,
// and nobody else is.
func TestAutoMutualTLSIsByEndpoint(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, more string }{
		{"by its label", "  - {address: 10.0.0.2, serviceAccount: a, labels: {security.istio.io/tlsMode: disabled}}\n"},
		{"without a service account", "  - {address: 10.0.0.2}\n"},
		{"by PeerAuthentication", `  - {address: 10.0.0.2, serviceAccount: a, labels: {app: old}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: old}
spec: {selector: {matchLabels: {app: old}}, mtls: {mode: DISABLE}}
`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			config := parsed(t, oneService+tt.more, istio.Options{})
			c := resourceOf[*clusterv3.Cluster](t, config, resource.ClusterType, oneCluster)
			matches := c.GetTransportSocketMatches()
			if len(matches) != 2 || c.GetTransportSocket().GetName() != "envoy.transport_sockets.tls" {
				t.Fatalf("matches %v beside %v", matches, c.GetTransportSocket())
			}
			if got := matches[0]; got.GetMatch().GetFields()["tlsMode"].GetStringValue() != "istio" || got.GetTransportSocket().GetName() != "envoy.transport_sockets.tls" {
				t.Errorf("the first match is %v", got)
			}
			if got := matches[1]; len(got.GetMatch().GetFields()) > 0 || got.GetTransportSocket().GetName() != "envoy.transport_sockets.raw_buffer" {
				t.Errorf("the second match is %v", got)
			}
			modes := make(map[string]string)
			for _, locality := range resourceOf[*endpointv3.ClusterLoadAssignment](t, config, resource.EndpointType, oneCluster).GetEndpoints() {
				for _, e := range locality.GetLbEndpoints() {
					mode := e.GetMetadata().GetFilterMetadata()["envoy.transport_socket_match"].GetFields()["tlsMode"].GetStringValue()
					modes[e.GetEndpoint().GetAddress().GetSocketAddress().GetAddress()] = mode
				}
			}
			if modes["10.0.0.1"] != "istio" || modes["10.0.0.2"] != "" || len(modes) != 2 {
				t.Errorf("modes %v", modes)
			}
		})
	}
}

func TestTrustDomainAliases(t *testing.T) {
	t.Parallel()
	config := parsed(t, oneService, istio.Options{TrustDomain: "new.local", TrustDomainAliases: []string{"old.local"}})
	names := func(c *tlsv3.CommonTlsContext) (names []string) {
		for _, m := range c.GetValidationContext().GetMatchSubjectAltNames() {
			names = append(names, m.GetExact()+m.GetPrefix())
		}
		return names
	}
	c := resourceOf[*clusterv3.Cluster](t, config, resource.ClusterType, oneCluster)
	client := contextOf(t, c.GetTransportSocket().GetTypedConfig(), &tlsv3.UpstreamTlsContext{})
	want := []string{"spiffe://new.local/ns/default/sa/a", "spiffe://old.local/ns/default/sa/a"}
	if got := names(client.GetCommonTlsContext()); !slices.Equal(got, want) {
		t.Errorf("clients expect %q, want %q", got, want)
	}
	l := resourceOf[*listenerv3.Listener](t, config, resource.ListenerType, oneInbound)
	server := contextOf(t, l.GetFilterChains()[0].GetTransportSocket().GetTypedConfig(), &tlsv3.DownstreamTlsContext{})
	want = []string{"spiffe://new.local/", "spiffe://old.local/"}
	if got := names(server.GetCommonTlsContext()); !slices.Equal(got, want) {
		t.Errorf("servers accept %q, want %q", got, want)
	}
}

func TestTLSToTheOutside(t *testing.T) {
	t.Parallel()
	type name struct {
		kind  tlsv3.SubjectAltNameMatcher_SanType
		value string
	}
	tests := []struct {
		name, tls     string
		sni           string
		names         []name
		roots, client string // provider instances; "" are the system's roots, and no certificate
	}{
		{"SIMPLE", "mode: SIMPLE", "a.example.com", []name{{tlsv3.SubjectAltNameMatcher_DNS, "a.example.com"}}, "", ""},
		{"SIMPLE by another name", "mode: SIMPLE, sni: b.example.com", "b.example.com", []name{{tlsv3.SubjectAltNameMatcher_DNS, "b.example.com"}}, "", ""},
		{
			"SIMPLE with names of each kind", `mode: SIMPLE, subjectAltNames: [c.example.com, 10.0.0.1, "spiffe://td/a"]`, "a.example.com",
			[]name{
				{tlsv3.SubjectAltNameMatcher_DNS, "c.example.com"}, {tlsv3.SubjectAltNameMatcher_IP_ADDRESS, "10.0.0.1"},
				{tlsv3.SubjectAltNameMatcher_URI, "spiffe://td/a"},
			}, "", "",
		},
		{"SIMPLE with roots", "mode: SIMPLE, credentialName: partner", "a.example.com", []name{{tlsv3.SubjectAltNameMatcher_DNS, "a.example.com"}}, "partner", ""},
		{"MUTUAL", "mode: MUTUAL, credentialName: partner", "a.example.com", []name{{tlsv3.SubjectAltNameMatcher_DNS, "a.example.com"}}, "partner", "partner"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			config := parsed(t, oneService+`---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: a}
spec: {host: a.example.com, trafficPolicy: {tls: {`+tt.tls+`}}}
`, istio.Options{})
			c := resourceOf[*clusterv3.Cluster](t, config, resource.ClusterType, oneCluster)
			context := contextOf(t, c.GetTransportSocket().GetTypedConfig(), &tlsv3.UpstreamTlsContext{})
			validation := context.GetCommonTlsContext().GetValidationContext()
			var names []name
			for _, m := range validation.GetMatchTypedSubjectAltNames() {
				names = append(names, name{m.GetSanType(), m.GetMatcher().GetExact()})
			}
			if context.GetSni() != tt.sni || !slices.Equal(names, tt.names) {
				t.Errorf("SNI %q, names %v", context.GetSni(), names)
			}
			if got := validation.GetCaCertificateProviderInstance().GetInstanceName(); got != tt.roots || (validation.GetSystemRootCerts() != nil) != (got == "") {
				t.Errorf("roots of %q beside %v", got, validation.GetSystemRootCerts())
			}
			if got := context.GetCommonTlsContext().GetTlsCertificateProviderInstance().GetInstanceName(); got != tt.client {
				t.Errorf("certificate of %q", got)
			}
		})
	}
}
