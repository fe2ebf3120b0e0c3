package grpcmesh

import (
	"context"
	"errors"
	"io"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/inboardmesh/inboard/internal/pipeline"
	"github.com/inboardmesh/inboard/outcome"
)

// A stream can be tried again as long as nothing of a response has reached the
// application (gRFC A6, "committed"), and as long as what was sent is kept.
const (
	maxKeptMessages = 64
	maxKeptBytes    = 64 << 10
	// What a server did not process is sent again as with gRPC alone, of which this
	// is MaxRetryRPCBufferSize: a server that drains may have let a client send that
	// much before the client hears of it.
	maxUnprocessedMessages = 1024
	maxUnprocessedBytes    = 256 << 10
	messagePrefix          = 5 // bytes, which gRPC counts there
)

// clientStream is a stream of a call: the application's stream, and an adapter
// of the pipeline.
type clientStream struct {
	clientCall
	desc *grpc.StreamDesc
	open func(ctx context.Context, method string, opts ...grpc.CallOption) (grpc.ClientStream, error)
	// turn is held by one operation on the sending side at a time, and while a
	// new attempt takes the place of the old one or the call ends. It is locked
	// before mu.
	turn lock
	// receiving is held while messages are read from an attempt.
	receiving lock

	mu        sync.Mutex
	stream    grpc.ClientStream // guarded by mu; of the attempt that is open
	attempt   *attempt          // guarded by mu
	kept      []any             // guarded by mu; messages to send again
	keptBytes int               // guarded by mu
	unkept    bool              // guarded by mu; too much was sent for a retry
	closeSent bool              // guarded by mu
	committed bool              // guarded by mu; no further attempt
	answered  bool              // guarded by mu; a response has begun
	ended     bool              // guarded by mu
	headers   metadata.MD       // guarded by mu; of the response, if the mesh changes them
	endErr    error             // guarded by mu; what the call ended with
	stop      func() bool       // guarded by mu; ends the watch over the call's context

	// copies are those of the stream, nil mostly. It is used with turn.
	copies *streamCopies
}

var (
	_ grpc.ClientStream = (*clientStream)(nil)
	_ pipeline.Adapter  = (*clientStream)(nil)
	_ pipeline.Expirer  = (*clientStream)(nil)
)

// lock is a mutex that may be held for long: waiting for it is waiting on a
// channel, which testing/synctest sees.
type lock chan struct{}

func newLock() lock { return make(lock, 1) }

func (l lock) lock() { l <- struct{}{} }

func (l lock) unlock() { <-l }

func (l lock) tryLock() bool {
	select {
	case l <- struct{}{}:
		return true
	default:
		return false
	}
}

func (a *Adapter) streamClient(
	ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption,
) (grpc.ClientStream, error) {
	s := &clientStream{desc: desc, turn: newLock(), receiving: newLock()}
	target, err := a.describe(ctx, &s.clientCall, cc, method, opts)
	if err != nil {
		return nil, err
	}
	if direct, err := a.around(ctx, target); err != nil {
		return nil, err
	} else if direct != nil {
		return direct.NewStream(ctx, desc, method, opts...)
	}
	s.open = func(ctx context.Context, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
		return streamer(ctx, desc, cc, method, opts...)
	}
	a.start(&s.clientCall, target, s, true)
	open := false
	defer func() {
		if !open { // also if foreign code panics
			s.copies.end()
		}
	}()
	if o := s.call.Run(ctx, &s.view); o.Kind != outcome.Response || o.Err != nil {
		s.call.Finish(o)
		return nil, s.result(o)
	}
	open = true
	s.call.Lasts(true) // before it can end with its context, or it would be taken out first
	s.watch()
	return s, nil
}

// watch has the call end with its context: an application that gives its stream up
// without reading to the end must cancel it.
func (s *clientStream) watch() {
	stop := context.AfterFunc(s.call.Context(), s.expire) // it is the caller's, bounded by the route
	s.mu.Lock()
	s.stop = stop
	ended := s.ended // the mesh was closed
	s.mu.Unlock()
	if ended {
		stop()
	}
}

// Copy has copies of the stream opened.
func (s *clientStream) Copy() {
	if mirrors := s.call.Mirrors(&s.view); mirrors != nil {
		s.copies = s.mirror(mirrors)
	}
}

// Attempt opens the stream and sends again what was kept. The per-try timeout
// goes on until the response begins.
func (s *clientStream) Attempt(ctx context.Context, p *pipeline.Attempt) outcome.Outcome {
	p.KeepPerTry = true
	a := &attempt{pipeline: p, endpointHost: s.endpointHost, opts: s.opts}
	stream, err := s.open(a.send(ctx, sending(p), s.bare), s.method, s.opts...)
	if err != nil {
		a.end()
		return outcomeOf(a, err, nil)
	}
	s.mu.Lock()
	s.stream, s.attempt = stream, a
	kept, closeSent := s.kept, s.closeSent
	s.mu.Unlock()
	for _, m := range kept {
		if stream.SendMsg(m) != nil {
			break // the attempt has ended: who receives finds out why
		}
	}
	if closeSent {
		_ = stream.CloseSend() // never fails
	}
	return outcome.Outcome{Kind: outcome.Response, GRPC: true, Sent: true}
}

// Replayable reports whether everything that was sent is kept, and nothing was
// received: it may be sent again if its server has not processed it, and if Unkept
// does not say otherwise by a retry.
func (s *clientStream) Replayable() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.committed
}

// errUnkept is why a stream of which nothing was received is not opened again.
var errUnkept = errors.New("more was sent on the stream than is kept")

// Unkept says whether too much was sent for a retry, and nothing received.
func (s *clientStream) Unkept() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.unkept {
		return errUnkept
	}
	return nil
}

// Hedgeable is false: a stream is open before it is known whether its answer is
// a good one.
func (s *clientStream) Hedgeable() bool { return false }

func (s *clientStream) current() (grpc.ClientStream, *attempt) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stream, s.attempt
}

// began takes note that the response has begun, which rules out further
// attempts.
func (s *clientStream) began(stream grpc.ClientStream, a *attempt) {
	a.pipeline.Started()
	s.mu.Lock()
	first := !s.answered
	s.answered, s.committed, s.unkept, s.kept = true, true, false, nil
	s.mu.Unlock()
	if first && a.isChecked() {
		if md, err := stream.Header(); err == nil { // it is there: no wait
			obey(a.endpoint(), md)
		}
	}
}

// SendMsg sends a message. If the attempt has ended and another may follow, the
// message is sent with that.
func (s *clientStream) SendMsg(m any) error {
	s.turn.lock()
	defer s.turn.unlock()
	s.copies.send(m)
	for {
		stream, a := s.current()
		a.pipeline.Moved()
		err := stream.SendMsg(m)
		switch {
		case err == nil:
			// Not before: it may be one too many, and an attempt that has ended already
			// has not had it.
			s.keep(m)
			return nil
		case !errors.Is(err, io.EOF) && !a.marks.isRefused():
			// The message is at fault. gRPC has given the stream up.
			s.end(outcome.Outcome{Kind: outcome.BodyFailure, GRPC: true, Sent: true, Err: err}, err)
			return err
		}
		switch s.replace(stream, a) {
		case notReplaced:
			return io.EOF // who receives is told why
		case replacedLater:
			s.keep(m)
			return nil
		}
	}
}

// keep remembers a message for further attempts, or rules them out if it is one
// too many. The caller holds turn.
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
	s.keptBytes += size
	s.unkept = s.unkept || s.keptBytes > maxKeptBytes || len(s.kept) == maxKeptMessages
	if n := len(s.kept) + 1; n > maxUnprocessedMessages || s.keptBytes+n*messagePrefix > maxUnprocessedBytes {
		s.committed, s.kept = true, nil
		return
	}
	s.kept = append(s.kept, m)
}

// replacement is what follows an attempt that ended while a message was sent.
type replacement uint8

const (
	notReplaced replacement = iota
	replacedNow
	replacedLater // or not: when the application receives
)

// replace sees to it that what was sent on an attempt that has ended is sent again.
// The caller holds turn.
func (s *clientStream) replace(stream grpc.ClientStream, a *attempt) replacement {
	if !s.Replayable() {
		return notReplaced
	}
	if !s.receiving.tryLock() {
		return replacedLater // who receives finds out
	}
	defer s.receiving.unlock()
	if md, _ := stream.Header(); md != nil {
		return replacedLater // there may be messages, which are the application's to read
	}
	err := stream.RecvMsg(nil)
	if errors.Is(err, io.EOF) {
		return notReplaced
	}
	if again, _ := s.againLocked(stream, a, err); again {
		return replacedNow
	}
	return notReplaced
}

// CloseSend says that no message follows.
func (s *clientStream) CloseSend() error {
	s.turn.lock()
	defer s.turn.unlock()
	s.mu.Lock()
	s.closeSent = true
	s.mu.Unlock()
	s.copies.closeSend()
	stream, _ := s.current()
	return stream.CloseSend()
}

// RecvMsg receives a message. An attempt that ends before the first is tried
// again if the policy says so.
func (s *clientStream) RecvMsg(m any) error {
	for {
		stream, a := s.current()
		err := s.recv(stream, m)
		switch {
		case err == nil:
			a.pipeline.Moved()
			s.began(stream, a)
			if _, err := s.passed(m); err != nil {
				s.expire()
				return err
			}
			if !s.desc.ServerStreams {
				s.succeed()
			}
			return nil
		case errors.Is(err, io.EOF):
			s.succeed()
			return err
		}
		again, err := s.again(stream, a, err)
		if !again {
			return err
		}
	}
}

func (s *clientStream) recv(stream grpc.ClientStream, m any) error {
	s.receiving.lock()
	defer s.receiving.unlock()
	return stream.RecvMsg(m)
}

// Header waits for the response's headers. An attempt that ends without is
// tried again if the policy says so. As in gRPC, there are none and no error if
// the call has failed: RecvMsg returns its status.
func (s *clientStream) Header() (metadata.MD, error) {
	for {
		stream, a := s.current()
		md, err := stream.Header()
		if md != nil {
			s.began(stream, a)
			return s.changed(md), nil
		}
		if err == nil {
			err = s.recv(stream, nil) // without headers there is no message
		}
		if errors.Is(err, io.EOF) {
			return nil, nil
		}
		if again, _ := s.again(stream, a, err); !again {
			return nil, nil
		}
	}
}

// changed is the response's headers as the application sees them, however often
// it asks.
func (s *clientStream) changed(md metadata.MD) metadata.MD {
	if !s.changesReply() {
		return md
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.headers == nil {
		s.headers = md.Copy()
		s.changeReply(s.headers)
	}
	return s.headers
}

// again decides what follows an attempt that ended with err: another one, or
// the error for the application.
func (s *clientStream) again(stream grpc.ClientStream, a *attempt, err error) (bool, error) {
	s.turn.lock() // a new attempt must see every message that was sent
	defer s.turn.unlock()
	return s.againLocked(stream, a, err)
}

// againLocked is again for a caller that holds turn.
func (s *clientStream) againLocked(stream grpc.ClientStream, a *attempt, err error) (bool, error) {
	s.mu.Lock()
	current, ended, endErr := s.stream, s.ended, s.endErr
	s.mu.Unlock()
	switch {
	case ended && endErr != nil:
		return false, endErr
	case ended:
		return false, err
	case current != stream:
		return true, nil // another goroutine noticed the same end
	}
	a.end()
	a.pipeline.Reply = header(stream.Trailer())
	o := s.call.Resume(outcomeOf(a, err, stream.Trailer()))
	if o.Kind == outcome.Response && o.Err == nil {
		return true, nil // a new attempt is open
	}
	err = s.result(o)
	s.end(o, err)
	return false, err
}

// Expire ends the call when the mesh was closed.
func (s *clientStream) Expire(error) { s.expire() }

// expire ends the call when its context has ended, or the mesh.
func (s *clientStream) expire() {
	s.turn.lock() // an attempt that is being replaced goes first
	defer s.turn.unlock()
	s.mu.Lock()
	a, ended := s.attempt, s.ended
	s.mu.Unlock()
	if ended {
		return
	}
	a.end()
	// The pipeline finds out whose time it was.
	o := s.call.Resume(outcome.Outcome{Kind: outcome.Canceled, GRPC: true, Sent: true})
	s.end(o, s.result(o))
}

func (s *clientStream) succeed() {
	s.turn.lock()
	defer s.turn.unlock()
	s.end(outcome.Outcome{Kind: outcome.Response, GRPC: true, Sent: true}, nil)
}

// end ends the call, once. err is what the application is told from now on. The
// caller holds turn.
func (s *clientStream) end(o outcome.Outcome, err error) {
	s.mu.Lock()
	first := !s.ended
	if first {
		s.ended, s.endErr = true, err
		s.committed, s.unkept, s.kept = true, false, nil
	}
	a, stop := s.attempt, s.stop
	s.mu.Unlock()
	if !first {
		return
	}
	if stop != nil {
		stop()
	}
	s.copies.end()
	a.end()
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
