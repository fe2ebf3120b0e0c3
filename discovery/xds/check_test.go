package xds_test

import (
	"fmt"
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/inboardmesh/inboard/discovery/xds"
)

func marshal(m proto.Message) []byte {
	value, err := proto.Marshal(m)
	if err != nil {
		return nil
	}
	return value
}

// A control plane asks before it serves.
func ExampleCheck() {
	err := xds.Check("type.googleapis.com/envoy.config.route.v3.RouteConfiguration", marshal(&routev3.RouteConfiguration{
		Name: "payment",
		VirtualHosts: []*routev3.VirtualHost{{
			Name: "payment", Domains: []string{"*"},
			Routes: []*routev3.Route{{
				Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
				Action: &routev3.Route_Route{Route: &routev3.RouteAction{
					ClusterSpecifier:     &routev3.RouteAction_Cluster{Cluster: "payment"},
					HostRewriteSpecifier: &routev3.RouteAction_HostRewriteLiteral{HostRewriteLiteral: "a b"},
				}},
			}},
		}},
	}))
	fmt.Println(err)
	// Output: virtual_hosts[0].routes[0].route.host_rewrite_literal: "a b" is not a valid host
}

func TestCheckKnowsWhatClientsTake(t *testing.T) {
	t.Parallel()
	const prefix = "type.googleapis.com/envoy.config."
	cluster := func(policy string) *clusterv3.Cluster {
		return &clusterv3.Cluster{
			Name: "a", ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
			EdsClusterConfig: &clusterv3.Cluster_EdsClusterConfig{EdsConfig: &corev3.ConfigSource{
				ResourceApiVersion:    corev3.ApiVersion_V3,
				ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
			}},
			Metadata: &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{
				"inboard.balancer": {Fields: map[string]*structpb.Value{"policy": structpb.NewStringValue(policy)}},
			}},
		}
	}
	for _, c := range []struct {
		name, kind string
		message    proto.Message
		want       string
	}{
		{"a cluster", "cluster.v3.Cluster", cluster("inboard.peak_ewma"), ""},
		{"a policy that the application may bring", "cluster.v3.Cluster", cluster("mine"), ""},
		{"a cluster without a type", "cluster.v3.Cluster", &clusterv3.Cluster{Name: "a", ConnectTimeout: nil, LbPolicy: 99}, "lb_policy"},
		{"endpoints", "endpoint.v3.ClusterLoadAssignment", &endpointv3.ClusterLoadAssignment{ClusterName: "a"}, ""},
		{"endpoints of nobody", "endpoint.v3.ClusterLoadAssignment", &endpointv3.ClusterLoadAssignment{}, "cluster_name"},
		{"a listener that listens nowhere", "listener.v3.Listener", &listenerv3.Listener{Name: "a"}, "address"},
		{"routes", "route.v3.RouteConfiguration", &routev3.RouteConfiguration{Name: "a"}, ""},
		{"another type", "other.v3.Other", &routev3.RouteConfiguration{}, `resources of type "type.googleapis.com/envoy.config.other.v3.Other" are not known`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			err := xds.Check(prefix+c.kind, marshal(c.message))
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}
