// Package ping finds out whether the other end of an HTTP/2 connection is still
// there, by PING frames of its own (RFC 9113, section 6.7).
//
// It is put between the connection and whoever speaks HTTP/2 on it, be that
// net/http or grpc-go, neither of which takes such settings for one connection. It
// adds frames between theirs; the answers go to them, who do not mind what they did
// not ask for.
package ping

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Settings are Envoy's KeepaliveSettings. The zero value sends nothing.
type Settings struct {
	// Interval is after how long without a byte from the peer it is asked; 0 is
	// never. (Envoy asks whatever has come, and servers of gRPC take many questions
	// for an attack. When a connection is known to be dead is the same.)
	Interval time.Duration
	// Jitter is how many percent of Interval are added to it at most, at random
	// each time.
	Jitter float64
	// Timeout is how long the peer has to send anything, then; more than 0.
	Timeout time.Duration
	// Idle is after how long without a byte from the peer it is asked when a
	// request is sent; 0 is never.
	Idle time.Duration
}

// conn is a connection whose peer is asked.
type conn struct {
	net.Conn
	settings Settings

	// heard counts the reads that brought something, last is when the latest was,
	// as the time since made.
	heard atomic.Uint64
	last  atomic.Int64
	made  time.Time

	// writing is held by whoever writes, which may take long.
	writing sync.Mutex
	frames  frames // guarded by writing
	// due is whether a PING is to be written once no frame is under way.
	due atomic.Bool

	mu     sync.Mutex
	timer  *time.Timer // guarded by mu
	closed bool        // guarded by mu
	// asked is whether an answer is waited for, which is that heard is not before
	// any more, until a time since made.
	asked  bool          // guarded by mu
	before uint64        // guarded by mu
	until  time.Duration // guarded by mu
	dead   atomic.Bool
}

// Client returns a client's HTTP/2 connection, of which nothing has been written
// yet, that asks its peer by the settings, and is closed if nothing comes. Closing
// it ends that.
func Client(c net.Conn, settings Settings) net.Conn {
	if settings.Interval <= 0 && settings.Idle <= 0 {
		return c
	}
	p := &conn{Conn: c, settings: settings, frames: newFrames(), made: time.Now()}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.timer = time.AfterFunc(time.Hour, p.look)
	p.timer.Stop()
	p.rearmLocked(0)
	return p
}

// rearmLocked sets the timer for the next question, if nothing is heard; silent is
// for how long nothing has been.
func (c *conn) rearmLocked(silent time.Duration) {
	if c.closed || c.settings.Interval <= 0 {
		return
	}
	wait := c.settings.Interval + time.Duration(rand.Float64()*c.settings.Jitter/100*float64(c.settings.Interval))
	c.timer.Reset(max(wait-silent, 0))
}

// silent is for how long nothing has been heard.
func (c *conn) silent() time.Duration { return time.Since(c.made) - time.Duration(c.last.Load()) }

// look is what the timer does: it asks, or sees whether there is an answer.
func (c *conn) look() {
	c.mu.Lock()
	switch silent := c.silent(); {
	case c.closed, c.asked && time.Since(c.made) < c.until: // the timer was set again meanwhile
	case c.asked && c.heard.Load() == c.before:
		c.dead.Store(true)
		c.mu.Unlock()
		_ = c.Close() // who reads and writes is told why
		return
	case c.asked || silent < c.settings.Interval:
		c.asked = false
		c.rearmLocked(silent)
	default:
		c.askLocked()
	}
	c.mu.Unlock()
	c.flush()
}

// askLocked has a PING written and the time for an answer begin.
func (c *conn) askLocked() {
	c.asked, c.before = true, c.heard.Load()
	c.due.Store(true)
	c.until = time.Since(c.made) + c.settings.Timeout
	c.timer.Reset(c.settings.Timeout)
}

// ask asks at once, unless the peer is being asked.
func (c *conn) ask() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed && (!c.asked || c.heard.Load() != c.before) {
		c.askLocked()
	}
}

// flush writes the PING that is due, or leaves it to the writer that has the
// connection, who comes here when it is done.
func (c *conn) flush() {
	for c.due.Load() && c.writing.TryLock() {
		between := c.frames.between()
		if between {
			c.due.Store(false)
			_, _ = c.Conn.Write(question[:]) // without an answer the connection is dead
		}
		c.writing.Unlock()
		if !between {
			return
		}
	}
}

// question is a PING frame. What it says is of no importance.
var question = [frameHeader + 8]byte{2: 8, 3: framePing, frameHeader: 'i', 'n', 'b', 'o', 'a', 'r', 'd', '?'}

func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.last.Store(int64(time.Since(c.made)))
		c.heard.Add(1)
	}
	return n, c.explain(err)
}

func (c *conn) Write(p []byte) (int, error) {
	c.writing.Lock()
	idle := c.settings.Idle > 0 && c.silent() >= c.settings.Idle
	n, err := c.Conn.Write(p)
	if opened := c.frames.wrote(p[:n]); opened && idle {
		c.ask()
	}
	c.writing.Unlock()
	c.flush()
	return n, c.explain(err)
}

// explain says of a dead connection that it is one.
func (c *conn) explain(err error) error {
	if err != nil && c.dead.Load() {
		return fmt.Errorf("http2: the peer has not answered a PING for %v: %w", c.settings.Timeout, err)
	}
	return err
}

// Close closes the connection. No question is asked any more.
func (c *conn) Close() error {
	c.mu.Lock()
	c.closed = true
	c.timer.Stop()
	c.mu.Unlock()
	return c.Conn.Close()
}

// NetConn is the connection below, as of a [crypto/tls.Conn].
func (c *conn) NetConn() net.Conn { return c.Conn }
