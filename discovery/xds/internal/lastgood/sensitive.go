package lastgood

import (
	"github.com/cncf/xds/go/udpa/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
)

// secretURL is the type of secrets. The mesh does not ask for them over ADS; if it
// did, they would not be kept.
const secretURL = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"

// holdsSecret looks for something sensitive in all of a resource. What an Any of a
// type holds that this program does not know is not looked into, as nothing else of it
// is.
func holdsSecret(typeURL string, value []byte) bool {
	if typeURL == secretURL {
		return true
	}
	message, err := (&anypb.Any{TypeUrl: typeURL, Value: value}).UnmarshalNew()
	return err != nil || sensitive(message.ProtoReflect())
}

// sensitive reports whether a message, or one in it, has a sensitive field set, or a
// key set with which tokens could be signed.
func sensitive(m protoreflect.Message) (found bool) {
	if packed, ok := m.Interface().(*anypb.Any); ok {
		inner, err := packed.UnmarshalNew()
		return err == nil && sensitive(inner.ProtoReflect())
	}
	m.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		found = marked(field) && !elsewhere(field, value) || isKeySet(field) && canSign(value.Message()) || below(field, value)
		return !found
	})
	return found
}

// below looks into the messages that a field holds.
func below(field protoreflect.FieldDescriptor, value protoreflect.Value) (found bool) {
	switch {
	case field.IsMap():
		if field.MapValue().Message() == nil {
			return false
		}
		value.Map().Range(func(_ protoreflect.MapKey, entry protoreflect.Value) bool {
			found = sensitive(entry.Message())
			return !found
		})
	case field.Message() == nil:
	case field.IsList():
		for i := range value.List().Len() {
			if sensitive(value.List().Get(i).Message()) {
				return true
			}
		}
	default:
		return sensitive(value.Message())
	}
	return found
}

func marked(field protoreflect.FieldDescriptor) bool {
	is, _ := proto.GetExtension(field.Options(), annotations.E_Sensitive).(bool)
	return is
}

// elsewhere reports whether a sensitive field only says where the secret is: in a
// file, or in the environment.
func elsewhere(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
	if field.Message() == nil || field.IsList() || field.Message().FullName() != "envoy.config.core.v3.DataSource" {
		return false
	}
	source := value.Message()
	chosen := source.WhichOneof(field.Message().Oneofs().ByName("specifier"))
	return chosen != nil && (chosen.Name() == "filename" || chosen.Name() == "environment_variable")
}
