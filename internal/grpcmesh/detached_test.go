package grpcmesh

import (
	"testing"

	"google.golang.org/grpc/interop/grpc_testing"
)

// ownFrame is a message of an application's own codec.
type ownFrame struct{ payload []byte }

func TestAMessageIsReceivedApart(t *testing.T) {
	t.Parallel()
	var none *ownFrame
	if own, adopt := detachedFor(none); own != any(none) {
		t.Errorf("no pointer became %v", own)
	} else {
		adopt()
	}
	m := &ownFrame{payload: []byte("mine")}
	own, adopt := detachedFor(m)
	received := own.(*ownFrame)
	received.payload = append(received.payload[:0], "received"...)
	if string(m.payload) != "mine" {
		t.Errorf("it is %q before it is adopted", m.payload)
	}
	if adopt(); string(m.payload) != "received" {
		t.Errorf("it is %q", m.payload)
	}
	p := &grpc_testing.Payload{Type: grpc_testing.PayloadType_COMPRESSABLE, Body: []byte("mine")}
	_, adopt = detachedFor(p)
	if adopt(); len(p.GetBody()) != 0 {
		t.Errorf("what was there before is kept: %v", p)
	}
}

func TestWhatIsSentIsACopy(t *testing.T) {
	t.Parallel()
	p := &grpc_testing.Payload{Body: []byte("mine")}
	own, err := detachedCopy(nil, p)
	if err != nil {
		t.Fatal(err)
	}
	p.Body[0] = 'M'
	if got := own.(*grpc_testing.Payload); string(got.GetBody()) != "mine" {
		t.Errorf("sent is %v", got)
	}
}
