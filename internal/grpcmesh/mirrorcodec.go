package grpcmesh

import (
	"fmt"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	protocodec "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/inboardmesh/inboard/internal/pipeline"
)

// raw is a message that is encoded already.
type raw []byte

// rawCodec sends messages that are encoded already and drops those that it
// receives.
type rawCodec struct{ name string }

var _ encoding.CodecV2 = rawCodec{}

func (c rawCodec) Name() string { return c.name }

func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	message, ok := v.(raw)
	if !ok {
		return nil, fmt.Errorf("%T is not encoded", v)
	}
	return mem.BufferSlice{mem.SliceBuffer(message)}, nil
}

func (rawCodec) Unmarshal(mem.BufferSlice, any) error { return nil }

// encoder is how a call encodes its messages.
type encoder struct {
	// subtype is that of the content type; "" is gRPC's default.
	subtype string
	marshal func(m any) (mem.BufferSlice, error)
}

// encoderOf finds how calls with these options encode their messages, as gRPC
// does.
func encoderOf(opts []grpc.CallOption) encoder {
	var e encoder
	for _, o := range opts {
		switch o := o.(type) {
		case grpc.ContentSubtypeCallOption:
			e.subtype = o.ContentSubtype
		case grpc.ForceCodecV2CallOption:
			e.marshal = o.CodecV2.Marshal
			e.subtype = strings.ToLower(o.CodecV2.Name())
		case grpc.ForceCodecCallOption:
			e.marshal = first(o.Codec)
			e.subtype = strings.ToLower(o.Codec.Name())
		}
	}
	if e.marshal != nil {
		return e
	}
	name := e.subtype
	if name == "" {
		name = protocodec.Name
	}
	if codec := encoding.GetCodecV2(name); codec != nil {
		e.marshal = codec.Marshal
	} else if codec := encoding.GetCodec(name); codec != nil {
		e.marshal = first(codec)
	}
	return e
}

// first is the Marshal of a codec of gRPC's first interface.
func first(c encoding.Codec) func(any) (mem.BufferSlice, error) {
	return func(m any) (mem.BufferSlice, error) {
		b, err := c.Marshal(m)
		return mem.BufferSlice{mem.SliceBuffer(b)}, err
	}
}

// encode returns a message as it is sent, or why no copy of it can be.
func (e *encoder) encode(m any) (_ raw, dropped string) {
	if message, ok := m.(proto.Message); ok && proto.Size(message) > maxKeptBytes {
		return nil, pipeline.DropTooLarge
	}
	if e.marshal == nil {
		return nil, pipeline.DropUnsendable
	}
	encoded, err := e.marshal(m)
	if err != nil {
		return nil, pipeline.DropUnsendable // which the call finds out itself
	}
	defer encoded.Free()
	if encoded.Len() > maxKeptBytes {
		return nil, pipeline.DropTooLarge
	}
	return encoded.Materialize(), ""
}
