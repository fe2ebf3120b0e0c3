package istio

import (
	"reflect"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"
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
		switch spec := k.newSpec().(type) {
		case proto.Message:
			if message := spec.ProtoReflect().Descriptor().FullName(); len(translated[message]) == 0 {
				t.Errorf("%s: no field of %s is translated", name, message)
			}
		default:
			checkStruct(t, reflect.TypeOf(spec).Elem(), make(map[reflect.Type]bool))
		}
	}
}

// checkStruct checks that what is said to be translated of a struct exists.
func checkStruct(t *testing.T, of reflect.Type, seen map[reflect.Type]bool) {
	t.Helper()
	for of.Kind() == reflect.Pointer || of.Kind() == reflect.Slice || of.Kind() == reflect.Map {
		of = of.Elem()
	}
	if of.Kind() != reflect.Struct || seen[of] {
		return
	}
	seen[of] = true
	fields := slices.Concat(translatedStructs[of.Name()], kubernetesMembers[of.Name()])
	if len(fields) == 0 {
		t.Errorf("no field of %s is translated", of.Name())
	}
	for _, name := range fields {
		i := fieldByTag(of, name)
		if i < 0 {
			t.Errorf("%s has no field %s", of.Name(), name)
			continue
		}
		checkStruct(t, of.Field(i).Type, seen)
	}
}
