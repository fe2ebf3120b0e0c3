package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
)

// newHTTP2 makes an HTTP/2 connection and waits for the server's SETTINGS, with
// which every server begins (RFC 9113, section 3.4). Before them the client does
// not know how many streams it may open.
func newHTTP2(ctx context.Context, tr *http.Transport, conn net.Conn, secured *tls.Conn, address string) (httpConn, error) {
	frames := newFramesConn(conn, secured)
	cc, err := newClientConn(ctx, tr, frames, address)
	if err != nil {
		return nil, err
	}
	select {
	case <-frames.settled:
		return sharedConn{standardConn{cc}, frames}, nil
	case <-frames.closed:
		err = errors.New("closed by the peer before its settings: does it speak HTTP/2?")
	case <-ctx.Done():
		err = fmt.Errorf("no settings from the peer: %w", context.Cause(ctx))
	}
	return nil, errors.Join(fmt.Errorf("http2: %w", err), ignoreClosed(cc.Close()))
}

// sharedConn is net/http's for HTTP/2, and says what net/http keeps to itself.
//
// It keeps to the number of streams that the peer allows, of which net/http knows
// nothing: net/http would keep the requests for which there is no stream any more when
// the peer allows fewer than before, one of them ahead of all others, and would not
// notice when the peer allows more again. They would wait for as long as they may,
// on a connection that has room.
type sharedConn struct {
	standardConn
	frames *framesConn
}

func (c sharedConn) onChange(f func()) {
	c.standardConn.onChange(f)
	c.frames.onNews.Store(&f)
}

// RoundTrip also finds out what has become of a request whose connection was dying.
func (c sharedConn) RoundTrip(req *http.Request) (*http.Response, error) {
	then := c.frames.now()
	resp, err := c.standardConn.RoundTrip(req)
	if err != nil && req.Context().Err() == nil {
		err = c.frames.explain(then, err)
	}
	return resp, err
}

func (c sharedConn) rest() { c.frames.rested.Store(true) }

func (c sharedConn) leaving() bool { return c.frames.goAway.Load() }

func (c sharedConn) Available() int {
	n := c.standardConn.Available()
	if allowed, limited := c.frames.allowed(); limited {
		n = max(0, min(n, allowed-c.InFlight()))
	}
	return n
}

func (c sharedConn) Reserve() error {
	if c.Available() == 0 {
		return errNoStream
	}
	return c.standardConn.Reserve()
}

func (c sharedConn) refuses() bool {
	allowed, limited := c.frames.allowed()
	return c.leaving() || limited && c.InFlight() > allowed
}

var errNoStream = errors.New("http2: the peer allows no more streams")
