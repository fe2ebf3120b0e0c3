package lastgood

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/inboardmesh/inboard/internal/token"
)

// isKeySet reports whether a field is the key set of the issuer of tokens. Envoy's API
// does not mark it, because it has public keys; but it may have others.
func isKeySet(field protoreflect.FieldDescriptor) bool {
	return field.FullName() == "envoy.extensions.filters.http.jwt_authn.v3.JwtProvider.local_jwks"
}

// canSign reports whether a key set has a key in it with which tokens could be signed.
func canSign(keySet protoreflect.Message) bool {
	source, ok := keySet.Interface().(*corev3.DataSource)
	if !ok {
		return true
	}
	switch text := source.GetSpecifier().(type) {
	case *corev3.DataSource_InlineString:
		return token.CanSign([]byte(text.InlineString))
	case *corev3.DataSource_InlineBytes:
		return token.CanSign(text.InlineBytes)
	}
	return false
}
