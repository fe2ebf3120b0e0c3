package http1

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/inboardmesh/inboard/internal/deadline"
)

// exchange is one request and its response. All but what is guarded by mu belongs
// to the goroutine that runs RoundTrip, and then to the one that reads the body.
type exchange struct {
	conn  *Conn
	req   *http.Request
	stale bool
	// unwatch ends the watch over the request's context; nil without one.
	unwatch func() bool
	// aside is set if a goroutine writes the request, see writing.
	aside *writing
	// limit is when the exchange must have ended; zero without a limit. The head of
	// the response may have less time.
	limit time.Time
	// keep is whether the connection can be used again, as far as the response's
	// head tells.
	keep bool
	gzip bool

	// body is what is left of the response; read is how much was read of it.
	body   io.Reader
	length int64
	read   int64

	mu      sync.Mutex
	ended   bool  // guarded by mu; by finish
	reading bool  // guarded by mu; a Read runs
	closed  bool  // guarded by mu; by the reader of the body
	over    error // guarded by mu; what ended the body, io.EOF included
}

func (x *exchange) run() (*http.Response, error) {
	c := x.conn
	if err := x.watch(); err != nil {
		closeBody(x.req)
		c.end()
		return nil, &Error{Err: err}
	}
	c.in.received = 0
	c.out.begin()
	x.gzip = c.wantsGzip(x.req)
	atOnce := c.writesAtOnce(x.req)
	if atOnce {
		if err := x.write(); err != nil {
			written := c.out.giveUp()
			if c.out.failed() == nil {
				return nil, x.abort(&Error{Unsendable: true, Written: written, Err: err})
			}
			if !written {
				return nil, x.abort(&Error{Stale: x.stale, Err: err})
			}
			x.lastWords()
		}
	} else {
		x.writeAside()
	}
	resp, err := x.head(atOnce)
	if err != nil {
		return nil, x.abort(x.failure(err))
	}
	return x.respond(resp), nil
}

// watch makes the connection end with the request's context. What the context
// bounds by time alone costs no timer, but the connection's own deadline.
func (x *exchange) watch() error {
	ctx := x.req.Context()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var head time.Time
	if attempt, ok := ctx.(*deadline.Attempt); ok {
		head, ctx = attempt.Limit(), attempt.Parent()
	}
	if bounded, ok := ctx.(*deadline.Context); ok {
		ctx = bounded.Parent()
		x.limit, _ = bounded.Deadline()
	}
	if head.IsZero() || !x.limit.IsZero() && x.limit.Before(head) {
		head = x.limit
	}
	x.conn.setDeadline(head)
	if ctx.Done() != nil {
		x.unwatch = context.AfterFunc(ctx, x.conn.cancel)
	}
	return nil
}

// lastWordsTime is how long an answer is waited for when the request could not be
// written to its end: the peer has given it before it stopped reading, or never.
const lastWordsTime = time.Second

func (x *exchange) lastWords() {
	until := time.Now().Add(lastWordsTime)
	if end := x.conn.deadline; !end.IsZero() && end.Before(until) {
		until = end
	}
	_ = x.conn.conn.SetReadDeadline(until)
}

var acceptGzip = []string{"gzip"}

// write writes the request on the caller's goroutine. What the standard library
// has no other place for is a header for as long as that takes.
func (x *exchange) write() error {
	h := x.req.Header
	if x.gzip {
		old, had := h["Accept-Encoding"]
		h["Accept-Encoding"] = acceptGzip
		defer func() {
			delete(h, "Accept-Encoding")
			if had {
				h["Accept-Encoding"] = old
			}
		}()
	}
	req := x.req
	if x.conn.options.DisableKeepAlives && !req.Close && !isUpgrade(h) {
		req = req.WithContext(req.Context())
		req.Close = true
	}
	if err := req.Write(&x.conn.out); err != nil {
		return err
	}
	return x.conn.out.Flush()
}

// head reads until the response that is not an interim one.
func (x *exchange) head(written bool) (*http.Response, error) {
	c := x.conn
	if limit := c.options.ResponseHeaderTimeout; limit > 0 && written {
		x.headersBy(time.Now().Add(limit))
	}
	c.in.left = c.options.maxHeader()
	trace := httptrace.ContextClientTrace(x.req.Context())
	if trace != nil && trace.GotFirstResponseByte != nil {
		if _, err := c.br.Peek(1); err == nil {
			trace.GotFirstResponseByte()
		}
	}
	for {
		resp, err := http.ReadResponse(c.br, x.req)
		if err != nil {
			return nil, err
		}
		if resp.StatusCode == http.StatusContinue && x.aside.proceed(true) && trace != nil && trace.Got100Continue != nil {
			trace.Got100Continue()
		}
		if resp.StatusCode < 100 || resp.StatusCode > 199 || resp.StatusCode == http.StatusSwitchingProtocols {
			return resp, x.headEnded()
		}
		if trace != nil && trace.Got1xxResponse != nil {
			if err := trace.Got1xxResponse(resp.StatusCode, textproto.MIMEHeader(resp.Header)); err != nil {
				return nil, err
			}
			c.in.left = c.options.maxHeader() // how many there may be is for the tracer to say
		}
	}
}

// headersBy bounds the wait for the response's head, if the request's own time is
// not shorter.
func (x *exchange) headersBy(t time.Time) {
	if own := x.conn.deadline; own.IsZero() || t.Before(own) {
		_ = x.conn.conn.SetReadDeadline(t)
	}
}

// headEnded gives the rest of the response the time that the request has.
func (x *exchange) headEnded() error {
	c := x.conn
	c.in.left = math.MaxInt64
	moved := c.options.ResponseHeaderTimeout > 0 || c.out.failed() != nil
	if x.aside != nil {
		moved = x.aside.headEnded() || moved
	}
	c.setDeadline(x.limit)
	if moved {
		return c.conn.SetReadDeadline(x.limit)
	}
	return nil
}

// failure says why there is no response.
func (x *exchange) failure(err error) *Error {
	c := x.conn
	e := &Error{Written: c.out.giveUp(), Err: err}
	ctx := x.req.Context()
	bodyErr := x.aside.bodyFailure()
	x.catchUp(err)
	switch own := c.Err(); {
	case ctx.Err() != nil:
		e.Err = context.Cause(ctx)
	case bodyErr != nil:
		e.Unsendable, e.Err = true, bodyErr
	case errors.Is(err, os.ErrDeadlineExceeded):
		if writeErr := c.out.failed(); writeErr != nil {
			e.Err = writeErr
		} else {
			e.Err = headerTimeoutError{}
		}
	case own != nil:
		e.Err = own // it was closed meanwhile
	case c.in.left <= 0:
		e.Err = headerTooLarge(c.options.maxHeader())
	default:
		silent := c.in.received == 0
		e.Stale = x.stale && silent
		if silent && errors.Is(err, io.ErrUnexpectedEOF) {
			e.Err = fmt.Errorf("the peer closed the connection before it answered: %w", err)
		}
	}
	return e
}

// catchUp waits for the context to say what the connection's deadline, which is
// the same, has said a moment before.
func (x *exchange) catchUp(err error) {
	limit := x.conn.deadline
	if errors.Is(err, os.ErrDeadlineExceeded) && !limit.IsZero() && !time.Now().Before(limit) {
		<-x.req.Context().Done()
	}
}

// abort ends the exchange and its connection.
func (x *exchange) abort(e *Error) error {
	x.aside.proceed(false)
	_ = x.conn.fail(e.Err)
	x.finish(false)
	return e
}

// respond makes the response the caller's.
func (x *exchange) respond(resp *http.Response) *http.Response {
	c := x.conn
	if resp.StatusCode == http.StatusSwitchingProtocols && isUpgrade(resp.Header) {
		x.upgrade(resp)
		return resp
	}
	closing := resp.Close || x.req.Close
	x.aside.proceed(!closing)
	x.keep = !closing && !c.options.DisableKeepAlives && resp.StatusCode > 199
	if x.req.Method == http.MethodHead || resp.ContentLength == 0 {
		x.finish(x.keep)
		return resp
	}
	x.body, x.length = resp.Body, resp.ContentLength
	body := (*responseBody)(x)
	resp.Body = body
	if x.gzip && strings.EqualFold(resp.Header.Get("Content-Encoding"), "gzip") {
		resp.Body = &gzipBody{body: body}
		resp.Header.Del("Content-Encoding")
		resp.Header.Del("Content-Length")
		resp.ContentLength = -1
		resp.Uncompressed = true
	}
	return resp
}

// finish ends the exchange, once. The connection is free for the next if keep is
// true and nothing else speaks against it.
func (x *exchange) finish(keep bool) {
	x.mu.Lock()
	first := !x.ended
	x.ended = true
	x.mu.Unlock()
	if !first {
		return
	}
	c := x.conn
	if x.unwatch != nil && !x.unwatch() {
		keep = false // the context has ended: the connection is being closed
	}
	if keep && x.aside.done() && c.out.failed() == nil && !c.in.ended && c.silent() {
		c.end()
		return
	}
	_ = c.fail(errNotReusable)
}
