package upstream

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
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

// wanting is what a call needs of a connection.
type wanting struct {
	// anew is for a request that is made anew: no HTTP/1.1 connection will do that has
	// carried another. Its server may be about to close it, as it has closed the one
	// before. Those of HTTP/2 that were idle went when it was found dead, see pool.lost.
	anew bool
	// since is how many dials had begun when the call came.
	since uint64
}

// depart returns a connection with a place for the request, which may be sent over it
// now: departure has been told. If the first connection goes away before anything was
// sent over it, one more is tried: its server is being replaced. Those that were there
// before the call are tried besides, whatever has become of them.
func (p *pool) depart(req *http.Request, departure Departure) (*conn, *Failure) {
	want := wanting{anew: departure != nil && departure.Anew(), since: p.dials.Load()}
	for again := true; ; {
		c, err := p.get(req.Context(), want)
		if err == nil {
			if departure != nil {
				if refused := departure.Depart(); refused != nil {
					_ = p.release(c, want) // the call ends anyway
					return nil, fail(req, refused.Kind, refused.Err)
				}
			}
			if !c.cc.refuses() {
				return c, nil
			}
			err = p.release(c, want)
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
func (p *pool) release(c *conn, want wanting) error {
	c.cc.Release()
	return p.unsent(c, want)
}

// unsent takes note of a request that was not sent over the connection that it was given.
// It fails if the connection goes, none ever was, and it was made since the call came.
func (p *pool) unsent(c *conn, want wanting) error {
	p.changed(c)
	p.mu.Lock()
	defer p.mu.Unlock()
	c.requests--
	switch {
	case !c.uselessLocked(want):
		return nil
	case c.cc.leaving():
		return &connectError{errGoneAway}
	case c.cc.Err() != nil:
		return &connectError{fmt.Errorf("%w: %w", errGoneAtOnce, c.cc.Err())}
	}
	return nil
}

// uselessLocked reports whether a connection was made for nothing, if it ends now, as far
// as a call is concerned that came before its dial began. Any other was idle, or was made
// for somebody else: it says nothing of what the next dial will do, and there are no more
// of them than there were when the call came.
func (c *conn) uselessLocked(want wanting) bool {
	return c.requests == 0 && c.number > want.since && time.Since(c.opened) < uselessTime
}

// failUselessLocked ends the wait of those for whom a connection that ends was made, none
// if others are on their way to all who wait.
func (p *pool) failUselessLocked(c *conn, err error) {
	n := p.unservedLocked()
	for i := 0; n > 0 && i < len(p.waiters); {
		w := p.waiters[i]
		if !c.uselessLocked(w.wanting) {
			i++
			continue
		}
		p.waiters = slices.Delete(p.waiters, i, i+1)
		p.leftLocked()
		w.ready <- acquired{err: &connectError{err}}
		n--
	}
}

// uselessTime is for how long a connection that nothing was sent over must have been
// open for its end not to be a failure to connect: servers end what is idle.
const uselessTime = time.Second

// These are connections that were of no use. To make another one for each would be to do
// so without a pause for as long as the call lasts.
var (
	errGoneAway   = errors.New("http2: the peer said GOAWAY before the first request")
	errGoneAtOnce = errors.New("the new connection was over before the first request")
)
