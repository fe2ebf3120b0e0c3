package grpcmesh

import (
	"strings"

	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
)

// isIdempotent reports whether the descriptor of a method, "/pkg.Service/Method",
// says that calling it again changes nothing (idempotency_level). Methods whose
// descriptor is not linked into the program are not.
func isIdempotent(method string) bool { return isIdempotentIn(protoregistry.GlobalFiles, method) }

func isIdempotentIn(files protodesc.Resolver, method string) bool {
	name := strings.ReplaceAll(strings.TrimPrefix(method, "/"), "/", ".")
	found, err := files.FindDescriptorByName(protoreflect.FullName(name))
	if err != nil {
		return false
	}
	descriptor, ok := found.(protoreflect.MethodDescriptor)
	if !ok {
		return false
	}
	options, ok := descriptor.Options().(*descriptorpb.MethodOptions)
	return ok && options.GetIdempotencyLevel() != descriptorpb.MethodOptions_IDEMPOTENCY_UNKNOWN
}
