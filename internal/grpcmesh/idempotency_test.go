package grpcmesh

import (
	"testing"

	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
)

func TestTheDescriptorSaysWhatMayBeRepeated(t *testing.T) {
	t.Parallel()
	method := func(name string, options *descriptorpb.MethodOptions) *descriptorpb.MethodDescriptorProto {
		return &descriptorpb.MethodDescriptorProto{Name: &name, InputType: new(".shop.M"), OutputType: new(".shop.M"), Options: options}
	}
	level := func(l descriptorpb.MethodOptions_IdempotencyLevel) *descriptorpb.MethodOptions {
		return &descriptorpb.MethodOptions{IdempotencyLevel: &l}
	}
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: new("shop.proto"), Package: new("shop"),
		MessageType: []*descriptorpb.DescriptorProto{{Name: new("M")}},
		Service: []*descriptorpb.ServiceDescriptorProto{{Name: new("Payment"), Method: []*descriptorpb.MethodDescriptorProto{
			method("Charge", nil),
			method("Rates", level(descriptorpb.MethodOptions_NO_SIDE_EFFECTS)),
			method("Cancel", level(descriptorpb.MethodOptions_IDEMPOTENT)),
			method("Unknown", level(descriptorpb.MethodOptions_IDEMPOTENCY_UNKNOWN)),
		}}},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	files := new(protoregistry.Files)
	if err := files.RegisterFile(file); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{
		"/shop.Payment/Charge": false, "/shop.Payment/Rates": true, "/shop.Payment/Cancel": true, "/shop.Payment/Unknown": false,
		"/shop.Payment/None": false, "/shop.Payment": false, "/shop.M": false, "": false, "/": false, "//": false,
	} {
		if got := isIdempotentIn(files, name); got != want {
			t.Errorf("%q: %t, want %t", name, got, want)
		}
	}
	if isIdempotent("/shop.Payment/Rates") {
		t.Error("a method that is not linked in may be repeated")
	}
}
