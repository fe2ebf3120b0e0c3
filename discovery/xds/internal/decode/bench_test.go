package decode

import (
	"fmt"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// bigAssignment has n endpoints in four localities, with the metadata that
// istiod sends.
func bigAssignment(n int) *endpointv3.ClusterLoadAssignment {
	const localities = 4
	m := &endpointv3.ClusterLoadAssignment{ClusterName: "big"}
	for zone := range localities {
		l := &endpointv3.LocalityLbEndpoints{
			Locality:            &corev3.Locality{Region: "r", Zone: fmt.Sprintf("z%d", zone)},
			LoadBalancingWeight: wrapperspb.UInt32(1),
		}
		for i := range n / localities {
			l.LbEndpoints = append(l.LbEndpoints, &endpointv3.LbEndpoint{
				HostIdentifier:      &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: socketAddress(fmt.Sprintf("10.%d.%d.%d", zone, i/250, i%250), 8080)}},
				HealthStatus:        corev3.HealthStatus_HEALTHY,
				LoadBalancingWeight: wrapperspb.UInt32(1),
				Metadata: &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{
					"istio": {Fields: map[string]*structpb.Value{"workload": structpb.NewStringValue("payment;shop;payment;v1;c")}},
				}},
			})
		}
		m.Endpoints = append(m.Endpoints, l)
	}
	return m
}

func socketAddress(ip string, port uint32) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address:       ip,
		PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: port},
	}}}
}

// BenchmarkAssignment decodes 10,000 endpoints; the baseline is what protobuf
// alone takes for the same bytes.
func BenchmarkAssignment(b *testing.B) {
	value := marshal(b, bigAssignment(10_000))
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, _, err := Assignment(value); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("protobuf alone", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := proto.Unmarshal(value, &endpointv3.ClusterLoadAssignment{}); err != nil {
				b.Fatal(err)
			}
		}
	})
}
