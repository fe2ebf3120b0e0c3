package grpcmesh

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/inboardmesh/inboard/internal/pipeline"
	"github.com/inboardmesh/inboard/outcome"
)

// streamCopies are the copies of one stream, each of which follows it with a queue
// of its own. The application, which sends, waits for none of them: one whose
// queue is full is given up. A nil streamCopies has none.
type streamCopies struct {
	encoder encoder
	streams []*mirrorStream
}

// mirror has copies of the stream opened.
func (s *clientStream) mirror(mirrors []*pipeline.Mirror) *streamCopies {
	all := &streamCopies{encoder: encoderOf(s.opts)}
	c := s.copied(all.encoder)
	for _, m := range mirrors {
		copied := &mirrorStream{
			clientCall: c.call(m), desc: s.desc, mirror: m, changed: make(chan struct{}, 1), givenUp: make(chan struct{}),
		}
		all.streams = append(all.streams, copied)
		m.Go(copied.run)
	}
	return all
}

// send queues a message. It is encoded now: it is the application's again when it
// has been sent.
func (c *streamCopies) send(m any) {
	if c == nil {
		return
	}
	message, dropped := c.encoder.encode(m)
	for _, s := range c.streams {
		if dropped != "" {
			s.giveUp(dropped)
		} else {
			s.push(message)
		}
	}
}

// closeSend says that no message follows.
func (c *streamCopies) closeSend() {
	if c == nil {
		return
	}
	for _, s := range c.streams {
		s.mu.Lock()
		s.closed = true
		s.mu.Unlock()
		s.wake()
	}
}

// end is told that the stream has ended. The copies of one that was sent whole go
// on for as long as a copy may, the others end.
func (c *streamCopies) end() {
	if c == nil {
		return
	}
	for _, s := range c.streams {
		s.mu.Lock()
		whole := s.closed
		if whole && s.late == nil {
			s.late = time.AfterFunc(s.mirror.Limit, func() { s.giveUp("") })
		}
		s.mu.Unlock()
		if !whole {
			s.giveUp(pipeline.DropIncomplete)
		}
	}
}

// mirrorStream is one copy of a stream: an adapter of the pipeline.
type mirrorStream struct {
	clientCall
	desc   *grpc.StreamDesc
	mirror *pipeline.Mirror
	// changed is filled when there is something new in the queue; givenUp is
	// closed when the copy must end.
	changed chan struct{}
	givenUp chan struct{}

	mu     sync.Mutex
	queue  []raw       // guarded by mu; what is to be sent
	bytes  int         // guarded by mu; of the queue
	closed bool        // guarded by mu; nothing follows the queue
	gone   bool        // guarded by mu; givenUp is closed
	why    string      // guarded by mu; the copy is not whole
	late   *time.Timer // guarded by mu; ends a copy whose stream has ended
}

var _ pipeline.Adapter = (*mirrorStream)(nil)

// push queues a message, or gives the copy up if it does not keep up.
func (s *mirrorStream) push(message raw) {
	s.mu.Lock()
	full := len(s.queue) == maxKeptMessages || s.bytes+len(message) > maxKeptBytes
	if !full && !s.gone {
		s.queue = append(s.queue, message)
		s.bytes += len(message)
	}
	s.mu.Unlock()
	if full {
		s.giveUp(pipeline.DropTooSlow)
		return
	}
	s.wake()
}

func (s *mirrorStream) wake() {
	select {
	case s.changed <- struct{}{}:
	default: // it is awake
	}
}

// giveUp ends the copy, once. why says that it is not whole, if it is not.
func (s *mirrorStream) giveUp(why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return
	}
	s.gone, s.why, s.queue = true, why, nil
	close(s.givenUp)
}

// run makes the copy's call.
func (s *mirrorStream) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	var watch sync.WaitGroup
	watch.Go(func() { // ends with ctx
		select {
		case <-s.givenUp:
			cancel()
		case <-ctx.Done():
		}
	})
	defer watch.Wait()
	defer cancel()
	if o := s.mirror.Run(ctx, &s.call, s); o.Kind == outcome.Response {
		s.call.Finish(o)
	}
	s.giveUp("") // nobody sends what is queued from now on
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.late != nil {
		s.late.Stop()
	}
}

// Replayable is always false: what was sent is not kept.
func (s *mirrorStream) Replayable() bool { return false }

// Unkept is always nil: nobody would send it again.
func (s *mirrorStream) Unkept() error { return nil }

// Hedgeable is always false, as Replayable is.
func (s *mirrorStream) Hedgeable() bool { return false }

// Attempt opens the copy, sends what is queued until nothing follows, and reads
// what is answered until that ends.
func (s *mirrorStream) Attempt(ctx context.Context, p *pipeline.Attempt) outcome.Outcome {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	a := &attempt{pipeline: p}
	defer a.end()
	ctx = a.send(ctx, sending(p), s.bare)
	stream, err := s.open(ctx)
	if err != nil {
		return s.outcomeOf(a, err, nil)
	}
	var queued sync.WaitGroup
	queued.Go(func() { s.sendAll(ctx, stream) })
	err = receiveAll(stream)
	o := s.outcomeOf(a, err, stream.Trailer())
	cancel()
	queued.Wait()
	return o
}

func (s *mirrorStream) open(ctx context.Context) (grpc.ClientStream, error) {
	cc, err := s.adapter.mirrors.get(s.adapter, s.mirror.TargetName())
	if err != nil {
		return nil, err
	}
	return cc.NewStream(ctx, s.desc, s.method, s.opts...)
}

func (s *mirrorStream) outcomeOf(a *attempt, err error, trailer metadata.MD) outcome.Outcome {
	s.mu.Lock()
	s.mirror.Incomplete(s.why)
	s.mu.Unlock()
	return outcomeOf(a, err, trailer)
}

// sendAll ends with ctx, or when nothing follows.
func (s *mirrorStream) sendAll(ctx context.Context, stream grpc.ClientStream) {
	for {
		s.mu.Lock()
		queue, closed := s.queue, s.closed
		s.queue, s.bytes = nil, 0
		s.mu.Unlock()
		for _, message := range queue {
			if stream.SendMsg(message) != nil {
				return // the attempt has ended: who receives finds out why
			}
		}
		switch {
		case len(queue) > 0:
			continue
		case closed:
			_ = stream.CloseSend() // never fails
			return
		}
		select {
		case <-s.changed:
		case <-ctx.Done():
			return
		}
	}
}

// receiveAll drops what is answered. It returns how the stream ended.
func receiveAll(stream grpc.ClientStream) error {
	for {
		err := stream.RecvMsg(new(raw))
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}
