package istio_test

import (
	"testing"

	resource "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/inboardmesh/inboard/controlplane/istio"
)

// checkResources checks, for nodes inside and outside the namespaces of the
// services, that every resource that a Config names exists, keeps its name,
// refers only to resources that exist, and is valid by Envoy's constraints,
// down to the messages that are packed in it.
func checkResources(t testing.TB, config *istio.Config) {
	t.Helper()
	for _, node := range []istio.Node{caller, {}, {Namespace: "bank"}} {
		checkResourcesOf(t, config, node)
	}
}

// checkResourcesOf checks what one node sees.
func checkResourcesOf(t testing.TB, config *istio.Config, node istio.Node) {
	t.Helper()
	for _, typeURL := range typeURLs {
		names := config.Names(node, typeURL)
		if typeURL == resource.ListenerType {
			names = append([]string{inbound + "0.0.0.0:8080", inbound + "[::1]:65535"}, names...)
		}
		for _, name := range names {
			m, ok := config.Resource(node, typeURL, name)
			if !ok {
				t.Errorf("%s %q is listed and missing", typeURL, name)
				continue
			}
			if got := nameOf(m); got != name {
				t.Errorf("%s %q is called %q", typeURL, name, got)
			}
			checkValid(t, name, m)
		}
	}
}

func nameOf(m proto.Message) string {
	switch m := m.(type) {
	case interface{ GetClusterName() string }:
		return m.GetClusterName()
	case interface{ GetName() string }:
		return m.GetName()
	}
	return ""
}

func checkValid(t testing.TB, name string, m proto.Message) {
	t.Helper()
	if v, ok := m.(interface{ ValidateAll() error }); ok {
		if err := v.ValidateAll(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	eachAny(t, m.ProtoReflect(), func(inner proto.Message) { checkValid(t, name, inner) })
}

// eachAny unpacks every Any inside of a message.
func eachAny(t testing.TB, m protoreflect.Message, visit func(proto.Message)) {
	t.Helper()
	if packed, ok := m.Interface().(*anypb.Any); ok {
		inner, err := packed.UnmarshalNew()
		if err != nil {
			t.Errorf("unpack %s: %v", packed.TypeUrl, err)
			return
		}
		visit(inner)
		return
	}
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.IsMap() && fd.MapValue().Message() != nil:
			v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
				eachAny(t, v.Message(), visit)
				return true
			})
		case fd.IsList() && fd.Message() != nil:
			for i := range v.List().Len() {
				eachAny(t, v.List().Get(i).Message(), visit)
			}
		case fd.Message() != nil && !fd.IsMap() && !fd.IsList():
			eachAny(t, v.Message(), visit)
		}
		return true
	})
}
