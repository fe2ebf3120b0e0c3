package adstest

import (
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

// Stream is one ADS stream that a client opened.
type Stream struct {
	// Delta tells which variant of the protocol the client chose.
	Delta bool

	server   *Server
	grpc     grpc.ServerStream
	requests *queue[*Request]
	once     sync.Once
	end      chan error    // holds the status to end with
	done     chan struct{} // closed when the stream is over
}

func newStream(server *Server, delta bool, ss grpc.ServerStream) *Stream {
	return &Stream{
		Delta:    delta,
		server:   server,
		grpc:     ss,
		requests: newQueue[*Request](),
		end:      make(chan error, 1),
		done:     make(chan struct{}),
	}
}

// serve records requests until the script or the client ends the stream.
func (s *Stream) serve(recv func() (*Request, error)) error {
	defer close(s.done)
	s.server.opened.put(s)
	go func() {
		// Ends with the stream: recv fails as soon as serve has returned.
		for {
			request, err := recv()
			if err != nil {
				s.End(nil)
				return
			}
			s.requests.put(request)
		}
	}()
	select {
	case err := <-s.end:
		return err
	case <-s.grpc.Context().Done():
		return nil
	}
}

// Recv waits for the next request.
func (s *Stream) Recv() *Request {
	s.server.tb.Helper()
	request, ok := s.requests.next(s.server.config.Patience)
	if !ok {
		s.server.tb.Fatalf("no request came within %v", s.server.config.Patience)
	}
	return request
}

// RecvType waits for the next request of one type and fails the test if one of
// another type comes first.
func (s *Stream) RecvType(typeURL string) *Request {
	s.server.tb.Helper()
	request := s.Recv()
	if request.TypeURL != typeURL {
		s.server.tb.Fatalf("request %v, want one of type %q", request, typeURL)
	}
	return request
}

// ExpectNone fails the test if a request comes within d.
func (s *Stream) ExpectNone(d time.Duration) {
	s.server.tb.Helper()
	if request, ok := s.requests.next(d); ok {
		s.server.tb.Fatalf("request %v within %v, want none", request, d)
	}
}

// Pending returns the requests that came and were not taken yet, and takes
// them.
func (s *Stream) Pending() []*Request { return s.requests.drain() }

// Send sends a *discoveryv3.DiscoveryResponse or, on a delta stream, a
// *discoveryv3.DeltaDiscoveryResponse. One goroutine may send at a time. A
// stream that is over swallows the message, as a network would.
func (s *Stream) Send(response proto.Message) {
	s.server.tb.Helper()
	select {
	case <-s.done:
		return
	default:
	}
	if err := s.grpc.SendMsg(response); err != nil {
		s.server.tb.Logf("send: %v", err)
	}
}

// End ends the stream with a status error, or with OK for nil. Only the first
// call counts.
func (s *Stream) End(err error) {
	s.once.Do(func() { s.end <- err })
}

// Done is closed when the stream is over, whoever ended it.
func (s *Stream) Done() <-chan struct{} { return s.done }

// queue hands values from many producers to one consumer.
type queue[T any] struct {
	mu     sync.Mutex
	values []T           // guarded by mu
	filled chan struct{} // guarded by mu; closed when a value comes
}

func newQueue[T any]() *queue[T] { return &queue[T]{filled: make(chan struct{})} }

func (q *queue[T]) put(value T) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.values) == 0 {
		close(q.filled)
	}
	q.values = append(q.values, value)
}

func (q *queue[T]) next(patience time.Duration) (value T, ok bool) {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		q.mu.Lock()
		if len(q.values) > 0 {
			value = q.values[0]
			q.values = q.values[1:]
			if len(q.values) == 0 {
				q.filled = make(chan struct{})
			}
			q.mu.Unlock()
			return value, true
		}
		filled := q.filled
		q.mu.Unlock()
		select {
		case <-filled:
		case <-timer.C:
			return value, false
		}
	}
}

// nextUntil waits until done is closed.
func (q *queue[T]) nextUntil(done <-chan struct{}) (value T, ok bool) {
	for {
		select {
		case <-q.some():
		case <-done:
			return value, false
		}
		q.mu.Lock()
		if len(q.values) > 0 {
			value = q.values[0]
			q.values = q.values[1:]
			if len(q.values) == 0 {
				q.filled = make(chan struct{})
			}
			q.mu.Unlock()
			return value, true
		}
		q.mu.Unlock()
	}
}

// some returns a channel that is closed once there is a value.
func (q *queue[T]) some() <-chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.filled
}

func (q *queue[T]) drain() []T {
	q.mu.Lock()
	defer q.mu.Unlock()
	values := q.values
	if len(values) > 0 {
		q.values, q.filled = nil, make(chan struct{})
	}
	return values
}
