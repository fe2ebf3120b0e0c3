package upstream

import (
	"errors"
	"io"
	"syscall"
	"time"
)

// A connection of HTTP/2 may have been dying when a request was sent over it, as one of
// HTTP/1.1 may: its peer has ended it while nobody used it, and that is on its way, or its
// peer is no more and says so when it is sent something. net/http tells of either as of a
// connection that broke in the midst of an exchange.
//
// The connection below knows more. Nothing was written over it since the request began: then
// nothing of the request was. Or it had served before, its peer has ended it, and everything
// that has come over it came before the request did: then nobody knows whether the request
// was read, and it is for its owner to say whether it may be sent again. A peer that says
// anything after the request was written, and be it the acknowledgement of a PING, was alive.

// moment is what was known of a connection when a request began.
type moment struct {
	heard, said uint64
	used        bool
}

// now is the moment of a request that is about to begin.
func (c *framesConn) now() moment {
	return moment{heard: c.heard.Load(), said: c.said.Load(), used: c.answered.Load() || c.rested.Load()}
}

// lostError is why a request failed whose connection its peer has ended without a word.
type lostError struct {
	error

	// written is false only if no byte of the request was written.
	written bool
	// stale is as [Failure] has it.
	stale bool
}

func (e *lostError) Unwrap() error { return e.error }

// explain says what is known of a request that began then and has failed, and of which
// nothing is written any more.
func (c *framesConn) explain(then moment, err error) error {
	if !c.gone.Load() {
		return err
	}
	silent := c.heard.Load() == then.heard && (c.records == nil || !c.records.partial.Load())
	lost := &lostError{error: err, written: c.said.Load() != then.said, stale: silent && then.used}
	if lost.written && !lost.stale {
		return err
	}
	return lost
}

// endedByPeer reports whether an error is the end of a connection that its peer, or the
// system of its peer, has made. What the mesh ends itself is none, nor is an end of its
// patience, be that the system's: a peer that was only silent may read the request yet.
func endedByPeer(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// lastWordsTime is how long what a peer has said is read after nothing can be written to it
// any more. It ends at once, but over a connection that an application's dialer has made.
const lastWordsTime = time.Second

// Write writes for as long as there is somebody to write to. net/http would close the
// connection when that fails: what the peer has said before it went would be lost, answers
// too, and whether it has said anything. Its reader sees the end of the connection. One
// writes at a time.
func (c *framesConn) Write(p []byte) (int, error) {
	if c.unheard {
		return len(p), nil
	}
	n, err := c.Conn.Write(p)
	if n > 0 || err == nil {
		c.said.Add(1)
	}
	if err == nil || !endedByPeer(err) && !errors.Is(err, io.ErrClosedPipe) {
		return n, err
	}
	c.unheard = true
	time.AfterFunc(lastWordsTime, func() { _ = c.Close() })
	return len(p), nil
}

// lost lets the other connections go that are idle when one was found dead: they may have
// died as it did, and the request that is sent again must not find that out. Only the first
// request that a connection has lost does so; the others share what the first has made.
func (p *pool) lost(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.lost {
		return
	}
	c.lost = true
	for other := range p.conns {
		if other.http2 && !other.busyLocked() {
			p.retireLocked(other)
		}
	}
}
