package grpcmesh_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/retry"
)

// A handler that waits for a message notices, too.
func TestBT3_TheMaximumDurationOfAStreamEndsAWaitForAMessage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		in := plaintext(endpoint)
		in.Chains[0].MaxStreamDuration = 3 * time.Second
		f.serveAs(in, &backend{})
		f.forwardTo(endpoint)
		start := time.Now()
		stream, err := f.client().FullDuplexCall(withTimeout(t))
		if err != nil {
			t.Fatal(err)
		}
		if _, err = stream.Recv(); err == nil || time.Since(start) != 3*time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}

// When an application has been told that its time is over, its messages are its own
// again, whatever still comes.
func TestBT3_AMessageIsNotTouchedWhenTheTimeIsOver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		in := plaintext(endpoint)
		in.Chains[0].MaxStreamDuration = 3 * time.Second
		ended := make(chan struct{})
		f.serveAs(in, &backend{duplex: func(stream grpc.BidiStreamingServer[grpc_testing.StreamingOutputCallRequest, grpc_testing.StreamingOutputCallResponse]) error {
			defer close(ended)
			m := &grpc_testing.StreamingOutputCallRequest{Payload: &grpc_testing.Payload{Body: []byte("stale")}}
			if err := stream.RecvMsg(m); err != nil || string(m.GetPayload().GetBody()) != "first" {
				t.Errorf("received %v, %v", m, err)
			}
			m.Payload.Body = []byte("mine")
			if err := stream.RecvMsg(m); status.Code(err) != codes.DeadlineExceeded {
				t.Errorf("got %v", err)
			}
			reply := &grpc_testing.StreamingOutputCallResponse{}
			for i := range 20 {
				reply.Payload = &grpc_testing.Payload{Body: make([]byte, i)}
				if err := stream.SendMsg(reply); status.Code(err) != codes.DeadlineExceeded && err != nil {
					t.Errorf("got %v", err)
				}
				reply.Payload.Type = 0
			}
			time.Sleep(2 * time.Second) // a message comes meanwhile
			if string(m.GetPayload().GetBody()) != "mine" {
				t.Errorf("the message is %v now", m)
			}
			return nil
		}})
		f.forwardTo(endpoint)
		stream, err := f.client().FullDuplexCall(withTimeout(t))
		if err != nil {
			t.Fatal(err)
		}
		send := func(body string) {
			if err := stream.Send(&grpc_testing.StreamingOutputCallRequest{Payload: &grpc_testing.Payload{Body: []byte(body)}}); err != nil {
				t.Error(err)
			}
		}
		send("first")
		time.Sleep(4 * time.Second)
		send("late")
		<-ended
		for err == nil {
			_, err = stream.Recv()
		}
	})
}

// What an attempt brings that is given up at the call's end is nobody's: it may still
// be bringing it.
func TestTheEndOfAHedgedCallReadsNothingOfWhatStillRuns(t *testing.T) {
	t.Parallel()
	for range 10 {
		synctest.Test(t, func(t *testing.T) {
			f := newFixture(t)
			f.serve(endpoint, &backend{before: hang})
			r := forward("main")
			r.Forward.Hedge = &retry.Hedge{Delay: 50 * time.Millisecond}
			r.Forward.Retry = &retry.Policy{MaxRetries: 2, On: retry.On5xx}
			f.configure(r, cluster("main", endpoint))
			ctx := metadata.AppendToOutgoingContext(t.Context(), "idempotency-key", "7")
			ctx, cancel := context.WithTimeout(ctx, 70*time.Millisecond)
			defer cancel()
			var header, trailer metadata.MD
			_, err := f.client().UnaryCall(ctx, &grpc_testing.SimpleRequest{}, grpc.Header(&header), grpc.Trailer(&trailer))
			if err == nil {
				t.Error("a payment that hangs has answered")
			}
		})
	}
}

// frames is a codec of an application's own messages.
type frames struct{}

type frame struct{ payload []byte }

func (frames) Name() string { return "proto" }

func (frames) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.(*frame).payload)}, nil
}

func (frames) Unmarshal(data mem.BufferSlice, v any) error {
	v.(*frame).payload = data.Materialize()
	return nil
}

// A stream whose messages are no protobuf has a maximum duration as well.
func TestBT3_MessagesOfAnotherCodecPass(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		in := plaintext(endpoint)
		in.Chains[0].MaxStreamDuration = 3 * time.Second
		f.above = []grpc.ServerOption{grpc.ForceServerCodecV2(frames{}), grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
			for {
				var m frame
				if err := stream.RecvMsg(&m); err != nil {
					return err
				}
				if err := stream.SendMsg(&m); err != nil {
					return err
				}
			}
		})}
		f.serveAs(in, nil)
		f.forwardTo(endpoint)
		start := time.Now()
		stream, err := f.channel().NewStream(withTimeout(t), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/shop.Frames/Echo", grpc.ForceCodecV2(frames{}))
		if err != nil {
			t.Fatal(err)
		}
		var m frame
		for _, payload := range []string{"one", "two"} {
			if err := stream.SendMsg(&frame{payload: []byte(payload)}); err != nil {
				t.Fatal(err)
			}
			if err := stream.RecvMsg(&m); err != nil || string(m.payload) != payload {
				t.Errorf("got %q, %v", m.payload, err)
			}
		}
		if err := stream.RecvMsg(&m); status.Code(err) != codes.DeadlineExceeded || time.Since(start) != 3*time.Second {
			t.Errorf("got %v after %v", err, time.Since(start))
		}
	})
}
