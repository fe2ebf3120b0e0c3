package decode

import (
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"github.com/google/go-cmp/cmp"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/discovery"
)

func TestAssignmentDecodesEveryField(t *testing.T) {
	t.Parallel()
	name, got, err := Assignment(marshal(t, fromJSON[endpointv3.ClusterLoadAssignment](t, assignmentFixture)))
	if err != nil {
		t.Fatal(err)
	}
	if name != "payment-endpoints" {
		t.Errorf("name %q", name)
	}
	want := &discovery.Assignment{
		Name:                   "payment-endpoints",
		OverprovisioningFactor: 200,
		Drops:                  []discovery.Drop{{Category: "lb", PerMillion: 200_000}, {Category: "throttle", PerMillion: 100_000}},
		Localities: []discovery.LocalityEndpoints{
			{
				Locality: balancer.Locality{Region: "r", Zone: "z", SubZone: "s"},
				Weight:   3,
				Endpoints: []balancer.Endpoint{
					{
						Address: "10.0.0.1:80", Hostname: "a.shop", Weight: 2, Health: balancer.Healthy,
						// Only strings: the number is left out.
						Metadata: map[string]map[string]string{"istio": {"workload": "payment;shop"}},
					},
					{Address: "[fd00::1]:81", Additional: []string{"10.0.0.3:81", "10.0.0.4:81"}, Health: balancer.Draining},
				},
			},
			{
				Locality: balancer.Locality{Region: "r2"}, Weight: 1, Priority: 1,
				Endpoints: []balancer.Endpoint{{Address: "10.0.0.2:80"}},
			},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("assignment (-want +got):\n%s", diff)
	}
}

// assignmentOf is an assignment of localities, in JSON.
func assignmentOf(localities ...string) string {
	return `{"clusterName": "a", "endpoints": [` + strings.Join(localities, ", ") + `]}`
}

// endpointAt is an endpoint with these fields beside its address.
func endpointAt(ip, fields string) string {
	return `{"endpoint": {"address": {"socketAddress": {"address": "` + ip + `", "portValue": 80}}}` + fields + `}`
}

type assignmentCase struct {
	name string
	json string
	want []string
}

func wantAssignmentErrors(t *testing.T, tests []assignmentCase) {
	t.Helper()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, a, err := Assignment(marshal(t, fromJSON[endpointv3.ClusterLoadAssignment](t, tt.json)))
			if (a == nil) != (len(tt.want) > 0) {
				t.Errorf("assignment %v", a)
			}
			wantErrors(t, err, tt.want...)
		})
	}
}

func TestX77_AnAssignmentWithoutEndpointsIsGood(t *testing.T) {
	t.Parallel()
	wantAssignmentErrors(t, []assignmentCase{
		{"no localities", `{"clusterName": "a"}`, nil},
		{"a locality without endpoints", assignmentOf(`{"locality": {"region": "r"}, "loadBalancingWeight": 1}`), nil},
	})
}

func TestX78_AmbiguousAssignmentsAreRefused(t *testing.T) {
	t.Parallel()
	wantAssignmentErrors(t, []assignmentCase{
		{"a gap in the priorities", assignmentOf(
			`{"loadBalancingWeight": 1}`, `{"loadBalancingWeight": 1, "priority": 2}`),
			[]string{"endpoints: no locality has priority 1, but one has a later priority"}},
		{"no priority 0", assignmentOf(`{"loadBalancingWeight": 1, "priority": 1}`),
			[]string{"endpoints: no locality has priority 0, but one has a later priority"}},
		{"a locality twice in a priority", assignmentOf(
			`{"locality": {"region": "r", "zone": "z"}, "loadBalancingWeight": 1}`, `{"locality": {"region": "r", "zone": "z"}, "loadBalancingWeight": 1}`),
			[]string{`endpoints[1].locality: "r/z" is also the locality of endpoints[0], at the same priority`}},
		{"a locality in two priorities", assignmentOf(
			`{"locality": {"region": "r"}, "loadBalancingWeight": 1}`, `{"locality": {"region": "r"}, "loadBalancingWeight": 1, "priority": 1}`), nil},
		{"an endpoint twice", assignmentOf(
			`{"locality": {"region": "a"}, "loadBalancingWeight": 1, "lbEndpoints": [`+endpointAt("10.0.0.1", "")+`]}`,
			`{"locality": {"region": "b"}, "loadBalancingWeight": 1, "lbEndpoints": [`+endpointAt("10.0.0.2", "")+`, `+endpointAt("10.0.0.1", "")+`]}`),
			[]string{"endpoints[1].lb_endpoints[1]: 10.0.0.1:80 is also the address of endpoints[0].lb_endpoints[0]"}},
		{"an endpoint twice, spelled differently", assignmentOf(
			`{"loadBalancingWeight": 1, "lbEndpoints": [` + endpointAt("fd00::1", "") + `, ` + endpointAt("FD00:0:0::1", "") + `]}`),
			[]string{"endpoints[0].lb_endpoints[1]: [fd00::1]:80 is also the address of endpoints[0].lb_endpoints[0]"}},
		{"locality weights beyond 32 bits", assignmentOf(
			`{"locality": {"region": "a"}, "loadBalancingWeight": 4294967295}`, `{"locality": {"region": "b"}, "loadBalancingWeight": 1}`),
			[]string{"endpoints[1].load_balancing_weight: the weights of priority 0 add up to more than 4294967295"}},
		{"locality weights beyond 32 bits in two priorities", assignmentOf(
			`{"loadBalancingWeight": 4294967295}`, `{"loadBalancingWeight": 1, "priority": 1}`), nil},
		{"endpoint weights beyond 32 bits", assignmentOf(
			`{"loadBalancingWeight": 1, "lbEndpoints": [` + endpointAt("10.0.0.1", `, "loadBalancingWeight": 4294967295`) + `, ` + endpointAt("10.0.0.2", `, "loadBalancingWeight": 1`) + `]}`),
			[]string{"endpoints[0].lb_endpoints[1].load_balancing_weight: the weights of the locality add up to more than 4294967295"}},
	})
}

// Whether one without a weight is used is for the cluster to say, which the balancer
// knows: the tests of X79 there, and of the mesh.
func TestX79_ALocalityOfWeightZeroIsSkipped(t *testing.T) {
	t.Parallel()
	_, a, err := Assignment(marshal(t, fromJSON[endpointv3.ClusterLoadAssignment](t, assignmentOf(
		`{"locality": {"region": "absent"}, "lbEndpoints": [`+endpointAt("10.0.0.1", "")+`]}`,
		`{"locality": {"region": "zero"}, "loadBalancingWeight": 0, "lbEndpoints": [`+endpointAt("10.0.0.2", "")+`]}`,
		`{"locality": {"region": "one"}, "loadBalancingWeight": 1, "priority": 1, "lbEndpoints": [`+endpointAt("10.0.0.3", "")+`]}`,
	))))
	if err != nil {
		t.Fatal(err)
	}
	if len(a.Localities) != 2 || a.Localities[0].Locality.Region != "absent" || a.Localities[1].Locality.Region != "one" {
		t.Errorf("localities %v, want %q and %q", a.Localities, "absent", "one")
	}
}

func TestX80_HealthIsKept(t *testing.T) {
	t.Parallel()
	for status, want := range map[corev3.HealthStatus]balancer.Health{
		corev3.HealthStatus_UNKNOWN:   balancer.Unknown,
		corev3.HealthStatus_HEALTHY:   balancer.Healthy,
		corev3.HealthStatus_UNHEALTHY: balancer.Unhealthy,
		corev3.HealthStatus_DRAINING:  balancer.Draining,
		corev3.HealthStatus_TIMEOUT:   balancer.Timeout,
		corev3.HealthStatus_DEGRADED:  balancer.Degraded,
		99:                            balancer.Unhealthy, // of a later Envoy: not fit for use
	} {
		m := bigAssignment(4)
		m.Endpoints[0].LbEndpoints[0].HealthStatus = status
		_, a, err := Assignment(marshal(t, m))
		if err != nil {
			t.Fatal(err)
		}
		if got := a.Localities[0].Endpoints[0].Health; got != want {
			t.Errorf("%v: health %v, want %v", status, got, want)
		}
	}
}

func TestX81_DropsAreKeptInOrder(t *testing.T) {
	t.Parallel()
	_, a, err := Assignment(marshal(t, fromJSON[endpointv3.ClusterLoadAssignment](t, `{"clusterName": "a", "policy": {"dropOverloads": [
		{"category": "twenty", "dropPercentage": {"numerator": 20}},
		{"category": "ten", "dropPercentage": {"numerator": 100000, "denominator": "MILLION"}},
		{"category": "all and more", "dropPercentage": {"numerator": 4294967295}},
		{"category": "none"}]}}`)))
	if err != nil {
		t.Fatal(err)
	}
	want := []discovery.Drop{
		{Category: "twenty", PerMillion: 200_000}, {Category: "ten", PerMillion: 100_000},
		{Category: "all and more", PerMillion: 1_000_000}, {Category: "none"},
	}
	if diff := cmp.Diff(want, a.Drops); diff != "" {
		t.Errorf("drops (-want +got):\n%s", diff)
	}
}

func TestBadAssignments(t *testing.T) {
	t.Parallel()
	locality := func(fields string) string { return assignmentOf(`{"loadBalancingWeight": 1, ` + fields + `}`) }
	endpoint := func(e string) string { return locality(`"lbEndpoints": [` + e + `]`) }
	const at = "endpoints[0].lb_endpoints[0]."
	wantAssignmentErrors(t, []assignmentCase{
		{"no name", `{}`, []string{"cluster_name: value length must be at least 1 runes"}},
		{"an endpoint without an address", endpoint(`{}`), []string{at + "endpoint.address.socket_address: must be set"}},
		{"an endpoint that is a name", endpoint(endpointAt("payment.shop", "")), []string{at + `endpoint.address.socket_address.address: "payment.shop" is not an IP address`}},
		{"an endpoint in a pipe", endpoint(`{"endpoint": {"address": {"pipe": {"path": "/s"}}}}`),
			[]string{at + "endpoint.address.pipe: not supported: use socket_address", at + "endpoint.address.socket_address: must be set"}},
		{"an endpoint inside Envoy", endpoint(`{"endpoint": {"address": {"envoyInternalAddress": {"serverListenerName": "l"}}}}`),
			[]string{at + "endpoint.address.envoy_internal_address: not supported: use socket_address", at + "endpoint.address.socket_address: must be set"}},
		{"an endpoint without a port", endpoint(`{"endpoint": {"address": {"socketAddress": {"address": "::1", "portValue": 0}}}}`),
			[]string{at + "endpoint.address.socket_address.port_value: must be between 1 and 65535: is 0"}},
		{"a port that is none", endpoint(`{"endpoint": {"address": {"socketAddress": {"address": "::1", "portValue": 65536}}}}`),
			[]string{at + "endpoint.address.socket_address.port_value: value must be less than or equal to 65535"}},
		{"further addresses that are none", endpoint(`{"endpoint": {"address": {"socketAddress": {"address": "::1", "portValue": 1}}, "additionalAddresses": [{}, {"address": {"socketAddress": {"address": "payment", "portValue": 1}}}]}}`),
			[]string{
				at + "endpoint.additional_addresses[0].address.socket_address: must be set",
				at + `endpoint.additional_addresses[1].address.socket_address.address: "payment" is not an IP address`,
			}},
		{"one address twice", endpoint(`{"endpoint": {"address": {"socketAddress": {"address": "::1", "portValue": 1}}, "additionalAddresses": [{"address": {"socketAddress": {"address": "::1", "portValue": 1}}}]}}`),
			[]string{strings.TrimSuffix(at, ".") + ": [::1]:1 is also the address of endpoints[0].lb_endpoints[0]"}},
		{"an endpoint of weight 0", endpoint(endpointAt("::1", `, "loadBalancingWeight": 0`)),
			[]string{at + "load_balancing_weight: value must be greater than or equal to 1"}},
		{"a named endpoint", `{"clusterName": "a", "namedEndpoints": {"e": {}}, "endpoints": [{"loadBalancingWeight": 1, "lbEndpoints": [{"endpointName": "e"}]}]}`,
			[]string{at + "endpoint_name: not supported: use endpoint", "named_endpoints: not supported: write each endpoint where it is used", at + "endpoint.address.socket_address: must be set"}},
		{"a late priority", locality(`"priority": 129`), []string{
			"endpoints[0].priority: value must be less than or equal to 128",
			"endpoints: no locality has priority 0, but one has a later priority",
		}},
		{"endpoints from elsewhere", locality(`"ledsClusterLocalityConfig": {"ledsConfig": {"ads": {}}, "ledsCollectionName": "c"}`),
			[]string{"endpoints[0].leds_cluster_locality_config: not supported: use lb_endpoints"}},
		{"endpoints that grow stale", `{"clusterName": "a", "policy": {"endpointStaleAfter": "1s"}}`, []string{"policy.endpoint_stale_after: not supported: endpoints hold until the control plane takes them away"}},
		{"a transport socket by locality", `{"clusterName": "a", "endpoints": [{"metadata": {"filterMetadata": {"envoy.transport_socket_match": {"tlsMode": "istio"}}},
			"lbEndpoints": [{"endpoint": {"address": {"socketAddress": {"address": "10.0.0.1", "portValue": 80}}}}]}]}`,
			[]string{`endpoints[0].metadata.filter_metadata["envoy.transport_socket_match"]: not supported for a locality: set it in the metadata of its endpoints`}},
		{"a drop without a name", `{"clusterName": "a", "policy": {"dropOverloads": [{}]}}`, []string{"policy.drop_overloads[0].category: value length must be at least 1 runes"}},
		{"no overprovisioning", `{"clusterName": "a", "policy": {"overprovisioningFactor": 0}}`, []string{"policy.overprovisioning_factor: value must be greater than 0"}},
		{"two bad endpoints", locality(`"lbEndpoints": [{"endpoint": {"address": {"socketAddress": {"address": "a", "portValue": 1}}}}, {"endpoint": {"address": {"socketAddress": {"address": "b", "portValue": 1}}}}]`),
			[]string{
				`endpoints[0].lb_endpoints[0].endpoint.address.socket_address.address: "a" is not an IP address`,
				`endpoints[0].lb_endpoints[1].endpoint.address.socket_address.address: "b" is not an IP address`,
			}},
	})
}
