package httpmesh

import (
	"bytes"
	"context"
	"io"
	"net/http"

	"github.com/inboardmesh/inboard/internal/pipeline"
	"github.com/inboardmesh/inboard/outcome"
)

// mirrorResponseLimit is how much of a response to a copy is read, so that its
// connection can be used again.
const mirrorResponseLimit = 1 << 20

// copies are the copies of one request. They are sent when its body has been read
// whole, which the attempts do; nothing is read for them. Only as much of a body
// is kept as for a replay, and a larger one is not copied.
type copies struct {
	transport *Transport
	mirrors   []*pipeline.Mirror
	// request is as it is routed, and has nothing of the caller's that the caller
	// may change when its call has ended. It has no body.
	request *http.Request
	host    string
}

// mirror has copies of the request sent.
func (x *exchange) mirror(mirrors []*pipeline.Mirror) {
	c := &copies{transport: x.transport, mirrors: mirrors, host: x.host}
	if c.host == "" {
		c.host = x.call.Observed.Host
	}
	switch {
	case x.request.Header.Get("Upgrade") != "" || x.request.Method == http.MethodConnect:
		c.drop(pipeline.DropUnsendable) // it is a conversation, and not a request
		return
	case x.body == nil:
	case x.body.length > replayLimit:
		c.drop(pipeline.DropTooLarge)
		return
	}
	u := *x.url
	c.request = &http.Request{
		Method: x.request.Method, URL: &u, Header: x.routed.Clone(),
		Proto: x.request.Proto, ProtoMajor: x.request.ProtoMajor, ProtoMinor: x.request.ProtoMinor,
	}
	c.request.Header.Del("Expect")
	if x.body == nil {
		c.start(nil, x.request.Trailer)
		return
	}
	x.body.awaitWhole(c)
}

// drop says why no copy is sent. A nil c waits for none.
func (c *copies) drop(reason string) {
	if c == nil {
		return
	}
	for _, m := range c.mirrors {
		m.Drop(reason)
	}
}

// start sends the copies. Nobody changes body any more.
func (c *copies) start(body []byte, trailer http.Header) {
	if len(trailer) > 0 {
		c.request.Trailer = trailer.Clone()
	}
	for _, m := range c.mirrors {
		m.Go(func(ctx context.Context) {
			ctx, cancel := context.WithTimeout(ctx, m.Limit)
			defer cancel()
			c.sendTo(ctx, m, body)
		})
	}
}

// sendTo sends one copy and reads what is answered.
func (c *copies) sendTo(ctx context.Context, m *pipeline.Mirror, body []byte) {
	req := c.request.WithContext(ctx)
	if len(body) > 0 {
		req.ContentLength = int64(len(body))
		if len(req.Trailer) > 0 {
			req.ContentLength = -1 // over HTTP/1.1, trailers need chunks
		}
		req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
		req.Body, _ = req.GetBody()
	}
	x := &exchange{transport: c.transport, request: req}
	x.describe(req.URL.Scheme)
	x.routed, x.host = copyHeader(req.Header), m.Host(c.host)
	o := m.Run(ctx, &x.call, x)
	if o.Kind == outcome.Response {
		x.take()
		_, err := io.CopyN(io.Discard, x.resp.Body, mirrorResponseLimit)
		_ = x.resp.Body.Close()
		o = x.bodyOutcome(o, err)
	}
	x.finish(o)
}

// awaitWhole has copies sent when an attempt has read the body whole.
func (b *replayBody) awaitWhole(c *copies) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mirrors = c
	b.mirrored.Store(true)
}

// mirrorWhole has copies sent that wait for the body, if kept, which is what an
// attempt has read of it so far, is all of it; it drops them if that was too much, or
// is not as long as the request says: then it is no request that arrives.
func (b *replayBody) mirrorWhole(kept []byte, ended, overflow bool) {
	b.mu.Lock()
	waiting, trailer := b.mirrors, b.final
	length := int64(len(kept))
	broken := !overflow && b.length > 0 && (length > b.length || ended && length < b.length)
	// What follows the body is known at its end only.
	whole := ended || b.length > 0 && length >= b.length && b.trailer == nil
	if waiting == nil || !whole && !overflow {
		b.mu.Unlock()
		return
	}
	b.mirrors = nil
	b.mirrored.Store(false)
	b.mu.Unlock()
	switch {
	case overflow:
		waiting.drop(pipeline.DropTooLarge)
	case broken:
		waiting.drop(pipeline.DropIncomplete)
	default:
		waiting.start(kept, trailer)
	}
}
