package grpcmesh_test

import (
	"bytes"
	"context"
	endian "encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/inboardmesh/inboard/internal/calltest"
	"github.com/inboardmesh/inboard/outcome"
	"github.com/inboardmesh/inboard/outcome/meshfail"
	"github.com/inboardmesh/inboard/retry"
)

// dyingConn is a connection of a server of gRPC that may do anything to it.
type dyingConn struct {
	*calltest.DyingConn

	block   bytes.Buffer   // used while frames are written
	encoder *hpack.Encoder // the same
}

// call is one that arrives.
type call struct {
	id             uint32
	path, number   string
	data           []byte // of messages that are not whole
	size           int    // of the payloads of all messages
	over, answered bool   // refused or answered; an answer has begun
}

func serveDying(d *calltest.Dying, conn net.Conn) {
	c := &dyingConn{DyingConn: d.Conn(conn)}
	c.encoder = hpack.NewEncoder(&c.block)
	calls := map[uint32]*call{}
	c.Serve(func(frame *http2.MetaHeadersFrame, number string) {
		s := &call{id: frame.StreamID, path: frame.PseudoValue("path"), number: number}
		calls[s.id] = s
		s.over = c.Begin(s.id, c.Fate(20, calltest.Beginnings()...))
	}, func(id uint32, piece []byte, end bool) {
		c.data(calls[id], piece)
		if end {
			c.whole(calls[id])
		}
	})
}

func (c *dyingConn) refuse(s *call) {
	s.over = true
	c.Reset(s.id, http2.ErrCodeRefusedStream)
}

// data is a piece of the messages of a call. Those of a stream in both directions are
// answered one by one.
func (c *dyingConn) data(s *call, piece []byte) {
	if !s.over && !s.answered && c.Fate(20, "refused between its messages") != "" {
		c.refuse(s)
	}
	if s.over {
		return
	}
	for s.data = append(s.data, piece...); len(s.data) >= 5; {
		n := 5 + int(endian.BigEndian.Uint32(s.data[1:]))
		if len(s.data) < n {
			return
		}
		var message grpc_testing.StreamingOutputCallRequest // whose payload has the same place in others
		if strings.HasSuffix(s.path, "/FullDuplexCall") {
			if proto.Unmarshal(s.data[5:n], &message) != nil || !c.answer(s, output(message.GetPayload().GetBody())) {
				return
			}
		}
		s.size += n
		s.data = s.data[n:]
	}
}

// whole is the end of what a client sends, upon which the call ends soon unless it is
// refused.
func (c *dyingConn) whole(s *call) {
	if s.over {
		return
	}
	c.Answers.Go(func() {
		c.Pause(20 * time.Millisecond)
		if !s.answered && c.Fate(20, "refused behind its messages") != "" {
			c.refuse(s)
			return
		}
		body := []byte(s.number)
		switch s.path[strings.LastIndexByte(s.path, '/'):] {
		case "/UnaryCall":
			c.answer(s, &grpc_testing.SimpleResponse{Payload: &grpc_testing.Payload{Body: body}})
		case "/StreamingInputCall":
			c.answer(s, &grpc_testing.StreamingInputCallResponse{AggregatedPayloadSize: int32(s.size)})
		case "/StreamingOutputCall":
			for range outputs {
				if !c.answer(s, output(body)) {
					return
				}
				c.Pause(10 * time.Millisecond)
			}
		}
		c.end(s)
	})
}

// answer sends a message and reports whether the call goes on: it may have been excluded
// before anything was sent, and ends in cruelty otherwise.
func (c *dyingConn) answer(s *call, m proto.Message) bool {
	if s.over || !s.answered && !c.Process(s.id, s.number) {
		s.over = true
		return false
	}
	first := !s.answered
	s.answered = true
	if c.Cruel {
		switch c.Fate(30, "reset when it was processed", "connection closed when it was processed") {
		case "reset when it was processed":
			s.over = true
			c.Reset(s.id, http2.ErrCodeInternal)
			return false
		case "connection closed when it was processed":
			s.over = true
			c.Close()
			return false
		}
	}
	encoded, err := proto.Marshal(m)
	c.Say(func(f *http2.Framer) error {
		if first {
			err = errors.Join(err, c.headers(f, s, false, ":status", "200", "content-type", "application/grpc"))
		}
		prefix := endian.BigEndian.AppendUint32([]byte{0}, uint32(len(encoded)))
		return errors.Join(err, f.WriteData(s.id, false, append(prefix, encoded...)))
	})
	return true
}

func (c *dyingConn) end(s *call) {
	if s.over {
		return
	}
	s.over = true
	c.Say(func(f *http2.Framer) error {
		if !s.answered {
			return c.headers(f, s, true, ":status", "200", "content-type", "application/grpc", "grpc-status", "0")
		}
		return c.headers(f, s, true, "grpc-status", "0")
	})
}

func (c *dyingConn) headers(f *http2.Framer, s *call, end bool, pairs ...string) error {
	c.block.Reset()
	for i := 0; i < len(pairs); i += 2 {
		if err := c.encoder.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]}); err != nil {
			return err
		}
	}
	return f.WriteHeaders(http2.HeadersFrameParam{StreamID: s.id, BlockFragment: c.block.Bytes(), EndHeaders: true, EndStream: end})
}

// outputs is how many messages a stream sends in each direction.
const outputs = 3

var errWrongAnswer = errors.New("the answer is another's, or not whole")

// stormCalls make a call each and return an error if it did not get its answer.
var stormCalls = []func(ctx context.Context, client grpc_testing.TestServiceClient, number string, size int) error{
	func(ctx context.Context, client grpc_testing.TestServiceClient, number string, size int) error {
		reply, err := client.UnaryCall(ctx, &grpc_testing.SimpleRequest{Payload: &grpc_testing.Payload{Body: make([]byte, size)}})
		return answered(err, string(reply.GetPayload().GetBody()) == number)
	},
	func(ctx context.Context, client grpc_testing.TestServiceClient, _ string, size int) error {
		stream, err := client.StreamingInputCall(ctx)
		if err != nil {
			return err
		}
		want := 0
		for range outputs {
			message := inputRequest(size / outputs)
			want += 5 + proto.Size(message)
			if stream.Send(message) != nil {
				break // the end is received
			}
			time.Sleep(time.Millisecond)
		}
		reply, err := stream.CloseAndRecv()
		return answered(err, int(reply.GetAggregatedPayloadSize()) == want)
	},
	func(ctx context.Context, client grpc_testing.TestServiceClient, number string, _ int) error {
		stream, err := client.StreamingOutputCall(ctx, &grpc_testing.StreamingOutputCallRequest{})
		if err != nil {
			return err
		}
		for n := 0; ; n++ {
			message, err := stream.Recv()
			if err != nil {
				return ended(err, n == outputs)
			}
			if string(message.GetPayload().GetBody()) != number {
				return errWrongAnswer
			}
		}
	},
	func(ctx context.Context, client grpc_testing.TestServiceClient, number string, _ int) error {
		stream, err := client.FullDuplexCall(ctx)
		if err != nil {
			return err
		}
		for i := range outputs {
			body := fmt.Sprint(number, "/", i)
			_ = stream.Send(outputRequest(body)) // the end is received
			message, err := stream.Recv()
			if err != nil {
				return ended(err, false)
			}
			if string(message.GetPayload().GetBody()) != body {
				return errWrongAnswer
			}
			time.Sleep(time.Millisecond)
		}
		_ = stream.CloseSend() // never fails
		_, err = stream.Recv()
		return ended(err, true)
	},
}

// answered is the error of a call that returned err, or has got its answer.
func answered(err error, right bool) error {
	if err == nil && !right {
		return errWrongAnswer
	}
	return err
}

// ended is the error of a stream that ended with err, when it had got all that it was to
// get or not.
func ended(err error, whole bool) error {
	if errors.Is(err, io.EOF) {
		return answered(nil, whole)
	}
	return err
}

// TestBN10_BR12_NoCallIsLostOrDoubledWhileStreamsAreRefused: of calls that servers say
// they have not processed none fails, be it a stream or not, and none is processed twice.
// Of calls of which nobody can know none is sent again.
func TestBN10_BR12_NoCallIsLostOrDoubledWhileStreamsAreRefused(t *testing.T) {
	t.Parallel()
	for seed := range uint64(3) {
		for _, cruel := range []bool{false, true} {
			t.Run(fmt.Sprintf("seed %d, cruel %t", seed, cruel), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) { storm(t, seed, cruel) })
			})
		}
	}
}

// unlucky reports whether a call was refused as often as it may be sent: five times (row
// BR1), and once that no policy is asked for.
func unlucky(err error) bool {
	failure, ok := errors.AsType[*meshfail.Error](err)
	return ok && failure.Kind == outcome.RefusedStream && failure.Attempts == 6
}

func storm(t *testing.T, seed uint64, cruel bool) {
	f := newFixture(t)
	d := calltest.NewDying(seed, cruel)
	addresses := []string{"10.0.0.1:1", "10.0.0.2:1"}
	var serving sync.WaitGroup
	var listeners []net.Listener
	for _, address := range addresses {
		ln, err := f.network.Listen(address)
		if err != nil {
			t.Fatal(err)
		}
		listeners = append(listeners, ln)
		serving.Go(func() { d.Serve(ln, func(conn net.Conn) { serveDying(d, conn) }) }) // ends with the listener
	}
	main := cluster("main", addresses...)
	main.Cluster.Limits[0].MaxRetries = 100
	f.configure(retrying(20, retry.OnRefusedStream|retry.OnResetBeforeRequest|retry.OnConnectFailure), main)
	channel := f.channel()
	client := grpc_testing.NewTestServiceClient(channel)
	const callers, calls = 8, 25
	var mu sync.Mutex
	failures := 0
	together(callers, func(caller int) {
		random := rand.New(rand.NewPCG(seed, uint64(2+caller)))
		for i := range calls {
			time.Sleep(time.Duration(random.IntN(6)) * 5 * time.Millisecond)
			number, kind := fmt.Sprint(caller, "-", i), random.IntN(len(stormCalls))
			ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), "x-number", number), time.Minute)
			err := stormCalls[kind](ctx, client, number, random.IntN(40_000))
			cancel()
			if err != nil {
				code := status.Code(err)
				if !unlucky(err) && (!cruel || code != codes.Unavailable && code != codes.Internal) {
					t.Errorf("kind %d, %s: %v", kind, number, err)
				}
				mu.Lock()
				failures++
				mu.Unlock()
			}
			if n := d.Processed(number); n > 1 || n == 0 && err == nil {
				t.Errorf("kind %d, %s was processed %d times", kind, number, n)
			}
		}
	})
	_ = channel.Close()
	for _, ln := range listeners {
		_ = ln.Close()
	}
	serving.Wait()
	want := map[bool]int{false: 8, true: 10}[cruel]
	if text, ways := d.Deaths(); ways != want || failures > callers*calls/2 {
		t.Errorf("there were %s, want %d kinds, and %d calls failed", text, want, failures)
	}
}
