package lastgood

import (
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/anypb"
)

const endpointURL = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"

// Every sensitive field of every message that this program knows is found within a
// cluster, whatever of it is set, and however deep it is.
func TestEverySensitiveFieldIsFound(t *testing.T) {
	t.Parallel()
	var s secrets // one, so that plans build upon plans
	fields := 0
	protoregistry.GlobalTypes.RangeMessages(func(known protoreflect.MessageType) bool {
		for i := range known.Descriptor().Fields().Len() {
			field := known.Descriptor().Fields().Get(i)
			if !marked(field) || field.IsMap() {
				continue
			}
			fields++
			message := known.New()
			switch {
			case field.IsList():
				message.Mutable(field).List().AppendMutable()
			case field.Message() != nil:
				message.Mutable(field)
			case field.Kind() == protoreflect.BytesKind:
				message.Set(field, protoreflect.ValueOfBytes([]byte("k")))
			default:
				message.Set(field, protoreflect.ValueOfString("k"))
			}
			packed, err := anypb.New(message.Interface())
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				value, err := proto.Marshal(&clusterv3.Cluster{
					TransportSocket: &corev3.TransportSocket{ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: packed}},
				})
				if err != nil {
					t.Fatal(err)
				}
				if !s.holds(clusterURL, value) || !holdsSecret(clusterURL, value) {
					t.Errorf("%s is not found", field.FullName())
				}
				if packed, err = anypb.New(packed); err != nil {
					t.Fatal(err)
				}
			}
		}
		return true
	})
	if fields < 5 {
		t.Errorf("only %d sensitive fields are known", fields)
	}
}

func TestWhatCannotBeSensitiveIsNotLookedInto(t *testing.T) {
	t.Parallel()
	packed := func(m proto.Message) []byte {
		value, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
	tls, err := anypb.New(&tlsv3.UpstreamTlsContext{Sni: "s"})
	if err != nil {
		t.Fatal(err)
	}
	field := func(number protowire.Number, value string) []byte {
		return protowire.AppendBytes(protowire.AppendTag(nil, number, protowire.BytesType), []byte(value))
	}
	inCluster := func(socket []byte) []byte {
		const transportSocket, typedConfig = 24, 3
		return field(transportSocket, string(field(typedConfig, string(socket))))
	}
	for _, tt := range []struct {
		name, typeURL string
		value         []byte
		want          bool
	}{
		{"endpoints", endpointURL, packed(endpoints("e")), false},
		{"a cluster without anything in it", clusterURL, packed(&clusterv3.Cluster{Name: "c"}), false},
		{"TLS without a secret in it", clusterURL, inCluster(packed(tls)), false},
		{"a type that is not known", "type.googleapis.com/not.Known", nil, true},
		{"bytes that are no message", clusterURL, []byte("\xff"), true},
		{"an Any of a type that is not known", clusterURL, inCluster(field(1, "type.googleapis.com/not.Known")), false},
		{"an Any that could be the half of one", clusterURL, inCluster(field(2, "v")), true},
		{"an Any whose type comes twice", clusterURL, inCluster(append(field(1, "type.googleapis.com/not.Known"), packed(tls)...)), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := new(secrets).mayHold(tt.typeURL, tt.value); got != tt.want {
				t.Errorf("may hold a secret: %v, want %v", got, tt.want)
			}
		})
	}
}

func FuzzSecrets(f *testing.F) {
	urls := []string{clusterURL, endpointURL, "type.googleapis.com/envoy.config.listener.v3.Listener", "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"}
	inline := &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: "k"}}
	path := &corev3.DataSource{Specifier: &corev3.DataSource_Filename{Filename: "/k"}}
	for i := range urls {
		f.Add(uint8(i), secret(f, "c", inline))
		f.Add(uint8(i), secret(f, "c", path))
		f.Add(uint8(i), []byte{})
	}
	for _, keys := range []string{publicKeys, symmetricKeys} {
		f.Add(uint8(2), withKeySet(f, inlineKeys(keys)))
	}
	f.Fuzz(func(t *testing.T, kind uint8, value []byte) {
		typeURL := urls[int(kind)%len(urls)]
		message, err := (&anypb.Any{TypeUrl: typeURL, Value: value}).UnmarshalNew()
		if err == nil && sensitive(message.ProtoReflect()) && !new(secrets).mayHold(typeURL, value) {
			t.Errorf("%v holds a secret, which is not seen in its bytes", message)
		}
	})
}

func endpoints(name string) *endpointv3.ClusterLoadAssignment {
	a := &endpointv3.ClusterLoadAssignment{ClusterName: name, Endpoints: []*endpointv3.LocalityLbEndpoints{{}}}
	for range 10 {
		a.Endpoints[0].LbEndpoints = append(a.Endpoints[0].LbEndpoints, &endpointv3.LbEndpoint{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{
			Endpoint: &endpointv3.Endpoint{
				Hostname: strings.Repeat("h", 200),
				Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
					Address: "10.0.0.1", PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: 80},
				}}},
			},
		}})
	}
	return a
}

// What it costs to look at the bytes of endpoints, beside making messages of them.
func BenchmarkSecrets(b *testing.B) {
	value, err := proto.Marshal(endpoints("e"))
	if err != nil {
		b.Fatal(err)
	}
	var s secrets
	for _, bench := range []struct {
		name  string
		holds func(string, []byte) bool
	}{
		{"messages", holdsSecret},
		{"bytes", s.holds},
	} {
		b.Run(bench.name, func(b *testing.B) {
			b.SetBytes(int64(len(value)))
			b.ReportAllocs()
			for b.Loop() {
				if bench.holds(endpointURL, value) {
					b.Fatal("endpoints hold a secret")
				}
			}
		})
	}
}
