package decode

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	aggregatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/aggregate/v3"
	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	cswrrv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/client_side_weighted_round_robin/v3"
	commonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/common/v3"
	leastrequestv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/least_request/v3"
	maglevv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/maglev/v3"
	pickfirstv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/pick_first/v3"
	randomv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/random/v3"
	subsettingv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/random_subsetting/v3"
	ringhashv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/ring_hash/v3"
	roundrobinv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/round_robin/v3"
	subsetv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/subset/v3"
	wrrlocalityv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/wrr_locality/v3"
	caresv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/network/dns_resolver/cares/v3"
	getaddrinfov3 "github.com/envoyproxy/go-control-plane/envoy/extensions/network/dns_resolver/getaddrinfo/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/proto"
)

var update = flag.Bool("update", false, "rewrite the tables of docs/envoy-fields.md")

const fieldPage = "../../../../docs/envoy-fields.md"

// pageMessages are the messages whose fields the page lists.
var pageMessages = []proto.Message{
	(*routev3.RouteConfiguration)(nil), (*routev3.VirtualHost)(nil), (*routev3.Route)(nil), (*routev3.RouteMatch)(nil),
	(*routev3.HeaderMatcher)(nil), (*routev3.QueryParameterMatcher)(nil), (*routev3.CookieMatcher)(nil),
	(*routev3.RouteAction)(nil), (*routev3.RouteAction_MaxStreamDuration)(nil), (*routev3.RouteAction_RequestMirrorPolicy)(nil),
	(*routev3.RouteAction_HashPolicy)(nil), (*routev3.InternalRedirectPolicy)(nil), (*routev3.RetryPolicy)(nil), (*routev3.HedgePolicy)(nil),
	(*routev3.WeightedCluster)(nil), (*routev3.WeightedCluster_ClusterWeight)(nil),
	(*routev3.RedirectAction)(nil), (*routev3.DirectResponseAction)(nil),
	(*faultv3.HTTPFault)(nil), (*corsv3.CorsPolicy)(nil),

	(*clusterv3.Cluster)(nil), (*clusterv3.Cluster_CustomClusterType)(nil), (*clusterv3.Cluster_EdsClusterConfig)(nil),
	(*clusterv3.Cluster_TransportSocketMatch)(nil), (*clusterv3.Cluster_RefreshRate)(nil), (*clusterv3.Cluster_PreconnectPolicy)(nil),
	(*clusterv3.UpstreamConnectionOptions)(nil), (*clusterv3.UpstreamConnectionOptions_HappyEyeballsConfig)(nil), (*corev3.TcpKeepalive)(nil),
	(*caresv3.CaresDnsResolverConfig)(nil), (*getaddrinfov3.GetAddrInfoDnsResolverConfig)(nil), (*aggregatev3.ClusterConfig)(nil),
	(*clusterv3.CircuitBreakers)(nil), (*clusterv3.CircuitBreakers_Thresholds)(nil), (*clusterv3.CircuitBreakers_Thresholds_RetryBudget)(nil),
	(*clusterv3.OutlierDetection)(nil),
	(*corev3.HealthCheck)(nil), (*corev3.HealthCheck_HttpHealthCheck)(nil), (*corev3.HealthCheck_GrpcHealthCheck)(nil),
	(*corev3.HealthCheck_TcpHealthCheck)(nil), (*corev3.HealthCheck_Payload)(nil), (*corev3.HealthCheck_TlsOptions)(nil),
	(*clusterv3.Cluster_CommonLbConfig)(nil), (*clusterv3.Cluster_CommonLbConfig_ZoneAwareLbConfig)(nil),
	(*clusterv3.Cluster_CommonLbConfig_ConsistentHashingLbConfig)(nil),
	(*clusterv3.Cluster_RoundRobinLbConfig)(nil), (*clusterv3.Cluster_LeastRequestLbConfig)(nil), (*clusterv3.Cluster_RingHashLbConfig)(nil),
	(*clusterv3.Cluster_MaglevLbConfig)(nil), (*clusterv3.Cluster_SlowStartConfig)(nil),
	(*clusterv3.Cluster_LbSubsetConfig)(nil), (*clusterv3.Cluster_LbSubsetConfig_LbSubsetSelector)(nil),
	(*clusterv3.LoadBalancingPolicy)(nil), (*clusterv3.LoadBalancingPolicy_Policy)(nil),
	(*roundrobinv3.RoundRobin)(nil), (*leastrequestv3.LeastRequest)(nil), (*randomv3.Random)(nil), (*pickfirstv3.PickFirst)(nil),
	(*ringhashv3.RingHash)(nil), (*maglevv3.Maglev)(nil), (*cswrrv3.ClientSideWeightedRoundRobin)(nil),
	(*subsetv3.Subset)(nil), (*subsetv3.Subset_LbSubsetSelector)(nil),
	(*subsettingv3.RandomSubsetting)(nil), (*wrrlocalityv3.WrrLocality)(nil),
	(*commonv3.LocalityLbConfig)(nil), (*commonv3.LocalityLbConfig_ZoneAwareLbConfig)(nil),
	(*commonv3.LocalityLbConfig_ZoneAwareLbConfig_ForceLocalZone)(nil),
	(*commonv3.ConsistentHashingLbConfig)(nil), (*commonv3.SlowStartConfig)(nil),
	(*httpv3.HttpProtocolOptions)(nil), (*httpv3.HttpProtocolOptions_ExplicitHttpConfig)(nil),
	(*httpv3.HttpProtocolOptions_UseDownstreamHttpConfig)(nil), (*httpv3.HttpProtocolOptions_AutoHttpConfig)(nil),
	(*corev3.HttpProtocolOptions)(nil), (*corev3.UpstreamHttpProtocolOptions)(nil), (*corev3.Http1ProtocolOptions)(nil),
	(*corev3.Http2ProtocolOptions)(nil), (*corev3.KeepaliveSettings)(nil),

	(*endpointv3.ClusterLoadAssignment)(nil), (*endpointv3.ClusterLoadAssignment_Policy)(nil),
	(*endpointv3.ClusterLoadAssignment_Policy_DropOverload)(nil), (*endpointv3.LocalityLbEndpoints)(nil), (*endpointv3.LbEndpoint)(nil),
	(*endpointv3.Endpoint)(nil), (*endpointv3.Endpoint_AdditionalAddress)(nil), (*endpointv3.Endpoint_HealthCheckConfig)(nil),
	(*corev3.Locality)(nil), (*corev3.Address)(nil), (*corev3.SocketAddress)(nil), (*corev3.Metadata)(nil),
}

// pageRow finds the reason in a row of the page.
var pageRow = regexp.MustCompile("(?m)^\\| `([\\w.]+)` \\| [^|]* \\| ([^|]*) \\|$")

// TestThePageOfFieldsIsComplete holds the page against the descriptors of the
// protobufs and against what the decoder does. The reason of a field that is refused
// is the one that a NACK gives; those of fields that change nothing are the page's.
func TestThePageOfFieldsIsComplete(t *testing.T) {
	t.Parallel()
	content, err := os.ReadFile(fieldPage)
	if err != nil {
		t.Fatal(err)
	}
	head, _, found := strings.Cut(string(content), "\n## ")
	if !found && !*update {
		t.Fatalf("%s has no tables", fieldPage)
	}
	reasons := make(map[string]string)
	for section := range strings.SplitSeq(string(content), "\n## ") {
		message, rows, _ := strings.Cut(section, "\n")
		for _, m := range pageRow.FindAllStringSubmatch(rows, -1) {
			reasons[message+" "+m[1]] = m[2] // the names of messages within others come again
		}
	}
	var page strings.Builder
	page.WriteString(strings.TrimRight(head, "\n") + "\n")
	for _, m := range pageMessages {
		descriptor := m.ProtoReflect().Descriptor()
		uses := supportedFields().of(descriptor)
		message := strings.TrimPrefix(string(descriptor.FullName()), "envoy.")
		fmt.Fprintf(&page, "\n## %s\n\n| field | | why |\n|---|---|---|\n", message)
		for i := range descriptor.Fields().Len() {
			field := string(descriptor.Fields().Get(i).Name())
			key := string(descriptor.Name()) + "." + field
			use, reason := "done", reasons[message+" "+key]
			switch uses.of(i) {
			case unsupported:
				use, reason = "refused", uses.instead[field]
			case zeroField:
				use = "only zero"
			case harmlessField:
				use = "no effect"
			case readField:
			}
			if use != "done" && reason == "" {
				t.Errorf("%s: %s needs a reason", key, use)
			}
			fmt.Fprintf(&page, "| `%s` | %s | %s |\n", key, use, reason)
		}
	}
	if page.String() == string(content) {
		return
	}
	if !*update {
		t.Fatalf("%s is not what the decoder does: run go test ./discovery/xds/internal/decode -run %s -update", fieldPage, t.Name())
	}
	if err := os.WriteFile(fieldPage, []byte(page.String()), 0o600); err != nil {
		t.Fatal(err)
	}
}
