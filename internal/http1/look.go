package http1

import (
	"errors"
	"os"
	"time"
)

// lookTime is how long a look at an opaque connection may take. It takes next to none on
// one that keeps to its deadlines.
const lookTime = time.Second / 2

// restTime is how long the rest of something is waited for that is there already: the
// socket is readable.
const restTime = time.Millisecond

// look returns why an opaque connection cannot carry the next request, nil if it can.
// Reading with a deadline that has passed gives what the connection holds and takes
// nothing from the socket, of which the prober tells. What is there may be TLS's own, such
// as session tickets, so that it must be read. It is for who has reserved the
// connection: this calls code of an application, without a lock.
//
// Over a connection without deadlines only the first request goes, before which there is
// no answer that another could be taken for.
func (c *Conn) look(first bool) (err error) {
	guard := time.AfterFunc(lookTime, func() { _ = c.conn.Close() })
	defer func() {
		if !guard.Stop() {
			err = errDeaf
		}
	}()
	if c.br.Buffered() > 0 {
		return errUnsolicited
	}
	if c.conn.SetReadDeadline(time.Unix(1, 0)) != nil {
		if readable, _ := c.prober.Readable(); readable {
			return errClosedIdle
		}
		if !first {
			return errNoDeadlines
		}
		return nil
	}
	defer func() { _ = c.conn.SetReadDeadline(c.deadline) }() // on a closed connection reads fail anyway
	for {
		switch _, err := c.br.Peek(1); {
		case err == nil:
			return errUnsolicited
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return errClosedIdle
		}
		_ = c.conn.SetReadDeadline(time.Time{}) // a prober may heed it
		if readable, _ := c.prober.Readable(); !readable {
			return nil
		}
		if c.conn.SetReadDeadline(time.Now().Add(restTime)) != nil {
			return errClosedIdle
		}
	}
}
