package decode

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// fixture is a good resource.
type fixture struct {
	name   string
	root   proto.Message
	decode func([]byte) (any, error)
}

func fixtures(tb testing.TB) []fixture {
	tb.Helper()
	listener := func(b []byte) (any, error) { _, v, err := Listener(b); return v, err }
	routes := func(b []byte) (any, error) { _, v, err := RouteConfiguration(b); return v, err }
	cluster := func(b []byte) (any, error) { _, v, err := Cluster(b); return v, err }
	assignment := func(b []byte) (any, error) { _, v, err := Assignment(b); return v, err }
	list := []fixture{
		{"API listener", fromJSON[listenerv3.Listener](tb, apiListenerFixture), listener},
		{"inbound listener", fromJSON[listenerv3.Listener](tb, inboundFixture), listener},
		{"permissive listener", fromJSON[listenerv3.Listener](tb, permissiveFixture), listener},
		{"listener with authorization", fromJSON[listenerv3.Listener](tb, authzFixture), listener},
		{"routes with authorization", fromJSON[routev3.RouteConfiguration](tb, authzRoutesFixture), routes},
		{"listener with tokens", fromJSON[listenerv3.Listener](tb, tokensFixture), listener},
		{"routes with tokens", fromJSON[routev3.RouteConfiguration](tb, tokenRoutesFixture), routes},
		{"listener with trees", fromJSON[listenerv3.Listener](tb, treeFixture()), listener},
		{"guarded listener", fromJSON[listenerv3.Listener](tb, guardedFixture), listener},
		{"listener of TCP", fromJSON[listenerv3.Listener](tb, tcpFixture), listener},
		{"routes", fromJSON[routev3.RouteConfiguration](tb, routesFixture), routes},
		{"rewrites", fromJSON[routev3.RouteConfiguration](tb, rewritesFixture), routes},
		{"older routes", fromJSON[routev3.RouteConfiguration](tb, olderRoutesFixture), routes},
		{"mirrors", fromJSON[routev3.RouteConfiguration](tb, mirrorsFixture), routes},
		{"EDS cluster", fromJSON[clusterv3.Cluster](tb, edsClusterFixture), cluster},
		{"TLS to the outside", fromJSON[clusterv3.Cluster](tb, outsideClusterFixture), cluster},
		{"secrets of istiod", fromJSON[clusterv3.Cluster](tb, istiodClusterFixture), cluster},
		{"named cluster", fromJSON[clusterv3.Cluster](tb, namedClusterFixture), cluster},
		{"logical cluster", fromJSON[clusterv3.Cluster](tb, logicalClusterFixture), cluster},
		{"static cluster", fromJSON[clusterv3.Cluster](tb, staticClusterFixture), cluster},
		{"weighted localities", fromJSON[clusterv3.Cluster](tb, wrrLocalityClusterFixture), cluster},
		{"random cluster", fromJSON[clusterv3.Cluster](tb, randomClusterFixture), cluster},
		{"round robin cluster", fromJSON[clusterv3.Cluster](tb, roundRobinClusterFixture), cluster},
		{"cluster checked over HTTP", fromJSON[clusterv3.Cluster](tb, httpCheckFixture), cluster},
		{"cluster checked over gRPC", fromJSON[clusterv3.Cluster](tb, grpcCheckFixture), cluster},
		{"cluster checked over TCP", fromJSON[clusterv3.Cluster](tb, tcpCheckFixture), cluster},
		{"checked endpoints", fromJSON[endpointv3.ClusterLoadAssignment](tb, checkedEndpointsFixture), assignment},
		{"assignment", fromJSON[endpointv3.ClusterLoadAssignment](tb, assignmentFixture), assignment},
		{"aggregate cluster", fromJSON[clusterv3.Cluster](tb, aggregateFixture), cluster},
		{"listener with sessions", fromJSON[listenerv3.Listener](tb, sessionFixture), listener},
		{"routes with sessions", fromJSON[routev3.RouteConfiguration](tb, sessionRoutesFixture), routes},
		{"hashing routes", fromJSON[routev3.RouteConfiguration](tb, hashRoutesFixture), routes},
	}
	for _, text := range trustFixtures(tb) {
		list = append(list, fixture{"trusting cluster", fromJSON[clusterv3.Cluster](tb, text), cluster})
	}
	for _, text := range append(slices.Clip(balancingFixtures), ownBalancingFixtures...) {
		list = append(list, fixture{"balancing cluster", fromJSON[clusterv3.Cluster](tb, text), cluster})
	}
	return list
}

// site is a message of a fixture.
type site struct {
	path       string
	descriptor protoreflect.MessageDescriptor
	set        []protoreflect.FieldDescriptor
}

// sites lists the messages of a fixture that the table knows, in the order in
// which edit meets them.
func sites(t *testing.T, root proto.Message) []site {
	t.Helper()
	var all []site
	edit(t, proto.Clone(root).ProtoReflect(), "", func(path string, m protoreflect.Message) {
		s := site{path: path, descriptor: m.Descriptor()}
		for i := range m.Descriptor().Fields().Len() {
			if fd := m.Descriptor().Fields().Get(i); m.Has(fd) {
				s.set = append(s.set, fd)
			}
		}
		all = append(all, s)
	})
	return all
}

// edit visits m and every message in it that the table knows, through Anys.
func edit(t *testing.T, m protoreflect.Message, path string, visit func(string, protoreflect.Message)) {
	t.Helper()
	if a, ok := m.Interface().(*anypb.Any); ok {
		inner, err := a.UnmarshalNew()
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		edit(t, inner.ProtoReflect(), path, visit)
		if err := a.MarshalFrom(inner); err != nil {
			t.Fatal(err)
		}
		return
	}
	if _, ok := supportedFields()[m.Descriptor()]; !ok {
		return
	}
	if path != "" {
		path += "."
	}
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		if !m.Has(fd) || fd.Message() == nil {
			continue
		}
		at := path + string(fd.Name())
		switch v := m.Mutable(fd); {
		case fd.IsMap():
			if fd.MapValue().Message() == nil {
				continue
			}
			v.Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
				edit(t, v.Message(), at+"["+strconv.Quote(k.String())+"]", visit)
				return true
			})
		case fd.IsList():
			for j := range v.List().Len() {
				edit(t, v.List().Get(j).Message(), fmt.Sprintf("%s[%d]", at, j), visit)
			}
		default:
			edit(t, v.Message(), at, visit)
		}
	}
	visit(path, m)
}

// with decodes a fixture after a change to the message at path.
func (f fixture) with(t *testing.T, path string, descriptor protoreflect.MessageDescriptor, change func(protoreflect.Message)) (any, error) {
	t.Helper()
	root := proto.Clone(f.root)
	edit(t, root.ProtoReflect(), "", func(at string, m protoreflect.Message) {
		// An Any is at the same path as what it holds.
		if at == path && m.Descriptor() == descriptor {
			change(m)
		}
	})
	return f.decode(marshal(t, root))
}

// sample is a populated value of a field.
func sample(m protoreflect.Message, fd protoreflect.FieldDescriptor) protoreflect.Value {
	switch {
	case fd.IsMap():
		v := m.NewField(fd)
		v.Map().Set(sampleScalar(fd.MapKey()).MapKey(), sampleElement(fd.MapValue(), v.Map().NewValue))
		return v
	case fd.IsList():
		v := m.NewField(fd)
		v.List().Append(sampleElement(fd, v.List().NewElement))
		return v
	}
	return sampleElement(fd, func() protoreflect.Value { return m.NewField(fd) })
}

func sampleElement(fd protoreflect.FieldDescriptor, fresh func() protoreflect.Value) protoreflect.Value {
	if fd.Message() == nil {
		return sampleScalar(fd)
	}
	v := fresh()
	switch m := v.Message().Interface().(type) {
	case *wrapperspb.BoolValue:
		m.Value = true
	case *wrapperspb.UInt32Value:
		m.Value = 1
	case *wrapperspb.UInt64Value:
		m.Value = 1
	case *durationpb.Duration:
		m.Seconds = 1
	}
	return v
}

func sampleScalar(fd protoreflect.FieldDescriptor) protoreflect.Value {
	switch fd.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(true)
	case protoreflect.EnumKind:
		values := fd.Enum().Values()
		return protoreflect.ValueOfEnum(values.Get(values.Len() - 1).Number())
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte("x"))
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return protoreflect.ValueOfUint32(1)
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return protoreflect.ValueOfUint64(1)
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(1)
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(1)
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64(1)
	}
	return protoreflect.ValueOfString("x")
}

// errorsAt are the problems of exactly one field.
func errorsAt(err error, path string) []string {
	var found []string
	if err != nil {
		for line := range strings.SplitSeq(err.Error(), "\n") {
			if rest, ok := strings.CutPrefix(line, path+": "); ok {
				found = append(found, rest)
			}
		}
	}
	return found
}

func TestFixturesAreGood(t *testing.T) {
	t.Parallel()
	for _, f := range fixtures(t) {
		if _, err := f.decode(marshal(t, f.root)); err != nil {
			t.Errorf("%s: %v", f.name, err)
		}
	}
}

func TestEveryUnlistedFieldIsRefused(t *testing.T) {
	t.Parallel()
	met := make(map[protoreflect.MessageDescriptor]bool)
	tried := 0
	for _, f := range fixtures(t) {
		for _, s := range sites(t, f.root) {
			if met[s.descriptor] {
				continue
			}
			met[s.descriptor] = true
			for i, use := range supportedFields().of(s.descriptor).uses {
				fd := s.descriptor.Fields().Get(i)
				if use != unsupported {
					continue
				}
				tried++
				_, err := f.with(t, s.path, s.descriptor, func(m protoreflect.Message) { m.Set(fd, sample(m, fd)) })
				if len(errorsAt(err, s.path+string(fd.Name()))) == 0 {
					t.Errorf("%s: setting %s%s gives %v", f.name, s.path, fd.Name(), err)
				}
			}
		}
	}
	for descriptor := range supportedFields() {
		if !met[descriptor] {
			t.Errorf("no fixture has a %s", descriptor.FullName())
		}
	}
	t.Logf("%d fields of %d messages are refused", tried, len(met))
}

func TestFieldsThatMustBeZeroAreRefusedOtherwise(t *testing.T) {
	t.Parallel()
	met := make(map[protoreflect.FullName]bool)
	for _, f := range fixtures(t) {
		want, err := f.decode(marshal(t, f.root))
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range sites(t, f.root) {
			for i, use := range supportedFields().of(s.descriptor).uses {
				fd := s.descriptor.Fields().Get(i)
				if use != zeroField || met[fd.FullName()] || fd.ContainingOneof() != nil && slices.ContainsFunc(s.set, func(o protoreflect.FieldDescriptor) bool {
					return o.ContainingOneof() == fd.ContainingOneof()
				}) {
					continue
				}
				met[fd.FullName()] = true
				place := s.path + string(fd.Name())
				_, err := f.with(t, s.path, s.descriptor, func(m protoreflect.Message) { m.Set(fd, sample(m, fd)) })
				if len(errorsAt(err, place)) == 0 {
					t.Errorf("%s: setting %s gives %v", f.name, place, err)
				}
				got, err := f.with(t, s.path, s.descriptor, func(m protoreflect.Message) { m.Set(fd, m.NewField(fd)) })
				if err != nil {
					t.Errorf("%s: setting %s to zero gives %v", f.name, place, err)
				} else if diff := cmp.Diff(want, got, sameModel); diff != "" {
					t.Errorf("%s: setting %s to zero changes the model (-without +with):\n%s", f.name, place, diff)
				}
			}
		}
	}
	for descriptor := range supportedFields() {
		uses := supportedFields().of(descriptor)
		for i, use := range uses.uses {
			if fd := descriptor.Fields().Get(i); use == zeroField && !met[fd.FullName()] {
				t.Errorf("no fixture leaves room for %s", fd.FullName())
			}
		}
	}
}

func TestHarmlessFieldsChangeNothing(t *testing.T) {
	t.Parallel()
	met := make(map[protoreflect.MessageDescriptor]bool)
	for _, f := range fixtures(t) {
		want, err := f.decode(marshal(t, f.root))
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range sites(t, f.root) {
			if met[s.descriptor] {
				continue
			}
			met[s.descriptor] = true
			for i, use := range supportedFields().of(s.descriptor).uses {
				fd := s.descriptor.Fields().Get(i)
				if use != harmlessField {
					continue
				}
				place := s.path + string(fd.Name())
				got, err := f.with(t, s.path, s.descriptor, func(m protoreflect.Message) {
					v := sample(m, fd)
					if strings.HasSuffix(string(fd.Name()), "_window_size") || fd.Name() == "initial_read_buffer_size" {
						v = protoreflect.ValueOfMessage(wrapperspb.UInt32(1 << 16).ProtoReflect()) // Envoy's least is about that
					}
					if fd.Name() == "edns0_max_payload_size" {
						v = protoreflect.ValueOfMessage(wrapperspb.UInt32(4096).ProtoReflect()) // within c-ares' bounds
					}
					m.Set(fd, v)
				})
				if found := errorsAt(err, place); len(found) > 0 {
					t.Errorf("%s: setting %s is refused: %s", f.name, place, found)
				}
				// An empty sample may break a constraint of Envoy inside.
				if err != nil && !strings.HasPrefix(err.Error(), place) {
					t.Errorf("%s: setting %s gives %v", f.name, place, err)
				}
				if diff := cmp.Diff(want, got, sameModel); err == nil && diff != "" {
					t.Errorf("%s: setting %s changes the model (-without +with):\n%s", f.name, place, diff)
				}
			}
		}
	}
}

func TestEveryReadFieldMatters(t *testing.T) {
	t.Parallel()
	matters := make(map[protoreflect.FullName]bool)
	for _, f := range fixtures(t) {
		want, err := f.decode(marshal(t, f.root))
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range sites(t, f.root) {
			for i, use := range supportedFields().of(s.descriptor).uses {
				fd := s.descriptor.Fields().Get(i)
				if use != readField || matters[fd.FullName()] {
					continue
				}
				changes := []func(protoreflect.Message){
					func(m protoreflect.Message) { m.Clear(fd) },
					func(m protoreflect.Message) { m.Set(fd, sample(m, fd)) },
				}
				if fd.Enum() != nil && !fd.IsList() {
					changes = append(changes, func(m protoreflect.Message) { m.Set(fd, protoreflect.ValueOfEnum(1)) })
				}
				for _, change := range changes {
					got, err := f.with(t, s.path, s.descriptor, change)
					if err != nil || !cmp.Equal(want, got, sameModel) {
						matters[fd.FullName()] = true
					}
				}
			}
		}
	}
	for descriptor := range supportedFields() {
		uses := supportedFields().of(descriptor)
		for i, use := range uses.uses {
			fd := descriptor.Fields().Get(i)
			if fd.Message() != nil && !slices.Contains(supportedFields().of(fd.Message()).uses, readField) {
				// Only what it holds matters, and all of that is refused.
				continue
			}
			if use == readField && !matters[fd.FullName()] {
				t.Errorf("%s is listed as read, but neither setting nor clearing it makes a difference", fd.FullName())
			}
		}
	}
}

func TestAdviceIsForFieldsThatAreRefused(t *testing.T) {
	t.Parallel()
	for descriptor := range supportedFields() {
		uses := supportedFields().of(descriptor)
		for name := range uses.instead {
			if fd := descriptor.Fields().ByName(protoreflect.Name(name)); fd == nil || uses.of(fd.Index()) != unsupported {
				t.Errorf("%s.%s is not a field that is refused", descriptor.FullName(), name)
			}
		}
	}
}
