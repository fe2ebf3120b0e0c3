package istio

import (
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

func TestEveryTranslatedFieldExistsInTheAPI(t *testing.T) {
	t.Parallel()
	for message, fields := range translated {
		descriptor, err := protoregistry.GlobalFiles.FindDescriptorByName(message)
		if err != nil {
			t.Errorf("%s: %v", message, err)
			continue
		}
		for _, field := range fields {
			if descriptor.(protoreflect.MessageDescriptor).Fields().ByName(field) == nil {
				t.Errorf("%s has no field %s", message, field)
			}
		}
	}
}

func TestEveryKindHasItsFieldsListed(t *testing.T) {
	t.Parallel()
	for name, k := range kinds {
		message := k.newSpec().ProtoReflect().Descriptor().FullName()
		if len(translated[message]) == 0 {
			t.Errorf("%s: no field of %s is translated", name, message)
		}
	}
}
