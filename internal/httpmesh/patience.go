package httpmesh

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/inboardmesh/inboard/internal/inbound"
)

// patience is a server's with one client: the timeouts of a request, and what they
// need of net/http. A nil patience has no end.
type patience struct {
	*inbound.Timeouts

	control *http.ResponseController
	// closes is whether an answer ends the connection: what is left of the body
	// would stand before the next request.
	closes bool
	// idle and late are what the client has for what the application left unread:
	// so long for each piece, and until then in all; zero is forever.
	idle time.Duration
	late time.Time
	// unread is set while the body has not come to its end.
	unread atomic.Bool
	// begun is set when a response has begun: it cannot be 408 any more.
	begun atomic.Bool
	// answered is set when the mesh has answered for want of patience. Like the
	// response it belongs to the request's goroutine.
	answered bool
}

// startTimeouts gives the request the timeouts of its chain, if there are any, and returns
// the context under which it is served.
func (s *serving) startTimeouts(ctx context.Context, w http.ResponseWriter) context.Context {
	config, r := s.chain.Config, s.request
	if config.StreamIdleTimeout <= 0 && config.RequestTimeout <= 0 && config.MaxStreamDuration <= 0 {
		return ctx
	}
	complete := r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0
	p := &patience{control: http.NewResponseController(w), closes: r.ProtoMajor == 1, idle: config.StreamIdleTimeout}
	if limit := sooner(config.RequestTimeout, config.MaxStreamDuration); limit > 0 {
		p.late = s.call.Start.Add(limit)
	}
	p.unread.Store(!complete)
	unblock := func() { // the application may wait for the client
		past := time.Unix(1, 0)
		if p.unread.Load() {
			_ = p.control.SetReadDeadline(past)
		}
		if p.begun.Load() {
			_ = p.control.SetWriteDeadline(past)
		}
	}
	timeouts, ctx := inbound.StartTimeouts(ctx, config, complete, config.MaxStreamDuration, unblock)
	if timeouts == nil {
		return ctx
	}
	p.Timeouts = timeouts
	s.recorder.patience = p
	if !complete {
		own := *r // the original is the server's
		own.Body = &awaitedBody{ReadCloser: r.Body, patience: p}
		s.request = &own
	}
	return ctx
}

// sooner is the shorter of two times, of which 0 is none.
func sooner(a, b time.Duration) time.Duration {
	if a <= 0 || b > 0 && b < a {
		return b
	}
	return a
}

// stop ends the timeouts, also when the application panicked. Over HTTP/1.1 net/http
// now reads what the application has not, before it sends the last of the answer;
// for the next request it sets a deadline of its own.
func (p *patience) stop() {
	if p == nil || p.Stop() != nil || !p.closes || !p.unread.Load() {
		return
	}
	until := p.late
	if p.idle > 0 {
		if next := time.Now().Add(p.idle); until.IsZero() || next.Before(until) {
			until = next
		}
	}
	_ = p.control.SetReadDeadline(until)
}

// timedOut ends a request whose time is over when the application has returned: by
// an answer, or, if one has begun, by a reset. It reports whether that was so.
func (s *serving) timedOut(p *patience, rec *recorder) bool {
	if p == nil || p.Stop() == nil {
		return false
	}
	if !rec.gaveUp() || !p.answered {
		panic(http.ErrAbortHandler) //nolint:forbidigo // it is how net/http resets a response
	}
	s.local = true
	return true
}

// gaveUp reports whether the time of the request is over. If nothing has been
// answered, the mesh does: 408, as Envoy.
func (r *recorder) gaveUp() bool {
	p := r.patience
	if p == nil {
		return false
	}
	cause := p.Cause()
	if cause == nil {
		p.begun.Store(true)
		cause = p.Cause() // whoever ended it has seen the response begin, or is seen here
	}
	if cause == nil {
		p.Moved()
		return false
	}
	if r.status == 0 {
		p.answered = true
		r.started(http.StatusRequestTimeout)
		h := r.ResponseWriter.Header()
		h.Del("Content-Encoding")
		if p.closes {
			h.Set("Connection", "close")
		}
		http.Error(r.ResponseWriter, cause.Error(), http.StatusRequestTimeout) //nolint:gocritic // nothing is written after it
	}
	return true
}

// awaitedBody is the body of a request that must come in time.
type awaitedBody struct {
	io.ReadCloser

	patience *patience
}

func (b *awaitedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	switch {
	case err == nil:
		b.patience.Moved()
	case errors.Is(err, io.EOF):
		b.patience.unread.Store(false)
		b.patience.Received()
		b.patience.Moved()
	default:
		if cause := b.patience.Cause(); cause != nil {
			err = cause
		}
	}
	return n, err
}
