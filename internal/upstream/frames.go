package upstream

import (
	"crypto/tls"
	"encoding/binary"
	"math"
	"net"
	"sync"
	"sync/atomic"
)

// framesConn is an HTTP/2 connection below net/http that follows the frames of the peer.
//
// It notices when its reader has dealt with the first one: it wants more although it
// was given the whole of it. It notices a GOAWAY, of which net/http does not tell whose
// connection is idle: it says that it has no room, as it does of one whose server allows
// no streams for now. And it keeps to itself how many streams the peer allows; its reader
// learns that they are as many as there can be. And it counts what comes and goes, see
// moment. Read is called by net/http's read loop only.
type framesConn struct {
	net.Conn
	// header is what was read of the next frame's header, of which there are have bytes;
	// body is what is left of the frame that is being read; begun is set once the first
	// one has been.
	header [frameHeader]byte
	have   int
	body   int
	begun  bool
	// setting is what was read of the next setting in a SETTINGS frame: known bytes.
	setting [settingLength]byte
	known   int
	over    bool // the first frame was dealt with
	settled chan struct{}

	goAway  atomic.Bool
	streams atomic.Int64           // how many the peer allows, noLimit before it has said
	onNews  atomic.Pointer[func()] // nil before the connection is a pool's

	heard    atomic.Uint64 // reads that brought something
	said     atomic.Uint64 // writes of which something may have gone out
	answered atomic.Bool   // a request was
	rested   atomic.Bool   // nobody had a request for it when it was made
	gone     atomic.Bool   // the peer has ended it, and all that it had said was read
	unheard  bool          // the peer takes nothing any more; of Write
	// records is what is below TLS, nil in the clear.
	records *recordsConn

	closeOnce sync.Once
	closed    chan struct{}
}

const (
	// frameHeader is the length of a frame's header, which begins with the length
	// of the rest in three bytes, and the type.
	frameHeader  = 9
	typeHeaders  = 1
	typeSettings = 4
	typeGoAway   = 7

	// settingLength is the length of a setting: its name in two bytes, and its value.
	settingLength        = 6
	maxConcurrentStreams = 3

	noLimit = -1
)

// anyNumber is the value of a setting that is no limit to streams: they have no more
// identifiers (RFC 9113, section 5.1.1).
var anyNumber = [settingLength]byte{2: 0x7f, 3: 0xff, 4: 0xff, 5: 0xff}

// newFramesConn follows a connection that is secured, if it is not nil.
func newFramesConn(conn net.Conn, secured *tls.Conn) *framesConn {
	c := &framesConn{Conn: conn, settled: make(chan struct{}), closed: make(chan struct{})}
	c.streams.Store(noLimit)
	if secured != nil {
		c.records, _ = secured.NetConn().(*recordsConn)
	}
	return c
}

// allowed is how many streams the peer allows at a time, if it has said so.
func (c *framesConn) allowed() (streams int, limited bool) {
	n := c.streams.Load()
	return int(n), n != noLimit
}

func (c *framesConn) Read(p []byte) (int, error) {
	if !c.over && c.begun && c.body == 0 {
		c.over = true
		close(c.settled)
	}
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.heard.Add(1)
	}
	if err != nil && endedByPeer(err) {
		c.gone.Store(true)
	}
	if c.follow(p[:n]) {
		if f := c.onNews.Load(); f != nil {
			(*f)()
		}
	}
	return n, err
}

// follow finds out where frames begin, and reports whether one of them says anything new
// of the streams that the peer takes.
func (c *framesConn) follow(p []byte) (news bool) {
	for len(p) > 0 {
		if n := min(c.body, len(p)); n > 0 {
			if c.header[3] == typeSettings {
				news = c.settings(p[:n]) || news
			}
			c.body -= n
			p = p[n:]
			continue
		}
		n := copy(c.header[c.have:], p)
		p = p[n:]
		if c.have += n; c.have == frameHeader {
			c.have, c.begun = 0, true
			c.body = int(c.header[0])<<16 | int(c.header[1])<<8 | int(c.header[2])
			c.known = 0
			switch c.header[3] {
			case typeHeaders:
				c.answered.Store(true)
			case typeGoAway:
				news = !c.goAway.Swap(true) || news
			}
		}
	}
	return news
}

// settings reads a piece of a SETTINGS frame and takes out of it how many streams the peer
// allows. It reports whether that has changed.
func (c *framesConn) settings(p []byte) (changed bool) {
	for i, b := range p {
		c.setting[c.known] = b
		c.known++
		if c.known <= 2 || binary.BigEndian.Uint16(c.setting[:]) != maxConcurrentStreams {
			c.known %= settingLength
			continue
		}
		p[i] = anyNumber[c.known-1]
		if c.known == settingLength {
			c.known = 0
			streams := int64(min(binary.BigEndian.Uint32(c.setting[2:]), math.MaxInt32))
			changed = c.streams.Swap(streams) != streams || changed
		}
	}
	return changed
}

// Close also tells who waits for the settings that there will be none.
func (c *framesConn) Close() error {
	c.closeOnce.Do(func() { close(c.closed) })
	return c.Conn.Close()
}
