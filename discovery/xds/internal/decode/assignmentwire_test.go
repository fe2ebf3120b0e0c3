package decode

import (
	"fmt"
	"reflect"
	"slices"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/inboardmesh/inboard/discovery"
)

// byMessages decodes an assignment without reading any of it from the wire.
func byMessages(value []byte) (string, *discovery.Assignment, error) {
	m := &endpointv3.ClusterLoadAssignment{}
	assignment, err := resource(value, m, m.GetClusterName, (*decoder).edsAssignment)
	return m.GetClusterName(), assignment, err
}

// sameBothWays fails the test unless both ways to read an assignment give the same.
func sameBothWays(t *testing.T, value []byte) {
	t.Helper()
	name, got, err := Assignment(value)
	wantName, want, wantErr := byMessages(value)
	if name != wantName || fmt.Sprint(err) != fmt.Sprint(wantErr) {
		t.Fatalf("%q, %v; want %q, %v", name, err, wantName, wantErr)
	}
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("got  %+v\nwant %+v", got, want)
	}
}

// TestAnAssignmentIsTheSameReadFromTheWire: an endpoint that is plain, or just not, is
// what protobuf makes of it.
func TestAnAssignmentIsTheSameReadFromTheWire(t *testing.T) {
	t.Parallel()
	field := func(n protowire.Number, body ...byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(nil, n, protowire.BytesType), body)
	}
	number := func(n protowire.Number, v uint64) []byte {
		return protowire.AppendVarint(protowire.AppendTag(nil, n, protowire.VarintType), v)
	}
	socket := func(host string, port uint64) []byte {
		return slices.Concat(field(socketHost, []byte(host)...), number(socketPort, port))
	}
	endpoint := func(socket []byte) []byte {
		return field(lbEndpointEndpoint, field(endpointAddress, field(addressSocket, socket...)...)...)
	}
	metadata, err := proto.Marshal(&corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{
		"envoy.lb": {Fields: map[string]*structpb.Value{"version": structpb.NewStringValue("v1"), "canary": structpb.NewBoolValue(true), "n": structpb.NewNumberValue(1)}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	nobody, err := proto.Marshal(&corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{"": nil}})
	if err != nil {
		t.Fatal(err)
	}
	ok := endpoint(socket("10.0.0.1", 80))
	for name, c := range map[string]struct {
		lbEndpoint []byte
		plain      bool
	}{
		"an address":                     {ok, true},
		"an address of IPv6":             {endpoint(socket("2001:DB8::0", 80)), true},
		"an address with a zone":         {endpoint(socket("fe80::1%eth0", 80)), true},
		"an address of IPv4 in IPv6":     {endpoint(socket("::ffff:10.0.0.1", 80)), true},
		"all that is plain":              {slices.Concat(ok, number(lbEndpointHealth, 3), field(lbEndpointMetadata, metadata...), field(lbEndpointWeight, number(wrapperValue, 7)...)), true},
		"a status of the future":         {slices.Concat(ok, number(lbEndpointHealth, 99)), true},
		"a negative status":              {slices.Concat(ok, number(lbEndpointHealth, 1<<64-1)), false},
		"a host name":                    {slices.Concat(field(lbEndpointEndpoint, slices.Concat(field(endpointHostname, []byte("payment")...), field(endpointAddress, field(addressSocket, socket("10.0.0.1", 80)...)...))...)), true},
		"a host name that is no text":    {slices.Concat(field(lbEndpointEndpoint, slices.Concat(field(endpointHostname, 0xff), field(endpointAddress, field(addressSocket, socket("10.0.0.1", 80)...)...))...)), false},
		"the protocol that it is":        {endpoint(slices.Concat(number(socketProtocol, 0), socket("10.0.0.1", 80))), true},
		"another protocol":               {endpoint(slices.Concat(number(socketProtocol, 1), socket("10.0.0.1", 80))), false},
		"no endpoint":                    {number(lbEndpointHealth, 1), false},
		"nothing":                        {nil, false},
		"no port":                        {endpoint(socket("10.0.0.1", 0)), false},
		"a port that is too large":       {endpoint(socket("10.0.0.1", 65536)), false},
		"a port that wraps round":        {endpoint(socket("10.0.0.1", 1<<32+80)), false},
		"no IP address":                  {endpoint(socket("payment", 80)), false},
		"an IP address with a zero":      {endpoint(socket("10.0.0.01", 80)), false},
		"an IP address of five parts":    {endpoint(socket("10.0.0.1.2", 80)), false},
		"an IP address of three parts":   {endpoint(socket("10.0.1", 80)), false},
		"an IP address with a large one": {endpoint(socket("10.0.0.256", 80)), false},
		"an IP address that ends early":  {endpoint(socket("10.0.0.", 80)), false},
		"a weight of zero":               {slices.Concat(ok, field(lbEndpointWeight)), false},
		"a weight twice":                 {slices.Concat(ok, field(lbEndpointWeight, number(wrapperValue, 7)...), field(lbEndpointWeight)), false},
		"a weight that wraps round":      {slices.Concat(ok, field(lbEndpointWeight, number(wrapperValue, 1<<32)...)), false},
		"a weight of another type":       {slices.Concat(ok, number(lbEndpointWeight, 3)), false},
		"an endpoint in two parts":       {slices.Concat(field(lbEndpointEndpoint, field(endpointHostname, []byte("payment")...)...), ok), false},
		"an unknown field":               {slices.Concat(ok, number(1000, 1)), false},
		"a field that is not known here": {slices.Concat(ok, number(7, 1)), false},
		"a name in the endpoint's place": {slices.Concat(ok, field(5, []byte("payment")...)), false},
		"a check of its own":             {field(lbEndpointEndpoint, slices.Concat(field(endpointAddress, field(addressSocket, socket("10.0.0.1", 80)...)...), field(2, number(1, 81)...))...), false},
		"metadata that is broken":        {slices.Concat(ok, field(lbEndpointMetadata, 0x0a)), false},
		"metadata without a name":        {slices.Concat(ok, field(lbEndpointMetadata, nobody...)), false},
		"metadata that is empty":         {slices.Concat(ok, field(lbEndpointMetadata)), true},
		"a field that is cut off":        {ok[:len(ok)-1], false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			head, err := proto.Marshal(&endpointv3.ClusterLoadAssignment{ClusterName: "c", Endpoints: []*endpointv3.LocalityLbEndpoints{{
				Locality: &corev3.Locality{Zone: "a"}, LoadBalancingWeight: wrapperspb.UInt32(1),
				LbEndpoints: []*endpointv3.LbEndpoint{{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: socketAddress("10.9.9.9", 80)}}}},
			}}})
			if err != nil {
				t.Fatal(err)
			}
			locality, err := proto.Marshal(&endpointv3.LocalityLbEndpoints{Locality: &corev3.Locality{Zone: "b"}, LoadBalancingWeight: wrapperspb.UInt32(2)})
			if err != nil {
				t.Fatal(err)
			}
			// Alone, and with another one before it, and with one that has its address.
			other := field(localityLbEndpoints, endpoint(socket("10.0.0.2", 80))...)
			same := field(localityLbEndpoints, ok...)
			own := field(localityLbEndpoints, c.lbEndpoint...)
			for _, all := range [][]byte{own, slices.Concat(other, own), slices.Concat(same, other, own)} {
				value := slices.Concat(head, field(assignmentEndpoints, slices.Concat(locality, all)...))
				sameBothWays(t, value)
				if _, plain := takePlain(value); plain.of(0) == nil || (plain.of(1) != nil) != c.plain {
					t.Errorf("read from the wire: %v, want %v", plain.of(1) != nil, c.plain)
				}
			}
		})
	}
}

// TestEndpointsOfAWorkloadShareTheirMetadata: which is most of what they would hold.
func TestEndpointsOfAWorkloadShareTheirMetadata(t *testing.T) {
	t.Parallel()
	_, a, err := Assignment(marshal(t, bigAssignment(100)))
	if err != nil {
		t.Fatal(err)
	}
	first := reflect.ValueOf(a.Localities[0].Endpoints[0].Metadata).Pointer()
	for _, l := range a.Localities {
		for _, e := range l.Endpoints {
			if reflect.ValueOf(e.Metadata).Pointer() != first {
				t.Fatalf("%s has metadata of its own", e.Address)
			}
		}
	}
}
