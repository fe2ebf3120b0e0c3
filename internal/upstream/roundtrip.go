package upstream

import (
	"context"
	"errors"
	"io"
	"net/http"
	"reflect"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/http1"
	"github.com/inboardmesh/inboard/outcome"
)

// Failure is why an endpoint gave no response.
type Failure struct {
	Kind outcome.Kind
	// Sent is false only if no byte of the request was written.
	Sent bool
	// Stale is set if a connection that had carried other requests, or had been idle,
	// was ended by its peer before a byte came: that may have been while it was idle.
	Stale bool
	Err   error
}

// RoundTrip is [Endpoint.Send] for requests of which nobody needs to know when they
// are sent.
func (e *Endpoint) RoundTrip(req *http.Request, priority discovery.RoutingPriority) (*http.Response, *Failure) {
	return e.Send(req, priority, nil)
}

// Send sends one request to the endpoint, once: nothing in it, and nothing in
// net/http below it, sends a request again. The request's context bounds the wait
// for a connection and the exchange. departure, if there is one, is told between
// the two, and once more if the connection was of no use after all. On failure the request's body has been closed.
func (e *Endpoint) Send(req *http.Request, priority discovery.RoutingPriority, departure Departure) (*http.Response, *Failure) {
	config := e.cluster.Config()
	if config == nil {
		return nil, fail(req, outcome.NoConfig, e.cluster.Err())
	}
	p := e.pool(poolKey{protocol: protocolOf(config, req), priority: priority})
	c, failure := p.depart(req, departure)
	if failure != nil {
		return nil, failure
	}
	sent, letGo := c.releasable(req)
	resp, err := c.cc.RoundTrip(sent)
	if body, ok := sent.Body.(*stallingBody); ok {
		body.over.Store(true)
	}
	if err != nil {
		letGo()
		p.changed(c)
		failure := exchangeFailure(err)
		if failure.Stale && c.http2 {
			p.lost(c)
		}
		return nil, failure
	}
	if c.http2 {
		p.share(c, resp, letGo)
	}
	if resp.Header[FailHeader] != nil {
		e.failBeside(resp)
	}
	if ctx := req.Context(); ctx.Err() != nil {
		// net/http takes a response that comes while it lets the connection go.
		// That may be the empty 200 of a handler which has noticed that nobody
		// waits any more: it is no answer, and it could not be read.
		_ = resp.Body.Close()
		return nil, &Failure{Kind: outcome.Canceled, Sent: true, Err: context.Cause(ctx)}
	}
	return resp, nil
}

// failBeside is FailNow, which runs hooks. If one of them panics, nobody gets the
// response.
func (e *Endpoint) failBeside(resp *http.Response) {
	told := false
	defer func() {
		if !told {
			_ = resp.Body.Close()
		}
	}()
	e.FailNow()
	told = true
}

// share gives the place of an HTTP/2 response to those who wait for one, when
// the response has ended. The connection's state hook does so, too, but it is
// not called for a call that ends while another begins and the hook still runs.
func (p *pool) share(c *conn, resp *http.Response, letGo func()) {
	if resp.Body == http.NoBody {
		letGo()
		p.changed(c)
		return
	}
	resp.Body = &sharedBody{ReadCloser: resp.Body, pool: p, conn: c, letGo: letGo}
}

// releasable makes a request one that can be let go although its body is being
// read, which may wait for its owner for as long as that likes: net/http's Close of
// a response over HTTP/2 waits for such a read, or for the end of the request's
// context. letGo must be called; it costs an HTTP/2 connection nothing.
func (c *conn) releasable(req *http.Request) (releasable *http.Request, letGo func()) {
	if !c.http2 || req.Body == nil || req.Body == http.NoBody {
		return req, func() {}
	}
	if body, ok := req.Body.(http1.InMemory); ok && body.InMemory() {
		return req, func() {}
	}
	ctx, letGo := context.WithCancel(req.Context())
	releasable = req.WithContext(ctx)
	releasable.Body = &stallingBody{ReadCloser: req.Body, life: c.pool.endpoint.cluster.manager.ctx, letGo: letGo}
	return releasable, letGo
}

// stallGrace is how long a request that has failed waits for its body to be read, so
// that its failure can be told with all that was read.
const stallGrace = time.Second

// stallingBody is a body whose Read may wait for its owner. When a stream ends that
// carries it, because its peer has reset it or is gone, net/http closes the body and
// waits for the Read, or for the end of the request's context: forever, if the owner
// has nothing to say.
type stallingBody struct {
	io.ReadCloser
	life    context.Context //nolint:containedctx // it is the mesh's, whose end nobody waits for
	letGo   func()
	reading atomic.Bool
	over    atomic.Bool // the exchange has an answer, or has failed
}

func (b *stallingBody) Read(p []byte) (int, error) {
	b.reading.Store(true)
	defer b.reading.Store(false)
	return b.ReadCloser.Read(p)
}

// Close is called while a Read waits only if nobody wants the rest of the body.
func (b *stallingBody) Close() error {
	err := b.ReadCloser.Close()
	if b.reading.Load() {
		grace := stallGrace
		if b.life.Err() != nil {
			grace = 0
		}
		time.AfterFunc(grace, func() {
			if b.reading.Load() && !b.over.Load() {
				b.letGo()
			}
		})
	}
	return err
}

type sharedBody struct {
	io.ReadCloser
	pool  *pool
	conn  *conn
	letGo func()
}

// Read lets the request go with the end of its response, also for those who do not
// close what they have read.
func (b *sharedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.letGo()
	}
	return n, err
}

// Close returns when the stream has ended, or the connection because its peer does not
// read.
func (b *sharedBody) Close() error {
	b.letGo()
	writes := b.conn.raw.stall
	writes.leave()
	defer writes.left()
	err := b.ReadCloser.Close()
	b.pool.changed(b.conn)
	return err
}

// fail closes the body of a request that is not sent.
func fail(req *http.Request, kind outcome.Kind, err error) *Failure {
	if req.Body != nil {
		err = errors.Join(err, req.Body.Close())
	}
	return &Failure{Kind: kind, Err: err}
}

func protocolOf(config *discovery.Cluster, req *http.Request) wireProtocol {
	switch config.Protocol {
	case discovery.HTTP2:
		return wireHTTP2
	case discovery.HTTPAuto:
		return wireALPN
	case discovery.HTTPDownstream:
		if req.ProtoMajor == 2 {
			return wireHTTP2
		}
	}
	return wireHTTP1
}

// waitKind classifies a failure to get a connection. A context that ended is
// left to the caller, who knows whose time ran out.
func waitKind(err error) outcome.Kind {
	if _, ok := errors.AsType[*overflowError](err); ok {
		return outcome.Overflow
	}
	if _, ok := errors.AsType[*connectError](err); ok {
		return outcome.ConnectFailure
	}
	if errors.Is(err, ErrClosed) {
		return outcome.Closed
	}
	return outcome.Canceled
}

// exchangeFailure says what became of an exchange on a connection.
func exchangeFailure(err error) *Failure {
	e, direct := errors.AsType[*http1.Error](err)
	switch {
	case !direct:
		return sharedFailure(err)
	case e.Unsendable:
		return &Failure{Kind: outcome.BodyFailure, Sent: true, Err: err}
	case !e.Written:
		return &Failure{Kind: outcome.ResetBeforeRequest, Stale: e.Stale, Err: err}
	}
	return &Failure{Kind: outcome.Reset, Sent: true, Stale: e.Stale, Err: err}
}

// sharedFailure is exchangeFailure for a connection of net/http's.
func sharedFailure(err error) *Failure {
	kind, sent := exchangeKind(err)
	f := &Failure{Kind: kind, Sent: sent, Err: err}
	if lost, ok := errors.AsType[*lostError](err); ok && kind == outcome.Reset {
		f.Stale = lost.stale
		if !lost.written {
			f.Kind, f.Sent = outcome.ResetBeforeRequest, false
		}
	}
	return f
}

// exchangeKind classifies a failure on a connection.
//
// net/http does not export what it knows, so some of its marks are read from
// outside; a test holds each against the real thing, and when a mark is not
// recognized the request counts as sent, which is the safe reading.
func exchangeKind(err error) (kind outcome.Kind, sent bool) {
	if isUnsendable(err) {
		return outcome.BodyFailure, true
	}
	if isNothingWritten(err) {
		return outcome.ResetBeforeRequest, false
	}
	if stream, ok := errors.AsType[http2.StreamError](err); ok && stream.Code == http2.ErrCodeRefusedStream {
		return outcome.RefusedStream, true
	}
	if isUnprocessed(err) {
		return outcome.RefusedStream, true
	}
	return outcome.Reset, true
}

// isNothingWritten recognizes net/http's nothingWrittenError: the connection
// broke before the first byte of the request was written.
func isNothingWritten(err error) bool {
	for err != nil {
		if reflect.TypeOf(err).String() == "http.nothingWrittenError" {
			return true
		}
		err = errors.Unwrap(err)
	}
	return false
}

// isUnsendable recognizes requests that cannot be sent as they are: their body is
// not as long as they say, or HTTP/2 has no place for their headers (an upgrade,
// RFC 9113, section 8.2.2).
func isUnsendable(err error) bool {
	return says(err, func(text string) bool {
		return strings.HasPrefix(text, "http: ContentLength=") ||
			strings.HasPrefix(text, "http2: request body larger than specified content length") ||
			strings.HasPrefix(text, "http2: invalid request :path ") ||
			strings.HasPrefix(text, "http2: invalid ") && strings.Contains(text, " request header: ")
	})
}

// isUnprocessed recognizes the errors of net/http's HTTP/2 client for streams
// that a graceful GOAWAY excluded, or that never started.
func isUnprocessed(err error) bool {
	return says(err, func(text string) bool {
		return text == "http2: Transport received Server's graceful shutdown GOAWAY" ||
			text == "http2: client conn not usable" ||
			strings.HasPrefix(text, "http2: client conn could not be established")
	})
}

// says reports whether the text of an error, or of one that it wraps, is a mark. Only
// the beginning of a text may be one: net/http quotes in it what the peer says, who could
// have a request sent again that way.
func says(err error, mark func(text string) bool) bool {
	for ; err != nil; err = errors.Unwrap(err) {
		if mark(err.Error()) {
			return true
		}
	}
	return false
}
