package grpcmesh

import (
	"encoding/binary"
	"math"

	"google.golang.org/protobuf/proto"

	"github.com/inboardmesh/inboard/internal/filter"
)

// frame is the body of a unary call for an authorization service: the message in its
// frame (gRPC over HTTP/2, Length-Prefixed-Message), as a proxy would have seen it
// without compression. It is made of what the application will get, so that nobody
// can send one thing for the check and another for the service. Messages that are no
// protobufs have no form that is known here, and those of streams come later.
func frame(message any, limit int) (data []byte, whole bool, err error) {
	m, ok := message.(proto.Message)
	if !ok {
		return nil, false, filter.ErrNoBody
	}
	const prefix = 5 // whether it is compressed, and the length
	size := proto.Size(m)
	if size > math.MaxInt32 {
		return nil, false, filter.ErrNoBody
	}
	data = make([]byte, prefix, prefix+size)
	binary.BigEndian.PutUint32(data[1:], uint32(size))
	if data, err = (proto.MarshalOptions{}).MarshalAppend(data, m); err != nil {
		return nil, false, filter.ErrNoBody
	}
	if len(data) > limit {
		return data[:limit], false, nil
	}
	return data, true, nil
}
