package upstream

import (
	"errors"
	"net"
	"sync/atomic"
	"time"
)

// writeBounds are for how long a write on a connection that many calls share may make no
// progress.
type writeBounds struct {
	// stalled is after how long an HTTP/2 connection is closed that takes no byte of
	// what is written to it. Its peer stands still or is gone: one that is well reads
	// whatever comes, for what it has no room for is not sent (RFC 9113, section 5.2).
	stalled time.Duration
	// left is the same while somebody waits who lets go of a response: over HTTP/2
	// that is written, too.
	left time.Duration
	// tick is how often a connection is looked at while it is written to.
	tick time.Duration
}

func defaultWriteBounds() writeBounds {
	return writeBounds{stalled: 30 * time.Second, left: 2 * time.Second, tick: time.Second}
}

// stallPiece is how much is written at once: more would take a slow peer too long.
const stallPiece = 64 << 10

var errStalled = errors.New("http2: the peer does not read what is written to it")

// stall closes a connection that many calls share when a write makes no progress.
// net/http writes under a lock which it also needs to read a response, and to close
// it: one peer that stands still in the midst of an upload would hold up all who read
// from it, whatever their time, and the end of the mesh.
type stall struct {
	net.Conn
	close  func() error
	bounds writeBounds
	// ending is whether the mesh is being closed: then nothing is waited for.
	ending *atomic.Bool

	made time.Time
	// since is when the write began that is under way, by now; 0 without one.
	since   atomic.Int64
	leaving atomic.Int32 // how many let go of a response
	broken  atomic.Bool
	armed   atomic.Bool // the connection is going to be looked at
	timer   *time.Timer
}

// watchWrites has the connection closed when it takes nothing. It comes before the
// connection is shared. Writes come one after the other.
func (c *rawConn) watchWrites(bounds writeBounds, ending *atomic.Bool) {
	s := &stall{Conn: c.Conn, close: c.Close, bounds: bounds, ending: ending, made: time.Now()}
	s.timer = time.AfterFunc(time.Hour, s.look)
	s.timer.Stop()
	c.Conn, c.stall = s, s
}

// NetConn is the connection below, as of a [crypto/tls.Conn].
func (s *stall) NetConn() net.Conn { return s.Conn }

// now is the time since the connection was made, and never 0.
func (s *stall) now() int64 { return int64(time.Since(s.made)) + 1 }

func (s *stall) Read(p []byte) (int, error) {
	n, err := s.Conn.Read(p)
	return n, s.explain(err)
}

func (s *stall) Write(p []byte) (n int, err error) {
	for {
		s.since.Store(s.now())
		s.arm()
		m, err := s.Conn.Write(p[n:min(n+stallPiece, len(p))])
		s.since.Store(0)
		if n += m; err != nil || n == len(p) {
			return n, s.explain(err)
		}
	}
}

// explain says of a connection that was closed here why: it is not the mesh that was.
func (s *stall) explain(err error) error {
	if err != nil && s.broken.Load() {
		return errStalled
	}
	return err
}

func (s *stall) arm() {
	if !s.armed.Load() && s.armed.CompareAndSwap(false, true) {
		s.timer.Reset(s.bounds.tick)
	}
}

// look is what the timer does.
func (s *stall) look() {
	if s.since.Load() == 0 {
		s.armed.Store(false)
		if s.since.Load() != 0 { // a write that has just begun has relied on this
			s.arm()
		}
		return
	}
	if !s.check() {
		s.timer.Reset(s.bounds.tick)
	}
}

// check closes the connection if its write has not gone on for too long.
func (s *stall) check() (closed bool) {
	limit := s.bounds.stalled
	switch {
	case s.ending.Load():
		limit = 0
	case s.leaving.Load() > 0:
		limit = s.bounds.left
	}
	since := s.since.Load()
	if since == 0 || time.Duration(s.now()-since) < limit {
		return false
	}
	s.broken.Store(true)
	_ = s.close() // who reads and writes is told why
	return true
}

// leave is called by one who lets go of a response, followed by left.
func (s *stall) leave() {
	s.leaving.Add(1)
	s.check()
}

func (s *stall) left() { s.leaving.Add(-1) }
