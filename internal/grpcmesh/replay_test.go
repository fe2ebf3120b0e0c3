package grpcmesh_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/outcome"
	"github.com/inboardmesh/inboard/retry"
)

// TestAnUploadThatIsRejectedWhileItRunsIsSentAgain: the first server answers
// before it has read anything, and the application sends on.
func TestAnUploadThatIsRejectedWhileItRunsIsSentAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		b := &backend{before: failFirst(1, codes.Unavailable)}
		f.serve(endpoint, b)
		f.configure(retrying(1, retry.OnGRPCUnavailable), cluster("main", endpoint))
		stream, err := f.client().StreamingInputCall(withTimeout(t))
		if err != nil {
			t.Fatal(err)
		}
		want := 0
		for i := range 200 { // more than is kept
			if err := stream.Send(inputRequest(i)); err != nil {
				t.Fatalf("message %d: %v", i, err)
			}
			want += i
			synctest.Wait()
		}
		reply, err := stream.CloseAndRecv()
		if err != nil || int(reply.GetAggregatedPayloadSize()) != want {
			t.Errorf("%v, %v; want %d bytes", reply, err, want)
		}
	})
}

func TestBR14_V48_AStreamIsReplayedWholeOrNotAtAll(t *testing.T) {
	t.Parallel()
	const overhead = 6 // of a message of between 128 and 16383 bytes
	tests := []struct {
		name  string
		sizes []int
		want  codes.Code
	}{
		{"64 messages", slices.Repeat([]int{1}, 64), codes.OK},
		{"65 messages", slices.Repeat([]int{1}, 65), codes.Unavailable},
		{"64 KiB", slices.Repeat([]int{8<<10 - overhead}, 8), codes.OK},
		{"64 KiB and one byte", append(slices.Repeat([]int{8<<10 - overhead}, 7), 8<<10-overhead+1), codes.Unavailable},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				b := &backend{}
				b.duplex = func(stream grpc.BidiStreamingServer[grpc_testing.StreamingOutputCallRequest, grpc_testing.StreamingOutputCallResponse]) error {
					got := 0
					for {
						m, err := stream.Recv()
						if errors.Is(err, io.EOF) {
							break
						}
						if err != nil {
							return err
						}
						if len(m.GetPayload().GetBody()) != tt.sizes[got] {
							t.Errorf("message %d has %d bytes", got, len(m.GetPayload().GetBody()))
						}
						got++
					}
					if got != len(tt.sizes) {
						t.Errorf("%d messages of %d", got, len(tt.sizes))
					}
					if b.calls.Load() == 1 {
						return status.Error(codes.Unavailable, "scripted failure")
					}
					return stream.Send(output([]byte("done")))
				}
				f.serve(endpoint, b)
				f.configure(retrying(1, retry.OnGRPCUnavailable), cluster("main", endpoint))
				stream, err := f.client().FullDuplexCall(withTimeout(t))
				if err != nil {
					t.Fatal(err)
				}
				for _, size := range tt.sizes {
					if err := stream.Send(outputRequest(string(make([]byte, size)))); err != nil {
						t.Fatal(err)
					}
				}
				if err := stream.CloseSend(); err != nil {
					t.Fatal(err)
				}
				if _, err := stream.Recv(); status.Code(err) != tt.want {
					t.Errorf("%v, want %v", err, tt.want)
				}
				for err == nil {
					_, err = stream.Recv()
				}
				f.seen.mu.Lock()
				defer f.seen.mu.Unlock()
				if told := slices.ContainsFunc(f.seen.overflow, func(e observe.OverflowEvent) bool { return e.Resource == "replay" }); told != (tt.want != codes.OK) {
					t.Errorf("hooks were told %+v", f.seen.overflow)
				}
			})
		})
	}
}

// TestSendAndReceiveMayRunAtTheSameTime while attempts fail.
func TestSendAndReceiveMayRunAtTheSameTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		b := &backend{before: func(ctx context.Context, n int64) error {
			if n%3 != 0 {
				return status.Error(codes.Unavailable, "scripted failure")
			}
			return nil
		}}
		f.serve(endpoint, b)
		f.configure(retrying(2, retry.OnGRPCUnavailable), cluster("main", endpoint))
		client := f.client()
		for range 50 {
			stream, err := client.FullDuplexCall(withTimeout(t))
			if err != nil {
				t.Fatal(err)
			}
			const messages = 40
			go func() { // ends when all is sent
				for i := range messages {
					if err := stream.Send(outputRequest(string(rune('a' + i)))); err != nil {
						t.Errorf("send %d: %v", i, err)
					}
				}
				if err := stream.CloseSend(); err != nil {
					t.Errorf("close: %v", err)
				}
			}()
			for i := range messages {
				m, err := stream.Recv()
				if err != nil || string(m.GetPayload().GetBody()) != string(rune('a'+i)) {
					t.Fatalf("message %d: %v, %v", i, m, err)
				}
			}
			if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
				t.Fatalf("end: %v", err)
			}
		}
	})
}

// TestAMessageThatCannotBeSentEndsTheCall: it is the caller's own mistake, which
// no attempt can mend.
func TestAMessageThatCannotBeSentEndsTheCall(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		b := &backend{}
		f.serve(endpoint, b)
		f.configure(retrying(3, ^retry.Conditions(0)), cluster("main", endpoint))
		// The context has no end, so only the error can end the call.
		stream, err := f.client().FullDuplexCall(context.Background(), grpc.MaxCallSendMsgSize(10))
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Send(outputRequest("this is longer than ten bytes")); status.Code(err) != codes.ResourceExhausted {
			t.Errorf("send: %v", err)
		}
		synctest.Wait()
		calls := f.seen.ended(observe.Outbound)
		if len(calls) != 1 || calls[0].Attempts != 1 {
			t.Fatalf("calls that ended: %+v", calls)
		}
		if v := calls[0].Outcome.Verdict(); v != outcome.Ignored {
			t.Errorf("verdict %d on the endpoint", v)
		}
	})
}
