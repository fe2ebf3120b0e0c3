package xds

import (
	"strings"

	"github.com/cncf/xds/go/udpa/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
)

// hidden stands for what may be a secret.
const hidden = "[redacted]"

// maxRedactDepth bounds how deep messages in messages are looked at; what is deeper
// is left out.
const maxRedactDepth = 64

// keySet is the field of the keys of an issuer of tokens. Envoy's API does not mark it,
// because they are public; but a symmetric key may be among them.
const keySet protoreflect.FullName = "envoy.extensions.filters.http.jwt_authn.v3.JwtProvider.local_jwks"

// redacted returns a resource without its secrets: what Envoy's API marks as
// sensitive, key sets, and the values of headers that sound like one. Bytes that cannot be
// read, and messages of types that are not known here, could hold anything: of these
// only the type is left.
func redacted(typeURL string, raw []byte) *anypb.Any {
	packed := &anypb.Any{TypeUrl: typeURL, Value: raw}
	redactAny(packed, false, 0)
	return packed
}

// redactAny replaces the message in an Any.
func redactAny(packed *anypb.Any, sensitive bool, depth int) {
	message, err := packed.UnmarshalNew()
	if err != nil {
		packed.Value = nil
		return
	}
	redact(message.ProtoReflect(), sensitive, depth)
	value, err := proto.MarshalOptions{Deterministic: true}.Marshal(message)
	if err != nil {
		value = nil
	}
	packed.Value = value
}

// redact hides what is secret in a message; all of it, if it is in a sensitive
// field.
func redact(m protoreflect.Message, sensitive bool, depth int) {
	m.SetUnknown(nil) // nobody knows what it is
	if depth > maxRedactDepth {
		proto.Reset(m.Interface())
		return
	}
	if message, ok := m.Interface().(*anypb.Any); ok {
		redactAny(message, sensitive, depth+1)
		return
	}
	label := labels[m.Descriptor().FullName()]
	if label != "" {
		name := m.Get(m.Descriptor().Fields().ByName(label)).String()
		sensitive = sensitive || secretName(name)
	}
	m.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		if label == "" || field.Name() != label {
			redactField(m, field, value, sensitive || isSensitive(field), depth)
		}
		return true
	})
}

// labels are the fields that name what a message is about, in messages whose other
// fields have a secret if the name sounds like one.
var labels = map[protoreflect.FullName]protoreflect.Name{
	"envoy.config.core.v3.HeaderValue":            "key",
	"envoy.config.route.v3.HeaderMatcher":         "name",
	"envoy.config.route.v3.QueryParameterMatcher": "name",
	"envoy.config.route.v3.CookieMatcher":         "name",
}

func redactField(m protoreflect.Message, field protoreflect.FieldDescriptor, value protoreflect.Value, sensitive bool, depth int) {
	switch {
	case field.IsMap():
		of := field.MapValue()
		named := m.Descriptor().FullName() == "google.protobuf.Struct"
		value.Map().Range(func(key protoreflect.MapKey, v protoreflect.Value) bool {
			if of.Message() != nil {
				redact(v.Message(), sensitive || named && secretName(key.String()), depth+1)
			} else if sensitive {
				value.Map().Set(key, hide(of))
			}
			return true
		})
	case field.IsList():
		for i := range value.List().Len() {
			if field.Message() != nil {
				redact(value.List().Get(i).Message(), sensitive, depth+1)
			} else if sensitive {
				value.List().Set(i, hide(field))
			}
		}
	case field.Message() != nil:
		redact(value.Message(), sensitive, depth+1)
	case sensitive:
		m.Set(field, hide(field))
	}
}

// hide is what stands in place of a value.
func hide(field protoreflect.FieldDescriptor) protoreflect.Value {
	switch field.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(hidden)
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte(hidden))
	default:
		return field.Default()
	}
}

func isSensitive(field protoreflect.FieldDescriptor) bool {
	options := field.Options()
	sensitive, ok := proto.GetExtension(options, annotations.E_Sensitive).(bool)
	return ok && sensitive || field.FullName() == keySet
}

// secretWords are found in the names of what is usually a secret.
var secretWords = []string{"auth", "cookie", "token", "secret", "passw", "api-key", "apikey", "credential", "session", "signature", "jwt"}

// secretName reports whether the value of a header or a field with this name may be
// a secret. The authority is none.
func secretName(name string) bool {
	name = strings.ToLower(name)
	if name == ":authority" {
		return false
	}
	for _, word := range secretWords {
		if strings.Contains(name, word) {
			return true
		}
	}
	return false
}
