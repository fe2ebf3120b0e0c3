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

	"github.com/inboardmesh/inboard/outcome"
	"github.com/inboardmesh/inboard/outcome/meshfail"
	"github.com/inboardmesh/inboard/retry"
)

// dying is servers of gRPC that do to their streams and connections whatever they may:
// streams are refused at every point, fewer or none are allowed for a while, connections
// go with a GOAWAY that excludes some of their streams. If it is cruel, streams and
// connections end that were not certified to be unprocessed, too.
type dying struct {
	cruel   bool
	serving sync.WaitGroup

	mu        sync.Mutex
	random    *rand.Rand     // guarded by mu
	processed map[string]int // guarded by mu; by the number of the call
	deaths    map[string]int // guarded by mu; by how
}

// fate draws one of n, of which the test counts those that it names.
func (d *dying) fate(n int, names ...string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	i := d.random.IntN(n)
	if i >= len(names) {
		return ""
	}
	d.deaths[names[i]]++
	return names[i]
}

func (d *dying) pause(most time.Duration) {
	d.mu.Lock()
	n := time.Duration(d.random.Int64N(int64(most)))
	d.mu.Unlock()
	time.Sleep(n)
}

func (d *dying) serve(ln net.Listener) {
	for {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		d.serving.Go(func() { newDyingConn(d, conn).serve() })
	}
}

// dyingConn is one of their connections.
type dyingConn struct {
	*dying

	conn    net.Conn
	answers sync.WaitGroup

	writing sync.Mutex
	framer  *http2.Framer  // its writes are guarded by writing
	block   bytes.Buffer   // guarded by writing
	encoder *hpack.Encoder // guarded by writing
	last    uint32         // guarded by writing; the last stream that is served, 0 for all
	highest uint32         // guarded by writing; of those that were processed
}

// call is one that arrives.
type call struct {
	id             uint32
	path, number   string
	data           []byte // of messages that are not whole
	size           int    // of the payloads of all messages
	over, answered bool   // refused or answered; an answer has begun
}

func newDyingConn(d *dying, conn net.Conn) *dyingConn {
	c := &dyingConn{dying: d, conn: conn, framer: http2.NewFramer(conn, conn)}
	c.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.encoder = hpack.NewEncoder(&c.block)
	return c
}

func (c *dyingConn) say(f func(f *http2.Framer) error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	_ = f(c.framer) // the peer may have gone
}

func (c *dyingConn) allow(streams uint32) {
	c.say(func(f *http2.Framer) error {
		return f.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: streams})
	})
}

// goAway excludes the streams after the last one, but none that was processed. The client
// ends the connection behind the others.
func (c *dyingConn) goAway(last uint32) {
	c.say(func(f *http2.Framer) error {
		if c.last == 0 {
			c.last = max(last, c.highest)
		}
		return f.WriteGoAway(c.last, http2.ErrCodeNo, nil)
	})
}

// process reports whether the call was not excluded, and is processed therefore.
func (c *dyingConn) process(s *call) bool {
	c.writing.Lock()
	defer c.writing.Unlock()
	if c.last > 0 && s.id > c.last {
		return false
	}
	c.highest = max(c.highest, s.id)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.processed[s.number]++
	return true
}

func (c *dyingConn) refuse(s *call) {
	s.over = true
	c.say(func(f *http2.Framer) error { return f.WriteRSTStream(s.id, http2.ErrCodeRefusedStream) })
}

func (c *dyingConn) serve() {
	defer func() { _ = c.conn.Close() }()
	defer c.answers.Wait()
	if _, err := io.ReadFull(c.conn, make([]byte, len(http2.ClientPreface))); err != nil {
		return
	}
	c.allow(4)
	c.say(func(f *http2.Framer) error { return f.WriteSettingsAck() })
	calls := map[uint32]*call{}
	for {
		frame, err := c.framer.ReadFrame()
		if err != nil {
			return
		}
		switch frame := frame.(type) {
		case *http2.PingFrame:
			if !frame.IsAck() {
				c.say(func(f *http2.Framer) error { return f.WritePing(true, frame.Data) })
			}
		case *http2.MetaHeadersFrame:
			s := &call{id: frame.StreamID, path: frame.PseudoValue("path")}
			for _, field := range frame.RegularFields() {
				if field.Name == "x-number" {
					s.number = field.Value
				}
			}
			calls[s.id] = s
			c.begin(s)
		case *http2.DataFrame:
			s := calls[frame.StreamID]
			if n := frame.Length; n > 0 {
				c.say(func(f *http2.Framer) error {
					return errors.Join(f.WriteWindowUpdate(0, n), f.WriteWindowUpdate(s.id, n))
				})
			}
			c.data(s, frame.Data())
			if frame.StreamEnded() {
				c.whole(s)
			}
		}
	}
}

// begin is the beginning of a call, for which the connection may be about to change.
func (c *dyingConn) begin(s *call) {
	switch c.fate(20, "refused at its headers", "GOAWAY without the stream", "GOAWAY with the stream", "no more streams for a while", "fewer streams", "more streams") {
	case "refused at its headers":
		c.refuse(s)
	case "GOAWAY without the stream":
		c.goAway(max(s.id, 7) - 6)
	case "GOAWAY with the stream":
		c.goAway(s.id)
	case "no more streams for a while":
		c.allow(0)
		c.answers.Go(func() {
			c.pause(50 * time.Millisecond)
			c.allow(3)
		})
	case "fewer streams":
		c.allow(1)
	case "more streams":
		c.allow(6)
	}
}

// data is a piece of the messages of a call. Those of a stream in both directions are
// answered one by one.
func (c *dyingConn) data(s *call, piece []byte) {
	if !s.over && !s.answered && c.fate(20, "refused between its messages") != "" {
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
	c.answers.Go(func() {
		c.pause(20 * time.Millisecond)
		if !s.answered && c.fate(20, "refused behind its messages") != "" {
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
				c.pause(10 * time.Millisecond)
			}
		}
		c.end(s)
	})
}

// answer sends a message and reports whether the call goes on: it may have been excluded
// before anything was sent, and ends in cruelty otherwise.
func (c *dyingConn) answer(s *call, m proto.Message) bool {
	if s.over || !s.answered && !c.process(s) {
		s.over = true
		return false
	}
	first := !s.answered
	s.answered = true
	if c.cruel {
		switch c.fate(30, "reset when it was processed", "connection closed when it was processed") {
		case "reset when it was processed":
			s.over = true
			c.say(func(f *http2.Framer) error { return f.WriteRSTStream(s.id, http2.ErrCodeInternal) })
			return false
		case "connection closed when it was processed":
			s.over = true
			_ = c.conn.Close()
			return false
		}
	}
	encoded, err := proto.Marshal(m)
	c.say(func(f *http2.Framer) error {
		if first {
			err = errors.Join(err, c.headersLocked(s, false, ":status", "200", "content-type", "application/grpc"))
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
	c.say(func(*http2.Framer) error {
		if !s.answered {
			return c.headersLocked(s, true, ":status", "200", "content-type", "application/grpc", "grpc-status", "0")
		}
		return c.headersLocked(s, true, "grpc-status", "0")
	})
}

func (c *dyingConn) headersLocked(s *call, end bool, pairs ...string) error {
	c.block.Reset()
	for i := 0; i < len(pairs); i += 2 {
		if err := c.encoder.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]}); err != nil {
			return err
		}
	}
	return c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: s.id, BlockFragment: c.block.Bytes(), EndHeaders: true, EndStream: end})
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
	d := &dying{cruel: cruel, random: rand.New(rand.NewPCG(seed, 1)), processed: map[string]int{}, deaths: map[string]int{}}
	addresses := []string{"10.0.0.1:1", "10.0.0.2:1"}
	for _, address := range addresses {
		ln, err := f.network.Listen(address)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = ln.Close() }()
		go d.serve(ln) // ends with the listener
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
			d.mu.Lock()
			if n := d.processed[number]; n > 1 || n == 0 && err == nil {
				t.Errorf("kind %d, %s was processed %d times", kind, number, n)
			}
			d.mu.Unlock()
		}
	})
	_ = channel.Close()
	d.serving.Wait()
	if want := map[bool]int{false: 8, true: 10}[cruel]; len(d.deaths) != want || failures > callers*calls/2 {
		t.Errorf("there were %v, want %d kinds, and %d calls failed", d.deaths, want, failures)
	}
}
