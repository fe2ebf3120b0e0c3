package grpcmesh

import (
	"context"
	"errors"
	"io"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/inboardmesh/inboard/internal/pipeline"
	"github.com/inboardmesh/inboard/outcome"
)

// A stream can be tried again as long as nothing of a response has reached the
// application (gRFC A6, "committed"), and as long as what was sent is kept.
const (
	maxKeptMessages = 64
	maxKeptBytes    = 64 << 10
)

// clientStream is a stream of a call: the application's stream, and an adapter
// of the pipeline.
type clientStream struct {
	*clientCall
	desc *grpc.StreamDesc
	open func(ctx context.Context, method string, opts ...grpc.CallOption) (grpc.ClientStream, error)
	// sending is held by one operation on the sending side at a time, and while
	// a new attempt takes the place of the old. It is locked before mu.
	sendMu sync.Mutex

	mu        sync.Mutex
	stream    grpc.ClientStream // guarded by mu; of the attempt that is open
	attempt   *attempt          // guarded by mu
	kept      []any             // guarded by mu; messages to send again
	keptBytes int               // guarded by mu
	closeSent bool              // guarded by mu
	committed bool              // guarded by mu; no further attempt
	finished  bool              // guarded by mu
	stop      func() bool       // guarded by mu; ends the watch over the call's context
	// openErr is what gRPC returned for the last attempt; used by Run's
	// goroutine only.
	openErr error
}

var (
	_ grpc.ClientStream = (*clientStream)(nil)
	_ pipeline.Adapter  = (*clientStream)(nil)
)

func (a *Adapter) streamClient(
	ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption,
) (grpc.ClientStream, error) {
	common, target, err := a.newClientCall(ctx, cc, method, opts)
	if err != nil {
		return nil, err
	}
	if direct, err := a.around(ctx, target); err != nil {
		return nil, err
	} else if direct != nil {
		return direct.NewStream(ctx, desc, method, opts...)
	}
	s := &clientStream{clientCall: common, desc: desc}
	s.open = func(ctx context.Context, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
		return streamer(ctx, desc, cc, method, opts...)
	}
	a.start(common, target, s, true)
	o := common.call.Run(ctx, &common.view)
	if err := s.opened(o); err != nil {
		return nil, err
	}
	// An application that gives its stream up without reading to the end must
	// cancel its context: then the call has ended too.
	stop := context.AfterFunc(common.call.Context(), func() {
		s.finish(outcome.Outcome{Kind: outcome.Canceled, GRPC: true, Sent: true, Err: context.Cause(common.call.Context())})
	})
	s.mu.Lock()
	s.stop = stop
	s.mu.Unlock()
	return s, nil
}

// opened is the error for the application after Run or Resume.
func (s *clientStream) opened(o outcome.Outcome) error {
	switch {
	case o.Kind != outcome.Response:
		return s.result(o)
	case s.openErr != nil:
		s.finish(o)
		return s.openErr
	}
	return nil
}

// Attempt opens the stream and sends again what was kept. The per-try timeout
// goes on until the response begins.
func (s *clientStream) Attempt(ctx context.Context, p *pipeline.Attempt) outcome.Outcome {
	p.KeepPerTry = true
	a := &attempt{pipeline: p}
	sendCtx := withAttempt(metadata.NewOutgoingContext(ctx, s.clientCall.sending), a)
	stream, err := s.open(sendCtx, s.method(), s.opts...)
	s.openErr = err
	if err != nil {
		return outcomeOf(sendCtx, a, err, nil)
	}
	s.mu.Lock()
	s.stream, s.attempt = stream, a
	kept, closeSent := s.kept, s.closeSent
	s.mu.Unlock()
	for _, m := range kept {
		if stream.SendMsg(m) != nil {
			return s.ended(stream, a, sendCtx)
		}
	}
	if closeSent {
		if err := stream.CloseSend(); err != nil {
			return s.ended(stream, a, sendCtx)
		}
	}
	return outcome.Outcome{Kind: outcome.Response, GRPC: true, Sent: true}
}

// ended reads the status of an attempt that broke while messages were replayed.
func (s *clientStream) ended(stream grpc.ClientStream, a *attempt, ctx context.Context) outcome.Outcome {
	err := stream.RecvMsg(nil)
	if err == nil || errors.Is(err, io.EOF) {
		err = status.Error(codes.Unavailable, "the stream ended while messages were being sent again")
	}
	s.openErr = err
	return outcomeOf(ctx, a, err, stream.Trailer())
}

// Replayable reports whether everything that was sent is kept, and nothing was
// received.
func (s *clientStream) Replayable() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.committed
}

func (s *clientStream) current() (grpc.ClientStream, *attempt) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stream, s.attempt
}

// commit rules out further attempts: the response has begun, or more was sent
// than is kept.
func (s *clientStream) commit() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.committed, s.kept = true, nil
}

// SendMsg sends a message. If the stream broke and can be tried again, the
// message is kept for that; RecvMsg finds out.
func (s *clientStream) SendMsg(m any) error {
	s.sendMu.Lock()
	defer s.sendMu.Unlock()
	s.keep(m)
	stream, _ := s.current()
	err := stream.SendMsg(m)
	if errors.Is(err, io.EOF) && s.Replayable() {
		return nil
	}
	return err
}

func (s *clientStream) keep(m any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.committed {
		return
	}
	size := 0
	if message, ok := m.(proto.Message); ok {
		size = proto.Size(message)
	}
	if s.keptBytes+size > maxKeptBytes || len(s.kept) == maxKeptMessages {
		s.committed, s.kept = true, nil
		return
	}
	s.kept = append(s.kept, m)
	s.keptBytes += size
}

// CloseSend says that no message follows.
func (s *clientStream) CloseSend() error {
	s.sendMu.Lock()
	defer s.sendMu.Unlock()
	s.mu.Lock()
	s.closeSent = true
	s.mu.Unlock()
	stream, _ := s.current()
	return stream.CloseSend()
}

// RecvMsg receives a message. An attempt that ends before the first is tried
// again if the policy says so.
func (s *clientStream) RecvMsg(m any) error {
	for {
		stream, a := s.current()
		err := stream.RecvMsg(m)
		switch {
		case err == nil:
			s.began(a)
			if !s.desc.ServerStreams {
				s.finish(outcome.Outcome{Kind: outcome.Response, GRPC: true, Sent: true})
			}
			return nil
		case errors.Is(err, io.EOF):
			s.finish(outcome.Outcome{Kind: outcome.Response, GRPC: true, Sent: true})
			return err
		}
		again, err := s.again(stream, a, err)
		if !again {
			return err
		}
	}
}

// Header waits for the response's headers.
func (s *clientStream) Header() (metadata.MD, error) {
	for {
		stream, a := s.current()
		md, err := stream.Header()
		if err == nil {
			if md != nil {
				s.began(a)
				if s.call.Decision.MutatesResponse() {
					s.call.Decision.MutateResponse(header(md))
				}
			}
			return md, nil
		}
		again, err := s.again(stream, a, err)
		if !again {
			return nil, err
		}
	}
}

// began takes note that the response has begun.
func (s *clientStream) began(a *attempt) {
	a.pipeline.Started()
	s.commit()
}

// again decides what follows an attempt that ended with err: another one, or
// the error for the application.
func (s *clientStream) again(stream grpc.ClientStream, a *attempt, err error) (bool, error) {
	s.sendMu.Lock() // a new attempt must see every message that was sent
	defer s.sendMu.Unlock()
	s.mu.Lock()
	if s.stream != stream {
		s.mu.Unlock()
		return true, nil // Header and RecvMsg noticed the same end
	}
	committed, finished := s.committed, s.finished
	s.mu.Unlock()
	o := outcomeOf(stream.Context(), a, err, stream.Trailer())
	if finished || committed {
		s.finishLocked(o)
		return false, err
	}
	o = s.call.Resume(o)
	if o.Kind == outcome.Response && o.Err == nil {
		return true, nil // a new attempt is open
	}
	s.finishLocked(o)
	if o.Kind == outcome.Response {
		return false, err
	}
	return false, s.result(o)
}

// finish ends the call once.
func (s *clientStream) finish(o outcome.Outcome) {
	s.sendMu.Lock() // an attempt that is being replaced goes first
	defer s.sendMu.Unlock()
	s.finishLocked(o)
}

// finishLocked is finish for a caller that holds sendMu.
func (s *clientStream) finishLocked(o outcome.Outcome) {
	s.mu.Lock()
	first := !s.finished
	s.finished, s.committed, s.kept = true, true, nil
	stop := s.stop
	s.mu.Unlock()
	if !first {
		return
	}
	if stop != nil {
		stop()
	}
	s.call.Finish(o)
}

// Trailer is the trailer of the attempt that ended the stream.
func (s *clientStream) Trailer() metadata.MD {
	stream, _ := s.current()
	return stream.Trailer()
}

// Context is the context of the attempt that is open.
func (s *clientStream) Context() context.Context {
	stream, _ := s.current()
	return stream.Context()
}
