package upstream

import (
	"errors"
	"fmt"
	"net/http"
	"time"
)

// Departure is told when a request has its connection and is about to be sent,
// however long it had to wait. It may change the request's headers.
type Departure interface {
	// Depart refuses to send the request if it returns a failure, which must be of
	// one that was not sent.
	Depart() *Failure
	// Anew reports whether a connection that is idle must not carry the request, for
	// one of them has just been found dead.
	Anew() bool
}

// depart returns a connection with a place for the request, which may be sent over it
// now: departure has been told. If the first connection goes away before anything was
// sent over it, one more is tried: its server is being replaced.
func (p *pool) depart(req *http.Request, departure Departure) (*conn, *Failure) {
	anew := departure != nil && departure.Anew()
	for again := true; ; {
		c, err := p.get(req.Context(), anew)
		if err == nil {
			if departure != nil {
				if refused := departure.Depart(); refused != nil {
					_ = p.release(c) // the call ends anyway
					return nil, fail(req, refused.Kind, refused.Err)
				}
			}
			if !c.cc.refuses() {
				return c, nil
			}
			err = p.release(c)
		}
		switch {
		case err == nil: // the peer allows fewer streams than before
		case again && (errors.Is(err, errGoneAway) || errors.Is(err, errGoneAtOnce)):
			again = false
		default:
			return nil, fail(req, waitKind(err), err)
		}
	}
}

// release gives back a connection that get has returned, and over which nothing was
// sent. It fails as unsent does.
func (p *pool) release(c *conn) error {
	c.cc.Release()
	return p.unsent(c)
}

// unsent takes note of a request that was not sent over the connection that it was given.
// It fails if the connection goes and none ever was.
func (p *pool) unsent(c *conn) error {
	p.changed(c)
	p.mu.Lock()
	defer p.mu.Unlock()
	c.requests--
	switch {
	case c.requests == 0 && c.cc.leaving():
		return &connectError{errGoneAway}
	case c.cc.Err() != nil && c.uselessLocked():
		return &connectError{fmt.Errorf("%w: %w", errGoneAtOnce, c.cc.Err())}
	}
	return nil
}

// uselessLocked reports whether a connection that has ended was made for nothing.
func (c *conn) uselessLocked() bool { return c.requests == 0 && time.Since(c.opened) < uselessTime }

// uselessTime is for how long a connection that nothing was sent over must have been
// open for its end not to be a failure to connect: servers end what is idle.
const uselessTime = time.Second

// These are connections that were of no use. To make another one for each would be to do
// so without a pause for as long as the call lasts.
var (
	errGoneAway   = errors.New("http2: the peer said GOAWAY before the first request")
	errGoneAtOnce = errors.New("the new connection was over before the first request")
)
