package grpcmesh

import (
	"reflect"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

// detachedFor returns a message like m to be received, for an operation that may go
// on when nobody waits for it any more, and what gives m its content once it has
// come: m is the application's again when that is told that its time is over.
func detachedFor(m any) (own any, adopt func()) {
	if message, ok := m.(proto.Message); ok {
		received := message.ProtoReflect().New().Interface()
		return received, func() {
			proto.Reset(message)
			proto.Merge(message, received)
		}
	}
	// A codec of the application's fills what a pointer leads to.
	v := reflect.ValueOf(m)
	if v.Kind() != reflect.Pointer || v.IsNil() {
		return m, func() {}
	}
	received := reflect.New(v.Type().Elem())
	return received.Interface(), func() { v.Elem().Set(received.Elem()) }
}

// detachedCopy returns what to send instead of m on a stream, for an operation that
// may go on when nobody waits for it any more. Only what is no protobuf message is
// encoded here: interceptors may want to see those.
func detachedCopy(stream grpc.ServerStream, m any) (any, error) {
	if message, ok := m.(proto.Message); ok {
		return proto.Clone(message), nil
	}
	encoded := new(grpc.PreparedMsg)
	if err := encoded.Encode(stream, m); err != nil {
		return nil, err
	}
	return encoded, nil
}
