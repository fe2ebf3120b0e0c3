package decode

import (
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"github.com/google/go-cmp/cmp"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/discovery"
)

// named is a cluster whose policy is a struct with a name.
func named(name, value string) string {
	return `{"name": "named", "type": "EDS", "edsClusterConfig": {"edsConfig": {"ads": {}}},
  "loadBalancingPolicy": {"policies": [{"typedExtensionConfig": {"name": "p", "typedConfig": {"@type": "type.googleapis.com/xds.type.v3.TypedStruct",
  "typeUrl": "type.googleapis.com/` + name + `", "value": ` + value + `}}}, ` + typedExtension("random.v3.Random", "") + `]}}`
}

func byMetadata(text string) string {
	return clusterWith(`"lbPolicy": "MAGLEV", "metadata": {"filterMetadata": ` + text + `}`)
}

func TestPoliciesByName(t *testing.T) {
	t.Parallel()
	own := map[string]balancer.Custom{"acme.sticky": {Name: "acme.sticky"}}
	tests := []struct {
		name, json string
		want       balancer.Config
		errs       []string
	}{
		{
			name: "the application's", json: named("acme.sticky", `{"n": 7}`),
			want: balancer.Config{Policy: balancer.CustomPolicy, Custom: &balancer.Custom{Name: "acme.sticky", Config: map[string]any{"n": 7.0}}},
		},
		{name: "one of another process, and one that is known", json: named("acme.other", `{}`), want: balancer.Config{Policy: balancer.Random}},
		{name: "peak EWMA", json: named("inboard.peak_ewma", `{"decayTime": "5s"}`), want: balancer.Config{Policy: balancer.PeakEWMA, DecayTime: 5 * time.Second}},
		{
			name: "by metadata", json: byMetadata(`{"inboard.balancer": {"policy": "acme.sticky", "config": {"n": 7}}}`),
			want: balancer.Config{Policy: balancer.CustomPolicy, Custom: &balancer.Custom{Name: "acme.sticky", Config: map[string]any{"n": 7.0}}},
		},
		{name: "peak EWMA by metadata", json: byMetadata(`{"inboard.balancer": {"policy": "inboard.peak_ewma"}}`), want: balancer.Config{Policy: balancer.PeakEWMA}},
		{
			name: "an unknown name", json: byMetadata(`{"inboard.balancer": {"policy": "acme.other"}}`),
			errs: []string{`metadata.filter_metadata["inboard.balancer"].policy: this process has no policy "acme.other": it has ["acme.sticky" "inboard.peak_ewma"]`},
		},
		{
			name: "no name", json: byMetadata(`{"inboard.balancer": {"policy": 7, "name": "x"}}`),
			errs: []string{
				`metadata.filter_metadata["inboard.balancer"].name: unknown: use policy and config`,
				`metadata.filter_metadata["inboard.balancer"].policy: must be a string: is 7`,
			},
		},
		{
			name: "a decay time that is none", json: byMetadata(`{"inboard.balancer": {"policy": "inboard.peak_ewma", "config": {"decayTime": "0s", "x": 1}}}`),
			errs: []string{
				`metadata.filter_metadata["inboard.balancer"].config.decayTime: must be more than 0`,
				`metadata.filter_metadata["inboard.balancer"].config.x: unknown: use decayTime`,
			},
		},
		{
			name: "a part of the endpoints", json: clusterWith(`"metadata": {"filterMetadata": {"inboard.subsetting": {"size": 20}}}`),
			want: balancer.Config{Subsetting: balancer.Subsetting{Size: 20}},
		},
		{
			name: "a part that is none", json: clusterWith(`"metadata": {"filterMetadata": {"inboard.subsetting": {"peers": 20}}}`),
			errs: []string{
				`metadata.filter_metadata["inboard.subsetting"].peers: unknown: use size`,
				`metadata.filter_metadata["inboard.subsetting"].size: must be more than 0`,
			},
		},
		{
			name: "priorities as gRPC has them", json: clusterWith(`"metadata": {"filterMetadata": {"inboard.priorities": {"policy": "grpc"}}}`),
			want: balancer.Config{Failover: &balancer.Failover{}},
		},
		{
			name: "priorities as gRPC has them, with another timer", json: clusterWith(`"metadata": {"filterMetadata": {"inboard.priorities": {"policy": "grpc", "connectWithin": "3s"}}}`),
			want: balancer.Config{Failover: &balancer.Failover{ConnectWithin: 3 * time.Second}},
		},
		{name: "priorities as Envoy has them", json: clusterWith(`"metadata": {"filterMetadata": {"inboard.priorities": {"policy": "envoy"}}}`)},
		{
			name: "priorities as nobody has them", json: clusterWith(`"metadata": {"filterMetadata": {"inboard.priorities": {"policy": "xds", "connectWithin": "0s", "timer": 1}}}`),
			errs: []string{
				`metadata.filter_metadata["inboard.priorities"].connectWithin: must be more than 0`,
				`metadata.filter_metadata["inboard.priorities"].timer: unknown: use policy and connectWithin`,
				`metadata.filter_metadata["inboard.priorities"].policy: must be grpc or envoy`,
			},
		},
		{
			name: "a timer that nobody sets", json: clusterWith(`"metadata": {"filterMetadata": {"inboard.priorities": {"policy": "envoy", "connectWithin": "1s"}}}`),
			errs: []string{`metadata.filter_metadata["inboard.priorities"].connectWithin: has no effect with the policy envoy: remove it`},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, c, err := Clusters(own)(marshal(t, fromJSON[clusterv3.Cluster](t, tt.json)))
			if tt.errs != nil {
				wantErrors(t, err, tt.errs...)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			checkBalancer(t, c, tt.want)
		})
	}
}

func checkBalancer(t *testing.T, c *discovery.Cluster, want balancer.Config) {
	t.Helper()
	want.PanicThreshold = defaultPanicThreshold
	got := c.Balancer
	got.MaglevSize = 0
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("balancer (-want +got):\n%s", diff)
	}
}
