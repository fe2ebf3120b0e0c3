package inbound

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
	// of the rest in three bytes, and the type (RFC 9113, section 4.1).
	frameHeader = 9
	pingType    = 6
	goAwayType  = 7
	// ackFlag is set in the PING that answers one.
	ackFlag    = 1
	pingLength = 8
	// farewellTime is how long a GOAWAY, or a PING, may take to be written.
	farewellTime = time.Second
)

// frames finds out where the frames of HTTP/2 begin. The zero value is at the beginning
// of one.
type frames struct {
	// header is what is known of the header of the next frame, of which there are have
	// bytes, and otherwise that of the last; body is what is left of that one.
	header [frameHeader]byte
	have   int
	body   int
}

// between reports whether a frame has ended, and the next not begun.
func (f *frames) between() bool { return f.have == 0 && f.body == 0 }

// next takes the beginning of p, which is of one frame. It returns what that was of the
// frame's body, and what is left of p.
func (f *frames) next(p []byte) (body, rest []byte) {
	if n := min(f.body, len(p)); n > 0 {
		f.body -= n
		return p[:n], p[n:]
	}
	n := copy(f.header[f.have:], p)
	if f.have += n; f.have == frameHeader {
		f.have, f.body = 0, int(f.header[0])<<16|int(f.header[1])<<8|int(f.header[2])
	}
	return nil, p[n:]
}

// what the peer is to be told.
const (
	wantGoAway = 1 << iota
	wantPing
)

// GoAwayConn is a server's connection of HTTP/2 that can say a GOAWAY between the
// frames that its server writes. gRPC itself can do so only when it stops the server,
// with its listeners, and net/http says no other than that which ends the connection: a
// process that drains goes on to serve those who have not heard yet.
//
// The GOAWAY excludes no stream (RFC 9113, section 6.8: the first of a graceful
// shutdown). The peer begins no more over this connection, and closes it when
// those that it has begun have ended.
type GoAwayConn struct {
	net.Conn

	mu    sync.Mutex
	out   frames // guarded by mu
	begun bool   // guarded by mu; the server has written its settings, which come first
	gone  bool   // guarded by mu; a GOAWAY was said, by the server or here

	wanted atomic.Uint32 // what has to be said at the end of a frame
	ping   uint64        // what the PING says
}

// NetConn is the connection below, as of a [crypto/tls.Conn].
func (c *GoAwayConn) NetConn() net.Conn { return c.Conn }

func (c *GoAwayConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	n, err := c.Conn.Write(p)
	c.followLocked(p[:n])
	c.sayLocked()
	c.mu.Unlock()
	c.say(0) // if it was asked for since
	return n, err
}

func (c *GoAwayConn) followLocked(p []byte) {
	for len(p) > 0 {
		c.begun = true
		_, p = c.out.next(p)
		c.gone = c.gone || c.out.have == 0 && c.out.header[3] == goAwayType
	}
}

// GoAway asks the peer to go, as soon as a frame ends.
func (c *GoAwayConn) GoAway() { c.say(wantGoAway) }

// say says what is wanted unless somebody writes: he does it then.
func (c *GoAwayConn) say(what uint32) {
	c.wanted.Or(what)
	for c.wanted.Load() != 0 && c.mu.TryLock() {
		said := c.sayLocked()
		c.mu.Unlock()
		if !said {
			return // not between frames
		}
	}
}

// sayLocked reports whether nothing is left to say.
func (c *GoAwayConn) sayLocked() bool {
	if c.wanted.Load() == 0 {
		return true
	}
	if !c.begun || !c.out.between() {
		return false
	}
	wanted := c.wanted.Swap(0)
	var room [2*frameHeader + 2*pingLength]byte
	said := room[:0]
	if wanted&wantGoAway != 0 && !c.gone { // a second one must exclude no less
		c.gone = true
		said = append(said, 0, 0, pingLength, goAwayType, 0, 0, 0, 0, 0)
		said = binary.BigEndian.AppendUint32(said, math.MaxInt32) // the last stream
		said = append(said, 0, 0, 0, 0)                           // NO_ERROR
	}
	if wanted&wantPing != 0 {
		said = append(said, 0, 0, pingLength, pingType, 0, 0, 0, 0, 0)
		said = binary.BigEndian.AppendUint64(said, c.ping)
	}
	if len(said) == 0 {
		return true
	}
	// Who does not read for so long hears nothing.
	_ = c.Conn.SetWriteDeadline(time.Now().Add(farewellTime))
	_, err := c.Conn.Write(said)
	_ = c.Conn.SetWriteDeadline(time.Time{})
	if err != nil {
		_ = c.Conn.Close() // a part of the frame may be out
	}
	return true
}
