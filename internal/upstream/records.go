package upstream

import (
	"net"
	"os"
	"sync/atomic"
)

// recordsConn is a network connection below TLS that knows where TLS records end. Only so
// can be told, of what TLS has read, whether there is more than what it has given: see
// [http1.Records]. Read is called by TLS only.
type recordsConn struct {
	net.Conn
	held     atomic.Bool
	admitted atomic.Bool
	ahead    atomic.Bool
	partial  atomic.Bool // the last Read has ended within a record

	// header is what was read of the next record's header, of which there are have bytes;
	// body is what is left of the record that is being read.
	header [recordHeader]byte
	have   int
	body   int
}

// recordHeader is the length of a record's header, of which the last two bytes are the
// length of the rest (RFC 8446, section 5.1).
const recordHeader = 5

// NetConn is the connection below, as of a [crypto/tls.Conn].
func (c *recordsConn) NetConn() net.Conn { return c.Conn }

// Around is as [http1.Transparent] has it.
func (c *recordsConn) Around() net.Conn { return c.Conn }

// Hold keeps Read from reading, and from waiting. TLS takes its error for a deadline's and
// goes on afterwards.
func (c *recordsConn) Hold(on bool) { c.held.Store(on) }

// Admit lets the next Read through although it is held: the caller knows that it does not
// wait.
func (c *recordsConn) Admit() { c.admitted.Store(true) }

// Ahead reports whether the last Read may have given more than the record that TLS was
// waiting for. It reads when it has no whole record, so that what came before is used up.
func (c *recordsConn) Ahead() bool { return c.ahead.Load() }

func (c *recordsConn) Read(p []byte) (int, error) {
	if c.held.Load() && !c.admitted.Swap(false) {
		return 0, os.ErrDeadlineExceeded
	}
	n, err := c.Conn.Read(p)
	if n > 0 {
		records, rest := c.follow(p[:n])
		c.ahead.Store(records > 1 || records == 1 && rest)
		c.partial.Store(rest)
	}
	return n, err
}

// follow finds out where records end. rest reports whether anything is behind the last
// end.
func (c *recordsConn) follow(p []byte) (records int, rest bool) {
	for len(p) > 0 {
		if n := min(c.body, len(p)); n > 0 {
			c.body -= n
			if p = p[n:]; c.body == 0 {
				records++
			}
			continue
		}
		n := copy(c.header[c.have:], p)
		p = p[n:]
		if c.have += n; c.have == recordHeader {
			c.have = 0
			if c.body = int(c.header[3])<<8 | int(c.header[4]); c.body == 0 {
				records++
			}
		}
	}
	return records, c.have > 0 || c.body > 0
}
