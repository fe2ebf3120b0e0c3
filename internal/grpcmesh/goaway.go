package grpcmesh

import (
	"encoding/binary"
	"math"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// frameHeader is the length of a frame's header, which begins with the length
	// of the rest in three bytes (RFC 9113, section 4.1).
	frameHeader = 9
	goAwayType  = 7
	// farewellTime is how long a GOAWAY may take to be written.
	farewellTime = time.Second
)

// goAwayConn is a server's connection of HTTP/2 that can say a GOAWAY between the
// frames that gRPC writes. gRPC itself can do so only when it stops the server,
// with its listeners: a process that drains goes on to serve those who have not
// heard yet.
//
// The GOAWAY excludes no stream (RFC 9113, section 6.8: the first of a graceful
// shutdown). The peer begins no more over this connection, and closes it when
// those that it has begun have ended.
type goAwayConn struct {
	net.Conn

	mu sync.Mutex
	// header is what is known of the header of the next frame, of which the first
	// part was written; body is what is left of the frame that is being written.
	header []byte // guarded by mu
	body   int    // guarded by mu
	begun  bool   // guarded by mu; the server has written its settings, which come first

	wanted atomic.Bool // the GOAWAY has to be said at the end of a frame
}

// NetConn is the connection below, as of a [crypto/tls.Conn].
func (c *goAwayConn) NetConn() net.Conn { return c.Conn }

func (c *goAwayConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	n, err := c.Conn.Write(p)
	c.followLocked(p[:n])
	c.sayLocked()
	c.mu.Unlock()
	c.say() // if it was asked for since
	return n, err
}

// followLocked finds out where the next frame begins.
func (c *goAwayConn) followLocked(p []byte) {
	for len(p) > 0 {
		c.begun = true
		if n := min(c.body, len(p)); n > 0 {
			c.body -= n
			p = p[n:]
			continue
		}
		if len(c.header) == 0 && len(p) >= frameHeader {
			c.body = int(p[0])<<16 | int(p[1])<<8 | int(p[2])
			p = p[frameHeader:]
			continue
		}
		n := min(frameHeader-len(c.header), len(p))
		c.header = append(c.header, p[:n]...)
		p = p[n:]
		if len(c.header) == frameHeader {
			c.body = int(c.header[0])<<16 | int(c.header[1])<<8 | int(c.header[2])
			c.header = c.header[:0]
		}
	}
}

// goAway asks the peer to go, as soon as a frame ends.
func (c *goAwayConn) goAway() {
	c.wanted.Store(true)
	c.say()
}

// say says the GOAWAY unless somebody writes: he does it then.
func (c *goAwayConn) say() {
	for c.wanted.Load() && c.mu.TryLock() {
		said := c.sayLocked()
		c.mu.Unlock()
		if !said {
			return // not between frames
		}
	}
}

// sayLocked reports whether nothing is left to say.
func (c *goAwayConn) sayLocked() bool {
	if !c.wanted.Load() {
		return true
	}
	if !c.begun || c.body > 0 || len(c.header) > 0 {
		return false
	}
	c.wanted.Store(false)
	var frame [frameHeader + 8]byte
	frame[2], frame[3] = 8, goAwayType
	binary.BigEndian.PutUint32(frame[frameHeader:], math.MaxInt32) // the last stream; the code is NO_ERROR
	// Who does not read for so long hears nothing.
	_ = c.Conn.SetWriteDeadline(time.Now().Add(farewellTime))
	_, err := c.Conn.Write(frame[:])
	_ = c.Conn.SetWriteDeadline(time.Time{})
	if err != nil {
		_ = c.Conn.Close() // a part of the frame may be out
	}
	return true
}
