package ads

import (
	"context"
	"errors"
	"io"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/inboardmesh/inboard/internal/slim"
)

const (
	// maxResponse is the largest response that is accepted. gRPC's own default
	// of 4 MiB is too small for a mesh of some size, and a server that is told
	// so sends the same again.
	maxResponse = 256 << 20
	// maxReplies is how many responses of one type may wait for their answer
	// to be sent, before the server is taken for one that does not read.
	maxReplies = 1024
)

// stream is one ADS stream.
type stream struct {
	wire wire
	// node goes out with the first request; nil afterwards. Only the sender
	// uses it.
	node *corev3.Node
}

// wire is one variant of the protocol on an open stream.
type wire interface {
	// nextLocked returns the next request about a type, nil if there is none,
	// and the names that it subscribes.
	nextLocked(lt *linkType, node *corev3.Node) (proto.Message, []string)
	// send sends what nextLocked returned.
	send(proto.Message) error
	// recv waits for a response.
	recv() (*response, error)
}

// open opens a stream on conn. It waits until the connection is up, or has
// failed.
func open(ctx context.Context, conn *grpc.ClientConn, mode Mode) (wire, error) {
	client := discoveryv3.NewAggregatedDiscoveryServiceClient(conn)
	limit := grpc.MaxCallRecvMsgSize(maxResponse)
	if mode == ModeSotW {
		s, err := client.StreamAggregatedResources(ctx, limit)
		return &sotw{stream: s}, err
	}
	s, err := client.DeltaAggregatedResources(ctx, limit)
	return &delta{stream: s}, err
}

// session opens a stream and runs it to its end.
func (l *link) session(ctx context.Context, conn *grpc.ClientConn, mode Mode) sessionEnd {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w, err := open(ctx, conn, mode)
	if err != nil {
		return sessionEnd{err: err}
	}
	s := &stream{wire: w, node: l.client.node}
	l.connectedTo(s, conn, mode)
	sent := make(chan error, 1)
	go func() {
		// Ends when the stream breaks or ctx ends; session waits for it below.
		err := l.sendAll(ctx, s)
		if err != nil {
			cancel() // makes recv end; without err it ends by itself
		}
		sent <- err
	}()
	responded, err := l.receiveAll(ctx, s)
	cancel()
	if sendErr := <-sent; sendErr != nil {
		err = sendErr
	}
	return sessionEnd{err: err, opened: true, responded: responded}
}

// receiveAll takes responses until the stream breaks.
func (l *link) receiveAll(ctx context.Context, s *stream) (responded bool, err error) {
	for {
		r, err := s.wire.recv()
		if errors.Is(err, io.EOF) {
			err = errEnded
		}
		if err != nil {
			return responded, err
		}
		if !responded && !r.sotw && !r.named && l.server.DeltaOnlyNamed {
			return false, errForgetful
		}
		l.answered()
		err = l.handle(ctx, r)
		if !responded {
			responded = true
			l.recovered()
		}
		if err != nil {
			return true, err
		}
		// Flow control: a server that is faster than the watchers waits.
		l.client.serial.flush()
	}
}

// sendAll sends requests as they become due. It returns nil if the stream broke
// by itself: then recv knows why.
func (l *link) sendAll(ctx context.Context, s *stream) error {
	// A delta server has nothing to say to a client that is up to date. After
	// a while a stream that is open counts as a good one.
	settled := time.NewTimer(absenceTimeout)
	defer settled.Stop()
	idle := time.NewTimer(idleTimeout)
	defer idle.Stop()
	idling := true
	held := time.NewTimer(idleTimeout)
	defer held.Stop()
	for {
		if !l.used() {
			return errIdle // a preferred server is back
		}
		message, lt, names := l.next(s)
		if message != nil {
			if err := s.wire.send(message); err != nil {
				if errors.Is(err, io.EOF) || ctx.Err() != nil {
					return nil
				}
				return err
			}
			s.node = nil
			l.asked(s, lt, names)
			continue
		}
		switch watched := l.watched(); {
		case watched:
			idle.Stop()
			idling = false
		case !idling:
			idle.Reset(idleTimeout)
			idling = true
		}
		if due := l.heldUntil(); due.IsZero() {
			held.Stop()
		} else {
			held.Reset(time.Until(due))
		}
		select {
		case <-l.wake:
		case <-held.C:
		case <-settled.C:
			l.answered()
			l.recovered()
		case <-idle.C:
			if !l.watched() {
				return errIdle
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// next returns the next request to send, nil if there is none. Types go in the
// order in which they were first watched, so that after a reconnect the
// resources that refer to others come first.
func (l *link) next(s *stream) (proto.Message, *linkType, []string) {
	l.client.mu.Lock()
	defer l.client.mu.Unlock()
	for _, lt := range l.order {
		if message, names := s.wire.nextLocked(lt, s.node); message != nil {
			return message, lt, names
		}
	}
	return nil, nil, nil
}

// asked starts the timers of the names that a request has just subscribed.
func (l *link) asked(s *stream, lt *linkType, names []string) {
	c := l.client
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || l.stream != s {
		return
	}
	for _, name := range names {
		if e := lt.entries[name]; e != nil {
			c.awaitLocked(e, lt)
		}
	}
}

// reconcileLocked compares what is watched with what the server was told, and
// notes the difference as told. It ends when cost, of what is told so far, comes to
// room, and goes on the next time.
func (lt *linkType) reconcileLocked(room int, cost func(name string) int) (subscribe, unsubscribe []string) {
	if len(lt.pending) == 0 {
		return nil, nil
	}
	c := lt.link.client
	left := false
	for name := range lt.pending {
		if room <= 0 {
			left = true
			break
		}
		e := lt.entries[name]
		wanted := e != nil && len(e.watchers) > 0 && e.authority.usesLocked(lt.link)
		_, told := lt.sub.sent[name]
		switch {
		case wanted && e.collection && lt.link.mode == ModeSotW:
			c.failLocked(e, errNoCollections)
		case wanted && !told:
			lt.sub.sent[name] = struct{}{}
			subscribe = append(subscribe, name)
			room -= cost(name)
			if e.omittedBy == lt.link {
				e.omittedBy = nil
			}
		case wanted && told:
			// Unsubscribed and subscribed before the server heard of it. If
			// the value was lost in between, the timer has to run again.
			c.awaitLocked(e, lt)
		case told:
			delete(lt.sub.sent, name)
			unsubscribe = append(unsubscribe, name)
			room -= cost(name)
		}
		delete(lt.pending, name)
		if e != nil && !wanted {
			c.releaseLocked(e)
		}
	}
	if !left {
		lt.pending = make(map[string]struct{}) // a map that is cleared keeps its size
	}
	lt.sub.sent = slim.Fit(lt.sub.sent, &lt.sub.mostSent)
	return subscribe, unsubscribe
}
