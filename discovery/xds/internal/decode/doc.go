// Package decode turns Envoy's protobufs into the immutable model of package
// discovery, one function per resource type.
//
// A resource is taken as a whole or refused as a whole. It passes three gates,
// and every problem of every gate is reported, each with the path of the
// protobuf field that caused it:
//
//  1. Envoy's own constraints (protoc-gen-validate).
//  2. The populated fields. Each message has a list of the fields that a
//     decoder reads and of those that change nothing here; a populated field on
//     neither list is refused, so that nothing is skipped silently.
//  3. The decoders, one file per noun, which check what protobuf cannot say.
//
// Fields and enum values that this version of the protobufs does not know are
// ignored, as gRFC A27 asks, unless the place where they stand would then mean
// something else.
package decode
