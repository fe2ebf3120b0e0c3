package inbound

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"time"
)

const (
	// partingPause is between the GOAWAY that excludes no stream and the PING whose
	// answer is waited for: a client may have begun a stream before it read the one,
	// and not have written that.
	partingPause = time.Second
	// partingTime is how long the peer has for both before it is not waited for: the
	// pause of Envoy, which waits for no answer (drain_timeout).
	partingTime = 5 * time.Second
	// prefaceTime is how long net/http waits for the preface.
	prefaceTime = 10 * time.Second
	preface     = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
)

var errPreface = errors.New("this is not the preface of HTTP/2")

// partingConn is a connection of HTTP/2 to net/http's server, whose GOAWAY excludes the
// streams that are on their way: it is let say that only when there can be none.
//
// The peer is told first to begin no more streams, and then pinged. When it has answered,
// all that it had begun are here, and the server reads a GOAWAY as if it were the peer's:
// it ends the connection behind the streams that it knows, and if there are none. What
// the server reads and writes is followed, and not changed otherwise: net/http leaves an
// answer to a PING of somebody else's alone. Read is called by one goroutine at a time.
type partingConn struct {
	GoAwayConn

	in     frames
	answer [pingLength]byte // what was read of the body of a PING that answers
	known  int
	// ended is set when the peer has answered; bye is what is left to be read of the
	// GOAWAY that the server gets then.
	ended bool
	bye   []byte

	asked atomic.Int64 // when the peer was asked to go, in Unix nanoseconds; 0 before
}

// secureParting is a partingConn over TLS. net/http asks it for its ConnectionState.
type secureParting struct {
	*partingConn
	secure *tls.Conn
}

func (c secureParting) ConnectionState() tls.ConnectionState { return c.secure.ConnectionState() }

// HTTP2 returns the connection that a server of net/http is to serve instead of conn,
// which speaks HTTP/2 over TLS: one whose peer can be asked to go. It reads the preface.
func HTTP2(conn *tls.Conn) (net.Conn, error) {
	_ = conn.SetReadDeadline(time.Now().Add(prefaceTime)) // the read has the error
	var read [len(preface)]byte
	if _, err := io.ReadFull(conn, read[:]); err != nil {
		return nil, err
	}
	if string(read[:]) != preface {
		return nil, errPreface
	}
	_ = conn.SetReadDeadline(time.Time{})
	return secureParting{partingOf(conn), conn}, nil
}

// partingOf returns the connection that a server of net/http is to serve instead of
// conn, of which the preface of HTTP/2 has been read.
func partingOf(conn net.Conn) *partingConn {
	c := &partingConn{}
	c.Conn, c.ping = conn, rand.Uint64()
	if tracked := trackedOf(conn); tracked != nil {
		tracked.parting.Store(c)
		SetFarewell(conn, func() { c.leave(settled - time.Since(tracked.opened)) })
	}
	return c
}

// leave asks the peer to go after a while: one that has just come is about to make its
// first request, and would come back.
func (c *partingConn) leave(after time.Duration) {
	if after > 0 {
		time.AfterFunc(after, func() { c.leave(0) })
		return
	}
	c.asked.Store(time.Now().UnixNano())
	c.GoAway()
	time.AfterFunc(partingPause, func() { c.say(wantPing) })
}

// overdue reports whether the peer is not waited for any more.
func (c *partingConn) overdue() bool {
	asked := c.asked.Load()
	return asked != 0 && time.Now().UnixNano()-asked >= int64(partingTime)
}

func (c *partingConn) Read(p []byte) (int, error) {
	if len(c.bye) > 0 && c.in.between() {
		n := copy(p, c.bye)
		c.bye = c.bye[n:]
		return n, nil
	}
	n, err := c.Conn.Read(p)
	c.follow(p[:n])
	return n, err
}

// follow looks for the answer to the PING.
func (c *partingConn) follow(p []byte) {
	for len(p) > 0 {
		var body []byte
		body, p = c.in.next(p)
		if len(body) == 0 {
			c.known = 0
			continue
		}
		if c.ended || c.in.header[3] != pingType || c.in.header[4]&ackFlag == 0 {
			continue
		}
		c.known += copy(c.answer[min(c.known, pingLength):], body)
		if c.in.body == 0 && c.known == pingLength && binary.BigEndian.Uint64(c.answer[:]) == c.ping && c.asked.Load() != 0 {
			c.ended = true
			// No stream of the server's; NO_ERROR.
			c.bye = []byte{2: 8, 3: goAwayType, frameHeader + 7: 0}
		}
	}
}
